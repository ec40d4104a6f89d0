//! Supervision of the student in a row of its scores, and the figures of a row: the reward of an action (Eq. 8), and
//! its advantage over the baseline (the `δ` of Eqs. 9 and 10).

use device::Terms;
use kge::Objective;
use mkg::{EntityId, QuerySet};
use recipe::PolicyKeys;

use crate::combine::{QueryTeachers, Scratch, Sources};
use crate::objective::{Pass, RowBuffers};
use crate::senior::{Lesson, Senior};
use crate::strategy::{Strategy, by_strategy};

/// The teachers of the student, besides the triples.
#[derive(Clone, Copy)]
pub(crate) enum Supervision<'a> {
    /// No teachers: the student learns from the triples alone.
    Alone,
    /// The teachers of each query's actions: one action for all its tails, or one for each tail.
    Strategies {
        teachers: &'a Sources<'a>,
        actions: &'a [Vec<Strategy>],
        /// The rewards' values, if a policy needs rewards.
        reward: Option<&'a PolicyKeys>,
    },
    /// All teachers, integrated by MulDE's Senior.
    Senior { teachers: &'a Sources<'a>, senior: &'a Senior },
}

/// Turns rows of the student's scores into the gradient of `CE + γ · L_NDKD` (Eq. 4), or of another term.
pub(crate) struct StudentObjective<'a> {
    pub(crate) queries: &'a QuerySet,
    pub(crate) terms: Terms,
    pub(crate) supervision: Supervision<'a>,
}

/// The figures of a row, or of all rows of a batch.
#[derive(Default)]
pub(crate) struct Lessons {
    /// The distillation term, summed over pairs of query and tail, without its weight.
    pub(crate) distillation: f64,
    /// The rewarded action of every pair, if a policy needs rewards.
    pub(crate) outcomes: Vec<RewardedAction>,
    /// The lessons of the Senior, if there is one.
    pub(crate) senior: Vec<Lesson>,
}

impl Objective<f32> for StudentObjective<'_> {
    type Row = Lessons;
    type Scratch = (RowBuffers<f32>, Scratch);

    fn scratch(&self, entities: usize) -> Self::Scratch {
        (RowBuffers::new(entities), Scratch::new(entities))
    }

    fn gradient(
        &self,
        row: usize,
        query: usize,
        scores: &mut [f32],
        scale: f32,
        (buffers, rows): &mut Self::Scratch,
    ) -> (f64, Lessons) {
        let (scale, tails, tau) = (f64::from(scale), self.queries.tails(query), self.terms.tau);
        let mut lessons = Lessons::default();
        let cross_entropy = match self.supervision {
            Supervision::Alone => Pass::new(scores, tails, self.terms, buffers).finish(scale),
            Supervision::Strategies { teachers, actions, reward } => {
                let (teachers, actions) = (teachers.of(query), &actions[row]);
                let mut pass = Pass::new(scores, tails, self.terms, buffers);
                if let Some(keys) = reward {
                    lessons.outcomes = rewards(&teachers, row, actions, tails, keys, &pass, rows);
                }
                for (strategy, positions) in by_strategy(actions, tails.len()) {
                    teachers.combine(strategy, tau, rows);
                    lessons.distillation += pass.distil(&mut rows.combined, &positions, scale);
                }
                pass.finish(scale)
            }
            Supervision::Senior { teachers, senior } => {
                let relation = self.queries.query(query).relation;
                // The Senior needs the scores before the pass removes the tails.
                let lesson = senior.integrate(&teachers.of(query), relation, tails, scores, tau, rows);
                lessons.senior = vec![lesson];
                let mut pass = Pass::new(scores, tails, self.terms, buffers);
                let everything: Vec<usize> = (0..tails.len()).collect();
                lessons.distillation = pass.distil(&mut rows.combined, &everything, scale);
                pass.finish(scale)
            }
        };
        (cross_entropy + self.terms.weight * lessons.distillation, lessons)
    }
}

/// The reward of a combination of teachers for a target: better means lower cross-entropy than the student's (Eq. 8).
pub(crate) fn reward(keys: &PolicyKeys, is_better: bool) -> f64 {
    if is_better { keys.reward } else { keys.penalty }
}

/// One sampled action with its reward.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RewardedAction {
    /// The row of the batch for which the action was sampled.
    pub(crate) row: usize,
    pub(crate) strategy: Strategy,
    /// The action's reward `R`.
    pub(crate) reward: f64,
    /// The baseline `R̂`: the reward of averaging all teachers.
    pub(crate) baseline: f64,
}

impl RewardedAction {
    /// The advantage `δ = R - R̂` of Eq. 10, which multiplies the gradient of Eq. 9.
    pub(crate) fn advantage(&self) -> f64 {
        self.reward - self.baseline
    }
}

/// The reward of each tail's action, and of the baseline, which is all teachers together.
fn rewards(
    teachers: &QueryTeachers<'_>,
    row: usize,
    actions: &[Strategy],
    tails: &[EntityId],
    keys: &PolicyKeys,
    student: &Pass<'_, f32>,
    scratch: &mut Scratch,
) -> Vec<RewardedAction> {
    let all = Strategy::all(teachers.count());
    let mut outcomes = Vec::with_capacity(tails.len());
    for (i, (tail, &strategy)) in tails.iter().zip(actions.iter().cycle()).enumerate() {
        let of_student = student.cross_entropy(i);
        let [reward, baseline] = [strategy, all]
            .map(|strategy| reward(keys, teachers.cross_entropy(strategy, *tail, scratch) < of_student));
        outcomes.push(RewardedAction { row, strategy, reward, baseline });
    }
    outcomes
}

#[cfg(test)]
mod tests;
