//! Training, ranking and distillation as candle tensors: one text for CUDA, for Metal, and, in tests and comparisons, for
//! candle's CPU device.
//!
//! The computations are defined in the crate `kge` and, for the student, in `distill`; here they stand as tensor expressions.
//! The big matrices have analytic gradients, which are products:
//!
//! ```text
//! S = Q Eᵀ,   G = ∂loss/∂S  by an objective,   ∂Q = G E,   ∂E = Gᵀ Q
//! ```
//!
//! From `Q` on to heads, relations and TuckER's core candle's automatic differentiation goes, whatever the backbone. No
//! matrix of queries and entities comes back to the host: all that does passes through one function, which counts it.
//!
//! Everything is generic over `f32` and `f64`, so that tests can compare digits. What is summed up of a row is in `f64`
//! (on Metal, which has none, in `f32`). Whatever returns a result fails where the device does, or does not hold what it should.

mod choice;
mod distillation;
mod entities;
mod host;
mod model;
mod network;
mod objective;
mod optimiser;
mod rank;
mod teachers;
mod terms;
#[cfg(test)]
mod tests;
mod train;

pub use choice::{choose, products, require_memory};
pub use distillation::{BatchDistillation, BatchFigures, Combination, Comparison, Guidance};
pub use host::{Number, numbers_read};
pub use model::DeviceModel;
pub use network::DeviceNetwork;
pub use objective::{BatchCrossEntropy, BatchObjective, BatchTails, ScoreGradient};
pub use optimiser::AdamRates;
pub use rank::{judge_triples, rank_triples};
pub use teachers::{DeviceTeachers, TeacherRows, TeacherSource};
pub use terms::{Divergence, Terms};
pub use train::DeviceTrainer;

/// Device that holds tensors.
pub use candle_core::Device;
