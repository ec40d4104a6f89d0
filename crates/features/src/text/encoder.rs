//! The text encoder: token ids become rows.

use candle_core::{Device, IndexOp, Module, Tensor};
use candle_nn::{Linear, VarBuilder, linear};
use recipe::TextOutput;
use stage::files::read_bytes;
use stage::{Error, Result};
use tokenizers::Tokenizer;

use super::models::{TextArchitecture, TextModel};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::{random, tensor_error};

/// The file that a checkpoint of texts has beside its configuration and weights.
pub const TOKENIZER: &str = "tokenizer.json";

/// Tokens that go through the layers together on the CPU, if a single text is not longer. More no longer fit the
/// caches and would take more memory.
const CPU_TOKENS: usize = 512;

/// A text encoder in `f32`. It never changes, so threads share it.
pub struct TextEncoder {
    model: TextModel,
    config: Config<TextArchitecture>,
    output: TextOutput,
    /// Over the first token's state, where that is the output.
    pooler: Option<Linear>,
    device: Device,
}

impl TextEncoder {
    /// The encoder of a checkpoint, and what of it shall be the feature.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where the checkpoint is damaged or of an architecture without adapter, [`stage::Kind::Usage`]
    /// where it has not that output.
    pub fn load(checkpoint: &Checkpoint, output: TextOutput, device: &Device) -> Result<TextEncoder> {
        let config = checkpoint.config::<TextArchitecture>()?;
        checkpoint.require_output(output, config.outputs())?;
        let weights = checkpoint.weights(config.probe(), device)?;
        TextEncoder::new(config, output, weights).map_err(|e| checkpoint.damaged(e))
    }

    /// A small encoder with weights drawn from `seed`, for token ids below `vocabulary` and up to `max_tokens` of them.
    pub fn random(seed: u64, vocabulary: usize, max_tokens: usize, device: &Device) -> Result<TextEncoder> {
        let config = Config::new(&random::text())?
            .with("vocab_size", vocabulary)
            .with("max_position_embeddings", max_tokens.max(1));
        let weights = random::weights(seed, "features/random-bert", device);
        TextEncoder::new(config, TextOutput::Mean, weights).map_err(tensor_error("building the text encoder"))
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

    /// Numbers per text.
    pub fn width(&self) -> usize {
        self.config.size("hidden_size")
    }

    /// The longest text it can take, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.config.max_tokens()
    }

    /// Encodes texts, given as token ids, none of them empty: `(text, width)`, row after row.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where a token id is outside the encoder's vocabulary.
    pub fn encode(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        self.check(texts)?;
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let mut rows = Vec::with_capacity(texts.len() * self.width());
        for texts in texts.chunks(self.at_once(texts.len(), longest)) {
            rows.extend(self.rows(texts).map_err(tensor_error("encoding texts"))?);
        }
        Ok(rows)
    }

    /// Shorter texts are padded to the longest; padding is masked in the attention and left out of the mean.
    fn rows(&self, texts: &[&[u32]]) -> candle_core::Result<Vec<f32>> {
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let shape = (texts.len(), longest);
        let padding = self.config.size("pad_token_id") as u32;
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

    fn check(&self, texts: &[&[u32]]) -> Result<()> {
        let known = self.config.size("vocab_size");
        match texts.iter().copied().flatten().find(|id| **id as usize >= known) {
            Some(id) => {
                let message = format!("the tokenizer gives token {id}, but the encoder knows {known}");
                Err(Error::data(message).hint("do tokenizer.json and the weights belong together?"))
            }
            None => Ok(()),
        }
    }

    /// The number of texts of a batch that go through the layers together, where the longest has so many `tokens`.
    fn at_once(&self, batch: usize, tokens: usize) -> usize {
        let most = if self.device.is_cpu() { CPU_TOKENS / tokens.max(1) } else { batch };
        most.clamp(1, batch.max(1))
    }

    /// An estimate of the bytes that one batch takes at its peak, in this program's memory.
    pub fn batch_bytes(&self, batch: usize, tokens: usize) -> u64 {
        if !self.device.is_cpu() {
            return 4 * (batch * (tokens + self.width())) as u64;
        }
        let [hidden, inner, heads] =
            ["hidden_size", "intermediate_size", "num_attention_heads"].map(|name| self.config.size(name));
        // The feed-forward part before and after its activation, states, and three copies of the attention's scores.
        4 * (self.at_once(batch, tokens) * tokens * (2 * inner + 6 * hidden + 3 * heads * tokens)) as u64
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
    // Not every reader of a part expects that it may be damaged.
    let read =
        stage::caught(|| Tokenizer::from_bytes(bytes)).unwrap_or_else(|| Err("its reader panicked".into()));
    read.map_err(|e| Error::data("not a tokenizer").at(path).because(e))
}

#[cfg(test)]
#[path = "encoder/tests.rs"]
mod tests;
