//! What becomes of a batch's scores: the interface, and softmax cross-entropy.

use mkg::QuerySet;
use stage::Result;

use crate::Gpu;
use crate::kernel;
use crate::memory::{Address, Array, DeviceMatrix};

/// What rows of scores should become.
pub trait Objective {
    /// What the rows leave behind for the caller.
    type Rows;

    /// Has the device replace the `scores (query, entity)` of a batch by `scale` times the gradient of its loss, summed
    /// over tails.
    fn gradient(&mut self, visit: &Visit<'_>, scores: &mut DeviceMatrix, scale: f64) -> Result<()>;

    /// Waits for the device: the loss, summed over tails and not scaled, and what the rows left.
    fn results(&mut self) -> Result<(f64, Self::Rows)>;
}

/// A batch whose scores an objective visits.
pub struct Visit<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// The training queries.
    pub queries: &'a QuerySet,
    /// The numbers of the batch's.
    pub numbers: &'a [u32],
    /// How many pairs of query and tail.
    pub pairs: usize,
    pub(crate) starts: Address,
    pub(crate) tails: Address,
}

/// Softmax cross-entropy over all entities.
pub struct CrossEntropy {
    losses: Array<f64>,
}

impl CrossEntropy {
    /// With buffers on a device.
    pub fn new(gpu: &Gpu) -> Self {
        CrossEntropy { losses: Array::new(gpu) }
    }
}

impl Objective for CrossEntropy {
    type Rows = ();

    fn gradient(&mut self, visit: &Visit<'_>, scores: &mut DeviceMatrix, scale: f64) -> Result<()> {
        self.losses.resize(visit.numbers.len())?;
        let arguments = kernel::CrossEntropy {
            scores: scores.at(0),
            starts: visit.starts,
            tails: visit.tails,
            losses: self.losses.at(0),
            entities: scores.columns() as u64,
            stride: scores.stride() as u64,
            scale,
        };
        visit.gpu.launch(visit.numbers.len(), &arguments)
    }

    fn results(&mut self) -> Result<(f64, ())> {
        Ok((self.losses.to_vec()?.iter().sum(), ()))
    }
}
