//! The teachers' side: their soft labels, and the choice among the teachers.

use dsom_soft_labels::SoftLabels;
use kge::Model;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use recipe::{Action, Distill, Selection};
use serde_json::Value;
use stage::{Modality, Result, seed};
use training::Data;

use crate::combine::Sources;
use crate::inputs::inputs;
use crate::policy::Policy;
use crate::senior::Senior;
use crate::strategy::{Strategy, strategies};
use crate::useful::{Usefulness, useful};
use crate::worth::{best, confidence, log_probability};

/// Soft labels, the selector of their teachers, and the random stream of this epoch.
pub struct Teaching<'a> {
    pub(crate) sources: Sources<'a>,
    /// The teachers' usefulness, if the selection depends on it.
    pub(crate) usefulness: Option<Usefulness>,
    /// The policy, if there is one; it samples strategies and learns from the reward.
    pub(crate) policy: Option<Policy<'a, f32>>,
    /// MulDE's Senior, if there is one; it integrates the chosen teachers.
    pub(crate) senior: Option<Senior>,
    /// A rule's choices for all training queries. With neither policy nor rule, strategies are drawn uniformly.
    rule: Option<Vec<Strategy>>,
    seed: u64,
    draws: ChaCha8Rng,
}

impl<'a> Teaching<'a> {
    /// Makes the choices that are possible before training.
    ///
    /// `models` are the teachers' models: all for selection `useful`, which asks them about validation triples; all or
    /// none for a policy that sees scores, and may multiply factors instead of reading scores; none for others.
    ///
    /// # Errors
    /// Fails on interruption, and if a teacher's scores do not fit half precision.
    pub fn new(
        data: &'a Data,
        labels: &'a SoftLabels,
        models: Vec<Model<f32>>,
        recipe: &Distill,
        seed: u64,
    ) -> Result<Self> {
        let (queries, teachers) = (&data.queries, labels.teachers());
        let sources = Sources::new(labels, queries.len());
        let (singles, every) = (Strategy::singles(teachers.len()), Strategy::every(teachers.len()));
        let always = |strategy| Some(vec![strategy; queries.len()]);
        let (mut policy, mut senior, mut usefulness) = (None, None, None);
        let rule = match &recipe.selection {
            Selection::Policy(keys) => {
                let batch = data.largest_batch(recipe.training.batch);
                let inputs = inputs(keys.state, queries.len(), batch, labels, models);
                let mut generator = seed::generator(seed, "policy/initial", 0);
                let (hidden, rate) = (keys.hidden, keys.learning_rate);
                policy = Some(Policy::new(inputs, hidden, every.len(), rate, &mut generator));
                None
            }
            Selection::All => always(Strategy::all(teachers.len())),
            Selection::Fixed { teachers: named } => always(Strategy::named(named, teachers)?),
            Selection::Useful => {
                let (strategy, found) = useful(data, teachers, &models)?;
                usefulness = Some(found);
                always(strategy)
            }
            Selection::Random { .. } => None,
            Selection::Conf => Some(best(&sources, queries, &singles, confidence)?),
            Selection::BestTeacher => Some(best(&sources, queries, &singles, log_probability)?),
            Selection::BestStrategy => Some(best(&sources, queries, &every, log_probability)?),
            Selection::Mulde => {
                senior = Some(Senior::new(2 * data.relations(), teachers.len()));
                always(Strategy::all(teachers.len()))
            }
        };
        Ok(Teaching { sources, usefulness, policy, senior, rule, seed, draws: draws(seed, 0) })
    }

    pub(crate) fn teachers(&self) -> &'a [Modality] {
        self.sources.labels.teachers()
    }

    /// Values, one for each teacher, under the teachers' names.
    pub(crate) fn by_teacher(&self, values: Vec<f64>) -> Value {
        let names = self.teachers().iter().map(ToString::to_string);
        names.zip(values).collect()
    }

    /// Begins epoch number `epoch`, which draws from its own random stream.
    pub(crate) fn begin_epoch(&mut self, epoch: usize) {
        self.draws = draws(self.seed, epoch);
        if let Some(senior) = &mut self.senior {
            senior.begin_epoch(epoch);
        }
    }

    /// The actions of each query in a batch: one for all tails, or one for each tail. A policy must have been asked
    /// about this batch before.
    pub(crate) fn act(&mut self, data: &Data, batch: &[u32], action: Action) -> Vec<Vec<Strategy>> {
        let mut actions = Vec::with_capacity(batch.len());
        for (row, &query) in batch.iter().enumerate() {
            let samples = if action == Action::Query { 1 } else { data.tails(query).len() };
            actions.push((0..samples).map(|_| self.sample(row, query)).collect());
        }
        actions
    }

    fn sample(&mut self, row: usize, query: u32) -> Strategy {
        match (&self.policy, &self.rule) {
            (Some(policy), _) => policy.sample(row, self.draws.random()),
            (None, Some(chosen)) => chosen[query as usize],
            (None, None) => {
                let strategies = strategies(self.teachers().len()) as u16;
                Strategy(usize::from(self.draws.random_range(0..strategies)))
            }
        }
    }
}

fn draws(seed: u64, epoch: usize) -> ChaCha8Rng {
    seed::generator(seed, "policy/actions", epoch as u64)
}
