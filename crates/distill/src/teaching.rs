//! The teachers' side: their soft labels, and who chooses among them.

use dsom_soft_labels::SoftLabels;
use kge::{ComplEx, row};
use mkg::{EntityId, QuerySet};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use stage::recipe::{Action, Calibrate, Distill, PolicyLearns, Selection};
use stage::{Modality, Result, seed};
use std::sync::atomic::{AtomicU32, Ordering};
use training::Data;

use crate::calibrate::{Calibrated, Scales, calibrate};
use crate::inputs::{Asked, Facts, inputs};
use crate::learn::{Learned, favourites, learn};
use crate::policy::{Input, Policy};
use crate::strategy::{Strategy, strategies};
use crate::worth;

/// Soft labels, who chooses, and this epoch's random stream.
pub struct Teaching<'a> {
    pub(crate) labels: &'a SoftLabels,
    log_sums: LogSums,
    pub(crate) calibration: Option<(Scales, Calibrated)>,
    chooser: Chooser<'a>,
    draws: ChaCha8Rng,
}

/// Who chooses the teachers of a query.
enum Chooser<'a> {
    /// A policy that samples, and learns from the reward.
    Learning(Policy<'a, f32>),
    /// A policy that has learned, with its choice for every training query.
    Learned(Policy<'a, f32>, Vec<Strategy>, Learned),
    /// One choice for every training query.
    Settled(Vec<Strategy>),
    /// Chance.
    Random,
}

/// The teachers' models, as far as they are needed beside their soft labels.
pub struct Models {
    /// For each teacher its model, where a policy may rather factor its scores than read them.
    pub factored: Vec<Option<ComplEx<f32>>>,
    /// All of them, where they are asked about validation triples; the soft labels are of training queries.
    pub asked: Vec<ComplEx<f32>>,
}

impl<'a> Teaching<'a> {
    /// Lets the policy learn first, if it does so beforehand.
    ///
    /// # Errors
    /// On interruption; and if a teacher's scores do not fit half precision.
    pub fn new(
        data: &'a Data,
        labels: &'a SoftLabels,
        models: Models,
        recipe: &Distill,
        seed: u64,
    ) -> Result<Self> {
        let log_sums = LogSums::new(data.queries.len(), strategies(labels.teachers().len()));
        let Models { factored, asked } = models;
        let valid = Valid::of(data, labels.teachers(), &asked)?;
        let calibration = match (&valid, recipe.calibrate) {
            (Some(valid), by) if by != Calibrate::None => Some(valid.calibrate(data, by, seed)?),
            _ => None,
        };
        let scales = calibration.as_ref().map(|(scales, _)| scales);
        let choosing = Choosing { data, labels, valid: valid.as_ref(), scales, recipe, seed };
        let chooser = choosing.chooser(factored)?;
        Ok(Teaching { labels, log_sums, calibration, chooser, draws: actions(seed, 0) })
    }

    /// What combinations are made of.
    pub(crate) fn sources(&self) -> Sources<'_> {
        let scales = self.calibration.as_ref().map(|(scales, _)| scales);
        Sources { labels: self.labels, log_sums: &self.log_sums, scales }
    }

    /// The policy, if one chooses.
    pub(crate) fn policy(&self) -> Option<&Policy<'a, f32>> {
        match &self.chooser {
            Chooser::Learning(policy) | Chooser::Learned(policy, ..) => Some(policy),
            Chooser::Settled(_) | Chooser::Random => None,
        }
    }

    /// The policy, if one chooses, to be restored or asked.
    pub(crate) fn policy_mut(&mut self) -> Option<&mut Policy<'a, f32>> {
        match &mut self.chooser {
            Chooser::Learning(policy) | Chooser::Learned(policy, ..) => Some(policy),
            Chooser::Settled(_) | Chooser::Random => None,
        }
    }

    /// The policy that the student's steps reward, if there is one.
    pub(crate) fn learner(&mut self) -> Option<&mut Policy<'a, f32>> {
        match &mut self.chooser {
            Chooser::Learning(policy) => Some(policy),
            _ => None,
        }
    }

    /// Whether the student's steps are to find rewards.
    pub(crate) fn rewards(&self) -> bool {
        matches!(self.chooser, Chooser::Learning(_))
    }

    /// How a policy that learned beforehand did on queries it was not shown.
    pub(crate) fn learned(&self) -> Option<&Learned> {
        match &self.chooser {
            Chooser::Learned(_, _, learned) => Some(learned),
            _ => None,
        }
    }

    /// Epoch number `epoch` draws from a stream of its own.
    pub(crate) fn begin_epoch(&mut self, seed: u64, epoch: usize) {
        self.draws = actions(seed, epoch);
    }

    /// The actions of a batch, for each of its queries: one for all tails, or one for each.
    pub(crate) fn act(&mut self, data: &Data, batch: &[u32], recipe: &Distill) -> Vec<Vec<Strategy>> {
        let strategies = strategies(self.labels.teachers().len()) as u16;
        if let Chooser::Learning(policy) = &mut self.chooser {
            policy.forward(batch);
        }
        let mut actions = Vec::with_capacity(batch.len());
        for (row, &query) in batch.iter().enumerate() {
            let samples = match (recipe.action, &self.chooser) {
                (Action::Triple, Chooser::Learning(_) | Chooser::Random) => {
                    data.queries.tails(query as usize).len()
                }
                _ => 1,
            };
            let mut sample = || match &self.chooser {
                Chooser::Learning(policy) => policy.sample(row, self.draws.random()),
                Chooser::Learned(_, chosen, _) | Chooser::Settled(chosen) => chosen[query as usize],
                Chooser::Random => Strategy(self.draws.random_range(0..strategies)),
            };
            actions.push((0..samples).map(|_| sample()).collect());
        }
        actions
    }
}

/// The validation triples' queries, and what the teachers say of them.
struct Valid {
    queries: QuerySet,
    labels: SoftLabels,
}

impl Valid {
    /// Asks the `models`; nothing where there are none.
    fn of(data: &Data, teachers: &[Modality], models: &[ComplEx<f32>]) -> Result<Option<Valid>> {
        if models.is_empty() {
            return Ok(None);
        }
        let queries = QuerySet::new(&data.valid, data.relations());
        let labels = SoftLabels::of_models(teachers.to_vec(), models, queries.queries())?;
        Ok(Some(Valid { queries, labels }))
    }

    fn calibrate(&self, data: &Data, by: Calibrate, seed: u64) -> Result<(Scales, Calibrated)> {
        let (scales, calibrated) =
            calibrate(&self.queries, &self.labels, &data.known, 2 * data.relations(), by, seed)?;
        let Calibrated { before, after, .. } = calibrated;
        tracing::info!("calibration: log-probability of held-out targets {before:.3}, scaled {after:.3}");
        Ok((scales, calibrated))
    }
}

/// What a [`Chooser`] is made from.
struct Choosing<'a, 'b> {
    data: &'a Data,
    labels: &'a SoftLabels,
    valid: Option<&'b Valid>,
    scales: Option<&'b Scales>,
    recipe: &'b Distill,
    seed: u64,
}

impl<'a> Choosing<'a, '_> {
    fn chooser(&self, models: Vec<Option<ComplEx<f32>>>) -> Result<Chooser<'a>> {
        let (teachers, queries) = (self.labels.teachers(), &self.data.queries);
        let settled = |strategy: Strategy| Chooser::Settled(vec![strategy; queries.len()]);
        let singles: Vec<Strategy> = (0..teachers.len()).map(|teacher| Strategy::of([teacher])).collect();
        let by = |candidates: &[Strategy], worth: &(dyn Fn(usize, &mut [f32]) -> f64 + Sync)| {
            let table = worth::table(self.labels, queries.queries(), self.scales, candidates, worth)?;
            Ok(Chooser::Settled(worth::best(&table, candidates)))
        };
        let likely = |query: usize, scores: &mut [f32]| worth::log_probability(scores, queries.tails(query));
        match &self.recipe.selection {
            Selection::Random => Ok(Chooser::Random),
            Selection::All => Ok(settled(Strategy::all(teachers.len()))),
            Selection::Fixed(modalities) => Ok(settled(Strategy::named(modalities, teachers)?)),
            Selection::Conf => by(&singles, &|_, scores| worth::confidence(scores)),
            Selection::BestTeacher => by(&singles, &likely),
            Selection::BestStrategy => by(&Strategy::every(teachers.len()), &likely),
            Selection::Policy => self.policy(models),
        }
    }

    fn policy(&self, models: Vec<Option<ComplEx<f32>>>) -> Result<Chooser<'a>> {
        let &Choosing { data, labels, recipe, .. } = self;
        let facts = Facts::new(&data.queries, data.entities(), 2 * data.relations());
        let on_train = inputs(recipe, &facts, Asked { queries: data.queries.queries(), labels }, models);
        let (mut policy, learned) = match (recipe.policy_learns, self.valid) {
            (PolicyLearns::Valid, Some(Valid { queries, labels })) => {
                let models = labels.teachers().iter().map(|_| None).collect();
                let on_valid = inputs(recipe, &facts, Asked { queries: queries.queries(), labels }, models);
                let mut policy = self.untaught(on_valid);
                let learned =
                    self.learn(&mut policy, queries, labels, &|query| data.known.of(queries.query(query)))?;
                (policy.about(on_train), learned)
            }
            (PolicyLearns::Train, _) => {
                let (mut policy, queries) = (self.untaught(on_train), &data.queries);
                let learned = self.learn(&mut policy, queries, labels, &|query| queries.tails(query))?;
                (policy, learned)
            }
            _ => return Ok(Chooser::Learning(self.untaught(on_train))),
        };
        let Learned { policy: value, all, oracle, .. } = learned;
        tracing::info!(
            "policy: its choices for held-out queries are worth {value:.4}, all teachers {all:.4}, the best \
             strategies {oracle:.4}"
        );
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
        let worth = |query: usize, scores: &mut [f32]| {
            worth::filtered(self.recipe.policy_value, scores, queries.tails(query), known(query))
        };
        let strategies = Strategy::every(labels.teachers().len());
        let values = worth::table(labels, queries.queries(), self.scales, &strategies, worth)?;
        learn(policy, queries, &values, labels.teachers(), self.recipe, self.seed)
    }
}

/// The known answers of a query.
type Known<'a> = &'a (dyn Fn(usize) -> &'a [EntityId] + Sync);

fn actions(seed: u64, epoch: usize) -> ChaCha8Rng {
    seed::generator(seed, "policy/actions", epoch as u64)
}

/// `ln Σ exp` of every query's every strategy, computed when first asked for: teachers do not change.
pub(crate) struct LogSums {
    strategies: usize,
    /// Bits of f32; NaN where not computed yet. Every thread would compute the same value.
    values: Vec<AtomicU32>,
}

impl LogSums {
    pub(crate) fn new(queries: usize, strategies: usize) -> Self {
        let unknown = || AtomicU32::new(f32::NAN.to_bits());
        LogSums { strategies, values: std::iter::repeat_with(unknown).take(queries * strategies).collect() }
    }

    fn get(&self, query: usize, strategy: Strategy, compute: impl FnOnce() -> f64) -> f64 {
        let slot = &self.values[query * self.strategies + strategy.index()];
        let known = f32::from_bits(slot.load(Ordering::Relaxed));
        if !known.is_nan() {
            return f64::from(known);
        }
        // Rounded before its first use, so that later uses see the same number.
        let value = compute() as f32;
        slot.store(value.to_bits(), Ordering::Relaxed);
        f64::from(value)
    }
}

/// What combinations of teachers are made of.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) labels: &'a SoftLabels,
    pub(crate) log_sums: &'a LogSums,
    pub(crate) scales: Option<&'a Scales>,
}

impl<'a> Sources<'a> {
    /// For the query numbered `query` of `queries`.
    pub(crate) fn of(self, queries: &QuerySet, query: usize) -> Teachers<'a> {
        let scales = self.scales.map(|scales| scales.of(queries.query(query).relation));
        Teachers { labels: self.labels, log_sums: self.log_sums, scales, query }
    }
}

/// All teachers' scores of one query.
pub(crate) struct Teachers<'a> {
    labels: &'a SoftLabels,
    log_sums: &'a LogSums,
    scales: Option<&'a [f32]>,
    query: usize,
}

impl Teachers<'_> {
    pub(crate) fn count(&self) -> usize {
        self.labels.teachers().len()
    }

    /// What a member's scores are multiplied with in the strategy's mean.
    fn weight(&self, strategy: Strategy, teacher: usize) -> f32 {
        self.scales.map_or(1.0, |scales| scales[teacher]) / strategy.size() as f32
    }

    /// The mean of the strategy's teachers' scores (Eq. 7), for temperature `tau`, into `combined`; `single` is a buffer.
    pub(crate) fn combine(&self, strategy: Strategy, tau: f64, combined: &mut [f32], single: &mut [f32]) {
        let mut members = strategy.members();
        let first = members.next().expect("a strategy holds at least one teacher");
        // A member's share of the mean softens its scores that much more.
        let weight = self.weight(strategy, first);
        self.labels.fill(self.query, first, tau / f64::from(weight), combined);
        if weight != 1.0 {
            row::scale(combined, weight);
        }
        for teacher in members {
            let weight = self.weight(strategy, teacher);
            self.labels.fill(self.query, teacher, tau / f64::from(weight), single);
            row::add_scaled(combined, weight, single);
        }
    }

    /// `ln Σ exp` of the combination.
    pub(crate) fn log_sum(&self, strategy: Strategy, combined: &mut [f32], single: &mut [f32]) -> f64 {
        self.log_sums.get(self.query, strategy, || {
            self.combine(strategy, 1.0, combined, single);
            row::log_sum_exp(combined, 1.0)
        })
    }

    /// The combination's score of one entity.
    pub(crate) fn score(&self, strategy: Strategy, entity: EntityId) -> f64 {
        let score = |teacher: usize| {
            f64::from(self.weight(strategy, teacher))
                * f64::from(self.labels.score(self.query, teacher, entity))
        };
        strategy.members().map(score).sum()
    }
}
