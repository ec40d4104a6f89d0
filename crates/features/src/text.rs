//! Texts of entities become features.

use mkg::graph::Entity;
use stage::progress::Progress;
use stage::recipe::TextField;
use stage::{Error, Modality, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::FeatureTable;
use crate::bert::TextEncoder;
use crate::parallel::in_order;
use crate::tokens::Tokens;

/// How often unfinished work is saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// For each entity the `fields` it has, joined by `. `; empty where it has none.
///
/// ```
/// use dsom_features::text::texts_of;
/// use stage::recipe::TextField::{Description, Name};
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
    /// Where unfinished work is saved, and looked for.
    pub checkpoint: Option<PathBuf>,
}

impl TextWork<'_> {
    /// The features of all texts; an entity without tokens is absent.
    ///
    /// Which texts share a batch is decided by lengths alone, so a continued run and one on more threads give the
    /// same bytes.
    pub fn run(&self) -> Result<FeatureTable> {
        self.require_memory()?;
        let mut table = self.resumed();
        let left: Vec<Vec<usize>> =
            self.batches().into_iter().filter(|batch| !batch.iter().all(|i| table.present[*i])).collect();
        let texts = left.iter().flatten().count();
        let tokens: usize = left.iter().flatten().map(|i| self.tokens.ids[*i].len()).sum();
        tracing::info!("{}: encodes {texts} texts of {tokens} tokens", self.modality);
        let progress = Progress::new(self.modality.as_str(), texts as u64, "texts");
        let mut saved = Instant::now();
        let encode = |batch: &Vec<usize>| self.encode(batch);
        let outcome = in_order(&left, self.threads, encode, |batch, rows| {
            for (i, row) in batch.iter().zip(rows.chunks_exact(self.encoder.width())) {
                table.set(*i, row);
            }
            progress.advance(batch.len() as u64);
            if saved.elapsed() > SAVE_INTERVAL {
                self.save(&table)?;
                saved = Instant::now();
            }
            Ok(())
        });
        if let Err(error) = outcome {
            self.save(&table)?;
            return Err(error);
        }
        Ok(table)
    }

    fn encode(&self, batch: &[usize]) -> Result<Vec<f32>> {
        let texts: Vec<&[u32]> = batch.iter().map(|i| self.tokens.ids[*i].as_slice()).collect();
        self.encoder.encode(&texts)
    }

    /// Entities by the length of their texts, the longest first, so that the last batches to end are short ones.
    fn batches(&self) -> Vec<Vec<usize>> {
        let ids = &self.tokens.ids;
        let mut order: Vec<usize> = (0..ids.len()).filter(|i| !ids[*i].is_empty()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(ids[*i].len()));
        order.chunks(self.batch.max(1)).map(<[usize]>::to_vec).collect()
    }

    fn require_memory(&self) -> Result<()> {
        let longest = self.tokens.ids.iter().map(Vec::len).max().unwrap_or(0);
        let table = 4 * (self.tokens.ids.len() * self.encoder.width()) as u64;
        let bytes = table + self.threads as u64 * self.encoder.batch_bytes(self.batch, longest);
        let knob =
            format!("lower `features.{0}.batch` or `features.{0}.max_tokens`, or --threads", self.modality);
        stage::resources::require_memory(bytes, "encoding texts", &knob)
    }

    fn resumed(&self) -> FeatureTable {
        let (entities, width) = (self.tokens.ids.len(), self.encoder.width());
        let saved =
            self.checkpoint.as_deref().filter(|path| path.is_file()).map(|path| load(path, entities, width));
        match saved {
            Some(Ok(table)) => {
                tracing::info!("{}: continues with {} texts done", self.modality, table.count_present());
                table
            }
            Some(Err(error)) => {
                tracing::warn!("{}: begins anew, the saved work is unusable: {error}", self.modality);
                FeatureTable::absent(entities, width)
            }
            None => FeatureTable::absent(entities, width),
        }
    }

    fn save(&self, table: &FeatureTable) -> Result<()> {
        match &self.checkpoint {
            Some(path) if table.count_present() > 0 => table.write(path, self.modality),
            _ => Ok(()),
        }
    }
}

fn load(path: &Path, entities: usize, width: usize) -> Result<FeatureTable> {
    let table = FeatureTable::read(path, entities)?;
    if table.width != width {
        return Err(Error::data(format!("width {}, expected {width}", table.width)).at(path));
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::random_for;
    use candle_core::Device;

    fn texts() -> Vec<String> {
        let text =
            |i: usize| ["red", "green", "blue", "dog", "cat"][i % 5].to_owned() + &" and so on".repeat(i % 7);
        (0..40).map(|i| if i % 9 == 0 { String::new() } else { text(i) }).collect()
    }

    fn run(batch: usize, threads: usize, checkpoint: Option<PathBuf>) -> FeatureTable {
        let texts = texts();
        let (encoder, tokenizer) = random_for(&texts, 1, 16, &Device::Cpu).unwrap();
        let tokens = Tokens::new(&texts, &tokenizer, 16).unwrap();
        let modality = "textual".parse().unwrap();
        TextWork { encoder: &encoder, tokens: &tokens, batch, threads, modality: &modality, checkpoint }
            .run()
            .unwrap()
    }

    #[test]
    fn threads_do_not_change_a_bit_and_batches_hardly() {
        let table = run(4, 1, None);
        assert_eq!(table, run(4, 3, None));
        let single = run(1, 2, None);
        assert_eq!(single.present, table.present);
        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
        assert!(table.values.iter().zip(&single.values).all(close));
        assert_eq!(table.present[..3], [false, true, true]);
    }

    #[test]
    fn saved_work_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint.safetensors");
        let whole = run(4, 2, None);
        let mut half = FeatureTable::absent(whole.entities(), whole.width);
        (0..20).filter(|i| whole.present[*i]).for_each(|i| half.set(i, whole.row(i)));
        half.write(&path, &"textual".parse().unwrap()).unwrap();
        assert_eq!(run(4, 2, Some(path.clone())), whole);
        std::fs::write(&path, "junk").unwrap();
        assert_eq!(run(4, 2, Some(path)), whole);
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
