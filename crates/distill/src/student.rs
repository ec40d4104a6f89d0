//! The student in training: each step asks the policy, visits the rows, and rewards the policy.

use half::f16;
use half::slice::HalfFloatSliceExt;
use kge::checkpoint::{Reader, Tensors};
use kge::{ComplEx, Objective as RowObjective, StepLoss, Trainer, row};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use stage::recipe::{Action, Distill, Selection};
use stage::work::Work;
use stage::{Error, Result, seed};
use std::sync::atomic::{AtomicU32, Ordering};
use training::{Data, Learner, MODEL};

use crate::objective::{Buffers, Distillation, Pass};
use crate::policy::{Outcome, Policy};
use crate::strategy::{Strategy, strategies};
use dsom_soft_labels::SoftLabels;

/// The file of the trained policy.
const POLICY: &str = "policy.safetensors";

/// The student with everything it learns from.
pub struct Student<'a> {
    data: &'a Data,
    trainer: Trainer<f32>,
    recipe: &'a Distill,
    seed: u64,
    teaching: Option<Teaching<'a>>,
    tally: Tally,
}

/// The teachers' side: soft labels, the policy if there is one, and this epoch's random stream.
struct Teaching<'a> {
    labels: &'a SoftLabels,
    log_sums: LogSums,
    policy: Option<Policy<f32>>,
    draws: ChaCha8Rng,
}

/// Figures of one epoch for the event log.
#[derive(Default)]
struct Tally {
    actions: Vec<u64>,
    distillation: f64,
    policy_loss: f64,
    reward: f64,
    with_advantage: u64,
    outcomes: u64,
    pairs: usize,
}

impl<'a> Student<'a> {
    /// A student that starts from `trainer`; without `labels` it learns alone.
    pub fn new(
        data: &'a Data,
        labels: Option<&'a SoftLabels>,
        trainer: Trainer<f32>,
        recipe: &'a Distill,
        seed: u64,
    ) -> Self {
        let teaching = labels.map(|labels| {
            let teachers = labels.teachers().len();
            let policy = (recipe.selection == Selection::Policy).then(|| {
                let mut generator = seed::generator(seed, "policy/initial", 0);
                let (hidden, rate) = (recipe.policy_hidden, recipe.policy_learning_rate);
                Policy::new(data.entities(), teachers, hidden, rate, &mut generator)
            });
            let log_sums = LogSums::new(data.queries.len(), strategies(teachers));
            Teaching { labels, log_sums, policy, draws: seed::generator(seed, "policy/actions", 0) }
        });
        Student { data, trainer, recipe, seed, teaching, tally: Tally::default() }
    }
}

impl Teaching<'_> {
    /// The actions of a batch, for each of its queries: one for all tails, or one for each.
    fn act(&mut self, data: &Data, batch: &[u32], recipe: &Distill) -> Vec<Vec<Strategy>> {
        let teachers = self.labels.teachers().len();
        if let Some(policy) = &mut self.policy {
            let labels = self.labels;
            policy.forward(batch.len(), &|teacher: usize, row: usize, into: &mut [f32]| {
                policy_state(labels, batch[row] as usize, teacher, recipe.standardise, into);
            });
        }
        let mut actions = Vec::with_capacity(batch.len());
        for (row, &query) in batch.iter().enumerate() {
            let samples = match recipe.action {
                Action::Query => 1,
                Action::Triple => data.queries.tails(query as usize).len(),
            };
            let mut sample = || match (&self.policy, recipe.selection) {
                (Some(policy), _) => policy.sample(row, self.draws.random()),
                (None, Selection::Random) => {
                    Strategy(self.draws.random_range(0..strategies(teachers) as u16))
                }
                (None, _) => Strategy::all(teachers),
            };
            actions.push((0..samples).map(|_| sample()).collect());
        }
        actions
    }
}

/// A teacher's scores as the policy sees them.
fn policy_state(labels: &SoftLabels, query: usize, teacher: usize, standardise: bool, into: &mut [f32]) {
    labels.scores(query, teacher).convert_to_f32_slice(into);
    if standardise {
        let mean = row::sum(into) / into.len() as f32;
        let deviation = (row::sum_squares(into, mean) / into.len() as f32).sqrt();
        let rate = if deviation > 0.0 { 1.0 / deviation } else { 0.0 };
        into.iter_mut().for_each(|x| *x = (*x - mean) * rate);
    }
}

/// `ln Σ exp` of every query's every strategy, computed when first asked for: teachers do not change.
struct LogSums {
    strategies: usize,
    /// Bits of f32; NaN where not computed yet. Every thread would compute the same value.
    values: Vec<AtomicU32>,
}

impl LogSums {
    fn new(queries: usize, strategies: usize) -> Self {
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

/// Turns rows of the student's scores into gradients, given each query's actions.
struct Distil<'a> {
    data: &'a Data,
    recipe: &'a Distill,
    terms: Distillation,
    teaching: Option<(&'a SoftLabels, &'a LogSums)>,
    actions: &'a [Vec<Strategy>],
}

/// One thread's rows.
struct Scratch {
    buffers: Buffers<f32>,
    combined: Vec<f32>,
    single: Vec<f32>,
}

/// What a row leaves behind.
#[derive(Default)]
struct Row {
    distillation: f64,
    outcomes: Vec<Outcome>,
}

impl RowObjective<f32> for Distil<'_> {
    type Row = Row;
    type Scratch = Scratch;

    fn scratch(&self, entities: usize) -> Scratch {
        let row = || vec![0.0; entities];
        Scratch { buffers: Buffers::new(entities), combined: row(), single: row() }
    }

    fn gradient(
        &self,
        position: usize,
        query: usize,
        scores: &mut [f32],
        scale: f32,
        scratch: &mut Scratch,
    ) -> (f64, Row) {
        let Scratch { buffers, combined, single } = scratch;
        let scale = f64::from(scale);
        let mut pass = Pass::new(scores, self.data.queries.tails(query), self.terms, buffers);
        let mut row = Row::default();
        if let Some((labels, log_sums)) = self.teaching {
            let teachers = Teachers { labels, log_sums, query };
            row.outcomes = self.rewards(&teachers, position, &pass, combined, single);
            for (strategy, positions) in self.groups(position, query) {
                teachers.combine(strategy, combined, single);
                row.distillation += pass.distil(combined, &positions, scale);
            }
        }
        let cross_entropy = pass.finish(scale);
        (cross_entropy + self.terms.weight * row.distillation, row)
    }
}

impl Distil<'_> {
    /// The tails' positions by the strategy chosen for them.
    fn groups(&self, position: usize, query: usize) -> Vec<(Strategy, Vec<usize>)> {
        let tails = self.data.queries.tails(query).len();
        match self.actions[position].as_slice() {
            &[strategy] => vec![(strategy, (0..tails).collect())],
            actions => {
                let mut order: Vec<usize> = (0..actions.len()).collect();
                order.sort_by_key(|i| (actions[*i], *i));
                let same = |a: &usize, b: &usize| actions[*a] == actions[*b];
                order.chunk_by(same).map(|group| (actions[group[0]], group.to_vec())).collect()
            }
        }
    }

    /// The reward of each tail's action and of the baseline (Eq. 8).
    fn rewards(
        &self,
        teachers: &Teachers<'_>,
        position: usize,
        pass: &Pass<'_, f32>,
        combined: &mut [f32],
        single: &mut [f32],
    ) -> Vec<Outcome> {
        if self.recipe.selection != Selection::Policy {
            return Vec::new();
        }
        let tails = self.data.queries.tails(teachers.query);
        let actions = &self.actions[position];
        let all = Strategy::all(teachers.labels.teachers().len());
        let mut reward = |strategy: Strategy, i: usize| {
            let log_sum = teachers.log_sum(strategy, combined, single);
            let cross_entropy = log_sum - teachers.score(strategy, tails[i].index());
            if cross_entropy < pass.cross_entropy(i) { self.recipe.reward } else { self.recipe.penalty }
        };
        (0..tails.len())
            .map(|i| {
                let strategy = actions[i % actions.len()];
                Outcome { row: position, strategy, reward: reward(strategy, i), baseline: reward(all, i) }
            })
            .collect()
    }
}

/// All teachers' scores of one query.
struct Teachers<'a> {
    labels: &'a SoftLabels,
    log_sums: &'a LogSums,
    query: usize,
}

impl Teachers<'_> {
    /// The mean of the strategy's teachers' scores (Eq. 7) into `combined`; `single` is a buffer.
    fn combine(&self, strategy: Strategy, combined: &mut [f32], single: &mut [f32]) {
        let scores = |teacher: usize| -> &[f16] { self.labels.scores(self.query, teacher) };
        let mut members = strategy.members();
        let first = members.next().expect("a strategy holds at least one teacher");
        scores(first).convert_to_f32_slice(combined);
        for teacher in members {
            scores(teacher).convert_to_f32_slice(single);
            row::add_scaled(combined, 1.0, single);
        }
        if strategy.size() > 1 {
            row::scale(combined, 1.0 / strategy.size() as f32);
        }
    }

    /// `ln Σ exp` of the combination.
    fn log_sum(&self, strategy: Strategy, combined: &mut [f32], single: &mut [f32]) -> f64 {
        self.log_sums.get(self.query, strategy, || {
            self.combine(strategy, combined, single);
            row::log_sum_exp(combined, 1.0)
        })
    }

    /// The combination's score of one entity.
    fn score(&self, strategy: Strategy, entity: usize) -> f64 {
        let sum: f64 = strategy.members().map(|m| f64::from(self.labels.scores(self.query, m)[entity])).sum();
        sum / strategy.size() as f64
    }
}

impl Learner for Student<'_> {
    fn begin_epoch(&mut self, epoch: usize) {
        self.tally = Tally::default();
        if let Some(teaching) = &mut self.teaching {
            teaching.draws = seed::generator(self.seed, "policy/actions", epoch as u64);
            self.tally.actions = vec![0; strategies(teaching.labels.teachers().len())];
        }
    }

    fn step(&mut self, batch: &[u32]) -> Result<StepLoss> {
        let actions = match &mut self.teaching {
            Some(teaching) => teaching.act(self.data, batch, self.recipe),
            None => Vec::new(),
        };
        let objective = Distil {
            data: self.data,
            recipe: self.recipe,
            terms: Distillation::from(self.recipe),
            teaching: self.teaching.as_ref().map(|teaching| (teaching.labels, &teaching.log_sums)),
            actions: &actions,
        };
        let (loss, rows) = self.trainer.step(&self.data.queries, batch, &objective)?;
        self.tally.pairs += loss.pairs;
        self.tally.distillation += rows.iter().map(|row| row.distillation).sum::<f64>();
        actions.iter().flatten().for_each(|strategy| self.tally.actions[strategy.index()] += 1);
        let outcomes: Vec<Outcome> = rows.into_iter().flat_map(|row| row.outcomes).collect();
        self.reinforce(batch, &outcomes);
        Ok(loss)
    }

    fn end_epoch(&mut self) -> Map<String, Value> {
        let Some(teaching) = &self.teaching else { return Map::new() };
        let tally = &self.tally;
        let mut figures =
            Map::from_iter([("distillation".to_owned(), json!(tally.distillation / tally.pairs as f64))]);
        let total: u64 = tally.actions.iter().sum();
        let share = |(k, count): (usize, &u64)| {
            (Strategy(k as u16).name(teaching.labels.teachers()), json!(*count as f64 / total as f64))
        };
        figures.insert(
            "strategies".to_owned(),
            tally.actions.iter().enumerate().map(share).collect::<Map<_, _>>().into(),
        );
        if tally.outcomes > 0 {
            let mean = |sum: f64| json!(sum / tally.outcomes as f64);
            figures.insert("policy_loss".to_owned(), mean(tally.policy_loss));
            figures.insert("reward".to_owned(), mean(tally.reward));
            figures.insert("with_advantage".to_owned(), mean(tally.with_advantage as f64));
        }
        figures
    }

    fn model(&mut self) -> &ComplEx<f32> {
        self.trainer.model()
    }

    fn require_finite(&mut self) -> Result<()> {
        self.trainer.require_finite()?;
        self.policy().map_or(Ok(()), Policy::require_finite)
    }

    fn state(&self) -> Tensors<'_> {
        let tensors = Tensors::default().nested("student", self.trainer.state());
        match self.policy() {
            Some(policy) => tensors.nested("policy", policy.state()),
            None => tensors,
        }
    }

    fn counters(&self) -> Vec<u64> {
        self.policy().map(Policy::steps).into_iter().collect()
    }

    fn restore(&mut self, state: &Reader, counters: &[u64]) -> Result<()> {
        self.trainer.restore(state, "student")?;
        let policy = self.teaching.as_mut().and_then(|teaching| teaching.policy.as_mut());
        match (policy, counters) {
            (Some(policy), &[steps]) => policy.restore(state, "policy", steps),
            (None, _) => Ok(()),
            (Some(_), _) => {
                Err(Error::data("the checkpoint has no policy").at(state.path()).hint("rerun with --force"))
            }
        }
    }

    fn write_best(&mut self, work: &Work) -> Result<()> {
        self.model().tensors().write(&work.path(MODEL))?;
        match (self.policy(), &self.teaching) {
            (Some(policy), Some(teaching)) => {
                policy.tensors(teaching.labels.teachers()).write(&work.path(POLICY))
            }
            _ => Ok(()),
        }
    }
}

impl Student<'_> {
    fn policy(&self) -> Option<&Policy<f32>> {
        self.teaching.as_ref().and_then(|teaching| teaching.policy.as_ref())
    }

    fn reinforce(&mut self, batch: &[u32], outcomes: &[Outcome]) {
        let Some(Teaching { labels, policy: Some(policy), .. }) = &mut self.teaching else { return };
        let standardise = self.recipe.standardise;
        let loss = policy.reinforce(outcomes, &|teacher: usize, row: usize, into: &mut [f32]| {
            policy_state(labels, batch[row] as usize, teacher, standardise, into);
        });
        self.tally.policy_loss += loss * outcomes.len() as f64;
        self.tally.reward += outcomes.iter().map(|outcome| outcome.reward).sum::<f64>();
        self.tally.with_advantage +=
            outcomes.iter().filter(|outcome| outcome.advantage() != 0.0).count() as u64;
        self.tally.outcomes += outcomes.len() as u64;
    }
}

#[cfg(test)]
mod tests;
