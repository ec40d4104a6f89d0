//! The epochs of a training, until validation stops improving.

use kge::StepLoss;
use kge::checkpoint::{NamedTensors, TensorReader};
use kge::rank::mean_reciprocal_rank;
use program::Progress;
use rand::seq::SliceRandom;
use recipe::Training;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stage::files::{digest, write_bytes};
use stage::manifest::CHECKPOINT;
use stage::work::Work;
use stage::{Error, Result, interrupt, seed};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Instant;

use crate::{Data, Engine, MODEL};

/// A model in training.
pub trait Learner {
    /// Begins epoch number `epoch` (from 1).
    fn begin_epoch(&mut self, _epoch: usize) {}
    /// Runs one step on the training queries with the numbers `batch`.
    fn step(&mut self, batch: &[u32]) -> Result<StepLoss>;
    /// Ends the epoch; returns the learner's own figures for the event log.
    fn end_epoch(&mut self) -> Map<String, Value> {
        Map::new()
    }
    /// The model itself.
    fn engine(&mut self) -> &mut dyn Engine;
    /// Refuses parameters that are not finite.
    fn require_finite(&mut self) -> Result<()> {
        self.engine().require_finite()
    }
    /// The state that a later start needs to continue.
    fn state(&mut self) -> Result<NamedTensors<'_>>;
    /// Restores a saved state.
    fn restore(&mut self, state: &TensorReader) -> Result<()>;
    /// Writes the files of the model, which is the best so far.
    fn write_best(&mut self, work: &Work) -> Result<()>;
}

/// The course of a training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// The number of finished epochs.
    pub epochs: usize,
    /// The epoch of the model that was kept.
    pub best_epoch: usize,
    /// The filtered validation MRR of that model.
    pub valid_mrr: f64,
    /// The number of validations since the best epoch.
    #[serde(rename = "validations_without_gain")]
    pub without_gain: usize,
}

/// Trains `learner` until `training` says to stop. Then the best model by validation MRR is on disk.
///
/// Continues from the checkpoint of an interrupted start and reaches the same result: every random stream depends only
/// on the seed, `name` and the epoch's number.
pub fn fit(
    work: &Work,
    name: &str,
    seed: u64,
    training: &Training,
    data: &Data,
    learner: &mut impl Learner,
) -> Result<Fitted> {
    let (mut fitted, mut kept) = resume(work, name, learner)?;
    let log = work.path("events.jsonl");
    let mut events = resume_events(&log, fitted.epochs as u64)?;
    let progress = Progress::new(name, training.epochs as u64, "epochs");
    progress.start_at(fitted.epochs as u64);
    while fitted.epochs < training.epochs && fitted.without_gain < training.patience {
        let started = Instant::now();
        let epoch = fitted.epochs + 1;
        let mut event = run_epoch(epoch, name, seed, training, data, learner)?;
        fitted.epochs = epoch;
        event.insert("seconds".into(), json!(started.elapsed().as_secs_f64()));
        let is_validated = epoch % training.validate_every == 0 || epoch == training.epochs;
        if is_validated {
            event.insert("valid_mrr".into(), json!(validate(work, data, learner, &mut fitted)?));
            if fitted.best_epoch == epoch {
                kept = Kept::of(work)?;
            }
            progress.message(format!("MRR {:.4}", fitted.valid_mrr));
        }
        tracing::debug!("{name}: {}", json!(event));
        // The log is written before the checkpoint: a process killed between the two must not lose the line of a
        // finished epoch. One call writes a line, so a line is complete or absent.
        let line = format!("{}\n", Value::Object(event));
        events.write_all(line.as_bytes()).map_err(|e| Error::io(&log, e))?;
        if is_validated {
            learner
                .state()?
                .text("progress", json!(fitted).to_string())
                .text("kept", json!(kept).to_string())
                .write_checked(&work.path(CHECKPOINT))?;
        }
        progress.advance(1);
    }
    kept.require_unchanged(work)?;
    let Fitted { epochs, best_epoch, valid_mrr, .. } = fitted;
    tracing::info!("{name}: validation MRR {valid_mrr:.4} at epoch {best_epoch} of {epochs}");
    Ok(fitted)
}

fn resume(work: &Work, name: &str, learner: &mut impl Learner) -> Result<(Fitted, Kept)> {
    let Some(path) = work.checkpoint() else { return Ok(Default::default()) };
    let state = TensorReader::open_checked(&path)?;
    let unread = |e: serde_json::Error| Error::data(e.to_string()).at(&path).hint(FORCE);
    let fitted: Fitted = serde_json::from_str(&state.text("progress")?).map_err(unread)?;
    let kept = serde_json::from_str(&state.text("kept")?).map_err(unread)?;
    learner.restore(&state)?;
    tracing::info!("{name}: continues after epoch {}", fitted.epochs);
    Ok((fitted, kept))
}

const FORCE: &str = "rerun with --force";

/// The digest of the best model's file. Training may continue in another process, so the file may change meanwhile.
#[derive(Default, Serialize, Deserialize)]
struct Kept(String);

impl Kept {
    fn of(work: &Work) -> Result<Kept> {
        Ok(Kept(digest(&work.path(MODEL))?.0))
    }

    fn require_unchanged(&self, work: &Work) -> Result<()> {
        let path = work.path(MODEL);
        match Kept::of(work) {
            Ok(Kept(digest)) if digest == self.0 => Ok(()),
            _ => Err(Error::data("damaged: not the model that training wrote").at(path).hint(FORCE)),
        }
    }
}

fn run_epoch(
    epoch: usize,
    name: &str,
    seed: u64,
    training: &Training,
    data: &Data,
    learner: &mut impl Learner,
) -> Result<Map<String, Value>> {
    learner.begin_epoch(epoch);
    let (mut loss, mut regulariser, mut pairs) = (0.0, 0.0, 0.0);
    for batch in batches(data, training.batch, name, seed, epoch) {
        interrupt::check()?;
        let found = learner.step(&batch)?;
        let of_batch = found.pairs as f64;
        loss += found.objective * of_batch;
        regulariser += found.regulariser * of_batch;
        pairs += of_batch;
    }
    let mut event = Map::from_iter([
        ("epoch".to_owned(), json!(epoch)),
        ("loss".to_owned(), json!(loss / pairs)),
        ("regulariser".to_owned(), json!(regulariser / pairs)),
    ]);
    event.extend(learner.end_epoch());
    Ok(event)
}

/// The training queries in a random order; a batch ends once it has at least `pairs` pairs of query and tail.
fn batches(data: &Data, pairs: usize, name: &str, seed: u64, epoch: usize) -> Vec<Vec<u32>> {
    let mut order = data.numbers();
    order.shuffle(&mut seed::generator(seed, &format!("{name}/batches"), epoch as u64));
    let (mut batches, mut batch, mut filled) = (Vec::new(), Vec::new(), 0);
    for query in order {
        filled += data.tails(query).len();
        batch.push(query);
        if filled >= pairs {
            batches.push(std::mem::take(&mut batch));
            filled = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// Measures the model's MRR and writes the model if it is the best so far.
fn validate(work: &Work, data: &Data, learner: &mut impl Learner, fitted: &mut Fitted) -> Result<f64> {
    learner.require_finite()?;
    let mrr = mean_reciprocal_rank(&learner.engine().valid_ranks(data)?);
    if mrr > fitted.valid_mrr || fitted.best_epoch == 0 {
        (fitted.valid_mrr, fitted.best_epoch, fitted.without_gain) = (mrr, fitted.epochs, 0);
        learner.write_best(work)?;
    } else {
        fitted.without_gain += 1;
    }
    Ok(mrr)
}

/// Opens `events.jsonl`, one JSON object per epoch and line, and drops lines about epochs after `epoch`, which will run
/// again. The file is a log and not an artifact: it holds wall-clock times.
fn resume_events(path: &Path, epoch: u64) -> Result<File> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(path, error)),
        text => text.unwrap_or_default(),
    };
    let mut kept = String::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        if event["epoch"].as_u64().is_some_and(|of| of <= epoch) {
            kept += line;
            kept.push('\n');
        }
    }
    write_bytes(path, kept.as_bytes())?;
    File::options().append(true).open(path).map_err(|e| Error::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mkg::{KnownAnswers, QuerySet, Triple, Vocabulary};

    #[test]
    fn batches_hold_every_query_once_and_about_so_many_pairs() {
        let triples: Vec<Triple> = (0..200).map(|i| Triple::new(i % 20, i % 3, 20 + i % 37)).collect();
        let queries = QuerySet::new(&triples, 3);
        let (known, vocabulary) = (KnownAnswers::default(), Vocabulary::default());
        let data = Data { queries, valid: vec![], known, vocabulary };
        let batches = batches(&data, 30, "x", 1, 1);
        let mut seen: Vec<u32> = batches.concat();
        seen.sort_unstable();
        assert_eq!(seen, data.numbers());
        for batch in &batches[..batches.len() - 1] {
            let pairs = |batch: &[u32]| batch.iter().map(|query| data.tails(*query).len()).sum::<usize>();
            assert!(pairs(batch) >= 30 && pairs(&batch[..batch.len() - 1]) < 30);
        }
        assert_ne!(batches, super::batches(&data, 30, "x", 1, 2));
    }

    #[test]
    fn a_log_that_cannot_be_read_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        resume_events(&path, 0).unwrap();
        let bytes = b"{\"epoch\":1}\n\xff";
        std::fs::write(&path, bytes).unwrap();
        assert!(resume_events(&path, 1).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}
