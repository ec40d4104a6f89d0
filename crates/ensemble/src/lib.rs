//! Beside stage 5: the teachers together, without a student.
//!
//! An ensemble gives each teacher of a query a weight, and scores by the sum:
//!
//! ```text
//! F(h, r) = Σ_m w_m(h, r) F^m(h, r)
//! ```
//!
//! The weights are all alike ("Teacher Avg." of Table 4), those of a relation by likelihood (module `likely`; "ML on val.") or
//! by MoSE's boosting (module `boosting`), or the mean of the teachers that a policy chooses for the query (module `choice`;
//! "RC on val."). What is learned is learned on the validation triples, which no teacher has seen.

mod boosting;
mod choice;
pub mod command;
mod holdout;
mod likely;
mod weights;

pub use weights::{FILE, TeacherWeights, WeightedTeachers};

use dsom_distill::likelihood::Triples;
use dsom_distill::require_few;
use dsom_soft_labels::{SoftLabels, TrainedTeacher, open_teachers};
use kge::Model;
use mkg::QuerySet;
use program::Common;
use recipe::{Ensemble, Recipe};
use serde_json::{Value, json};
use stage::task::Task;
use stage::{Modality, Result, resources};
use training::Data;

use holdout::Holdout;
use likely::WeightGain;

/// Makes the ensemble called `name`, unless it is fresh.
pub fn run(common: &Common, recipe: &Recipe, name: &str) -> Result<()> {
    let run = common.run();
    let mut task = Task::new(&run, "dsom-ensemble", run.ensemble(name), &recipe.ensemble, recipe.seed);
    let data = Data::open(&run, &mut task)?;
    let teachers = open_teachers(&run, recipe, &mut task, &data.vocabulary)?;
    require_few(teachers.len())?;
    let Some((work, ())) = common.begin(task, || require_memory(&data, teachers.len()))? else {
        return Ok(());
    };
    let names: Vec<Modality> = teachers.iter().map(|teacher| teacher.modality.clone()).collect();
    let (weights, mut summary) = learn(&recipe.ensemble, &data, &teachers, &names, recipe.seed)?;
    weights.tensors(&names).write(&work.path(FILE))?;
    summary["teachers"] = json!(names);
    work.finish(summary)?;
    Ok(())
}

/// Refuses scores of validation queries that memory does not hold.
fn require_memory(data: &Data, teachers: usize) -> Result<()> {
    let (queries, entities) = (2 * data.valid.len() as u64, data.entities() as u64);
    let bytes = SoftLabels::memory(queries, teachers as u64, entities);
    let what = "the teachers' scores of validation queries";
    resources::require_memory(bytes, what, "name fewer `soft_labels.teachers`")
}

/// The weights, and how they did on queries that they were not learned from.
fn learn(
    ensemble: &Ensemble,
    data: &Data,
    teachers: &[TrainedTeacher],
    names: &[Modality],
    seed: u64,
) -> Result<(TeacherWeights, Value)> {
    let relations = 2 * data.relations();
    if *ensemble == Ensemble::Average {
        return Ok((TeacherWeights::even(relations, teachers.len()), json!({})));
    }
    let queries = QuerySet::new(&data.valid, data.relations());
    let models: Vec<&Model<f32>> = teachers.iter().map(|teacher| &teacher.model).collect();
    let labels = SoftLabels::of_models(names.to_vec(), &models, queries.queries())?;
    let triples = Triples { queries: &queries, labels: &labels, known: &data.known };
    if let Ensemble::Policy(keys) = ensemble {
        let (weights, learned) = choice::learn(&triples, keys, relations, seed)?;
        return Ok((weights, json!({ "policy": learned })));
    }
    let holdout = Holdout::fifth(queries.len(), seed);
    let weights = match ensemble {
        Ensemble::Boosting => boosting::learn(&triples, relations, &holdout.rest)?,
        _ => likely::learn(&triples, relations, &holdout)?,
    };
    let gain = WeightGain::new(&triples, &weights, &holdout.held_out)?;
    Ok((TeacherWeights::ByRelation(weights), json!({ "weights": gain })))
}
