//! Combinations of teachers: the mean of a strategy's scores (Eq. 7), and its cross-entropies.

use dsom_soft_labels::SoftLabels;
use kge::{Real, row};
use mkg::EntityId;
use std::sync::OnceLock;

use crate::strategy::{Strategy, strategies};

/// The soft labels of a set of queries, with the log-sums computed from them.
pub struct Sources<'a> {
    /// The teachers' scores.
    pub labels: &'a SoftLabels,
    queries: usize,
    /// `ln Σ exp` for every query and strategy, computed on first use and kept: teachers do not change.
    log_sums: OnceLock<Vec<OnceLock<f32>>>,
}

impl<'a> Sources<'a> {
    /// The sources of `queries` queries.
    pub fn new(labels: &'a SoftLabels, queries: usize) -> Self {
        Sources { labels, queries, log_sums: OnceLock::new() }
    }

    /// All teachers' scores of query number `query`.
    pub fn of(&self, query: usize) -> QueryTeachers<'_> {
        QueryTeachers { sources: self, query }
    }
}

/// One thread's rows `(entity)`.
pub struct Scratch {
    /// A combination's scores.
    pub combined: Vec<f32>,
    /// One teacher's scores.
    pub single: Vec<f32>,
    /// The exponentials of `combined` or `single`.
    pub soft: Vec<f32>,
}

impl Scratch {
    /// Makes rows of `entities` entities.
    pub fn new(entities: usize) -> Scratch {
        let row = vec![0.0; entities];
        Scratch { combined: row.clone(), single: row.clone(), soft: row }
    }
}

/// All teachers' scores of one query.
pub struct QueryTeachers<'a> {
    pub(crate) sources: &'a Sources<'a>,
    query: usize,
}

impl QueryTeachers<'_> {
    /// The number of teachers.
    pub fn count(&self) -> usize {
        self.sources.labels.teachers().len()
    }

    /// Writes one teacher's scores, times `weight`, for temperature `tau`.
    pub fn fill(&self, teacher: usize, weight: f64, tau: f64, into: &mut [f32]) {
        // Softening weighted scores by τ is softening the scores by τ / weight, which a lossy cache needs.
        self.sources.labels.fill(self.query, teacher, tau / weight, into);
        if weight != 1.0 {
            row::scale(into, f32::from_f64(weight));
        }
    }

    /// Writes the sum of the teachers' scores times their `weights`, for temperature `tau`, to `scratch.combined`.
    pub fn blend(&self, weights: impl IntoIterator<Item = (usize, f64)>, tau: f64, scratch: &mut Scratch) {
        let Scratch { combined, single, .. } = scratch;
        for (i, (teacher, weight)) in weights.into_iter().enumerate() {
            if i == 0 {
                self.fill(teacher, weight, tau, combined);
            } else {
                self.sources.labels.fill(self.query, teacher, tau / weight, single);
                row::add_scaled(combined, f32::from_f64(weight), single);
            }
        }
    }

    /// Writes the mean of the strategy's teachers' scores (Eq. 7), for temperature `tau`, to `scratch.combined`.
    pub fn combine(&self, strategy: Strategy, tau: f64, scratch: &mut Scratch) {
        let share = f64::from(strategy.share());
        self.blend(strategy.members().map(|teacher| (teacher, share)), tau, scratch);
    }

    /// `ln Σ exp` of the combination.
    pub fn log_sum(&self, strategy: Strategy, scratch: &mut Scratch) -> f64 {
        let (Sources { queries, log_sums, .. }, strategies) = (self.sources, strategies(self.count()));
        let log_sums = log_sums.get_or_init(|| vec![OnceLock::new(); queries * strategies]);
        // Rounded before the first use, so that later uses get the same number.
        let log_sum = log_sums[self.query * strategies + strategy.0].get_or_init(|| {
            self.combine(strategy, 1.0, scratch);
            f32::from_f64(row::log_sum_exp(&scratch.combined, 1.0))
        });
        f64::from(*log_sum)
    }

    /// The combination's score of one entity.
    pub fn score(&self, strategy: Strategy, entity: EntityId) -> f64 {
        let scores = strategy.members().map(|teacher| self.sources.labels.score(self.query, teacher, entity));
        f64::from(strategy.share()) * scores.map(f64::from).sum::<f64>()
    }

    /// The cross-entropy of a target under the combination.
    pub fn cross_entropy(&self, strategy: Strategy, target: EntityId, scratch: &mut Scratch) -> f64 {
        self.log_sum(strategy, scratch) - self.score(strategy, target)
    }
}
