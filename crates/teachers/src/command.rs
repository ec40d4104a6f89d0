//! Command line of `dsom teachers`.

use clap::Args;
use program::Common;
use stage::{Modality, Result};
use std::process::ExitCode;

use crate::train;

/// Stage 3: pre-train one teacher per modality
///
/// Reads graph/ (train and valid) and features/MODALITY/, writes teachers/MODALITY/: the model of the epoch with the
/// best validation MRR, and events.jsonl with every epoch's losses. A fresh teacher is left alone; an interrupted one
/// continues. Teachers are independent: jobs for single modalities can run side by side.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Train only this modality's teacher (repeatable) [default: structural and all finished features]
    #[arg(long, value_name = "NAME")]
    modality: Vec<Modality>,
    /// Hide the features of this share of the entities, for experiments [default: teachers.missing_rate]
    #[arg(long, value_name = "R")]
    missing_rate: Option<f64>,
    /// Seed of the draw of hidden entities [default: teachers.missing_seed]
    #[arg(long, value_name = "N")]
    missing_seed: Option<u64>,
}

/// Runs the program, and gives its exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    program::main(&arguments.common, || run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let rate = arguments.missing_rate.map(|rate| format!("teachers.missing_rate={rate}"));
    let seed = arguments.missing_seed.map(|seed| format!("teachers.missing_seed={seed}"));
    let recipe = arguments.common.recipe_with(&rate.into_iter().chain(seed).collect::<Vec<_>>())?;
    let (run, mut modalities) = (arguments.common.run(), arguments.modality.clone());
    for modality in modalities.iter().filter(|m| !m.is_structural() && !run.features(m).is_dir()) {
        dsom_features::require_section(&recipe, modality)?;
    }
    if modalities.is_empty() {
        modalities.push(Modality::structural());
        modalities.extend(run.finished("features")?);
    }
    modalities.iter().try_for_each(|modality| train(&arguments.common, &recipe, modality))
}
