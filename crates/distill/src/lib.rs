//! Stage 5: the student learns from the teachers that the policy chooses.
//!
//! The student is a plain model of any backbone. It minimises `CE + L_RC + γ · L_NDKD` (Eq. 4), where the policy loss
//! `L_RC` reaches only the policy's own parameters. Everything that depends only on the query (teachers' scores, the
//! state, the student's scores) is computed once per query; cross-entropy, rewards and actions are per triple. By
//! default the policy's state is the query vectors, not Eq. 5, which is a linear image of them (module `inputs`).
//!
//! | equation | | where | test |
//! |---|---|---|---|
//! | 1, 3 | cross-entropy | `kge::CrossEntropy`, the student's in `Pass::cross_entropy` | `kge::train`; `reference`: losses and gradients |
//! | 2 | KD | `objective`: `Pass::plain` | the same, and golden values |
//! | 4 | the student's loss | `supervision`: `StudentObjective::gradient` | `reference`: a row with its rewards |
//! | 5 | state | `inputs`: `TeacherScores` | `inputs`: scores are standardised |
//! | 6 | policy | [`policy::Policy::forward`], `Policy::sample` | `reference`: the policy and its loss; golden values |
//! | 7 | combination | [`combine::QueryTeachers::combine`] | `reference`: a row with its rewards; golden values |
//! | 8 | reward | `supervision`: `reward` | `reference`: a row with its rewards; golden values |
//! | 9 | policy gradient | `policy`: `Policy::of_logits`, `Policy::step` | golden values |
//! | 10 | policy loss | `policy`: `Policy::reinforce` | `reference`: the policy and its loss; golden values |
//! | 11 | softened probabilities | `objective`: `SoftenedSide`, in `Pass::new` | `reference`: losses and gradients |
//! | 12 | DKD, NDKD and its parts | `objective`: `Pass::by_target`, `Pass::by_neighbours` | the same, and golden values |
//!
//! Golden values are in `tests/golden`; `reference` has the paper's equations, unchanged, in double precision.

pub mod adam;
mod choices;
pub mod combine;
pub mod command;
mod engine;
#[cfg(test)]
mod fixture;
mod inputs;
pub mod likelihood;
mod objective;
pub mod policy;
#[cfg(test)]
mod reference;
mod senior;
mod strategy;
mod student;
mod supervision;
mod teaching;
mod useful;
pub mod worth;

pub use strategy::{Strategy, strategies};
pub use student::Student;
pub use teaching::Teaching;

use dsom_soft_labels::SoftLabels;
use program::Common;
use recipe::{Distill, PolicyKeys, PolicyState, Recipe, Selection, Term};
use serde_json::{Value, json};
use stage::task::Task;
use stage::{Error, Result};
use training::{Data, Place, fit, initial, open_model};

use engine::{FromWhere, require_memory};

/// Trains the student called `name`, unless it is already fresh.
fn run(common: &Common, recipe: &Recipe, name: &str, soft_labels: FromWhere) -> Result<()> {
    let (run, distill) = (common.run(), &recipe.distill);
    let mut task = Task::new(&run, "dsom-distill", run.student(name), &parameters(distill), recipe.seed);
    let data = Data::open(&run, &mut task)?;
    let (mut labels, mut models) = (None, Vec::new());
    if distill.term != Term::None {
        let (files, names) = SoftLabels::find(&run, &mut task)?;
        require_few(names.len())?;
        if let Selection::Fixed { teachers } = &distill.selection {
            Strategy::named(teachers, &names)?;
        }
        let needs_models = matches!(
            distill.selection,
            Selection::Useful | Selection::Policy(PolicyKeys { state: PolicyState::Scores, .. })
        );
        if needs_models {
            for modality in &names {
                models.push(open_model(&mut task, &run.teacher(modality), &data.vocabulary)?);
            }
        }
        labels = Some((files, names));
    }
    // The labels are read before the folder is claimed: a damaged cache must not destroy the existing student.
    let ready = || {
        let labels = labels.map(|(files, names)| SoftLabels::map(&files, names, &data)).transpose()?;
        let place = Place::choose(common.device(), distill.training.precision)?;
        let teachers = match (&place, &labels) {
            (Place::Device(..), Some(labels)) => soft_labels.teachers(&run, &data, labels)?,
            _ => None,
        };
        require_memory(&place, &data, distill, labels.as_ref(), teachers.as_deref())?;
        Ok((labels, place, teachers))
    };
    let Some((work, (labels, place, teachers))) = common.begin(task, ready)? else { return Ok(()) };

    let (training, seed, labels) = (&distill.training, recipe.seed, labels.as_ref());
    let teaching = labels.map(|labels| Teaching::new(&data, labels, models, distill, seed)).transpose()?;
    let initial = initial(name, seed, training, &data, None);
    let mut student = Student::new(&place, initial, &data, teaching, teachers.as_deref(), distill)?;
    let mut summary = json!(fit(&work, name, seed, training, &data, &mut student)?);
    student.write_choices(&work)?;
    summary["products"] = place.products().into();
    if let Some(teaching) = &student.teaching {
        summary["teachers"] = json!(teaching.teachers());
        if let Some(senior) = &teaching.senior {
            summary["senior"] = teaching.by_teacher(senior.mean_scales());
        }
        if let Some(usefulness) = &teaching.usefulness {
            summary["useful"] = json!(usefulness);
        }
    }
    work.finish(summary)
}

/// The parameters that the student depends on; a student that learns alone does not depend on the selection.
fn parameters(distill: &Distill) -> Value {
    let Distill { training, term, selection } = distill;
    let selection = (*term != Term::None).then_some(selection);
    json!({ "training": training, "term": term, "selection": selection })
}

/// Refuses too many teachers: each teacher doubles the number of strategies.
pub fn require_few(teachers: usize) -> Result<()> {
    const MOST: usize = 8;
    if teachers > MOST {
        let message = format!("{teachers} teachers have too many strategies; at most {MOST} teachers");
        return Err(Error::usage(message).hint("name those to learn from in `soft_labels.teachers`"));
    }
    Ok(())
}
