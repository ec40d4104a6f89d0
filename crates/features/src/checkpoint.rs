//! A checkpoint as Hugging Face's libraries save it: a folder with a configuration, weights, and what else its encoder
//! needs.

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde::Serialize;
use serde_json::json;
use stage::files::read_json;
use stage::{Error, Kind, Result};
use std::path::{Path, PathBuf};

use crate::config::{Architecture, Config};
use crate::plain;
use crate::text::TOKENIZER;

/// The configuration of every checkpoint.
pub const CONFIG: &str = "config.json";
/// The weights: the first of these that is there.
pub const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The way to a checkpoint's missing tokenizer.
pub const MAKE_TOKENIZER: &str =
    "transformers writes it: AutoTokenizer.from_pretrained(ENCODER).save_pretrained(FOLDER)";

/// Prefixes of an encoder's tensors in checkpoints that have more.
const PREFIXES: [&str; 9] =
    ["bert", "roberta", "distilbert", "nomic_bert", "model", "vit", "beit", "dinov2", "vision_model"];

/// A folder that has what an encoder is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    folder: PathBuf,
    weights: PathBuf,
    /// Its name and commit on the hub.
    origin: Option<String>,
}

impl Checkpoint {
    /// The checkpoint in `folder`, which has a configuration, weights, and the files called `others`.
    ///
    /// # Errors
    /// [`Kind::Missing`] where one of them is not there; the hint says which they are.
    pub fn open(folder: &Path, others: &[&str]) -> Result<Checkpoint> {
        let required = [CONFIG].iter().chain(others).map(|name| folder.join(name));
        if let Some(path) = required.into_iter().find(|path| !path.is_file()) {
            return Err(missing(path, others));
        }
        let weights = WEIGHTS.map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
        let weights = weights.ok_or_else(|| missing(folder.join(WEIGHTS[0]), others))?;
        Ok(Checkpoint { folder: folder.to_owned(), weights, origin: None })
    }

    /// The same, of the hub, where `origin` is its name and commit.
    pub fn of_hub(self, origin: String) -> Checkpoint {
        Checkpoint { origin: Some(origin), ..self }
    }

    /// Its name and commit on the hub, if it is of there.
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// The path of the file called `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The file called `name`, where the checkpoint has it.
    pub fn optional(&self, name: &str) -> Option<PathBuf> {
        Some(self.path(name)).filter(|path| path.is_file())
    }

    /// The file with the weights.
    pub fn weights_file(&self) -> &Path {
        &self.weights
    }

    /// The configuration, complete.
    ///
    /// # Errors
    /// [`Kind::Data`] where it is of an architecture without adapter, or damaged.
    pub(crate) fn config<A: Architecture>(&self) -> Result<Config<A>> {
        let path = self.path(CONFIG);
        Config::new(&read_json(&path)?).map_err(|e| e.at(path))
    }

    /// The weights as `f32`, on a device, from where the tensor called `probe` is on: tensors of an encoder have a prefix in
    /// a checkpoint that has more than the encoder.
    ///
    /// # Errors
    /// [`Kind::Data`] where the file is damaged.
    pub(crate) fn weights(&self, probe: &str, device: &Device) -> Result<VarBuilder<'static>> {
        let bytes = std::fs::metadata(&self.weights).map_err(|e| Error::io(&self.weights, e))?.len();
        // Tensors, and one at a time once more in another order.
        stage::resources::require_memory(2 * bytes, "loading the encoder", "take a smaller encoder")?;
        let opened = if self.weights.extension().is_some_and(|extension| extension == "bin") {
            pickled(&self.weights, device)
        } else {
            mapped(&self.weights, device)
        };
        let all = opened.map_err(|e| self.damaged(e))?;
        let prefix = PREFIXES.into_iter().find(|prefix| all.contains_tensor(&format!("{prefix}.{probe}")));
        Ok(prefix.map_or(all.clone(), |prefix| all.pp(prefix)))
    }

    /// The error of weights that do not fit.
    pub(crate) fn damaged(&self, error: candle_core::Error) -> Error {
        Error::data("not the weights that config.json describes").at(&self.weights).because(plain(error))
    }

    /// Refuses an output that an encoder of its architecture does not have.
    pub(crate) fn require_output<O: PartialEq + Serialize>(&self, output: O, outputs: &[O]) -> Result<()> {
        if outputs.contains(&output) {
            return Ok(());
        }
        let message = format!("an encoder of this architecture has no output {}", json!(output));
        Err(Error::usage(message).at(self.path(CONFIG)).hint(format!("it has {}", json!(outputs))))
    }
}

/// The error of a folder that lacks the file at `path`, where the files called `others` are needed.
fn missing(path: PathBuf, others: &[&str]) -> Error {
    let hint = if path.ends_with(TOKENIZER) {
        MAKE_TOKENIZER.to_owned()
    } else {
        let (names, weights) = ([&[CONFIG], others].concat().join(", "), WEIGHTS.join(" or "));
        format!(
            "an encoder is a folder with {names} and {weights}, owner/name on the Hugging Face hub, or `random`"
        )
    };
    Error::new(Kind::Missing, "no such file in the encoder's folder").at(path).hint(hint)
}

#[expect(
    unsafe_code,
    reason = "candle reads a mapped file; mapping is unsafe while others could cut the file short"
)]
fn mapped(path: &Path, device: &Device) -> candle_core::Result<VarBuilder<'static>> {
    // SAFETY: the map lives as long as the loading of a model does. Checkpoints are written once and not changed.
    unsafe { VarBuilder::from_mmaped_safetensors(&[path], DType::F32, device) }
}

/// Reads what `torch.save` wrote, by candle's reader, which describes and never calls.
fn pickled(path: &Path, device: &Device) -> candle_core::Result<VarBuilder<'static>> {
    // It takes some lists of arguments apart without counting them first.
    let read = stage::caught(|| VarBuilder::from_pth(path, DType::F32, device));
    read.unwrap_or_else(|| candle_core::bail!("a damaged PyTorch file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::ImageEncoder;
    use crate::text::TextEncoder;
    use recipe::{ImageOutput, TextOutput};
    use serde_json::Value;

    /// A folder whose configuration is a tiny encoder's with `changes`, and whose weights are `weights`.
    fn folder(changes: &Value, weights: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut config = json!({
            "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 8, "max_position_embeddings": 8, "image_size": 8, "patch_size": 4,
        });
        for (name, value) in changes.as_object().unwrap() {
            config[name] = value.clone();
        }
        std::fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
        std::fs::write(dir.path().join(WEIGHTS[0]), weights).unwrap();
        dir
    }

    fn told(error: Option<Error>) -> String {
        let error = error.unwrap();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    }

    /// The error of a text encoder with these changes to its configuration.
    fn text_error(changes: &Value, weights: &str) -> String {
        let dir = folder(changes, weights);
        let checkpoint = Checkpoint::open(dir.path(), &[]).unwrap();
        told(TextEncoder::load(&checkpoint, TextOutput::Mean, &Device::Cpu).err())
    }

    fn image_error(changes: &Value) -> String {
        let dir = folder(changes, EMPTY);
        let checkpoint = Checkpoint::open(dir.path(), &[]).unwrap();
        told(ImageEncoder::load(&checkpoint, ImageOutput::Cls, &Device::Cpu).err())
    }

    /// Weights without a tensor.
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
        std::fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
        let checkpoint = Checkpoint::open(dir.path(), &["tokenizer.json"]).unwrap();
        assert!(checkpoint.weights_file().ends_with("pytorch_model.bin"));
        std::fs::write(dir.path().join("model.safetensors"), "").unwrap();
        let checkpoint = Checkpoint::open(dir.path(), &["tokenizer.json"]).unwrap();
        assert!(checkpoint.weights_file().ends_with("model.safetensors"));
    }

    #[test]
    fn damaged_configurations_are_errors_not_panics() {
        for (changes, said) in [
            (json!({ "model_type": "gpt2" }), "config.json: an architecture that no encoder here has"),
            (json!({ "model_type": "gpt2" }), "`modernbert`"),
            (json!({ "vocab_size": "9" }), "config.json: vocab_size is \"9\""),
            (json!({ "vocab_size": 0 }), "vocab_size is 0"),
            (json!({ "num_hidden_layers": 1_u64 << 60 }), "num_hidden_layers is 1152"),
            (json!({ "hidden_act": "wave" }), "hidden_act: unknown variant `wave`"),
            (json!({ "num_attention_heads": 0 }), "num_attention_heads is 0"),
            (json!({ "num_attention_heads": 3 }), "no multiple"),
            (json!({ "position_embedding_type": "relative_key" }), "`relative_key`"),
        ] {
            let error = text_error(&changes, EMPTY);
            assert!(error.contains(said), "{changes}: {error}");
        }
        for (changes, said) in [
            (json!({ "model_type": "deit" }), "unknown variant `deit`, expected one of `vit`"),
            (json!({ "patch_size": 3 }), "no multiple of patch_size 3"),
            (json!({ "num_channels": 1 }), "num_channels 1 is not supported"),
            (json!({ "hidden_size": 0 }), "hidden_size is 0"),
            (json!({ "model_type": "dinov2", "mlp_ratio": "a few" }), ""),
        ] {
            let error = image_error(&changes);
            assert!(error.contains(said), "{changes}: {error}");
        }
    }

    #[test]
    fn damaged_weights_are_errors_not_panics() {
        for weights in ["", "junk", EMPTY] {
            let message = text_error(&json!({}), weights);
            assert!(message.contains("model.safetensors: not the weights"), "{weights:?}: {message}");
        }
    }
}
