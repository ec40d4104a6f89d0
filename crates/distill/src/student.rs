//! The student in training: each step asks the policy, visits the rows, and rewards the policy.

use kge::checkpoint::{Reader, Tensors};
use kge::{Matrix, Rank, StepLoss};
use recipe::Distill;
use serde_json::{Map, Value, json};
use stage::work::Work;
use stage::{Error, Kind, Result};
use training::{Data, Engine, Learner, MODEL};

use crate::choices;
use crate::chooser::Chooser;
use crate::device::{Combinations, OnDevice};
use crate::objective::Distillation;
use crate::policy::Policy;
use crate::reward::{Outcome, Reward};
use crate::senior::Senior;
use crate::strategy::{Strategy, strategies};
use crate::supervision::{Row, StudentObjective, Supervision};
use crate::teaching::Teaching;

/// The file of the trained policy.
const POLICY: &str = "policy.safetensors";
/// The file of MulDE's Senior.
const SENIOR: &str = "senior.safetensors";

/// The student with everything it learns from.
pub struct Student<'a> {
    data: &'a Data,
    engine: Engine,
    /// Where the engine is on a device.
    on_device: Option<OnDevice<'a>>,
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
    /// The sum of the Senior's attention to each teacher.
    attention: Vec<f64>,
    /// The queries that it is summed over.
    attended: u64,
}

impl<'a> Student<'a> {
    /// A student that starts from `engine`; without `teaching` it learns alone.
    pub fn new(
        data: &'a Data,
        teaching: Option<Teaching<'a>>,
        engine: impl Into<Engine>,
        recipe: &'a Distill,
        seed: u64,
    ) -> Self {
        let engine = engine.into();
        Student { data, engine, on_device: None, recipe, seed, teaching, tally: Tally::default() }
    }

    /// The same with the `objective` of a device, where the engine is on one.
    ///
    /// # Errors
    /// If its memory does not hold the policy's network.
    pub fn with_device(mut self, objective: Option<cuda::Distil<'a>>) -> Result<Self> {
        let policy = self.teaching.as_ref().and_then(|teaching| teaching.chooser.policy());
        let new = |objective| OnDevice::new(objective, policy, self.recipe);
        self.on_device = objective.map(new).transpose()?;
        Ok(self)
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

    fn prepare(&mut self, next: &[u32]) {
        if let Some(on_device) = &mut self.on_device {
            on_device.objective.announce(next);
        }
    }

    fn step(&mut self, batch: &[u32]) -> Result<StepLoss> {
        self.ask_policy(batch)?;
        let actions = match &mut self.teaching {
            Some(teaching) => teaching.act(self.data, batch, self.recipe.selection.action()),
            None => Vec::new(),
        };
        let (loss, Row { distillation, outcomes, .. }) = self.learn(batch, &actions)?;
        self.tally.pairs += loss.pairs;
        self.tally.distillation += distillation;
        actions.iter().flatten().for_each(|strategy| self.tally.actions[strategy.index()] += 1);
        self.reinforce(batch, &outcomes)?;
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
        if let Some(senior) = self.senior() {
            let mean = tally.attention.iter().map(|sum| sum / tally.attended as f64).collect();
            figures.insert("attention".to_owned(), teaching.by_teacher(mean));
            figures.insert("scales".to_owned(), teaching.by_teacher(senior.mean_scales()));
        }
        if tally.outcomes > 0 {
            let mean = |sum: f64| json!(sum / tally.outcomes as f64);
            figures.insert("policy_loss".to_owned(), mean(tally.policy_loss));
            figures.insert("reward".to_owned(), mean(tally.reward));
            figures.insert("with_advantage".to_owned(), mean(tally.with_advantage as f64));
        }
        figures
    }

    fn valid_ranks(&mut self, data: &Data) -> Result<Vec<[Rank; 2]>> {
        self.engine.valid_ranks(data)
    }

    fn require_finite(&mut self) -> Result<()> {
        self.engine.require_finite()?;
        self.read_policy()?;
        self.senior().map_or(Ok(()), Senior::require_finite)?;
        self.policy().map_or(Ok(()), Policy::require_finite)
    }

    fn state(&mut self) -> Result<Tensors<'_>> {
        self.read_policy()?;
        let chooser = self.teaching.as_ref().map(|teaching| &teaching.chooser);
        let tensors = Tensors::default().nested("student", self.engine.state()?);
        let tensors = match chooser.and_then(|chooser| chooser.senior()) {
            Some(senior) => tensors.nested("senior", senior.state()),
            None => tensors,
        };
        Ok(match chooser.and_then(|chooser| chooser.policy()) {
            Some(policy) => tensors.nested("policy", policy.state()),
            None => tensors,
        })
    }

    fn counters(&self) -> Vec<u64> {
        self.policy().map(Policy::steps).or(self.senior().map(Senior::steps)).into_iter().collect()
    }

    fn restore(&mut self, state: &Reader, counters: &[u64]) -> Result<()> {
        self.engine.restore(state, "student")?;
        let senior = self.teaching.as_mut().and_then(|teaching| teaching.chooser.senior_mut());
        if let (Some(senior), &[steps]) = (senior, counters) {
            return senior.restore(state, "senior", steps);
        }
        let policy = self.teaching.as_mut().and_then(|teaching| teaching.chooser.policy_mut());
        match (policy, counters) {
            (Some(policy), &[steps]) => {
                policy.restore(state, "policy", steps)?;
                self.on_device.as_mut().map_or(Ok(()), |on_device| on_device.write(policy))
            }
            (None, _) => Ok(()),
            (Some(_), _) => {
                Err(Error::data("the checkpoint has no policy").at(state.path()).hint("rerun with --force"))
            }
        }
    }

    fn write_best(&mut self, work: &Work) -> Result<()> {
        self.engine.parts()?.0.tensors().write(&work.path(MODEL))?;
        self.write_choosers(work)
    }
}

impl Student<'_> {
    /// One step; all rows' distillation, and what became of the actions.
    fn learn(&mut self, batch: &[u32], actions: &[Vec<Strategy>]) -> Result<(StepLoss, Row)> {
        let (queries, terms) = (&self.data.queries, Distillation::from(&self.recipe.term));
        let reward = self.recipe.selection.policy().map(Reward::from);
        let supervision = match &self.teaching {
            None => Supervision::Alone,
            Some(teaching) => match &teaching.chooser {
                Chooser::Senior(senior) => Supervision::Senior { teachers: teaching.sources(), senior },
                _ => Supervision::Strategies { teachers: teaching.sources(), actions, reward },
            },
        };
        match (&mut self.engine, &mut self.on_device) {
            (Engine::Cpu(trainer), _) => {
                let objective = StudentObjective { queries, terms, supervision };
                let (loss, rows) = trainer.step(queries, batch, &objective)?;
                let distillation = rows.iter().map(|row| row.distillation).sum::<f64>();
                self.teach_senior(&rows, loss.pairs);
                let outcomes = rows.into_iter().flat_map(|row| row.outcomes).collect();
                Ok((loss, Row { distillation, outcomes, lesson: None }))
            }
            (Engine::Device(trainer), Some(on_device)) => {
                let combinations = Combinations::new(supervision, queries, batch);
                if let Some(combinations) = &combinations {
                    on_device.objective.set_groups(combinations.groups.clone());
                }
                let (loss, taught) = trainer.step(queries, batch, &mut on_device.objective)?;
                let outcomes =
                    combinations.map(|of| of.outcomes(queries, batch, &taught)).unwrap_or_default();
                Ok((loss, Row { distillation: taught.distillation, outcomes, lesson: None }))
            }
            (Engine::Device(_), None) => Err(Error::new(Kind::Unexpected, "a device without its objective")),
        }
    }

    fn policy(&self) -> Option<&Policy<'_, f32>> {
        self.teaching.as_ref().and_then(|teaching| teaching.chooser.policy())
    }

    fn senior(&self) -> Option<&Senior> {
        self.teaching.as_ref().and_then(|teaching| teaching.chooser.senior())
    }

    /// What it learns from the teachers, if it does.
    pub(crate) fn teaching(&self) -> Option<&Teaching<'_>> {
        self.teaching.as_ref()
    }

    /// Writes what learns whom to listen to, if anything does.
    fn write_choosers(&mut self, work: &Work) -> Result<()> {
        self.read_policy()?;
        self.senior().map_or(Ok(()), |senior| senior.tensors().write(&work.path(SENIOR)))?;
        self.policy().map_or(Ok(()), |policy| policy.tensors().write(&work.path(POLICY)))
    }

    /// Writes what the policy that was kept thinks of every training query, if there is one.
    pub(crate) fn write_choices(&mut self, work: &Work) -> Result<()> {
        let Some(teaching) = &mut self.teaching else { return Ok(()) };
        let teachers = teaching.labels.teachers();
        let Some(policy) = teaching.chooser.policy_mut() else { return Ok(()) };
        policy.load(&Reader::open(&work.path(POLICY))?)?;
        self.on_device.as_mut().map_or(Ok(()), |on_device| on_device.write(policy))?;
        let (data, at_once) = (self.data, self.data.largest_batch(self.recipe.training.batch));
        let mut ask = |batch: &[u32], into: &mut Matrix<f32>| {
            ask(policy, self.on_device.as_mut(), data, batch)?;
            into.clone_from(policy.said());
            Ok(())
        };
        choices::write(&work.path(choices::FILE), data, teachers, &mut ask, at_once)
    }

    /// Asks a policy that learns from this student about a batch.
    fn ask_policy(&mut self, batch: &[u32]) -> Result<()> {
        match self.teaching.as_mut().and_then(|teaching| teaching.chooser.policy_mut()) {
            Some(policy) => ask(policy, self.on_device.as_mut(), self.data, batch),
            None => Ok(()),
        }
    }

    /// Has the policy's network on the host as it stands.
    fn read_policy(&mut self) -> Result<()> {
        let policy = self.teaching.as_mut().and_then(|teaching| teaching.chooser.policy_mut());
        match (policy, &mut self.on_device) {
            (Some(policy), Some(on_device)) => on_device.read(policy),
            _ => Ok(()),
        }
    }

    /// A step of the Senior, if there is one.
    fn teach_senior(&mut self, rows: &[Row], pairs: usize) {
        let senior = self.teaching.as_mut().and_then(|teaching| teaching.chooser.senior_mut());
        let Some(senior) = senior else { return };
        let lessons = || rows.iter().filter_map(|row| row.lesson.as_ref());
        senior.learn(lessons(), pairs);
        for lesson in lessons() {
            let sums = &mut self.tally.attention;
            sums.resize(lesson.attention().len(), 0.0);
            sums.iter_mut().zip(lesson.attention()).for_each(|(sum, attention)| *sum += attention);
            self.tally.attended += 1;
        }
    }

    /// A step of the policy that was asked about this batch, if there is one.
    fn reinforce(&mut self, batch: &[u32], outcomes: &[Outcome]) -> Result<()> {
        let Some(policy) = self.teaching.as_mut().and_then(|teaching| teaching.chooser.policy_mut()) else {
            return Ok(());
        };
        let loss = match &mut self.on_device {
            Some(on_device) => on_device.reinforce(policy, &self.data.queries, batch, outcomes)?,
            None => None,
        };
        let loss = loss.unwrap_or_else(|| policy.reinforce(outcomes));
        self.tally.policy_loss += loss * outcomes.len() as f64;
        self.tally.reward += outcomes.iter().map(|outcome| outcome.reward).sum::<f64>();
        self.tally.with_advantage +=
            outcomes.iter().filter(|outcome| outcome.advantage() != 0.0).count() as u64;
        self.tally.outcomes += outcomes.len() as u64;
        Ok(())
    }
}

/// Asks a policy about a batch, on the device if its network is there.
fn ask(
    policy: &mut Policy<'_, f32>,
    on_device: Option<&mut OnDevice<'_>>,
    data: &Data,
    batch: &[u32],
) -> Result<()> {
    let is_there = on_device.map_or(Ok(false), |on_device| on_device.ask(policy, &data.queries, batch))?;
    if !is_there {
        policy.forward(batch);
    }
    Ok(())
}
