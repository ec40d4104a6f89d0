//! Sources of tensors beside a checkpoint's files: another architecture's checkpoint, and a seed.
//!
//! A model whose layers another model of candle-transformers computes is loaded as that one, from tensors that are renamed,
//! and changed where need be, as it asks for them.

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

/// Gives the tensor that is asked for by name and shape from a checkpoint that calls it otherwise.
type Translate = fn(&VarBuilder, &Shape, &str) -> Result<Tensor>;

/// A checkpoint for the model of another architecture.
pub(crate) fn translated(weights: VarBuilder<'static>, translate: Translate) -> VarBuilder<'static> {
    let (dtype, device) = (weights.dtype(), weights.device().clone());
    VarBuilder::from_backend(Box::new(Translated { weights, translate }), dtype, device)
}

struct Translated {
    weights: VarBuilder<'static>,
    translate: Translate,
}

impl SimpleBackend for Translated {
    fn get(&self, shape: Shape, name: &str, _: Init, _: DType, _: &Device) -> Result<Tensor> {
        (self.translate)(&self.weights, &shape, name)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        self.weights.get_unchecked(name)
    }

    /// Returns whether it is there under the same name.
    fn contains_tensor(&self, name: &str) -> bool {
        self.weights.contains_tensor(name)
    }
}

/// The tensor `name` of a product, so that it comes out times the vector `scale`: each row of a weight, and each number of a
/// bias, makes one number of what is scaled.
pub(crate) fn scaled(weights: &VarBuilder, shape: &Shape, name: &str, scale: &str) -> Result<Tensor> {
    let (tensor, scale) = (weights.get(shape, name)?, weights.get(shape.dims()[0], scale)?);
    tensor.broadcast_mul(&if tensor.rank() == 2 { scale.unsqueeze(1)? } else { scale })
}
