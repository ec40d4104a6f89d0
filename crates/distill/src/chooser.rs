//! Who chooses the teachers of a query, and what that is made from: a policy, a rule, or chance.

use dsom_soft_labels::SoftLabels;
use kge::Model;
use mkg::QuerySet;
use recipe::{Distill, Selection};
use stage::{Modality, Result, seed};
use training::Data;

use crate::inputs::inputs;
use crate::policy::Policy;
use crate::senior::Senior;
use crate::strategy::{Strategy, strategies};
use crate::useful::{Usefulness, useful};
use crate::worth::{self, Said};

/// Who chooses the teachers of a query.
pub(crate) enum Chooser<'a> {
    /// A policy that samples, and learns from the reward.
    Learning(Policy<'a, f32>),
    /// One choice for every training query.
    Settled(Vec<Strategy>),
    /// Chance.
    Random,
    /// Nobody: all teachers are integrated.
    Integrated(Senior),
}

impl<'a> Chooser<'a> {
    /// The policy, if one chooses.
    pub(crate) fn policy(&self) -> Option<&Policy<'a, f32>> {
        match self {
            Chooser::Learning(policy) => Some(policy),
            _ => None,
        }
    }

    /// The policy, if one chooses, to be asked, taught or restored.
    pub(crate) fn policy_mut(&mut self) -> Option<&mut Policy<'a, f32>> {
        match self {
            Chooser::Learning(policy) => Some(policy),
            _ => None,
        }
    }

    /// The Senior, if it integrates the teachers.
    pub(crate) fn senior(&self) -> Option<&Senior> {
        match self {
            Chooser::Integrated(senior) => Some(senior),
            _ => None,
        }
    }

    /// The Senior, to be taught or restored.
    pub(crate) fn senior_mut(&mut self) -> Option<&mut Senior> {
        match self {
            Chooser::Integrated(senior) => Some(senior),
            _ => None,
        }
    }

    /// The strategies of all training queries, where they are settled.
    pub(crate) fn settled(&self) -> Option<&[Strategy]> {
        match self {
            Chooser::Settled(chosen) => Some(chosen),
            _ => None,
        }
    }

    /// Whether the student's steps are to find rewards.
    pub(crate) fn rewards(&self) -> bool {
        matches!(self, Chooser::Learning(_))
    }
}

/// The validation triples' queries, and what the teachers say of them.
pub(crate) struct Valid {
    queries: QuerySet,
    labels: SoftLabels,
}

impl Valid {
    /// Asks the `models`; nothing where there are none.
    pub(crate) fn of(data: &Data, teachers: &[Modality], models: &[&Model<f32>]) -> Result<Option<Valid>> {
        if models.is_empty() {
            return Ok(None);
        }
        let queries = QuerySet::new(&data.valid, data.relations());
        let labels = SoftLabels::of_models(teachers.to_vec(), models, queries.queries())?;
        Ok(Some(Valid { queries, labels }))
    }

    /// The teachers that are useful, and how much each is.
    pub(crate) fn useful(&self, data: &Data) -> Result<(Strategy, Usefulness)> {
        let (strategy, usefulness) = useful(&self.queries, &self.labels, &data.known)?;
        let adds = usefulness.adds.iter().map(|(teacher, adds)| format!("{teacher} {adds:.4}"));
        let adds = adds.collect::<Vec<_>>().join(", ");
        tracing::info!(
            "useful: {}; what each adds to the others, in nats a target: {adds}",
            usefulness.chosen
        );
        Ok((strategy, usefulness))
    }
}

/// What a [`Chooser`] is made from.
pub(crate) struct Choosing<'a, 'b> {
    pub(crate) data: &'a Data,
    pub(crate) labels: &'a SoftLabels,
    /// The teachers that are useful, if the recipe asks for them.
    pub(crate) useful: Option<Strategy>,
    pub(crate) recipe: &'b Distill,
    pub(crate) seed: u64,
}

impl<'a> Choosing<'a, '_> {
    /// Decides what can be decided beforehand. `models` as in [`crate::Models::factored`].
    pub(crate) fn chooser(&self, models: Vec<Option<Model<f32>>>) -> Result<Chooser<'a>> {
        let (teachers, queries) = (self.labels.teachers(), &self.data.queries);
        let settled = |strategy: Strategy| Chooser::Settled(vec![strategy; queries.len()]);
        let by = |candidates: &[Strategy], worth: &(dyn Fn(usize, &mut [f32]) -> f64 + Sync)| {
            let said = Said { queries: queries.queries(), labels: self.labels };
            let table = worth::table(said, candidates, worth)?;
            Ok(Chooser::Settled(worth::best(&table, candidates)))
        };
        let likely = |query: usize, scores: &mut [f32]| worth::log_probability(scores, queries.tails(query));
        match &self.recipe.selection {
            Selection::Random => Ok(Chooser::Random),
            Selection::All => Ok(settled(Strategy::all(teachers.len()))),
            Selection::Fixed(modalities) => Ok(settled(Strategy::named(modalities, teachers)?)),
            Selection::Useful => Ok(settled(self.useful.expect("found beforehand"))),
            Selection::Conf => by(&Strategy::singles(teachers.len()), &|_, scores| worth::confidence(scores)),
            Selection::BestTeacher => by(&Strategy::singles(teachers.len()), &likely),
            Selection::BestStrategy => by(&Strategy::every(teachers.len()), &likely),
            Selection::Policy => Ok(Chooser::Learning(self.policy(models))),
            Selection::Mulde => {
                Ok(Chooser::Integrated(Senior::new(2 * self.data.relations(), teachers.len())))
            }
        }
    }

    /// A policy with its initial parameters.
    fn policy(&self, models: Vec<Option<Model<f32>>>) -> Policy<'a, f32> {
        let &Choosing { data, labels, recipe, .. } = self;
        let inputs = inputs(recipe.policy_state, data.queries.len(), labels, models);
        let mut generator = seed::generator(self.seed, "policy/initial", 0);
        let strategies = strategies(labels.teachers().len());
        Policy::new(inputs, recipe.policy_hidden, strategies, recipe.policy_learning_rate, &mut generator)
    }
}
