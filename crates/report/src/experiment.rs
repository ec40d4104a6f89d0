//! The report of an experiment: its table, its sweeps, what the policies earned and whom they chose, its runs.

mod figures;
mod runs;
mod table;

use dsom_experiment::record::{CellRecord, Record};
use dsom_experiment::results::{self, Value};
use maud::html;
use stage::Result;
use std::path::Path;

use crate::format::counted;
use crate::page::{self, Section};
use crate::run::{Choices, History, Stage};

/// An experiment, read for its report.
pub(crate) struct Experiment {
    /// The commands that were run, and how they ended.
    record: Record,
    /// Every figure of every cell.
    values: Vec<Value>,
    /// The students that were trained.
    students: Vec<Student>,
    /// The runs, and whether they have reports of their own.
    runs: Vec<(String, bool)>,
}

/// A student of one cell.
struct Student {
    cell: CellRecord,
    history: Option<History>,
    choices: Option<Choices>,
}

/// The report of the experiment in `folder`, as HTML.
pub fn experiment_report(folder: &Path) -> Result<String> {
    let experiment = Experiment::read(folder)?;
    let sections = [
        Section::new("table", "Table", table::body(&experiment)),
        Section::new("sweeps", "Sweeps", figures::sweeps(&experiment)),
        Section::new("rewards", "Rewards", figures::rewards(&experiment)),
        Section::new("strategies", "Strategies", figures::strategies(&experiment)),
        Section::new("seeds", "Every seed", table::seeds(&experiment)),
        Section::new("runs", "Runs and commands", runs::body(&experiment)),
    ];
    let lead = html! { p.soft { (experiment.lead()) } };
    Ok(page::page("Report of an experiment", &experiment.record.table.title, &lead, &sections))
}

impl Experiment {
    fn read(folder: &Path) -> Result<Experiment> {
        let record = Record::read(folder)?;
        let mut students = Vec::new();
        let mut runs: Vec<(String, bool)> = Vec::new();
        for cell in &record.cells {
            let root = folder.join(&cell.run);
            let run = cell.run.to_string_lossy().into_owned();
            if runs.iter().all(|(other, _)| *other != run) {
                runs.push((run, root.join("report.html").is_file()));
            }
            let student = cell.measured && root.join(&cell.model).is_dir();
            if student {
                let stage = Stage::read(&root, &cell.model)?;
                let (history, choices) = (History::read(&root, &stage)?, Choices::read(&root, &stage)?);
                students.push(Student { cell: cell.clone(), history, choices });
            }
        }
        let values = results::read(&folder.join(results::FILE))?;
        Ok(Experiment { record, values, students, runs })
    }

    fn lead(&self) -> String {
        let spec = &self.record.experiment;
        let measured = self.record.cells.iter().filter(|cell| cell.measured).count();
        let parts = [
            counted(spec.dataset.len(), "dataset"),
            counted(spec.variants().len(), "variant"),
            counted(spec.seeds.len(), "seed"),
            format!("{measured} of {} measured", counted(self.record.cells.len(), "cell")),
        ];
        parts.join(" · ")
    }

    /// A variant as in the table.
    fn label(&self, variant: &str) -> String {
        let variants = self.record.experiment.variants();
        variants.iter().find(|of| of.name == variant).map_or(variant, |of| of.label()).to_owned()
    }

    /// A dataset as in the table.
    fn title<'a>(&'a self, dataset: &'a str) -> &'a str {
        let datasets = &self.record.experiment.dataset;
        datasets.iter().find(|of| of.name == dataset).map_or(dataset, |of| of.title())
    }
}
