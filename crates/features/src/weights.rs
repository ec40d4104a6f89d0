//! Sources of tensors other than a checkpoint's own files: a checkpoint of another architecture, and a seed.
//!
//! Some architectures have the same layers as another model of candle-transformers. They are loaded as that model:
//! their tensors get the names, and where necessary the values, that the model asks for.
//!
//! Untrained encoders are small and have weights drawn from the run's seed. candle's own initialisation cannot be
//! seeded on the CPU. Here every tensor has its own stream, chosen by its name, so its numbers depend neither on the
//! order in which a model asks for its tensors nor on the other tensors. The numbers are uniform, which needs no
//! transcendental function: every machine gets the same bits.
//!
//! The class token of a random ViT does not gather what a trained one gathers: the attention is nearly uniform, so the
//! class token, like the mean over all patches, knows which colours an image has but not where they are. The flags of
//! France, the Netherlands and Russia come out nearly the same (cosine 0.98 and more after centring). So the feature is
//! the mean over the patches of each cell of a grid of [`GRID`] x [`GRID`], side by side: then flags that look alike
//! are near each other, and the mean over all patches is still a linear image of the feature.

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use rand::Rng;
use serde_json::{Value, json};

/// Returns the tensor of the requested name and shape from a checkpoint that has another name for it.
type Translate = fn(&VarBuilder, &Shape, &str) -> Result<Tensor>;

/// The tensors of a checkpoint for the model of another architecture.
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

    fn contains_tensor(&self, name: &str) -> bool {
        self.weights.contains_tensor(name)
    }
}

/// The tensor `name` of a product, changed so that the product is multiplied by the vector `scale`: each row of a
/// weight, and each number of a bias, gives one number of the product.
pub(crate) fn scaled(weights: &VarBuilder, shape: &Shape, name: &str, scale: &str) -> Result<Tensor> {
    let (tensor, scale) = (weights.get(shape, name)?, weights.get(shape.dims()[0], scale)?);
    tensor.broadcast_mul(&if tensor.rank() == 2 { scale.unsqueeze(1)? } else { scale })
}

/// The number of cells along each side of an image.
pub(crate) const GRID: usize = 3;

/// The configuration of the text encoder with random weights: small enough for a laptop's CPU, wide enough to keep
/// different words different.
pub(crate) fn random_text() -> Value {
    json!({
        "model_type": "bert", "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 256, "type_vocab_size": 1,
    })
}

/// The configuration of the image encoder with random weights.
pub(crate) fn random_images() -> Value {
    json!({
        "model_type": "vit", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 128, "image_size": 48, "patch_size": 8,
    })
}

/// The standard deviation of position, segment and class embeddings, where the content has about 1: large enough to
/// tell positions apart, too small to drown the content.
const PLACE_SCALE: f64 = 0.1;

/// The share of the deviation that a linear layer passes on (a patch projection passes all). An untrained layer only
/// adds noise to the content: at 1, texts without a common word have a cosine of 0.35, at 0.5 of 0.15.
const LAYER_GAIN: f64 = 0.5;

/// Random `f32` weights, called `name`, as a source for a model's constructor.
pub(crate) fn random(seed: u64, name: &'static str, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(RandomWeights { seed, name }), DType::F32, device.clone())
}

struct RandomWeights {
    seed: u64,
    name: &'static str,
}

impl SimpleBackend for RandomWeights {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let (mean, deviation) = distribution(name, shape.dims());
        let mut generator = stage::seed::generator(self.seed, &format!("{}/{name}", self.name), 0);
        let range = deviation * 12f64.sqrt();
        // An f32 holds 24 bits.
        let units = std::iter::repeat_with(|| f64::from(generator.next_u32() >> 8) / f64::from(1 << 24));
        let values = units.map(|unit| (mean + (unit - 0.5) * range) as f32).take(shape.elem_count());
        Tensor::from_vec(values.collect(), shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("random weights of `{name}` need a shape")
    }

    /// There is no file, so no tensor has any particular prefix.
    fn contains_tensor(&self, _: &str) -> bool {
        false
    }
}

/// The mean and standard deviation of the tensor `name`. `shape` is `(out, in, ...)`.
fn distribution(name: &str, shape: &[usize]) -> (f64, f64) {
    let name = name.to_ascii_lowercase();
    if name.contains("layernorm") && name.ends_with("weight") {
        (1.0, 0.0)
    } else if name.ends_with("bias") {
        (0.0, 0.0)
    } else if name.contains("word_embeddings") {
        (0.0, 1.0)
    } else if ["position_embeddings", "token_type_embeddings", "cls_token"].iter().any(|n| name.contains(n)) {
        (0.0, PLACE_SCALE)
    } else {
        let gain = if name.contains("projection") { 1.0 } else { LAYER_GAIN };
        let inputs: usize = shape.iter().skip(1).product();
        (0.0, gain / (inputs.max(1) as f64).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, name: &str, shape: (usize, usize)) -> Vec<f32> {
        let weights = random(seed, "features/test", &Device::Cpu);
        weights.get(shape, name).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn weights_depend_on_seed_and_name_alone_and_have_the_deviation_asked_for() {
        assert_eq!(draw(1, "dense.weight", (4, 4)), draw(1, "dense.weight", (4, 4)));
        assert_ne!(draw(1, "dense.weight", (4, 4)), draw(2, "dense.weight", (4, 4)));
        assert_ne!(draw(1, "dense.weight", (4, 4)), draw(1, "other.weight", (4, 4)));
        let values = draw(3, "projection.weight", (100, 400));
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / 4e4;
        let variance = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 4e4;
        assert!(mean.abs() < 1e-3 && (variance * 400.0 - 1.0).abs() < 0.02, "{mean} {variance}");
        assert_eq!(draw(3, "output.LayerNorm.weight", (1, 2)), [1.0, 1.0]);
        assert_eq!(draw(3, "dense.bias", (1, 2)), [0.0, 0.0]);
    }
}
