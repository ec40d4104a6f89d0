//! A transformer on a device, as BERT and ViT are: tokens become states, layers change them, and each sequence's states
//! become one row.
//!
//! A batch is the tokens of all its sequences in one matrix `(token, hidden)`, nothing padded, and only the attention knows
//! where one sequence ends. Its products are done for all heads of all sequences of one length at once, so the number of
//! calls grows with the layers and with how many different lengths follow each other, not with sequences or heads. Weights
//! go up once, then ids or patches for each batch; one row per sequence comes down.

use kge::Matrix;
use recipe::Precision;
use stage::Result;
use std::sync::{Mutex, PoisonError};

use crate::Gpu;
use crate::backend::Products;
use crate::kernel::{self, ROWS};
use crate::memory::{Address, Array, DeviceMatrix, View};

mod buffers;
mod weights;

use buffers::{Buffers, Group};
pub use weights::{Embedding, Layer, Linear, Norm};

/// Stands for a token without a row; as in `kernels.cu`.
const ROWLESS: u32 = u32::MAX;

/// Between the two products of the feed-forward part. Numbers as in `kernels.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Activation {
    /// `x Φ(x)`.
    Gelu = 1,
    /// Its approximation by a hyperbolic tangent.
    GeluTanh,
    /// The larger of `x` and 0.
    Relu,
    /// `x / (1 + e^-x)`.
    Silu,
}

/// None, where a bias is all there is.
const IDENTITY: u64 = 0;

/// Choices of an architecture.
#[derive(Clone, Copy, Debug)]
pub struct Design {
    /// Attention heads per layer.
    pub heads: usize,
    /// Between the two products of the feed-forward part.
    pub activation: Activation,
    /// What layer norms add to the variance.
    pub epsilon: f64,
    /// Whether parts are added to normalised states, as in BERT, or to states as they are, as in ViT.
    pub adds_to_normalised: bool,
    /// Which of a sequence's states its row is the mean of.
    pub taken: Taken,
    /// Of all products.
    pub precision: Precision,
}

/// Which of a sequence's states its row is the mean of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The first alone.
    First,
    /// All from this one on.
    From(usize),
}

/// What a batch's tokens are, sequence after sequence.
#[derive(Clone, Copy, Debug)]
pub enum Tokens<'a> {
    /// Rows of the table.
    Words(&'a [u32]),
    /// What is multiplied, `(patch, in)`; the first token of a sequence has none.
    Patches(&'a Matrix<f32>),
}

/// A transformer on a device. It never changes, so threads share it; they take turns.
pub struct Encoder {
    gpu: Gpu,
    design: Design,
    embedding: Embedding,
    /// `(place, hidden)`, added to a sequence's tokens in order.
    positions: DeviceMatrix,
    /// The norm that is applied first of all.
    first: Norm,
    layers: Vec<Layer>,
    buffers: Mutex<Buffers>,
}

impl Encoder {
    /// With weights that are on the device. `positions` is `(place, hidden)`; `first` is the norm that is applied before
    /// the first layer.
    ///
    /// # Errors
    /// If the device's memory is full.
    ///
    /// # Panics
    /// If the weights are not of one hidden width, or heads do not divide it.
    pub fn new(
        gpu: &Gpu,
        design: Design,
        embedding: Embedding,
        positions: &Matrix<f32>,
        first: Norm,
        layers: Vec<Layer>,
    ) -> Result<Encoder> {
        let hidden = positions.columns();
        assert!(hidden.is_multiple_of(design.heads), "heads of one width");
        let is_whole = first.is_of(hidden) && layers.iter().all(|layer| layer.is_of(hidden));
        assert!(is_whole && embedding.table().columns() == hidden, "weights of one hidden width");
        let positions = DeviceMatrix::of(gpu, positions)?;
        let buffers = Mutex::new(Buffers::new(gpu));
        Ok(Encoder { gpu: gpu.clone(), design, embedding, positions, first, layers, buffers })
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// What its products are called in a summary.
    pub fn products(&self) -> String {
        self.gpu.products(self.design.precision)
    }

    /// An estimate of the bytes that encoding so many `sequences` of so many `tokens` each takes beside the weights.
    pub fn memory(&self, sequences: usize, tokens: usize) -> u64 {
        let hidden = self.hidden();
        let up = self.layers.iter().map(|layer| layer.up.weight.columns()).max().unwrap_or(0);
        let normalised = if self.design.adds_to_normalised { 0 } else { hidden };
        let patches = match &self.embedding {
            Embedding::Words(_) => 0,
            Embedding::Patches(projection) => projection.rows() + hidden,
        };
        // States, queries, keys, values and what heads give; the feed-forward part; scores; lists and what else there is.
        let of_token = 5 * hidden + up + self.design.heads * tokens + normalised + patches + 2;
        let of_sequence = 10 * self.design.heads + hidden;
        4 * (sequences * (tokens * of_token + of_sequence)) as u64
    }

    fn hidden(&self) -> usize {
        self.positions.columns()
    }

    /// The rows `(sequence, hidden)` of sequences that have these `lengths`, none of them 0.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If tokens, lengths, and what the embedding knows do not fit each other.
    pub fn encode(&self, tokens: Tokens<'_>, lengths: &[usize]) -> Result<Matrix<f32>> {
        let mut found = Matrix::zeros(0, self.hidden());
        if lengths.is_empty() {
            return Ok(found);
        }
        assert!(lengths.iter().all(|length| (1..=self.positions.rows()).contains(length)), "known places");
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let buffers = &mut *buffers;
        let groups = buffers.resize(&self.design, self.hidden(), lengths)?;
        self.embed(tokens, lengths, buffers)?;
        self.normalise(None, &self.first, buffers)?;
        for layer in &self.layers {
            self.attend(layer, &groups, buffers)?;
            self.normalise(Some(&layer.output.bias), &layer.after_attention, buffers)?;
            self.feed_forward(layer, buffers)?;
            self.normalise(Some(&layer.down.bias), &layer.after_feed_forward, buffers)?;
        }
        self.take(lengths, buffers)?;
        buffers.rows.read(&mut found)?;
        Ok(found)
    }

    /// The first states: what a token is, and where it stands.
    fn embed(&self, tokens: Tokens<'_>, lengths: &[usize], buffers: &mut Buffers) -> Result<()> {
        let count: usize = lengths.iter().sum();
        let Buffers { lists, patches, projected, states, .. } = buffers;
        lists.clear();
        let (table, rows) = match (tokens, &self.embedding) {
            (Tokens::Words(words), Embedding::Words(table)) => {
                assert!(words.len() == count, "a word for each token");
                assert!(words.iter().all(|word| (*word as usize) < table.rows()), "words of the table");
                (table, lists.add(words.iter().copied()))
            }
            (Tokens::Patches(given), Embedding::Patches(projection)) => {
                assert_eq!(given.rows() + lengths.len(), count, "a patch for each token but the first");
                patches.write(given)?;
                self.multiply(false, patches, projection, projected)?;
                let mut next = 0..given.rows() as u32;
                let of_sequence = lengths.iter().flat_map(|length| 0..*length);
                let rows = of_sequence.map(|place| if place == 0 { None } else { next.next() });
                (&*projected, lists.add(rows.map(|row| row.unwrap_or(ROWLESS))))
            }
            _ => panic!("tokens of the embedding's kind"),
        };
        let places = lists.add(lengths.iter().flat_map(|length| 0..*length as u32));
        lists.send()?;
        let arguments = kernel::Embed {
            table: table.at(0),
            rows: lists.at(rows, 0),
            positions: self.positions.at(0),
            places: lists.at(places, 0),
            into: states.at(0),
            width: self.hidden() as u64,
        };
        self.gpu.launch(count, &arguments)
    }

    /// Adds the attention's part to the states, without its bias.
    fn attend(&self, layer: &Layer, groups: &[Group], buffers: &mut Buffers) -> Result<()> {
        let Buffers { states, normalised, inputs, attended, scores, places, .. } = buffers;
        let source = if self.design.adds_to_normalised { &*states } else { &*normalised };
        self.multiply(false, source, &layer.inputs.weight, inputs)?;
        self.activate(IDENTITY, &layer.inputs.bias, inputs)?;
        let (all, hidden) = (places.len() / 5, self.hidden());
        let width = hidden / self.design.heads;
        for group in groups {
            let list = |part: usize| places.at(part * all + group.first);
            let (rows, count) = (group.length, group.count);
            let precision = self.design.precision;
            // Of one head: `width` of the columns of all heads, or a matrix of its own.
            let part = |address, stride, columns| View { address, rows, columns, stride, transposed: false };
            let [queries, keys, values] = [0, 1, 2].map(|i| part(list(i), 3 * hidden, width));
            let weights = part(list(3), rows, rows);
            let products =
                |a, b, into, stride| self.gpu.products_at(&Products { precision, count, a, b, into, stride });
            products(queries, keys.transposed(), list(3), rows)?;
            let softmax = kernel::Softmax {
                scores: scores.at(group.scores),
                rows: (count * rows) as u64,
                width: rows as u64,
            };
            self.gpu.launch((count * rows).div_ceil(ROWS), &softmax)?;
            products(weights, values, list(4), hidden)?;
        }
        self.multiply(true, attended, &layer.output.weight, states)
    }

    /// Adds the feed-forward part to the states, without its last bias.
    fn feed_forward(&self, layer: &Layer, buffers: &mut Buffers) -> Result<()> {
        let Buffers { states, normalised, up, .. } = buffers;
        let source = if self.design.adds_to_normalised { &*states } else { &*normalised };
        self.multiply(false, source, &layer.up.weight, up)?;
        self.activate(self.design.activation as u64, &layer.up.bias, up)?;
        self.multiply(true, up, &layer.down.weight, states)
    }

    fn multiply(
        &self,
        keep: bool,
        a: &DeviceMatrix,
        b: &DeviceMatrix,
        into: &mut DeviceMatrix,
    ) -> Result<()> {
        self.gpu.product(self.design.precision, keep, 1.0, a.view(), b.view(), into)
    }

    fn activate(&self, activation: u64, bias: &Array<f32>, xs: &DeviceMatrix) -> Result<()> {
        let arguments =
            kernel::Activate { xs: xs.at(0), bias: bias.at(0), width: xs.columns() as u64, activation };
        self.gpu.launch(xs.rows(), &arguments)
    }

    /// Adds a bias to the states, and normalises them: in place, or beside them.
    fn normalise(&self, bias: Option<&Array<f32>>, norm: &Norm, buffers: &mut Buffers) -> Result<()> {
        let Buffers { states, normalised, .. } = buffers;
        let into = if self.design.adds_to_normalised { states.at(0) } else { normalised.at(0) };
        let arguments = kernel::Normalise {
            states: states.at(0),
            bias: bias.map_or(Address(0), |bias| bias.at(0)),
            weight: norm.weight.at(0),
            shift: norm.bias.at(0),
            into,
            rows: states.rows() as u64,
            width: states.columns() as u64,
            epsilon: self.design.epsilon as f32,
        };
        self.gpu.launch(states.rows().div_ceil(ROWS), &arguments)
    }

    /// Each sequence's row.
    fn take(&self, lengths: &[usize], buffers: &mut Buffers) -> Result<()> {
        let Buffers { lists, states, normalised, rows, .. } = buffers;
        let mut next = 0;
        let taken = lengths.iter().map(|length| {
            let start = next;
            next += length;
            match self.design.taken {
                Taken::First => (start, start + 1),
                Taken::From(first) => (start + first, next),
            }
        });
        let (firsts, ends): (Vec<usize>, Vec<usize>) = taken.unzip();
        lists.clear();
        let [firsts, ends] = [firsts, ends].map(|list| lists.add(list.into_iter().map(|token| token as u32)));
        lists.send()?;
        rows.resize(lengths.len(), self.hidden())?;
        let last = if self.design.adds_to_normalised { &*states } else { &*normalised };
        let arguments = kernel::Means {
            states: last.at(0),
            firsts: lists.at(firsts, 0),
            ends: lists.at(ends, 0),
            into: rows.at(0),
            width: self.hidden() as u64,
        };
        self.gpu.launch(lengths.len(), &arguments)
    }
}

#[cfg(test)]
mod tests;
