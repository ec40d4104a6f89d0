//! MulDE's Senior (Wang et al., "MulDE: Multi-teacher Knowledge Distillation for Low-dimensional Knowledge Graph
//! Embeddings", WWW 2021) integrates the teachers for a query `(h, r)` in epoch `e`, given the student's scores `z`.
//!
//! ```text
//! s_m(r) = 2 σ(w_m(r))                                                relation-specific scaling
//! κ_m    = KL(softmax(s_m F^m / τ) ‖ softmax(z / τ))                  contrast
//! a_m    = softmax_m(-κ_m / exp(e / 5))                               attention: sharp at first, later nearly even
//! F      = Σ_m a_m s_m F^m                                            the integrated scores, which teach
//! ```
//!
//! `w (relation, teacher)` starts at 0 and learns while the student learns. It minimises the cross-entropy of the
//! training tails under `softmax(F)`, with constant attention, so
//!
//! ```text
//! ∂L/∂w_m(r) = Σ_t a_m s_m (1 - s_m / 2) (E_p[F^m] - F^m_t)           p = softmax(F)
//! ```
//!
//! From the original come a learned scale for each relation and teacher, an attention that trusts teachers near the
//! student, and learning both while the student learns. This module differs in three points: the original's teachers
//! are hyperbolic models of one modality, score only the student's `K` favourites, and use binary cross-entropy; here
//! they are the modalities' teachers, score all entities, and use `distill.term`. The formulas of contrast and scaling
//! follow a public reimplementation. It has a sigmoid in place of the attention's softmax, no factor 2, a sum of
//! teachers in place of their mean, no temperature, and a separate loss for each scaled teacher.

use kge::checkpoint::{NamedTensors, TensorReader, require_finite};
use kge::{Matrix, Real, row};
use mkg::{EntityId, RelationId};
use stage::Result;

use crate::adam::{Adam, rates};
use crate::combine::{QueryTeachers, Scratch};

/// Adam's learning rate for `w`.
const RATE: f64 = 0.01;
/// Number of epochs in which the attention's temperature grows by a factor of e.
const GROWTH: f64 = 5.0;
const WEIGHT: &str = "weight";

/// The Senior: `w` with its optimiser, and the epoch's temperature.
pub(crate) struct Senior {
    /// The parameters `w (relation and inverse, teacher)`.
    weight: Adam<f32>,
    pub(crate) steps: u64,
    /// The divisor of the attention's logits in this epoch.
    pub(crate) temperature: f64,
}

/// The lesson of one query for the `w` of its relation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lesson {
    pub(crate) relation: RelationId,
    /// The gradient `∂L/∂w_m`, summed over the tails.
    pub(crate) gradient: Vec<f64>,
    /// The attention `a_m`.
    pub(crate) attention: Vec<f64>,
}

impl Senior {
    /// A Senior for `relations`, including inverses, and `teachers`; all its scales are 1.
    pub(crate) fn new(relations: usize, teachers: usize) -> Senior {
        Senior { weight: Adam::new(Matrix::zeros(relations, teachers)), steps: 0, temperature: 1.0 }
    }

    /// Sets the temperature of epoch number `epoch`, from 1.
    pub(crate) fn begin_epoch(&mut self, epoch: usize) {
        self.temperature = (epoch as f64 / GROWTH).exp();
    }

    /// The scale `s_m` of each teacher for a query of `relation`.
    pub(crate) fn scales(&self, relation: RelationId) -> Vec<f64> {
        self.weight.parameters.row(relation.index()).iter().map(scale).collect()
    }

    /// Integrates the `teachers` for a query of `relation` with these `tails` and the student's scores `student
    /// (entity)`. Writes the integrated scores to `scratch.combined`, and returns the query's lesson.
    pub(crate) fn integrate(
        &self,
        teachers: &QueryTeachers<'_>,
        relation: RelationId,
        tails: &[EntityId],
        student: &[f32],
        tau: f64,
        scratch: &mut Scratch,
    ) -> Lesson {
        let Scratch { single, soft, .. } = scratch;
        let scales = self.scales(relation);
        let log_sum = row::log_sum_exp(student, f32::from_f64(1.0 / tau));
        let contrasts = scales.iter().enumerate().map(|(teacher, scale)| {
            teachers.fill(teacher, *scale, tau, single);
            divergence(single, student, tau, log_sum, soft)
        });
        let logits: Vec<f64> = contrasts.map(|x| -x / self.temperature).collect();
        let attention = softmax(&logits);
        let weights: Vec<f64> = scales.iter().zip(&attention).map(|(scale, share)| scale * share).collect();
        let blend = |tau, scratch: &mut Scratch| {
            teachers.blend(weights.iter().copied().enumerate(), tau, scratch);
        };
        blend(1.0, scratch);
        let Scratch { combined, single, soft } = scratch;
        soft.copy_from_slice(combined);
        let sum = f64::from(row::exp_and_sum(soft, row::max(combined)));
        let gradient = weights.iter().zip(&scales).enumerate().map(|(teacher, (weight, scale))| {
            // Times w, the substitute for left-out scores is w (μ + w σ² / 2); its derivative is that at τ = 1 / 2w.
            teachers.fill(teacher, 1.0, 0.5 / weight, single);
            let expected = f64::from(row::dot(soft, single)) / sum;
            let excess: f64 = tails.iter().map(|tail| expected - f64::from(single[tail.index()])).sum();
            weight * (1.0 - scale / 2.0) * excess
        });
        let gradient = gradient.collect();
        if !teachers.sources.labels.is_whole() {
            blend(tau, scratch);
        }
        Lesson { relation, gradient, attention }
    }

    /// Takes one step on the `lessons` of a batch with `pairs` pairs of query and tail.
    pub(crate) fn learn(&mut self, lessons: &[Lesson], pairs: f64) {
        let parameters = &self.weight.parameters;
        let mut gradient = Matrix::<f32>::zeros(parameters.rows(), parameters.columns());
        for lesson in lessons {
            let into = gradient.row_mut(lesson.relation.index()).iter_mut();
            into.zip(&lesson.gradient).for_each(|(sum, x)| *sum += f32::from_f64(x / pairs.max(1.0)));
        }
        self.steps += 1;
        self.weight.step(rates(RATE, self.steps), |rows, into| {
            for (i, relation) in rows.enumerate() {
                into.row_mut(i).copy_from_slice(gradient.row(relation));
            }
        });
    }

    /// Each teacher's mean scale over the relations.
    pub(crate) fn mean_scales(&self) -> Vec<f64> {
        let parameters = &self.weight.parameters;
        let count = parameters.rows().max(1) as f64;
        let sum =
            |teacher| (0..parameters.rows()).map(|row| scale(&parameters.row(row)[teacher])).sum::<f64>();
        (0..parameters.columns()).map(|teacher| sum(teacher) / count).collect()
    }

    pub(crate) fn tensors(&self) -> NamedTensors<'_> {
        NamedTensors::default().matrix(WEIGHT, &self.weight.parameters)
    }

    /// Everything needed to resume training.
    pub(crate) fn state(&self) -> NamedTensors<'_> {
        let Adam { mean, square, .. } = &self.weight;
        self.tensors().matrix("mean", mean).matrix("square", square).text("steps", self.steps.to_string())
    }

    /// Restores a state saved under `prefix.`.
    pub(crate) fn restore(&mut self, reader: &TensorReader, prefix: &str) -> Result<()> {
        self.steps = reader.number(&format!("{prefix}.steps"))?;
        reader.load(&format!("{prefix}.{WEIGHT}"), &mut self.weight.parameters)?;
        reader.load(&format!("{prefix}.mean"), &mut self.weight.mean)?;
        reader.load(&format!("{prefix}.square"), &mut self.weight.square)
    }

    pub(crate) fn require_finite(&self) -> Result<()> {
        require_finite("senior weight", &self.weight.parameters)
    }
}

/// The scale `2 σ(w)`.
fn scale(weight: &f32) -> f64 {
    2.0 / (1.0 + f64::from(-weight).exp())
}

/// `KL(softmax(teacher / τ) ‖ softmax(student / τ))`; `log_sum` is the student's `ln Σ exp(z / τ)`, `soft` is a buffer.
fn divergence(teacher: &[f32], student: &[f32], tau: f64, log_sum: f64, soft: &mut [f32]) -> f64 {
    let (shift, rate) = (row::max(teacher), f32::from_f64(1.0 / tau));
    let [sum, gap] = row::soften_against(teacher, student, shift, rate, soft).map(f64::from);
    gap / sum / tau - (f64::from(shift) / tau + sum.ln()) + log_sum
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|x| (x - highest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::combine::Sources;
    use crate::fixture::{names, soft_labels};
    use dsom_soft_labels::{SoftLabels, TrainedTeacher, scored, write_part};
    use kge::Model;
    use mkg::{Entity, Relation, Triple, Vocabulary};
    use program::Progress;
    use training::Data;

    const ENTITIES: usize = 5;
    const TAU: f64 = 2.0;
    const TAILS: [EntityId; 2] = [EntityId(1), EntityId(3)];

    fn score(teacher: usize, entity: usize) -> f32 {
        (((teacher * ENTITIES + entity) * 7 + 3) % 11) as f32 / 2.0 - 2.0
    }

    fn whole() -> SoftLabels {
        soft_labels([1, 2, ENTITIES], |_, teacher, entity| score(teacher, entity))
    }

    /// The same scores in a cache that keeps the scores of the tails and of one other entity.
    fn lossy() -> SoftLabels {
        let relations = vec![Relation { key: "r".into(), name: None }];
        let vocabulary = Vocabulary { entities: vec![Entity::default(); ENTITIES], relations };
        let data = Data::new(vocabulary, &TAILS.map(|tail| Triple::new(0, 0, tail.0)), Vec::new());
        let teacher = |(teacher, modality)| {
            let table = (0..ENTITIES).flat_map(|entity| [score(teacher, entity), 0.0]).collect();
            let relation = vec![1.0 / score(teacher, 0), 0.0, 0.0, 0.0];
            let (entity, relation) =
                (Matrix::from_values(ENTITIES, 2, table), Matrix::from_values(2, 2, relation));
            TrainedTeacher { modality, model: Model::complex(entity, relation) }
        };
        let teachers: Vec<_> = names(2).into_iter().enumerate().map(teacher).collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("part.parquet");
        let progress = Progress::new("test", data.queries.len(), "queries");
        write_part(&file, &data, &scored(&teachers), 1, 0..data.queries.len(), &progress).unwrap();
        SoftLabels::map(&[file], names(2), &data).unwrap()
    }

    /// Calls `with` with the teachers of the single query.
    fn ask<R>(labels: &SoftLabels, with: impl FnOnce(&QueryTeachers<'_>) -> R) -> R {
        with(&Sources::new(labels, 1).of(0))
    }

    fn student() -> Vec<f32> {
        (0..ENTITIES).map(|i| (i as f32 * 1.3).sin()).collect()
    }

    fn senior(weights: [f32; 2]) -> Senior {
        let mut senior = Senior::new(2, 2);
        senior.weight.parameters.row_mut(1).copy_from_slice(&weights);
        senior
    }

    fn integrate(senior: &Senior, labels: &SoftLabels) -> Lesson {
        let mut scratch = Scratch::new(ENTITIES);
        ask(labels, |teachers| {
            senior.integrate(teachers, RelationId(1), &TAILS, &student(), TAU, &mut scratch)
        })
    }

    /// The cross-entropy of both tails with given weights of the teachers.
    fn loss(labels: &SoftLabels, weights: [f64; 2]) -> f64 {
        let mut scratch = Scratch::new(ENTITIES);
        ask(labels, |teachers| teachers.blend(weights.into_iter().enumerate(), 1.0, &mut scratch));
        let log_sum = row::log_sum_exp(&scratch.combined, 1.0);
        TAILS.iter().map(|tail| log_sum - f64::from(scratch.combined[tail.index()])).sum()
    }

    #[test]
    fn at_first_scales_are_one_and_attention_follows_the_divergence() {
        let mut senior = senior([0.0, 0.0]);
        assert_eq!(senior.scales(RelationId(1)), [1.0, 1.0]);
        let found = integrate(&senior, &whole());
        let softened =
            |scores: &[f32]| softmax(&scores.iter().map(|x| f64::from(*x) / TAU).collect::<Vec<_>>());
        let to = softened(&student());
        let divergence = |teacher: usize| -> f64 {
            let mut scores = vec![0.0; ENTITIES];
            ask(&whole(), |teachers| teachers.fill(teacher, 1.0, TAU, &mut scores));
            softened(&scores).iter().zip(&to).map(|(p, q)| p * (p / q).ln()).sum()
        };
        let expected = softmax(&[-divergence(0), -divergence(1)]);
        assert!((found.attention[0] - expected[0]).abs() < 1e-5, "{found:?}, expected {expected:?}");
        // In a late epoch the attention is nearly uniform.
        senior.begin_epoch(60);
        assert!((integrate(&senior, &whole()).attention[0] - 0.5).abs() < 1e-4);
    }

    #[test]
    fn the_gradient_equals_finite_differences() {
        for labels in [whole(), lossy()] {
            let weights = [0.3f32, -0.5];
            let lesson = integrate(&senior(weights), &labels);
            for m in 0..2 {
                let moved = |by: f32| {
                    let mut weights = weights;
                    weights[m] += by;
                    loss(&labels, [0, 1].map(|m| lesson.attention[m] * scale(&weights[m])))
                };
                let difference = (moved(0.05) - moved(-0.05)) / 0.1;
                assert!((difference - lesson.gradient[m]).abs() < 2e-3, "{m}: {difference}, {lesson:?}");
            }
        }
    }

    #[test]
    fn it_learns_whom_to_hear_in_a_relation() {
        let mut senior = senior([0.0, 0.0]);
        let gradient = vec![-1.0, 2.0];
        let lesson = Lesson { relation: RelationId(1), gradient, attention: vec![0.5; 2] };
        (0..20).for_each(|_| senior.learn(std::slice::from_ref(&lesson), 2.0));
        assert_eq!(senior.weight.parameters.row(0), [0.0, 0.0]);
        let found = senior.scales(RelationId(1));
        assert!(found[0] > 1.05 && found[1] < 0.95, "{found:?}");
        assert_eq!(senior.steps, 20);
    }
}
