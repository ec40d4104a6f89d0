//! A whole encoder, from tokens to one row for each sequence: candle's tensors on the CPU, or a device's kernels.
//!
//! Checkpoints are read into [`Parts`], which compute on the CPU. Where there is a device, their numbers go there, and the
//! parts are dropped. What follows a sequence's row (a pooler, a classifier) is a product with as many rows as there are
//! sequences and stays on the CPU.

use candle_core::{Device, IndexOp, Tensor};
use candle_nn::Activation;
use cuda::encoder::{self as device, Taken};
use cuda::{DeviceMatrix, Gpu};
use kge::Matrix;
use recipe::Precision;
use stage::{Modality, Result};

use super::{Config, Layer, LayerNorm, Layers, Linear, Norms, of_each};
use crate::place::Place;
use crate::tensor_error;

/// What an encoder is made of, on the CPU.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) embedding: Embedding,
    pub(crate) layers: Layers,
    /// After the last layer, where parts come after their norms.
    pub(crate) norm: Option<LayerNorm>,
    /// Which of the last states a sequence's row is the mean of.
    pub(crate) taken: Taken,
    pub(crate) head: Head,
}

/// How tokens become states.
pub(crate) enum Embedding {
    /// A row of `words` for each token, one of `positions` for each place, and a norm over both.
    Words { words: Tensor, positions: Tensor, norm: LayerNorm },
    /// Projected patches, each with its place's position, after one state for the class, which has its position already.
    Patches { patches: Linear, class: Tensor, positions: Tensor },
}

/// What becomes of a sequence's row.
pub(crate) enum Head {
    /// It is the feature.
    Nothing,
    /// The pooler: a product and a hyperbolic tangent.
    Pooler(Linear),
    /// The classifier: a product.
    Classifier(Linear),
}

/// The tokens of sequences, one after the other.
pub(crate) enum Tokens {
    /// Rows of the table of words.
    Words(Vec<u32>),
    /// What patches show, `(patch, channel · pixels)`; a sequence's first token has none.
    Patches(Vec<f32>),
}

/// An encoder in the place where it computes.
pub(crate) struct Encoder {
    body: Body,
    head: Head,
}

enum Body {
    Cpu(Box<Parts>),
    Device(Box<device::Encoder>),
}

impl Encoder {
    /// The encoder where `place` says, its products on a device in this precision.
    pub(crate) fn new(parts: Parts, place: &Place, precision: Precision) -> Result<Encoder> {
        let activation = activation(parts.config.activation);
        let lacking = activation.is_none().then(|| format!("`hidden_act` {:?}", parts.config.activation));
        let (Some(gpu), Some(activation)) = (place.gpu(lacking.as_deref())?, activation) else {
            if precision != Precision::F32 {
                tracing::info!("encoders' `precision` is for devices: products are in f32");
            }
            return Ok(Encoder::on_cpu(parts));
        };
        let body = Body::Device(Box::new(parts.upload(&gpu, activation, precision)?));
        Ok(Encoder { body, head: parts.head })
    }

    fn on_cpu(mut parts: Parts) -> Encoder {
        let head = std::mem::replace(&mut parts.head, Head::Nothing);
        Encoder { body: Body::Cpu(Box::new(parts)), head }
    }

    /// Whether it computes on the CPU, where small batches fit the caches.
    pub(crate) fn is_on_cpu(&self) -> bool {
        matches!(self.body, Body::Cpu(_))
    }

    /// What its products are called in a summary.
    pub(crate) fn products(&self) -> String {
        match &self.body {
            Body::Cpu(_) => CPU_PRODUCTS.to_owned(),
            Body::Device(encoder) => encoder.products(),
        }
    }

    /// Refuses a batch of so many sequences that a device's memory does not hold.
    pub(crate) fn require_memory(&self, batch: usize, tokens: usize, modality: &Modality) -> Result<()> {
        let Body::Device(encoder) = &self.body else { return Ok(()) };
        let (bytes, knob) = (|batch| encoder.memory(batch, tokens), format!("features.{modality}.batch"));
        encoder.gpu().require_memory_or(bytes, batch, "encoding", |fits| match fits {
            Some(batch) => format!("`{knob}={batch}` fits; or use --device cpu"),
            None => "no batch fits: use --device cpu".to_owned(),
        })
    }

    /// Each sequence's feature, row after row; sequences of these `lengths` follow each other.
    pub(crate) fn encode(&self, tokens: Tokens, lengths: &[usize]) -> Result<Vec<f32>> {
        let failed = tensor_error("encoding");
        let rows = match &self.body {
            Body::Cpu(parts) => parts.rows(tokens, lengths).map_err(&failed)?,
            Body::Device(encoder) => {
                let rows = match tokens {
                    Tokens::Words(words) => encoder.encode(device::Tokens::Words(&words), lengths)?,
                    Tokens::Patches(patches) => {
                        let count = lengths.iter().sum::<usize>() - lengths.len();
                        let patches = Matrix::from_values(count, patches.len() / count.max(1), patches);
                        encoder.encode(device::Tokens::Patches(&patches), lengths)?
                    }
                };
                Tensor::from_slice(rows.values(), (rows.rows(), rows.columns()), &Device::Cpu)
                    .map_err(&failed)?
            }
        };
        self.head.forward(rows).and_then(|rows| numbers(&rows)).map_err(failed)
    }
}

/// What products on the CPU are called in a summary.
pub(crate) const CPU_PRODUCTS: &str = "f32";

/// The activation on a device, if it has it.
fn activation(activation: Activation) -> Option<device::Activation> {
    match activation {
        Activation::Gelu => Some(device::Activation::Gelu),
        Activation::NewGelu | Activation::GeluPytorchTanh => Some(device::Activation::GeluTanh),
        Activation::Relu => Some(device::Activation::Relu),
        Activation::Silu | Activation::Swish => Some(device::Activation::Silu),
        _ => None,
    }
}

impl Head {
    fn forward(&self, rows: Tensor) -> candle_core::Result<Tensor> {
        match self {
            Head::Nothing => Ok(rows),
            Head::Pooler(dense) => dense.forward(&rows)?.tanh(),
            Head::Classifier(dense) => dense.forward(&rows),
        }
    }
}

impl Embedding {
    /// The first states `(token, hidden)`.
    fn forward(&self, tokens: Tokens, lengths: &[usize]) -> candle_core::Result<Tensor> {
        match (self, tokens) {
            (Embedding::Words { words, positions, norm }, Tokens::Words(ids)) => {
                let places: Vec<u32> = lengths.iter().flat_map(|length| 0..*length as u32).collect();
                let (ids, places) = (Tensor::new(ids, &Device::Cpu)?, Tensor::new(places, &Device::Cpu)?);
                norm.forward((words.index_select(&ids, 0)? + positions.index_select(&places, 0)?)?)
            }
            (Embedding::Patches { patches, class, positions }, Tokens::Patches(shown)) => {
                let shape = (lengths.len() * positions.dim(0)?, patches.inputs()?);
                let projected = patches.forward(&Tensor::from_vec(shown, shape, &Device::Cpu)?)?;
                let own: Vec<usize> = lengths.iter().map(|length| length - 1).collect();
                of_each(&projected, &own, |own| Tensor::cat(&[class, &(own + positions)?], 0))
            }
            _ => candle_core::bail!("tokens of another kind of encoder"),
        }
    }

    /// On a device: what tokens are made from, and what is added to each place.
    fn upload(&self, gpu: &Gpu) -> Result<(device::Embedding, Matrix<f32>)> {
        let failed = tensor_error(UPLOADING);
        match self {
            Embedding::Words { words, positions, .. } => {
                let words = DeviceMatrix::of(gpu, &matrix(words)?)?;
                Ok((device::Embedding::Words(words), matrix(positions)?))
            }
            Embedding::Patches { patches, class, positions } => {
                // A patch's place has the projection's bias beside its position.
                let places = positions.broadcast_add(&patches.bias);
                let places = places.and_then(|places| Tensor::cat(&[class, &places], 0)).map_err(failed)?;
                let projection = DeviceMatrix::of(gpu, &matrix(&patches.weight)?)?;
                Ok((device::Embedding::Patches(projection), matrix(&places)?))
            }
        }
    }
}

impl Parts {
    /// Each sequence's row, before the head.
    fn rows(&self, tokens: Tokens, lengths: &[usize]) -> candle_core::Result<Tensor> {
        let states = self.layers.forward(self.embedding.forward(tokens, lengths)?, lengths)?;
        let normalised = |states| self.norm.iter().try_fold(states, |states, norm| norm.forward(states));
        match self.taken {
            // The norm is each state's own: where only the first counts, only that is normalised.
            Taken::First => normalised(of_each(&states, lengths, |sequence| sequence.narrow(0, 0, 1))?),
            Taken::From(first) => of_each(&normalised(states)?, lengths, |sequence| {
                sequence.narrow(0, first, sequence.dim(0)? - first)?.mean_keepdim(0)
            }),
        }
    }

    /// The same on a device, without the head.
    fn upload(
        &self,
        gpu: &Gpu,
        activation: device::Activation,
        precision: Precision,
    ) -> Result<device::Encoder> {
        let design = device::Design {
            heads: self.config.heads,
            activation,
            epsilon: self.config.epsilon,
            adds_to_normalised: self.config.norms == Norms::After,
            taken: self.taken,
            precision,
        };
        let (embedding, positions) = self.embedding.upload(gpu)?;
        let norms = self.norms().map(|norm| norm.upload(gpu)).collect::<Result<Vec<_>>>()?;
        let mut norms = norms.into_iter();
        let mut norm = || norms.next().expect("an encoder has a norm before or after its layers");
        let first = norm();
        let layers = self.layers.0.iter().map(|layer| layer.upload(gpu, [norm(), norm()]));
        let layers = layers.collect::<Result<_>>()?;
        device::Encoder::new(gpu, design, embedding, &positions, first, layers)
    }

    /// All norms in the order in which they are applied: one more than two for each layer.
    fn norms(&self) -> impl Iterator<Item = &LayerNorm> {
        let of_embedding = match &self.embedding {
            Embedding::Words { norm, .. } => Some(norm),
            Embedding::Patches { .. } => None,
        };
        let of_layers =
            self.layers.0.iter().flat_map(|layer| [&layer.attention_norm, &layer.feed_forward_norm]);
        of_embedding.into_iter().chain(of_layers).chain(&self.norm)
    }
}

impl Layer {
    fn upload(&self, gpu: &Gpu, norms: [device::Norm; 2]) -> Result<device::Layer> {
        let [after_attention, after_feed_forward] = norms;
        Ok(device::Layer {
            inputs: self.attention.inputs.upload(gpu)?,
            output: self.attention.output.upload(gpu)?,
            after_attention,
            up: self.up.upload(gpu)?,
            down: self.down.upload(gpu)?,
            after_feed_forward,
        })
    }
}

impl Linear {
    fn upload(&self, gpu: &Gpu) -> Result<device::Linear> {
        let bias = numbers(&self.bias).map_err(tensor_error(UPLOADING))?;
        device::Linear::new(gpu, &matrix(&self.weight)?, &bias)
    }
}

impl LayerNorm {
    fn upload(&self, gpu: &Gpu) -> Result<device::Norm> {
        let [weight, bias] = [0, 1].map(|i| self.scale.i(i).and_then(|row| numbers(&row)));
        let failed = tensor_error(UPLOADING);
        device::Norm::new(gpu, &weight.map_err(&failed)?, &bias.map_err(&failed)?)
    }
}

/// What is done where parts go to a device, for errors.
const UPLOADING: &str = "copying the encoder to the device";

fn numbers(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

fn matrix(tensor: &Tensor) -> Result<Matrix<f32>> {
    let read = tensor.dims2().and_then(|(rows, columns)| Ok((rows, columns, numbers(tensor)?)));
    let (rows, columns, values) = read.map_err(tensor_error(UPLOADING))?;
    Ok(Matrix::from_values(rows, columns, values))
}
