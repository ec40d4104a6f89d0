//! Image encoders: models of candle-transformers, composed of their public parts where a whole one gives class logits.
//!
//! DINOv2 is a ViT whose residuals are scaled: the scales are multiplied into the products before them as the weights are
//! read, and positions are interpolated for the size of the images. candle-transformers' own DINOv2 and BEiT take one image
//! at a time, with a classifier, of the size of one checkpoint each, and the tangent's approximation of GELU; so
//! [BEiT's layers](super::beit) are here. CLIP and SigLIP are candle-transformers' own.

use candle_core::{Error, IndexOp, Module, Result, Shape, Tensor};
use candle_nn::{Func, VarBuilder, func, layer_norm, linear};
use candle_transformers::models::clip::text_model::Activation;
use candle_transformers::models::clip::vision_model::{ClipVisionConfig, ClipVisionTransformer};
use candle_transformers::models::siglip;
use candle_transformers::models::vit::{self, Embeddings};
use recipe::ImageOutput;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

use super::beit;
use super::positions::interpolated;
use crate::config::{self, Config};
use crate::preparation::Preparation;
use crate::random::GRID;
use crate::weights::{scaled, translated};

/// States `(image, token, hidden)` of pixels `(image, channel, row, column)`, or what a model makes of them itself.
pub(crate) type ImageModel = Func<'static>;

/// The architectures of images.
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

impl config::Architecture for ImageArchitecture {
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
}

/// The class token's state, of states `(image, token, hidden)`.
fn class(states: &Tensor) -> Result<Tensor> {
    states.i((.., 0))?.contiguous()
}

/// The mean of the states behind the class token.
fn patches(states: &Tensor) -> Result<Tensor> {
    states.i((.., 1..))?.mean(1)
}

/// The mean of each cell of a grid of patches behind the class token, side by side.
pub(super) fn cells(states: &Tensor) -> Result<Tensor> {
    let (images, tokens, hidden) = states.dims3()?;
    let cell = (tokens - 1).isqrt() / GRID;
    let patches = states.narrow(1, 1, (cell * GRID).pow(2))?;
    patches.reshape(&[images, GRID, cell, GRID, cell, hidden][..])?.mean(4)?.mean(2)?.flatten_from(1)
}

impl Config<ImageArchitecture> {
    /// A tensor that every checkpoint of the architecture has.
    pub(crate) fn probe(&self) -> &'static str {
        match self.architecture {
            ImageArchitecture::Clip | ImageArchitecture::Siglip => "embeddings.patch_embedding.weight",
            _ => "embeddings.patch_embeddings.projection.weight",
        }
    }

    /// The outputs that it has.
    pub(crate) fn outputs(&self) -> &'static [ImageOutput] {
        match self.architecture {
            ImageArchitecture::Dinov2 => &[ImageOutput::Cls, ImageOutput::Patches],
            ImageArchitecture::Siglip => &[ImageOutput::Patches, ImageOutput::Pooler],
            _ => &[ImageOutput::Cls, ImageOutput::Patches, ImageOutput::Pooler],
        }
    }

    /// The preparation of images: as the file says, if there is one, for what it leaves out as the architecture's own
    /// processor does.
    pub(crate) fn preparation(&self, file: Option<&Path>) -> stage::Result<Preparation> {
        let size = self.size("image_size");
        let usual = match self.architecture {
            ImageArchitecture::Vit | ImageArchitecture::Beit => Preparation::vit(size),
            ImageArchitecture::Siglip => Preparation::siglip(size),
            ImageArchitecture::Clip => Preparation::clip(size),
            ImageArchitecture::Dinov2 => Preparation::dinov2(),
        };
        let Some(path) = file else { return Ok(usual) };
        let preparation = Preparation::read(path, usual)?;
        match preparation.size() {
            (height, width) if height == width && self.architecture == ImageArchitecture::Dinov2 => {
                Ok(preparation)
            }
            given if given == (size, size) => Ok(preparation),
            (height, width) => {
                let message =
                    format!("gives images of {height} x {width}, the encoder takes {size} x {size}");
                Err(stage::Error::data(message).at(path))
            }
        }
    }

    /// The way from states to rows `(image, width)`.
    pub(crate) fn head(&self, output: ImageOutput, weights: &VarBuilder) -> Result<Func<'static>> {
        let hidden = self.size("hidden_size");
        Ok(match (output, self.architecture) {
            (ImageOutput::Patches, ImageArchitecture::Siglip) => func(|states| states.mean(1)),
            (ImageOutput::Patches, _) => func(patches),
            // The model does it, with weights that only it can read.
            (ImageOutput::Pooler, ImageArchitecture::Siglip) => func(|rows| Ok(rows.clone())),
            (ImageOutput::Pooler, ImageArchitecture::Beit) if self.pools_patches() => {
                let norm = layer_norm(hidden, self.epsilon(), weights.pp("pooler.layernorm"))?;
                func(move |states| norm.forward(&patches(states)?))
            }
            (ImageOutput::Pooler, ImageArchitecture::Clip) => {
                let norm = layer_norm(hidden, self.epsilon(), weights.pp("post_layernorm"))?;
                func(move |states| norm.forward(&class(states)?))
            }
            (ImageOutput::Pooler, ImageArchitecture::Vit) => {
                let dense = linear(hidden, hidden, weights.pp("pooler.dense"))?;
                func(move |states| dense.forward(&class(states)?)?.tanh())
            }
            (ImageOutput::Cls | ImageOutput::Pooler, _) => func(class),
        })
    }

    /// The model with these weights, for images of `size` pixels along a side; with its own pooler, if that is private.
    pub(crate) fn model(&self, size: usize, pools: bool, weights: VarBuilder<'static>) -> Result<ImageModel> {
        self.require("num_channels", &[3.into()])?;
        let patch = self.size("patch_size");
        if !size.is_multiple_of(patch) {
            candle_core::bail!("images of {size} pixels are no multiple of patch_size {patch}");
        }
        Ok(match self.architecture {
            ImageArchitecture::Vit => vit(&self.of()?, weights)?,
            ImageArchitecture::Dinov2 => {
                self.require("use_swiglu_ffn", &[false.into()])?;
                let ratio = self.value("mlp_ratio").as_u64().unwrap_or_default() as usize;
                let inner = ratio * self.size("hidden_size");
                let config = self.clone().with("image_size", size).with("intermediate_size", inner);
                vit(&config.of()?, translated(weights, of_dinov2))?
            }
            ImageArchitecture::Beit => {
                let model = beit::Beit::new(self, weights)?;
                func(move |pixels| model.forward(pixels))
            }
            ImageArchitecture::Clip => {
                let model = ClipVisionTransformer::new(weights, &self.clip()?)?;
                // The last is the pooler's row; before it are the states before the norm that only the pooler has.
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

    /// The number that layer norms add to the variance.
    pub(super) fn epsilon(&self) -> f64 {
        self.value("layer_norm_eps").as_f64().unwrap_or_default()
    }

    /// Returns whether BEiT's pooler is over the patches; then it has the last norm.
    pub(super) fn pools_patches(&self) -> bool {
        self.value("use_mean_pooling") == true
    }

    fn clip(&self) -> Result<ClipVisionConfig> {
        self.require("hidden_act", &["quick_gelu".into()])?;
        self.require("layer_norm_eps", &[1e-5.into()])?;
        Ok(ClipVisionConfig {
            embed_dim: self.size("hidden_size"),
            activation: Activation::QuickGelu,
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

/// ViT without its classifier.
fn vit(config: &vit::Config, weights: VarBuilder) -> Result<ImageModel> {
    let embeddings = Embeddings::new(config, false, weights.pp("embeddings"))?;
    let encoder = vit::Encoder::new(config, weights.pp("encoder"))?;
    let norm = layer_norm(config.hidden_size, config.layer_norm_eps, weights.pp("layernorm"))?;
    Ok(func(move |pixels| embeddings.forward(pixels, None, false)?.apply(&encoder)?.apply(&norm)))
}

/// DINOv2's name for a tensor of ViT, and the scale that is a layer of its own there.
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
