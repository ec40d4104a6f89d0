//! Stage 5: the student learns from the teachers that the policy chooses.
//!
//! The student is a plain ComplEx. It minimises `CE + L_RC + γ · L_NDKD` (Eq. 4), where the policy loss `L_RC`
//! reaches only the policy's own parameters. Everything that depends on the query alone (teachers' scores, the
//! state, the student's scores) is computed once per query; cross-entropy, rewards and actions are per triple.

mod objective;
mod policy;
mod strategy;
mod student;

pub use objective::{Distillation, Pass};
pub use policy::{Outcome, Policy};
pub use strategy::{Strategy, strategies};
pub use student::Student;

use dsom_soft_labels::SoftLabels;
use kge::{N3, Trainer};
use stage::recipe::{Distill, Objective, Recipe, Selection};
use stage::task::Task;
use stage::{Common, Error, Result, resources};
use training::{Data, embeddings, fit};

/// Trains the student called `name`, unless it is fresh.
pub fn run(common: &Common, recipe: &Recipe, name: &str) -> Result<()> {
    let (run, distill) = (common.run(), &recipe.distill);
    let mut task = Task::new(&run, "dsom-distill", run.student(name), &parameters(distill), recipe.seed);
    let data = Data::open(&run, &mut task)?;
    let labels = match distill.objective {
        Objective::None => None,
        _ => Some(SoftLabels::open(&run, &mut task)?),
    };
    let teachers = labels.as_ref().map_or(0, |labels| labels.teachers().len());
    require_few(teachers)?;
    // The labels are read before the folder is claimed: a damaged cache must not cost the student that is there.
    let ready = || {
        require_memory(&data, distill, teachers)?;
        labels.map(|labels| labels.read(&data)).transpose()
    };
    let Some((work, labels)) = common.begin(task, ready)? else { return Ok(()) };

    let (embedding, relation) = embeddings(name, recipe.seed, &distill.training, &data, None);
    let training = &distill.training;
    let trainer = Trainer::new(embedding, relation, training.learning_rate, N3 { weight: training.n3 });
    let mut student = Student::new(&data, labels.as_ref(), trainer, distill, recipe.seed);
    let fitted = fit(&work, name, recipe.seed, training, &data, &mut student)?;
    work.finish(serde_json::json!(fitted))?;
    Ok(())
}

/// What the student depends on: the student alone knows nothing of teachers.
fn parameters(distill: &Distill) -> serde_json::Value {
    match distill.objective {
        Objective::None => serde_json::json!({ "objective": "none", "training": distill.training }),
        _ => serde_json::json!(distill),
    }
}

/// Strategies double with every teacher.
fn require_few(teachers: usize) -> Result<()> {
    const MOST: usize = 8;
    if teachers > MOST {
        let message = format!("{teachers} teachers have too many strategies; at most {MOST} teachers");
        return Err(Error::usage(message).hint("name those to learn from in `soft_labels.teachers`"));
    }
    Ok(())
}

fn require_memory(data: &Data, distill: &Distill, teachers: usize) -> Result<()> {
    let training = &distill.training;
    let mut bytes = Trainer::memory(
        data.entities(),
        2 * training.rank,
        training.batch,
        data.largest_batch(training.batch),
        0,
    );
    if teachers > 0 && distill.selection == Selection::Policy {
        let queries = data.largest_batch(training.batch);
        bytes += Policy::<f32>::memory(data.entities(), teachers, distill.policy_hidden, queries);
    }
    resources::require_memory(
        bytes,
        "distillation",
        "lower `distill.policy_hidden`, `distill.batch` or `distill.rank`",
    )
}
