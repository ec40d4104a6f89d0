//! The teachers as a student's recipe combines them, without the student: an ensemble.

use dsom_soft_labels::SoftLabels;
use kge::checkpoint::Reader;
use kge::{Matrix, Model, Scorer, row};
use mkg::{Query, QuerySet, Vocabulary};
use rayon::prelude::*;
use recipe::{Calibrate, Distill, Selection};
use stage::manifest::{self, Manifest};
use stage::task::Task;
use stage::{Error, Modality, Result, Run, seed};
use std::ops::Deref;

use crate::calibrate::{Scales, Usefulness};
use crate::inputs::{Asked, Facts, inputs};
use crate::learn::favourites;
use crate::policy::{Input, Policy};
use crate::strategy::{Strategy, strategies};
use crate::student::{CALIBRATION, POLICY, SCALE, TEACHERS, USEFUL};
use crate::worth::{self, Said};

/// For every query the mean of the teachers that a student would listen to, with their scales. The teachers' models are
/// with whoever asks: they are models of their own right.
pub struct Ensemble {
    teachers: Vec<Modality>,
    scales: Option<Scales>,
    choice: Choice,
}

/// Whom it listens to.
enum Choice {
    Always(Strategy),
    /// The teacher whose first entity has the highest probability.
    Conf,
    /// What a policy holds best.
    Policy {
        recipe: Box<Distill>,
        facts: Facts,
        parameters: Vec<Matrix<f32>>,
    },
}

impl Ensemble {
    /// The teachers of the student called `name`.
    ///
    /// # Errors
    /// If it had none.
    pub fn teachers(run: &Run, name: &str) -> Result<Vec<Modality>> {
        Ok(read(run, name)?.1)
    }

    /// Reads what the student called `name` chooses by, and records it as inputs of `task`. `models` are those of
    /// [`Ensemble::teachers`]; `train`, the training queries, is looked at only where a policy needs it.
    ///
    /// # Errors
    /// If it had no teachers, or its choice is left to chance or needs the answers.
    pub fn open(
        run: &Run,
        task: &mut Task,
        name: &str,
        models: &[&Model<f32>],
        vocabulary: &Vocabulary,
        train: &impl Deref<Target = QuerySet>,
    ) -> Result<Ensemble> {
        let (folder, (recipe, teachers, manifest)) = (run.student(name), read(run, name)?);
        let relations = 2 * vocabulary.relations.len();
        let scales = match recipe.calibrate {
            Calibrate::None => None,
            _ => Some(Scales::read(&Reader::open(&task.stage_input(&folder, CALIBRATION)?)?, SCALE)?),
        };
        let choice = match &recipe.selection {
            Selection::All => Choice::Always(Strategy::all(teachers.len())),
            Selection::Fixed(modalities) => Choice::Always(Strategy::named(modalities, &teachers)?),
            Selection::Useful => {
                let Usefulness { chosen, .. } = manifest.summary_field(&folder, USEFUL)?;
                let modalities = chosen.split('+').map(str::parse).collect::<Result<Vec<Modality>>>()?;
                Choice::Always(Strategy::named(&modalities, &teachers)?)
            }
            Selection::Conf => Choice::Conf,
            Selection::Policy => {
                let facts = Facts::new(train, vocabulary.entities.len(), relations);
                let reader = Reader::open(&task.stage_input(&folder, POLICY)?)?;
                let parameters = parameters(&recipe, &facts, &teachers, models, &reader)?;
                Choice::Policy { recipe: Box::new(recipe), facts, parameters }
            }
            Selection::Random | Selection::BestTeacher | Selection::BestStrategy | Selection::Mulde => {
                let selection = &recipe.selection;
                let message =
                    format!("student `{name}` chooses by `{selection}`: there is no such choice here");
                let hint =
                    "`random` is no model, `best-…` needs the answers, and `mulde` attends to its student";
                return Err(Error::usage(message).hint(hint));
            }
        };
        Ok(Ensemble { teachers, scales, choice })
    }

    /// What scores with the teachers' `models`, in their order.
    pub fn of<'a>(&'a self, models: Vec<&'a Model<f32>>) -> impl Scorer + 'a {
        Combined { ensemble: self, models }
    }

    /// Whom it listens to, for each query.
    fn choose(&self, models: &[&Model<f32>], queries: &[Query]) -> Result<Vec<Strategy>> {
        let asked = || SoftLabels::of_models(self.teachers.clone(), models, queries);
        match &self.choice {
            Choice::Always(strategy) => Ok(vec![*strategy; queries.len()]),
            Choice::Conf => {
                let singles = Strategy::singles(self.teachers.len());
                let confidence = |_: usize, scores: &mut [f32]| worth::confidence(scores);
                let (labels, scales) = (asked()?, self.scales.as_ref());
                let said = Said { queries, labels: &labels, scales, beside: None };
                let table = worth::table(said, &singles, confidence)?;
                Ok(worth::best(&table, &singles))
            }
            Choice::Policy { recipe, facts, parameters } => {
                let labels = asked()?;
                let inputs = read_inputs(recipe, facts, queries, &labels);
                let mut policy = Policy::of(inputs, parameters.clone());
                Ok(favourites(&mut policy, &(0..queries.len() as u32).collect::<Vec<_>>()))
            }
        }
    }
}

/// A student's recipe, its teachers, and the manifest that has both.
fn read(run: &Run, name: &str) -> Result<(Distill, Vec<Modality>, Manifest)> {
    let folder = run.student(name);
    let manifest = Manifest::read(&folder)?;
    if manifest.parameters["objective"] == "none" {
        return Err(Error::usage(format!(
            "student `{name}` learned alone: there are no teachers to combine"
        )));
    }
    let recipe = serde_json::from_value(manifest.parameters.clone()).map_err(|e| {
        let error = Error::data("the student's parameters are not readable").at(folder.join(manifest::FILE));
        error.hint("rerun `dsom-distill` with --force").because(e)
    })?;
    let teachers = manifest.summary_field(&folder, TEACHERS)?;
    Ok((recipe, teachers, manifest))
}

/// Inputs that read scores: here nothing is asked twice.
fn read_inputs<'a>(
    recipe: &Distill,
    facts: &Facts,
    queries: &'a [Query],
    labels: &'a SoftLabels,
) -> Vec<Input<'a, f32>> {
    let none = labels.teachers().iter().map(|_| None).collect();
    inputs(recipe, facts, Asked { queries, labels }, none)
}

/// The network's parameters, from its file.
fn parameters(
    recipe: &Distill,
    facts: &Facts,
    teachers: &[Modality],
    models: &[&Model<f32>],
    reader: &Reader,
) -> Result<Vec<Matrix<f32>>> {
    // Any query tells the inputs' names and widths.
    let query = [Query { head: mkg::EntityId(0), relation: mkg::RelationId(0) }];
    let labels = SoftLabels::of_models(teachers.to_vec(), models, &query)?;
    let inputs = read_inputs(recipe, facts, &query, &labels);
    let mut generator = seed::generator(0, "policy/initial", 0);
    let mut policy =
        Policy::new(inputs, recipe.policy_hidden, strategies(teachers.len()), 0.0, &mut generator);
    policy.load(reader)?;
    Ok(policy.parameters())
}

/// An ensemble with its teachers' models.
struct Combined<'a> {
    ensemble: &'a Ensemble,
    models: Vec<&'a Model<f32>>,
}

impl Scorer for Combined<'_> {
    fn entities(&self) -> usize {
        self.models.first().map_or(0, |model| model.entity.rows())
    }

    /// Scores that are not finite if the policy cannot be asked, since scores of teachers do not fit half precision.
    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) {
        let entities = self.entities();
        into.resize(queries.len(), entities);
        into.clear();
        let Ok(chosen) = self.ensemble.choose(&self.models, queries) else {
            return into.values_mut().fill(f32::NAN);
        };
        let (mut scores, scales) = (Matrix::zeros(0, 0), &self.ensemble.scales);
        for (teacher, model) in self.models.iter().enumerate() {
            model.scores(queries, &mut scores);
            let rows = into.values_mut().par_chunks_mut(entities).zip(scores.values().par_chunks(entities));
            rows.zip(queries).zip(&chosen).for_each(|(((into, scores), query), strategy)| {
                if strategy.has(teacher) {
                    let scale = scales.as_ref().map_or(1.0, |scales| scales.of(query.relation)[teacher]);
                    row::add_scaled(into, scale / strategy.size() as f32, scores);
                }
            });
        }
    }
}
