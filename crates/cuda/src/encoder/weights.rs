//! An encoder's weights on a device.

use kge::Matrix;
use stage::Result;

use crate::Gpu;
use crate::memory::{Array, DeviceMatrix};

/// `x W + b` on a device.
pub struct Linear {
    pub(super) weight: DeviceMatrix,
    pub(super) bias: Array<f32>,
}

impl Linear {
    /// With a weight `(in, out)`.
    ///
    /// # Panics
    /// If the bias has another length than the weight's rows.
    pub fn new(gpu: &Gpu, weight: &Matrix<f32>, bias: &[f32]) -> Result<Linear> {
        assert_eq!(weight.columns(), bias.len(), "a number of the bias for each output");
        Ok(Linear { weight: DeviceMatrix::of(gpu, weight)?, bias: Array::of(gpu, bias)? })
    }

    fn is_of(&self, inputs: usize, outputs: usize) -> bool {
        (self.weight.rows(), self.weight.columns()) == (inputs, outputs)
    }
}

/// A layer norm's weight and bias on a device.
pub struct Norm {
    pub(super) weight: Array<f32>,
    pub(super) bias: Array<f32>,
}

impl Norm {
    /// With these numbers, one of each for every column.
    ///
    /// # Panics
    /// If they are not as many.
    pub fn new(gpu: &Gpu, weight: &[f32], bias: &[f32]) -> Result<Norm> {
        assert_eq!(weight.len(), bias.len(), "weight and bias of a norm");
        Ok(Norm { weight: Array::of(gpu, weight)?, bias: Array::of(gpu, bias)? })
    }

    pub(super) fn is_of(&self, width: usize) -> bool {
        self.weight.len() == width
    }
}

/// One layer's weights.
pub struct Layer {
    /// To queries, keys and values side by side; the queries scaled by one over the square root of a head's width.
    pub inputs: Linear,
    /// From what heads give.
    pub output: Linear,
    /// The norm that is applied when the attention was added.
    pub after_attention: Norm,
    /// Into the feed-forward part.
    pub up: Linear,
    /// Out of it.
    pub down: Linear,
    /// The norm that is applied when the feed-forward part was added: of this layer, or the first one of the next.
    pub after_feed_forward: Norm,
}

impl Layer {
    /// Whether it takes states of this width and gives such.
    pub(super) fn is_of(&self, hidden: usize) -> bool {
        let inner = self.up.weight.columns();
        let norms = [&self.after_attention, &self.after_feed_forward];
        self.inputs.is_of(hidden, 3 * hidden)
            && self.output.is_of(hidden, hidden)
            && self.up.is_of(hidden, inner)
            && self.down.is_of(inner, hidden)
            && norms.iter().all(|norm| norm.is_of(hidden))
    }
}

/// What tokens are made from, beside where they stand.
pub enum Embedding {
    /// A row of this table for each token.
    Words(DeviceMatrix),
    /// A product with this matrix `(in, hidden)` for each token but a sequence's first.
    Patches(DeviceMatrix),
}

impl Embedding {
    pub(super) fn table(&self) -> &DeviceMatrix {
        match self {
            Embedding::Words(table) | Embedding::Patches(table) => table,
        }
    }
}
