//! The frame of every pipeline stage.
//!
//! A stage is one program that reads files of finished earlier stages and writes one directory of its own. This crate
//! holds the parts that are the same in all stages: the [run](run::Run) directory with the place of each stage, the
//! [`stage.json`](manifest) with the record of the work, [errors](error) that become exit codes, [seeds](seed), files
//! that are either complete or absent, and interruption. Nothing here knows recipes, command lines, graphs or tensors.

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
