//! Scales for the teachers' scores, so that their mean is a good guess.
//!
//! A mean of raw scores listens most to the teacher with the largest ones, which need not be the best. Each teacher's
//! scores are multiplied by a scale of its own, or one for each relation. This stands for MoSE's meta-learner (Zhao et
//! al., 2022), a network of 32 hidden units from the teachers' scores of an entity to one score, the same for all
//! relations, which also maximises the likelihood of validation triples:
//!
//! ```text
//! F = 1/M Σ_m s_m(r) F^m      ln s_m(r) = a_m + b_m(r)
//! ```
//!
//! learned on the validation triples by maximum likelihood among the candidates that the filter leaves, with a normal
//! prior on `b` that holds relations with few triples near the others. `boosting` has other scales: see its module; `useful`
//! asks which teachers deserve one.

mod boosting;
mod useful;

pub(crate) use useful::{Usefulness, useful};

use dsom_soft_labels::SoftLabels;
use kge::checkpoint::Reader;
use kge::{Matrix, Real, row};
use mkg::{EntityId, KnownAnswers, QuerySet, RelationId};
use rayon::prelude::*;
use recipe::Calibrate;
use serde::Serialize;
use stage::{Modality, Result, interrupt};
use std::collections::BTreeMap;

use crate::adam::{Adam, AdamStep};
use crate::learn::Holdout;
use crate::objective::mask;

/// Passes over the triples, of which the best one's scales are kept.
const PASSES: usize = 80;
/// Adam's learning rate.
const RATE: f64 = 0.05;
/// Standard deviation of the prior of `b`.
const PRIOR: f64 = 0.5;

/// What each teacher's scores are multiplied with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scales(Matrix<f32>);

impl Scales {
    /// One row `(relation and inverse, teacher)` each.
    pub(crate) fn matrix(&self) -> &Matrix<f32> {
        &self.0
    }

    /// Takes up the tensor called `name`.
    pub(crate) fn read(reader: &Reader, name: &str) -> Result<Scales> {
        reader.matrix(name).map(Scales)
    }

    /// The teachers' scales for queries of a relation.
    pub(crate) fn of(&self, relation: RelationId) -> &[f32] {
        self.0.row(relation.index())
    }
}

/// How calibration went, on queries that were not learned from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Calibrated {
    /// Passes until the one whose scales were kept; boosting has none.
    pub(crate) passes: usize,
    /// Mean log-probability of the targets by the mean of the scores as they are.
    pub(crate) before: f64,
    /// The same of the scaled scores.
    pub(crate) after: f64,
    /// `exp(a)` of each teacher; of boosting, the mean over the relations.
    pub(crate) scales: BTreeMap<String, f64>,
}

/// Learns scales from the `queries`' tails, given the teachers' `labels` for them.
pub(crate) fn calibrate(
    queries: &QuerySet,
    labels: &SoftLabels,
    known: &KnownAnswers,
    relations: usize,
    by: Calibrate,
    seed: u64,
) -> Result<(Scales, Calibrated)> {
    let triples = Triples { queries, labels, known };
    let Holdout { held_out, rest } = Holdout::of(queries.len(), seed);
    let teachers = labels.teachers();
    if by == Calibrate::Boosting {
        return triples.boost(&rest, &held_out, relations);
    }
    let mut logarithms = Logarithms::new(relations, teachers.len());
    let (mut best, before) = (logarithms.clone(), triples.likelihood(&logarithms.scales(), &held_out)?.value);
    let (mut after, mut passes) = (before, 0);
    for pass in 1..=PASSES {
        let found = triples.likelihood(&logarithms.scales(), &rest)?;
        logarithms.step(&found, by, pass as u64);
        let value = triples.likelihood(&logarithms.scales(), &held_out)?.value;
        if value > after {
            (best, after, passes) = (logarithms.clone(), value, pass);
        }
    }
    let scale = |(i, teacher): (usize, &Modality)| {
        (teacher.as_str().to_owned(), best.teachers.parameters.row(0)[i].exp())
    };
    let scales = teachers.iter().enumerate().map(scale).collect();
    Ok((best.scales(), Calibrated { passes, before, after, scales }))
}

/// `a (1, teacher)` and `b (relation, teacher)` with their optimiser.
#[derive(Clone)]
struct Logarithms {
    teachers: Adam<f64>,
    relations: Adam<f64>,
}

impl Logarithms {
    fn new(relations: usize, teachers: usize) -> Self {
        let zeros = |rows| Adam::new(Matrix::zeros(rows, teachers));
        Logarithms { teachers: zeros(1), relations: zeros(relations) }
    }

    /// `s (relation, teacher)`.
    fn scales(&self) -> Scales {
        let (a, b) = (self.teachers.parameters.row(0), &self.relations.parameters);
        let mut scales = Matrix::zeros(b.rows(), b.columns());
        for relation in 0..b.rows() {
            let sums = a.iter().zip(b.row(relation)).map(|(a, b)| (a + b).exp() as f32);
            scales.row_mut(relation).iter_mut().zip(sums).for_each(|(scale, sum)| *scale = sum);
        }
        Scales(scales)
    }

    /// A step towards more likelihood.
    fn step(&mut self, found: &Likelihood, by: Calibrate, number: u64) {
        let step = AdamStep::new(RATE, number);
        let (gradient, pairs) = (&found.gradient, found.pairs);
        self.teachers.step(step, |_, into| {
            into.clear();
            for relation in 0..gradient.rows() {
                row::add_scaled(into.row_mut(0), -1.0 / pairs, gradient.row(relation));
            }
        });
        if by == Calibrate::Relation {
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
}

/// What scales are learned from.
struct Triples<'a> {
    queries: &'a QuerySet,
    labels: &'a SoftLabels,
    known: &'a KnownAnswers,
}

/// Of some queries' targets.
struct Likelihood {
    /// The mean log-probability.
    value: f64,
    /// The gradient of the summed log-probabilities by `ln s (relation, teacher)`.
    gradient: Matrix<f64>,
    /// How many targets there are.
    pairs: f64,
}

impl Triples<'_> {
    /// What `of` says of each of these queries, given the teachers' scores `(teacher, entity)` and two buffers of a number for
    /// each entity.
    fn visit<T: Send>(
        &self,
        queries: &[u32],
        of: impl Fn(usize, &Matrix<f32>, [&mut [f32]; 2]) -> T + Sync,
    ) -> Result<Vec<T>> {
        let (teachers, entities) = (self.labels.teachers().len(), self.labels.entities());
        let buffers = || (Matrix::zeros(teachers, entities), vec![0.0; entities], vec![0.0; entities]);
        let visited = queries.par_iter().map_init(buffers, |(scores, sum, soft), &query| {
            interrupt::check()?;
            let query = query as usize;
            // A lossy cache is of training queries; these are asked of the teachers themselves.
            (0..teachers).for_each(|m| self.labels.fill(query, m, 1.0, scores.row_mut(m)));
            Ok(of(query, scores, [sum, soft]))
        });
        visited.collect()
    }

    fn likelihood(&self, scales: &Scales, queries: &[u32]) -> Result<Likelihood> {
        let teachers = self.labels.teachers().len();
        let of_queries = self.visit(queries, |query, scores, buffers| {
            let asked = self.queries.query(query);
            let known = self.known.of(asked);
            log_likelihood(scores, scales.of(asked.relation), self.queries.tails(query), known, buffers)
        })?;
        let mut found =
            Likelihood { value: 0.0, gradient: Matrix::zeros(scales.0.rows(), teachers), pairs: 0.0 };
        // In order: sums do not depend on the number of threads.
        for (&query, (value, gradient)) in queries.iter().zip(&of_queries) {
            let relation = self.queries.query(query as usize).relation;
            found.value += value;
            row::add_scaled(found.gradient.row_mut(relation.index()), 1.0, gradient);
            found.pairs += self.queries.tails(query as usize).len() as f64;
        }
        found.value /= found.pairs;
        Ok(found)
    }
}

/// A target among its query's candidates, by the softmax of a weighted sum of the teachers' scores.
struct Softened {
    log_probability: f64,
    /// Its exponential, relative to the largest of the other candidates'.
    own: f64,
    /// With those of the others.
    total: f64,
}

impl Softened {
    /// The mean of a quantity over the target and the other candidates, of which it sums, weighted, to `of_rest`.
    fn mean(&self, of_rest: f64, of_target: f64) -> f64 {
        (of_rest + self.own * of_target) / self.total
    }
}

/// Softens the sum of `scores (teacher, entity)` with these weights, for each of the `targets` among the candidates that are
/// not `known`, whose exponentials `soft` then holds. None, if there is nothing to be mistaken for. `sum` is a buffer.
fn soften(
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
    row::exp_into(sum, shift, 1.0, soft);
    let rest = f64::from(row::sum(soft));
    let softened = of_targets.into_iter().map(|score| {
        let relative = score - f64::from(shift);
        let own = relative.exp();
        let total = rest + own;
        Softened { log_probability: relative - total.ln(), own, total }
    });
    Some(softened.collect())
}

/// The log-probability of the `targets`, summed, each among the candidates that are not `known`, by the mean of scaled
/// `scores (teacher, entity)`; and its gradient by the scales' logarithms.
fn log_likelihood(
    scores: &Matrix<f32>,
    scales: &[f32],
    targets: &[EntityId],
    known: &[EntityId],
    [mean, soft]: [&mut [f32]; 2],
) -> (f64, Vec<f64>) {
    let weights: Vec<f32> = scales.iter().map(|scale| scale / scales.len() as f32).collect();
    let (mut value, mut gradient) = (0.0, vec![0.0; weights.len()]);
    let Some(softened) = soften(scores, &weights, targets, known, [mean, soft]) else {
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
    use half::f16;
    use mkg::Triple;

    #[test]
    fn the_gradient_equals_finite_differences() {
        let scores = Matrix::from_values(2, 5, (0..10).map(|i| (i as f32 * 1.7).sin() * 3.0).collect());
        let (targets, known) = ([EntityId(1), EntityId(4)], [EntityId(1), EntityId(2), EntityId(4)]);
        let at = |logarithms: [f64; 2]| {
            let scales = logarithms.map(|x| x.exp() as f32);
            log_likelihood(&scores, &scales, &targets, &known, [&mut [0.0; 5], &mut [0.0; 5]])
        };
        let (value, gradient) = at([0.2, -0.4]);
        assert!(value < 0.0);
        for m in 0..2 {
            let moved = |by: f64| {
                let mut logarithms = [0.2, -0.4];
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
        // The first teacher knows the tails of relation 0, the second those of relation 1, timidly.
        let triples: Vec<Triple> = (0..60).map(|i| Triple::new(i, i % 2, (i + 1) % 60)).collect();
        let queries = QuerySet::from_pairs(triples.iter().map(|t| (t.tail_query(), t.tail)).collect());
        let mut rows = vec![f16::ZERO; queries.len() * 2 * 60];
        for query in 0..queries.len() {
            for teacher in 0..2 {
                let row = &mut rows[(query * 2 + teacher) * 60..][..60];
                let knows = queries.query(query).relation.index() == teacher;
                // Who does not know is sure of something else.
                let (entity, score) =
                    if knows { (queries.tails(query)[0].index(), 1.0) } else { (query / 2, 3.0) };
                row[entity] = f16::from_f32(score);
            }
        }
        let names = ["structural", "textual"].map(|name| name.parse().unwrap());
        let labels = SoftLabels::from_rows(names.to_vec(), 60, rows);
        let learn = |by| calibrate(&queries, &labels, &KnownAnswers::default(), 2, by, 0).unwrap();
        let (scales, by_relation) = learn(Calibrate::Relation);
        let (first, second) = (scales.of(RelationId(0)), scales.of(RelationId(1)));
        assert!(first[0] > 1.5 * first[1] && second[1] > 1.5 * second[0], "{scales:?}");
        let (_, by_teacher) = learn(Calibrate::Teacher);
        assert!(by_relation.after > by_teacher.after && by_teacher.after >= by_teacher.before);
    }
}
