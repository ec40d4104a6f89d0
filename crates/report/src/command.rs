//! Command line of `dsom report`.

use clap::{ArgAction, ArgGroup, Args};
use stage::files::write_bytes;
use stage::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::ask::Ask;
use crate::experiment::experiment_report;
use crate::{run_report, tensorboard};

/// Write one self-contained HTML file about a run or an experiment
///
/// Reads the finished stages in the directory and writes report.html into it: figures with three tie rules and slices,
/// learning and reward curves, shares of strategies, calibration, coverage, audit, predictions by name, and the origin
/// of every file. A sentence replaces each missing part. The file needs no network and no script. With --ask the file
/// is a page that answers questions as dsom-predict does (docs/predict.md).
#[derive(Args)]
#[command(group = ArgGroup::new("of").args(["run", "experiment"]))]
pub struct Arguments {
    // clap does not read this variable: it would make DSOM_RUN contradict --experiment.
    /// Directory of a run [env: DSOM_RUN]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Directory of an experiment, as dsom-experiment wrote it
    #[arg(long, value_name = "DIR")]
    experiment: Option<PathBuf>,
    #[command(flatten)]
    ask: Ask,
    /// File to write the page to [default: report.html or ask.html in the directory]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also write the run's curves and figures as TensorBoard event files into DIR
    #[arg(long, value_name = "DIR", conflicts_with = "experiment")]
    tensorboard: Option<PathBuf>,
    /// Say less (repeatable)
    #[arg(short, long, action = ArgAction::Count)]
    quiet: u8,
}

/// Runs the program and returns its exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    program::init_logging(-(arguments.quiet.min(3) as i8));
    program::exit(run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let of_environment = std::env::var_os("DSOM_RUN").filter(|run| !run.is_empty()).map(PathBuf::from);
    let run = arguments.run.as_ref().or(of_environment.as_ref());
    let (folder, page, name) = match (&arguments.experiment, run) {
        (Some(folder), _) => (folder, experiment_report(folder)?, "report.html"),
        (None, Some(folder)) if arguments.ask.ask => (folder, arguments.ask.page(folder)?, "ask.html"),
        (None, Some(folder)) => (folder, run_report(folder)?, "report.html"),
        (None, None) => return Err(Error::usage("neither --run nor --experiment is given")),
    };
    let path = arguments.out.clone().unwrap_or_else(|| folder.join(name));
    write_bytes(&path, page.as_bytes())?;
    tracing::info!("{}: {}", path.display(), stage::resources::human(page.len() as u64));
    if let Some(into) = &arguments.tensorboard {
        let files = tensorboard::write(folder, into)?;
        tracing::info!("{}: event files of {files} models", into.display());
    }
    Ok(())
}
