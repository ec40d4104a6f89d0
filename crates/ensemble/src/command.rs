//! Command line of `dsom ensemble`.

use clap::Args;
use program::Common;
use stage::{Error, Result, Run};
use std::process::ExitCode;

/// Beside stage 5: combine the teachers' scores in a weighted sum, without a student
///
/// Reads graph/ (train and valid) and teachers/, writes ensemble/ensemble.safetensors: a weight for each relation and
/// teacher, or a policy that chooses teachers for each query. `dsom-evaluate` and `dsom-predict` name an ensemble by
/// its folder.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// The ensemble's folder, for several ensembles in one run
    #[arg(long, value_name = "FOLDER", default_value = "ensemble")]
    name: String,
}

/// Runs the program and returns its exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    program::main(&arguments.common, || run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    if !Run::is_one_of("ensemble", &arguments.name) {
        let message =
            format!("`--name {}`: an ensemble's folder is `ensemble` or `ensemble-…`", arguments.name);
        return Err(Error::usage(message));
    }
    crate::run(&arguments.common, &arguments.common.recipe()?, &arguments.name)
}
