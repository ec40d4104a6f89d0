//! The worth of strategies for queries, and rules, which choose the worthiest candidate for every training query.

use kge::{Matrix, Real, row};
use mkg::{EntityId, QuerySet};
use rayon::prelude::*;
use stage::{Result, interrupt};

use crate::combine::{QueryTeachers, Scratch, Sources};
use crate::strategy::Strategy;

/// The worth `(query, candidate)` of the `candidates` for `queries` queries; `worth` computes one number from a query's
/// number and teachers.
pub fn table(
    sources: &Sources<'_>,
    queries: usize,
    candidates: &[Strategy],
    worth: impl Fn(usize, &QueryTeachers<'_>, Strategy, &mut Scratch) -> f64 + Sync,
) -> Result<Matrix<f32>> {
    let mut table = Matrix::zeros(queries, candidates.len());
    let rows = table.values_mut().par_chunks_mut(candidates.len()).enumerate();
    rows.try_for_each_init(
        || Scratch::new(sources.labels.entities()),
        |scratch, (query, into)| {
            interrupt::check()?;
            let teachers = sources.of(query);
            for (strategy, into) in candidates.iter().zip(into) {
                *into = f32::from_f64(worth(query, &teachers, *strategy, scratch));
            }
            Ok(())
        },
    )?;
    Ok(table)
}

/// The worth of a strategy for a query with these tails.
pub(crate) type Worth = fn(&QueryTeachers<'_>, Strategy, &[EntityId], &mut Scratch) -> f64;

/// The candidate with the greatest `worth` for every training query; the first of equal candidates.
pub(crate) fn best(
    sources: &Sources<'_>,
    queries: &QuerySet,
    candidates: &[Strategy],
    worth: Worth,
) -> Result<Vec<Strategy>> {
    let table = table(sources, queries.len(), candidates, |query, teachers, strategy, scratch| {
        worth(teachers, strategy, queries.tails(query), scratch)
    })?;
    Ok((0..queries.len()).map(|query| candidates[row::argmax(table.row(query))]).collect())
}

/// The logarithm of the highest probability of an entity.
pub(crate) fn confidence(
    teachers: &QueryTeachers<'_>,
    strategy: Strategy,
    _tails: &[EntityId],
    scratch: &mut Scratch,
) -> f64 {
    let log_sum = teachers.log_sum(strategy, scratch);
    teachers.combine(strategy, 1.0, scratch);
    f64::from(row::max(&scratch.combined)) - log_sum
}

/// The negative mean cross-entropy of the tails.
pub(crate) fn log_probability(
    teachers: &QueryTeachers<'_>,
    strategy: Strategy,
    tails: &[EntityId],
    scratch: &mut Scratch,
) -> f64 {
    let losses = tails.iter().map(|tail| teachers.cross_entropy(strategy, *tail, scratch));
    -losses.sum::<f64>() / tails.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{query, soft_labels};

    /// Two queries, the first with the tails 1 and 3, the second with 0. Two teachers: their weights are 1, 4, 5, 2 and
    /// 3, 1, 1, 1 for the first query, and exchanged for the second.
    fn ask(candidates: &[Strategy], worth: Worth) -> (Vec<Strategy>, [f64; 2]) {
        let weights = [[1.0f32, 4.0, 5.0, 2.0], [3.0, 1.0, 1.0, 1.0]];
        let labels = soft_labels([2, 2, 4], |query, teacher, entity| weights[query ^ teacher][entity].ln());
        let pairs = [(query(0), EntityId(1)), (query(0), EntityId(3)), (query(1), EntityId(0))];
        let (queries, sources) = (QuerySet::from_pairs(pairs.to_vec()), Sources::new(&labels, 2));
        let singles = [Strategy(0), Strategy(1)];
        let of = |strategy| worth(&sources.of(0), strategy, queries.tails(0), &mut Scratch::new(4));
        (best(&sources, &queries, candidates, worth).unwrap(), singles.map(of))
    }

    #[test]
    fn the_surest_teacher_is_chosen_whatever_the_tails() {
        let (chosen, of_first) = ask(&Strategy::singles(2), confidence);
        // The highest probabilities are 5 of 12 and 3 of 6.
        assert!(
            (of_first[0] - (5.0f64 / 12.0).ln()).abs() < 1e-3 && (of_first[1] - 0.5f64.ln()).abs() < 1e-3
        );
        assert_eq!(chosen, [Strategy(1), Strategy(0)]);
    }

    #[test]
    fn the_best_teacher_and_strategy_give_the_tails_most() {
        let (chosen, of_first) = ask(&Strategy::singles(2), log_probability);
        assert!((of_first[0] - ((4.0f64 * 2.0).ln() / 2.0 - 12.0f64.ln())).abs() < 1e-3, "{of_first:?}");
        assert_eq!(chosen, [Strategy(0), Strategy(0)]);
        // For both queries, the mean of the scores is worse than the first teacher alone.
        assert_eq!(ask(&Strategy::every(2), log_probability).0, [Strategy(0), Strategy(0)]);
    }

    #[test]
    fn of_equal_candidates_the_first_is_chosen() {
        assert_eq!(ask(&[Strategy(2), Strategy(0)], |_, _, _, _| 2.0).0, [Strategy(2); 2]);
    }
}
