//! The epoch loop of teachers and students: batches, validation, early stopping, checkpoints, events.
//!
//! Choices are based on the validation split; nothing here opens the test split, not even for the filter.

mod data;
mod engine;
mod fit;

pub use data::{Data, initial, open_model, open_triples, open_vocabulary, shape};
pub use engine::{Engine, Place, on_cpu, on_device, precision};
pub use fit::{Fitted, Learner, fit};

/// The file of a trained model in its stage's folder.
pub const MODEL: &str = "model.safetensors";
