//! What every pipeline stage shares, and nothing about graphs or tensors.
//!
//! A stage is one program that reads files earlier stages finished and writes one directory of its own.
//! This crate holds the parts that must be the same everywhere: the [recipe] that says what to do,
//! the [run](run::Run) directory that says where, the [`stage.json`](manifest) that says what was done,
//! [errors](error) that become exit codes, [seeds](seed), [progress], logging and interruption.

pub mod args;
mod changes;
pub mod device;
pub mod error;
pub mod files;
pub mod interrupt;
pub mod manifest;
pub mod modality;
pub mod progress;
pub mod recipe;
pub mod resources;
pub mod run;
pub mod seed;
pub mod task;
pub mod work;

pub use args::{Common, main};
pub use error::{Error, Kind, Result};
pub use modality::Modality;
pub use run::Run;
