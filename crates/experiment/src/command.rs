//! Command line of `dsom experiment`.

use clap::{ArgAction, Args};
use stage::{Error, Result, interrupt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::execute::Programs;
use crate::grid::Places;

/// Run a grid of variants, seeds and datasets, and write its table
///
/// Reads an experiment in TOML (pipelines/experiments has examples) and calls the stages' programs, printing each
/// command. A stage that several cells share runs once; a fresh stage does not run again; an interrupted experiment
/// continues. Writes results.parquet, table.md, table.tex and experiment.json. A failed cell is reported and the others
/// continue; the exit code is then that of the first failure.
#[derive(Args)]
pub struct Arguments {
    /// The experiment, in TOML
    #[arg(value_name = "FILE")]
    pub(crate) experiment: PathBuf,
    #[command(flatten)]
    pub(crate) places: Places,
    /// List the steps that would run, their states and the time that they may take, and run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Train nothing: evaluate the finished models, and write their tables
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) finished: bool,
    /// Also write report.html, with dsom-report
    #[arg(long)]
    pub(crate) report: bool,
    /// Submit the unfinished steps to Slurm, a job for each stage with the options of PROFILE (see
    /// pipelines/slurm.toml), and the tables as the last job; with --dry-run print the script that submits them
    #[arg(long, value_name = "PROFILE", conflicts_with = "finished")]
    pub(crate) slurm: Option<PathBuf>,
    /// Write the stages' commands, needs, inputs and outputs, and the options of --slurm, to a JSON file; run nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["finished", "dry_run"])]
    pub(crate) plan: Option<PathBuf>,
    /// Say less (repeatable)
    #[arg(short, long, action = ArgAction::Count)]
    quiet: u8,
}

/// Runs the program and returns its exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    program::init_logging(-arguments.quiet.min(3).cast_signed());
    interrupt::listen();
    program::exit(run(arguments))
}

fn run(mut arguments: Arguments) -> Result<()> {
    let name = arguments.experiment.file_stem().unwrap_or_default();
    let out = Path::new("runs/experiments").join(name);
    let out = arguments.places.out.get_or_insert(out);
    if out.to_str().is_none() {
        // The stages are called with paths below this one.
        return Err(Error::usage("the experiment's path is not UTF-8")
            .at(out)
            .hint("give another with --out"));
    }
    crate::run(&arguments, &Programs::of_this()?)
}
