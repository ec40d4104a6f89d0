//! A model in training, wherever its arithmetic is done.

use device::{BatchCrossEntropy, DeviceTrainer};
use kge::checkpoint::{NamedTensors, TensorReader};
use kge::{CrossEntropy, Matrix, Model, Rank, StepLoss};
use mkg::QuerySet;
use stage::{Result, interrupt};

use crate::Data;

/// A model in training. Parameters cross between its implementations by checkpoints, in mid-training. Whatever a device may
/// fail at is an error.
pub trait Engine {
    /// One step on the queries numbered `batch`, by cross-entropy alone (Eq. 3); an error if the loss is not finite.
    fn step(&mut self, queries: &QuerySet, batch: &[u32]) -> Result<StepLoss>;

    /// The ranks of tail and head of each validation triple; an error if a score is not finite.
    fn valid_ranks(&mut self, data: &Data) -> Result<Vec<[Rank; 2]>>;

    /// The model as it stands, and the trained projection, if there is one.
    fn parts(&mut self) -> Result<(&Model<f32>, Option<&Matrix<f32>>)>;

    /// Everything needed to go on.
    fn state(&mut self) -> Result<NamedTensors<'_>>;

    /// Takes up a state saved under `prefix.`; an error if the file has other tensors than this model's.
    fn restore(&mut self, reader: &TensorReader, prefix: &str) -> Result<()>;

    /// Refuses parameters that are no longer finite.
    fn require_finite(&mut self) -> Result<()>;
}

impl Engine for kge::Trainer<f32> {
    fn step(&mut self, queries: &QuerySet, batch: &[u32]) -> Result<StepLoss> {
        Ok(kge::Trainer::step(self, queries, batch, &CrossEntropy { queries })?.0)
    }

    fn valid_ranks(&mut self, data: &Data) -> Result<Vec<[Rank; 2]>> {
        kge::rank_triples(self.model(), &data.valid, data.relations(), &data.known, |_| interrupt::check())
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

    fn require_finite(&mut self) -> Result<()> {
        kge::Trainer::require_finite(self)
    }
}

impl Engine for DeviceTrainer<f32> {
    fn step(&mut self, queries: &QuerySet, batch: &[u32]) -> Result<StepLoss> {
        Ok(DeviceTrainer::step(self, queries, batch, &mut BatchCrossEntropy)?.0)
    }

    fn valid_ranks(&mut self, data: &Data) -> Result<Vec<[Rank; 2]>> {
        self.rank_triples(&data.valid, data.relations(), &data.known, |_| interrupt::check())
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

    fn require_finite(&mut self) -> Result<()> {
        DeviceTrainer::require_finite(self)
    }
}
