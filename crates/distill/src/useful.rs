//! The choice of the useful teachers.
//!
//! A teacher is useful if the others predict validation targets better with it than without it, each set of teachers at
//! its best: with the weights `w` of greatest likelihood in the sum of scores, so the size of scores does not matter.
//! `F_m` are a teacher's scores of a query's candidates, and `p` is the softmax of the weighted sum:
//!
//! ```text
//! L(T) = max_w 1/n Σ ln p(target)      p = softmax(Σ_{m ∈ T} w_m F_m)      Δ_m = L(T) - L(T without m)
//! ```
//!
//! The choice begins with all teachers. While the least `Δ` is below [`LEAST`], its teacher is left out and the others
//! are judged again: of two equal teachers, one stays. A teacher whose weight is not positive is left out first: its
//! scores would be averaged, not subtracted. `L` is concave in a few weights, so a few Newton steps find them, and
//! thousands of targets cannot be memorised by so few weights: nothing is held out.

use kge::{Matrix, Model, Real, row};
use mkg::EntityId;
use serde::Serialize;
use stage::{Modality, Result};
use std::collections::BTreeMap;
use training::Data;

use crate::likelihood::{Triples, soften};
use crate::strategy::Strategy;

/// Least gain of a useful teacher, in nats per target. In experiments, teachers of noise gained up to 0.0006 (thousands
/// of targets); the student was worse without a teacher of captions that gained 0.007.
const LEAST: f64 = 0.002;
/// Maximum number of Newton's steps; they end when a step gains less than [`ENOUGH`].
const STEPS: usize = 20;
const ENOUGH: f64 = 1e-5;
/// The number added to the diagonal of the curvature, which is singular if two teachers have equal scores.
const RIDGE: f64 = 1e-6;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Usefulness {
    /// The names of the chosen teachers, joined by `+`.
    pub(crate) chosen: String,
    /// The gain `Δ` of each teacher: over the other chosen teachers, or when it was left out.
    pub(crate) adds: BTreeMap<String, f64>,
}

/// Chooses the teachers that are useful for the validation triples, and logs the choice. `models` are the models of all
/// `teachers`.
pub(crate) fn useful(
    data: &Data,
    teachers: &[Modality],
    models: &[Model<f32>],
) -> Result<(Strategy, Usefulness)> {
    let models: Vec<&Model<f32>> = models.iter().collect();
    let (strategy, usefulness) = Triples::of_validation(data, teachers, &models)?.useful()?;
    let adds = usefulness.adds.iter().map(|(teacher, adds)| format!("{teacher} {adds:.4}"));
    let adds = adds.collect::<Vec<_>>().join(", ");
    tracing::info!("useful: {}; what each adds to the others, in nats a target: {adds}", usefulness.chosen);
    Ok((strategy, usefulness))
}

/// The value and derivatives of the mean log-probability of all targets.
struct Slope {
    value: f64,
    /// The first derivatives with respect to the weights `(teacher)`.
    gradient: Vec<f64>,
    /// Minus the second derivatives `(teacher, teacher)`: the mean covariance of the teachers' scores.
    curvature: Matrix<f64>,
}

impl Slope {
    fn zero(teachers: usize) -> Slope {
        Slope { value: 0.0, gradient: vec![0.0; teachers], curvature: Matrix::zeros(teachers, teachers) }
    }
}

impl Triples<'_> {
    fn useful(&self) -> Result<(Strategy, Usefulness)> {
        let teachers = self.labels.teachers();
        let mut kept = Strategy::all(teachers.len());
        let mut weights = vec![1.0 / teachers.len() as f64; teachers.len()];
        let mut value = self.fit(kept, &mut weights)?;
        let mut adds = BTreeMap::new();
        while kept.size() > 1 {
            let gains = self.gains(kept, &weights, value)?;
            adds.extend(gains.iter().map(|(m, gain)| (teachers[*m].as_str().to_owned(), *gain)));
            let least = gains.into_iter().min_by(|(_, a), (_, b)| a.total_cmp(b));
            let Some((teacher, _)) = least.filter(|(_, gain)| *gain < LEAST) else { break };
            kept = kept.without(teacher);
            value = self.fit(kept, &mut weights)?;
        }
        Ok((kept, Usefulness { chosen: kept.name(teachers), adds }))
    }

    /// The gains of these teachers over the others; `value` is the likelihood of all of them with `weights`. If a
    /// weight is not positive, only the teacher with the lowest weight, with a gain of 0.
    fn gains(&self, members: Strategy, weights: &[f64], value: f64) -> Result<Vec<(usize, f64)>> {
        let wrong = members.members().filter(|m| weights[*m] <= 0.0);
        if let Some(worst) = wrong.min_by(|a, b| weights[*a].total_cmp(&weights[*b])) {
            return Ok(vec![(worst, 0.0)]);
        }
        let each = members.members();
        each.map(|m| Ok((m, value - self.fit(members.without(m), &mut weights.to_vec())?))).collect()
    }

    /// Moves the `weights` of these teachers to the greatest likelihood, and returns this likelihood.
    fn fit(&self, members: Strategy, weights: &mut [f64]) -> Result<f64> {
        (0..weights.len()).filter(|m| !members.has(*m)).for_each(|m| weights[m] = 0.0);
        let mut here = self.slope(weights)?;
        for _ in 0..STEPS {
            let step = newton(&here, members);
            let mut length = 1.0;
            let (moved, there) = loop {
                let moved: Vec<f64> = weights.iter().zip(&step).map(|(w, step)| w + length * step).collect();
                let there = self.slope(&moved)?;
                if there.value >= here.value || length < 1e-3 {
                    break (moved, there);
                }
                length /= 2.0;
            };
            let gain = there.value - here.value;
            if gain > 0.0 {
                weights.copy_from_slice(&moved);
                here = there;
            }
            if gain < ENOUGH {
                break;
            }
        }
        Ok(here.value)
    }

    /// The likelihood under the sum of scores with these weights, with its derivatives.
    fn slope(&self, weights: &[f64]) -> Result<Slope> {
        let queries: Vec<usize> = (0..self.queries.len()).collect();
        let single: Vec<f32> = weights.iter().copied().map(f32::from_f64).collect();
        let of_queries = self.visit(&queries, |query, scores, buffers| {
            let known = self.known.of(self.queries.query(query));
            slope_of_query(scores, &single, self.queries.tails(query), known, buffers)
        })?;
        let mut mean = Slope::zero(weights.len());
        let share = 1.0 / self.queries.pairs() as f64;
        // Summed in order, so that sums do not depend on the number of threads.
        for Slope { value, gradient, curvature } in of_queries {
            mean.value += share * value;
            row::add_scaled(&mut mean.gradient, share, &gradient);
            row::add_scaled(mean.curvature.values_mut(), share, curvature.values());
        }
        Ok(mean)
    }
}

/// The slope of a query, summed over its `targets`, each among the candidates that are not `known`.
fn slope_of_query(
    scores: &Matrix<f32>,
    weights: &[f32],
    targets: &[EntityId],
    known: &[EntityId],
    [sum, soft]: [&mut [f32]; 2],
) -> Slope {
    let teachers = weights.len();
    let mut slope = Slope::zero(teachers);
    let Some(softened) = soften(scores, weights, targets, known, [sum, soft]) else { return slope };
    // `sum` is free for reuse here.
    let (first, second) = moments(soft, scores, sum);
    for (target, softened) in targets.iter().zip(softened) {
        slope.value += softened.log_probability;
        let of_target: Vec<_> = (0..teachers).map(|m| f64::from(scores.row(m)[target.index()])).collect();
        let expected: Vec<_> = (0..teachers).map(|m| softened.mean(first[m], of_target[m])).collect();
        for m in 0..teachers {
            slope.gradient[m] += of_target[m] - expected[m];
            for l in 0..teachers {
                let product = softened.mean(second.row(m)[l], of_target[m] * of_target[l]);
                slope.curvature.row_mut(m)[l] += product - expected[m] * expected[l];
            }
        }
    }
    slope
}

/// The sums of each teacher's `scores`, weighted by `soft`, and of the products of scores `(teacher, teacher)`.
/// `weighted` is a buffer.
fn moments(soft: &[f32], scores: &Matrix<f32>, weighted: &mut [f32]) -> (Vec<f64>, Matrix<f64>) {
    let (mut sums, mut products) = (Vec::new(), Matrix::zeros(scores.rows(), scores.rows()));
    for m in 0..scores.rows() {
        weighted.iter_mut().zip(soft).zip(scores.row(m)).for_each(|((into, p), score)| *into = p * score);
        for l in 0..=m {
            let product = f64::from(row::dot(weighted, scores.row(l)));
            products.row_mut(m)[l] = product;
            products.row_mut(l)[m] = product;
        }
        sums.push(f64::from(row::sum(weighted)));
    }
    (sums, products)
}

/// Newton's step for the weights of these teachers, by elimination; the step of all other weights is zero.
fn newton(slope: &Slope, members: Strategy) -> Vec<f64> {
    let members: Vec<usize> = members.members().collect();
    let mut rows = Vec::new();
    for (i, m) in members.iter().enumerate() {
        let mut row: Vec<f64> = members.iter().map(|l| slope.curvature.row(*m)[*l]).collect();
        row[i] += RIDGE;
        row.push(slope.gradient[*m]);
        rows.push(row);
    }
    // The matrix is positive definite, so no pivot search is needed.
    for i in 0..rows.len() {
        let pivot = rows[i].clone();
        for (j, row) in rows.iter_mut().enumerate() {
            let factor = row[i] / pivot[i];
            if j != i {
                row.iter_mut().zip(&pivot).for_each(|(x, pivot)| *x -= factor * pivot);
            }
        }
    }
    let mut step = vec![0.0; slope.gradient.len()];
    for (i, m) in members.iter().enumerate() {
        step[*m] = rows[i][members.len()] / rows[i][i];
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{query, soft_labels};
    use mkg::{KnownAnswers, QuerySet};

    #[test]
    fn slope_and_curvature_equal_finite_differences() {
        let scores = Matrix::from_values(2, 5, (0..10).map(|i| (i as f32 * 1.7).sin() * 3.0).collect());
        let (targets, known) = ([EntityId(1), EntityId(4)], [EntityId(1), EntityId(2), EntityId(4)]);
        let at = |weights: [f32; 2]| {
            slope_of_query(&scores, &weights, &targets, &known, [&mut [0.0; 5], &mut [0.0; 5]])
        };
        let slope = at([0.7, 0.4]);
        for m in 0..2 {
            let moved = |by: f32| {
                let mut weights = [0.7, 0.4];
                weights[m] += by;
                at(weights)
            };
            let (more, less) = (moved(1e-2), moved(-1e-2));
            let difference = (more.value - less.value) / 2e-2;
            assert!((difference - slope.gradient[m]).abs() < 2e-3, "{m}: {difference}, {:?}", slope.gradient);
            for l in 0..2 {
                let difference = (less.gradient[l] - more.gradient[l]) / 2e-2;
                let found = slope.curvature.row(m)[l];
                assert!((difference - found).abs() < 2e-2, "{m} {l}: {difference}, {found}");
            }
        }
    }

    /// The teachers chosen for 80 queries. The first knows the tail where `query % 3` is not 0, the second where it is
    /// not 1. The third has the scores `third(query, entity)`.
    fn chosen(third: impl Fn(usize, usize) -> f32) -> (Strategy, Usefulness) {
        let pairs = (0..80).map(|i| (query(i), EntityId((i * 7 + 3) % 80)));
        let queries = QuerySet::from_pairs(pairs.collect());
        let labels = soft_labels([80, 3, 80], |query, teacher, entity| match teacher {
            2 => third(query, entity),
            _ if query % 3 != teacher && entity == (query * 7 + 3) % 80 => 4.0,
            _ => (entity % 5) as f32 * 0.3,
        });
        let known = KnownAnswers::default();
        Triples { queries, labels, known: &known }.useful().unwrap()
    }

    #[test]
    fn a_teacher_that_adds_nothing_is_left_out() {
        // The third teacher has large scores that have nothing to do with the tails.
        let (strategy, found) = chosen(|query, entity| ((query * 31 + entity * 17) % 23) as f32);
        assert_eq!((strategy, found.chosen.as_str()), (Strategy::of([0, 1]), "structural+textual"));
        assert!(found.adds["visual"] < LEAST && found.adds["structural"] > 0.1, "{found:?}");
        // A teacher that gives low scores to all tails, and only to tails, is left out too.
        let (strategy, found) =
            chosen(|query, entity| if entity == (query * 7 + 3) % 80 { -4.0 } else { 1.0 });
        assert_eq!((strategy, found.adds["visual"]), (Strategy::of([0, 1]), 0.0), "{found:?}");
        // Of two teachers with the same knowledge, one is left out and one is kept.
        let (strategy, found) = chosen(|query, entity| {
            let tail = (query * 7 + 3) % 80;
            if query % 3 != 0 && entity == tail { 8.0 } else { (entity % 5) as f32 * 0.6 }
        });
        assert_eq!(strategy.size(), 2, "{found:?}");
        assert!(strategy.has(1), "{found:?}");
    }
}
