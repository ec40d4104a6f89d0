//! The student's arithmetic: its step and the policy's network, in the hand-written engine or on a device.
//!
//! Callers need not know which engine they have. Both engines draw the same actions from the same random numbers, and
//! checkpoints carry parameters from one to the other.

mod on_device;

use device::Terms;
use dsom_soft_labels::SoftLabels;
use kge::{Initial, Model, StepLoss, Trainer};
use mkg::QuerySet;
use recipe::{Distill, PolicyState, Selection};
use stage::{Result, resources};
use training::{Data, Engine, Place, on_cpu};

use crate::inputs;
use crate::likelihood::Triples;
use crate::objective::terms;
use crate::policy::Policy;
use crate::supervision::{Lessons, RewardedAction, StudentObjective, Supervision};
use on_device::DeviceStudent;
pub(crate) use on_device::FromWhere;

/// A student in training, with the engine of its policy: by default the policy itself. Every failure of a device is an
/// error.
pub(crate) trait StudentEngine {
    fn model(&mut self) -> &mut dyn Engine;

    /// Takes one step on the queries numbered `batch` (Eq. 4); an error if the loss is no longer finite.
    fn teach(&mut self, batch: &[u32], supervision: Supervision<'_>) -> Result<(StepLoss, Lessons)>;

    /// Fills in the log-probabilities of `policy` for a batch (Eq. 6).
    fn ask(&mut self, policy: &mut Policy<'_, f32>, batch: &[u32]) -> Result<()> {
        policy.forward(&batch.iter().map(|query| *query as usize).collect::<Vec<_>>());
        Ok(())
    }

    /// Takes one REINFORCE step of `policy` on the outcomes of the last batch of `ask` (Eq. 10); returns the loss.
    fn reinforce(&mut self, policy: &mut Policy<'_, f32>, outcomes: &[RewardedAction]) -> Result<f64> {
        Ok(policy.reinforce(outcomes))
    }

    /// Brings the host's layers of `policy` up to date.
    fn read_policy(&mut self, _policy: &mut Policy<'_, f32>) -> Result<()> {
        Ok(())
    }

    /// Takes over the layers of `policy`.
    fn write_policy(&mut self, _policy: &Policy<'_, f32>) -> Result<()> {
        Ok(())
    }
}

struct CpuStudent<'a> {
    queries: &'a QuerySet,
    terms: Terms,
    trainer: Trainer<f32>,
}

impl StudentEngine for CpuStudent<'_> {
    fn model(&mut self) -> &mut dyn Engine {
        &mut self.trainer
    }

    fn teach(&mut self, batch: &[u32], supervision: Supervision<'_>) -> Result<(StepLoss, Lessons)> {
        let objective = StudentObjective { queries: self.queries, terms: self.terms, supervision };
        let (loss, rows) = self.trainer.step(self.queries, batch, &objective)?;
        let mut lessons = Lessons::default();
        for row in rows {
            lessons.distillation += row.distillation;
            lessons.outcomes.extend(row.outcomes);
            lessons.senior.extend(row.senior);
        }
        Ok((loss, lessons))
    }
}

/// The engine of a student that starts from `initial` and learns from `labels` or, on a device, from `teachers`, whose
/// scores are then computed anew.
pub(crate) fn student_engine<'a>(
    place: &Place,
    initial: Initial<f32>,
    data: &'a Data,
    recipe: &Distill,
    labels: Option<&'a SoftLabels>,
    teachers: Option<&[Model<f32>]>,
    policy: Option<&Policy<'_, f32>>,
) -> Result<Box<dyn StudentEngine + 'a>> {
    Ok(match place {
        Place::Cpu(precision) => {
            let trainer = on_cpu(initial, &recipe.training, *precision);
            Box::new(CpuStudent { queries: &data.queries, terms: terms(&recipe.term), trainer })
        }
        Place::Device(device, precision) => {
            let source = on_device::source(device, labels, teachers)?;
            Box::new(DeviceStudent::new(device, *precision, &initial, data, recipe, source, policy)?)
        }
    })
}

/// Refuses a student that does not fit in the memory of the host or of the device.
pub(crate) fn require_memory(
    place: &Place,
    data: &Data,
    distill: &Distill,
    labels: Option<&SoftLabels>,
    teachers: Option<&[Model<f32>]>,
) -> Result<()> {
    let knob = match distill.selection.policy().map(|policy| policy.state) {
        None => "lower `distill.batch` or `distill.rank`",
        Some(PolicyState::Query) => "lower `distill.selection.hidden`, `distill.batch` or `distill.rank`",
        Some(PolicyState::Scores) => {
            "set `distill.selection.state = \"query\"`, or lower `distill.batch` or `distill.rank`"
        }
    };
    let of_model = place.training_memory(&distill.training, data, 0);
    let of_teaching = labels.map_or(0, |labels| of_teaching(data, distill, labels));
    match place {
        Place::Cpu(_) => place.require_memory(of_model + of_teaching, "distillation", knob),
        Place::Device(..) => {
            resources::require_memory(of_teaching, "what teaches the student", knob)?;
            let on_device = labels.map_or(0, |labels| on_device::memory(data, distill, labels, teachers));
            place.require_memory(of_model.saturating_add(on_device), "distillation", knob)
        }
    }
}

/// Bytes of the host's memory that the teaching of the student needs.
fn of_teaching(data: &Data, distill: &Distill, labels: &SoftLabels) -> u64 {
    let mut bytes = 0;
    if let Some(policy) = distill.selection.policy() {
        let queries = data.largest_batch(distill.training.batch);
        bytes += Policy::memory(&inputs::widths(policy.state, labels), policy.hidden, queries);
    }
    // Validation triples, which are not in the soft labels.
    if distill.selection == Selection::Useful {
        bytes += Triples::memory(data, labels.teachers().len());
    }
    bytes
}

#[cfg(test)]
mod tests;
