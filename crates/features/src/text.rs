//! Texts of entities become features.

use device::Device;
use mkg::graph::Entity;
use recipe::{TextField, TextOutput};
use stage::{Modality, Result};
use tokenizers::Tokenizer;

use crate::batch::{Encode, Encoded, EntityBatch};
use crate::images::DecodeReport;
use crate::source::EncoderSource;
use crate::tokens::{Tokens, word_level};

pub mod encoder;
pub(crate) mod models;

pub use encoder::{TOKENIZER, TextEncoder, tokenizer};

/// For each entity the `fields` it has, joined by `. `; empty where it has none.
pub(crate) fn texts_of(entities: &[Entity], fields: &[TextField]) -> Vec<String> {
    entities.iter().map(|entity| text_of(entity, fields)).collect()
}

fn text_of(entity: &Entity, fields: &[TextField]) -> String {
    let parts = fields.iter().filter_map(|field| match field {
        TextField::Name => entity.name.as_deref(),
        TextField::Description => entity.description.as_deref(),
        TextField::Caption => entity.caption.as_deref(),
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(". ")
}

/// An encoder with what makes tokens of texts.
pub(crate) struct TextReader {
    pub encoder: TextEncoder,
    tokenizer: Tokenizer,
    /// Tokens of the longest text that it takes whole.
    pub max_tokens: usize,
}

impl TextReader {
    pub(crate) fn tokens(&self, texts: &[String]) -> Result<Tokens> {
        Tokens::new(texts, &self.tokenizer, self.max_tokens)
    }
}

impl EncoderSource<TextOutput> {
    /// The encoder. With random weights it knows the words of the graph's `texts`, and as many positions as they need.
    pub(crate) fn open(
        &self,
        texts: &[String],
        max_tokens: usize,
        seed: u64,
        device: &Device,
    ) -> Result<TextReader> {
        match self {
            EncoderSource::Checkpoint(checkpoint, output) => {
                let encoder = TextEncoder::load(checkpoint, *output, device)?;
                let max_tokens = max_tokens.min(encoder.max_tokens());
                Ok(TextReader { encoder, tokenizer: tokenizer(checkpoint)?, max_tokens })
            }
            EncoderSource::Random => {
                let tokenizer = word_level(texts)?;
                let max_tokens = Tokens::new(texts, &tokenizer, max_tokens)?.longest();
                let words = tokenizer.get_vocab_size(true);
                let encoder = TextEncoder::random(seed, words, max_tokens, device)?;
                Ok(TextReader { encoder, tokenizer, max_tokens })
            }
        }
    }
}

/// Texts, and what encodes them, in batches of about the same length.
///
/// Lengths alone decide which texts share a batch, so a continued run and one on more threads give the same bytes.
pub(crate) struct TextWork {
    pub encoder: TextEncoder,
    pub tokens: Tokens,
    /// Texts per batch.
    pub batch: usize,
}

impl TextWork {
    /// Refuses batches, on so many `threads`, that the memory does not suffice for.
    pub(crate) fn require_memory(&self, threads: usize, modality: &Modality) -> Result<()> {
        let table = 4 * (self.tokens.ids.len() * self.encoder.width()) as u64;
        let bytes = table
            + threads as u64
                * self.encoder.batch_bytes(self.batch.min(self.tokens.ids.len()), self.tokens.longest());
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

    /// Entities by the length of their texts, the longest first, so that the last batches to end are short ones.
    fn batches(&self) -> Vec<EntityBatch> {
        let ids = &self.tokens.ids;
        let mut order: Vec<usize> = (0..ids.len()).filter(|i| !ids[*i].is_empty()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(ids[*i].len()));
        let batches = order.chunks(self.batch.max(1)).map(<[usize]>::to_vec).enumerate();
        batches.map(|(number, entities)| EntityBatch { number, size: entities.len(), entities }).collect()
    }

    fn encode(&self, batch: &EntityBatch) -> Result<Encoded> {
        let texts: Vec<&[u32]> = batch.entities.iter().map(|i| self.tokens.ids[*i].as_slice()).collect();
        let rows = self.encoder.encode(&texts)?;
        Ok(Encoded { entities: batch.entities.clone(), report: DecodeReport::default(), rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FeatureTable;
    use crate::batch::Job;
    use crate::tokens::word_level;
    use std::path::Path;

    fn texts() -> Vec<String> {
        let text =
            |i: usize| ["red", "green", "blue", "dog", "cat"][i % 5].to_owned() + &" and so on".repeat(i % 7);
        (0..40).map(|i| if i % 9 == 0 { String::new() } else { text(i) }).collect()
    }

    fn run_in(folder: &Path) -> FeatureTable {
        let tokenizer = word_level(&texts()).unwrap();
        let words = tokenizer.get_vocab_size(true);
        let encoder = TextEncoder::random(1, words, 16, &candle_core::Device::Cpu).unwrap();
        let tokens = Tokens::new(&texts(), &tokenizer, 16).unwrap();
        let modality = "textual".parse().unwrap();
        let job = Job { modality: &modality, threads: 2, shard: None, folder };
        job.run(&TextWork { encoder, tokens, batch: 4 }, 40).unwrap().table
    }

    #[test]
    fn kept_batches_are_taken_up_and_damaged_ones_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let whole = run_in(dir.path());
        let batch = |i: usize| dir.path().join(format!("batch-{i:06}.tmp"));
        let before = std::fs::read(batch(2)).unwrap();
        std::fs::remove_file(batch(0)).unwrap();
        std::fs::write(batch(2), &before[..before.len() - 1]).unwrap();
        let untouched = batch(1).metadata().unwrap().modified().unwrap();
        assert_eq!(run_in(dir.path()), whole);
        assert!(batch(0).is_file() && std::fs::read(batch(2)).unwrap() == before);
        assert_eq!(batch(1).metadata().unwrap().modified().unwrap(), untouched);
    }

    #[test]
    fn fields_are_joined_where_present() {
        let entity = Entity {
            name: Some("Oslo ".into()),
            description: Some("  ".into()),
            caption: Some("a fjord".into()),
            ..Entity::default()
        };
        let all = [TextField::Name, TextField::Description, TextField::Caption];
        assert_eq!(texts_of(&[entity, Entity::default()], &all), ["Oslo. a fjord", ""]);
    }
}
