//! ViT: patches become tokens after one for the class, and layers with the norm before each part.

use candle_core::IndexOp;
use candle_nn::{Activation, VarBuilder};
use cuda::encoder::Taken;
use recipe::{ImageOutput, Precision};
use serde::Deserialize;
use stage::{Error, Result};

use crate::checkpoint::{CONFIG, Checkpoint, Weights};
use crate::images::encoder::ImageModel;
use crate::place::Place;
use crate::transformer::{self, Embedding, Encoder, Head, LayerNorm, Layers, Linear, Norms, Parts, Tokens};

const NAME: &str = "vit";

/// Images that go through the layers together on the CPU: more no longer fit the caches.
const CPU_IMAGES: usize = 2;

/// A ViT from a checkpoint.
pub(crate) struct Vit {
    config: Config,
    /// Numbers per image.
    width: usize,
    encoder: Encoder,
}

/// The part of a `config.json` that decides the numbers; what older ones lack has the default of that time.
#[derive(Deserialize)]
struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    image_size: usize,
    patch_size: usize,
    #[serde(default = "three")]
    num_channels: usize,
    #[serde(default = "yes")]
    qkv_bias: bool,
    #[serde(default)]
    hidden_act: Activation,
    #[serde(default = "transformer::default_epsilon")]
    layer_norm_eps: f64,
}

fn three() -> usize {
    3
}

fn yes() -> bool {
    true
}

impl Config {
    /// Checks what would otherwise only be noticed by a panic or a wrong result.
    fn check(&self) -> Result<(), String> {
        let (image, patch) = (self.image_size, self.patch_size);
        if self.num_channels != 3 {
            return Err(format!("num_channels is {}, images have 3", self.num_channels));
        }
        if patch == 0 || image == 0 || image % patch != 0 {
            return Err(format!("image_size {image} is no multiple of patch_size {patch}"));
        }
        self.layers().check()
    }

    fn layers(&self) -> transformer::Config {
        transformer::Config {
            hidden: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            intermediate: self.intermediate_size,
            activation: self.hidden_act,
            epsilon: self.layer_norm_eps,
            attention_bias: self.qkv_bias,
            norms: Norms::Before,
        }
    }

    /// Patches of an image.
    fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Tokens of an image: one for the class, then its patches.
    fn tokens(&self) -> usize {
        self.patches() + 1
    }

    /// What patches show, `(patch, channel · pixels)`, of pixels `(image, channel, row, column)`: a convolution whose windows
    /// do not overlap is a product with these rows.
    fn shown(&self, pixels: &[f32]) -> Vec<f32> {
        let (size, patch) = (self.image_size, self.patch_size);
        let mut shown = Vec::with_capacity(pixels.len());
        for image in pixels.chunks_exact(self.num_channels * size * size) {
            for corner in
                (0..size).step_by(patch).flat_map(|y| (0..size).step_by(patch).map(move |x| y * size + x))
            {
                for channel in image.chunks_exact(size * size) {
                    (0..patch).for_each(|y| shown.extend(&channel[corner + y * size..][..patch]));
                }
            }
        }
        shown
    }
}

impl Vit {
    /// The encoder of a checkpoint.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where the checkpoint is damaged, of another architecture, or has not the `output` asked for.
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        output: ImageOutput,
        place: &Place,
        precision: Precision,
    ) -> Result<Vit> {
        let config: Config = checkpoint.config(NAME)?;
        config.check().map_err(|message| Error::data(message).at(checkpoint.path(CONFIG)))?;
        let weights = checkpoint.weights(NAME, "embeddings.cls_token")?;
        let head = match output {
            ImageOutput::Pooler => Some(("pooler", weights.body.contains_tensor("pooler.dense.weight"))),
            ImageOutput::Logits => Some(("classifier", weights.all.contains_tensor("classifier.weight"))),
            ImageOutput::Cls | ImageOutput::Patches => None,
        };
        if let Some((name, false)) = head {
            return Err(checkpoint.headless(name));
        }
        let parts = parts(&config, &weights, output).map_err(|e| checkpoint.damaged(e))?;
        let width = match &parts.head {
            Head::Classifier(classifier) => classifier.outputs(),
            _ => config.hidden_size,
        };
        Ok(Vit { encoder: Encoder::new(parts, place, precision)?, width, config })
    }
}

fn parts(config: &Config, weights: &Weights, output: ImageOutput) -> candle_core::Result<Parts> {
    let (hidden, patch, channels) = (config.hidden_size, config.patch_size, config.num_channels);
    let Weights { body, all } = weights;
    let embeddings = body.pp("embeddings");
    let positions = embeddings.get((1, config.tokens(), hidden), "position_embeddings")?.i(0)?;
    let projection = embeddings.pp("patch_embeddings.projection");
    let projected = projection.get((hidden, channels, patch, patch), "weight")?.flatten_from(1)?;
    let class = embeddings.get((1, 1, hidden), "cls_token")?.i(0)?;
    let layers = config.layers();
    Ok(Parts {
        embedding: Embedding::Patches {
            patches: Linear::new(&projected, projection.get(hidden, "bias")?)?,
            class: (class + positions.narrow(0, 0, 1)?)?,
            positions: positions.narrow(0, 1, config.patches())?,
        },
        layers: Layers::load(&layers, body.pp("encoder"))?,
        config: layers,
        norm: Some(LayerNorm::load(hidden, config.layer_norm_eps, body.pp("layernorm"))?),
        taken: match output {
            ImageOutput::Patches => Taken::From(1),
            ImageOutput::Cls | ImageOutput::Pooler | ImageOutput::Logits => Taken::First,
        },
        head: match output {
            ImageOutput::Cls | ImageOutput::Patches => Head::Nothing,
            ImageOutput::Pooler => Head::Pooler(Linear::load(hidden, hidden, body.pp("pooler.dense"))?),
            ImageOutput::Logits => Head::Classifier(classifier(hidden, all.pp("classifier"))?),
        },
    })
}

/// The head that gives class logits; how many classes there are, the weights say.
fn classifier(hidden: usize, weights: VarBuilder) -> candle_core::Result<Linear> {
    let classes = weights.get_unchecked("bias")?.elem_count();
    Linear::load(hidden, classes, weights)
}

impl ImageModel for Vit {
    fn width(&self) -> usize {
        self.width
    }

    fn image_size(&self) -> usize {
        self.config.image_size
    }

    fn encoder(&self) -> Option<(&Encoder, usize)> {
        Some((&self.encoder, self.config.tokens()))
    }

    fn encode(&self, pixels: Vec<f32>) -> Result<Vec<f32>> {
        let (one, tokens) = (self.config.num_channels * self.config.image_size.pow(2), self.config.tokens());
        let at_once = if self.encoder.is_on_cpu() { CPU_IMAGES } else { (pixels.len() / one).max(1) };
        let chunks = pixels.chunks(at_once * one).map(|pixels| {
            let shown = self.config.shown(pixels);
            self.encoder.encode(Tokens::Patches(shown), &vec![tokens; pixels.len() / one])
        });
        Ok(chunks.collect::<Result<Vec<_>>>()?.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A convolution's windows, one number at a time.
    #[test]
    fn patches_are_the_windows_of_a_convolution() {
        let config: Config = serde_json::from_value(serde_json::json!({
            "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
            "image_size": 6, "patch_size": 2,
        }))
        .unwrap();
        let images = 2;
        let pixels: Vec<f32> = (0..images * 3 * 36).map(|i| i as f32).collect();
        let mut shown = config.shown(&pixels).into_iter();
        for image in 0..images {
            for (row, column) in (0..9).map(|patch| (patch / 3, patch % 3)) {
                for (channel, y, x) in (0..12).map(|i| (i / 4, i / 2 % 2, i % 2)) {
                    let at = ((image * 3 + channel) * 6 + 2 * row + y) * 6 + 2 * column + x;
                    assert_eq!(shown.next(), Some(at as f32));
                }
            }
        }
        assert_eq!(shown.next(), None);
    }
}
