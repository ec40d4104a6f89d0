//! The teachers' side: their soft labels, and who chooses among them.

use dsom_soft_labels::SoftLabels;
use kge::Model;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use recipe::{Action, Distill, Selection};
use serde_json::Value;
use stage::{Result, seed};
use training::Data;

use crate::chooser::{Chooser, Choosing, Valid};
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

/// The teachers' models, as far as they are needed beside their soft labels.
pub struct Models {
    /// For each teacher its model, where a policy may rather factor its scores than read them.
    pub factored: Vec<Option<Model<f32>>>,
    /// All of them, where they are asked about validation triples; the soft labels are of training queries.
    pub asked: Vec<Model<f32>>,
}

impl<'a> Teaching<'a> {
    /// Decides what can be decided beforehand.
    ///
    /// # Errors
    /// On interruption; and if a teacher's scores do not fit half precision.
    ///
    /// # Panics
    /// If the recipe asks teachers about validation triples whose models are not there.
    pub fn new(
        data: &'a Data,
        labels: &'a SoftLabels,
        models: Models,
        recipe: &Distill,
        seed: u64,
    ) -> Result<Self> {
        let log_sums = LogSums::new(data.queries.len(), strategies(labels.teachers().len()));
        let Models { factored, asked } = models;
        let valid = Valid::of(data, labels.teachers(), &asked.iter().collect::<Vec<_>>())?;
        let ask = || valid.as_ref().expect("models to ask about validation triples");
        let useful = (recipe.selection == Selection::Useful).then(|| ask().useful(data)).transpose()?;
        let (useful, usefulness) = useful.unzip();
        let choosing = Choosing { data, labels, useful, recipe, seed };
        let chooser = choosing.chooser(factored)?;
        let draws = actions(seed, 0);
        Ok(Teaching { labels, log_sums, usefulness, chooser, draws })
    }

    /// What combinations are made of.
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

    /// The actions of a batch, for each of its queries: one for all tails, or one for each. A policy that learns was asked
    /// about it.
    pub(crate) fn act(&mut self, data: &Data, batch: &[u32], recipe: &Distill) -> Vec<Vec<Strategy>> {
        let teachers = self.labels.teachers().len();
        let strategies = strategies(teachers) as u16;
        let mut actions = Vec::with_capacity(batch.len());
        for (row, &query) in batch.iter().enumerate() {
            let samples = match (recipe.action, &self.chooser) {
                (Action::Triple, Chooser::Learning(_) | Chooser::Random) => {
                    data.queries.tails(query as usize).len()
                }
                _ => 1,
            };
            let mut sample = || match &self.chooser {
                Chooser::Learning(policy) => policy.sample(row, self.draws.random()),
                Chooser::Settled(chosen) => chosen[query as usize],
                Chooser::Random => Strategy(self.draws.random_range(0..strategies)),
                Chooser::Integrated(_) => Strategy::all(teachers),
            };
            actions.push((0..samples).map(|_| sample()).collect());
        }
        actions
    }
}

fn actions(seed: u64, epoch: usize) -> ChaCha8Rng {
    seed::generator(seed, "policy/actions", epoch as u64)
}
