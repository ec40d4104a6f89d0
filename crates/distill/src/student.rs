//! The student in training: each step asks the policy, visits the rows, and rewards the policy.

use dsom_soft_labels::SoftLabels;
use kge::checkpoint::{Reader, Tensors};
use kge::{ComplEx, Objective as RowObjective, StepLoss, Trainer};
use serde_json::{Map, Value, json};
use stage::recipe::{Distill, Selection};
use stage::work::Work;
use stage::{Error, Result};
use training::{Data, Learner, MODEL};

use crate::choices;
use crate::objective::{Buffers, Distillation, Pass};
use crate::policy::{Outcome, Policy};
use crate::strategy::{Strategy, strategies};
use crate::teaching::{LogSums, Teachers, Teaching};

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
    /// A student that starts from `trainer`; without `teaching` it learns alone.
    pub fn new(
        data: &'a Data,
        teaching: Option<Teaching<'a>>,
        trainer: Trainer<f32>,
        recipe: &'a Distill,
        seed: u64,
    ) -> Self {
        Student { data, trainer, recipe, seed, teaching, tally: Tally::default() }
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
                teachers.combine(strategy, self.terms.tau, combined, single);
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
            let cross_entropy = log_sum - teachers.score(strategy, tails[i]);
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

impl Learner for Student<'_> {
    fn begin_epoch(&mut self, epoch: usize) {
        self.tally = Tally::default();
        if let Some(teaching) = &mut self.teaching {
            teaching.begin_epoch(self.seed, epoch);
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
        self.reinforce(&outcomes);
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
        self.policy().map_or(Ok(()), |policy| policy.tensors().write(&work.path(POLICY)))
    }
}

impl Student<'_> {
    fn policy(&self) -> Option<&Policy<'_, f32>> {
        self.teaching.as_ref().and_then(|teaching| teaching.policy.as_ref())
    }

    /// Writes what the policy that was kept thinks of every training query, if there is a policy.
    pub(crate) fn write_choices(&mut self, work: &Work) -> Result<()> {
        let Some(Teaching { policy: Some(policy), labels, .. }) = &mut self.teaching else { return Ok(()) };
        policy.load(&Reader::open(&work.path(POLICY))?)?;
        let at_once = self.data.largest_batch(self.recipe.training.batch);
        choices::write(&work.path(choices::FILE), self.data, labels.teachers(), policy, at_once)
    }

    fn reinforce(&mut self, outcomes: &[Outcome]) {
        let Some(Teaching { policy: Some(policy), .. }) = &mut self.teaching else { return };
        let loss = policy.reinforce(outcomes);
        self.tally.policy_loss += loss * outcomes.len() as f64;
        self.tally.reward += outcomes.iter().map(|outcome| outcome.reward).sum::<f64>();
        self.tally.with_advantage +=
            outcomes.iter().filter(|outcome| outcome.advantage() != 0.0).count() as u64;
        self.tally.outcomes += outcomes.len() as u64;
    }
}

#[cfg(test)]
mod tests;
