//! `dsom-ensemble`: see `--help`.

use clap::Parser;
use program::Common;
use stage::{Error, Result, Run};
use std::process::ExitCode;

/// Beside stage 5: weigh the teachers' scores in a sum, without a student
///
/// Reads graph/ (train and valid) and teachers/, writes ensemble/ensemble.safetensors: a weight for each relation and
/// teacher, or a policy that chooses teachers query by query. `dsom-evaluate` and `dsom-predict` ask an ensemble by its
/// folder's name.
#[derive(Parser)]
#[command(name = "dsom-ensemble", version)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// The ensemble's folder, for several ensembles in one run
    #[arg(long, value_name = "FOLDER", default_value = "ensemble")]
    name: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::main(&arguments.common, || run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    if !Run::is_one_of("ensemble", &arguments.name) {
        let message =
            format!("`--name {}`: an ensemble's folder is `ensemble` or `ensemble-…`", arguments.name);
        return Err(Error::usage(message));
    }
    dsom_ensemble::run(&arguments.common, &arguments.common.recipe()?, &arguments.name)
}
