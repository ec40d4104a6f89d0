//! What strategies are worth for a query: the choices that need no policy.

use dsom_soft_labels::SoftLabels;
use kge::{Matrix, row};
use mkg::{EntityId, Query};
use rayon::prelude::*;
use stage::Result;
use stage::interrupt;

use crate::strategy::Strategy;

/// Queries, and what the teachers say of them.
#[derive(Clone, Copy)]
pub(crate) struct Said<'a> {
    pub(crate) queries: &'a [Query],
    pub(crate) labels: &'a SoftLabels,
}

/// What `worth` says of the mean scores of each of the `candidates`, for every query `(query, candidate)`.
pub(crate) fn table(
    said: Said<'_>,
    candidates: &[Strategy],
    worth: impl Fn(usize, &mut [f32]) -> f64 + Sync,
) -> Result<Matrix<f32>> {
    let Said { queries, labels } = said;
    let (teachers, entities) = (labels.teachers().len(), labels.entities());
    let mut table = Matrix::zeros(queries.len(), candidates.len());
    let rows = table.values_mut().par_chunks_mut(candidates.len()).enumerate();
    rows.try_for_each_init(
        || (Matrix::zeros(teachers, entities), vec![0.0; entities]),
        |(scores, combined), (query, into)| {
            interrupt::check()?;
            // In a lossy cache one temperature must do for all strategies: rows are compared, not distilled.
            (0..teachers).for_each(|teacher| labels.fill(query, teacher, 1.0, scores.row_mut(teacher)));
            for (strategy, into) in candidates.iter().zip(into) {
                average(scores, *strategy, combined);
                *into = worth(query, combined) as f32;
            }
            Ok(())
        },
    )?;
    Ok(table)
}

/// The mean of the strategy's rows of `scores (teacher, entity)` (Eq. 7).
fn average(scores: &Matrix<f32>, strategy: Strategy, into: &mut [f32]) {
    into.fill(0.0);
    let weight = 1.0 / strategy.size() as f32;
    strategy.members().for_each(|teacher| row::add_scaled(into, weight, scores.row(teacher)));
}

/// For every row the candidate with the most in it; of equal ones the first.
pub(crate) fn best(table: &Matrix<f32>, candidates: &[Strategy]) -> Vec<Strategy> {
    (0..table.rows()).map(|query| candidates[row::argmax(table.row(query))]).collect()
}

/// The probability of the first entity, as its logarithm.
pub(crate) fn confidence(scores: &[f32]) -> f64 {
    f64::from(row::max(scores)) - row::log_sum_exp(scores, 1.0)
}

/// The mean log-probability of `targets`: minus their cross-entropy.
pub(crate) fn log_probability(scores: &[f32], targets: &[EntityId]) -> f64 {
    let log_sum = row::log_sum_exp(scores, 1.0);
    let of_targets = targets.iter().map(|target| f64::from(scores[target.index()]) - log_sum);
    of_targets.sum::<f64>() / targets.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use mkg::RelationId;

    fn ids(ids: &[u32]) -> Vec<EntityId> {
        ids.iter().copied().map(EntityId).collect()
    }

    #[test]
    fn worths_worked_out_by_hand() {
        // Weights 1, 4, 5, 2.
        let scores = [1.0f32, 4.0, 5.0, 2.0].map(f32::ln);
        assert!((confidence(&scores) - (5.0f64 / 12.0).ln()).abs() < 1e-6);
        assert!(
            (log_probability(&scores, &ids(&[1, 3])) - ((4.0f64 * 2.0).ln() / 2.0 - 12.0f64.ln())).abs()
                < 1e-6
        );
    }

    #[test]
    fn a_table_has_every_candidate_of_every_query() {
        let rows: Vec<f16> = [[1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 1.0]]
            .concat()
            .into_iter()
            .map(f16::from_f32)
            .collect();
        let teachers = ["structural", "textual"].map(|name| name.parse().unwrap());
        let labels = SoftLabels::from_rows(teachers.to_vec(), 3, rows);
        let candidates = [Strategy(0), Strategy(2), Strategy(1)];
        let queries = [0, 1].map(|i| Query { head: EntityId(i), relation: RelationId(0) });
        let said = Said { queries: &queries, labels: &labels };
        let highest = |_: usize, row: &mut [f32]| f64::from(row::max(row));
        let found = table(said, &candidates, highest).unwrap();
        assert_eq!(found.values(), [1.0, 1.5, 3.0, 2.0, 1.5, 1.0]);
        assert_eq!(best(&found, &candidates), [Strategy(1), Strategy(0)]);
        let equal = Matrix::from_values(1, 3, vec![2.0; 3]);
        assert_eq!(best(&equal, &candidates), [Strategy(0)]);
    }
}
