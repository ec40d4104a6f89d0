//! Beside stage 5: combining the teachers without a student.
//!
//! An ensemble gives each teacher a weight for each query, and its score is the sum:
//!
//! ```text
//! F(h, r) = Σ_m w_m(h, r) F^m(h, r)
//! ```
//!
//! The weights are equal ("Teacher Avg." of Table 4), by relation from likelihood (module `likely`; "ML on val.") or
//! MoSE's boosting (module `boosting`), or equal for the teachers that a policy chooses for the query (module `choice`;
//! "RC on val."). Weights and policies learn from the validation triples, which no teacher has seen.

mod boosting;
mod choice;
pub mod command;
mod likely;
mod weights;

pub use weights::{FILE, TeacherWeights, WeightedTeachers};

use dsom_distill::likelihood::Triples;
use dsom_distill::require_few;
use dsom_soft_labels::{TrainedTeacher, open_teachers};
use kge::Model;
use program::Common;
use rand::seq::SliceRandom;
use recipe::{Ensemble, Recipe};
use serde_json::{Value, json};
use stage::task::Task;
use stage::{Modality, Result, resources, seed};
use training::Data;

use likely::WeightGain;

/// Makes the ensemble called `name`, unless it is fresh.
fn run(common: &Common, recipe: &Recipe, name: &str) -> Result<()> {
    let run = common.run();
    let mut task = Task::new(&run, "dsom-ensemble", run.ensemble(name), &recipe.ensemble, recipe.seed);
    let data = Data::open(&run, &mut task)?;
    let teachers = open_teachers(&run, recipe, &mut task, &data.vocabulary)?;
    require_few(teachers.len())?;
    let ready = || {
        if recipe.ensemble == Ensemble::Average {
            return Ok(());
        }
        let (bytes, knob) = (Triples::memory(&data, teachers.len()), "name fewer `soft_labels.teachers`");
        resources::require_memory(bytes, "the teachers' scores of validation queries", knob)
    };
    let Some((work, ())) = common.begin(task, ready)? else { return Ok(()) };
    let names: Vec<Modality> = teachers.iter().map(|teacher| teacher.modality.clone()).collect();
    let (weights, mut summary) = learn(&recipe.ensemble, &data, &teachers, &names, recipe.seed)?;
    weights.tensors(&names).write(&work.path(FILE))?;
    summary["teachers"] = json!(names);
    work.finish(summary)
}

/// Learns the weights, and measures them on queries that they were not learned from.
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
    let models: Vec<&Model<f32>> = teachers.iter().map(|teacher| &teacher.model).collect();
    let triples = Triples::of_validation(data, names, &models)?;
    if let Ensemble::Policy(keys) = ensemble {
        let (weights, learned) = choice::learn(&triples, keys, relations, seed)?;
        return Ok((weights, json!({ "policy": learned })));
    }
    let holdout = Holdout::fifth(triples.queries.len(), seed);
    let weights = match ensemble {
        Ensemble::Boosting => boosting::learn(&triples, relations, &holdout.rest)?,
        _ => likely::learn(&triples, relations, &holdout)?,
    };
    let gain = WeightGain::new(&triples, &weights, &holdout.held_out)?;
    Ok((TeacherWeights::ByRelation(weights), json!({ "weights": gain })))
}

/// Queries to learn from, and queries that are held out.
pub(crate) struct Holdout {
    pub(crate) held_out: Vec<usize>,
    pub(crate) rest: Vec<usize>,
}

impl Holdout {
    /// Holds out a random fifth of `queries` queries.
    pub(crate) fn fifth(queries: usize, seed: u64) -> Holdout {
        let mut rest = shuffled(queries, seed);
        let held_out = rest.split_off(queries - (queries / 5).max(1));
        Holdout { held_out, rest }
    }

    /// Draws folds: each query is held out once. There are at most as many folds as queries.
    pub(crate) fn folds(queries: usize, folds: usize, seed: u64) -> impl Iterator<Item = Holdout> {
        let order = shuffled(queries, seed);
        let folds = folds.min(queries);
        (0..folds).map(move |fold| {
            let [from, to] = [fold, fold + 1].map(|fold| fold * queries / folds);
            let rest = [&order[..from], &order[to..]].concat();
            Holdout { held_out: order[from..to].to_vec(), rest }
        })
    }
}

fn shuffled(queries: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..queries).collect();
    order.shuffle(&mut seed::generator(seed, "ensemble/held-out", 0));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_held_out_once() {
        for (queries, folds) in [(10, 5), (11, 3), (2, 5)] {
            let mut held_out = Vec::new();
            for fold in Holdout::folds(queries, folds, 7) {
                assert_eq!(fold.held_out.len() + fold.rest.len(), queries);
                assert!(!fold.rest.is_empty() && fold.held_out.iter().all(|held| !fold.rest.contains(held)));
                held_out.extend(fold.held_out);
            }
            held_out.sort_unstable();
            assert_eq!(held_out, (0..queries).collect::<Vec<_>>());
        }
        let Holdout { held_out, rest } = Holdout::fifth(11, 7);
        assert_eq!((held_out.len(), rest.len()), (2, 9));
    }
}
