//! Training, ranking and distillation as candle tensors: the same code for CUDA, for Metal, and, in tests and
//! comparisons, for candle's CPU device.
//!
//! The crate `kge` defines the computations, and the crate `distill` defines the student's; this crate writes them as
//! tensor expressions. The gradients of the big matrices are analytic, and are products:
//!
//! ```text
//! S = Q Eᵀ,   G = ∂loss/∂S  by an objective,   ∂Q = G E,   ∂E = Gᵀ Q
//! ```
//!
//! Candle's automatic differentiation carries the gradient from `Q` to heads, relations and TuckER's core. In training
//! and ranking, no matrix `(query, entity)` returns to the host; one function reads from devices and counts.
//!
//! Everything is generic over `f32` and `f64`, so that tests can compare digits. Sums over a row are in `f64` (in `f32`
//! on Metal, which has no `f64`). Functions that return a result fail where the device fails or cannot hold its data.

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

/// The device that holds tensors.
pub use candle_core::Device;
