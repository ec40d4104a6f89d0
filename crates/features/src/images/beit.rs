//! BEiT's layers: a ViT's with, in the attention, a bias for each head that depends on how far two
//! patches are from each other.
//!
//! candle-transformers has them as one model that is private but for its logits, for images of 384 x 384 pixels, one at a
//! time: a bias cannot be put into its ViT, so this one is written here.

use candle_core::{D, Module, Result, Shape, Tensor};
use candle_nn::{Activation, LayerNorm, Linear, VarBuilder, layer_norm, linear_b, ops::softmax_last_dim};
use candle_transformers::models::vit::Embeddings;

use super::models::ImageArchitecture;
use crate::config::Config;
use crate::weights::{scaled, translated};

/// BEiT, up to the states that its pooler sees.
pub(super) struct Beit {
    embeddings: Embeddings,
    layers: Vec<BeitLayer>,
    /// After the last layer, where the pooler has none.
    norm: Option<LayerNorm>,
}

struct BeitLayer {
    norms: [LayerNorm; 2],
    /// Queries, keys and values.
    inputs: [Linear; 3],
    output: Linear,
    /// `(1, head, token, token)`.
    bias: Option<Tensor>,
    up: Linear,
    down: Linear,
    activation: Activation,
    heads: usize,
}

impl Beit {
    pub(super) fn new(config: &Config<ImageArchitecture>, weights: VarBuilder<'static>) -> Result<Beit> {
        config.require("use_shared_relative_position_bias", &[false.into()])?;
        let (hidden, epsilon) = (config.size("hidden_size"), config.epsilon());
        let weights = translated(weights, scaled_or_not);
        let mut layers = Vec::new();
        for i in 0..config.size("num_hidden_layers") {
            layers.push(BeitLayer::new(config, weights.pp("encoder.layer").pp(i))?);
        }
        let norm = if config.pools_patches() {
            None
        } else {
            Some(layer_norm(hidden, epsilon, weights.pp("layernorm"))?)
        };
        Ok(Beit {
            embeddings: Embeddings::new(&config.of()?, false, weights.pp("embeddings"))?,
            layers,
            norm,
        })
    }
}

/// Positions are 0 where there are none, and residuals' scales, if there are any, are in the products before them.
fn scaled_or_not(weights: &VarBuilder, shape: &Shape, name: &str) -> Result<Tensor> {
    if name == "embeddings.position_embeddings" && !weights.contains_tensor(name) {
        return Tensor::zeros(shape, weights.dtype(), weights.device());
    }
    let scale = match (name.split_once(".attention.output."), name.split_once(".output.")) {
        (Some((layer, _)), _) => format!("{layer}.lambda_1"),
        (None, Some((layer, _))) => format!("{layer}.lambda_2"),
        (None, None) => return weights.get(shape, name),
    };
    if weights.contains_tensor(&scale) {
        scaled(weights, shape, name, &scale)
    } else {
        weights.get(shape, name)
    }
}

impl Module for Beit {
    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let states = self.embeddings.forward(pixels, None, false)?;
        let states = self.layers.iter().try_fold(states, |states, layer| layer.forward(&states))?;
        self.norm.iter().try_fold(states, |states, norm| norm.forward(&states))
    }
}

impl BeitLayer {
    fn new(config: &Config<ImageArchitecture>, weights: VarBuilder) -> Result<BeitLayer> {
        let [hidden, inner, heads] =
            ["hidden_size", "intermediate_size", "num_attention_heads"].map(|name| config.size(name));
        let [before, after] = ["layernorm_before", "layernorm_after"]
            .map(|name| layer_norm(hidden, config.epsilon(), weights.pp(name)));
        let own = weights.pp("attention.attention");
        let biased = config.value("qkv_bias") == true;
        let [queries, keys, values] = [("query", biased), ("key", false), ("value", biased)]
            .map(|(name, bias)| linear_b(hidden, hidden, bias, own.pp(name)));
        let table = own.pp("relative_position_bias");
        Ok(BeitLayer {
            norms: [before?, after?],
            inputs: [queries?, keys?, values?],
            output: linear_b(hidden, hidden, true, weights.pp("attention.output.dense"))?,
            bias: if table.contains_tensor("relative_position_bias_table") {
                Some(bias(config.size("image_size") / config.size("patch_size"), heads, &table)?)
            } else {
                None
            },
            up: linear_b(hidden, inner, true, weights.pp("intermediate.dense"))?,
            down: linear_b(inner, hidden, true, weights.pp("output.dense"))?,
            activation: config.activation()?,
            heads,
        })
    }

    fn attention(&self, states: &Tensor) -> Result<Tensor> {
        let (images, tokens, hidden) = states.dims3()?;
        let shape = (images, tokens, self.heads, hidden / self.heads);
        let [queries, keys, values] = self
            .inputs
            .each_ref()
            .map(|input| input.forward(states)?.reshape(shape)?.transpose(1, 2)?.contiguous());
        let scale = ((hidden / self.heads) as f64).sqrt().recip();
        let scores = (queries? * scale)?.matmul(&keys?.t()?)?;
        let scores = self.bias.iter().try_fold(scores, |scores, bias| scores.broadcast_add(bias))?;
        let attended = softmax_last_dim(&scores)?.matmul(&values?)?;
        attended.transpose(1, 2)?.contiguous()?.flatten_from(D::Minus2)?.apply(&self.output)
    }

    fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let states = (self.attention(&states.apply(&self.norms[0])?)? + states)?;
        let up = states.apply(&self.norms[1])?.apply(&self.up)?.apply(&self.activation)?;
        up.apply(&self.down)? + states
    }
}

/// The entry of a bias between two tokens in its table, which has one for each distance of two patches of a square of
/// `side` patches, and behind them three: from the class token, to it, and from it to itself.
fn entry(side: usize, from: usize, to: usize) -> usize {
    let span = 2 * side - 1;
    match (from.checked_sub(1), to.checked_sub(1)) {
        (None, None) => span * span + 2,
        (Some(_), None) => span * span + 1,
        (None, Some(_)) => span * span,
        (Some(from), Some(to)) => {
            let rows = from / side + side - 1 - to / side;
            rows * span + from % side + side - 1 - to % side
        }
    }
}

/// Each head's bias between any two tokens.
fn bias(side: usize, heads: usize, weights: &VarBuilder) -> Result<Tensor> {
    let span = 2 * side - 1;
    let tokens = side * side + 1;
    let entries: Vec<u32> =
        (0..tokens * tokens).map(|i| entry(side, i / tokens, i % tokens) as u32).collect();
    let entries = Tensor::from_vec(entries, tokens * tokens, weights.device())?;
    let table = weights.get((span * span + 3, heads), "relative_position_bias_table")?;
    table.index_select(&entries, 0)?.reshape((1, tokens, tokens, heads))?.permute((0, 3, 1, 2))?.contiguous()
}
