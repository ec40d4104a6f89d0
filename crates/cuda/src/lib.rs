//! Training, scoring, ranking and encoding on a CUDA device.
//!
//! Parameters, optimisers and buffers stay on the device for the whole of a training; in a step, lists of numbers go up
//! and losses come down. Products are cuBLAS's, everything else is in the kernels of `kernels/kernels.cu`, which NVRTC
//! compiles for the device that is found. Of a policy the log-probabilities come down, and rows of a cache of teachers' scores
//! go up ahead of the step that needs them. The mathematics is that of `kge` and `dsom_distill`, step for step, and what
//! is saved is the same: training goes on with the other device where this one stopped. [Encoders](encoder) are those of
//! `dsom_features`, layer for layer.
//!
//! What a device does is behind one trait with two implementations: the CUDA driver (feature `cuda`), and an emulator
//! that runs the same kernels, compiled as C, on the CPU. Everything else in this crate does not know which it is. So
//! tests without a GPU check kernels, layouts and the order of a step against the CPU's, and leave the driver's calls,
//! cuBLAS and the hardware.

mod backend;
mod choice;
#[cfg(feature = "cuda")]
mod compile;
mod distil;
#[cfg(feature = "cuda")]
mod driver;
mod emulator;
pub mod encoder;
mod kernel;
mod memory;
mod model;
mod network;
mod rank;
mod teachers;
pub mod test_device;
mod train;

pub use backend::Gpu;
pub use choice::choose;
pub use distil::{Distil, Groups, Taught, Term, Terms};
pub use memory::{Array, DeviceMatrix, List, Lists};
pub use model::Model;
pub use network::{AdamStep, Inputs, Network, Standard};
pub use rank::judge_triples;
pub use teachers::{Cache, Halves, Sources};
pub use train::{CrossEntropy, Objective, Trainer, Visit};
