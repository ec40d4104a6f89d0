//! A student on a device: scores, combinations, gradients and the policy's network stay there. For a batch, the host
//! reads log-probabilities before the step and sends gradients of the logits after it. For each pair of query and tail,
//! it reads whether the chosen teachers, and all teachers together, answer better than the student.

use device::{
    BatchCrossEntropy, BatchDistillation, BatchFigures, Combination, Device, DeviceModel, DeviceNetwork,
    DeviceTeachers, DeviceTrainer, Guidance, TeacherSource, Terms,
};
use dsom_soft_labels::SoftLabels;
use kge::checkpoint::TensorReader;
use kge::{Initial, Matrix, Model, Real, StepLoss};
use recipe::{Distill, PolicyKeys, PolicyState, Precision};
use stage::manifest::{self, Manifest};
use stage::{Error, Kind, Result, Run};
use training::{Data, Engine, MODEL};

use super::StudentEngine;
use crate::adam::{Adam, rates};
use crate::inputs;
use crate::objective::terms;
use crate::policy::Policy;
use crate::senior::{Lesson, Senior};
use crate::strategy::{Strategy, by_strategy};
use crate::supervision::{Lessons, RewardedAction, Supervision, reward};

pub(crate) struct DeviceStudent<'a> {
    data: &'a Data,
    trainer: DeviceTrainer<f32>,
    terms: Terms,
    teachers: Option<DeviceTeachers<'a>>,
    /// The policy's network, and the part of a query that it sees. On the host, the policy has the last
    /// log-probabilities, and computes loss and logits' gradient from them; its layers are those read last.
    network: Option<(DeviceNetwork, PolicyState)>,
    /// True if the host has the current layers.
    is_fresh: bool,
}

impl<'a> DeviceStudent<'a> {
    /// A student that starts from `initial`, and learns by the recipe's term from the teachers of `source`, which
    /// `policy` chooses.
    pub(crate) fn new(
        device: &Device,
        precision: Precision,
        initial: &Initial<f32>,
        data: &'a Data,
        recipe: &Distill,
        source: Option<TeacherSource<'a>>,
        policy: Option<&Policy<'_, f32>>,
    ) -> Result<Self> {
        let trainer = training::on_device(device, initial, &recipe.training, precision)?;
        let teachers = source.map(|source| DeviceTeachers::new::<f32>(device, precision, source));
        let policy = policy.zip(recipe.selection.policy());
        let network = policy.map(|(policy, keys)| -> Result<_> {
            let layers = policy.layers().map(|layer| &layer.parameters);
            Ok((DeviceNetwork::new(device, layers)?, keys.state))
        });
        let (terms, network) = (terms(&recipe.term), network.transpose()?);
        Ok(DeviceStudent { data, trainer, terms, teachers, network, is_fresh: true })
    }

    fn step(&mut self, batch: &[u32], guidance: &Guidance) -> Result<(StepLoss, BatchFigures)> {
        let teachers = self.teachers.as_mut().ok_or_else(|| lacks("teachers"))?;
        let mut objective = BatchDistillation::new(self.terms, teachers, guidance);
        self.trainer.step(&self.data.queries, batch, &mut objective)
    }

    /// Takes a step with the teachers of each query's actions.
    fn by_strategies(
        &mut self,
        batch: &[u32],
        teachers: usize,
        actions: &[Vec<Strategy>],
        reward: Option<&PolicyKeys>,
    ) -> Result<(StepLoss, Lessons)> {
        let all = Strategy::all(teachers).weights(teachers).repeat(batch.len());
        let guidance = Guidance::Combined {
            combinations: combinations(self.data, batch, teachers, actions),
            baseline: reward.map(|_| Matrix::from_values(batch.len(), teachers, all)),
        };
        let (loss, taught) = self.step(batch, &guidance)?;
        let mut lessons = Lessons { distillation: taught.distillation, ..Lessons::default() };
        if let Some(keys) = reward {
            lessons.outcomes = outcomes(self.data, batch, teachers, actions, keys, &taught);
        }
        Ok((loss, lessons))
    }

    /// Takes a step with all teachers, integrated by MulDE's Senior.
    fn by_senior(&mut self, batch: &[u32], senior: &Senior) -> Result<(StepLoss, Lessons)> {
        let relations: Vec<_> = batch.iter().map(|query| self.data.query(*query).relation).collect();
        let scales: Vec<f32> =
            relations.iter().flat_map(|relation| senior.scales(*relation)).map(f32::from_f64).collect();
        let scales = Matrix::from_values(batch.len(), scales.len() / batch.len().max(1), scales);
        let guidance = Guidance::Integrated { scales, temperature: senior.temperature };
        let (loss, taught) = self.step(batch, &guidance)?;
        let [attention, gradient] = taught.integration.ok_or_else(|| lacks("a Senior"))?;
        let mut lessons = Lessons { distillation: taught.distillation, ..Lessons::default() };
        for (row, relation) in relations.into_iter().enumerate() {
            let (gradient, attention) = (gradient.row(row).to_vec(), attention.row(row).to_vec());
            lessons.senior.push(Lesson { relation, gradient, attention });
        }
        Ok((loss, lessons))
    }
}

impl StudentEngine for DeviceStudent<'_> {
    fn model(&mut self) -> &mut dyn Engine {
        &mut self.trainer
    }

    fn teach(&mut self, batch: &[u32], supervision: Supervision<'_>) -> Result<(StepLoss, Lessons)> {
        match supervision {
            Supervision::Alone => {
                let (loss, ()) = self.trainer.step(&self.data.queries, batch, &mut BatchCrossEntropy)?;
                Ok((loss, Lessons::default()))
            }
            Supervision::Strategies { teachers, actions, reward } => {
                self.by_strategies(batch, teachers.labels.teachers().len(), actions, reward)
            }
            Supervision::Senior { senior, .. } => self.by_senior(batch, senior),
        }
    }

    fn ask(&mut self, policy: &mut Policy<'_, f32>, batch: &[u32]) -> Result<()> {
        let teachers = self.teachers.as_mut().ok_or_else(|| lacks("teachers"))?;
        let (network, state) = self.network.as_mut().ok_or_else(|| lacks("a policy"))?;
        policy.said = network.ask(*state, teachers, &self.data.queries, batch)?;
        Ok(())
    }

    fn reinforce(&mut self, policy: &mut Policy<'_, f32>, outcomes: &[RewardedAction]) -> Result<f64> {
        let (network, _) = self.network.as_mut().ok_or_else(|| lacks("a policy"))?;
        let (loss, rows, logits) = policy.of_logits(outcomes);
        let rows: Vec<u32> = rows.into_iter().map(|row| row as u32).collect();
        policy.steps += 1;
        self.is_fresh = false;
        network.step(&rows, &logits, rates(policy.learning_rate, policy.steps))?;
        Ok(loss)
    }

    fn read_policy(&mut self, policy: &mut Policy<'_, f32>) -> Result<()> {
        let Some((network, _)) = self.network.as_ref().filter(|_| !self.is_fresh) else { return Ok(()) };
        let layers = policy.layers_mut();
        network.read(layers.map(|Adam { parameters, mean, square }| [parameters, mean, square]))?;
        self.is_fresh = true;
        Ok(())
    }

    fn write_policy(&mut self, policy: &Policy<'_, f32>) -> Result<()> {
        let Some((network, _)) = &mut self.network else { return Ok(()) };
        self.is_fresh = true;
        network.write(policy.layers().map(|Adam { parameters, mean, square }| [parameters, mean, square]))
    }
}

fn lacks(what: &str) -> Error {
    Error::new(Kind::Unexpected, format!("a student on a device lacks {what}"))
}

/// The source of the teachers' scores for a student on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FromWhere {
    /// The faster source for the shapes, as far as this can be estimated beforehand
    #[default]
    Auto,
    /// The soft labels, copied to the device batch by batch
    Cache,
    /// The teachers' models on the device: scores are computed anew for every batch
    Recompute,
}

/// Width of the widest embeddings whose scores a device computes faster than it receives them: 2 bytes of a score at 8
/// GB/s take as long as 5,000 multiplications and additions at 20 TFLOP/s. Estimated from data sheets, not measured.
const WIDEST: usize = 5000;

impl FromWhere {
    /// The teachers' models, if their scores are to be computed anew.
    pub(crate) fn teachers(
        self,
        run: &Run,
        data: &Data,
        labels: &SoftLabels,
    ) -> Result<Option<Vec<Model<f32>>>> {
        if self == FromWhere::Cache {
            if labels.is_whole() {
                return Ok(None);
            }
            let error = Error::usage("a device cannot copy soft labels that keep only the top");
            return Err(error.hint("--soft-labels recompute, or --device cpu"));
        }
        let may_copy = self == FromWhere::Auto && labels.is_whole();
        if let Some(reason) = Manifest::read(&run.soft_labels())?.stale(run) {
            if may_copy {
                tracing::info!("teachers' scores: from the cache ({reason})");
                return Ok(None);
            }
            let error = Error::data(format!("the teachers are not those of the soft labels: {reason}"));
            return Err(error.hint("rerun `dsom-soft-labels`"));
        }
        let mut models = Vec::new();
        for modality in labels.teachers() {
            // No input of the student: inputs record data, not where it is computed. The soft labels' record suffices.
            manifest::verify(&run.teacher(modality))?;
            let reader = TensorReader::open(&run.teacher(modality).join(MODEL))?;
            models.push(Model::from_reader(&reader, data.entities(), data.relations())?);
        }
        let width = models.iter().map(Model::width).sum::<usize>() / models.len().max(1);
        if may_copy && width > WIDEST {
            tracing::info!("teachers' scores: from the cache (embeddings of {width} numbers)");
            return Ok(None);
        }
        tracing::info!("teachers' scores: computed anew on the device");
        Ok(Some(models))
    }
}

/// The source of the teachers' scores: `models` that compute them anew, or else copies of `labels`.
pub(super) fn source<'a>(
    device: &Device,
    labels: Option<&'a SoftLabels>,
    models: Option<&[Model<f32>]>,
) -> Result<Option<TeacherSource<'a>>> {
    if let Some(models) = models {
        let models = models.iter().map(|model| DeviceModel::new(device, model));
        return Ok(Some(TeacherSource::Models(models.collect::<Result<_>>()?)));
    }
    Ok(labels.map(|labels| TeacherSource::Cache {
        teachers: labels.teachers().len(),
        scores: Box::new(|query, teacher| labels.stored(query, teacher)),
        vectors: Box::new(|query, teacher| labels.vector(query, teacher)),
    }))
}

/// The combinations of each query's actions, each with its tails (Eq. 7).
fn combinations(
    data: &Data,
    batch: &[u32],
    teachers: usize,
    actions: &[Vec<Strategy>],
) -> Vec<Vec<Combination>> {
    let of_batch = batch.iter().zip(actions).map(|(query, actions)| {
        let groups = by_strategy(actions, data.tails(*query).len()).into_iter();
        groups.map(|(strategy, tails)| Combination { weights: strategy.weights(teachers), tails }).collect()
    });
    of_batch.collect()
}

/// The reward of each pair's action and of the baseline, from their comparisons with the student (Eq. 8).
fn outcomes(
    data: &Data,
    batch: &[u32],
    teachers: usize,
    actions: &[Vec<Strategy>],
    keys: &PolicyKeys,
    taught: &BatchFigures,
) -> Vec<RewardedAction> {
    let all = Strategy::all(teachers);
    let (mut answers, mut outcomes) = (taught.answers.iter(), Vec::new());
    for (row, (query, actions)) in batch.iter().zip(actions).enumerate() {
        let actions = actions.iter().cycle().take(data.tails(*query).len());
        for (&strategy, answer) in actions.zip(answers.by_ref()) {
            // Both are the same combination, so rounding on the device must not make them differ.
            let chosen = if strategy == all { answer.baseline } else { answer.chosen };
            let [reward, baseline] = [chosen, answer.baseline].map(|is_better| reward(keys, is_better));
            outcomes.push(RewardedAction { row, strategy, reward, baseline });
        }
    }
    outcomes
}

/// Bytes of the device's memory that teaching needs; `teachers` are the models whose scores are computed there.
pub(super) fn memory(
    data: &Data,
    distill: &Distill,
    labels: &SoftLabels,
    teachers: Option<&[Model<f32>]>,
) -> u64 {
    let queries = data.largest_batch(distill.training.batch);
    let most = data.numbers().into_iter().map(|query| data.tails(query).len()).max().unwrap_or(0);
    let (terms, entities, count) = (terms(&distill.term), data.entities(), labels.teachers().len());
    let mut bytes = BatchDistillation::memory(terms, entities, queries, count, most);
    bytes += teachers.into_iter().flatten().map(|model| DeviceModel::memory(model, queries)).sum::<u64>();
    if let Some(policy) = distill.selection.policy() {
        bytes += DeviceNetwork::memory(&inputs::widths(policy.state, labels), policy.hidden, queries);
    }
    bytes
}
