//! `experiment.json`: the commands, their outcomes and the results, for reports and later readers.

use serde::{Deserialize, Serialize};
use stage::files::{read_json, write_json};
use stage::manifest::version;
use stage::{Error, Result};
use std::path::{Path, PathBuf};

use crate::execute::{Outcome, command_line};
use crate::grid::Grid;
use crate::measure::Measured;
use crate::spec::Spec;
use crate::table::Table;

/// The file in the experiment's directory.
pub const FILE: &str = "experiment.json";
/// The version of the file's layout.
const FORMAT: u32 = 1;

/// An experiment that was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Version of this file's layout.
    pub format: u32,
    /// The program's version and source revision.
    pub version: String,
    /// The experiment as requested.
    pub experiment: Spec,
    /// All cells.
    pub cells: Vec<CellRecord>,
    /// Every command with its outcome.
    pub steps: Vec<StepRecord>,
    /// The tables.
    pub table: Table,
}

/// A cell and the place of its model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// The dataset's name.
    pub dataset: String,
    /// The variant's name.
    pub variant: String,
    /// The seed.
    pub seed: u64,
    /// The cell's run, relative to the experiment's directory.
    pub run: PathBuf,
    /// The model's name in the run.
    pub model: String,
    /// True if the model was measured.
    pub measured: bool,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The command as a person would type it.
    pub command: String,
    /// The error, if it failed.
    pub problem: Option<String>,
}

impl Record {
    /// The record of a grid, of the outcomes of its steps, and of the cells that have figures.
    pub(crate) fn of(
        spec: &Spec,
        grid: &Grid,
        out: &Path,
        outcomes: &[Outcome],
        measured: &[Measured],
        table: &Table,
    ) -> Record {
        let cells = grid.cells.iter().map(|cell| CellRecord {
            dataset: cell.dataset.clone(),
            variant: cell.variant.clone(),
            seed: cell.seed,
            run: grid.runs[cell.run].root.strip_prefix(out).unwrap_or(Path::new("")).to_owned(),
            model: cell.model.clone(),
            measured: measured.iter().any(|of| of.cell == *cell),
        });
        let steps = grid.steps.iter().zip(outcomes).map(|(step, outcome)| StepRecord {
            command: command_line(step.program, &grid.arguments(step, outcomes)),
            problem: match outcome {
                Outcome::Done => None,
                Outcome::Failed(_, reason) => Some(reason.clone()),
                Outcome::Skipped(reason) => Some(format!("left out: {reason}")),
            },
        });
        Record {
            format: FORMAT,
            version: version(),
            experiment: spec.clone(),
            cells: cells.collect(),
            steps: steps.collect(),
            table: table.clone(),
        }
    }

    /// Writes the file, atomically.
    pub fn write(&self, out: &Path) -> Result<()> {
        write_json(&out.join(FILE), self)
    }

    /// Reads the file.
    pub fn read(out: &Path) -> Result<Record> {
        let path = out.join(FILE);
        if !path.is_file() {
            return Err(Error::missing("no experiment has been run here")
                .at(out)
                .hint("run `dsom-experiment` first"));
        }
        let record: Record = read_json(&path)?;
        match record.format {
            FORMAT => Ok(record),
            other => Err(Error::data(format!("format {other}, this program reads {FORMAT}")).at(path)),
        }
    }
}
