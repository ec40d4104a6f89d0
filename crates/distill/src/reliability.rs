//! How far a query's teachers are trusted: a factor of its distillation term.
//!
//! A combination of teachers may be good for one relation and useless for another. On the validation triples, the
//! reliability of strategy `s` for relation `r` is its mean reciprocal rank there, drawn towards that of all relations as by
//! [`PRIOR`] further targets, and a training query's factor is
//!
//! ```text
//! ρ(r, s) = (Σ_{q of r} n_q v(q, s) + k v̄(s)) / (n_r + k)            w(q) = ρ(r_q, s_q) / Z
//! ```
//!
//! with `v(q, s)` the mean reciprocal rank of a query's `n_q` targets, and `Z` such that the mean of `w` over the training
//! triples is 1: `γ` keeps its meaning. Where choices are not settled beforehand, `Z` takes all strategies as equally likely.

use kge::Matrix;
use mkg::{QuerySet, RelationId};
use serde::Serialize;

use crate::strategy::Strategy;

/// `k`: as how many targets the mean over all relations counts.
const PRIOR: f64 = 10.0;

/// The factors of relations and strategies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reliability {
    /// `(relation and inverse, strategy)`.
    factors: Matrix<f64>,
}

/// The range of the factors that training queries have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Range {
    /// The smallest.
    pub(crate) least: f64,
    /// The largest.
    pub(crate) most: f64,
}

impl Reliability {
    /// From what every strategy is worth to the validation `queries`, `values (query, strategy)`, in a graph of so many
    /// `relations`, with inverses. The factors are not normalised yet.
    pub(crate) fn of(queries: &QuerySet, values: &Matrix<f32>, relations: usize) -> Reliability {
        let strategies = values.columns();
        let (mut sums, mut counts) = (Matrix::<f64>::zeros(relations, strategies), vec![0.0; relations]);
        for query in 0..queries.len() {
            let (relation, count) =
                (queries.query(query).relation.index(), queries.tails(query).len() as f64);
            counts[relation] += count;
            let into = sums.row_mut(relation).iter_mut().zip(values.row(query));
            into.for_each(|(sum, value)| *sum += count * f64::from(*value));
        }
        let total: f64 = counts.iter().sum();
        let mean = |strategy: usize| {
            (0..relations).map(|relation| sums.row(relation)[strategy]).sum::<f64>() / total.max(1.0)
        };
        let means: Vec<f64> = (0..strategies).map(mean).collect();
        for (relation, count) in counts.iter().enumerate() {
            let of_relation = sums.row_mut(relation).iter_mut().zip(&means);
            of_relation.for_each(|(sum, mean)| *sum = (*sum + PRIOR * mean) / (count + PRIOR));
        }
        Reliability { factors: sums }
    }

    /// The same with mean 1 over the triples of the training `queries`, whose strategies are `chosen`, if they are.
    pub(crate) fn normalised(
        mut self,
        queries: &QuerySet,
        chosen: Option<&[Strategy]>,
    ) -> (Reliability, Range) {
        let factor = |query: usize| {
            let of_relation = self.factors.row(queries.query(query).relation.index());
            match chosen {
                Some(chosen) => of_relation[chosen[query].index()],
                None => of_relation.iter().sum::<f64>() / of_relation.len() as f64,
            }
        };
        let (mut sum, mut pairs) = (0.0, 0.0);
        let (mut least, mut most) = (f64::INFINITY, 0.0f64);
        for query in 0..queries.len() {
            let (count, factor) = (queries.tails(query).len() as f64, factor(query));
            (sum, pairs) = (sum + count * factor, pairs + count);
            (least, most) = (least.min(factor), most.max(factor));
        }
        // Teachers of no worth at all are all alike.
        let scale = if sum > 0.0 { pairs / sum } else { 0.0 };
        self.factors.values_mut().iter_mut().for_each(|x| *x = if scale > 0.0 { *x * scale } else { 1.0 });
        (self, Range { least: least * scale, most: most * scale })
    }

    /// The factor of a query's distillation term.
    pub(crate) fn factor(&self, relation: RelationId, strategy: Strategy) -> f64 {
        self.factors.row(relation.index())[strategy.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mkg::{EntityId, Query};

    /// One query for each pair of a relation and its number of tails.
    fn queries(of: &[(u32, u32)]) -> QuerySet {
        let pairs = of.iter().enumerate().flat_map(|(head, &(relation, tails))| {
            let query = Query { head: EntityId(head as u32), relation: RelationId(relation) };
            (0..tails).map(move |tail| (query, EntityId(tail)))
        });
        QuerySet::from_pairs(pairs.collect())
    }

    #[test]
    fn factors_worked_out_by_hand() {
        // Relation 0 has 10 targets, relation 1 has 30, relation 2 none.
        let valid = queries(&[(0, 10), (1, 30)]);
        let values = Matrix::from_values(2, 1, vec![0.8f32, 0.4]);
        let found = Reliability::of(&valid, &values, 3);
        // The mean is (8 + 12) / 40 = 0.5.
        let expected = [(8.0 + 5.0) / 20.0, (12.0 + 5.0) / 40.0, 0.5];
        for (relation, expected) in expected.iter().enumerate() {
            let factor = found.factor(RelationId(relation as u32), Strategy(0));
            assert!((factor - expected).abs() < 1e-6, "{relation}: {factor}");
        }
        // Over training triples the mean is 1.
        let train = queries(&[(0, 1), (2, 3)]);
        let (found, range) = found.normalised(&train, Some(&[Strategy(0), Strategy(0)]));
        let of = |relation: u32| found.factor(RelationId(relation), Strategy(0));
        assert!((of(0) + 3.0 * of(2) - 4.0).abs() < 1e-9);
        assert!((of(0) / of(2) - 1.3).abs() < 1e-6);
        assert_eq!((range.least, range.most), (of(2), of(0)));
    }

    #[test]
    fn choices_that_are_open_count_as_equally_likely() {
        let queries = queries(&[(0, 1)]);
        let values = Matrix::from_values(1, 3, vec![0.2f32, 0.4, 0.6]);
        let (found, _) = Reliability::of(&queries, &values, 1).normalised(&queries, None);
        let of = |strategy: u16| found.factor(RelationId(0), Strategy(strategy));
        assert!((of(0) + of(1) + of(2) - 3.0).abs() < 1e-9);
        assert!((of(1) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn teachers_of_no_worth_are_all_alike() {
        let queries = queries(&[(0, 1)]);
        let (found, _) = Reliability::of(&queries, &Matrix::zeros(1, 1), 1).normalised(&queries, None);
        assert_eq!(found.factor(RelationId(0), Strategy(0)), 1.0);
    }
}
