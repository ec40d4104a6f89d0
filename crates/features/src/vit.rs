//! ViT: patches become tokens after one for the class, and layers with the norm before each part.

use candle_core::{Device, IndexOp, Tensor};
use candle_nn::{Activation, VarBuilder};
use serde::Deserialize;
use stage::recipe::ImageOutput;
use stage::{Error, Result};

use crate::checkpoint::{CONFIG, Checkpoint, Weights};
use crate::images::encoder::ImageModel;
use crate::transformer::{self, LayerNorm, Layers, Linear, Norms};

const NAME: &str = "vit";

/// Images that go through the layers together on the CPU: more no longer fit the caches.
const CPU_IMAGES: usize = 2;

/// A ViT from a checkpoint.
pub(crate) struct Vit {
    config: Config,
    patches: Linear,
    /// The class token where an image begins, `(1, hidden)`, with its position.
    class: Tensor,
    /// `(patch, hidden)`.
    positions: Tensor,
    layers: Layers,
    norm: LayerNorm,
    output: Output,
}

/// What is taken from the last hidden states.
enum Output {
    Cls,
    Patches,
    Pooler(Linear),
    Logits(Linear),
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

    /// Patches along each side.
    fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
}

impl Vit {
    /// The encoder of a checkpoint.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where the checkpoint is damaged, of another architecture, or has not the `output` asked for.
    pub(crate) fn load(checkpoint: &Checkpoint, output: ImageOutput, device: &Device) -> Result<Vit> {
        let config: Config = checkpoint.config(NAME)?;
        config.check().map_err(|message| Error::data(message).at(checkpoint.path(CONFIG)))?;
        let weights = checkpoint.weights(NAME, "embeddings.cls_token", device)?;
        let head = match output {
            ImageOutput::Pooler => Some(("pooler", weights.body.contains_tensor("pooler.dense.weight"))),
            ImageOutput::Logits => Some(("classifier", weights.all.contains_tensor("classifier.weight"))),
            ImageOutput::Cls | ImageOutput::Patches => None,
        };
        match head {
            Some((name, false)) => Err(checkpoint.headless(name)),
            _ => Self::build(config, &weights, output).map_err(|e| checkpoint.damaged(e)),
        }
    }

    fn build(config: Config, weights: &Weights, output: ImageOutput) -> candle_core::Result<Vit> {
        let (hidden, patch, channels) = (config.hidden_size, config.patch_size, config.num_channels);
        let count = config.grid().pow(2);
        let Weights { body, all } = weights;
        let embeddings = body.pp("embeddings");
        let positions = embeddings.get((1, count + 1, hidden), "position_embeddings")?.i(0)?;
        let projection = embeddings.pp("patch_embeddings.projection");
        let projected = projection.get((hidden, channels, patch, patch), "weight")?.flatten_from(1)?;
        let class = embeddings.get((1, 1, hidden), "cls_token")?.i(0)?;
        Ok(Vit {
            patches: Linear::new(&projected, projection.get(hidden, "bias")?)?,
            class: (class + positions.narrow(0, 0, 1)?)?,
            positions: positions.narrow(0, 1, count)?,
            layers: Layers::load(&config.layers(), body.pp("encoder"))?,
            norm: LayerNorm::load(hidden, config.layer_norm_eps, body.pp("layernorm"))?,
            output: match output {
                ImageOutput::Cls => Output::Cls,
                ImageOutput::Patches => Output::Patches,
                ImageOutput::Pooler => Output::Pooler(Linear::load(hidden, hidden, body.pp("pooler.dense"))?),
                ImageOutput::Logits => Output::Logits(classifier(hidden, all.pp("classifier"))?),
            },
            config,
        })
    }

    /// The tokens `(token, hidden)` of images, one after the other.
    fn tokens(&self, pixels: &[f32], images: usize) -> candle_core::Result<Tensor> {
        let (grid, patch, channels) = (self.config.grid(), self.config.patch_size, self.config.num_channels);
        let shape = [images, channels, grid, patch, grid, patch];
        let pixels = Tensor::from_slice(pixels, &shape[..], self.class.device())?;
        // A convolution whose windows do not overlap is a product with the patches as rows.
        let rows =
            pixels.permute([0, 2, 4, 1, 3, 5])?.reshape((images * grid * grid, channels * patch * patch))?;
        let patches = self.patches.forward(&rows)?;
        let mut tokens = Vec::with_capacity(2 * images);
        for image in 0..images {
            let patches = patches.narrow(0, image * grid * grid, grid * grid)?;
            tokens.extend([self.class.clone(), (patches + &self.positions)?]);
        }
        Tensor::cat(&tokens, 0)
    }

    fn forward(&self, pixels: &[f32], images: usize) -> candle_core::Result<Vec<f32>> {
        let lengths = vec![self.config.grid().pow(2) + 1; images];
        let states = self.layers.forward(self.tokens(pixels, images)?, &lengths)?;
        // The norm is each token's own: where only the first token counts, only that is normalised.
        let first = || self.norm.forward(transformer::firsts(&states, &lengths)?);
        let rows = match &self.output {
            Output::Cls => first()?,
            Output::Pooler(dense) => dense.forward(&first()?)?.tanh()?,
            Output::Logits(classifier) => classifier.forward(&first()?)?,
            Output::Patches => {
                let states = self.norm.forward(states)?;
                let patches = |image: &Tensor| image.narrow(0, 1, image.dim(0)? - 1)?.mean_keepdim(0);
                transformer::of_each(&states, &lengths, patches)?
            }
        };
        rows.flatten_all()?.to_vec1()
    }
}

/// The head that gives class logits; how many classes there are, the weights say.
fn classifier(hidden: usize, weights: VarBuilder) -> candle_core::Result<Linear> {
    let classes = weights.get_unchecked("bias")?.elem_count();
    Linear::load(hidden, classes, weights)
}

impl ImageModel for Vit {
    fn width(&self) -> usize {
        match &self.output {
            Output::Logits(classifier) => classifier.outputs(),
            _ => self.config.hidden_size,
        }
    }

    fn image_size(&self) -> usize {
        self.config.image_size
    }

    fn encode(&self, pixels: Vec<f32>) -> candle_core::Result<Vec<f32>> {
        let one = self.config.num_channels * self.config.image_size.pow(2);
        let images = pixels.len() / one;
        let at_once = if self.class.device().is_cpu() { CPU_IMAGES } else { images.max(1) };
        let chunks = pixels.chunks(at_once * one).map(|pixels| self.forward(pixels, pixels.len() / one));
        Ok(chunks.collect::<candle_core::Result<Vec<_>>>()?.concat())
    }
}
