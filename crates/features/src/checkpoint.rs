//! A checkpoint as Hugging Face's libraries save it: a folder with a configuration, weights, and the other files that
//! its encoder needs.
//!
//! Architectures use different names for the same sizes, and files leave out values that were defaults when they were
//! written. Both are corrected in the JSON before it becomes the configuration of a model of candle-transformers.

use candle_core::{DType, Device};
use candle_nn::{Activation, VarBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stage::files::read_json;
use stage::{Error, Result};
use std::path::{Path, PathBuf};

use crate::plain;
use crate::text::TOKENIZER;

/// The configuration file of every checkpoint.
pub(crate) const CONFIG: &str = "config.json";
/// The weights: the first of these files that exists.
pub(crate) const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The instruction to make a checkpoint's missing tokenizer.
pub(crate) const MAKE_TOKENIZER: &str =
    "transformers writes it: AutoTokenizer.from_pretrained(ENCODER).save_pretrained(FOLDER)";

/// Prefixes of an encoder's tensors in checkpoints that have more than the encoder.
const PREFIXES: [&str; 9] =
    ["bert", "roberta", "distilbert", "nomic_bert", "model", "vit", "beit", "dinov2", "vision_model"];

/// A folder with the files that an encoder is made from.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    pub(crate) weights: PathBuf,
    /// The checkpoint's name and commit on the hub, if it comes from there.
    pub(crate) origin: Option<String>,
}

impl Checkpoint {
    /// Opens the checkpoint in `folder`, which has a configuration, weights, and the files called `others`; a missing
    /// file is an error of the kind [`Missing`](stage::Kind::Missing).
    pub fn open(folder: &Path, others: &[&str]) -> Result<Checkpoint> {
        let required = [CONFIG].iter().chain(others).map(|name| folder.join(name));
        if let Some(path) = required.into_iter().find(|path| !path.is_file()) {
            return Err(missing(path, others));
        }
        let weights = WEIGHTS.map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
        let weights = weights.ok_or_else(|| missing(folder.join(WEIGHTS[0]), others))?;
        Ok(Checkpoint { folder: folder.to_owned(), weights, origin: None })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn optional(&self, name: &str) -> Option<PathBuf> {
        Some(self.path(name)).filter(|path| path.is_file())
    }

    /// Loads the complete configuration, and the weights as `f32` on a device. In a checkpoint that has more than the
    /// encoder, the encoder's tensors have a prefix. An output that the architecture does not have is refused.
    pub(crate) fn load<A: Architecture>(
        &self,
        output: A::Output,
        device: &Device,
    ) -> Result<(Config<A>, VarBuilder<'static>)> {
        let path = self.path(CONFIG);
        let config = Config::<A>::new(&read_json(&path)?).map_err(|e| e.at(&path))?;
        let outputs = config.architecture.outputs();
        if !outputs.contains(&output) {
            let message = format!("an encoder of this architecture has no output {}", json!(output));
            return Err(Error::usage(message).at(path).hint(format!("it has {}", json!(outputs))));
        }
        let bytes = std::fs::metadata(&self.weights).map_err(|e| Error::io(&self.weights, e))?.len();
        // Memory for all tensors, and for a copy of one at a time in another order.
        stage::resources::require_memory(2 * bytes, "loading the encoder", "take a smaller encoder")?;
        let is_pickle = self.weights.extension().is_some_and(|extension| extension == "bin");
        let opened = if is_pickle { pickled(&self.weights, device) } else { mapped(&self.weights, device) };
        let all = opened.map_err(|e| self.damaged(e))?;
        let probe = config.architecture.probe();
        let prefix = PREFIXES.into_iter().find(|prefix| all.contains_tensor(&format!("{prefix}.{probe}")));
        Ok((config, prefix.map_or(all.clone(), |prefix| all.pp(prefix))))
    }

    pub(crate) fn damaged(&self, error: candle_core::Error) -> Error {
        Error::data("not the weights that config.json describes").at(&self.weights).because(plain(error))
    }
}

fn missing(path: PathBuf, others: &[&str]) -> Error {
    let hint = if path.ends_with(TOKENIZER) {
        MAKE_TOKENIZER.to_owned()
    } else {
        let (names, weights) = ([&[CONFIG], others].concat().join(", "), WEIGHTS.join(" or "));
        format!(
            "an encoder is a folder with {names} and {weights}, owner/name on the Hugging Face hub, or `random`"
        )
    };
    Error::missing("no such file in the encoder's folder").at(path).hint(hint)
}

#[expect(
    unsafe_code,
    reason = "candle reads a mapped file; mapping is unsafe while others could cut the file short"
)]
fn mapped(path: &Path, device: &Device) -> candle_core::Result<VarBuilder<'static>> {
    // SAFETY: the map lives as long as a model is being loaded. Checkpoints are written once and not changed.
    unsafe { VarBuilder::from_mmaped_safetensors(&[path], DType::F32, device) }
}

/// Reads a file of `torch.save` with candle's reader, which only describes objects and never calls Python.
fn pickled(path: &Path, device: &Device) -> candle_core::Result<VarBuilder<'static>> {
    // candle's reader unpacks some lists of arguments without checking their length.
    let read = stage::caught(|| VarBuilder::from_pth(path, DType::F32, device));
    read.unwrap_or_else(|| candle_core::bail!("a damaged PyTorch file"))
}

/// The largest accepted size: memory is reserved for a size before the weights show that it is wrong.
const MAX_SIZE: u64 = 1 << 20;

/// Keys, each with other places where its value may stand; the first that exists counts.
const NAMES: [(&str, &[&str]); 16] = [
    ("hidden_size", &["/dim", "/n_embd"]),
    ("num_hidden_layers", &["/n_layers", "/n_layer"]),
    ("num_attention_heads", &["/n_heads", "/n_head"]),
    ("intermediate_size", &["/hidden_dim", "/n_inner"]),
    ("max_position_embeddings", &["/max_trained_positions", "/n_positions"]),
    ("hidden_act", &["/activation", "/hidden_activation", "/activation_function"]),
    ("layer_norm_eps", &["/norm_eps", "/layer_norm_epsilon"]),
    ("global_rope_theta", &["/rope_parameters/full_attention/rope_theta"]),
    ("local_rope_theta", &["/rope_parameters/sliding_attention/rope_theta"]),
    ("rotary_emb_base", &["/rope_parameters/rope_theta"]),
    // candle-transformers' NomicBERT uses the older names.
    ("n_embd", &["/hidden_size"]),
    ("n_layer", &["/num_hidden_layers"]),
    ("n_head", &["/num_attention_heads"]),
    ("n_inner", &["/intermediate_size"]),
    ("n_positions", &["/max_position_embeddings"]),
    ("layer_norm_epsilon", &["/layer_norm_eps"]),
];

/// Keys whose value, if it exists, is a whole number from 1.
const SIZES: [&str; 9] = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "image_size",
    "patch_size",
];

/// The architectures of one kind of encoder, by their `model_type`.
pub(crate) trait Architecture: Copy + DeserializeOwned {
    type Output: PartialEq + Serialize + 'static;
    /// The architecture of a configuration that names none.
    const USUAL: &str;
    /// The values that a configuration leaves out, where they differ from those of [`base`].
    fn defaults(self) -> Value;
    /// A tensor that every checkpoint of this architecture has.
    fn probe(self) -> &'static str;
    fn outputs(self) -> &'static [Self::Output];
}

/// The values of a base-sized BERT or ViT, and keys that candle-transformers requires but does not use.
fn base() -> Value {
    json!({
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "type_vocab_size": 2,
        "pad_token_id": 0, "position_embedding_type": "absolute", "image_size": 224, "patch_size": 16, "num_channels": 3,
        "qkv_bias": true, "initializer_range": 0.0, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    })
}

/// A configuration in which no value is missing.
#[derive(Clone, Debug)]
pub(crate) struct Config<A> {
    pub(crate) architecture: A,
    values: Value,
}

impl<A: Architecture> Config<A> {
    /// Completes the values of a file; of a model of images and texts, it takes the half for images.
    pub(crate) fn new(file: &Value) -> Result<Self> {
        let name = file.get("model_type").cloned().unwrap_or(A::USUAL.into());
        let architecture: A = serde_json::from_value(name)
            .map_err(|e| Error::data("an architecture that no encoder here has").because(e))?;
        let mut config = Config { architecture, values: file.get("vision_config").unwrap_or(file).clone() };
        for (name, others) in NAMES {
            for other in others {
                config.add(name, config.values.pointer(other).cloned().unwrap_or_default());
            }
        }
        for defaults in [architecture.defaults(), base()] {
            for (name, value) in defaults.as_object().into_iter().flatten() {
                config.add(name, value.clone());
            }
        }
        config.check().map_err(Error::data)?;
        Ok(config)
    }

    fn add(&mut self, name: &str, value: Value) {
        if self.values.get(name).is_none_or(Value::is_null) && !value.is_null() {
            self.values[name] = value;
        }
    }

    fn check(&self) -> Result<(), String> {
        for name in SIZES {
            let value = &self.values[name];
            if !value.is_null() && !value.as_u64().is_some_and(|size| (1..=MAX_SIZE).contains(&size)) {
                return Err(format!("{name} is {value}"));
            }
        }
        match ["hidden_size", "num_attention_heads"].map(|name| self.size(name)) {
            [hidden, heads] if hidden.is_multiple_of(heads) => Ok(()),
            [hidden, heads] => {
                Err(format!("hidden_size {hidden} is no multiple of num_attention_heads {heads}"))
            }
        }
    }

    /// A size; 0 if the key is missing.
    pub(crate) fn size(&self, name: &str) -> usize {
        self.number(name)
    }

    /// A number of any type; 0 if the key is missing.
    pub(crate) fn number<T: DeserializeOwned + Default>(&self, name: &str) -> T {
        T::deserialize(&self.values[name]).unwrap_or_default()
    }

    pub(crate) fn value(&self, name: &str) -> &Value {
        &self.values[name]
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values[name] = value.into();
        self
    }

    pub(crate) fn of<T: DeserializeOwned>(&self) -> candle_core::Result<T> {
        serde_json::from_value(self.values.clone())
            .map_err(|e| candle_core::Error::msg(format!("{CONFIG}: {e}")))
    }

    /// The function between the two products of the feed-forward part.
    pub(crate) fn activation(&self) -> candle_core::Result<Activation> {
        serde_json::from_value(self.values["hidden_act"].clone())
            .map_err(|e| candle_core::Error::msg(format!("{CONFIG}: hidden_act: {e}")))
    }

    /// Refuses any value but the `known` ones, which the model of candle-transformers computes.
    pub(crate) fn require(&self, name: &str, known: &[Value]) -> candle_core::Result<()> {
        match &self.values[name] {
            value if value.is_null() || known.contains(value) => Ok(()),
            value => candle_core::bail!("{CONFIG}: {name} {value} is not supported"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::ImageEncoder;
    use crate::images::models::ImageArchitecture;
    use crate::text::TextEncoder;
    use crate::text::models::TextArchitecture;
    use recipe::{ImageOutput, TextOutput};
    use stage::Kind;

    /// The error of loading a tiny text or image encoder with changes to its configuration.
    fn error_of(is_text: bool, changes: &Value, weights: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let mut config = json!({
            "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 8, "max_position_embeddings": 8, "image_size": 8, "patch_size": 4,
        });
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        std::fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
        std::fs::write(dir.path().join(WEIGHTS[0]), weights).unwrap();
        let checkpoint = Checkpoint::open(dir.path(), &[]).unwrap();
        let error = if is_text {
            TextEncoder::load(&checkpoint, TextOutput::Mean, &Device::Cpu).err()
        } else {
            ImageEncoder::load(&checkpoint, ImageOutput::Cls, &Device::Cpu).err()
        };
        let error = error.unwrap();
        format!("{error}: {}", std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default())
    }

    /// A weights file without a tensor.
    const EMPTY: &str = "\u{8}\0\0\0\0\0\0\0{}      ";

    #[test]
    fn what_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in [CONFIG, "tokenizer.json", "model.safetensors"] {
            let error = Checkpoint::open(dir.path(), &["tokenizer.json"]).unwrap_err();
            assert!(error.to_string().contains(name) && error.kind() == Kind::Missing, "{error}");
            if name == "model.safetensors" {
                let hint = "config.json, tokenizer.json and model.safetensors or";
                assert!(error.hint_text().unwrap().contains(hint));
            } else {
                std::fs::write(dir.path().join(name), "{}").unwrap();
            }
        }
        for weights in ["pytorch_model.bin", "model.safetensors"] {
            std::fs::write(dir.path().join(weights), "").unwrap();
            let checkpoint = Checkpoint::open(dir.path(), &["tokenizer.json"]).unwrap();
            assert!(checkpoint.weights.ends_with(weights));
        }
    }

    #[test]
    fn damaged_configurations_and_weights_are_errors_not_panics() {
        for (is_text, changes, said) in [
            (true, json!({ "model_type": "gpt2" }), "config.json: an architecture that no encoder here has"),
            (true, json!({ "model_type": "gpt2" }), "`modernbert`"),
            (true, json!({ "vocab_size": "9" }), "config.json: vocab_size is \"9\""),
            (true, json!({ "vocab_size": 0 }), "vocab_size is 0"),
            (true, json!({ "num_hidden_layers": 1_u64 << 60 }), "num_hidden_layers is 1152"),
            (true, json!({ "hidden_act": "wave" }), "hidden_act: unknown variant `wave`"),
            (true, json!({ "is_decoder": true }), "is_decoder true is not supported"),
            (true, json!({ "model_type": "roberta", "is_decoder": true }), "is_decoder true"),
            (
                true,
                json!({ "model_type": "modernbert", "pad_token_id": 0, "rope_parameters": { "full_attention": { "rope_type": "linear" } } }),
                "rope_type \"linear\" is not supported",
            ),
            (
                true,
                json!({ "model_type": "nomic_bert", "rotary_emb_fraction": 0.5 }),
                "rotary_emb_fraction 0.5",
            ),
            (true, json!({ "num_attention_heads": 0 }), "num_attention_heads is 0"),
            (true, json!({ "num_attention_heads": 3 }), "no multiple"),
            (false, json!({ "model_type": "deit" }), "unknown variant `deit`, expected one of `vit`"),
            (false, json!({ "patch_size": 3 }), "no multiple of patch_size 3"),
            (false, json!({ "hidden_size": 0 }), "hidden_size is 0"),
            (false, json!({ "model_type": "dinov2", "mlp_ratio": "a few" }), ""),
        ] {
            let error = error_of(is_text, &changes, EMPTY);
            assert!(error.contains(said), "{changes}: {error}");
        }
        for weights in ["", "junk", EMPTY] {
            let message = error_of(true, &json!({}), weights);
            assert!(message.contains("model.safetensors: not the weights"), "{weights:?}: {message}");
        }
    }

    #[test]
    fn what_a_published_file_leaves_out_is_as_its_architecture_has_it() {
        // google/siglip-base-patch16-224, without its part for texts.
        let siglip =
            json!({ "model_type": "siglip", "vision_config": { "model_type": "siglip_vision_model" } });
        let config = Config::<ImageArchitecture>::new(&siglip).unwrap();
        assert_eq!(config.architecture, ImageArchitecture::Siglip);
        assert_eq!((config.size("image_size"), config.size("patch_size")), (224, 16));
        assert_eq!(config.value("hidden_act"), "gelu_pytorch_tanh");
        // distilbert/distilbert-base-uncased.
        let distilbert = json!({
            "model_type": "distilbert", "activation": "gelu", "dim": 768, "hidden_dim": 3072, "n_heads": 12,
            "n_layers": 6, "max_position_embeddings": 512, "pad_token_id": 0, "vocab_size": 30522,
        });
        let config = Config::<TextArchitecture>::new(&distilbert).unwrap();
        assert_eq!((config.size("num_hidden_layers"), config.size("type_vocab_size")), (6, 1));
        assert_eq!(config.value("layer_norm_eps"), 1e-12);
        // FacebookAI/roberta-base: positions begin after the padding's.
        let roberta = json!({ "model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1 });
        assert_eq!(Config::<TextArchitecture>::new(&roberta).unwrap().max_tokens(), 512);
    }
}
