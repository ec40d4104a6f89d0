//! A small BERT with random weights, by candle's own layers: what runs have been made with stays the same to the bit.

use candle_core::{Device, Result, Tensor};
use candle_transformers::models::bert::{BertModel, Config};
use serde::Serialize;
use tokenizers::Tokenizer;

use crate::random;
use crate::tensor_error;
use crate::text::encoder::{TextEncoder, TextModel};
use crate::tokens::word_level;

/// Sizes of the encoder.
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

/// Stands where a text of a batch has no more tokens.
const PADDING: u32 = 0;

/// The mean over tokens.
pub(crate) struct RandomBert {
    model: BertModel,
    config: Config,
}

impl RandomBert {
    pub(crate) fn new(seed: u64, vocabulary: usize, max_tokens: usize) -> Result<RandomBert> {
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
        let model = BertModel::load(random::weights(seed, "features/random-bert"), &config)?;
        Ok(RandomBert { model, config })
    }
}

impl TextModel for RandomBert {
    fn width(&self) -> usize {
        self.config.hidden_size
    }

    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn max_tokens(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn bytes_per_token(&self, tokens: usize) -> u64 {
        // Feed-forward activations before and after, hidden states, and three copies of the attention scores.
        4 * (2 * RANDOM.intermediate + 6 * RANDOM.hidden + 3 * RANDOM.heads * tokens) as u64
    }

    fn encode(&self, texts: &[&[u32]]) -> stage::Result<Vec<f32>> {
        self.means(texts).map_err(tensor_error("encoding texts"))
    }
}

impl RandomBert {
    /// Shorter texts are padded to the longest; padding is masked in the attention and left out of the mean.
    fn means(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let shape = (texts.len(), longest);
        let ids: Vec<u32> =
            texts.iter().flat_map(|text| (0..longest).map(|i| *text.get(i).unwrap_or(&PADDING))).collect();
        let mask = |inside: fn(usize) -> f32| -> Vec<f32> {
            let weight = |text: &[u32], i: usize| if i < text.len() { inside(text.len()) } else { 0.0 };
            texts.iter().flat_map(|text| (0..longest).map(move |i| weight(text, i))).collect()
        };
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let attended = Tensor::from_vec(mask(|_| 1.0), shape, &Device::Cpu)?;
        // The mean over a text's own tokens is a product with weights of 1 / length and 0.
        let means = Tensor::from_vec(mask(|length| 1.0 / length as f32), shape, &Device::Cpu)?;
        let hidden = self.model.forward(&ids, &ids.zeros_like()?, Some(&attended))?;
        means.unsqueeze(1)?.matmul(&hidden)?.flatten_all()?.to_vec1()
    }
}

/// The encoder with random weights and the tokenizer for it, whose vocabulary is that of `texts`.
pub fn encoder_for(
    texts: &[String],
    seed: u64,
    max_tokens: usize,
) -> stage::Result<(TextEncoder, Tokenizer)> {
    let tokenizer = word_level(texts)?;
    let encoder = TextEncoder::random(seed, tokenizer.get_vocab_size(true), max_tokens)?;
    Ok((encoder, tokenizer))
}
