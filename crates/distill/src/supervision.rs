//! Supervision of the student in a row of its scores, and the figures that a row leaves behind.

use kge::Objective;
use mkg::{EntityId, QuerySet};

use crate::combine::{QueryTeachers, Scratch, Sources};
use crate::objective::{Distillation, Pass, RowBuffers};
use crate::reward::{Reward, RewardedAction};
use crate::senior::{Lesson, Senior};
use crate::strategy::{Strategy, by_strategy};

/// Supervision of the student beside the triples.
#[derive(Clone, Copy)]
pub(crate) enum Supervision<'a> {
    /// None: the triples alone.
    Alone,
    /// The teachers of each query's actions: one for all its tails, or one for each.
    Strategies {
        teachers: Sources<'a>,
        actions: &'a [Vec<Strategy>],
        /// Rewards, if a policy waits for them.
        reward: Option<Reward>,
    },
    /// All teachers, as MulDE's Senior integrates them.
    Senior { teachers: Sources<'a>, senior: &'a Senior },
}

/// Turns rows of the student's scores into the gradient of `CE + γ · L_NDKD` (Eq. 4; whatever the term is).
pub(crate) struct StudentObjective<'a> {
    pub(crate) queries: &'a QuerySet,
    pub(crate) terms: Distillation,
    pub(crate) supervision: Supervision<'a>,
}

/// One thread's rows.
pub(crate) struct RowScratch {
    buffers: RowBuffers<f32>,
    teachers: Scratch,
}

/// Figures that a row leaves behind.
#[derive(Default)]
pub(crate) struct RowLessons {
    /// The distillation term, summed over the tails, without its weight.
    pub(crate) distillation: f64,
    /// Every tail's action, where a policy waits for rewards.
    pub(crate) outcomes: Vec<RewardedAction>,
    /// The Senior's lesson, if there is one.
    pub(crate) lesson: Option<Lesson>,
}

impl Objective<f32> for StudentObjective<'_> {
    type Row = RowLessons;
    type Scratch = RowScratch;

    fn scratch(&self, entities: usize) -> RowScratch {
        RowScratch { buffers: RowBuffers::new(entities), teachers: Scratch::new(entities) }
    }

    fn gradient(
        &self,
        position: usize,
        query: usize,
        scores: &mut [f32],
        scale: f32,
        scratch: &mut RowScratch,
    ) -> (f64, RowLessons) {
        let RowScratch { buffers, teachers: rows } = scratch;
        let (scale, tails) = (f64::from(scale), self.queries.tails(query));
        let (row, cross_entropy) = match self.supervision {
            Supervision::Alone => {
                (RowLessons::default(), Pass::new(scores, tails, self.terms, buffers).finish(scale))
            }
            Supervision::Strategies { teachers, actions, reward } => {
                let (teachers, actions) = (teachers.of(query), &actions[position]);
                let mut pass = Pass::new(scores, tails, self.terms, buffers);
                let outcomes =
                    reward.map(|reward| rewards(&teachers, position, actions, tails, reward, &pass, rows));
                let mut distillation = 0.0;
                for (strategy, positions) in by_strategy(actions, tails.len()) {
                    teachers.combine(strategy, self.terms.tau, rows);
                    distillation += pass.distil(&mut rows.combined, &positions, scale);
                }
                let row = RowLessons { distillation, outcomes: outcomes.unwrap_or_default(), lesson: None };
                (row, pass.finish(scale))
            }
            Supervision::Senior { teachers, senior } => {
                let (teachers, relation) = (teachers.of(query), self.queries.query(query).relation);
                // Before the pass takes the tails out of the scores.
                let integration = senior.integrate(&teachers, relation, scores, self.terms.tau, rows);
                let mut pass = Pass::new(scores, tails, self.terms, buffers);
                teachers.blend(integration.weights().into_iter().enumerate(), self.terms.tau, rows);
                let lesson = senior.lesson(&teachers, relation, &integration, tails, rows);
                let everything: Vec<usize> = (0..tails.len()).collect();
                let distillation = pass.distil(&mut rows.combined, &everything, scale);
                (RowLessons { distillation, outcomes: Vec::new(), lesson: Some(lesson) }, pass.finish(scale))
            }
        };
        (cross_entropy + self.terms.weight * row.distillation, row)
    }
}

/// The reward of each tail's action and of the baseline, all teachers together.
fn rewards(
    teachers: &QueryTeachers<'_>,
    row: usize,
    actions: &[Strategy],
    tails: &[EntityId],
    reward: Reward,
    student: &Pass<'_, f32>,
    scratch: &mut Scratch,
) -> Vec<RewardedAction> {
    let all = Strategy::all(teachers.count());
    let mut of = |strategy: Strategy, i: usize| {
        reward.of(teachers.cross_entropy(strategy, tails[i], scratch), student.cross_entropy(i))
    };
    let outcome = |i: usize| {
        let strategy = actions[i % actions.len()];
        RewardedAction { row, strategy, reward: of(strategy, i), baseline: of(all, i) }
    };
    (0..tails.len()).map(outcome).collect()
}

#[cfg(test)]
mod tests;
