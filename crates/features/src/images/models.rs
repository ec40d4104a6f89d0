//! Image encoders: models of candle-transformers, built from public parts where the whole model gives class logits.
//!
//! DINOv2 is a ViT with scaled residuals: the scales are multiplied into the preceding products when the weights are
//! read, and positions are interpolated to the size of the images. candle-transformers' own DINOv2 and BEiT take one
//! image at a time, have a classifier, fit the size of one checkpoint each, and use the tanh approximation of GELU. So
//! this module has its own BEiT layers: a ViT's with a bias in each attention head that depends on the distance of two
//! patches, which candle-transformers' ViT lacks. CLIP and SigLIP are candle-transformers' own.

use candle_core::{D, Error, IndexOp, Module, Result, Shape, Tensor};
use candle_nn::ops::softmax_last_dim;
use candle_nn::{Func, LayerNorm, VarBuilder, func, layer_norm, linear, linear_b};
use candle_transformers::models::clip::text_model;
use candle_transformers::models::clip::vision_model::{ClipVisionConfig, ClipVisionTransformer};
use candle_transformers::models::siglip;
use candle_transformers::models::vit::{self, Embeddings};
use recipe::ImageOutput;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

use crate::checkpoint::{Architecture, Config};
use crate::preparation::Preparation;
use crate::weights::{GRID, scaled, translated};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImageArchitecture {
    Vit,
    Beit,
    Dinov2,
    #[serde(alias = "clip_vision_model")]
    Clip,
    #[serde(alias = "siglip_vision_model")]
    Siglip,
}

impl Architecture for ImageArchitecture {
    type Output = ImageOutput;
    const USUAL: &str = "vit";

    fn defaults(self) -> Value {
        match self {
            ImageArchitecture::Vit => json!({}),
            ImageArchitecture::Beit => json!({ "use_mean_pooling": true }),
            ImageArchitecture::Dinov2 => json!({ "patch_size": 14, "layer_norm_eps": 1e-6, "mlp_ratio": 4 }),
            ImageArchitecture::Clip => {
                json!({ "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5 })
            }
            ImageArchitecture::Siglip => json!({ "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6 }),
        }
    }

    fn probe(self) -> &'static str {
        match self {
            ImageArchitecture::Clip | ImageArchitecture::Siglip => "embeddings.patch_embedding.weight",
            _ => "embeddings.patch_embeddings.projection.weight",
        }
    }

    fn outputs(self) -> &'static [ImageOutput] {
        match self {
            ImageArchitecture::Dinov2 => &[ImageOutput::Cls, ImageOutput::Patches],
            ImageArchitecture::Siglip => &[ImageOutput::Patches, ImageOutput::Pooler],
            _ => &[ImageOutput::Cls, ImageOutput::Patches, ImageOutput::Pooler],
        }
    }
}

/// The state of the class token in states `(image, token, hidden)`.
fn class(states: &Tensor) -> Result<Tensor> {
    states.i((.., 0))?.contiguous()
}

/// The mean of the states after the class token.
fn patches(states: &Tensor) -> Result<Tensor> {
    states.i((.., 1..))?.mean(1)
}

/// The mean of each cell of a grid of the patches after the class token; the means stand side by side.
pub(super) fn cells(states: &Tensor) -> Result<Tensor> {
    let (images, tokens, hidden) = states.dims3()?;
    let cell = (tokens - 1).isqrt() / GRID;
    let patches = states.narrow(1, 1, (cell * GRID).pow(2))?;
    patches.reshape(&[images, GRID, cell, GRID, cell, hidden][..])?.mean(4)?.mean(2)?.flatten_from(1)
}

impl Config<ImageArchitecture> {
    /// The preparation of images that the file describes, if there is one. The architecture's own processor gives the
    /// values that the file leaves out.
    pub(crate) fn preparation(&self, file: Option<&Path>) -> stage::Result<Preparation> {
        let (size, side) = (self.size("image_size"), self.number("image_size"));
        let usual = match self.architecture {
            ImageArchitecture::Vit => Preparation::vit(side),
            ImageArchitecture::Beit | ImageArchitecture::Siglip => Preparation::siglip(side),
            ImageArchitecture::Clip => Preparation::clip(side),
            ImageArchitecture::Dinov2 => Preparation::dinov2(),
        };
        let Some(path) = file else { return Ok(usual) };
        let preparation = Preparation::read(path, usual)?;
        let [height, width] = preparation.size();
        if height == width && (height == size || self.architecture == ImageArchitecture::Dinov2) {
            return Ok(preparation);
        }
        let message = format!("gives images of {height} x {width}, the encoder takes {size} x {size}");
        Err(stage::Error::data(message).at(path))
    }

    /// The function from states to rows `(image, width)`.
    pub(crate) fn head(&self, output: ImageOutput, weights: &VarBuilder) -> Result<Func<'static>> {
        let hidden = self.size("hidden_size");
        Ok(match (output, self.architecture) {
            (ImageOutput::Patches, ImageArchitecture::Siglip) => func(|states| states.mean(1)),
            (ImageOutput::Patches, _) => func(patches),
            // The model pools by itself, with weights that only it can read.
            (ImageOutput::Pooler, ImageArchitecture::Siglip) => func(|rows| Ok(rows.clone())),
            (ImageOutput::Pooler, ImageArchitecture::Beit) if self.pools_patches() => {
                let norm = self.norm(weights.pp("pooler.layernorm"))?;
                func(move |states| norm.forward(&patches(states)?))
            }
            (ImageOutput::Pooler, ImageArchitecture::Clip) => {
                let norm = self.norm(weights.pp("post_layernorm"))?;
                func(move |states| norm.forward(&class(states)?))
            }
            (ImageOutput::Pooler, ImageArchitecture::Vit) => {
                self.require("pooler_act", &["tanh".into()])?;
                let dense = linear(hidden, hidden, weights.pp("pooler.dense"))?;
                func(move |states| dense.forward(&class(states)?)?.tanh())
            }
            (ImageOutput::Cls | ImageOutput::Pooler, _) => func(class),
        })
    }

    /// The model with these weights, for images of `size` pixels along a side: from pixels `(image, channel, row,
    /// column)` it computes states `(image, token, hidden)`. With `pools`, a model whose pooler is private also pools.
    pub(crate) fn model(
        &self,
        size: usize,
        pools: bool,
        weights: VarBuilder<'static>,
    ) -> Result<Func<'static>> {
        self.require("num_channels", &[3.into()])?;
        let patch = self.size("patch_size");
        if !size.is_multiple_of(patch) {
            candle_core::bail!("images of {size} pixels are no multiple of patch_size {patch}");
        }
        Ok(match self.architecture {
            ImageArchitecture::Vit => vit(&self.of()?, weights)?,
            ImageArchitecture::Dinov2 => {
                self.require("use_swiglu_ffn", &[false.into()])?;
                let inner = self.size("mlp_ratio") * self.size("hidden_size");
                let config = self.clone().with("image_size", size).with("intermediate_size", inner);
                vit(&config.of()?, translated(weights, of_dinov2))?
            }
            ImageArchitecture::Beit => beit(self, weights)?,
            ImageArchitecture::Clip => {
                let model = ClipVisionTransformer::new(weights, &self.clip()?)?;
                // The last entry is the pooler's row; the one before is the states without the pooler's norm.
                func(move |pixels| match model.output_hidden_states(pixels)?.as_slice() {
                    [.., states, _] => Ok(states.clone()),
                    _ => Err(Error::msg("no layer")),
                })
            }
            ImageArchitecture::Siglip => {
                let model = siglip::VisionModel::new(&self.of()?, pools, weights)?;
                func(move |pixels| model.forward(pixels))
            }
        })
    }

    fn norm(&self, weights: VarBuilder) -> Result<LayerNorm> {
        layer_norm(self.size("hidden_size"), self.number::<f64>("layer_norm_eps"), weights)
    }

    /// Returns whether BEiT's pooler averages the patches; the last norm is then part of the pooler.
    fn pools_patches(&self) -> bool {
        self.value("use_mean_pooling") == true
    }

    fn clip(&self) -> Result<ClipVisionConfig> {
        self.require("hidden_act", &["quick_gelu".into()])?;
        self.require("layer_norm_eps", &[1e-5.into()])?;
        Ok(ClipVisionConfig {
            embed_dim: self.size("hidden_size"),
            activation: text_model::Activation::QuickGelu,
            intermediate_size: self.size("intermediate_size"),
            num_hidden_layers: self.size("num_hidden_layers"),
            num_attention_heads: self.size("num_attention_heads"),
            projection_dim: 0,
            num_channels: 3,
            image_size: self.size("image_size"),
            patch_size: self.size("patch_size"),
        })
    }
}

fn vit(config: &vit::Config, weights: VarBuilder) -> Result<Func<'static>> {
    let embeddings = Embeddings::new(config, false, weights.pp("embeddings"))?;
    let encoder = vit::Encoder::new(config, weights.pp("encoder"))?;
    let norm = layer_norm(config.hidden_size, config.layer_norm_eps, weights.pp("layernorm"))?;
    Ok(func(move |pixels| embeddings.forward(pixels, None, false)?.apply(&encoder)?.apply(&norm)))
}

/// BEiT, up to the states that its pooler takes.
fn beit(config: &Config<ImageArchitecture>, weights: VarBuilder<'static>) -> Result<Func<'static>> {
    config.require("use_shared_relative_position_bias", &[false.into()])?;
    let weights = translated(weights, scaled_or_not);
    let embeddings = Embeddings::new(&config.of()?, false, weights.pp("embeddings"))?;
    let layers = (0..config.size("num_hidden_layers"))
        .map(|i| beit_layer(config, weights.pp("encoder.layer").pp(i)))
        .collect::<Result<Vec<_>>>()?;
    // The norm comes after the last layer if the pooler has none.
    let norm = (!config.pools_patches()).then(|| config.norm(weights.pp("layernorm"))).transpose()?;
    Ok(func(move |pixels| {
        let states = embeddings.forward(pixels, None, false)?;
        let states = layers.iter().try_fold(states, |states, layer| layer.forward(&states))?;
        norm.iter().try_fold(states, |states, norm| norm.forward(&states))
    }))
}

/// The tensor `name`; missing positions are 0, and scales of residuals are multiplied into the products before them.
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

fn beit_layer(config: &Config<ImageArchitecture>, weights: VarBuilder) -> Result<Func<'static>> {
    let [hidden, inner, heads] =
        ["hidden_size", "intermediate_size", "num_attention_heads"].map(|name| config.size(name));
    let before = config.norm(weights.pp("layernorm_before"))?;
    let after = config.norm(weights.pp("layernorm_after"))?;
    let own = weights.pp("attention.attention");
    let biased = config.value("qkv_bias") == true;
    let [queries, keys, values] = [("query", biased), ("key", false), ("value", biased)]
        .map(|(name, bias)| linear_b(hidden, hidden, bias, own.pp(name)));
    let inputs = [queries?, keys?, values?];
    let output = linear(hidden, hidden, weights.pp("attention.output.dense"))?;
    let (side, table) =
        (config.size("image_size") / config.size("patch_size"), own.pp("relative_position_bias"));
    let has_bias = table.contains_tensor("relative_position_bias_table");
    // The shape is `(1, head, token, token)`.
    let bias = has_bias.then(|| bias(side, heads, &table)).transpose()?;
    let up = linear(hidden, inner, weights.pp("intermediate.dense"))?;
    let down = linear(inner, hidden, weights.pp("output.dense"))?;
    let activation = config.activation()?;
    Ok(func(move |states| {
        let (images, tokens, _) = states.dims3()?;
        let shape = (images, tokens, heads, hidden / heads);
        let normed = states.apply(&before)?;
        let [queries, keys, values] = inputs
            .each_ref()
            .map(|input| input.forward(&normed)?.reshape(shape)?.transpose(1, 2)?.contiguous());
        let scale = ((hidden / heads) as f64).sqrt().recip();
        let scores = (queries? * scale)?.matmul(&keys?.t()?)?;
        let scores = bias.iter().try_fold(scores, |scores, bias| scores.broadcast_add(bias))?;
        let attended = softmax_last_dim(&scores)?.matmul(&values?)?.transpose(1, 2)?.contiguous()?;
        let states = (attended.flatten_from(D::Minus2)?.apply(&output)? + states)?;
        let widened = states.apply(&after)?.apply(&up)?.apply(&activation)?;
        widened.apply(&down)? + states
    }))
}

/// The row of the bias table for two tokens. The table has a row for each distance of two patches in a square of `side`
/// patches, then three more: from the class token, to the class token, and from the class token to itself.
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

/// The bias of each head between any two tokens.
fn bias(side: usize, heads: usize, weights: &VarBuilder) -> Result<Tensor> {
    let span = 2 * side - 1;
    let tokens = side * side + 1;
    let entries: Vec<u32> =
        (0..tokens * tokens).map(|i| entry(side, i / tokens, i % tokens) as u32).collect();
    let entries = Tensor::from_vec(entries, tokens * tokens, weights.device())?;
    let table = weights.get((span * span + 3, heads), "relative_position_bias_table")?;
    table.index_select(&entries, 0)?.reshape((1, tokens, tokens, heads))?.permute((0, 3, 1, 2))?.contiguous()
}

/// The tensor of DINOv2 that has another name in ViT, times the scale that is a layer of its own in DINOv2.
fn of_dinov2(weights: &VarBuilder, shape: &Shape, name: &str) -> Result<Tensor> {
    if name == "embeddings.position_embeddings" {
        return interpolated(&weights.get_unchecked(name)?, shape.dims()[1] - 1);
    }
    let names = [
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("intermediate.dense", "mlp.fc1"),
        ("attention.output.dense", "attention.out"),
        ("output.dense", "mlp.fc2"),
        ("attention.out", "attention.output.dense"),
    ];
    let own = names.iter().fold(name.to_owned(), |name, (vit, own)| name.replace(vit, own));
    match (own.split_once(".attention.output"), own.split_once(".mlp.fc2")) {
        (Some((layer, _)), _) => scaled(weights, shape, &own, &format!("{layer}.layer_scale1.lambda1")),
        (_, Some((layer, _))) => scaled(weights, shape, &own, &format!("{layer}.layer_scale2.lambda1")),
        (None, None) => weights.get(shape, &own),
    }
}

/// Positions `(1, 1 + patch, hidden)` for `patches` patches in a square, interpolated from the positions of another
/// square; the class token's position stays. Bicubic, as in PyTorch without antialiasing.
fn interpolated(positions: &Tensor, patches: usize) -> Result<Tensor> {
    let (_, tokens, hidden) = positions.dims3()?;
    let (old, new) = ((tokens - 1).isqrt(), patches.isqrt());
    if tokens - 1 == patches {
        return Ok(positions.clone());
    }
    let weights = Tensor::from_vec(cubic(old, new), (new, old), positions.device())?;
    let mut grid = positions.i((0, 1..))?.reshape((old, old, hidden))?;
    // Each pass interpolates the first axis: rows, then columns.
    for _ in 0..2 {
        let along = weights.matmul(&grid.contiguous()?.flatten_from(1)?)?;
        grid = along.reshape((new, (), hidden))?.transpose(0, 1)?;
    }
    Tensor::cat(&[positions.i((.., ..1))?, grid.reshape((1, patches, hidden))?], 1)
}

/// The weights of the `old` places along a side for each of the `new` places, `(new, old)`.
fn cubic(old: usize, new: usize) -> Vec<f32> {
    let mut weights = vec![0.0; new * old];
    let [from, to] = [old, new].map(|places| places as f64);
    for (i, row) in (0u32..).zip(weights.chunks_exact_mut(old)) {
        // The centre of a place lies half a place from its edges.
        let at = (f64::from(i) + 0.5) * from / to - 0.5;
        for tap in -1..=2 {
            let place = at.floor() + f64::from(tap);
            row[place.clamp(0.0, from - 1.0) as usize] += kernel((at - place).abs()) as f32;
        }
    }
    weights
}

/// The cubic convolution of Keys for a distance in places, with a = -0.75.
fn kernel(x: f64) -> f64 {
    const A: f64 = -0.75;
    match x {
        x if x <= 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((x - 5.0) * x + 8.0) * x * A - 4.0 * A,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// `torch.nn.functional.interpolate(.., mode="bicubic", align_corners=False)` of a row.
    #[test]
    fn rows_are_interpolated_as_pytorch_does() {
        let row = [0.0, 1.0, 4.0, 9.0, 16.0, 8.0];
        let interpolated = |new: usize| -> Vec<f32> {
            cubic(6, new).chunks(6).map(|weights| weights.iter().zip(row).map(|(w, x)| w * x).sum()).collect()
        };
        let fewer = [0.121094, 2.828125, 11.394531, 10.058594];
        let more = [-0.086806, 0.21875, 1.430555, 3.152778, 6.125, 10.577546, 15.776623, 12.65625, 7.305552];
        for theirs in [&fewer[..], &more, &row] {
            let ours = interpolated(theirs.len());
            assert!(ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-5), "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn the_class_token_keeps_its_position() {
        let positions = Tensor::arange(0f32, 20.0, &Device::Cpu).unwrap().reshape((1, 10, 2)).unwrap();
        let larger = interpolated(&positions, 36).unwrap();
        assert_eq!(larger.dims(), [1, 37, 2]);
        assert_eq!(larger.i((0, 0)).unwrap().to_vec1::<f32>().unwrap(), [0.0, 1.0]);
    }
}
