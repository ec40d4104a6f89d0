//! Experiments: a table from a grid of variants, seeds and datasets, which one file describes.
//!
//! `dsom-experiment` calls the stages' programs one after the other, with the arguments that a person would type, and
//! prints the calls. It keeps no state of its own: fresh stages say so at once and interrupted stages continue. So the
//! same call continues after an interruption, and another call of a finished experiment only writes its tables again.
//!
//! | file | content |
//! |---|---|
//! | `<dataset>/seed-…/` | a run for every set of shared stages (`grid`), with a student for each variant |
//! | `results.parquet` | every figure of every cell ([`results`]) |
//! | `table.md`, `table.tex` | the table, with intervals and tests ([`table`]) |
//! | `experiment.json` | what was run, what became of it, and the table as numbers ([`record`]) |
//! | `logs/` | of jobs that were submitted (`slurm`) |

pub mod command;
mod estimate;
mod execute;
mod grid;
mod jobs;
mod measure;
mod metric;
mod overrides;
pub mod record;
pub mod results;
mod slurm;
pub mod spec;
pub mod statistics;
pub mod table;

pub use metric::Metric;

use program::print_line;
use stage::files::write_bytes;
use stage::{Error, Kind, Result};
use std::path::Path;

use command::Arguments;
use execute::{Outcome, Programs};
use grid::Grid;
use measure::Measured;
use record::Record;
use slurm::Profile;
use spec::Spec;
use table::Table;

/// Runs the requested part of an experiment.
pub(crate) fn run(arguments: &Arguments, programs: &Programs) -> Result<()> {
    let Arguments { experiment: file, places, finished, .. } = arguments;
    let mut spec = Spec::read(file)?;
    // The whole grid is planned first: the run of a stage does not depend on the requested part.
    let mut grid = Grid::plan(&spec, places)?;
    spec.keep(&places.variant)?;
    spec.keep_seeds(&places.seed)?;
    let variants: Vec<String> = spec.variants().into_iter().map(|variant| variant.name).collect();
    grid.keep(&variants, &spec.seeds);
    let out = places.out();
    if arguments.plan.is_some() || arguments.slurm.is_some() {
        let mut profile = arguments.slurm.as_deref().map(Profile::read).transpose()?.unwrap_or_default();
        if arguments.plan.is_some() {
            profile = profile.without_arrays();
        }
        let call = [programs.words("dsom-experiment").to_vec(), places.arguments(file)].concat();
        let jobs = jobs::jobs(&grid, &call, out, programs, &profile);
        return match &arguments.plan {
            Some(plan) => jobs::write_plan(&grid, &jobs, plan),
            None if arguments.dry_run => slurm::dry_run(&jobs, &call, out),
            None => slurm::submit(&jobs, &call, out),
        };
    }
    if arguments.dry_run {
        return estimate::dry_run(&grid, programs, out);
    }
    let outcomes = grid.execute(programs, *finished)?;
    let measured = measure::read(&grid, &outcomes)?;
    if measured.is_empty() {
        // Empty tables must not replace the tables of an earlier call.
        conclude(&grid, &outcomes, &measured, *finished)?;
        let error = Error::missing(format!("none of {} cells has figures", grid.cells.len())).at(out);
        return Err(error.hint("run the experiment without --finished first"));
    }
    let table = Table::of(&spec, &measured);
    results::write(&out.join(results::FILE), &results::values(&measured))?;
    let markdown = table::markdown(&table);
    write_bytes(&out.join("table.md"), markdown.as_bytes())?;
    write_bytes(&out.join("table.tex"), table::latex(&table).as_bytes())?;
    Record::of(&spec, &grid, out, &outcomes, &measured, &table).write(out)?;
    print_line(&markdown)?;
    // All measured cells go into the report, even if some step failed.
    let reported = if arguments.report { report(programs, out) } else { Ok(()) };
    conclude(&grid, &outcomes, &measured, *finished).and(reported)
}

fn report(programs: &Programs, out: &Path) -> Result<()> {
    match execute::run(programs, "dsom-report", &["--experiment".to_owned(), out.display().to_string()])? {
        Outcome::Failed(kind, reason) => Err(Error::new(kind, reason)),
        _ => Ok(()),
    }
}

/// Returns an error of the first failure's kind, or an error if cells have no figures; `finished` allows missing cells.
fn conclude(grid: &Grid, outcomes: &[Outcome], measured: &[Measured], finished: bool) -> Result<()> {
    let missing = grid.cells.len() - measured.len();
    let failed = outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Failed(kind, reason) => Some((*kind, reason)),
        _ => None,
    });
    match failed {
        None if missing == 0 || finished => Ok(()),
        None => Err(Error::new(Kind::Unexpected, format!("{missing} cells have no figures"))),
        Some((kind, reason)) => {
            let message = format!("{missing} of {} cells are missing: {reason}", grid.cells.len());
            Err(Error::new(kind, message)
                .hint("what the stages said stands above; the same call tries them again"))
        }
    }
}
