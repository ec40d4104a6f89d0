//! A student on a device: scores, combinations and gradients stay there, and so does the policy's network. Of a batch the
//! log-probabilities come down before the step and the gradients of the logits go up after it; of every pair of query and tail
//! it comes back whether the teachers chosen, and all together, answer it better than the student.

use device::{
    BatchCrossEntropy, BatchDistillation, BatchFigures, Combination, Device, DeviceModel, DeviceNetwork,
    DeviceTeachers, DeviceTrainer, Guidance, TeacherSource, Terms,
};
use dsom_soft_labels::SoftLabels;
use kge::{Matrix, Model, StepLoss};
use mkg::QuerySet;
use recipe::{Distill, Neighbours, Precision, Term};
use stage::{Error, Kind, Result};
use training::{Data, Engine};

use super::{Lessons, StudentEngine};
use crate::inputs;
use crate::objective::{Distillation, Division};
use crate::policy::{Policy, RemotePolicy};
use crate::reward::{Reward, RewardedAction};
use crate::senior::{Lesson, Senior};
use crate::strategy::{Strategy, by_strategy};
use crate::supervision::Supervision;

/// A student on a device.
pub(crate) struct DeviceStudent<'a> {
    device: Device,
    precision: Precision,
    queries: &'a QuerySet,
    trainer: DeviceTrainer<f32>,
    /// None for a student that learns alone.
    terms: Option<Terms>,
    teachers: Option<DeviceTeachers<'a>>,
    policy: Option<RemotePolicy>,
}

impl<'a> DeviceStudent<'a> {
    /// One that learns by a term, from no teachers yet.
    pub(crate) fn new(
        device: &Device,
        precision: Precision,
        trainer: DeviceTrainer<f32>,
        queries: &'a QuerySet,
        term: &Term,
    ) -> Self {
        let (device, terms) = (device.clone(), terms(term));
        DeviceStudent { device, precision, queries, trainer, terms, teachers: None, policy: None }
    }

    /// The same with the teachers of `labels`: copied from there, or computed anew by `models`.
    ///
    /// # Errors
    /// If the device's memory does not hold them.
    pub(crate) fn with_teachers(
        self,
        labels: Option<&'a SoftLabels>,
        models: Option<&[Model<f32>]>,
    ) -> Result<Self> {
        let source = match (models, labels) {
            (Some(models), _) => {
                let models = models.iter().map(|model| DeviceModel::new(&self.device, model));
                Some(TeacherSource::Models(models.collect::<Result<_>>()?))
            }
            (None, labels) => labels.map(cached),
        };
        let scores = |source| DeviceTeachers::new::<f32>(&self.device, self.precision, source);
        Ok(DeviceStudent { teachers: source.map(scores), ..self })
    }

    /// The same with the network of `policy`, if there is one.
    ///
    /// # Errors
    /// If the device's memory does not hold it.
    pub(crate) fn with_policy(self, policy: Option<&Policy<'_, f32>>, recipe: &Distill) -> Result<Self> {
        let policy = match (policy, recipe.selection.policy()) {
            (Some(policy), Some(keys)) => Some(RemotePolicy::new(&self.device, policy, keys.state)?),
            _ => None,
        };
        Ok(DeviceStudent { policy, ..self })
    }

    /// One step that the teachers guide.
    fn step(&mut self, batch: &[u32], guidance: &Guidance) -> Result<(StepLoss, BatchFigures)> {
        let (Some(terms), Some(teachers)) = (self.terms, &mut self.teachers) else {
            return Err(Error::new(Kind::Unexpected, "a student without teachers is guided by some"));
        };
        let mut objective = BatchDistillation::new(terms, teachers, guidance);
        self.trainer.step(self.queries, batch, &mut objective)
    }

    /// A step with the teachers of each query's actions.
    fn by_strategies(
        &mut self,
        batch: &[u32],
        teachers: usize,
        actions: &[Vec<Strategy>],
        reward: Option<Reward>,
    ) -> Result<(StepLoss, Lessons)> {
        let all = vec![1.0 / teachers as f32; batch.len() * teachers];
        let guidance = Guidance::Combined {
            combinations: combinations(self.queries, batch, teachers, actions),
            baseline: reward.map(|_| Matrix::from_values(batch.len(), teachers, all)),
        };
        let (loss, taught) = self.step(batch, &guidance)?;
        let outcomes = reward.map(|reward| outcomes(self.queries, batch, teachers, actions, reward, &taught));
        let outcomes = outcomes.unwrap_or_default();
        Ok((loss, Lessons { distillation: taught.distillation, outcomes, ..Lessons::default() }))
    }

    /// A step with all teachers, as MulDE's Senior integrates them.
    fn by_senior(&mut self, batch: &[u32], senior: &Senior) -> Result<(StepLoss, Lessons)> {
        let relations = || batch.iter().map(|query| self.queries.query(*query as usize).relation);
        let scales: Vec<f32> =
            relations().flat_map(|relation| senior.scales(relation)).map(|x| x as f32).collect();
        let scales = Matrix::from_values(batch.len(), scales.len() / batch.len().max(1), scales);
        let guidance = Guidance::Integrated { scales, temperature: senior.temperature() };
        let relations: Vec<_> = relations().collect();
        let (loss, taught) = self.step(batch, &guidance)?;
        let Some([attention, gradient]) = taught.integration else {
            return Err(Error::new(Kind::Unexpected, "the Senior was told nothing"));
        };
        let lesson =
            |(row, relation)| Lesson::new(relation, gradient.row(row).to_vec(), attention.row(row).to_vec());
        let senior = relations.into_iter().enumerate().map(lesson).collect();
        Ok((loss, Lessons { distillation: taught.distillation, senior, ..Lessons::default() }))
    }
}

impl StudentEngine for DeviceStudent<'_> {
    fn model(&mut self) -> &mut dyn Engine {
        &mut self.trainer
    }

    fn teach(&mut self, batch: &[u32], supervision: Supervision<'_>) -> Result<(StepLoss, Lessons)> {
        match supervision {
            Supervision::Alone => {
                let (loss, ()) = self.trainer.step(self.queries, batch, &mut BatchCrossEntropy)?;
                Ok((loss, Lessons::default()))
            }
            Supervision::Strategies { teachers, actions, reward } => {
                self.by_strategies(batch, teachers.labels.teachers().len(), actions, reward)
            }
            Supervision::Senior { senior, .. } => self.by_senior(batch, senior),
        }
    }

    fn ask(&mut self, policy: &mut Policy<'_, f32>, batch: &[u32]) -> Result<()> {
        match (&mut self.policy, &mut self.teachers) {
            (Some(remote), Some(teachers)) => remote.ask(policy, teachers, self.queries, batch),
            _ => Err(Error::new(Kind::Unexpected, "a policy that the device does not have")),
        }
    }

    fn reinforce(&mut self, policy: &mut Policy<'_, f32>, outcomes: &[RewardedAction]) -> Result<f64> {
        match &mut self.policy {
            Some(remote) => remote.reinforce(policy, outcomes),
            None => Err(Error::new(Kind::Unexpected, "a policy that the device does not have")),
        }
    }

    fn read_policy(&mut self, policy: &mut Policy<'_, f32>) -> Result<()> {
        self.policy.as_mut().map_or(Ok(()), |remote| remote.read(policy))
    }

    fn write_policy(&mut self, policy: &mut Policy<'_, f32>) -> Result<()> {
        self.policy.as_mut().map_or(Ok(()), |remote| remote.write(policy))
    }
}

/// A term as the device has it; none for a student that learns alone.
fn terms(term: &Term) -> Option<Terms> {
    let Distillation { division, tau, alpha, beta, neighbours, weight } = Distillation::from(term);
    let term = match division {
        Division::None => return None,
        Division::Whole => device::Divergence::Kd,
        Division::Neighbours => device::Divergence::Ndkd,
        Division::Target => device::Divergence::Dkd,
    };
    Some(Terms { term, mean: neighbours == Neighbours::Mean, tau, alpha, beta, weight })
}

/// Scores and vectors of a cache.
fn cached(labels: &SoftLabels) -> TeacherSource<'_> {
    TeacherSource::Cache {
        teachers: labels.teachers().len(),
        scores: Box::new(|query, teacher| labels.stored(query, teacher)),
        vectors: Box::new(|query, teacher| labels.vector(query, teacher)),
    }
}

/// The combinations of each query's actions, with the tails that each is for (Eq. 7).
fn combinations(
    queries: &QuerySet,
    batch: &[u32],
    teachers: usize,
    actions: &[Vec<Strategy>],
) -> Vec<Vec<Combination>> {
    let combination = |(strategy, tails): (Strategy, Vec<usize>)| {
        let weight = |teacher| if strategy.has(teacher) { strategy.share() } else { 0.0 };
        Combination { weights: (0..teachers).map(weight).collect(), tails }
    };
    let of_query = |(query, actions): (&u32, &Vec<Strategy>)| {
        let tails = queries.tails(*query as usize).len();
        by_strategy(actions, tails).into_iter().map(combination).collect()
    };
    batch.iter().zip(actions).map(of_query).collect()
}

/// The reward of each pair's action and of the baseline, given which of them answer better than the student (Eq. 8).
fn outcomes(
    queries: &QuerySet,
    batch: &[u32],
    teachers: usize,
    actions: &[Vec<Strategy>],
    reward: Reward,
    taught: &BatchFigures,
) -> Vec<RewardedAction> {
    let all = Strategy::all(teachers);
    let pairs = batch.iter().zip(actions).enumerate().flat_map(|(row, (query, actions))| {
        let tails = 0..queries.tails(*query as usize).len();
        tails.map(move |tail| (row, actions[tail % actions.len()]))
    });
    let outcome = |((row, strategy), answer): ((usize, Strategy), &device::Comparison)| {
        // Both are the same combination, whatever the device rounds.
        let chosen = if strategy == all { answer.baseline } else { answer.chosen };
        let (reward, baseline) = (reward.given(chosen), reward.given(answer.baseline));
        RewardedAction { row, strategy, reward, baseline }
    };
    pairs.zip(&taught.answers).map(outcome).collect()
}

/// Bytes of the device's memory that what teaches the student takes; `teachers` are those whose scores are computed there.
pub(super) fn memory(
    data: &Data,
    distill: &Distill,
    labels: Option<&SoftLabels>,
    teachers: Option<&[Model<f32>]>,
    queries: usize,
) -> u64 {
    let Some(labels) = labels else { return 0 };
    let mut bytes = BatchDistillation::memory(data.entities(), queries, labels.teachers().len());
    bytes += teachers.into_iter().flatten().map(|model| DeviceModel::memory(model, queries)).sum::<u64>();
    if let Some(policy) = distill.selection.policy() {
        bytes += DeviceNetwork::memory(&inputs::widths(policy.state, labels), policy.hidden, queries);
    }
    bytes
}
