//! Weights by relation, with the greatest likelihood.
//!
//! In a mean of raw scores, the teacher with the largest scores counts most, and it need not be the best. This module
//! replaces MoSE's meta-learner (Zhao et al., 2022), a network of 32 hidden units from the teachers' scores of an
//! entity to one score, the same for all relations, which also maximises the likelihood of validation triples:
//!
//! ```text
//! ln w_m(r) = a_m + b_m(r) - ln M
//! ```
//!
//! learned by maximum likelihood among the candidates that the filter leaves. A normal prior on `b` keeps relations
//! with few triples near the others. A fifth of the queries is held out, and the best pass on these is kept.

use dsom_distill::Strategy;
use dsom_distill::adam::{Adam, rates};
use dsom_distill::likelihood::{Triples, soften};
use kge::{Matrix, Real, row};
use mkg::EntityId;
use serde::Serialize;
use stage::Result;
use std::collections::BTreeMap;

use crate::Holdout;
use crate::weights::always;

/// The number of passes over the triples.
const PASSES: u64 = 80;
/// Adam's learning rate.
const RATE: f64 = 0.05;
/// The standard deviation of the prior of `b`.
const PRIOR: f64 = 0.5;

/// The quality of weights on queries that they were not learned from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct WeightGain {
    /// The mean log-probability of the targets under the mean of all scores.
    pub(crate) before: f64,
    /// The mean log-probability of the targets under the weighted sum.
    pub(crate) after: f64,
    /// The mean weight of each teacher over the relations.
    pub(crate) weights: BTreeMap<String, f64>,
}

impl WeightGain {
    /// Measures the quality of `weights (relation, teacher)` on `queries`, and logs it.
    pub(crate) fn new(triples: &Triples<'_>, weights: &Matrix<f32>, queries: &[usize]) -> Result<WeightGain> {
        let (relations, teachers) = (weights.rows(), triples.labels.teachers());
        let even = always(Strategy::all(teachers.len()), relations, teachers.len());
        let before = likelihood(triples, &even, queries)?.value;
        let after = likelihood(triples, weights, queries)?.value;
        tracing::info!("log-probability of held-out targets: by the mean {before:.3}, weighted {after:.3}");
        let mut means = BTreeMap::new();
        for (m, teacher) in teachers.iter().enumerate() {
            let sum: f64 = (0..relations).map(|relation| f64::from(weights.row(relation)[m])).sum();
            means.insert(teacher.to_string(), sum / relations as f64);
        }
        Ok(WeightGain { before, after, weights: means })
    }
}

/// Learns weights `(relation, teacher)` for `relations` relations, inverses included.
pub(crate) fn learn(triples: &Triples<'_>, relations: usize, queries: &Holdout) -> Result<Matrix<f32>> {
    let mut logarithms = Logarithms::new(relations, triples.labels.teachers().len());
    let mut best = logarithms.weights();
    let mut most = likelihood(triples, &best, &queries.held_out)?.value;
    for pass in 1..=PASSES {
        let found = likelihood(triples, &logarithms.weights(), &queries.rest)?;
        logarithms.step(&found, pass);
        let weights = logarithms.weights();
        let value = likelihood(triples, &weights, &queries.held_out)?.value;
        if value > most {
            (best, most) = (weights, value);
        }
    }
    Ok(best)
}

/// The parameters `a (1, teacher)` and `b (relation, teacher)`, with their optimisers.
struct Logarithms {
    teachers: Adam<f64>,
    relations: Adam<f64>,
}

impl Logarithms {
    fn new(relations: usize, teachers: usize) -> Self {
        let [teachers, relations] = [1, relations].map(|rows| Adam::new(Matrix::zeros(rows, teachers)));
        Logarithms { teachers, relations }
    }

    /// The weights `w (relation, teacher)`.
    fn weights(&self) -> Matrix<f32> {
        let (a, b) = (self.teachers.parameters.row(0), &self.relations.parameters);
        let share = 1.0 / a.len() as f64;
        let sums = a.iter().cycle().zip(b.values()).map(|(a, b)| f32::from_f64(share * (a + b).exp()));
        Matrix::from_values(b.rows(), b.columns(), sums.collect())
    }

    fn step(&mut self, found: &Likelihood, number: u64) {
        let step = rates(RATE, number);
        let Likelihood { gradient, pairs, .. } = found;
        self.teachers.step(step, |_, into| {
            into.clear();
            for relation in 0..gradient.rows() {
                row::add_scaled(into.row_mut(0), -1.0 / pairs, gradient.row(relation));
            }
        });
        let b = self.relations.parameters.clone();
        self.relations.step(step, |rows, into| {
            into.clear();
            for (i, relation) in rows.enumerate() {
                row::add_scaled(into.row_mut(i), -1.0 / pairs, gradient.row(relation));
                row::add_scaled(into.row_mut(i), 1.0 / (PRIOR * PRIOR * pairs), b.row(relation));
            }
        });
    }
}

/// The mean log-probability of some queries' targets.
struct Likelihood {
    value: f64,
    /// The gradient of the summed log-probabilities with respect to `ln w (relation, teacher)`.
    gradient: Matrix<f64>,
    pairs: f64,
}

/// The likelihood of these queries' targets under `weights (relation, teacher)`.
fn likelihood(triples: &Triples<'_>, weights: &Matrix<f32>, queries: &[usize]) -> Result<Likelihood> {
    let of_queries = triples.visit(queries, |query, scores, buffers| {
        let (asked, tails) = (triples.queries.query(query), triples.queries.tails(query));
        let of_relation = weights.row(asked.relation.index());
        log_likelihood(scores, of_relation, tails, triples.known.of(asked), buffers)
    })?;
    let gradient = Matrix::zeros(weights.rows(), weights.columns());
    let mut found = Likelihood { value: 0.0, gradient, pairs: 0.0 };
    // The sum runs in the order of queries, so it does not depend on the number of threads.
    for (&query, (value, gradient)) in queries.iter().zip(&of_queries) {
        let relation = triples.queries.query(query).relation;
        found.value += value;
        row::add_scaled(found.gradient.row_mut(relation.index()), 1.0, gradient);
        found.pairs += triples.queries.tails(query).len() as f64;
    }
    found.value /= found.pairs;
    Ok(found)
}

/// The summed log-probability of the `targets`, each among the candidates that are not `known`, under the weighted sum
/// of `scores (teacher, entity)`; and its gradient with respect to the logarithms of the weights.
fn log_likelihood(
    scores: &Matrix<f32>,
    weights: &[f32],
    targets: &[EntityId],
    known: &[EntityId],
    [sum, soft]: [&mut [f32]; 2],
) -> (f64, Vec<f64>) {
    let (mut value, mut gradient) = (0.0, vec![0.0; weights.len()]);
    let Some(softened) = soften(scores, weights, targets, known, [sum, soft]) else {
        return (value, gradient);
    };
    let of_rest: Vec<f64> = (0..weights.len()).map(|m| f64::from(row::dot(soft, scores.row(m)))).collect();
    for (target, softened) in targets.iter().zip(softened) {
        value += softened.log_probability;
        for (m, gradient) in gradient.iter_mut().enumerate() {
            let of_target = f64::from(scores.row(m)[target.index()]);
            *gradient += f64::from(weights[m]) * (of_target - softened.mean(of_rest[m], of_target));
        }
    }
    (value, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsom_soft_labels::SoftLabels;
    use half::f16;
    use mkg::{KnownAnswers, QuerySet, Triple};

    #[test]
    fn the_gradient_equals_finite_differences() {
        let scores = Matrix::from_values(2, 5, (0..10).map(|i| (i as f32 * 1.7).sin() * 3.0).collect());
        let (targets, known) = ([EntityId(1), EntityId(4)], [EntityId(1), EntityId(2), EntityId(4)]);
        let at = |logarithms: [f64; 2]| {
            let weights = logarithms.map(|x| x.exp() as f32);
            log_likelihood(&scores, &weights, &targets, &known, [&mut [0.0; 5], &mut [0.0; 5]])
        };
        let (value, gradient) = at([-0.5, -1.1]);
        assert!(value < 0.0);
        for m in 0..2 {
            let moved = |by: f64| {
                let mut logarithms = [-0.5, -1.1];
                logarithms[m] += by;
                at(logarithms).0
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((difference - gradient[m]).abs() < 1e-3, "{m}: {difference}, {}", gradient[m]);
        }
    }

    #[test]
    fn a_target_alone_says_nothing() {
        let (scores, targets) = (Matrix::from_values(1, 2, vec![1.0, 2.0]), [EntityId(0)]);
        let known = [EntityId(0), EntityId(1)];
        let found = log_likelihood(&scores, &[1.0], &targets, &known, [&mut [0.0; 2], &mut [0.0; 2]]);
        assert_eq!(found, (0.0, vec![0.0]));
    }

    #[test]
    fn who_knows_is_heard_and_who_does_not_is_not() {
        // The first teacher knows the tails of relation 0, the second those of relation 1, both with low scores.
        let triples = (0..60).map(|i| Triple::new(i, i % 2, (i + 1) % 60));
        let queries = QuerySet::from_pairs(triples.map(|t| (t.tail_query(), t.tail)).collect());
        let mut rows = vec![f16::ZERO; 60 * 2 * 60];
        for (row, scores) in rows.chunks_mut(60).enumerate() {
            let (query, teacher) = (row / 2, row % 2);
            // A teacher that does not know the tail gives another entity a high score.
            let knows = query % 2 == teacher;
            let (entity, score) = if knows { ((query + 1) % 60, 1.0) } else { (query / 2, 3.0) };
            scores[entity] = f16::from_f32(score);
        }
        let names = ["structural", "textual"].map(|name| name.parse().unwrap());
        let labels = SoftLabels::from_rows(names.to_vec(), 60, rows);
        let known = KnownAnswers::default();
        let triples = Triples { queries, labels, known: &known };
        let holdout = Holdout::fifth(60, 0);
        let weights = learn(&triples, 2, &holdout).unwrap();
        let fitted = WeightGain::new(&triples, &weights, &holdout.held_out).unwrap();
        let (first, second) = (weights.row(0), weights.row(1));
        assert!(first[0] > 1.5 * first[1] && second[1] > 1.5 * second[0], "{weights:?}");
        assert!(fitted.after > fitted.before + 0.1, "{fitted:?}");
    }
}
