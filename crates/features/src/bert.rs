//! The text encoder: a BERT and the mean over its tokens.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use serde::Serialize;
use serde_json::Value;
use stage::files::{read_bytes, read_json};
use stage::{Error, Kind, Result};
use std::path::Path;
use tokenizers::Tokenizer;

use crate::tokens::word_level;
use crate::{random, tensor_error};

/// The files of a checkpoint's folder.
pub const FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// Sizes of the encoder with random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Width of the hidden states, and of the features.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads per layer.
    pub heads: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
}

/// Small enough for a laptop's CPU; wide enough that different words stay different.
pub const RANDOM: Sizes = Sizes { hidden: 128, layers: 2, heads: 2, intermediate: 256 };

/// Tokens that go through the layers together on the CPU, if a single text is not longer. More no longer fit the
/// caches (a batch of 128 glosses takes 1.4 times as long in one piece) and would take more memory.
const CPU_TOKENS: usize = 512;

/// A BERT-architecture encoder in `f32`. It never changes, so threads share it.
pub struct TextEncoder {
    model: BertModel,
    config: Config,
    device: Device,
}

impl TextEncoder {
    /// Loads `config.json` and `model.safetensors` of a checkpoint's folder; [`tokenizer`] loads the third file.
    ///
    /// # Errors
    /// [`Kind::Missing`] where a file is missing, [`Kind::Data`] where it is damaged or of another architecture.
    pub fn load(folder: &Path, device: &Device) -> Result<TextEncoder> {
        let path = folder.join("config.json");
        let value: Value = read_json(&path)?;
        let config = configuration(value).map_err(|e| e.at(&path))?;
        let path = folder.join("model.safetensors");
        let damaged = |e| Error::data("not the weights that config.json describes").at(&path).because(e);
        let weights = VarBuilder::from_buffered_safetensors(read_bytes(&path)?, DType::F32, device);
        let model = weights.and_then(|weights| BertModel::load(weights, &config)).map_err(damaged)?;
        Ok(TextEncoder { model, config, device: device.clone() })
    }

    /// An encoder with [`RANDOM`] sizes and weights drawn from `seed`, for token ids below `vocabulary` and up to
    /// `max_tokens` of them.
    pub fn random(seed: u64, vocabulary: usize, max_tokens: usize, device: &Device) -> Result<TextEncoder> {
        let config = Config {
            vocab_size: vocabulary,
            hidden_size: RANDOM.hidden,
            num_hidden_layers: RANDOM.layers,
            num_attention_heads: RANDOM.heads,
            intermediate_size: RANDOM.intermediate,
            max_position_embeddings: max_tokens,
            type_vocab_size: 1,
            model_type: None,
            ..Config::default()
        };
        let weights = random::weights(seed, "features/random-bert", device);
        let model = BertModel::load(weights, &config).map_err(tensor_error("building the text encoder"))?;
        Ok(TextEncoder { model, config, device: device.clone() })
    }

    /// Numbers per text.
    pub fn width(&self) -> usize {
        self.config.hidden_size
    }

    /// The longest text it can take, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.config.max_position_embeddings
    }

    /// Encodes texts, given as token ids, none of them empty: `(text, width)`, row after row.
    ///
    /// Shorter texts are padded to the longest; padding is masked in the attention and left out of the mean.
    ///
    /// # Errors
    /// [`Kind::Data`] where a token id is outside the encoder's vocabulary.
    pub fn encode(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        self.check(texts)?;
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let at_once = self.at_once(texts.len(), longest);
        let mut rows = Vec::with_capacity(texts.len() * self.width());
        for texts in texts.chunks(at_once) {
            rows.extend(self.forward(texts).map_err(tensor_error("encoding texts"))?);
        }
        Ok(rows)
    }

    fn check(&self, texts: &[&[u32]]) -> Result<()> {
        match texts.iter().copied().flatten().find(|id| **id as usize >= self.config.vocab_size) {
            Some(id) => {
                let known = self.config.vocab_size;
                let message = format!("the tokenizer gives token {id}, but the encoder knows {known}");
                Err(Error::data(message).hint("do tokenizer.json and model.safetensors belong together?"))
            }
            None => Ok(()),
        }
    }

    fn forward(&self, texts: &[&[u32]]) -> candle_core::Result<Vec<f32>> {
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let shape = (texts.len(), longest);
        let padding = self.config.pad_token_id.min(self.config.vocab_size - 1) as u32;
        let ids: Vec<u32> =
            texts.iter().flat_map(|text| (0..longest).map(|i| *text.get(i).unwrap_or(&padding))).collect();
        let mask = |inside: fn(usize) -> f32| -> Vec<f32> {
            let weight = |text: &[u32], i: usize| if i < text.len() { inside(text.len()) } else { 0.0 };
            texts.iter().flat_map(|text| (0..longest).map(move |i| weight(text, i))).collect()
        };
        let ids = Tensor::from_vec(ids, shape, &self.device)?;
        let attended = Tensor::from_vec(mask(|_| 1.0), shape, &self.device)?;
        // The mean over a text's own tokens is a product with weights of 1 / length and 0.
        let means = Tensor::from_vec(mask(|length| 1.0 / length as f32), shape, &self.device)?;
        let hidden = self.model.forward(&ids, &ids.zeros_like()?, Some(&attended))?;
        means.unsqueeze(1)?.matmul(&hidden)?.flatten_all()?.to_vec1()
    }

    /// How many texts of a batch go through the layers together, where the longest has so many `tokens`.
    fn at_once(&self, batch: usize, tokens: usize) -> usize {
        let most = if self.device.is_cpu() { CPU_TOKENS / tokens.max(1) } else { batch };
        most.clamp(1, batch.max(1))
    }

    /// An estimate of the bytes that one batch takes at its peak.
    pub fn batch_bytes(&self, batch: usize, tokens: usize) -> u64 {
        let c = &self.config;
        // Feed-forward activations before and after, hidden states, and three copies of the attention scores.
        let per_token = 2 * c.intermediate_size + 6 * c.hidden_size + 3 * c.num_attention_heads * tokens;
        4 * (self.at_once(batch, tokens) * tokens * per_token) as u64
    }
}

/// The tokenizer of a checkpoint's folder.
pub fn tokenizer(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join("tokenizer.json");
    let bytes = read_bytes(&path)?;
    Tokenizer::from_bytes(bytes).map_err(|e| Error::data("not a tokenizer").at(path).because(e))
}

/// The encoder with random weights and the tokenizer for it, whose vocabulary is that of `texts`.
pub fn random_for(
    texts: &[String],
    seed: u64,
    max_tokens: usize,
    device: &Device,
) -> Result<(TextEncoder, Tokenizer)> {
    let tokenizer = word_level(texts)?;
    let encoder = TextEncoder::random(seed, tokenizer.get_vocab_size(true), max_tokens, device)?;
    Ok((encoder, tokenizer))
}

/// Checks what candle would only notice by a panic or a wrong result.
fn configuration(value: Value) -> Result<Config> {
    let architecture = value.get("model_type").and_then(Value::as_str).unwrap_or("bert").to_owned();
    if architecture != "bert" {
        return Err(Error::data(format!("architecture `{architecture}`, only `bert` is supported")));
    }
    let config: Config =
        serde_json::from_value(value).map_err(|e| Error::data("not a BERT configuration").because(e))?;
    let sizes = [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("num_attention_heads", config.num_attention_heads),
        ("max_position_embeddings", config.max_position_embeddings),
        ("type_vocab_size", config.type_vocab_size),
    ];
    if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
        return Err(Error::data(format!("{name} is 0")));
    }
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    if hidden % heads != 0 {
        return Err(Error::data(format!(
            "hidden_size {hidden} is no multiple of num_attention_heads {heads}"
        )));
    }
    Ok(config)
}

/// The checkpoint in `folder` has all its files; the hint says which they are.
pub fn require_checkpoint(folder: &Path) -> Result<()> {
    match FILES.iter().map(|name| folder.join(name)).find(|path| !path.is_file()) {
        Some(path) => Err(Error::new(Kind::Missing, "no such file in the text encoder's folder")
            .at(path)
            .hint(format!("an encoder is a folder with {}, or `random`", FILES.join(", ")))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::Tokens;

    fn texts() -> Vec<String> {
        ["a republic in central europe", "a river", "an island state in the south pacific ocean, a republic"]
            .map(str::to_owned)
            .to_vec()
    }

    fn encode(texts: &[String], seed: u64) -> Vec<Vec<f32>> {
        let (encoder, tokenizer) = random_for(texts, seed, 32, &Device::Cpu).unwrap();
        let tokens = Tokens::new(texts, &tokenizer, 32).unwrap();
        let batch: Vec<&[u32]> = tokens.ids.iter().map(Vec::as_slice).collect();
        let rows = encoder.encode(&batch).unwrap();
        rows.chunks(encoder.width()).map(<[f32]>::to_vec).collect()
    }

    fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_batch_of_different_lengths_equals_single_texts() {
        let texts = texts();
        let (encoder, tokenizer) = random_for(&texts, 7, 32, &Device::Cpu).unwrap();
        let tokens = Tokens::new(&texts, &tokenizer, 32).unwrap();
        let together = encode(&texts, 7);
        for (ids, row) in tokens.ids.iter().zip(&together) {
            let single = encoder.encode(&[ids]).unwrap();
            assert!(largest_difference(&single, row) < 1e-5);
        }
        assert!(largest_difference(&together[0], &together[1]) > 0.1);
    }

    #[test]
    fn random_weights_keep_texts_with_common_words_together() {
        let texts =
            ["a republic in central europe", "a republic in west africa", "two islands of the pacific ocean"];
        let rows = encode(&texts.map(str::to_owned), 7);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = |i: usize, j: usize| {
            dot(&rows[i], &rows[j]) / (dot(&rows[i], &rows[i]) * dot(&rows[j], &rows[j])).sqrt()
        };
        assert!(cosine(0, 1) > cosine(0, 2) + 0.3);
    }

    #[test]
    fn the_seed_decides_the_weights() {
        assert_eq!(encode(&texts(), 7), encode(&texts(), 7));
        assert_ne!(encode(&texts(), 7), encode(&texts(), 8));
    }

    #[test]
    fn a_token_outside_the_vocabulary_is_an_error() {
        let (encoder, _) = random_for(&texts(), 7, 32, &Device::Cpu).unwrap();
        let error = encoder.encode(&[&[1, 999]]).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains("token 999"), "{error}");
    }

    #[test]
    fn damaged_checkpoints_are_errors_not_panics() {
        let dir = tempfile::tempdir().unwrap();
        let load = || TextEncoder::load(dir.path(), &Device::Cpu).map(|_| ()).unwrap_err();
        assert_eq!(load().kind(), Kind::Missing);
        assert_eq!(require_checkpoint(dir.path()).unwrap_err().kind(), Kind::Missing);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("config.json", r#"{"model_type": "roberta"}"#);
        assert!(load().to_string().contains("architecture `roberta`"));
        write("config.json", r#"{"hidden_size": 8}"#);
        assert!(load().to_string().contains("not a BERT configuration"));
        let mut config = serde_json::json!({
            "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 0,
            "intermediate_size": 8, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
            "max_position_embeddings": 8, "type_vocab_size": 1, "initializer_range": 0.02,
            "layer_norm_eps": 1e-12, "pad_token_id": 0,
        });
        write("config.json", &config.to_string());
        assert!(load().to_string().ends_with("num_attention_heads is 0"));
        config["num_attention_heads"] = 3.into();
        write("config.json", &config.to_string());
        assert!(load().to_string().contains("no multiple"));
        config["num_attention_heads"] = 2.into();
        write("config.json", &config.to_string());
        for weights in ["", "junk", "\u{8}\0\0\0\0\0\0\0{}      "] {
            write("model.safetensors", weights);
            assert!(load().to_string().contains("not the weights"), "{weights:?}");
        }
        write("tokenizer.json", "{}");
        assert!(tokenizer(dir.path()).unwrap_err().to_string().ends_with("tokenizer.json: not a tokenizer"));
    }
}
