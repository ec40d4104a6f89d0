//! The recipe: one TOML file with all parameters of the stages' results.
//!
//! `pipelines/default.toml` lists every key with its default, and a test checks the file against this module. Every
//! program reads the whole recipe, so a misspelt key of the last stage is refused before the first stage starts. A
//! choice is a table with only the keys of its `kind`, so a stage depends on exactly the keys in its table.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use stage::Modality;

mod check;
mod distill;
mod features;
mod import;
mod load;
mod teachers;

pub use distill::{
    Action, Distill, Ensemble, EnsemblePolicy, Neighbours, PolicyKeys, PolicyState, Selection, Softening,
    Term,
};
pub use features::{Features, ImageOutput, TextField, TextOutput, UnknownKeys};
pub use import::{Import, Join, TextPart, TextSource, TripleFormat, Validation};
pub use load::merge;
pub use teachers::{Absent, Backbone, Precision, TeacherOverride, Teachers, Training};

/// All stages' parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recipe {
    /// Seed of all random draws in the run.
    pub seed: u64,
    /// Stage 1.
    pub import: Import,
    /// Stage 2: one table per modality, with a name of the user's choice.
    pub features: BTreeMap<Modality, Features>,
    /// Stage 3.
    pub teachers: Teachers,
    /// Stage 4.
    pub soft_labels: SoftLabels,
    /// Stage 5.
    pub distill: Distill,
    /// Beside stage 5: the combined answer of the teachers, without a student.
    pub ensemble: Ensemble,
    /// Stage 6.
    pub evaluate: Evaluate,
}

/// Stage 4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SoftLabels {
    /// The teachers; empty means all finished teachers.
    pub teachers: Vec<Modality>,
    /// Queries per Parquet file.
    pub rows_per_file: usize,
    /// The number of entities per row, in addition to the neighbours, whose scores are kept; 0 keeps all scores.
    pub top: usize,
}

impl Default for SoftLabels {
    fn default() -> Self {
        SoftLabels { teachers: Vec::new(), rows_per_file: 20_000, top: 0 }
    }
}

/// Stage 6.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluate {
    /// The models: `student` (or another student's folder), a teacher's modality, or `average` for the mean of all
    /// teachers' scores. The first model's figures are the headline. Empty means all finished models.
    pub models: Vec<String>,
    /// The splits.
    pub splits: Vec<String>,
    /// The number of predictions to print by name, drawn from the last split's queries.
    pub examples: usize,
}

impl Default for Evaluate {
    fn default() -> Self {
        Evaluate { models: Vec::new(), splits: vec!["valid".into(), "test".into()], examples: 0 }
    }
}
