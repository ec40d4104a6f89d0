//! The report of an experiment: its table, its sweeps, its runs, and the rewards and choices of its policies.

mod figures;

use dsom_experiment::Metric;
use dsom_experiment::record::{CellRecord, Record};
use dsom_experiment::results::{self, Value};
use dsom_experiment::table::{Comparison, OfDataset, Row, SIGNIFICANT, number, p_value};
use maud::{Markup, html};
use stage::Result;
use std::collections::BTreeMap;
use std::path::Path;

use crate::chart::{around, interval, series};
use crate::format::{counted, grouped, or_dash};
use crate::page::{self, absent, scroll};
use crate::run::{Choices, History, Stage};

struct Experiment {
    record: Record,
    values: Vec<Value>,
    students: Vec<Student>,
    /// The runs; true for each that has its own report.
    runs: Vec<(String, bool)>,
}

struct Student {
    cell: CellRecord,
    history: Option<History>,
    choices: Option<Choices>,
}

pub(crate) fn experiment_report(folder: &Path) -> Result<String> {
    let experiment = Experiment::read(folder)?;
    let sections = [
        ("table", "Table", table(&experiment)),
        ("sweeps", "Sweeps", figures::sweeps(&experiment)),
        ("rewards", "Rewards", figures::rewards(&experiment)),
        ("strategies", "Strategies", figures::strategies(&experiment)),
        ("seeds", "Every seed", seeds(&experiment)),
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

    /// The label of a variant in the table.
    fn label(&self, variant: &str) -> String {
        let variants = self.record.experiment.variants();
        variants.iter().find(|of| of.name == variant).map_or(variant, |of| of.label()).to_owned()
    }
}

fn table(experiment: &Experiment) -> Markup {
    let table = &experiment.record.table;
    let problems = experiment.record.steps.iter().filter(|step| step.problem.is_some()).count();
    html! {
        @if problems > 0 {
            p.notice { b { "Not complete: " } (problems) " steps did not end well, see " a href="#runs" { "runs" } "." }
        }
        p.soft { (table.notes().join(" ")) }
        @if !table.caption.is_empty() { p { (table.caption) } }
        @if table.datasets.is_empty() { (absent("Nothing has been measured yet.")) }
        @for dataset in &table.datasets {
            h3 { (dataset.title) }
            (rows(experiment, dataset))
            p.soft { (grouped(dataset.queries)) " queries." }
        }
        p.soft { "The same as text: table.md; for a paper: table.tex; as numbers: results.parquet and experiment.json." }
    }
}

fn rows(experiment: &Experiment, dataset: &OfDataset) -> Markup {
    let table = &experiment.record.table;
    let first = table.metrics.first().copied();
    let paper = table.paper_metrics();
    let intervals = dataset.rows.iter().filter_map(|row| row.figures.get(&first?)?.interval);
    let scale = around(intervals);
    let head = html! { tr {
        th { "model" }
        @for metric in &table.metrics {
            th.n { (metric.title()) }
            @if Some(*metric) == first { th { "interval" } }
        }
        @if table.baseline.is_some() { th.n { "Δ " (first.map_or("", Metric::title)) ", interval" } th.n { "p" } }
        @for metric in &paper { th.n { "paper’s " (metric.title()) } }
    } };
    let rows = html! { @for row in &dataset.rows {
        @let is_baseline = table.baseline.as_ref() == Some(&row.variant);
        tr {
            td.name { (row.label) @if is_baseline { span.soft { " (baseline)" } } }
            @for metric in &table.metrics {
                (figure(dataset, row, *metric))
                @if Some(*metric) == first { td.interval { (drawn(row, *metric, scale, is_baseline)) } }
            }
            @if table.baseline.is_some() { (comparison(row.comparison.as_ref())) }
            @for metric in &paper {
                td.n { @match row.paper.get(metric) {
                    Some(value) => span.soft { (number(*metric, *value)) },
                    None => span.none { "–" },
                } }
            }
        }
    } };
    scroll(head, rows)
}

fn figure(dataset: &OfDataset, row: &Row, metric: Metric) -> Markup {
    let Some(of) = row.figures.get(&metric) else { return html! { td.n { "–" } } };
    html! { td.n.best[dataset.is_best(metric, row)] {
        (number(metric, of.mean))
        @if let Some(deviation) = of.deviation { span.soft { " ± " (number(metric, deviation)) } }
    } }
}

fn drawn(row: &Row, metric: Metric, scale: Option<(f64, f64)>, is_baseline: bool) -> Markup {
    let Some((figure, scale)) = row.figures.get(&metric).zip(scale) else { return html! {} };
    let class = series(if is_baseline { 1 } else { 0 });
    html! { @if let Some(of) = figure.interval { (interval(of, figure.mean, scale, class)) } }
}

fn comparison(comparison: Option<&Comparison>) -> Markup {
    let Some(Comparison { difference, interval, p, adjusted }) = comparison else {
        return html! { @for _ in 0..2 { td.n { span.none { "–" } } } };
    };
    html! {
        td.n {
            (format!("{difference:+.2}")) @if *adjusted < SIGNIFICANT { " *" }
            br; span.soft { (format!("{:+.2} to {:+.2}", interval.low, interval.high)) }
        }
        td.n title=(format!("adjusted by Holm: {}", p_value(*adjusted))) { (p_value(*p)) }
    }
}

/// All figures of the table's split, seed by seed.
fn seeds(experiment: &Experiment) -> Markup {
    let (datasets, variants) =
        (&experiment.record.experiment.dataset, experiment.record.experiment.variants());
    let mut cells: BTreeMap<(usize, usize, u64), BTreeMap<&str, f64>> = BTreeMap::new();
    for value in experiment.values.iter().filter(|value| value.split == experiment.record.table.split) {
        let dataset = datasets.iter().position(|of| of.name == value.dataset);
        let variant = variants.iter().position(|of| of.name == value.variant);
        if let Some((dataset, variant)) = dataset.zip(variant) {
            cells.entry((dataset, variant, value.seed)).or_default().insert(&value.metric, value.value);
        }
    }
    if cells.is_empty() {
        return absent("Nothing has been measured yet.");
    }
    let head = html! { tr {
        th { "dataset" } th { "model" } th.n { "seed" } @for metric in Metric::ALL { th.n { (metric.title()) } }
    } };
    let rows = html! { @for ((dataset, variant, seed), figures) in &cells { tr {
        td { (datasets[*dataset].title()) }
        td.name { (variants[*variant].label()) }
        td.n { (seed) }
        @for metric in Metric::ALL {
            td.n { (or_dash(figures.get(metric.as_str()).map(|value| number(metric, *value)))) }
        }
    } } };
    scroll(head, rows)
}

/// The folders of the cells, and all commands.
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
