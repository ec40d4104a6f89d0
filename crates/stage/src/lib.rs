//! The frame of every pipeline stage.
//!
//! A stage is one program that reads files earlier stages finished and writes one directory of its own.
//! This crate holds the parts that must be the same everywhere: the [run](run::Run) directory that says where, the
//! [`stage.json`](manifest) that says what was done, [errors](error) that become exit codes, [seeds](seed), files that
//! are written whole, and interruption. Nothing here knows of recipes, command lines, graphs or tensors.

mod changes;
pub mod error;
pub mod files;
pub mod interrupt;
pub mod manifest;
pub mod modality;
mod panics;
pub mod resources;
pub mod run;
pub mod seed;
pub mod task;
pub mod work;

pub use error::{Error, Kind, Result};
pub use modality::Modality;
pub use panics::caught;
pub use run::Run;
