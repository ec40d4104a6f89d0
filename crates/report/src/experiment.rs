//! The report of an experiment: its table, its sweeps, what the policies earned and whom they chose, its runs.

mod figures;
mod table;

use dsom_experiment::record::{CellRecord, Record};
use dsom_experiment::results::{self, Value};
use maud::{Markup, html};
use stage::Result;
use std::path::Path;

use crate::format::counted;
use crate::page::{self, scroll};
use crate::run::{Choices, History, Stage};

struct Experiment {
    record: Record,
    /// Every figure of every cell.
    values: Vec<Value>,
    students: Vec<Student>,
    /// The runs, and whether they have reports of their own.
    runs: Vec<(String, bool)>,
}

struct Student {
    cell: CellRecord,
    history: Option<History>,
    choices: Option<Choices>,
}

/// The report of the experiment in `folder`, as HTML.
pub(crate) fn experiment_report(folder: &Path) -> Result<String> {
    let experiment = Experiment::read(folder)?;
    let sections = [
        ("table", "Table", table::body(&experiment)),
        ("sweeps", "Sweeps", figures::sweeps(&experiment)),
        ("rewards", "Rewards", figures::rewards(&experiment)),
        ("strategies", "Strategies", figures::strategies(&experiment)),
        ("seeds", "Every seed", table::seeds(&experiment)),
        ("runs", "Runs and commands", runs(&experiment)),
    ];
    let title = &experiment.record.table.title;
    Ok(page::page("Report of an experiment", title, &experiment.lead(), &sections))
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
            if cell.measured && root.join(&cell.model).is_dir() {
                let stage = Stage::read(&root, &cell.model)?;
                let (history, choices) = (History::read(&stage)?, Choices::read(&stage)?);
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
}

/// The folders of the cells, and every command.
fn runs(experiment: &Experiment) -> Markup {
    let record = &experiment.record;
    let head = html! { tr { th { "run" } th.n { "cells" } th.n { "measured" } th { "report" } } };
    let rows = html! { @for (run, has_report) in &experiment.runs {
        @let cells = record.cells.iter().filter(|cell| *cell.run.to_string_lossy() == *run);
        tr {
            td.name { code { (run) } }
            td.n { (cells.clone().count()) }
            td.n { (cells.filter(|cell| cell.measured).count()) }
            td { @if *has_report { a href={ (run) "/report.html" } { "report.html" } }
                @else { span.none { "none: dsom-report --run writes it" } } }
        }
    } };
    html! {
        p.soft { "Run by dsom-experiment " (record.version) ". A run is a directory as any other; those that agree on their first stages link "
            "to the same folders." }
        (scroll(head, rows))
        @for step in record.steps.iter().filter(|step| step.problem.is_some()) {
            p.notice { code { (step.command) } br; (step.problem.as_deref().unwrap_or_default()) }
        }
        details {
            summary { "All " (record.steps.len()) " commands" }
            pre { @for step in &record.steps { (step.command) "\n" } }
        }
    }
}
