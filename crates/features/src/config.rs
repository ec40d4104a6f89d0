//! A checkpoint's `config.json`, whatever its architecture calls things.
//!
//! Architectures have names of their own for the same sizes, and files leave out what was the default in their time. Both
//! are made good in the JSON, before it becomes the configuration of a model of candle-transformers.

use candle_nn::Activation;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stage::{Error, Result};

use crate::checkpoint::CONFIG;

/// The most that a size may be: beyond it, memory could be reserved in vain before weights are compared.
const MAX_SIZE: u64 = 1 << 20;

/// Keys, each with where else its value may stand; the first that is there counts.
const NAMES: [(&str, &str); 24] = [
    ("hidden_size", "/dim"),
    ("hidden_size", "/n_embd"),
    ("num_hidden_layers", "/n_layers"),
    ("num_hidden_layers", "/n_layer"),
    ("num_attention_heads", "/n_heads"),
    ("num_attention_heads", "/n_head"),
    ("intermediate_size", "/hidden_dim"),
    ("intermediate_size", "/n_inner"),
    ("max_position_embeddings", "/max_trained_positions"),
    ("max_position_embeddings", "/n_positions"),
    ("hidden_act", "/activation"),
    ("hidden_act", "/hidden_activation"),
    ("hidden_act", "/activation_function"),
    ("layer_norm_eps", "/norm_eps"),
    ("layer_norm_eps", "/layer_norm_epsilon"),
    ("global_rope_theta", "/rope_parameters/full_attention/rope_theta"),
    ("local_rope_theta", "/rope_parameters/sliding_attention/rope_theta"),
    ("rotary_emb_base", "/rope_parameters/rope_theta"),
    // candle-transformers' NomicBERT has the older names.
    ("n_embd", "/hidden_size"),
    ("n_layer", "/num_hidden_layers"),
    ("n_head", "/num_attention_heads"),
    ("n_inner", "/intermediate_size"),
    ("n_positions", "/max_position_embeddings"),
    ("layer_norm_epsilon", "/layer_norm_eps"),
];

/// Keys whose value is a whole number from 1 on, where they are there.
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
    /// The one of a configuration that names none.
    const USUAL: &str;
    /// The values that configurations of this one leave out, where they are not as in most.
    fn defaults(self) -> Value;
}

/// The values of a base-sized BERT or ViT, and keys that candle-transformers asks for in vain.
fn base() -> Value {
    json!({
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "type_vocab_size": 2,
        "pad_token_id": 0, "position_embedding_type": "absolute", "image_size": 224, "patch_size": 16, "num_channels": 3,
        "qkv_bias": true, "initializer_range": 0.0, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    })
}

/// A configuration in which nothing is left out.
#[derive(Clone, Debug)]
pub(crate) struct Config<A> {
    pub(crate) architecture: A,
    values: Value,
}

impl<A: Architecture> Config<A> {
    /// Completes what a file says; of a model of images and texts it takes the half that sees images.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where there is no adapter for the architecture, or a size is none.
    pub(crate) fn new(file: &Value) -> Result<Self> {
        let name = file.get("model_type").cloned().unwrap_or(A::USUAL.into());
        let architecture: A = serde_json::from_value(name)
            .map_err(|e| Error::data("an architecture that no encoder here has").because(e))?;
        let mut config = Config { architecture, values: file.get("vision_config").unwrap_or(file).clone() };
        for (name, other) in NAMES {
            config.add(name, config.values.pointer(other).cloned().unwrap_or_default());
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
        let (hidden, heads) = (self.size("hidden_size"), self.size("num_attention_heads"));
        if hidden.is_multiple_of(heads) {
            Ok(())
        } else {
            Err(format!("hidden_size {hidden} is no multiple of num_attention_heads {heads}"))
        }
    }

    /// A size; 0 where it is not there.
    pub(crate) fn size(&self, name: &str) -> usize {
        self.values[name].as_u64().unwrap_or_default() as usize
    }

    /// The value under `name`.
    pub(crate) fn value(&self, name: &str) -> &Value {
        &self.values[name]
    }

    /// The same with another value.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values[name] = value.into();
        self
    }

    /// The configuration of a model of candle-transformers.
    pub(crate) fn of<T: DeserializeOwned>(&self) -> candle_core::Result<T> {
        serde_json::from_value(self.values.clone())
            .map_err(|e| candle_core::Error::msg(format!("{CONFIG}: {e}")))
    }

    /// The function between the two products of the feed-forward part.
    pub(crate) fn activation(&self) -> candle_core::Result<Activation> {
        serde_json::from_value(self.values["hidden_act"].clone())
            .map_err(|e| candle_core::Error::msg(format!("{CONFIG}: hidden_act: {e}")))
    }

    /// Refuses any other value than one of these, which the model of candle-transformers computes.
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
    use crate::images::models::ImageArchitecture;
    use crate::text::models::TextArchitecture;

    #[test]
    fn what_a_published_file_leaves_out_is_as_its_architecture_has_it() {
        // google/siglip-base-patch16-224, but for its texts.
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
        // FacebookAI/roberta-base: positions behind the padding's.
        let roberta = json!({ "model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1 });
        assert_eq!(Config::<TextArchitecture>::new(&roberta).unwrap().max_tokens(), 512);
    }
}
