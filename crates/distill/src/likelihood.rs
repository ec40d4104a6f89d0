//! The likelihood of validation triples under a weighted sum of the teachers' scores.

use dsom_soft_labels::SoftLabels;
use half::f16;
use kge::{Matrix, Model, Real, row};
use mkg::{EntityId, KnownAnswers, QuerySet};
use rayon::prelude::*;
use stage::{Modality, Result, interrupt};
use training::Data;

use crate::objective::mask;

/// Queries with their targets, the teachers' scores, and the filter.
pub struct Triples<'a> {
    /// The queries, with their targets.
    pub queries: QuerySet,
    /// The teachers' scores for the queries.
    pub labels: SoftLabels,
    /// The answers that the filter leaves out.
    pub known: &'a KnownAnswers,
}

impl<'a> Triples<'a> {
    /// The validation triples with the scores of all `teachers`; an error if scores do not fit half precision.
    pub fn of_validation(
        data: &'a Data,
        teachers: &[Modality],
        models: &[&Model<f32>],
    ) -> Result<Triples<'a>> {
        let queries = QuerySet::new(&data.valid, data.relations());
        let labels = SoftLabels::of_models(teachers.to_vec(), models, queries.queries())?;
        Ok(Triples { queries, labels, known: &data.known })
    }

    /// Bytes of the scores of `teachers` teachers for the validation triples, each of which asks two queries.
    pub fn memory(data: &Data, teachers: usize) -> u64 {
        (2 * data.valid.len() * teachers * data.entities() * size_of::<f16>()) as u64
    }

    /// Results of `of` for each of these queries. `of` receives the query, the teachers' scores `(teacher, entity)`,
    /// and two buffers with a number for each entity.
    pub fn visit<T: Send>(
        &self,
        queries: &[usize],
        of: impl Fn(usize, &Matrix<f32>, [&mut [f32]; 2]) -> T + Sync,
    ) -> Result<Vec<T>> {
        let (teachers, entities) = (self.labels.teachers().len(), self.labels.entities());
        let buffers = (Matrix::zeros(teachers, entities), vec![0.0; entities], vec![0.0; entities]);
        let visited = queries.par_iter().map_with(buffers, |(scores, sum, soft), &query| {
            interrupt::check()?;
            // A lossy cache has only training queries; these scores come from the teachers themselves.
            (0..teachers).for_each(|m| self.labels.fill(query, m, 1.0, scores.row_mut(m)));
            Ok(of(query, scores, [sum, soft]))
        });
        visited.collect()
    }
}

/// A target among its query's candidates, under the softmax of a weighted sum of the teachers' scores.
pub struct Softened {
    /// The logarithm of the target's probability.
    pub log_probability: f64,
    /// The exponential of the target's score, relative to the largest score of the other candidates.
    own: f64,
    /// The sum of `own` and the exponentials of the other candidates.
    total: f64,
}

impl Softened {
    /// The expected value of a quantity that is `of_target` for the target. `of_rest` is its sum over the other
    /// candidates, weighted by their exponentials.
    pub fn mean(&self, of_rest: f64, of_target: f64) -> f64 {
        (of_rest + self.own * of_target) / self.total
    }
}

/// Softens the sum of `scores (teacher, entity)` with `weights`, for each of the `targets` among candidates that are
/// not `known`, whose exponentials it writes to `soft`. `None` if there are no candidates. `sum` is a buffer.
pub fn soften(
    scores: &Matrix<f32>,
    weights: &[f32],
    targets: &[EntityId],
    known: &[EntityId],
    [sum, soft]: [&mut [f32]; 2],
) -> Option<Vec<Softened>> {
    sum.fill(0.0);
    weights.iter().enumerate().for_each(|(m, weight)| row::add_scaled(sum, *weight, scores.row(m)));
    let of_targets = mask(sum, targets);
    mask(sum, known);
    let shift = row::max(sum);
    if shift <= f32::MASKED {
        return None;
    }
    soft.copy_from_slice(sum);
    let rest = f64::from(row::exp_and_sum(soft, shift));
    let softened = of_targets.into_iter().map(|score| {
        let relative = score - f64::from(shift);
        let own = relative.exp();
        let total = rest + own;
        Softened { log_probability: relative - total.ln(), own, total }
    });
    Some(softened.collect())
}
