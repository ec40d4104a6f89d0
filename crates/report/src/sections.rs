//! The sections of a run's report: each function turns the run into one section. A sentence replaces missing data.

pub(crate) mod calibration;
pub(crate) mod data;
pub(crate) mod learning;
pub(crate) mod results;
pub(crate) mod strategies;
pub(crate) mod summary;

/// The sentence in place of a missing evaluation.
const UNEVALUATED: &str = "Not evaluated yet: dsom-evaluate has not finished in this run.";
