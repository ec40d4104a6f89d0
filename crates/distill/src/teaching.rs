//! The teachers' side: their soft labels, and who chooses among them.

use dsom_soft_labels::SoftLabels;
use kge::Model;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use recipe::{Action, Distill};
use serde_json::Value;
use stage::{Result, seed};
use training::Data;

use crate::chooser::Chooser;
use crate::combine::{LogSums, Sources};
use crate::strategy::{Strategy, strategies};
use crate::useful::Usefulness;

/// Soft labels, who chooses, and this epoch's random stream.
pub struct Teaching<'a> {
    pub(crate) labels: &'a SoftLabels,
    log_sums: LogSums,
    pub(crate) usefulness: Option<Usefulness>,
    pub(crate) chooser: Chooser<'a>,
    draws: ChaCha8Rng,
}

impl<'a> Teaching<'a> {
    /// Decides what can be decided beforehand.
    ///
    /// `models` are the teachers': all of them for the selection `useful`, which asks them about validation triples; all or
    /// none for a policy that sees scores, which may multiply factors where it would read scores; none for others.
    ///
    /// # Errors
    /// On interruption; and if a teacher's scores do not fit half precision.
    pub fn new(
        data: &'a Data,
        labels: &'a SoftLabels,
        models: Vec<Model<f32>>,
        recipe: &Distill,
        seed: u64,
    ) -> Result<Self> {
        let log_sums = LogSums::new(data.queries.len(), strategies(labels.teachers().len()));
        let (chooser, usefulness) = Chooser::new(data, labels, &log_sums, models, recipe, seed)?;
        Ok(Teaching { labels, log_sums, usefulness, chooser, draws: actions(seed, 0) })
    }

    /// Returns the scores of which combinations are made.
    pub(crate) fn sources(&self) -> Sources<'_> {
        Sources { labels: self.labels, log_sums: &self.log_sums }
    }

    /// Numbers, one for each teacher, under the teachers' names.
    pub(crate) fn by_teacher(&self, values: Vec<f64>) -> Value {
        let names = self.labels.teachers().iter().map(|teacher| teacher.as_str().to_owned());
        Value::Object(names.zip(values.into_iter().map(Value::from)).collect())
    }

    /// Epoch number `epoch` draws from a stream of its own.
    pub(crate) fn begin_epoch(&mut self, seed: u64, epoch: usize) {
        self.draws = actions(seed, epoch);
        if let Some(senior) = self.chooser.senior_mut() {
            senior.begin_epoch(epoch);
        }
    }

    /// The actions of a batch, for each of its queries: one for all tails, or one for each. A policy was asked about it.
    pub(crate) fn act(&mut self, data: &Data, batch: &[u32], action: Action) -> Vec<Vec<Strategy>> {
        let of_row = |(row, query): (usize, &u32)| {
            let samples = match action {
                Action::Query => 1,
                Action::Triple => data.queries.tails(*query as usize).len(),
            };
            (0..samples).map(|_| self.sample(row, *query)).collect()
        };
        batch.iter().enumerate().map(of_row).collect()
    }

    fn sample(&mut self, row: usize, query: u32) -> Strategy {
        let teachers = self.labels.teachers().len();
        match &self.chooser {
            Chooser::Policy(policy) => policy.sample(row, self.draws.random()),
            Chooser::Rule(chosen) => chosen[query as usize],
            Chooser::Chance => Strategy(self.draws.random_range(0..strategies(teachers) as u16)),
            Chooser::Senior(_) => Strategy::all(teachers),
        }
    }
}

fn actions(seed: u64, epoch: usize) -> ChaCha8Rng {
    seed::generator(seed, "policy/actions", epoch as u64)
}
