//! The text encoder: token ids become rows.

use recipe::{Precision, TextOutput};
use stage::{Error, Modality, Result};

use crate::bert::Bert;
use crate::checkpoint::Checkpoint;
use crate::place::Place;
use crate::random::bert::RandomBert;
use crate::tensor_error;
use crate::transformer::{CPU_PRODUCTS, Encoder};

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
    /// What computes it, where that may be a device.
    fn encoder(&self) -> Option<&Encoder> {
        None
    }
    /// `(text, width)`, row after row, of texts that have tokens of the vocabulary.
    fn encode(&self, texts: &[&[u32]]) -> Result<Vec<f32>>;
}

/// A BERT-architecture encoder in `f32`. It never changes, so threads share it.
pub struct TextEncoder(Box<dyn TextModel>);

impl TextEncoder {
    /// The encoder of a checkpoint, and what of it shall be the feature. On a device its products are in this precision.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where the checkpoint is damaged, of another architecture, or has not that output.
    pub fn load(
        checkpoint: &Checkpoint,
        output: TextOutput,
        place: &Place,
        precision: Precision,
    ) -> Result<TextEncoder> {
        Ok(TextEncoder(Box::new(Bert::load(checkpoint, output, place, precision)?)))
    }

    /// An encoder of [`RANDOM`](crate::random::bert::RANDOM) sizes and weights drawn from `seed`, for token ids below
    /// `vocabulary` and up to `max_tokens` of them; on the CPU.
    pub fn random(seed: u64, vocabulary: usize, max_tokens: usize) -> Result<TextEncoder> {
        let model = RandomBert::new(seed, vocabulary, max_tokens);
        Ok(TextEncoder(Box::new(model.map_err(tensor_error("building the text encoder"))?)))
    }

    /// What its products are called in a summary.
    pub fn products(&self) -> String {
        self.0.encoder().map_or(CPU_PRODUCTS.to_owned(), Encoder::products)
    }

    /// Refuses a batch of so many texts, the longest of so many `tokens`, that a device's memory does not hold.
    pub fn require_device_memory(&self, batch: usize, tokens: usize, modality: &Modality) -> Result<()> {
        self.0.encoder().map_or(Ok(()), |encoder| encoder.require_memory(batch, tokens, modality))
    }

    fn is_on_cpu(&self) -> bool {
        self.0.encoder().is_none_or(Encoder::is_on_cpu)
    }

    /// Numbers per text.
    pub fn width(&self) -> usize {
        self.0.width()
    }

    /// The longest text it can take, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.0.max_tokens()
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
            rows.extend(self.0.encode(texts)?);
        }
        Ok(rows)
    }

    fn check(&self, texts: &[&[u32]]) -> Result<()> {
        let known = self.0.vocabulary();
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
        let most = if self.is_on_cpu() { CPU_TOKENS / tokens.max(1) } else { batch };
        most.clamp(1, batch.max(1))
    }

    /// An estimate of the bytes that one batch takes at its peak, in this program's memory.
    pub fn batch_bytes(&self, batch: usize, tokens: usize) -> u64 {
        if !self.is_on_cpu() {
            return 4 * (batch * (tokens + self.width())) as u64;
        }
        (self.at_once(batch, tokens) * tokens) as u64 * self.0.bytes_per_token(tokens)
    }
}

#[cfg(test)]
#[path = "encoder/tests.rs"]
mod tests;
