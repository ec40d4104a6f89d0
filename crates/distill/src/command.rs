//! Command line of `dsom distill`.

use clap::Args;
use program::Common;
use stage::{Error, Result, Run};
use std::process::ExitCode;

use crate::engine::FromWhere;

/// Stage 5: distil the student from the teachers that the policy chooses
///
/// Reads graph/ (train and valid) and soft-labels/, writes student/: the student and the policy of the epoch with
/// the best validation MRR, what that policy chooses for every training query (strategies.parquet), the
/// scales of MulDE's Senior (senior.safetensors), and events.jsonl with every epoch's losses, rewards and shares of
/// strategies. An interrupted start continues. With --set distill.term.kind=none the student learns alone.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// The student's folder, for several students in one run
    #[arg(long, value_name = "FOLDER", default_value = "student")]
    name: String,
    /// On a device: where the teachers' scores come from
    #[arg(long, value_enum, default_value_t)]
    soft_labels: FromWhere,
}

/// Runs the program, and gives its exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    program::main(&arguments.common, || run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    if !Run::is_one_of("student", &arguments.name) {
        let message = format!("`--name {}`: a student's folder is `student` or `student-…`", arguments.name);
        return Err(Error::usage(message));
    }
    crate::run(&arguments.common, &arguments.common.recipe()?, &arguments.name, arguments.soft_labels)
}
