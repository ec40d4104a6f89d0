//! A checkpoint as Hugging Face's libraries save it: a folder with a configuration, weights, and what else its encoder
//! needs.

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stage::files::read_json;
use stage::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// The configuration of every checkpoint.
pub const CONFIG: &str = "config.json";
/// The weights: the first of these that is there.
pub const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

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
        let missing = |path: PathBuf| {
            let names = [&[CONFIG], others].concat().join(", ");
            Error::new(Kind::Missing, "no such file in the encoder's folder").at(path).hint(format!(
                "an encoder is a folder with {names} and {}, owner/name on the Hugging Face hub, or `random`",
                WEIGHTS.join(" or ")
            ))
        };
        let required = [CONFIG].iter().chain(others).map(|name| folder.join(name));
        if let Some(path) = required.into_iter().find(|path| !path.is_file()) {
            return Err(missing(path));
        }
        let weights = WEIGHTS.map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
        let weights = weights.ok_or_else(|| missing(folder.join(WEIGHTS[0])))?;
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

    /// The configuration of an encoder of this `architecture`.
    ///
    /// # Errors
    /// [`Kind::Data`] where it is of another one, or damaged.
    pub fn config<T: DeserializeOwned>(&self, architecture: &str) -> Result<T> {
        let path = self.path(CONFIG);
        let value: Value = read_json(&path)?;
        let other = value.get("model_type").and_then(Value::as_str).filter(|name| *name != architecture);
        if let Some(other) = other {
            let message = format!("architecture `{other}`, only `{architecture}` is supported here");
            return Err(Error::data(message).at(path));
        }
        let damaged =
            |e| Error::data(format!("not a configuration of `{architecture}`")).because(e).at(&path);
        serde_json::from_value(value).map_err(damaged)
    }

    /// The weights, as `f32`, for an encoder of this `architecture` that has a tensor called `probe`.
    ///
    /// # Errors
    /// [`Kind::Data`] where the file is damaged.
    pub fn weights(&self, architecture: &str, probe: &str) -> Result<Weights> {
        let bytes = std::fs::metadata(&self.weights).map_err(|e| Error::io(&self.weights, e))?.len();
        // Tensors, and one at a time once more in another order.
        stage::resources::require_memory(2 * bytes, "loading the encoder", "take a smaller encoder")?;
        let opened = match self.weights.extension().is_some_and(|extension| extension == "bin") {
            true => pickled(&self.weights),
            false => mapped(&self.weights),
        };
        let all = opened.map_err(|e| self.damaged(e))?;
        let prefixed = all.contains_tensor(&format!("{architecture}.{probe}"));
        let body = if prefixed { all.pp(architecture) } else { all.clone() };
        Ok(Weights { body, all })
    }

    /// What is wrong with the weights.
    pub fn damaged(&self, error: candle_core::Error) -> Error {
        Error::data("not the weights that config.json describes").at(&self.weights).because(error)
    }

    /// The head called `name` is not among the weights.
    pub fn headless(&self, name: &str) -> Error {
        Error::data(format!("has no {name}")).at(&self.weights).hint("choose another `output` of the encoder")
    }
}

/// The tensors of a checkpoint, by name.
pub struct Weights {
    /// Those of the encoder itself: under the architecture's name in a checkpoint that has a head, too, else at the top.
    pub body: VarBuilder<'static>,
    /// Those at the top.
    pub all: VarBuilder<'static>,
}

#[expect(
    unsafe_code,
    reason = "candle reads a mapped file; mapping is unsafe while others could cut the file short"
)]
fn mapped(path: &Path) -> candle_core::Result<VarBuilder<'static>> {
    // SAFETY: the map lives as long as the loading of a model does. Checkpoints are written once and not changed.
    unsafe { VarBuilder::from_mmaped_safetensors(&[path], DType::F32, &Device::Cpu) }
}

/// What `torch.save` wrote, by candle's reader, which describes and never calls.
fn pickled(path: &Path) -> candle_core::Result<VarBuilder<'static>> {
    // It takes some lists of arguments apart without counting them first.
    let read = std::panic::catch_unwind(|| VarBuilder::from_pth(path, DType::F32, &Device::Cpu));
    read.unwrap_or_else(|_| candle_core::bail!("a damaged PyTorch file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::ImageEncoder;
    use crate::place::Place;
    use crate::text::TextEncoder;
    use recipe::{ImageOutput, Precision, TextOutput};
    use serde_json::json;

    /// A folder whose configuration is a tiny BERT's with `changes`, and whose weights are `weights`.
    fn folder(mut config: Value, changes: &Value, weights: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            config[name] = value.clone();
        }
        std::fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
        std::fs::write(dir.path().join(WEIGHTS[0]), weights).unwrap();
        dir
    }

    fn bert_error(changes: Value, weights: &str) -> String {
        let config = json!({
            "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 8, "max_position_embeddings": 8,
        });
        let dir = folder(config, &changes, weights);
        let checkpoint = Checkpoint::open(dir.path(), &[]).unwrap();
        TextEncoder::load(&checkpoint, TextOutput::Mean, &Place::cpu(), Precision::F32)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    }

    fn vit_error(changes: Value) -> String {
        let config = json!({
            "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
            "image_size": 8, "patch_size": 4,
        });
        let dir = folder(config, &changes, "");
        let checkpoint = Checkpoint::open(dir.path(), &[]).unwrap();
        ImageEncoder::load(&checkpoint, ImageOutput::Cls, &Place::cpu(), Precision::F32)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = || Checkpoint::open(dir.path(), &["tokenizer.json"]).unwrap_err();
        let is_missing = |name: &str| error().to_string().contains(name) && error().kind() == Kind::Missing;
        for name in [CONFIG, "tokenizer.json"] {
            assert!(is_missing(name), "{}", error());
            std::fs::write(dir.path().join(name), "{}").unwrap();
        }
        assert!(is_missing("model.safetensors: no such file"), "{}", error());
        assert!(
            error().hint_text().unwrap().contains("config.json, tokenizer.json and model.safetensors or")
        );
        std::fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
        let checkpoint = Checkpoint::open(dir.path(), &["tokenizer.json"]).unwrap();
        assert!(checkpoint.weights_file().ends_with("pytorch_model.bin"));
        std::fs::write(dir.path().join("model.safetensors"), "").unwrap();
        let checkpoint = Checkpoint::open(dir.path(), &["tokenizer.json"]).unwrap();
        assert!(checkpoint.weights_file().ends_with("model.safetensors"));
    }

    #[test]
    fn damaged_configurations_are_errors_not_panics() {
        let message = |changes: Value| bert_error(changes, "");
        assert!(message(json!({ "model_type": "roberta" })).contains("architecture `roberta`"));
        assert!(message(json!({ "vocab_size": null })).contains("not a configuration of `bert`"));
        assert!(message(json!({ "hidden_act": "wave" })).contains("not a configuration of `bert`"));
        assert!(message(json!({ "num_attention_heads": 0 })).ends_with("num_attention_heads is 0"));
        assert!(message(json!({ "num_attention_heads": 3 })).contains("no multiple"));
        assert!(message(json!({ "position_embedding_type": "relative_key" })).contains("`relative_key`"));
        assert!(vit_error(json!({ "model_type": "deit" })).contains("architecture `deit`"));
        assert!(vit_error(json!({ "patch_size": 3 })).contains("no multiple of patch_size 3"));
        assert!(vit_error(json!({ "num_channels": 1 })).contains("num_channels is 1"));
        assert!(vit_error(json!({ "hidden_size": 0 })).ends_with("hidden_size is 0"));
    }

    #[test]
    fn damaged_weights_are_errors_not_panics() {
        for weights in ["", "junk", "\u{8}\0\0\0\0\0\0\0{}      "] {
            let message = bert_error(json!({}), weights);
            assert!(message.contains("model.safetensors: not the weights"), "{weights:?}: {message}");
        }
    }

    #[test]
    fn a_damaged_tokenizer_is_named() {
        let dir = folder(json!({}), &json!({}), "");
        std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
        let error = crate::bert::tokenizer(&Checkpoint::open(dir.path(), &[]).unwrap()).unwrap_err();
        assert!(error.to_string().ends_with("tokenizer.json: not a tokenizer"));
    }
}
