//! Experiments: a grid of variants, seeds and datasets from one file, to a table.
//!
//! `dsom-experiment` calls the stages' programs, one after the other, with the arguments that a person would type, and
//! prints them. It keeps no state of its own: stages that are fresh say so at once and interrupted ones go on, so the
//! same call continues where it stopped, and another call of a finished experiment only writes its tables anew.
//!
//! | file | content |
//! |---|---|
//! | `<dataset>/seed-…/` | a run for every set of shared stages ([`grid`]), with a student for each variant |
//! | `results.parquet` | every figure of every cell ([`results`]) |
//! | `table.md`, `table.tex` | the table, with intervals and tests ([`table`]) |
//! | `experiment.json` | what was run, what became of it, and the table as numbers ([`record`]) |
//! | `logs/` | of jobs that were submitted ([`slurm`]) |

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

use execute::{Decision, Outcome, Programs};
use grid::{Grid, Places};
use measure::Measured;
use record::Record;
use slurm::Profile;
use spec::Spec;
use table::Table;

/// Part of an experiment that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent<'a> {
    /// All of it.
    Everything,
    /// Nothing but evaluation and tables, of the models that are finished.
    Finished,
    /// Nothing: what would be done is said.
    DryRun,
    /// Nothing here: Slurm does it, with the options of this file.
    Slurm(&'a Path),
    /// Nothing: the script that would submit it is printed.
    SlurmScript(&'a Path),
    /// Nothing: its jobs are written to a file, with the options of another one.
    Plan(&'a Path, Option<&'a Path>),
}

/// Does so much of the experiment of a file.
pub(crate) fn run(file: &Path, places: &Places, programs: &Programs, extent: Extent) -> Result<()> {
    let mut spec = Spec::read(file)?;
    // The whole first: which run a stage belongs to does not depend on what is asked for.
    let mut grid = Grid::plan(&spec, places)?;
    spec.keep(&places.only_variants)?;
    spec.keep_seeds(&places.only_seeds)?;
    let variants: Vec<String> = spec.variants().into_iter().map(|variant| variant.name).collect();
    grid.keep(&variants, &spec.seeds);
    let call: Vec<String> =
        programs.words("dsom-experiment").into_iter().chain(places.arguments(file)).collect();
    let jobs = |profile: &Profile| jobs::jobs(&grid, &call, &places.out, programs, profile);
    let outcomes = match extent {
        Extent::DryRun => return estimate::dry_run(&grid, programs, &places.out),
        Extent::Slurm(profile) => return slurm::submit(&jobs(&Profile::read(profile)?), &call, &places.out),
        Extent::SlurmScript(profile) => {
            return slurm::dry_run(&jobs(&Profile::read(profile)?), &call, &places.out);
        }
        Extent::Plan(to, profile) => {
            let profile = profile.map(Profile::read).transpose()?.unwrap_or_default();
            return jobs::write_plan(&grid, &jobs(&profile.without_arrays()), to);
        }
        Extent::Everything => grid.execute(programs, |_| Ok(Decision::Run))?,
        Extent::Finished => grid.execute(programs, |step| estimate::if_finished(&grid, programs, step))?,
    };
    let measured = measure::read(&grid, &outcomes)?;
    if measured.is_empty() && extent == Extent::Finished {
        // Tables of an earlier call are not written over with empty ones.
        let error = Error::missing(format!("none of {} cells has figures", grid.cells.len())).at(&places.out);
        return Err(error.hint("run the experiment without --finished first"));
    }
    let table = Table::of(&spec, &measured);
    let out = &places.out;
    results::write(&out.join(results::FILE), &results::values(&measured))?;
    let markdown = table::markdown(&table);
    write_bytes(&out.join("table.md"), markdown.as_bytes())?;
    write_bytes(&out.join("table.tex"), table::latex(&table).as_bytes())?;
    Record::of(&spec, &grid, out, &outcomes, &measured, &table).write(out)?;
    print_line(&markdown);
    match extent {
        Extent::Finished => Ok(()),
        _ => conclude(&grid, &outcomes, &measured),
    }
}

/// An error of the first failure's kind if a cell has no figures.
fn conclude(grid: &Grid, outcomes: &[Outcome], measured: &[Measured]) -> Result<()> {
    let missing = grid.cells.len() - measured.len();
    let failed = outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Failed(kind, reason) => Some((*kind, reason)),
        _ => None,
    });
    match failed {
        None if missing == 0 => Ok(()),
        None => Err(Error::new(Kind::Unexpected, format!("{missing} cells have no figures"))),
        Some((kind, reason)) => {
            let message = format!("{missing} of {} cells are missing: {reason}", grid.cells.len());
            Err(Error::new(kind, message)
                .hint("what the stages said stands above; the same call tries them again"))
        }
    }
}
