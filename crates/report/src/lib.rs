//! Reports: one HTML file about a run or an experiment, a page that answers questions, and TensorBoard event files.
//!
//! A report reads the stages' files and computes nothing that another run needs, so it is not a stage: it has no folder
//! and is written again each time, with the same bytes from the same files. The page contains its style sheet, draws
//! its charts as SVG, has no script (except the page that answers questions) and requests nothing from the network.
//! Names come from datasets, so the template ([`maud`]) escapes every text on its way into the page.

mod ask;
mod chart;
pub mod command;
mod experiment;
mod format;
mod page;
mod run;
mod sections;
mod strategies;
mod tensorboard;

use dsom_experiment::statistics::{Bootstrap, Interval};
use stage::Result;
use std::collections::BTreeMap;
use std::path::Path;

use run::RunData;

/// The number of resamples of the test queries for an interval, their seed, and the share that the interval covers.
const RESAMPLES: usize = 1000;
const SEED: u64 = 0;
const LEVEL: f64 = 0.95;

/// A run, with the values that several sections use.
struct Report {
    data: RunData,
    /// The interval of every model's MRR on the split that is shown, in percent.
    intervals: BTreeMap<String, Interval>,
}

fn run_report(root: &Path) -> Result<String> {
    let data = RunData::read(root)?;
    let report = Report { intervals: intervals(&data), data };
    let sections = [
        ("summary", "In short", sections::summary::body(&report)),
        ("results", "Results", sections::results::body(&report)),
        ("slices", "Slices", sections::results::slices(&report)),
        ("learning", "Learning", sections::learning::body(&report)),
        ("strategies", "Strategies", sections::strategies::body(&report)),
        ("calibration", "Calibration", sections::calibration::body(&report)),
        ("coverage", "Coverage", sections::data::coverage(&report)),
        ("audit", "Audit of the graph", sections::data::audit(&report)),
        ("examples", "Predictions by name", sections::results::examples(&report)),
        ("provenance", "Provenance", sections::data::provenance(&report)),
    ];
    Ok(page::page("Report of a run", report.data.dataset(), &sections::summary::lead(&report), &sections))
}

fn intervals(data: &RunData) -> BTreeMap<String, Interval> {
    let tables: Vec<_> = data.shown().into_iter().flat_map(|split| data.ranks_on(split)).collect();
    let columns = tables.iter().map(|table| table.ranks.iter().map(|rank| 100.0 / rank).collect());
    let columns: Vec<Vec<f64>> = columns.collect();
    let bootstrap = Bootstrap::draw(&columns, RESAMPLES, SEED);
    let named = tables.iter().enumerate();
    named.map(|(i, table)| (table.model.clone(), bootstrap.interval(i, LEVEL))).collect()
}
