//! `dsom-import`: stage 1 of the pipeline.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = dsom_import::Args::parse();
    program::main(&args.common, || dsom_import::import(&args))
}
