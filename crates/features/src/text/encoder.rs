//! The text encoder: token ids become rows.

use candle_core::Device;
use stage::recipe::TextOutput;
use stage::{Error, Result};

use crate::bert::Bert;
use crate::checkpoint::Checkpoint;
use crate::random::bert::RandomBert;
use crate::tensor_error;

/// Tokens that go through the layers together on the CPU, if a single text is not longer. More no longer fit the
/// caches (a batch of 128 glosses takes 1.4 times as long in one piece) and would take more memory.
const CPU_TOKENS: usize = 512;

/// A model that encodes texts.
pub(crate) trait TextModel: Send + Sync {
    /// Numbers per text.
    fn width(&self) -> usize;
    /// Token ids are below it.
    fn vocabulary(&self) -> usize;
    /// The longest text it can take, in tokens.
    fn max_tokens(&self) -> usize;
    /// An estimate of the bytes that encoding texts of so many `tokens` takes at its peak, for each token.
    fn bytes_per_token(&self, tokens: usize) -> u64;
    /// `(text, width)`, row after row, of texts that have tokens of the vocabulary.
    fn encode(&self, texts: &[&[u32]]) -> candle_core::Result<Vec<f32>>;
}

/// A BERT-architecture encoder in `f32`. It never changes, so threads share it.
pub struct TextEncoder {
    model: Box<dyn TextModel>,
    device: Device,
}

impl TextEncoder {
    /// The encoder of a checkpoint, and what of it shall be the feature.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where the checkpoint is damaged, of another architecture, or has not that output.
    pub fn load(checkpoint: &Checkpoint, output: TextOutput, device: &Device) -> Result<TextEncoder> {
        Ok(TextEncoder { model: Box::new(Bert::load(checkpoint, output, device)?), device: device.clone() })
    }

    /// An encoder of [`RANDOM`](crate::random::bert::RANDOM) sizes and weights drawn from `seed`, for token ids below
    /// `vocabulary` and up to `max_tokens` of them.
    pub fn random(seed: u64, vocabulary: usize, max_tokens: usize, device: &Device) -> Result<TextEncoder> {
        let model = RandomBert::new(seed, vocabulary, max_tokens, device);
        let model = model.map_err(tensor_error("building the text encoder"))?;
        Ok(TextEncoder { model: Box::new(model), device: device.clone() })
    }

    /// Numbers per text.
    pub fn width(&self) -> usize {
        self.model.width()
    }

    /// The longest text it can take, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.model.max_tokens()
    }

    /// Encodes texts, given as token ids, none of them empty: `(text, width)`, row after row.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where a token id is outside the encoder's vocabulary.
    pub fn encode(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        self.check(texts)?;
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let at_once = self.at_once(texts.len(), longest);
        let mut rows = Vec::with_capacity(texts.len() * self.width());
        for texts in texts.chunks(at_once) {
            rows.extend(self.model.encode(texts).map_err(tensor_error("encoding texts"))?);
        }
        Ok(rows)
    }

    fn check(&self, texts: &[&[u32]]) -> Result<()> {
        let known = self.model.vocabulary();
        match texts.iter().copied().flatten().find(|id| **id as usize >= known) {
            Some(id) => {
                let message = format!("the tokenizer gives token {id}, but the encoder knows {known}");
                Err(Error::data(message).hint("do tokenizer.json and the weights belong together?"))
            }
            None => Ok(()),
        }
    }

    /// How many texts of a batch go through the layers together, where the longest has so many `tokens`.
    fn at_once(&self, batch: usize, tokens: usize) -> usize {
        let most = if self.device.is_cpu() { CPU_TOKENS / tokens.max(1) } else { batch };
        most.clamp(1, batch.max(1))
    }

    /// An estimate of the bytes that one batch takes at its peak.
    pub fn batch_bytes(&self, batch: usize, tokens: usize) -> u64 {
        (self.at_once(batch, tokens) * tokens) as u64 * self.model.bytes_per_token(tokens)
    }
}

#[cfg(test)]
#[path = "encoder/tests.rs"]
mod tests;
