//! Batches of texts or images, each kept in a file of its own as soon as it is encoded.
//!
//! The batches are decided for the whole graph. A process that is killed loses those in work and no other. A [`Shard`]
//! takes every so many-th batch and has the finished ones as its outputs: so shards are of about the same work, and
//! together they give the same bytes as one process.

use program::{Progress, Shard};
use serde::{Deserialize, Serialize};
use stage::files::{digest_of, write_bytes};
use stage::{Error, Modality, Result};
use std::path::{Path, PathBuf};

use crate::FeatureTable;
use crate::images::DecodeReport;
use crate::parallel::as_done;

/// Hexadecimal digits of a digest, with which a kept batch begins.
const DIGEST: usize = 64;

/// Entities whose texts or images are encoded together.
#[derive(Debug)]
pub(crate) struct EntityBatch {
    pub number: usize,
    pub entities: Vec<usize>,
    /// The number of their texts or images.
    pub size: usize,
}

/// An encoded batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Encoded {
    /// The entities that have features; those whose images cannot be decoded are missing.
    pub entities: Vec<usize>,
    pub report: DecodeReport,
    /// Their rows, one after the other.
    #[serde(skip)]
    pub rows: Vec<f32>,
}

impl Encoded {
    fn write(&self, path: &Path) -> Result<()> {
        let head = serde_json::to_vec(self).map_err(|e| Error::data(e.to_string()).at(path))?;
        let body = [&head, b"\n".as_slice(), bytemuck::cast_slice(&self.rows)].concat();
        write_bytes(path, &[digest_of(&body).as_bytes(), &body].concat())
    }

    /// Reads a kept batch; none where there is none, or not as it was written.
    pub(crate) fn read(path: &Path) -> Option<Encoded> {
        let bytes = std::fs::read(path).ok()?;
        let (digest, body) = bytes.split_at_checked(DIGEST)?;
        let head = body.split(|byte| *byte == b'\n').next()?;
        let rows = body.get(head.len() + 1..)?.as_chunks().0;
        let rows = rows.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let whole = digest_of(body).as_bytes() == digest;
        whole.then(|| Some(Encoded { rows, ..serde_json::from_slice(head).ok()? }))?
    }
}

/// Something whose texts or images can be encoded.
pub(crate) trait Encode: Sync {
    /// The word for what is counted: `texts` or `images`.
    fn unit(&self) -> &'static str;
    /// Numbers per entity.
    fn width(&self) -> usize;
    /// All batches, from number 0 on.
    fn batches(&self) -> Vec<EntityBatch>;
    /// The rows of one batch.
    fn encode(&self, batch: &EntityBatch) -> Result<Encoded>;
}

/// The features of batches, put together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EncodedFeatures {
    pub table: FeatureTable,
    pub report: DecodeReport,
    /// The number of batches.
    pub batches: usize,
}

impl EncodedFeatures {
    /// No batch yet, of a graph with so many `entities`.
    pub(crate) fn empty(entities: usize, width: usize) -> EncodedFeatures {
        let table = FeatureTable::absent(entities, width);
        EncodedFeatures { table, report: DecodeReport::default(), batches: 0 }
    }

    pub(crate) fn add(&mut self, batch: Encoded) -> Result<()> {
        self.report.add(batch.report);
        self.batches += 1;
        self.table.take(&batch.entities, &batch.rows)
    }
}

/// Place and threads of the encoding of batches.
pub(crate) struct Job<'a> {
    /// Modality, shown beside the progress.
    pub modality: &'a Modality,
    pub threads: usize,
    /// The share of the batches that is done; all of them where there is none.
    pub shard: Option<Shard>,
    /// The folder for finished batches.
    pub folder: &'a Path,
}

impl Job<'_> {
    /// Encodes the batches that are not kept yet, and puts all of them together for so many `entities`.
    pub(crate) fn run(&self, encode: &dyn Encode, entities: usize) -> Result<EncodedFeatures> {
        let mut outcome = EncodedFeatures::empty(entities, encode.width());
        let (mut done, mut left) = (0, Vec::new());
        for batch in self.batches(encode) {
            match Encoded::read(&self.path(&batch)) {
                Some(kept) => {
                    done += batch.size;
                    outcome.add(kept)?;
                }
                None => left.push(batch),
            }
        }
        let (modality, unit) = (self.modality, encode.unit());
        if done > 0 {
            tracing::info!("{modality}: continues with {done} {unit} done");
        }
        let size: usize = left.iter().map(|batch| batch.size).sum();
        tracing::info!("{modality}: encodes {size} {unit}");
        let progress = Progress::new(modality.as_str(), (done + size) as u64, unit);
        progress.start_at(done as u64);
        as_done(
            &left,
            self.threads,
            |batch| encode.encode(batch),
            |batch, encoded| {
                encoded.write(&self.path(batch))?;
                progress.advance(batch.size as u64);
                outcome.add(encoded)
            },
        )?;
        Ok(outcome)
    }

    fn batches(&self, encode: &dyn Encode) -> impl Iterator<Item = EntityBatch> {
        let batches = encode.batches().into_iter();
        batches.filter(|batch| self.shard.is_none_or(|shard| shard.has(batch.number)))
    }

    /// The file of a batch. The ending `.tmp` keeps it out of a stage's outputs, of which it is one in a shard.
    fn path(&self, batch: &EntityBatch) -> PathBuf {
        let ending = if self.shard.is_some() { "" } else { ".tmp" };
        self.folder.join(format!("batch-{:06}{ending}", batch.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_batch_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("batch");
        let mut report = DecodeReport::default();
        report.unreadable.push(("a\n.png".into(), "no image".into()));
        let batch = Encoded { entities: vec![3, 10], report, rows: vec![10.0, 0.5, -1.0, 2.0] };
        assert_eq!(Encoded::read(&path), None);
        batch.write(&path).unwrap();
        assert_eq!(Encoded::read(&path), Some(batch));
        let whole = std::fs::read(&path).unwrap();
        for i in 0..whole.len() {
            std::fs::write(&path, &whole[..i]).unwrap();
            assert_eq!(Encoded::read(&path), None, "{i} bytes");
            let mut damaged = whole.clone();
            damaged[i] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(Encoded::read(&path), None, "byte {i}");
        }
    }
}
