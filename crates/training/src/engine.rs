//! The place of the arithmetic: the CPU with the hand-written engine, or a device; and a model in training there.

use device::{BatchCrossEntropy, Device, DeviceModel, DeviceTrainer};
use kge::checkpoint::{NamedTensors, TensorReader};
use kge::matrix::bf16::Kernel;
use kge::rank::BLOCK;
use kge::{CrossEntropy, Initial, Judged, Matrix, Model, N3, ProductPrecision, Rank, Scorer, StepLoss};
use mkg::{KnownAnswers, QuerySet, Triple};
use recipe::{Precision, Training};
use stage::{Result, interrupt, resources};

use crate::{Data, shape};

/// A model in training. A checkpoint of one implementation can continue in another in mid-training. Every possible
/// failure of a device is an error.
pub trait Engine {
    /// One step on the queries numbered `batch`, by cross-entropy alone (Eq. 3); an error if the loss is not finite.
    fn step(&mut self, queries: &QuerySet, batch: &[u32]) -> Result<StepLoss>;

    /// The ranks of tail and head of each validation triple; an error if a score is not finite.
    fn valid_ranks(&mut self, data: &Data) -> Result<Vec<[Rank; 2]>>;

    /// The model's current parameters, and the trained projection, if there is one.
    fn parts(&mut self) -> Result<(&Model<f32>, Option<&Matrix<f32>>)>;

    /// The state that a later start needs to continue.
    fn state(&mut self) -> Result<NamedTensors<'_>>;

    /// Restores a state saved under `prefix.`; an error if the file's tensors are not those of this model.
    fn restore(&mut self, reader: &TensorReader, prefix: &str) -> Result<()>;

    /// Refuses parameters that are not finite.
    fn require_finite(&mut self) -> Result<()> {
        self.parts()?.0.require_finite()
    }
}

impl Engine for kge::Trainer<f32> {
    fn step(&mut self, queries: &QuerySet, batch: &[u32]) -> Result<StepLoss> {
        Ok(kge::Trainer::step(self, queries, batch, &CrossEntropy { queries })?.0)
    }

    fn valid_ranks(&mut self, data: &Data) -> Result<Vec<[Rank; 2]>> {
        kge::rank_triples(self.model(), &data.valid, data.relations(), &data.known, &mut |_| {
            interrupt::check()
        })
    }

    fn parts(&mut self) -> Result<(&Model<f32>, Option<&Matrix<f32>>)> {
        Ok(kge::Trainer::parts(self))
    }

    fn state(&mut self) -> Result<NamedTensors<'_>> {
        Ok(kge::Trainer::state(self))
    }

    fn restore(&mut self, reader: &TensorReader, prefix: &str) -> Result<()> {
        kge::Trainer::restore(self, reader, prefix)
    }
}

impl Engine for DeviceTrainer<f32> {
    fn step(&mut self, queries: &QuerySet, batch: &[u32]) -> Result<StepLoss> {
        Ok(DeviceTrainer::step(self, queries, batch, &mut BatchCrossEntropy)?.0)
    }

    fn valid_ranks(&mut self, data: &Data) -> Result<Vec<[Rank; 2]>> {
        let model = self.model()?;
        device::rank_triples(&[model], &data.valid, data.relations(), &data.known, |_| interrupt::check())
    }

    fn parts(&mut self) -> Result<(&Model<f32>, Option<&Matrix<f32>>)> {
        DeviceTrainer::parts(self)
    }

    fn state(&mut self) -> Result<NamedTensors<'_>> {
        DeviceTrainer::state(self)
    }

    fn restore(&mut self, reader: &TensorReader, prefix: &str) -> Result<()> {
        DeviceTrainer::restore(self, reader, prefix)
    }
}

/// The place of the arithmetic, with the precision of its products. Only code that makes an engine looks inside.
pub enum Place {
    /// The CPU, with the hand-written engine.
    Cpu(ProductPrecision),
    /// A device, with tensors.
    Device(Device, Precision),
}

impl Place {
    /// Chooses the requested place, with products in `asked_precision`. An error if the device does not exist or this
    /// program was built without it.
    pub fn choose(asked: program::Device, asked_precision: Precision) -> Result<Place> {
        Ok(match device::choose(asked)? {
            Some(device) => Place::Device(device, asked_precision),
            None => Place::Cpu(precision(asked_precision)),
        })
    }

    /// The name of the products in a summary.
    pub fn products(&self) -> String {
        match self {
            Place::Cpu(precision) => precision.to_string(),
            Place::Device(device, precision) => device::products(device, *precision),
        }
    }

    /// Bytes of memory that training needs, with copies in another precision. `features` is the number of columns of
    /// projected features, 0 for a free table.
    pub fn training_memory(&self, training: &Training, data: &Data, features: usize) -> u64 {
        let (shape, entities, pairs) = (shape(training), data.entities(), training.batch);
        let queries = data.largest_batch(pairs);
        match self {
            Place::Cpu(precision) => {
                kge::Trainer::memory(shape, entities, pairs, queries, features)
                    + precision.memory(entities, queries)
            }
            Place::Device(..) => DeviceTrainer::memory(shape, entities, pairs, queries, features),
        }
    }

    /// Refuses work that needs more bytes than are available; `knob` says how to make the work smaller.
    pub fn require_memory(&self, bytes: u64, what: &str, knob: &str) -> Result<()> {
        match self {
            Place::Cpu(_) => resources::require_memory(bytes, what, knob),
            Place::Device(device, _) => device::require_memory(device, bytes, what, knob),
        }
    }

    /// A model that starts from the `initial` parameters; an error if a device's memory is too small.
    pub fn engine(&self, initial: Initial<f32>, training: &Training) -> Result<Box<dyn Engine>> {
        Ok(match self {
            Place::Cpu(precision) => Box::new(on_cpu(initial, training, *precision)),
            Place::Device(device, precision) => Box::new(on_device(device, &initial, training, *precision)?),
        })
    }

    /// The engine that computes the scores of a model; an error if a device's memory is too small.
    pub fn scorer<'a>(&self, model: &'a Model<f32>) -> Result<Box<dyn Scorer + 'a>> {
        Ok(match self {
            Place::Cpu(_) => Box::new(model),
            Place::Device(device, _) => Box::new(DeviceModel::new(device, model)?),
        })
    }

    /// Refuses models that do not fit a device's memory together, with the scores of `queries` queries. On the CPU, the
    /// models are already in memory.
    pub fn require_scoring(&self, models: &[&Model<f32>], queries: usize, what: &str) -> Result<()> {
        match self {
            Place::Cpu(_) => Ok(()),
            Place::Device(device, _) => {
                let bytes = models.iter().map(|model| DeviceModel::memory(model, queries)).sum();
                device::require_memory(device, bytes, what, "lower the models' rank")
            }
        }
    }

    /// The ranks of tail and head of each triple, and the confidences: see [`kge::judge_triples`]. The scores come from
    /// `scorer`; on a device with `averages`, they are the mean of those models' scores. An error if a score is not
    /// finite, a device fails, or `progress` returns an error.
    pub fn judge_triples(
        &self,
        scorer: &dyn Scorer,
        averages: Option<Vec<&Model<f32>>>,
        triples: &[Triple],
        relations: usize,
        known: &KnownAnswers,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<[Judged; 2]>> {
        let (Place::Device(device, _), Some(models)) = (self, averages) else {
            return kge::judge_triples(scorer, triples, relations, known, progress);
        };
        self.require_scoring(&models, BLOCK, "ranking")?;
        let models = models.into_iter().map(|model| DeviceModel::new(device, model));
        device::judge_triples(&models.collect::<Result<Vec<_>>>()?, triples, relations, known, progress)
    }
}

/// A model in training with the hand-written engine.
pub fn on_cpu(initial: Initial<f32>, training: &Training, precision: ProductPrecision) -> kge::Trainer<f32> {
    let n3 = N3 { weight: training.n3 };
    kge::Trainer::new(initial, training.learning_rate, n3).with_precision(precision)
}

/// The products for a recipe's precision on this machine: full precision with a message if the CPU lacks the other.
pub fn precision(asked: Precision) -> ProductPrecision {
    match (asked, Kernel::fastest()) {
        (Precision::Bf16, Some(kernel)) => return ProductPrecision::Bf16(kernel),
        (Precision::Bf16, None) => {
            tracing::warn!("this processor has no instructions for bf16: products are in f32");
        }
        (Precision::Tf32, _) => tracing::info!("tf32 is for CUDA devices: products are in f32"),
        (Precision::F32, _) => {}
    }
    ProductPrecision::Full
}

/// A model in training on a device; an error if the device's memory is too small.
pub fn on_device(
    device: &Device,
    initial: &Initial<f32>,
    training: &Training,
    precision: Precision,
) -> Result<DeviceTrainer<f32>> {
    DeviceTrainer::new(device, initial, training.learning_rate, N3 { weight: training.n3 }, precision)
}
