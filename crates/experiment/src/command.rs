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
/// command. What several cells share is run once; what is
/// fresh is not run again; an interrupted experiment goes on. Writes results.parquet, table.md, table.tex and
/// experiment.json. A cell that fails is reported and the others go on; the exit code is then that of the first failure.
#[derive(Args)]
pub struct Arguments {
    /// The experiment, in TOML
    #[arg(value_name = "FILE")]
    pub(crate) experiment: PathBuf,
    #[command(flatten)]
    pub(crate) places: Places,
    /// List what would run, how it stands and how long it may take, and run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Train nothing: evaluate what is finished, and write its tables
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) finished: bool,
    /// Write report.html as well, by dsom-report
    #[arg(long)]
    pub(crate) report: bool,
    /// Submit what is not done to Slurm, a job for each stage with the options of PROFILE (see pipelines/slurm.toml), and
    /// the tables as the last one; with --dry-run print the script that does it
    #[arg(long, value_name = "PROFILE", conflicts_with = "finished")]
    pub(crate) slurm: Option<PathBuf>,
    /// Write the stages' commands, needs, inputs and outputs to a JSON file, and the options of --slurm; run nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["finished", "dry_run"])]
    pub(crate) plan: Option<PathBuf>,
    /// Say less (repeatable)
    #[arg(short, long, action = ArgAction::Count)]
    quiet: u8,
}

/// Runs the program, and gives its exit code.
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
        // The stages are called with paths of it.
        return Err(Error::usage("the experiment's path is not UTF-8")
            .at(out)
            .hint("give another with --out"));
    }
    crate::run(&arguments, &Programs::of_this()?)
}
