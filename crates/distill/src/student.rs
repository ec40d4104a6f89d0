//! The student in training: each step asks the policy, visits the rows, and rewards the policy.

use kge::checkpoint::{NamedTensors, TensorReader};
use kge::{Matrix, Rank, StepLoss, Trainer};
use recipe::Distill;
use serde_json::{Map, Value, json};
use stage::work::Work;
use stage::{Error, Result};
use training::{Data, Learner, MODEL};

use crate::choices;
use crate::chooser::Chooser;
use crate::engine::{CpuStudent, Lessons, StudentEngine};
use crate::policy::Policy;
use crate::reward::{Reward, RewardedAction};
use crate::senior::{Lesson, Senior};
use crate::strategy::{Strategy, strategies};
use crate::supervision::Supervision;
use crate::teaching::Teaching;

/// The file of the trained policy.
const POLICY: &str = "policy.safetensors";
/// The file of MulDE's Senior.
const SENIOR: &str = "senior.safetensors";

/// The student with everything it learns from.
pub struct Student<'a> {
    data: &'a Data,
    engine: Box<dyn StudentEngine + 'a>,
    recipe: &'a Distill,
    seed: u64,
    teaching: Option<Teaching<'a>>,
    tally: EpochTally,
}

/// Figures of one epoch for the event log.
#[derive(Default)]
struct EpochTally {
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
    /// A student in training by `engine`; without `teaching` it learns alone.
    pub(crate) fn new(
        data: &'a Data,
        teaching: Option<Teaching<'a>>,
        engine: Box<dyn StudentEngine + 'a>,
        recipe: &'a Distill,
        seed: u64,
    ) -> Self {
        Student { data, engine, recipe, seed, teaching, tally: EpochTally::default() }
    }

    /// The same on the CPU, starting from `trainer`.
    pub fn on_cpu(
        data: &'a Data,
        teaching: Option<Teaching<'a>>,
        trainer: Trainer<f32>,
        recipe: &'a Distill,
        seed: u64,
    ) -> Self {
        let engine = Box::new(CpuStudent::new(data, &recipe.term, trainer));
        Student::new(data, teaching, engine, recipe, seed)
    }
}

impl Learner for Student<'_> {
    fn begin_epoch(&mut self, epoch: usize) {
        self.tally = EpochTally::default();
        if let Some(teaching) = &mut self.teaching {
            teaching.begin_epoch(self.seed, epoch);
            self.tally.actions = vec![0; strategies(teaching.labels.teachers().len())];
        }
    }

    fn step(&mut self, batch: &[u32]) -> Result<StepLoss> {
        self.ask_policy(batch)?;
        let actions = match &mut self.teaching {
            Some(teaching) => teaching.act(self.data, batch, self.recipe.selection.action()),
            None => Vec::new(),
        };
        let (loss, Lessons { distillation, outcomes, senior }) = self.learn(batch, &actions)?;
        self.tally.pairs += loss.pairs;
        self.tally.distillation += distillation;
        self.teach_senior(&senior, loss.pairs);
        actions.iter().flatten().for_each(|strategy| self.tally.actions[strategy.index()] += 1);
        self.reinforce(&outcomes)?;
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
        self.engine.model().valid_ranks(data)
    }

    fn require_finite(&mut self) -> Result<()> {
        self.engine.model().require_finite()?;
        self.read_policy()?;
        self.senior().map_or(Ok(()), Senior::require_finite)?;
        self.policy().map_or(Ok(()), Policy::require_finite)
    }

    fn state(&mut self) -> Result<NamedTensors<'_>> {
        self.read_policy()?;
        let chooser = self.teaching.as_ref().map(|teaching| &teaching.chooser);
        let tensors = NamedTensors::default().nested("student", self.engine.model().state()?);
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

    fn restore(&mut self, state: &TensorReader, counters: &[u64]) -> Result<()> {
        self.engine.model().restore(state, "student")?;
        let senior = self.teaching.as_mut().and_then(|teaching| teaching.chooser.senior_mut());
        if let (Some(senior), &[steps]) = (senior, counters) {
            return senior.restore(state, "senior", steps);
        }
        let policy = self.teaching.as_mut().and_then(|teaching| teaching.chooser.policy_mut());
        match (policy, counters) {
            (Some(policy), &[steps]) => {
                policy.restore(state, "policy", steps)?;
                self.engine.write_policy(policy)
            }
            (None, _) => Ok(()),
            (Some(_), _) => {
                Err(Error::data("the checkpoint has no policy").at(state.path()).hint("rerun with --force"))
            }
        }
    }

    fn write_best(&mut self, work: &Work) -> Result<()> {
        self.engine.model().parts()?.0.tensors().write(&work.path(MODEL))?;
        self.write_choosers(work)
    }
}

impl Student<'_> {
    /// One step, and what it leaves behind.
    fn learn(&mut self, batch: &[u32], actions: &[Vec<Strategy>]) -> Result<(StepLoss, Lessons)> {
        let reward = self.recipe.selection.policy().map(Reward::from);
        let supervision = match &self.teaching {
            None => Supervision::Alone,
            Some(teaching) => match &teaching.chooser {
                Chooser::Senior(senior) => Supervision::Senior { teachers: teaching.sources(), senior },
                _ => Supervision::Strategies { teachers: teaching.sources(), actions, reward },
            },
        };
        self.engine.teach(batch, supervision)
    }

    fn policy(&self) -> Option<&Policy<'_, f32>> {
        self.teaching.as_ref().and_then(|teaching| teaching.chooser.policy())
    }

    fn senior(&self) -> Option<&Senior> {
        self.teaching.as_ref().and_then(|teaching| teaching.chooser.senior())
    }

    /// Returns its lessons from the teachers, if it has any.
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
        policy.load(&TensorReader::open(&work.path(POLICY))?)?;
        self.engine.write_policy(policy)?;
        let (data, at_once) = (self.data, self.data.largest_batch(self.recipe.training.batch));
        let mut ask = |batch: &[u32], into: &mut Matrix<f32>| {
            self.engine.ask(policy, batch)?;
            into.clone_from(policy.said());
            Ok(())
        };
        choices::write(&work.path(choices::FILE), data, teachers, &mut ask, at_once)
    }

    /// Asks a policy that learns from this student about a batch.
    fn ask_policy(&mut self, batch: &[u32]) -> Result<()> {
        match self.teaching.as_mut().and_then(|teaching| teaching.chooser.policy_mut()) {
            Some(policy) => self.engine.ask(policy, batch),
            None => Ok(()),
        }
    }

    /// Has the policy's network on the host as it stands.
    fn read_policy(&mut self) -> Result<()> {
        match self.teaching.as_mut().and_then(|teaching| teaching.chooser.policy_mut()) {
            Some(policy) => self.engine.read_policy(policy),
            None => Ok(()),
        }
    }

    /// A step of the Senior, if there is one.
    fn teach_senior(&mut self, lessons: &[Lesson], pairs: usize) {
        let senior = self.teaching.as_mut().and_then(|teaching| teaching.chooser.senior_mut());
        let Some(senior) = senior else { return };
        senior.learn(lessons.iter(), pairs);
        for lesson in lessons {
            let sums = &mut self.tally.attention;
            sums.resize(lesson.attention().len(), 0.0);
            sums.iter_mut().zip(lesson.attention()).for_each(|(sum, attention)| *sum += attention);
            self.tally.attended += 1;
        }
    }

    /// A step of the policy that was asked about this batch, if there is one.
    fn reinforce(&mut self, outcomes: &[RewardedAction]) -> Result<()> {
        let Some(policy) = self.teaching.as_mut().and_then(|teaching| teaching.chooser.policy_mut()) else {
            return Ok(());
        };
        let loss = self.engine.reinforce(policy, outcomes)?;
        self.tally.policy_loss += loss * outcomes.len() as f64;
        self.tally.reward += outcomes.iter().map(|outcome| outcome.reward).sum::<f64>();
        self.tally.with_advantage +=
            outcomes.iter().filter(|outcome| outcome.advantage() != 0.0).count() as u64;
        self.tally.outcomes += outcomes.len() as u64;
        Ok(())
    }
}
