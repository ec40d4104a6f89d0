//! Command line of `dsom experiment`.

use clap::{ArgAction, Args};
use program::print_line;
use stage::{Error, Kind, Result, interrupt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::Extent;
use crate::execute::{Programs, command_line};
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
    experiment: PathBuf,
    /// Directory of its runs and results [default: runs/experiments/ and the name of the file]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Raw folder of a dataset, over the experiment's own (repeatable)
    #[arg(long, value_name = "NAME=DIR", value_parser = pair)]
    data: Vec<(String, PathBuf)>,
    /// Only this dataset (repeatable) [default: all]
    #[arg(long, value_name = "NAME")]
    dataset: Vec<String>,
    /// Only this variant or sweep (repeatable) [default: all]
    #[arg(long, value_name = "NAME")]
    variant: Vec<String>,
    /// Only this seed (repeatable) [default: all]
    #[arg(long, value_name = "N")]
    seed: Vec<u64>,
    /// Text encoder for recipes that name none: see dsom-features
    #[arg(long, value_name = "DIR", env = "DSOM_TEXT_MODEL")]
    text_model: Option<PathBuf>,
    /// Worker threads of every stage [default: all cores]; results do not depend on it
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// List what would run, how it stands and how long it may take, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Train nothing: evaluate what is finished, and write its tables
    #[arg(long, conflicts_with = "dry_run")]
    finished: bool,
    /// Write report.html as well, by dsom-report
    #[arg(long)]
    report: bool,
    /// Submit what is not done to Slurm, a job for each stage with the options of PROFILE (see pipelines/slurm.toml), and
    /// the tables as the last one; with --dry-run print the script that does it
    #[arg(long, value_name = "PROFILE", conflicts_with = "finished")]
    slurm: Option<PathBuf>,
    /// Write the stages' commands, needs, inputs and outputs to a JSON file, and the options of --slurm; run nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["finished", "dry_run"])]
    plan: Option<PathBuf>,
    /// Say less (repeatable)
    #[arg(short, long, action = ArgAction::Count)]
    quiet: u8,
}

fn pair(text: &str) -> Result<(String, PathBuf), String> {
    let (name, folder) = text.split_once('=').ok_or("expected NAME=DIR")?;
    Ok((name.to_owned(), folder.into()))
}

/// Runs the program, and gives its exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    program::init_logging(-arguments.quiet.min(3).cast_signed());
    interrupt::listen();
    program::exit(run(arguments))
}

fn run(arguments: Arguments) -> Result<()> {
    let name = arguments.experiment.file_stem().unwrap_or_default();
    let places = Places {
        out: arguments.out.unwrap_or_else(|| Path::new("runs/experiments").join(name)),
        data: arguments.data.into_iter().collect(),
        text_model: arguments.text_model,
        only: arguments.dataset,
        only_variants: arguments.variant,
        only_seeds: arguments.seed,
        threads: arguments.threads,
    };
    let programs = Programs::of_this()?;
    let extent = match (arguments.plan.as_deref(), arguments.slurm.as_deref()) {
        (Some(plan), profile) => Extent::Plan(plan, profile),
        (None, Some(profile)) if arguments.dry_run => Extent::SlurmScript(profile),
        (None, Some(profile)) => Extent::Slurm(profile),
        _ if arguments.dry_run => Extent::DryRun,
        _ if arguments.finished => Extent::Finished,
        _ => Extent::Everything,
    };
    let done = crate::run(&arguments.experiment, &places, &programs, extent);
    let is_run = matches!(extent, Extent::Everything | Extent::Finished);
    // What could be measured is worth a report, even if something failed.
    if arguments.report && is_run && places.out.join(crate::record::FILE).is_file() {
        report(&programs, &places.out)?;
    }
    done
}

fn report(programs: &Programs, out: &Path) -> Result<()> {
    let arguments = ["--experiment".to_owned(), out.display().to_string()];
    print_line(&format!("$ {}", command_line("dsom-report", &arguments)));
    let status = programs.command("dsom-report").args(&arguments).status();
    match status.map_err(|e| Error::io("dsom-report", e))?.code() {
        Some(0) => Ok(()),
        code => Err(Error::new(Kind::of_exit_code(code.unwrap_or(1)), "dsom-report failed")),
    }
}
