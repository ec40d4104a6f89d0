//! The selector of a query's teachers: a policy, a rule, chance, or nobody.

use dsom_soft_labels::SoftLabels;
use kge::Model;
use recipe::{Distill, PolicyKeys, Selection};
use stage::{Result, seed};
use training::Data;

use crate::combine::{LogSums, Sources};
use crate::inputs::inputs;
use crate::policy::Policy;
use crate::senior::Senior;
use crate::strategy::{Strategy, strategies};
use crate::useful::{Usefulness, useful};
use crate::worth::{best, confidence, log_probability};

/// The selector of a query's teachers.
pub(crate) enum Chooser<'a> {
    /// A policy, which samples and learns from the reward.
    Policy(Box<Policy<'a, f32>>),
    /// A rule, which has chosen for every training query.
    Rule(Vec<Strategy>),
    /// Chance.
    Chance,
    /// Nobody: MulDE's Senior integrates all teachers.
    Senior(Senior),
}

impl<'a> Chooser<'a> {
    /// Decides what can be decided beforehand, and says how useful teachers are where that decides. `models` are the
    /// teachers', as far as they are needed: see [`crate::Teaching::new`].
    pub(crate) fn new(
        data: &Data,
        labels: &'a SoftLabels,
        log_sums: &LogSums,
        models: Vec<Model<f32>>,
        recipe: &Distill,
        seed: u64,
    ) -> Result<(Self, Option<Usefulness>)> {
        let (queries, teachers, sources) = (&data.queries, labels.teachers(), Sources { labels, log_sums });
        let always = |strategy| Chooser::Rule(vec![strategy; queries.len()]);
        let (singles, every) = (Strategy::singles(teachers.len()), Strategy::every(teachers.len()));
        let chooser = match &recipe.selection {
            Selection::Policy(keys) => {
                Chooser::Policy(Box::new(policy(data, labels, models, keys, recipe.training.batch, seed)))
            }
            Selection::All => always(Strategy::all(teachers.len())),
            Selection::Fixed { teachers: named } => always(Strategy::named(named, teachers)?),
            Selection::Useful => {
                let (strategy, usefulness) = useful(data, teachers, &models)?;
                return Ok((always(strategy), Some(usefulness)));
            }
            Selection::Random { .. } => Chooser::Chance,
            Selection::Conf => Chooser::Rule(best(sources, queries, &singles, confidence)?),
            Selection::BestTeacher => Chooser::Rule(best(sources, queries, &singles, log_probability)?),
            Selection::BestStrategy => Chooser::Rule(best(sources, queries, &every, log_probability)?),
            Selection::Mulde => Chooser::Senior(Senior::new(2 * data.relations(), teachers.len())),
        };
        Ok((chooser, None))
    }

    /// The policy, if one chooses.
    pub(crate) fn policy(&self) -> Option<&Policy<'a, f32>> {
        match self {
            Chooser::Policy(policy) => Some(policy),
            _ => None,
        }
    }

    /// The policy, if one chooses, to be asked, taught or restored.
    pub(crate) fn policy_mut(&mut self) -> Option<&mut Policy<'a, f32>> {
        match self {
            Chooser::Policy(policy) => Some(policy),
            _ => None,
        }
    }

    /// The Senior, if it integrates the teachers.
    pub(crate) fn senior(&self) -> Option<&Senior> {
        match self {
            Chooser::Senior(senior) => Some(senior),
            _ => None,
        }
    }

    /// The Senior, to be taught or restored.
    pub(crate) fn senior_mut(&mut self) -> Option<&mut Senior> {
        match self {
            Chooser::Senior(senior) => Some(senior),
            _ => None,
        }
    }
}

/// A policy with its initial parameters.
fn policy<'a>(
    data: &Data,
    labels: &'a SoftLabels,
    models: Vec<Model<f32>>,
    keys: &PolicyKeys,
    batch: usize,
    seed: u64,
) -> Policy<'a, f32> {
    // Scores are multiplied through their factors where the embeddings are narrower than a batch has queries.
    let batch = data.largest_batch(batch);
    let mut models: Vec<_> = models.into_iter().map(|m| Some(m).filter(|m| m.width() < batch)).collect();
    models.resize_with(labels.teachers().len(), || None);
    let inputs = inputs(keys.state, data.queries.len(), labels, models);
    let mut generator = seed::generator(seed, "policy/initial", 0);
    Policy::new(inputs, keys.hidden, strategies(labels.teachers().len()), keys.learning_rate, &mut generator)
}
