//! Batches of texts or images, each kept in a file of its own as soon as it is encoded.
//!
//! The division into batches is the same for the whole graph. A killed process loses only the batches in work. A
//! [`Shard`] takes every n-th batch, and its finished batches are its outputs: so shards have about the same work, and
//! together they give the same bytes as one process.
//!
//! A batch of an encoder is a chain of small matrix products and element-wise steps. Where each step is split over the
//! cores, the cores wait for each other at every step; where each core has its own batch, they do not. Measured on two
//! cores with MiniLM and 22 tokens per text: 122 texts/s with one batch per core, 90 with split steps, and 93 with
//! both. Each thread needs the memory of one batch.

use program::{Progress, Shard};
use serde::{Deserialize, Serialize};
use serde_json::json;
use stage::files::{digest_of, write_bytes};
use stage::{Error, Kind, Modality, Result};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::FeatureTable;
use crate::images::DecodeReport;

/// Entities whose texts or images are encoded together.
pub(crate) struct EntityBatch {
    pub entities: Vec<usize>,
    /// The number of texts or images of these entities.
    pub size: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Encoded {
    /// The entities that have features; an entity whose images cannot be decoded is missing.
    pub entities: Vec<usize>,
    pub report: DecodeReport,
    /// The rows of `entities`, one after the other.
    #[serde(skip)]
    pub rows: Vec<f32>,
}

impl Encoded {
    fn write(&self, path: &Path) -> Result<()> {
        let head = json!(self).to_string();
        let body = [head.as_bytes(), b"\n", bytemuck::cast_slice(&self.rows)].concat();
        write_bytes(path, &[digest_of(&body).as_bytes(), &body].concat())
    }

    /// Reads a kept batch; none where the file is missing or damaged.
    pub(crate) fn read(path: &Path) -> Option<Encoded> {
        let bytes = std::fs::read(path).ok()?;
        // The hexadecimal digits of the digest come first.
        let (digest, body) = bytes.split_at_checked(64)?;
        if digest_of(body).as_bytes() != digest {
            return None;
        }
        let head = body.split(|byte| *byte == b'\n').next()?;
        let rows = body.get(head.len() + 1..)?.as_chunks().0;
        let rows = rows.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Some(Encoded { rows, ..serde_json::from_slice(head).ok()? })
    }
}

pub(crate) trait Encode: Sync {
    /// The word for the things that are counted: `texts` or `images`.
    fn unit(&self) -> &'static str;
    /// Numbers per entity.
    fn width(&self) -> usize;
    /// All batches; the position of a batch in the list is its number.
    fn batches(&self) -> Vec<EntityBatch>;
    fn encode(&self, batch: &EntityBatch) -> Result<Encoded>;
}

pub(crate) struct EncodedFeatures {
    pub table: FeatureTable,
    pub report: DecodeReport,
    /// The number of batches.
    pub batches: usize,
}

impl EncodedFeatures {
    /// The features of `entities` entities before any batch is added: all are absent.
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

/// Encodes the batches of a shard, or all batches without a shard, and joins them to the features of `entities`
/// entities. Each batch is kept in `folder` as soon as it is encoded; batches that `folder` already has are read.
pub(crate) fn encode_all(
    encode: &dyn Encode,
    entities: usize,
    modality: &Modality,
    shard: Option<Shard>,
    folder: &Path,
) -> Result<EncodedFeatures> {
    // The ending `.tmp` keeps a file out of the stage's outputs. A shard's batches are its outputs.
    let ending = if shard.is_some() { "" } else { ".tmp" };
    let path = |number: usize| folder.join(format!("batch-{number:06}{ending}"));
    let mut outcome = EncodedFeatures::empty(entities, encode.width());
    let (mut done, mut left) = (0, Vec::new());
    for (number, batch) in encode.batches().into_iter().enumerate() {
        if shard.is_some_and(|shard| !shard.has(number)) {
            continue;
        }
        match Encoded::read(&path(number)) {
            Some(kept) => {
                done += batch.size;
                outcome.add(kept)?;
            }
            None => left.push((number, batch)),
        }
    }
    let unit = encode.unit();
    if done > 0 {
        tracing::info!("{modality}: continues with {done} {unit} done");
    }
    let size: usize = left.iter().map(|(_, batch)| batch.size).sum();
    tracing::info!("{modality}: encodes {size} {unit}");
    let progress = Progress::new(modality.as_str(), (done + size) as u64, unit);
    progress.start_at(done as u64);
    as_done(
        &left,
        rayon::current_num_threads(),
        |(_, batch)| encode.encode(batch),
        |(number, batch), encoded| {
            encoded.write(&path(*number))?;
            progress.advance(batch.size as u64);
            outcome.add(encoded)
        },
    )?;
    Ok(outcome)
}

/// Computes `work` of every batch on `threads` threads and hands each batch with its result to `take`, one at a time,
/// as soon as it is done, in no order: if results waited for a slow batch, a killed process would lose them. Begins no
/// batch after the first error or after a request to stop.
pub fn as_done<'b, B: Sync, R: Send>(
    batches: &'b [B],
    threads: usize,
    work: impl Fn(&'b B) -> Result<R> + Sync,
    take: impl FnMut(&'b B, R) -> Result<()> + Send,
) -> Result<()> {
    let (left, take) = (Mutex::new(batches.iter()), Mutex::new(take));
    let run = || {
        // Each pool has one thread: parallel steps of a batch stay on this core.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let pool = pool.map_err(|e| Error::new(Kind::Unexpected, "cannot start a thread").because(e))?;
        while let Some(batch) = { lock(&left).next() } {
            let result = stage::interrupt::check().and_then(|()| pool.install(|| work(batch)));
            let taken = result.and_then(|result| lock(&take)(batch, result));
            taken.inspect_err(|_| *lock(&left) = [].iter())?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let count = threads.clamp(1, batches.len().max(1));
        let started: Vec<_> = (0..count).map(|_| scope.spawn(run)).collect();
        let mut ended = started.into_iter().map(|thread| thread.join());
        ended.try_for_each(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the tensor library use one thread per operation; call it while the program has one thread.
///
/// The library has no function for this. This one of its environment variables limits matrix products and element-wise
/// steps alike (it also pins threads of pools that we do not use to the first core).
#[expect(unsafe_code, reason = "changing the environment is unsafe while other threads run")]
pub fn one_thread_per_operation() {
    const VARIABLE: &str = "CANDLE_CPU_MASK";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: the program calls this first, so there is no other thread that could read the environment.
        unsafe { std::env::set_var(VARIABLE, "0") };
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

    #[test]
    fn every_batch_is_done_once_whatever_the_threads_but_none_after_an_error() {
        let batches: Vec<u64> = (0..50).collect();
        for threads in [1, 2, 7] {
            let mut seen = Vec::new();
            let work = |batch: &u64| {
                std::thread::sleep(std::time::Duration::from_micros(batch * 37 % 300));
                Ok(batch * 2)
            };
            as_done(&batches, threads, work, |batch, result| {
                seen.push(result - batch);
                Ok(())
            })
            .unwrap();
            seen.sort_unstable();
            assert_eq!(seen, batches);
        }
        as_done(&[] as &[u64], 2, |batch| Ok(*batch), |_, _| Ok(())).unwrap();
        // An error ends all threads.
        let batches: Vec<u64> = (0..1000).collect();
        let mut taken = 0;
        let work = |batch: &u64| if *batch == 9 { Err(Error::data("nine")) } else { Ok(*batch) };
        let count = |_: &u64, _| {
            taken += 1;
            Ok(())
        };
        let error = as_done(&batches, 3, work, count).unwrap_err();
        assert!(error.to_string() == "nine" && taken < 900, "{error} after {taken}");
        let error = as_done(&batches, 3, |batch| Ok(*batch), |_, _| Err(Error::data("full"))).unwrap_err();
        assert_eq!(error.to_string(), "full");
    }
}
