//! Image encoders: models of candle-transformers, composed of their public parts where a whole one gives class logits.
//!
//! DINOv2 is a ViT whose residuals are scaled: the scales are multiplied into the products before them as the weights are
//! read, and positions are interpolated for the size of the images. candle-transformers' own DINOv2 and BEiT take one image
//! at a time, with a classifier, of the size of one checkpoint each, and the tangent's approximation of GELU; so
//! [BEiT's layers](super::beit) are here. CLIP and SigLIP are candle-transformers' own.

use candle_core::{Error, IndexOp, Module, Result, Shape, Tensor};
use candle_nn::{LayerNorm, Linear, VarBuilder, layer_norm, linear};
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
use crate::weights::translated;

/// States `(image, token, hidden)` of pixels `(image, channel, row, column)`, or what a model makes of them itself.
pub(crate) type ImageModel = Box<dyn Module + Send + Sync>;

/// The architectures of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Architecture {
    Vit,
    Beit,
    Dinov2,
    #[serde(alias = "clip_vision_model")]
    Clip,
    #[serde(alias = "siglip_vision_model")]
    Siglip,
}

impl config::Architecture for Architecture {
    const USUAL: &str = "vit";

    fn defaults(self) -> Value {
        match self {
            Architecture::Vit => json!({
                "image_size": 224, "patch_size": 16, "num_channels": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
                "qkv_bias": true,
            }),
            Architecture::Beit => json!({
                "image_size": 224, "patch_size": 16, "num_channels": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
                "qkv_bias": true, "use_mean_pooling": true, "use_shared_relative_position_bias": false,
            }),
            Architecture::Dinov2 => json!({
                "image_size": 224, "patch_size": 14, "num_channels": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
                "qkv_bias": true, "mlp_ratio": 4, "use_swiglu_ffn": false,
            }),
            Architecture::Clip => json!({
                "image_size": 224, "patch_size": 32, "num_channels": 3, "hidden_act": "quick_gelu",
                "layer_norm_eps": 1e-5,
            }),
            Architecture::Siglip => json!({
                "image_size": 224, "patch_size": 16, "num_channels": 3, "hidden_act": "gelu_pytorch_tanh",
                "layer_norm_eps": 1e-6,
            }),
        }
    }
}

/// What is taken of a model's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// All: the model has made a row of them.
    Row,
    /// The class token's.
    Class,
    /// The mean of all from this one on.
    From(usize),
    /// The mean of each cell of a grid of patches, behind the class token.
    Cells,
}

/// What becomes of it.
enum Last {
    /// It is the feature.
    Nothing,
    /// A product and a hyperbolic tangent.
    Tanh(Linear),
    /// A norm.
    Norm(LayerNorm),
}

/// From states `(image, token, hidden)` to rows `(image, width)`.
pub(crate) struct Head {
    taken: Taken,
    last: Last,
}

impl Head {
    /// One without weights.
    pub(crate) fn of(taken: Taken) -> Head {
        Head { taken, last: Last::Nothing }
    }

    /// Numbers per image, of so many per state.
    pub(crate) fn width(&self, hidden: usize) -> usize {
        match self.taken {
            Taken::Cells => GRID * GRID * hidden,
            Taken::Row | Taken::Class | Taken::From(_) => hidden,
        }
    }
}

impl Module for Head {
    fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let rows = self.taken.of(states)?;
        match &self.last {
            Last::Nothing => Ok(rows),
            Last::Tanh(dense) => dense.forward(&rows)?.tanh(),
            Last::Norm(norm) => norm.forward(&rows),
        }
    }
}

impl Taken {
    fn of(self, states: &Tensor) -> Result<Tensor> {
        match self {
            Taken::Row => Ok(states.clone()),
            Taken::Class => states.i((.., 0))?.contiguous(),
            Taken::From(first) => states.narrow(1, first, states.dim(1)? - first)?.mean(1),
            Taken::Cells => {
                let (images, tokens, hidden) = states.dims3()?;
                let cell = (tokens - 1).isqrt() / GRID;
                let patches = states.narrow(1, 1, (cell * GRID).pow(2))?;
                let cells = patches.reshape(&[images, GRID, cell, GRID, cell, hidden][..])?;
                cells.mean(4)?.mean(2)?.flatten_from(1)
            }
        }
    }
}

impl Config<Architecture> {
    /// A tensor that every checkpoint of the architecture has.
    pub(crate) fn probe(&self) -> &'static str {
        match self.architecture {
            Architecture::Clip | Architecture::Siglip => "embeddings.patch_embedding.weight",
            _ => "embeddings.patch_embeddings.projection.weight",
        }
    }

    /// What it can give.
    pub(crate) fn outputs(&self) -> &'static [ImageOutput] {
        match self.architecture {
            Architecture::Dinov2 => &[ImageOutput::Cls, ImageOutput::Patches],
            Architecture::Siglip => &[ImageOutput::Patches, ImageOutput::Pooler],
            _ => &[ImageOutput::Cls, ImageOutput::Patches, ImageOutput::Pooler],
        }
    }

    /// How images are prepared: as the file says, if there is one, for what it leaves out as the architecture's own
    /// processor does.
    pub(crate) fn preparation(&self, file: Option<&Path>) -> stage::Result<Preparation> {
        let size = self.size("image_size");
        let usual = match self.architecture {
            Architecture::Vit | Architecture::Beit => Preparation::vit(size),
            Architecture::Siglip => Preparation::siglip(size),
            Architecture::Clip => Preparation::clip(size),
            Architecture::Dinov2 => Preparation::dinov2(),
        };
        let Some(path) = file else { return Ok(usual) };
        let preparation = Preparation::read(path, usual)?;
        match preparation.size() {
            (height, width) if height == width && self.architecture == Architecture::Dinov2 => {
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

    /// What of the states an output is, and what becomes of that.
    pub(crate) fn head(&self, output: ImageOutput, weights: &VarBuilder) -> Result<Head> {
        let hidden = self.size("hidden_size");
        let norm = |name| layer_norm(hidden, self.epsilon(), weights.pp(name)).map(Last::Norm);
        let (taken, last) = match (output, self.architecture) {
            (ImageOutput::Patches, Architecture::Siglip) => (Taken::From(0), Last::Nothing),
            (ImageOutput::Patches, _) => (Taken::From(1), Last::Nothing),
            (ImageOutput::Pooler, Architecture::Siglip) => (Taken::Row, Last::Nothing),
            (ImageOutput::Pooler, Architecture::Beit) if self.pools_patches() => {
                (Taken::From(1), norm("pooler.layernorm")?)
            }
            (ImageOutput::Pooler, Architecture::Clip) => (Taken::Class, norm("post_layernorm")?),
            (ImageOutput::Pooler, Architecture::Vit) => {
                (Taken::Class, Last::Tanh(linear(hidden, hidden, weights.pp("pooler.dense"))?))
            }
            (ImageOutput::Cls | ImageOutput::Pooler, _) => (Taken::Class, Last::Nothing),
        };
        Ok(Head { taken, last })
    }

    /// The model with these weights, for images of `size` pixels along a side, up to what `head` takes.
    pub(crate) fn model(&self, size: usize, head: &Head, weights: VarBuilder<'static>) -> Result<ImageModel> {
        self.require("num_channels", &[3.into()])?;
        let patch = self.size("patch_size");
        if !size.is_multiple_of(patch) {
            candle_core::bail!("images of {size} pixels are no multiple of patch_size {patch}");
        }
        Ok(match self.architecture {
            Architecture::Vit => Box::new(Vit::new(&self.of()?, weights)?),
            Architecture::Dinov2 => {
                self.require("use_swiglu_ffn", &[false.into()])?;
                let ratio = self.value("mlp_ratio").as_u64().unwrap_or_default() as usize;
                let inner = ratio * self.size("hidden_size");
                let config = self.clone().with("image_size", size).with("intermediate_size", inner);
                Box::new(Vit::new(&config.of()?, translated(weights, of_dinov2))?)
            }
            Architecture::Beit => Box::new(beit::Beit::new(self, weights)?),
            Architecture::Clip => Box::new(Clip(ClipVisionTransformer::new(weights, &self.clip()?)?)),
            Architecture::Siglip => {
                let pools = head.taken == Taken::Row;
                Box::new(siglip::VisionModel::new(&self.of()?, pools, weights)?)
            }
        })
    }

    /// What layer norms add to the variance.
    pub(super) fn epsilon(&self) -> f64 {
        self.value("layer_norm_eps").as_f64().unwrap_or_default()
    }

    /// Whether BEiT's pooler is over the patches; then it has the last norm.
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
struct Vit {
    embeddings: Embeddings,
    encoder: vit::Encoder,
    norm: LayerNorm,
}

impl Vit {
    fn new(config: &vit::Config, weights: VarBuilder) -> Result<Vit> {
        Ok(Vit {
            embeddings: Embeddings::new(config, false, weights.pp("embeddings"))?,
            encoder: vit::Encoder::new(config, weights.pp("encoder"))?,
            norm: layer_norm(config.hidden_size, config.layer_norm_eps, weights.pp("layernorm"))?,
        })
    }
}

impl Module for Vit {
    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        self.embeddings.forward(pixels, None, false)?.apply(&self.encoder)?.apply(&self.norm)
    }
}

/// CLIP's states before the norm that only its pooler has.
struct Clip(ClipVisionTransformer);

impl Module for Clip {
    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        // The last is the pooler's row.
        let mut states = self.0.output_hidden_states(pixels)?;
        states.pop();
        states.pop().ok_or_else(|| Error::msg("no layer"))
    }
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
    let tensor = weights.get(shape, &own)?;
    let (layer, number) = match (own.split_once(".attention.output"), own.split_once(".mlp.fc2")) {
        (Some((layer, _)), _) => (layer, 1),
        (_, Some((layer, _))) => (layer, 2),
        (None, None) => return Ok(tensor),
    };
    // Each row of a weight, and each number of a bias, makes one number of what is scaled.
    let scale = weights.get(shape.dims()[0], &format!("{layer}.layer_scale{number}.lambda1"))?;
    tensor.broadcast_mul(&if tensor.rank() == 2 { scale.unsqueeze(1)? } else { scale })
}
