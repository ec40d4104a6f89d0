//! The epoch loop that teachers and student share: batches, validation, early stopping, checkpoints, events.
//!
//! Choices are made on the validation split; nothing here opens the test split, not even for the filter.

mod data;
mod engine;
mod fit;
mod place;

pub use data::{Data, initial, open_model, open_triples, open_vocabulary, shape};
pub use engine::Engine;
pub use fit::{Fitted, Learner, fit};
pub use place::{Place, on_cpu, on_device, precision};

/// The file of a trained model in its stage's folder.
pub const MODEL: &str = "model.safetensors";
