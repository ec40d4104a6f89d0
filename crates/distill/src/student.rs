//! The student in training: each step asks the policy, visits the rows, and sends rewards to the policy.

use kge::checkpoint::{NamedTensors, TensorReader};
use kge::{Initial, Model, StepLoss};
use recipe::Distill;
use serde_json::{Map, Value, json};
use stage::work::Work;
use stage::{Result, interrupt};
use training::{Data, Engine, Learner, MODEL, Place};

use crate::choices;
use crate::engine::{StudentEngine, student_engine};
use crate::senior::Senior;
use crate::strategy::{Strategy, strategies};
use crate::supervision::{Lessons, Supervision};
use crate::teaching::Teaching;

const POLICY: &str = "policy.safetensors";
const SENIOR: &str = "senior.safetensors";

/// The student, with everything from which it learns.
pub struct Student<'a> {
    data: &'a Data,
    engine: Box<dyn StudentEngine + 'a>,
    recipe: &'a Distill,
    pub(crate) teaching: Option<Teaching<'a>>,
    tally: EpochTally,
}

/// Sums of one epoch's figures for the event log; counts are whole numbers although they are `f64`.
#[derive(Default)]
struct EpochTally {
    actions: Vec<f64>,
    distillation: f64,
    policy_loss: f64,
    reward: f64,
    with_advantage: f64,
    outcomes: f64,
    pairs: f64,
    /// The Senior's attention to each teacher.
    attention: Vec<f64>,
    /// Number of queries in the sum of `attention`.
    attended: f64,
}

impl<'a> Student<'a> {
    /// A student that starts from `initial` and learns at a `place`; without `teaching` it learns alone. On a device,
    /// `teachers` compute their scores anew, if given. An error if the student does not fit a device's memory.
    pub fn new(
        place: &Place,
        initial: Initial<f32>,
        data: &'a Data,
        teaching: Option<Teaching<'a>>,
        teachers: Option<&[Model<f32>]>,
        recipe: &'a Distill,
    ) -> Result<Self> {
        let of = teaching.as_ref();
        let (labels, policy) = (of.map(|of| of.sources.labels), of.and_then(|of| of.policy.as_ref()));
        let engine = student_engine(place, initial, data, recipe, labels, teachers, policy)?;
        Ok(Student { data, engine, recipe, teaching, tally: EpochTally::default() })
    }
}

impl EpochTally {
    /// Adds a batch of `pairs` pairs of query and tail.
    fn add(&mut self, pairs: usize, actions: &[Vec<Strategy>], lessons: &Lessons) {
        self.pairs += pairs as f64;
        self.distillation += lessons.distillation;
        actions.iter().flatten().for_each(|strategy| self.actions[strategy.0] += 1.0);
        for lesson in &lessons.senior {
            self.attention.resize(lesson.attention.len(), 0.0);
            self.attention.iter_mut().zip(&lesson.attention).for_each(|(sum, attention)| *sum += attention);
            self.attended += 1.0;
        }
        self.outcomes += lessons.outcomes.len() as f64;
        self.reward += lessons.outcomes.iter().map(|outcome| outcome.reward).sum::<f64>();
        self.with_advantage += lessons.outcomes.iter().filter(|of| of.advantage() != 0.0).count() as f64;
    }
}

impl Learner for Student<'_> {
    fn begin_epoch(&mut self, epoch: usize) {
        self.tally = EpochTally::default();
        if let Some(teaching) = &mut self.teaching {
            teaching.begin_epoch(epoch);
            self.tally.actions = vec![0.0; strategies(teaching.teachers().len())];
        }
    }

    fn step(&mut self, batch: &[u32]) -> Result<StepLoss> {
        let Student { data, engine, recipe, teaching, tally } = self;
        let Some(teaching) = teaching else { return Ok(engine.teach(batch, Supervision::Alone)?.0) };
        if let Some(policy) = &mut teaching.policy {
            engine.ask(policy, batch)?;
        }
        let actions = teaching.act(data, batch, recipe.selection.action());
        let (teachers, reward) = (&teaching.sources, recipe.selection.policy());
        let supervision = match &teaching.senior {
            Some(senior) => Supervision::Senior { teachers, senior },
            None => Supervision::Strategies { teachers, actions: &actions, reward },
        };
        let (loss, lessons) = engine.teach(batch, supervision)?;
        tally.add(loss.pairs, &actions, &lessons);
        if let Some(senior) = &mut teaching.senior {
            senior.learn(&lessons.senior, loss.pairs as f64);
        }
        if let Some(policy) = &mut teaching.policy {
            tally.policy_loss += engine.reinforce(policy, &lessons.outcomes)? * lessons.outcomes.len() as f64;
        }
        Ok(loss)
    }

    fn end_epoch(&mut self) -> Map<String, Value> {
        let Some(teaching) = &self.teaching else { return Map::new() };
        let (tally, total) = (&self.tally, self.tally.actions.iter().sum::<f64>());
        let names = Strategy::every(teaching.teachers().len()).into_iter();
        let names = names.map(|strategy| strategy.name(teaching.teachers()));
        let strategies: Value = names.zip(tally.actions.iter().map(|count| count / total)).collect();
        let mut figures = Map::from_iter([
            ("distillation".to_owned(), json!(tally.distillation / tally.pairs)),
            ("strategies".to_owned(), strategies),
        ]);
        if let Some(senior) = &teaching.senior {
            let mean = tally.attention.iter().map(|sum| sum / tally.attended).collect();
            figures.insert("attention".to_owned(), teaching.by_teacher(mean));
            figures.insert("scales".to_owned(), teaching.by_teacher(senior.mean_scales()));
        }
        if tally.outcomes > 0.0 {
            let EpochTally { policy_loss, reward, with_advantage, .. } = *tally;
            let sums = [("policy_loss", policy_loss), ("reward", reward), ("with_advantage", with_advantage)];
            figures.extend(sums.map(|(name, sum)| (name.to_owned(), json!(sum / tally.outcomes))));
        }
        figures
    }

    fn engine(&mut self) -> &mut dyn Engine {
        self.engine.model()
    }

    fn require_finite(&mut self) -> Result<()> {
        self.engine.model().require_finite()?;
        self.read_policy()?;
        let Some(teaching) = &self.teaching else { return Ok(()) };
        teaching.senior.as_ref().map_or(Ok(()), Senior::require_finite)?;
        teaching.policy.as_ref().map_or(Ok(()), |policy| policy.require_finite(teaching.teachers()))
    }

    fn state(&mut self) -> Result<NamedTensors<'_>> {
        self.read_policy()?;
        let mut tensors = NamedTensors::default().nested("student", self.engine.model().state()?);
        let Some(teaching) = &self.teaching else { return Ok(tensors) };
        if let Some(senior) = &teaching.senior {
            tensors = tensors.nested("senior", senior.state());
        }
        if let Some(policy) = &teaching.policy {
            tensors = tensors.nested("policy", policy.state(teaching.teachers()));
        }
        Ok(tensors)
    }

    fn restore(&mut self, state: &TensorReader) -> Result<()> {
        self.engine.model().restore(state, "student")?;
        let Some(teaching) = &mut self.teaching else { return Ok(()) };
        let teachers = teaching.teachers();
        if let Some(senior) = &mut teaching.senior {
            senior.restore(state, "senior")?;
        }
        let Some(policy) = &mut teaching.policy else { return Ok(()) };
        policy.restore(teachers, state, "policy")?;
        self.engine.write_policy(policy)
    }

    fn write_best(&mut self, work: &Work) -> Result<()> {
        self.engine.model().parts()?.0.tensors().write(&work.path(MODEL))?;
        self.read_policy()?;
        let Some(teaching) = &self.teaching else { return Ok(()) };
        teaching.senior.as_ref().map_or(Ok(()), |senior| senior.tensors().write(&work.path(SENIOR)))?;
        let Some(policy) = &teaching.policy else { return Ok(()) };
        policy.tensors(teaching.teachers()).write(&work.path(POLICY))
    }
}

impl Student<'_> {
    /// Writes the kept policy's probabilities for every training query, if there is a policy.
    pub(crate) fn write_choices(&mut self, work: &Work) -> Result<()> {
        let Some(teaching) = &mut self.teaching else { return Ok(()) };
        let teachers = teaching.teachers();
        let Some(policy) = &mut teaching.policy else { return Ok(()) };
        policy.load(teachers, &TensorReader::open(&work.path(POLICY))?)?;
        self.engine.write_policy(policy)?;
        let mut said = Vec::new();
        for batch in self.data.numbers().chunks(self.data.largest_batch(self.recipe.training.batch)) {
            interrupt::check()?;
            self.engine.ask(policy, batch)?;
            said.extend_from_slice(policy.said.values());
        }
        choices::write(&work.path(choices::FILE), self.data, teachers, &said)
    }

    /// Brings the host's copy of the policy's network up to date.
    fn read_policy(&mut self) -> Result<()> {
        match self.teaching.as_mut().and_then(|teaching| teaching.policy.as_mut()) {
            Some(policy) => self.engine.read_policy(policy),
            None => Ok(()),
        }
    }
}
