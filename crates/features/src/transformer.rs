//! The layers of ViT and BERT: attention and a feed-forward part, each with a residual connection and a layer norm.
//!
//! The two differ in where the norm stands and in what a checkpoint calls its tensors; candle-transformers has them as
//! two models. These here give the same numbers in less time. A batch is the tokens of all its sequences in one matrix
//! `(token, hidden)`, and only the attention knows where one sequence ends: so nothing is padded and nothing masked.
//! The three products of the attention's input are one, and what lies between products is done [in place](passes). A
//! device does the same [in its own memory](cuda::encoder); an [`Encoder`] is in either place.

use candle_core::{D, Result, Tensor};
use candle_nn::{Activation, Module, VarBuilder};

mod encoder;
mod passes;

pub(crate) use encoder::{CPU_PRODUCTS, Embedding, Encoder, Head, Parts, Tokens};

/// Sizes and choices that ViT and BERT share.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Width of the hidden states.
    pub(crate) hidden: usize,
    /// Layers.
    pub(crate) layers: usize,
    /// Attention heads per layer.
    pub(crate) heads: usize,
    /// Width of the feed-forward part.
    pub(crate) intermediate: usize,
    /// Between the two products of the feed-forward part.
    pub(crate) activation: Activation,
    /// What layer norms add to the variance.
    pub(crate) epsilon: f64,
    /// Whether queries, keys and values have a bias.
    pub(crate) attention_bias: bool,
    /// Where the layer norms stand.
    pub(crate) norms: Norms,
}

/// Where the layer norms stand, and so what a checkpoint calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Norms {
    /// Before attention and feed-forward part, outside of the residual connection: ViT.
    Before,
    /// After the residual connection: BERT.
    After,
}

/// The layer norms' epsilon where a configuration names none.
pub(crate) fn default_epsilon() -> f64 {
    1e-12
}

impl Config {
    /// Checks what would otherwise only be noticed by a panic or a wrong result.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        let (hidden, heads) = (self.hidden, self.heads);
        let sizes = [
            ("hidden_size", hidden),
            ("num_attention_heads", heads),
            ("intermediate_size", self.intermediate),
        ];
        match sizes.iter().find(|(_, size)| *size == 0) {
            Some((name, _)) => Err(format!("{name} is 0")),
            None if hidden % heads != 0 => {
                Err(format!("hidden_size {hidden} is no multiple of num_attention_heads {heads}"))
            }
            None => Ok(()),
        }
    }

    /// An estimate of the bytes that encoding sequences of so many tokens takes at its peak, per token.
    pub(crate) fn bytes_per_token(&self, tokens: usize) -> u64 {
        // Queries, keys and values, residuals and the attention's output; the feed-forward part; one sequence's scores.
        4 * (7 * self.hidden + self.intermediate + self.heads * tokens) as u64
    }
}

/// The layers, one after the other.
pub(crate) struct Layers(Vec<Layer>);

impl Layers {
    /// From the tensors under `layer.0`, `layer.1` and so on.
    pub(crate) fn load(config: &Config, weights: VarBuilder) -> Result<Layers> {
        let layer = |i| Layer::load(config, weights.pp("layer").pp(i));
        Ok(Layers((0..config.layers).map(layer).collect::<Result<_>>()?))
    }

    /// The hidden states `(token, hidden)` after the last layer; sequences of these `lengths` follow each other.
    pub(crate) fn forward(&self, states: Tensor, lengths: &[usize]) -> Result<Tensor> {
        self.0.iter().try_fold(states, |states, layer| layer.forward(states, lengths))
    }
}

struct Layer {
    norms: Norms,
    activation: Activation,
    attention: Attention,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    feed_forward_norm: LayerNorm,
}

impl Layer {
    fn load(config: &Config, weights: VarBuilder) -> Result<Layer> {
        let (attention, output) = (weights.pp("attention"), weights.pp("output"));
        let (own, attention_norm, feed_forward_norm) = match config.norms {
            Norms::Before => ("attention", weights.pp("layernorm_before"), weights.pp("layernorm_after")),
            Norms::After => ("self", attention.pp("output.LayerNorm"), output.pp("LayerNorm")),
        };
        let norm = |weights| LayerNorm::load(config.hidden, config.epsilon, weights);
        Ok(Layer {
            norms: config.norms,
            activation: config.activation,
            attention: Attention::load(config, attention.pp(own), attention.pp("output.dense"))?,
            attention_norm: norm(attention_norm)?,
            up: Linear::load(config.hidden, config.intermediate, weights.pp("intermediate.dense"))?,
            down: Linear::load(config.intermediate, config.hidden, output.pp("dense"))?,
            feed_forward_norm: norm(feed_forward_norm)?,
        })
    }

    fn forward(&self, states: Tensor, lengths: &[usize]) -> Result<Tensor> {
        match self.norms {
            Norms::Before => {
                let attended =
                    self.attention.forward(&self.attention_norm.forward(states.copy()?)?, lengths)?;
                let states = passes::add(attended, &states)?;
                let fed = self.feed_forward(&self.feed_forward_norm.forward(states.copy()?)?)?;
                passes::add(fed, &states)
            }
            Norms::After => {
                let attended = self.attention.forward(&states, lengths)?;
                let states = self.attention_norm.forward(passes::add(attended, &states)?)?;
                let fed = self.feed_forward(&states)?;
                self.feed_forward_norm.forward(passes::add(fed, &states)?)
            }
        }
    }

    fn feed_forward(&self, states: &Tensor) -> Result<Tensor> {
        let up = self.up.product(states)?;
        let up = match self.activation {
            Activation::Gelu => passes::add_bias_and_gelu(up, &self.up.bias)?,
            other => other.forward(&passes::add_bias(up, &self.up.bias)?)?,
        };
        self.down.forward(&up)
    }
}

struct Attention {
    heads: usize,
    /// Queries, keys and values side by side; the queries scaled by one over the square root of a head's width.
    inputs: Linear,
    output: Linear,
}

impl Attention {
    fn load(config: &Config, own: VarBuilder, output: VarBuilder) -> Result<Attention> {
        let hidden = config.hidden;
        let part = |name, scale: f64| -> Result<[Tensor; 2]> {
            let weight = own.get((hidden, hidden), &format!("{name}.weight"))?;
            let bias = match config.attention_bias {
                true => own.get(hidden, &format!("{name}.bias"))?,
                false => Tensor::zeros(hidden, weight.dtype(), weight.device())?,
            };
            Ok([(weight * scale)?, (bias * scale)?])
        };
        let scale = ((hidden / config.heads) as f64).sqrt().recip();
        let parts = [part("query", scale)?, part("key", 1.0)?, part("value", 1.0)?];
        let [weight, bias] = [0, 1].map(|i| Tensor::cat(&[&parts[0][i], &parts[1][i], &parts[2][i]], 0));
        let inputs = Linear::new(&weight?, bias?)?;
        Ok(Attention { heads: config.heads, inputs, output: Linear::load(hidden, hidden, output)? })
    }

    fn forward(&self, states: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let inputs = self.inputs.forward(states)?;
        self.output.forward(&of_each(&inputs, lengths, |inputs| self.within(inputs))?)
    }

    /// One sequence's values, weighed: `(token, hidden)` from its queries, keys and values, `(token, 3 · hidden)`.
    fn within(&self, inputs: &Tensor) -> Result<Tensor> {
        let (tokens, width) = inputs.dims2()?;
        let shape = (tokens, 3, self.heads, width / 3 / self.heads);
        let heads = inputs.reshape(shape)?.permute((1, 2, 0, 3))?;
        let (query, key, value) = (heads.get(0)?, heads.get(1)?, heads.get(2)?);
        let weights = passes::softmax(query.matmul(&key.t()?)?)?;
        weights.matmul(&value)?.transpose(0, 1)?.flatten_from(D::Minus2)
    }
}

/// `x W + b`.
pub(crate) struct Linear {
    /// `(in, out)`: rows that lie as a product reads them.
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// From the tensors `weight`, `(out, in)`, and `bias`.
    pub(crate) fn load(inputs: usize, outputs: usize, weights: VarBuilder) -> Result<Linear> {
        Linear::new(&weights.get((outputs, inputs), "weight")?, weights.get(outputs, "bias")?)
    }

    /// From a weight `(out, in)` and a bias.
    pub(crate) fn new(weight: &Tensor, bias: Tensor) -> Result<Linear> {
        Ok(Linear { weight: weight.t()?.contiguous()?, bias })
    }

    /// Numbers per row of what it takes.
    pub(crate) fn inputs(&self) -> Result<usize> {
        self.weight.dim(0)
    }

    /// Numbers per row of what it gives.
    pub(crate) fn outputs(&self) -> usize {
        self.bias.elem_count()
    }

    /// `xs` is `(row, in)`; gives `(row, out)`.
    pub(crate) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        passes::add_bias(self.product(xs)?, &self.bias)
    }

    fn product(&self, xs: &Tensor) -> Result<Tensor> {
        xs.matmul(&self.weight)
    }
}

/// A layer norm over the last axis.
pub(crate) struct LayerNorm {
    /// Weight and bias, `(2, width)`.
    scale: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    /// From the tensors `weight` and `bias`, which older checkpoints call `gamma` and `beta`.
    pub(crate) fn load(width: usize, epsilon: f64, weights: VarBuilder) -> Result<LayerNorm> {
        let either = |name, older| {
            let name = if weights.contains_tensor(older) { older } else { name };
            weights.get(width, name)
        };
        let scale = Tensor::stack(&[either("weight", "gamma")?, either("bias", "beta")?], 0)?;
        Ok(LayerNorm { scale, epsilon })
    }

    /// In place where that is possible: `xs` is to be nobody else's.
    pub(crate) fn forward(&self, xs: Tensor) -> Result<Tensor> {
        passes::normalise(xs, &self.scale, self.epsilon)
    }
}

/// What `step` makes of each sequence's rows, one after the other.
fn of_each(rows: &Tensor, lengths: &[usize], step: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let mut start = 0;
    let mut made = Vec::with_capacity(lengths.len());
    for length in lengths {
        made.push(step(&rows.narrow(0, start, *length)?)?);
        start += length;
    }
    Tensor::cat(&made, 0)
}
