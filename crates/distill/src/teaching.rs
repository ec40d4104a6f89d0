//! The teachers' side: their soft labels, and the policy that chooses among them.

use dsom_soft_labels::SoftLabels;
use kge::{ComplEx, row};
use mkg::EntityId;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use stage::recipe::{Action, Distill, Selection};
use stage::seed;
use std::sync::atomic::{AtomicU32, Ordering};
use training::Data;

use crate::inputs::inputs;
use crate::policy::Policy;
use crate::strategy::{Strategy, strategies};

/// Soft labels, the policy if there is one, and this epoch's random stream.
pub struct Teaching<'a> {
    pub(crate) labels: &'a SoftLabels,
    pub(crate) log_sums: LogSums,
    pub(crate) policy: Option<Policy<'a, f32>>,
    draws: ChaCha8Rng,
}

impl<'a> Teaching<'a> {
    /// `models` holds, for each teacher, its model where the policy may rather factor its scores than read them.
    pub fn new(
        data: &'a Data,
        labels: &'a SoftLabels,
        models: Vec<Option<ComplEx<f32>>>,
        recipe: &Distill,
        seed: u64,
    ) -> Self {
        let strategies = strategies(labels.teachers().len());
        let policy = (recipe.selection == Selection::Policy).then(|| {
            let inputs = inputs(recipe, data, labels, models);
            let (hidden, rate) = (recipe.policy_hidden, recipe.policy_learning_rate);
            Policy::new(inputs, hidden, strategies, rate, &mut seed::generator(seed, "policy/initial", 0))
        });
        let log_sums = LogSums::new(data.queries.len(), strategies);
        Teaching { labels, log_sums, policy, draws: actions(seed, 0) }
    }

    /// Epoch number `epoch` draws from a stream of its own.
    pub(crate) fn begin_epoch(&mut self, seed: u64, epoch: usize) {
        self.draws = actions(seed, epoch);
    }

    /// The actions of a batch, for each of its queries: one for all tails, or one for each.
    pub(crate) fn act(&mut self, data: &Data, batch: &[u32], recipe: &Distill) -> Vec<Vec<Strategy>> {
        let teachers = self.labels.teachers().len();
        if let Some(policy) = &mut self.policy {
            policy.forward(batch);
        }
        let mut actions = Vec::with_capacity(batch.len());
        for (row, &query) in batch.iter().enumerate() {
            let samples = match recipe.action {
                Action::Query => 1,
                Action::Triple => data.queries.tails(query as usize).len(),
            };
            let mut sample = || match (&self.policy, recipe.selection) {
                (Some(policy), _) => policy.sample(row, self.draws.random()),
                (None, Selection::Random) => {
                    Strategy(self.draws.random_range(0..strategies(teachers) as u16))
                }
                (None, _) => Strategy::all(teachers),
            };
            actions.push((0..samples).map(|_| sample()).collect());
        }
        actions
    }
}

fn actions(seed: u64, epoch: usize) -> ChaCha8Rng {
    seed::generator(seed, "policy/actions", epoch as u64)
}

/// `ln Σ exp` of every query's every strategy, computed when first asked for: teachers do not change.
pub(crate) struct LogSums {
    strategies: usize,
    /// Bits of f32; NaN where not computed yet. Every thread would compute the same value.
    values: Vec<AtomicU32>,
}

impl LogSums {
    pub(crate) fn new(queries: usize, strategies: usize) -> Self {
        let unknown = || AtomicU32::new(f32::NAN.to_bits());
        LogSums { strategies, values: std::iter::repeat_with(unknown).take(queries * strategies).collect() }
    }

    fn get(&self, query: usize, strategy: Strategy, compute: impl FnOnce() -> f64) -> f64 {
        let slot = &self.values[query * self.strategies + strategy.index()];
        let known = f32::from_bits(slot.load(Ordering::Relaxed));
        if !known.is_nan() {
            return f64::from(known);
        }
        // Rounded before its first use, so that later uses see the same number.
        let value = compute() as f32;
        slot.store(value.to_bits(), Ordering::Relaxed);
        f64::from(value)
    }
}

/// All teachers' scores of one query.
pub(crate) struct Teachers<'a> {
    pub(crate) labels: &'a SoftLabels,
    pub(crate) log_sums: &'a LogSums,
    pub(crate) query: usize,
}

impl Teachers<'_> {
    /// The mean of the strategy's teachers' scores (Eq. 7), for temperature `tau`, into `combined`; `single` is a buffer.
    pub(crate) fn combine(&self, strategy: Strategy, tau: f64, combined: &mut [f32], single: &mut [f32]) {
        // A mean of scores softens each of them that much more.
        let tau = tau * strategy.size() as f64;
        let mut members = strategy.members();
        let first = members.next().expect("a strategy holds at least one teacher");
        self.labels.fill(self.query, first, tau, combined);
        for teacher in members {
            self.labels.fill(self.query, teacher, tau, single);
            row::add_scaled(combined, 1.0, single);
        }
        if strategy.size() > 1 {
            row::scale(combined, 1.0 / strategy.size() as f32);
        }
    }

    /// `ln Σ exp` of the combination.
    pub(crate) fn log_sum(&self, strategy: Strategy, combined: &mut [f32], single: &mut [f32]) -> f64 {
        self.log_sums.get(self.query, strategy, || {
            self.combine(strategy, 1.0, combined, single);
            row::log_sum_exp(combined, 1.0)
        })
    }

    /// The combination's score of one entity.
    pub(crate) fn score(&self, strategy: Strategy, entity: EntityId) -> f64 {
        let score = |teacher: usize| f64::from(self.labels.score(self.query, teacher, entity));
        let sum: f64 = strategy.members().map(score).sum();
        sum / strategy.size() as f64
    }
}
