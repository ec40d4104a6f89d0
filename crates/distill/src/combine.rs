//! Combinations of teachers: the mean of a strategy's scores, and its log-sum-exp.

use dsom_soft_labels::SoftLabels;
use kge::row;
use mkg::EntityId;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::strategy::Strategy;

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

/// What combinations of teachers are made of.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) labels: &'a SoftLabels,
    pub(crate) log_sums: &'a LogSums,
}

impl<'a> Sources<'a> {
    /// For the query of this number.
    pub(crate) fn of(self, query: usize) -> Teachers<'a> {
        Teachers { labels: self.labels, log_sums: self.log_sums, query }
    }
}

/// All teachers' scores of one query.
pub(crate) struct Teachers<'a> {
    labels: &'a SoftLabels,
    log_sums: &'a LogSums,
    query: usize,
}

impl Teachers<'_> {
    pub(crate) fn count(&self) -> usize {
        self.labels.teachers().len()
    }

    /// One teacher's scores by `weight`, for temperature `tau`.
    pub(crate) fn fill(&self, teacher: usize, weight: f64, tau: f64, into: &mut [f32]) {
        let weight = weight as f32;
        // A weight softens a teacher's scores that much more.
        self.labels.fill(self.query, teacher, tau / f64::from(weight), into);
        if weight != 1.0 {
            row::scale(into, weight);
        }
    }

    /// The sum of teachers' scores by their `weights`, for temperature `tau`, into `combined`; `single` is a buffer.
    pub(crate) fn blend(
        &self,
        weights: impl Iterator<Item = (usize, f64)>,
        tau: f64,
        combined: &mut [f32],
        single: &mut [f32],
    ) {
        combined.fill(0.0);
        for (teacher, weight) in weights {
            self.fill(teacher, weight, tau, single);
            row::add_scaled(combined, 1.0, single);
        }
    }

    /// The mean of the strategy's teachers' scores (Eq. 7), for temperature `tau`, into `combined`; `single` is a buffer.
    pub(crate) fn combine(&self, strategy: Strategy, tau: f64, combined: &mut [f32], single: &mut [f32]) {
        let mut members = strategy.members();
        let first = members.next().expect("a strategy holds at least one teacher");
        // A member's share of the mean softens its scores that much more.
        let weight = strategy.weight();
        self.labels.fill(self.query, first, tau / f64::from(weight), combined);
        if weight != 1.0 {
            row::scale(combined, weight);
        }
        for teacher in members {
            self.labels.fill(self.query, teacher, tau / f64::from(weight), single);
            row::add_scaled(combined, weight, single);
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
        f64::from(strategy.weight()) * strategy.members().map(score).sum::<f64>()
    }
}
