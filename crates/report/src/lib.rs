//! Reports: one HTML file about a run or an experiment, a page that answers, and TensorBoard event files.
//!
//! A report reads what stages wrote and computes nothing that another run would need, so it is no stage: it has no
//! folder and is written anew each time, the same bytes from the same files. The page holds its style sheet and draws
//! its charts as SVG ([`chart`]); it has no script (the page that answers alone has one), and asks the network for
//! nothing. Names come from datasets, so every text is escaped by the template ([`maud`]) on its way into the page.

mod ask;
pub mod chart;
pub mod command;
mod experiment;
pub mod format;
mod page;
pub mod run;
mod sections;
mod strategies;
pub mod tensorboard;

use dsom_experiment::statistics::{Bootstrap, Interval};
use maud::html;
use stage::Result;
use std::collections::BTreeMap;
use std::path::Path;

use page::Section;
use run::RunData;

pub use ask::Ask;
pub use experiment::experiment_report;

/// Number of times that test queries are drawn anew for an interval, the seed, and the share that it covers.
const RESAMPLES: usize = 1000;
const SEED: u64 = 0;
const LEVEL: f64 = 0.95;

/// A run with what is computed once for several sections.
pub(crate) struct Report<'a> {
    data: &'a RunData,
    /// Interval of every model's MRR on the split that is shown, in percent.
    intervals: BTreeMap<String, Interval>,
}

/// The report of the run in `root`, as HTML.
pub fn run_report(root: &Path) -> Result<String> {
    let data = RunData::read(root)?;
    let report = Report { intervals: intervals(&data), data: &data };
    let sections = [
        Section::new("summary", "In short", sections::summary::body(&report)),
        Section::new("results", "Results", sections::results::body(&report)),
        Section::new("slices", "Slices", sections::slices::body(&report)),
        Section::new("learning", "Learning", sections::learning::body(&report)),
        Section::new("strategies", "Strategies", sections::strategies::body(&report)),
        Section::new("calibration", "Calibration", sections::calibration::body(&report)),
        Section::new("coverage", "Coverage", sections::coverage::body(&report)),
        Section::new("audit", "Audit of the graph", sections::audit::body(&report)),
        Section::new("examples", "Predictions by name", sections::examples::body(&report)),
        Section::new("provenance", "Provenance", sections::provenance::body(&report)),
    ];
    let lead = html! { p.soft { (sections::summary::lead(&report)) } };
    Ok(page::page("Report of a run", data.dataset(), &lead, &sections))
}

/// The bootstrap intervals of all models' MRR, in percent.
fn intervals(data: &RunData) -> BTreeMap<String, Interval> {
    let Some(split) = data.shown() else { return BTreeMap::new() };
    let tables: Vec<_> = data.ranks_on(split).collect();
    let reciprocal = |ranks: &[f64]| ranks.iter().map(|rank| 100.0 / rank).collect();
    let columns: Vec<Vec<f64>> = tables.iter().map(|table| reciprocal(&table.ranks)).collect();
    let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    let bootstrap = Bootstrap::draw(&columns, RESAMPLES, SEED);
    let of = |(i, table): (usize, &&dsom_evaluate::table::RankTable)| {
        (table.model.clone(), bootstrap.interval(i, LEVEL))
    };
    tables.iter().enumerate().map(of).collect()
}
