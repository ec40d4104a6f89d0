//! `dsom-features`: see `--help`.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    dsom_features::parallel::one_thread_per_operation();
    let args = dsom_features::Args::parse();
    program::main(&args.common, || dsom_features::run(&args))
}
