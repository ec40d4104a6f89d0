//! Where a model is trained: on the CPU or on a device, behind one set of calls.

use cuda::Gpu;
use kge::checkpoint::{Reader, Tensors};
use kge::{Backbone, Initial, Matrix, Model, N3, Rank, Shape};
use program::Device;
use recipe::Training;
use stage::{Result, interrupt, resources};

use crate::{Data, precision};

/// Where a model is trained, and with which products.
pub enum Place {
    /// On the CPU.
    Cpu(kge::Precision),
    /// On a device.
    Device(Gpu, recipe::Precision),
}

/// What of a training no device does: its backbone, as a key of the recipe's `section`.
pub fn lacking(training: &Training, section: &str) -> Option<String> {
    let word = training.backbone.word();
    (training.backbone != Backbone::ComplEx).then(|| format!("`{section}.backbone = \"{word}\"`"))
}

/// The largest shapes of a training: see [`kge::Trainer::memory`].
#[derive(Clone, Copy, Debug)]
pub struct Shapes {
    /// The model's.
    pub shape: Shape,
    /// Entities.
    pub entities: usize,
    /// Columns of the features; 0 for a free table.
    pub features: usize,
    /// Training queries.
    pub queries: usize,
    /// Pairs in a batch.
    pub batch: usize,
}

impl Place {
    /// The one that was asked for; `lacking` says what of this training no device does.
    ///
    /// # Errors
    /// As [`cuda::choose`] has them.
    pub fn choose(asked: Device, lacking: Option<&str>, training: &Training) -> Result<Place> {
        Ok(match cuda::choose(asked, lacking)? {
            Some(gpu) => Place::Device(gpu, training.precision),
            None => Place::Cpu(precision(training.precision)),
        })
    }

    /// The device, if it is one.
    pub fn gpu(&self) -> Option<&Gpu> {
        match self {
            Place::Cpu(_) => None,
            Place::Device(gpu, _) => Some(gpu),
        }
    }

    /// What its products are called in a summary.
    pub fn products(&self) -> String {
        match self {
            Place::Cpu(precision) => precision.to_string(),
            Place::Device(gpu, precision) => gpu.products(*precision),
        }
    }

    /// Refuses a training that memory does not hold. `more` is what it takes beside the parameters and a step's buffers,
    /// for so many queries; `section` is the recipe's, `knob` what to lower in it.
    pub fn require_memory(
        &self,
        shapes: Shapes,
        more: impl Fn(usize) -> u64,
        what: &str,
        (section, knob): (&str, &str),
    ) -> Result<()> {
        let Shapes { shape, entities, features, .. } = shapes;
        let queries = |batch: usize| batch.min(shapes.queries);
        match self {
            Place::Cpu(precision) => {
                let (batch, queries) = (shapes.batch, queries(shapes.batch));
                let bytes = kge::Trainer::memory(shape, entities, batch, queries, features)
                    + precision.memory(entities, queries)
                    + more(queries);
                resources::require_memory(bytes, what, knob)
            }
            Place::Device(gpu, _) => {
                let bytes = |batch: usize| {
                    cuda::Trainer::memory(entities, shape.columns(), batch, queries(batch), features)
                        + more(queries(batch))
                };
                gpu.require_memory(bytes, shapes.batch, what, &format!("{section}.batch"))
            }
        }
    }

    /// A model that starts from `initial` parameters.
    ///
    /// # Errors
    /// If a device's memory does not hold it.
    pub fn engine(&self, initial: Initial<f32>, training: &Training) -> Result<Engine> {
        let (rate, n3) = (training.learning_rate, N3 { weight: training.n3 });
        Ok(match self {
            Place::Cpu(precision) => kge::Trainer::new(initial, rate, n3).with_precision(*precision).into(),
            Place::Device(gpu, precision) => {
                let trainer = cuda::Trainer::new(gpu, initial, rate, n3, *precision)?;
                Engine::Device(Box::new(trainer))
            }
        })
    }
}

/// A model in training, wherever it is.
pub enum Engine {
    /// On the CPU.
    Cpu(Box<kge::Trainer<f32>>),
    /// On a device.
    Device(Box<cuda::Trainer>),
}

impl From<kge::Trainer<f32>> for Engine {
    fn from(trainer: kge::Trainer<f32>) -> Engine {
        Engine::Cpu(Box::new(trainer))
    }
}

impl Engine {
    /// The model as it stands, and the trained projection, if there is one.
    pub fn parts(&mut self) -> Result<(&Model<f32>, Option<&Matrix<f32>>)> {
        match self {
            Engine::Cpu(trainer) => Ok(trainer.parts()),
            Engine::Device(trainer) => trainer.parts(),
        }
    }

    /// The ranks of tail and head of each validation triple.
    pub fn valid_ranks(&mut self, data: &Data) -> Result<Vec<[Rank; 2]>> {
        let (valid, relations, known) = (&data.valid, data.relations(), &data.known);
        let check = |_| interrupt::check();
        match self {
            Engine::Cpu(trainer) => kge::rank_triples(trainer.model(), valid, relations, known, check),
            Engine::Device(trainer) => trainer.rank_triples(valid, relations, known, check),
        }
    }

    /// Everything needed to go on, at either place.
    pub fn state(&mut self) -> Result<Tensors<'_>> {
        match self {
            Engine::Cpu(trainer) => Ok(trainer.state()),
            Engine::Device(trainer) => trainer.state(),
        }
    }

    /// Takes up a state saved under `prefix.`, at either place.
    pub fn restore(&mut self, reader: &Reader, prefix: &str) -> Result<()> {
        match self {
            Engine::Cpu(trainer) => trainer.restore(reader, prefix),
            Engine::Device(trainer) => trainer.restore(reader, prefix),
        }
    }

    /// Refuses parameters that are no longer finite.
    pub fn require_finite(&mut self) -> Result<()> {
        match self {
            Engine::Cpu(trainer) => trainer.require_finite(),
            Engine::Device(trainer) => trainer.require_finite(),
        }
    }
}
