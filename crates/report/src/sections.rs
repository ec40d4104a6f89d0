//! The sections of a run's report, each a function from the run to what it says. What a run lacks is a sentence.

pub(crate) mod calibration;
pub(crate) mod data;
pub(crate) mod learning;
pub(crate) mod results;
pub(crate) mod strategies;
pub(crate) mod summary;

/// The sentence that stands where there is no evaluation.
const UNEVALUATED: &str = "Not evaluated yet: dsom-evaluate has not finished in this run.";
