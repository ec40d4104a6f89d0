//! The command line that all programs share, and the code around each program's `main`.

use clap::builder::RangedU64ValueParser;
use clap::{ArgAction, Args};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use recipe::Recipe;
use stage::task::Task;
use stage::work::Work;
use stage::{Kind, Result, Run, interrupt};

use crate::{Device, init_logging, printable};

/// Arguments of every stage.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Directory of the run; each stage keeps a folder in it
    #[arg(long, value_name = "DIR", env = "DSOM_RUN")]
    run: PathBuf,
    /// Recipe in TOML (see pipelines/default.toml); a later one overrides an earlier one
    #[arg(long, value_name = "FILE")]
    recipe: Vec<PathBuf>,
    /// Override one key of the recipe, e.g. --set distill.term.gamma=4
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seed of everything random in the run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Worker threads [default: all cores]; results do not depend on it
    #[arg(long, value_name = "N", env = "SLURM_CPUS_PER_TASK", value_parser = RangedU64ValueParser::<usize>::new().range(..=1024))]
    threads: Option<usize>,
    /// Device to compute on: auto, cpu, cuda or cuda:N (from 0), metal, candle (for tests); see docs/gpu.md
    #[arg(long, value_name = "DEVICE", env = "DSOM_DEVICE", default_value = "auto")]
    device: Device,
    /// Do the work even if its result is fresh
    #[arg(long)]
    pub(crate) force: bool,
    /// Print whether the stage is fresh, or why it is not, and do nothing
    #[arg(long)]
    status: bool,
    /// Say less (repeatable)
    #[arg(short, long, action = ArgAction::Count)]
    quiet: u8,
    /// Say more (repeatable)
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

impl Common {
    /// The run directory.
    pub fn run(&self) -> Run {
        Run::new(&self.run)
    }

    /// Reads the recipe files in order, then applies `--set` and `--seed`.
    pub fn recipe(&self) -> Result<Recipe> {
        self.recipe_with(&[])
    }

    /// Reads the recipe like [`Common::recipe`], then applies a program's own flags, as `KEY=VALUE`.
    pub fn recipe_with(&self, flags: &[String]) -> Result<Recipe> {
        let mut sets = self.set.clone();
        sets.extend(self.seed.map(|seed| format!("seed={seed}")));
        sets.extend_from_slice(flags);
        Recipe::load(&self.recipe, &sets)
    }

    fn has_recipes(&self) -> bool {
        self.recipe.iter().all(|file| file.is_file())
    }

    /// The device to compute on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Begins `task` unless it is fresh. With `--status`, prints the task's state and begins nothing. `ready` does the
    /// steps that may fail before anything is changed: see [`Task::begin`].
    pub fn begin<T>(&self, task: Task, ready: impl FnOnce() -> Result<T>) -> Result<Option<(Work, T)>> {
        if self.status {
            self.say(task.folder(), &task.status())?;
            return Ok(None);
        }
        task.begin(self.force, ready)
    }

    /// Prints the state of a stage's folder.
    pub fn say(&self, folder: &Path, status: &impl Display) -> Result<()> {
        let folder = folder.strip_prefix(&self.run).unwrap_or(folder);
        print_line(&format!("{:24} {status}", folder.display()))
    }

    /// Tells whether `-q` was given: then no results are printed.
    pub fn is_quiet(&self) -> bool {
        self.quiet > 0
    }

    /// Tells whether `--status` was given: then no work is done.
    pub fn is_status(&self) -> bool {
        self.status
    }
}

/// Writes a line of results to standard output and escapes control characters in names. A closed pipe is not an error.
///
/// # Errors
/// [`Kind::Io`] for a failed write, as on a full disk.
pub fn print_line(line: &str) -> Result<()> {
    use std::io::{ErrorKind, Write};
    match writeln!(std::io::stdout(), "{}", printable(line)) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(stage::Error::io("standard output", error))
        }
        _ => Ok(()),
    }
}

/// The name by which this program was called: `dsom-teachers`, or `dsom teachers`.
fn called() -> String {
    let mut words = std::env::args().take(2);
    let first = words.next().unwrap_or_default();
    let name = Path::new(&first).file_name().unwrap_or_default().to_string_lossy();
    if name == "dsom" { format!("dsom {}", words.next().unwrap_or_default()) } else { name.into_owned() }
}

/// Runs a program's body: sets up logging, threads and signals before it, and reports its error and exit code after it.
pub fn main(common: &Common, body: impl FnOnce() -> Result<()>) -> ExitCode {
    init_logging(common.verbose.min(3).cast_signed() - common.quiet.min(3).cast_signed());
    interrupt::listen();
    let threads = rayon::ThreadPoolBuilder::new().num_threads(common.threads.unwrap_or(0)).build_global();
    if let Err(error) = threads {
        tracing::warn!("cannot set the number of threads: {error}");
    }
    match body() {
        // With `--status`, a missing input is an answer and not a failure.
        Err(error) if common.status && error.kind() == Kind::Missing && common.has_recipes() => {
            exit(print_line(&format!("{:24} waits: {error}", called())))
        }
        result => exit(result),
    }
}

/// Logs the error, if there is one, and returns the exit code. Programs that are not stages call this last.
pub fn exit(result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    // The chain of causes is on one line, the remedy on the next.
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    let message = causes.fold(error.to_string(), |message, cause| format!("{message}: {cause}"));
    match error.kind() {
        Kind::Interrupted => tracing::warn!("{message}"),
        _ => tracing::error!("{message}"),
    }
    if let Some(hint) = error.hint_text() {
        tracing::info!("hint: {hint}");
    }
    ExitCode::from(error.kind().exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        common: Common,
    }

    #[test]
    fn more_threads_than_any_machine_has_are_refused() {
        let parse = |threads| Cli::try_parse_from(["x", "--run", "r", "--threads", threads]);
        assert_eq!(parse("1024").unwrap().common.threads, Some(1024));
        assert!(parse("1025").is_err());
    }
}
