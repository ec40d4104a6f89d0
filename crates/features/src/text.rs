//! Texts of entities become features.

use mkg::graph::Entity;
use program::Progress;
use recipe::TextField;
use serde_json::Value;
use stage::{Modality, Result};
use std::path::PathBuf;

use crate::FeatureTable;
use crate::journal::{Entry, Head, Journal};
use crate::outcome::Covered;
use crate::parallel::as_done;
use crate::shard::Shard;
use crate::tokens::Tokens;

pub mod encoder;
pub(crate) mod models;

pub use encoder::{TOKENIZER, TextEncoder, tokenizer};

/// For each entity the `fields` it has, joined by `. `; empty where it has none.
///
/// ```
/// use dsom_features::text::texts_of;
/// use recipe::TextField::{Description, Name};
/// let entity = |name: &str| mkg::graph::Entity { name: Some(name.into()), ..Default::default() };
/// assert_eq!(texts_of(&[entity("Oslo")], &[Name, Description]), ["Oslo"]);
/// ```
pub fn texts_of(entities: &[Entity], fields: &[TextField]) -> Vec<String> {
    let text = |entity: &Entity| {
        let parts = fields.iter().filter_map(|field| match field {
            TextField::Name => entity.name.as_deref(),
            TextField::Description => entity.description.as_deref(),
            TextField::Caption => entity.caption.as_deref(),
        });
        parts.map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(". ")
    };
    entities.iter().map(text).collect()
}

/// Encodes texts in batches of about the same length.
pub struct TextWork<'a> {
    /// The encoder.
    pub encoder: &'a TextEncoder,
    /// The texts.
    pub tokens: &'a Tokens,
    /// Texts per batch.
    pub batch: usize,
    /// Batches at the same time.
    pub threads: usize,
    /// Shown beside the progress.
    pub modality: &'a Modality,
    /// Which batches are done here.
    pub shard: Shard,
    /// Where finished batches are kept, and looked for.
    pub journal: PathBuf,
}

impl TextWork<'_> {
    /// The features of all texts; an entity without tokens is absent.
    ///
    /// Which texts share a batch is decided by lengths alone, so a continued run and one on more threads give the
    /// same bytes.
    pub fn run(&self) -> Result<FeatureTable> {
        self.require_memory()?;
        let mut table = FeatureTable::absent(self.tokens.ids.len(), self.encoder.width());
        let mut journal =
            Journal::open(&self.journal, |entry| table.take(&entry.head.entities, &entry.rows))?;
        let done = table.count_present();
        if done > 0 {
            tracing::info!("{}: continues with {done} texts done", self.modality);
        }
        let mut left = self.batches();
        left.retain(|(_, batch)| !batch.iter().all(|i| table.present[*i]));
        let entities = || left.iter().flat_map(|(_, batch)| batch);
        let (texts, tokens) =
            (entities().count(), entities().map(|i| self.tokens.ids[*i].len()).sum::<usize>());
        tracing::info!("{}: encodes {texts} texts of {tokens} tokens", self.modality);
        let progress = Progress::new(self.modality.as_str(), (done + texts) as u64, "texts");
        progress.start_at(done as u64);
        let encode = |(_, batch): &(usize, Vec<usize>)| self.encode(batch);
        as_done(&left, self.threads, encode, |(number, batch), rows| {
            table.take(batch, &rows)?;
            progress.advance(batch.len() as u64);
            let head = Head { batch: *number, entities: batch.clone(), note: Value::Null };
            journal.append(&Entry { head, rows })
        })?;
        Ok(table)
    }

    /// The entities whose texts are encoded here.
    pub fn covered(&self) -> Covered {
        let entities = self.batches().into_iter().flat_map(|(_, batch)| batch).collect();
        Covered { entities, of: self.tokens.ids.iter().filter(|ids| !ids.is_empty()).count() }
    }

    fn encode(&self, batch: &[usize]) -> Result<Vec<f32>> {
        let texts: Vec<&[u32]> = batch.iter().map(|i| self.tokens.ids[*i].as_slice()).collect();
        self.encoder.encode(&texts)
    }

    /// The shard's batches with their numbers: entities by the length of their texts, the longest first, so that the last
    /// batches to end are short ones.
    fn batches(&self) -> Vec<(usize, Vec<usize>)> {
        let ids = &self.tokens.ids;
        let mut order: Vec<usize> = (0..ids.len()).filter(|i| !ids[*i].is_empty()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(ids[*i].len()));
        let batches = order.chunks(self.batch.max(1)).map(<[usize]>::to_vec).enumerate();
        batches.filter(|(number, _)| self.shard.has(*number)).collect()
    }

    fn require_memory(&self) -> Result<()> {
        let longest = self.tokens.longest();
        let table = 4 * (self.tokens.ids.len() * self.encoder.width()) as u64;
        let bytes = table + self.threads as u64 * self.encoder.batch_bytes(self.batch, longest);
        let knob =
            format!("lower `features.{0}.batch` or `features.{0}.max_tokens`, or --threads", self.modality);
        stage::resources::require_memory(bytes, "encoding texts", &knob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::word_level;
    use std::path::Path;

    fn texts() -> Vec<String> {
        let text =
            |i: usize| ["red", "green", "blue", "dog", "cat"][i % 5].to_owned() + &" and so on".repeat(i % 7);
        (0..40).map(|i| if i % 9 == 0 { String::new() } else { text(i) }).collect()
    }

    fn run_at(journal: &Path, batch: usize, threads: usize, shard: Shard) -> (FeatureTable, Vec<usize>) {
        let texts = texts();
        let tokenizer = word_level(&texts).unwrap();
        let words = tokenizer.get_vocab_size(true);
        let encoder = TextEncoder::random(1, words, 16, &candle_core::Device::Cpu).unwrap();
        let tokens = Tokens::new(&texts, &tokenizer, 16).unwrap();
        let (modality, journal) = ("textual".parse().unwrap(), journal.to_owned());
        let work = TextWork {
            encoder: &encoder,
            tokens: &tokens,
            batch,
            threads,
            modality: &modality,
            shard,
            journal,
        };
        (work.run().unwrap(), work.covered().entities)
    }

    fn run(batch: usize, threads: usize) -> FeatureTable {
        let dir = tempfile::tempdir().unwrap();
        run_at(&dir.path().join("journal"), batch, threads, Shard::WHOLE).0
    }

    #[test]
    fn threads_do_not_change_a_bit_and_batches_hardly() {
        let table = run(4, 1);
        assert_eq!(table, run(4, 3));
        let single = run(1, 2);
        assert_eq!(single.present, table.present);
        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
        assert!(table.values.iter().zip(&single.values).all(close));
        assert_eq!(table.present[..3], [false, true, true]);
    }

    #[test]
    fn finished_batches_are_taken_up_wherever_the_journal_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let whole = run_at(&path, 4, 2, Shard::WHOLE).0;
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 5, bytes.len() / 3, bytes.len() - 1, bytes.len()] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert_eq!(run_at(&path, 4, 2, Shard::WHOLE).0, whole);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes.len() as u64);
        }
    }

    #[test]
    fn shards_have_the_same_rows_and_every_text_once() {
        let dir = tempfile::tempdir().unwrap();
        let whole = run(4, 2);
        let mut covered = Vec::new();
        for index in 1..=3 {
            let shard = Shard { index, of: 3 };
            let (table, own) = run_at(&dir.path().join(index.to_string()), 4, 1, shard);
            assert!(own.iter().all(|i| table.row(*i) == whole.row(*i)) && !own.is_empty());
            covered.extend(own);
        }
        covered.sort_unstable();
        assert_eq!(covered, (0..40).filter(|i| whole.present[*i]).collect::<Vec<_>>());
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
