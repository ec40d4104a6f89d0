//! Who chooses the teachers of a query, and what that is made from: a policy, a rule, or chance.

use dsom_soft_labels::SoftLabels;
use kge::{Matrix, Model, row};
use mkg::{EntityId, QuerySet};
use recipe::{Calibrate, Distill, PolicyLearns, PolicyValue, QueryWeight, Selection};
use stage::{Modality, Result, seed};
use training::Data;

use crate::calibrate::{Calibrated, Scales, Usefulness, calibrate, useful};
use crate::inputs::{Asked, Facts, inputs};
use crate::learn::{Learned, favourites, learn};
use crate::policy::{Input, Policy};
use crate::reliability::{Range, Reliability};
use crate::senior::Senior;
use crate::strategy::{Strategy, strategies};
use crate::worth::{self, Said};

/// Who chooses the teachers of a query.
pub(crate) enum Chooser<'a> {
    /// A policy that samples, and learns from the reward.
    Learning(Policy<'a, f32>),
    /// A policy that has learned, with its choice for every training query.
    Learned(Policy<'a, f32>, Vec<Strategy>, Learned),
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
            Chooser::Learning(policy) | Chooser::Learned(policy, ..) => Some(policy),
            Chooser::Settled(_) | Chooser::Random | Chooser::Integrated(_) => None,
        }
    }

    /// The policy, if one chooses, to be restored or asked.
    pub(crate) fn policy_mut(&mut self) -> Option<&mut Policy<'a, f32>> {
        match self {
            Chooser::Learning(policy) | Chooser::Learned(policy, ..) => Some(policy),
            Chooser::Settled(_) | Chooser::Random | Chooser::Integrated(_) => None,
        }
    }

    /// The policy that the student's steps reward, if there is one.
    pub(crate) fn learner(&mut self) -> Option<&mut Policy<'a, f32>> {
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
            Chooser::Learned(_, chosen, _) | Chooser::Settled(chosen) => Some(chosen),
            _ => None,
        }
    }

    /// Whether the student's steps are to find rewards.
    pub(crate) fn rewards(&self) -> bool {
        matches!(self, Chooser::Learning(_))
    }

    /// How a policy that learned beforehand did on queries it was not shown.
    pub(crate) fn learned(&self) -> Option<&Learned> {
        match self {
            Chooser::Learned(_, _, learned) => Some(learned),
            _ => None,
        }
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

    pub(crate) fn calibrate(&self, data: &Data, by: Calibrate, seed: u64) -> Result<(Scales, Calibrated)> {
        let (scales, calibrated) =
            calibrate(&self.queries, &self.labels, &data.known, 2 * data.relations(), by, seed)?;
        let Calibrated { before, after, .. } = calibrated;
        tracing::info!("calibration: log-probability of held-out targets {before:.3}, scaled {after:.3}");
        Ok((scales, calibrated))
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
    pub(crate) valid: Option<&'b Valid>,
    pub(crate) scales: Option<&'b Scales>,
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
            let said =
                Said { queries: queries.queries(), labels: self.labels, scales: self.scales, beside: None };
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
            Selection::Policy => self.policy(models),
            Selection::Mulde => {
                Ok(Chooser::Integrated(Senior::new(2 * self.data.relations(), teachers.len())))
            }
        }
    }

    fn policy(&self, models: Vec<Option<Model<f32>>>) -> Result<Chooser<'a>> {
        let &Choosing { data, labels, recipe, .. } = self;
        let facts = Facts::new(&data.queries, data.entities(), 2 * data.relations());
        let on_train = inputs(recipe, &facts, Asked { queries: data.queries.queries(), labels }, models);
        let (mut policy, learned) = match recipe.policy_learns {
            PolicyLearns::Student => return Ok(Chooser::Learning(self.untaught(on_train))),
            PolicyLearns::Valid => {
                let Valid { queries, labels } = self.valid.expect("models to ask about validation triples");
                let models = labels.teachers().iter().map(|_| None).collect();
                let on_valid = inputs(recipe, &facts, Asked { queries: queries.queries(), labels }, models);
                let mut policy = self.untaught(on_valid);
                let learned =
                    self.learn(&mut policy, queries, labels, &|query| data.known.of(queries.query(query)))?;
                (policy.about(on_train), learned)
            }
            PolicyLearns::Train => {
                let (mut policy, queries) = (self.untaught(on_train), &data.queries);
                let learned = self.learn(&mut policy, queries, labels, &|query| queries.tails(query))?;
                (policy, learned)
            }
        };
        learned.tell();
        let everything: Vec<u32> = (0..data.queries.len() as u32).collect();
        let chosen = favourites(&mut policy, &everything);
        Ok(Chooser::Learned(policy, chosen, learned))
    }

    /// A policy with its initial parameters.
    fn untaught<'b>(&self, inputs: Vec<Input<'b, f32>>) -> Policy<'b, f32> {
        let (hidden, rate) = (self.recipe.policy_hidden, self.recipe.policy_learning_rate);
        let mut generator = seed::generator(self.seed, "policy/initial", 0);
        let strategies = strategies(self.labels.teachers().len());
        let policy = Policy::new(inputs, hidden, strategies, rate, &mut generator);
        policy.with_entropy(self.recipe.policy_entropy)
    }

    fn learn(
        &self,
        policy: &mut Policy<'_, f32>,
        queries: &QuerySet,
        labels: &SoftLabels,
        known: Known<'_>,
    ) -> Result<Learned> {
        let values = self.values(self.recipe.policy_value, queries, labels, known)?;
        learn(policy, queries, &values, labels.teachers(), self.recipe, self.seed)
    }

    /// What every strategy is worth to each of `queries` `(query, strategy)`.
    fn values(
        &self,
        value: PolicyValue,
        queries: &QuerySet,
        labels: &SoftLabels,
        known: Known<'_>,
    ) -> Result<Matrix<f32>> {
        let worth = |query: usize, scores: &mut [f32]| {
            worth::filtered(value, scores, queries.tails(query), known(query))
        };
        let strategies = Strategy::every(labels.teachers().len());
        let beside = |beside: Option<usize>| {
            let said = Said { queries: queries.queries(), labels, scales: self.scales, beside };
            worth::table(said, &strategies, worth)
        };
        let structural = labels.teachers().iter().position(Modality::is_structural);
        match value {
            PolicyValue::ReciprocalRank | PolicyValue::LogProbability => beside(None),
            PolicyValue::Complement => beside(structural),
            PolicyValue::Mixed => {
                let (mut mean, other) = (beside(None)?, beside(structural)?);
                row::scale(mean.values_mut(), 0.5);
                row::add_scaled(mean.values_mut(), 0.5, other.values());
                Ok(mean)
            }
        }
    }

    /// How far to trust the teachers whom `chooser` chooses, if the recipe asks for it.
    pub(crate) fn reliability(&self, chooser: &Chooser<'_>) -> Result<Option<(Reliability, Range)>> {
        if self.recipe.query_weight == QueryWeight::Equal {
            return Ok(None);
        }
        let data = self.data;
        let Valid { queries, labels } = self.valid.expect("models to ask about validation triples");
        let known = |query: usize| data.known.of(queries.query(query));
        let values = self.values(PolicyValue::ReciprocalRank, queries, labels, &known)?;
        let all = vec![Strategy::all(labels.teachers().len()); data.queries.len()];
        let chosen = chooser.senior().map_or(chooser.settled(), |_| Some(all.as_slice()));
        let reliability = Reliability::of(queries, &values, 2 * data.relations());
        let (reliability, range) = reliability.normalised(&data.queries, chosen);
        let Range { least, most } = range;
        tracing::info!("reliability: distillation of a query weighs {least:.3} to {most:.3}");
        Ok(Some((reliability, range)))
    }
}

/// The known answers of a query.
type Known<'a> = &'a (dyn Fn(usize) -> &'a [EntityId] + Sync);
