//! The student's arithmetic: its step and the policy's network, by the hand-written engine or on a device.
//!
//! Nothing above asks which one it has. Both draw the same actions by the same random numbers, and parameters cross between
//! them by checkpoints.

mod on_device;

use dsom_soft_labels::SoftLabels;
use kge::{Initial, Model, StepLoss, Trainer};
use mkg::QuerySet;
use recipe::{Distill, Term};
use stage::{Result, resources};
use training::{Data, Engine, Place, Shapes, on_cpu, shape};

use crate::asks_validation;
use crate::inputs;
use crate::objective::Distillation;
use crate::policy::Policy;
use crate::reward::RewardedAction;
use crate::senior::Lesson;
use crate::supervision::{StudentObjective, Supervision};
use on_device::DeviceStudent;

/// A student in training, with what computes its policy.
pub(crate) trait StudentEngine {
    /// The student's model.
    fn model(&mut self) -> &mut dyn Engine;

    /// One step on the queries numbered `batch` (Eq. 4).
    ///
    /// # Errors
    /// If the loss is no longer finite, or a device fails.
    fn teach(&mut self, batch: &[u32], supervision: Supervision<'_>) -> Result<(StepLoss, Lessons)>;

    /// Has `policy` say what it thinks of a batch (Eq. 6).
    ///
    /// # Errors
    /// If a device fails.
    fn ask(&mut self, policy: &mut Policy<'_, f32>, batch: &[u32]) -> Result<()>;

    /// One REINFORCE step of `policy` on the outcomes of the batch that it was asked about last (Eq. 10); its loss.
    ///
    /// # Errors
    /// If a device fails.
    fn reinforce(&mut self, policy: &mut Policy<'_, f32>, outcomes: &[RewardedAction]) -> Result<f64>;

    /// Brings the layers of `policy` up to date.
    ///
    /// # Errors
    /// If a device fails.
    fn read_policy(&mut self, policy: &mut Policy<'_, f32>) -> Result<()>;

    /// Takes the layers of `policy`.
    ///
    /// # Errors
    /// If a device fails.
    fn write_policy(&mut self, policy: &mut Policy<'_, f32>) -> Result<()>;
}

/// Figures that a batch's rows leave behind.
#[derive(Default)]
pub(crate) struct Lessons {
    /// The distillation term, summed over pairs of query and tail, without its weight.
    pub(crate) distillation: f64,
    /// Every pair's action, where a policy waits for rewards.
    pub(crate) outcomes: Vec<RewardedAction>,
    /// The Senior's lessons, if there is one.
    pub(crate) senior: Vec<Lesson>,
}

/// A student by the hand-written engine.
pub(crate) struct CpuStudent<'a> {
    queries: &'a QuerySet,
    terms: Distillation,
    trainer: Trainer<f32>,
}

impl<'a> CpuStudent<'a> {
    /// One that starts from `trainer`, and learns by the recipe's term.
    pub(crate) fn new(data: &'a Data, term: &Term, trainer: Trainer<f32>) -> Self {
        CpuStudent { queries: &data.queries, terms: Distillation::from(term), trainer }
    }
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
            lessons.senior.extend(row.lesson);
        }
        Ok((loss, lessons))
    }

    fn ask(&mut self, policy: &mut Policy<'_, f32>, batch: &[u32]) -> Result<()> {
        policy.forward(batch);
        Ok(())
    }

    fn reinforce(&mut self, policy: &mut Policy<'_, f32>, outcomes: &[RewardedAction]) -> Result<f64> {
        Ok(policy.reinforce(outcomes))
    }

    fn read_policy(&mut self, _policy: &mut Policy<'_, f32>) -> Result<()> {
        Ok(())
    }

    fn write_policy(&mut self, _policy: &mut Policy<'_, f32>) -> Result<()> {
        Ok(())
    }
}

/// A student that starts from `initial`, taught by `labels` or, on a device, by `teachers`, whose scores are then computed anew.
///
/// # Errors
/// If a device's memory does not hold it.
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
            Box::new(CpuStudent::new(data, &recipe.term, trainer))
        }
        Place::Device(device, precision) => {
            let trainer = training::on_device(device, &initial, &recipe.training, *precision)?;
            let student = DeviceStudent::new(device, *precision, trainer, &data.queries, &recipe.term);
            Box::new(student.with_teachers(labels, teachers)?.with_policy(policy, recipe)?)
        }
    })
}

/// Tells whether teachers' scores may be computed anew.
pub(crate) fn may_recompute(place: &Place) -> bool {
    matches!(place, Place::Device(..))
}

/// Refuses a student that memory does not hold, on the host or on the device.
///
/// # Errors
/// If it does not.
pub(crate) fn require_memory(
    place: &Place,
    data: &Data,
    distill: &Distill,
    labels: Option<&SoftLabels>,
    teachers: Option<&[Model<f32>]>,
) -> Result<()> {
    let training = &distill.training;
    let queries = data.largest_batch(training.batch);
    let (shape, entities) = (shape(training), data.entities());
    let shapes = Shapes { shape, entities, features: 0, queries, batch: training.batch };
    let knob = "lower `distill.selection.hidden`, `distill.batch` or `distill.rank`, or set `distill.selection.state = \"query\"`";
    let (of_model, of_teaching) =
        (place.training_memory(shapes), of_teaching(data, distill, labels, queries));
    match place {
        Place::Cpu(_) => place.require_memory(of_model + of_teaching, "distillation", knob),
        Place::Device(..) => {
            resources::require_memory(of_teaching, "what teaches the student", knob)?;
            let on_device = on_device::memory(data, distill, labels, teachers, queries);
            place.require_memory(of_model.saturating_add(on_device), "distillation", knob)
        }
    }
}

/// Bytes of the host's memory that what teaches the student takes.
fn of_teaching(data: &Data, distill: &Distill, labels: Option<&SoftLabels>, queries: usize) -> u64 {
    let mut bytes = 0;
    if let (Some(labels), Some(policy)) = (labels, distill.selection.policy()) {
        let widths = inputs::widths(policy.state, labels);
        bytes += Policy::<f32>::memory(&widths, policy.hidden, queries);
    }
    if let (Some(labels), true) = (labels, asks_validation(distill)) {
        let queries = (2 * data.valid.len()) as u64;
        bytes += SoftLabels::memory(queries, labels.teachers().len() as u64, data.entities() as u64);
    }
    bytes
}

#[cfg(test)]
mod tests;
