//! Texts of entities become features: an encoder turns token ids into rows.

use candle_core::{Device, IndexOp, Module, Tensor};
use candle_nn::{Linear, VarBuilder, linear};
use mkg::graph::Entity;
use recipe::{TextField, TextOutput};
use stage::files::read_bytes;
use stage::{Error, Modality, Result};
use tokenizers::Tokenizer;

use crate::batch::{Encode, Encoded, EntityBatch};
use crate::checkpoint::{Checkpoint, Config};
use crate::images::DecodeReport;
use crate::tokens::{Tokens, longest, word_level};
use crate::{tensor_error, weights};

pub(crate) mod models;

use models::{TextArchitecture, TextModel};

/// The text of every entity: those of the `fields` that it has, joined by `. `; empty if it has none.
pub(crate) fn texts_of(entities: &[Entity], fields: &[TextField]) -> Vec<String> {
    let texts = entities.iter().map(|entity| {
        let parts = fields.iter().filter_map(|field| match field {
            TextField::Name => entity.name.as_deref(),
            TextField::Description => entity.description.as_deref(),
            TextField::Caption => entity.caption.as_deref(),
        });
        parts.map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(". ")
    });
    texts.collect()
}

pub(crate) struct TextReader {
    pub encoder: TextEncoder,
    tokenizer: Tokenizer,
    /// The number of tokens of the longest text that the encoder takes whole.
    pub max_tokens: usize,
}

impl TextReader {
    /// The encoder of a checkpoint. Without a checkpoint, a small encoder with weights drawn from `seed`, whose
    /// vocabulary and length fit the graph's `texts`.
    pub(crate) fn open(
        checkpoint: Option<&Checkpoint>,
        output: TextOutput,
        texts: &[String],
        max_tokens: usize,
        seed: u64,
        device: &Device,
    ) -> Result<TextReader> {
        if let Some(checkpoint) = checkpoint {
            let encoder = TextEncoder::load(checkpoint, output, device)?;
            let max_tokens = max_tokens.min(encoder.max_tokens());
            return Ok(TextReader { encoder, tokenizer: tokenizer(checkpoint)?, max_tokens });
        }
        let tokenizer = word_level(texts)?;
        let max_tokens = longest(&Tokens::new(texts, &tokenizer, max_tokens)?.ids);
        let config = Config::new(&weights::random_text())?
            .with("vocab_size", tokenizer.get_vocab_size(true))
            .with("max_position_embeddings", max_tokens.max(1));
        let weights = weights::random(seed, "features/random-bert", device);
        let encoder = TextEncoder::new(config, TextOutput::Mean, weights)
            .map_err(tensor_error("building the text encoder"))?;
        Ok(TextReader { encoder, tokenizer, max_tokens })
    }

    pub(crate) fn tokens(&self, texts: &[String]) -> Result<Tokens> {
        Tokens::new(texts, &self.tokenizer, self.max_tokens)
    }
}

/// Texts and their encoder, in batches of texts of similar length.
///
/// Only the lengths decide which texts share a batch, so a continued run and a run on more threads give the same bytes.
pub(crate) struct TextWork {
    pub encoder: TextEncoder,
    pub tokens: Tokens,
    pub batch: usize,
}

impl TextWork {
    /// Refuses batches that do not fit into memory.
    pub(crate) fn require_memory(&self, modality: &Modality) -> Result<()> {
        let texts = self.tokens.ids.len();
        let batch = self.encoder.batch_numbers(self.batch.min(texts), longest(&self.tokens.ids));
        let bytes = 4 * (texts * self.encoder.width() + rayon::current_num_threads() * batch) as u64;
        let knob =
            format!("lower `features.{modality}.batch` or `features.{modality}.max_tokens`, or --threads");
        stage::resources::require_memory(bytes, "encoding texts", &knob)
    }
}

impl Encode for TextWork {
    fn unit(&self) -> &'static str {
        "texts"
    }

    fn width(&self) -> usize {
        self.encoder.width()
    }

    /// The entities by the length of their texts, longest first, so that the last batches to finish are short.
    fn batches(&self) -> Vec<EntityBatch> {
        let ids = &self.tokens.ids;
        let mut order: Vec<usize> = (0..ids.len()).filter(|i| !ids[*i].is_empty()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(ids[*i].len()));
        let batches = order.chunks(self.batch.max(1));
        batches.map(|batch| EntityBatch { entities: batch.to_vec(), size: batch.len() }).collect()
    }

    fn encode(&self, batch: &EntityBatch) -> Result<Encoded> {
        let texts: Vec<&[u32]> = batch.entities.iter().map(|i| self.tokens.ids[*i].as_slice()).collect();
        let rows = self.encoder.encode(&texts)?;
        Ok(Encoded { entities: batch.entities.clone(), report: DecodeReport::default(), rows })
    }
}

/// The file that a text checkpoint has in addition to its configuration and weights.
pub const TOKENIZER: &str = "tokenizer.json";

/// The number of tokens that go through the layers together on the CPU, unless a single text is longer. More tokens no
/// longer fit the caches and take more memory.
const CPU_TOKENS: usize = 512;

/// A text encoder in `f32`. It never changes, so threads share it.
pub struct TextEncoder {
    model: TextModel,
    config: Config<TextArchitecture>,
    output: TextOutput,
    /// The layer over the first token's state, where the output is the pooler's.
    pooler: Option<Linear>,
    device: Device,
}

impl TextEncoder {
    /// Loads the encoder of a checkpoint; `output` says which of its outputs is the feature. An output that the encoder
    /// lacks is an error of the kind [`Usage`](stage::Kind::Usage).
    pub fn load(checkpoint: &Checkpoint, output: TextOutput, device: &Device) -> Result<TextEncoder> {
        let (config, weights) = checkpoint.load(output, device)?;
        TextEncoder::new(config, output, weights).map_err(|e| checkpoint.damaged(e))
    }

    fn new(
        config: Config<TextArchitecture>,
        output: TextOutput,
        weights: VarBuilder<'static>,
    ) -> candle_core::Result<TextEncoder> {
        let (hidden, device) = (config.size("hidden_size"), weights.device().clone());
        if config.size("pad_token_id") >= config.size("vocab_size") {
            let [padding, words] = ["pad_token_id", "vocab_size"].map(|name| config.value(name));
            candle_core::bail!("config.json: pad_token_id {padding} is not below vocab_size {words}");
        }
        let pooler = match output {
            TextOutput::Pooler => Some(linear(hidden, hidden, weights.pp("pooler.dense"))?),
            TextOutput::Mean | TextOutput::Cls => None,
        };
        Ok(TextEncoder { model: config.model(weights)?, config, output, pooler, device })
    }

    /// The count of numbers per text.
    pub fn width(&self) -> usize {
        self.config.size("hidden_size")
    }

    /// The largest number of tokens of a text.
    pub fn max_tokens(&self) -> usize {
        self.config.max_tokens()
    }

    /// Encodes non-empty texts, given as token ids, to `(text, width)`, row after row. A token outside the encoder's
    /// vocabulary is an error.
    pub fn encode(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        let known: u32 = self.config.number("vocab_size");
        if let Some(id) = texts.iter().copied().flatten().find(|id| **id >= known) {
            let message = format!("the tokenizer gives token {id}, but the encoder knows {known}");
            return Err(Error::data(message).hint("do tokenizer.json and the weights belong together?"));
        }
        let mut rows = Vec::with_capacity(texts.len() * self.width());
        for texts in texts.chunks(self.at_once(texts.len(), longest(texts))) {
            rows.extend(self.rows(texts).map_err(tensor_error("encoding texts"))?);
        }
        Ok(rows)
    }

    /// Encodes texts, padded to the longest; the attention masks the padding, and the mean leaves it out.
    fn rows(&self, texts: &[&[u32]]) -> candle_core::Result<Vec<f32>> {
        let longest = longest(texts);
        let shape = (texts.len(), longest);
        let padding: u32 = self.config.number("pad_token_id");
        let (mut ids, mut mask) = (vec![padding; texts.len() * longest], vec![0u32; texts.len() * longest]);
        for (i, text) in texts.iter().enumerate() {
            ids[i * longest..][..text.len()].copy_from_slice(text);
            mask[i * longest..][..text.len()].fill(1);
        }
        let ids = Tensor::from_vec(ids, shape, &self.device)?;
        let mask = Tensor::from_vec(mask, shape, &self.device)?;
        let states = (self.model)(&ids, &mask)?;
        let rows = match &self.pooler {
            None if self.output == TextOutput::Mean => mean(&states, &mask)?,
            None => states.i((.., 0))?,
            Some(pooler) => pooler.forward(&states.i((.., 0))?.contiguous()?)?.tanh()?,
        };
        rows.flatten_all()?.to_vec1()
    }

    /// The number of texts of a batch that go through the layers together if the longest has `tokens` tokens.
    fn at_once(&self, batch: usize, tokens: usize) -> usize {
        let most = if self.device.is_cpu() { CPU_TOKENS / tokens.max(1) } else { batch };
        most.clamp(1, batch.max(1))
    }

    /// An estimate of the count of 32-bit numbers that one batch needs at its peak in this program's memory.
    fn batch_numbers(&self, batch: usize, tokens: usize) -> usize {
        if !self.device.is_cpu() {
            return batch * (tokens + self.width());
        }
        let [hidden, inner, heads] =
            ["hidden_size", "intermediate_size", "num_attention_heads"].map(|name| self.config.size(name));
        // The feed-forward part before and after its activation, states, and three copies of the attention's scores.
        self.at_once(batch, tokens) * tokens * (2 * inner + 6 * hidden + 3 * heads * tokens)
    }
}

/// The mean over each text's own tokens: a product with weights of 1 / length and 0.
fn mean(states: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
    let mask = mask.to_dtype(states.dtype())?;
    mask.broadcast_div(&mask.sum_keepdim(1)?)?.unsqueeze(1)?.matmul(states)?.squeeze(1)
}

/// The tokenizer of a checkpoint.
pub fn tokenizer(checkpoint: &Checkpoint) -> Result<Tokenizer> {
    let path = checkpoint.path(TOKENIZER);
    let bytes = read_bytes(&path)?;
    // Some parts of the reader panic on damaged files.
    let read =
        stage::caught(|| Tokenizer::from_bytes(bytes)).unwrap_or_else(|| Err("its reader panicked".into()));
    read.map_err(|e| Error::data("not a tokenizer").at(path).because(e))
}

#[cfg(test)]
mod tests;
