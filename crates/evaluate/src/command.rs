//! Command line of `dsom evaluate`.

use clap::Args;
use program::Common;
use stage::Result;
use std::process::ExitCode;

/// Stage 6: filtered ranks of the student, the teachers and their average
///
/// Reads graph/ (all splits; no other program opens test) and the models. Writes evaluation/metrics.json (MRR, MR and
/// Hits@k by split, direction, relation, relation type and seen entities) and evaluation/ranks.parquet (every rank).
/// The main figures use realistic ties; optimistic and pessimistic figures are listed as well.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// A student's or ensemble's folder, a teacher's modality, `average` of the teachers, or the mean of some as
    /// `structural+textual` (repeatable) [default: all there are]
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// train, valid or test (repeatable) [default: valid and test]
    #[arg(long, value_name = "SPLIT")]
    split: Vec<String>,
}

/// Runs the program and returns its exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    program::main(&arguments.common, || run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut recipe = arguments.common.recipe()?;
    if !arguments.model.is_empty() {
        recipe.evaluate.models = arguments.model.clone();
    }
    if !arguments.split.is_empty() {
        recipe.evaluate.splits = arguments.split.clone();
    }
    crate::run(&arguments.common, &recipe)
}
