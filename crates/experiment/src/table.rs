//! The table of an experiment, as numbers (means, deviations, intervals and tests) and as text in Markdown and LaTeX.

mod latex;
mod markdown;
#[cfg(test)]
mod tests;

pub(crate) use latex::latex;
pub(crate) use markdown::markdown;

use dsom_evaluate::table::RankTable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::Metric;
use crate::measure::{Measured, by_query};
use crate::spec::{Dataset, Place, Resampling, Spec, Variant};
use crate::statistics::{Bootstrap, Interval, deviation, holm, mean, randomisation};

/// The adjusted p-value below which a difference gets a star.
pub const SIGNIFICANT: f64 = 0.05;

/// A table of an experiment's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Title above the table.
    pub title: String,
    /// Text below the table.
    pub caption: String,
    /// The split.
    pub split: String,
    /// The columns.
    pub metrics: Vec<Metric>,
    /// Parameters of intervals and tests.
    pub statistics: Resampling,
    /// The name of the variant that the others are compared with.
    pub baseline: Option<String>,
    /// One part for each dataset.
    pub datasets: Vec<OfDataset>,
}

/// The rows of one dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfDataset {
    /// The dataset's name.
    pub name: String,
    /// Title in the table.
    pub title: String,
    /// The number of queries in each mean: one for every triple and direction.
    pub queries: usize,
    /// The variants that have a figure, in order.
    pub rows: Vec<Row>,
}

/// A variant's row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The variant's name.
    pub variant: String,
    /// Label in the table.
    pub label: String,
    /// Place in a sweep.
    pub place: Option<Place>,
    /// The seeds that have figures.
    pub seeds: Vec<u64>,
    /// The variant's figures.
    pub figures: BTreeMap<Metric, Figure>,
    /// The comparison of the variant's first metric with the baseline's.
    pub comparison: Option<Comparison>,
    /// Figures that the paper reports.
    pub paper: BTreeMap<Metric, f64>,
}

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The mean over seeds.
    pub mean: f64,
    /// The standard deviation over seeds, if there are at least two.
    pub deviation: Option<f64>,
    /// The interval of the mean over most draws of the queries; none if the seeds were evaluated on different queries.
    pub interval: Option<Interval>,
}

/// A paired comparison with the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The variant's mean minus the baseline's.
    pub difference: f64,
    /// The interval of the difference over most draws of the queries.
    pub interval: Interval,
    /// The p-value of a paired randomisation test over queries.
    pub p: f64,
    /// The p-value, adjusted for the number of comparisons on this dataset.
    pub adjusted: f64,
}

impl Table {
    pub(crate) fn of(spec: &Spec, measured: &[Measured]) -> Table {
        let datasets = spec.dataset.iter().map(|dataset| OfDataset::of(spec, dataset, measured));
        Table {
            title: spec.title.clone(),
            caption: spec.caption.clone(),
            split: spec.split.to_string(),
            metrics: spec.metrics.clone(),
            statistics: spec.statistics,
            baseline: spec.baseline.clone(),
            datasets: datasets.filter(|dataset| !dataset.rows.is_empty()).collect(),
        }
    }

    /// The headings that the Markdown and LaTeX tables share.
    fn header(&self, first: &str) -> Vec<String> {
        let mut header = vec![first.to_owned()];
        header.extend(self.metrics.iter().map(|metric| metric.title().to_owned()));
        header.insert(2, "interval".to_owned());
        header
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.datasets.iter().flat_map(|dataset| &dataset.rows)
    }

    /// The metrics that the paper reports for any row, in order.
    pub fn paper_metrics(&self) -> Vec<Metric> {
        let metrics = self.metrics.iter().copied();
        metrics.filter(|metric| self.rows().any(|row| row.paper.contains_key(metric))).collect()
    }

    /// Sentences that explain how to read the table.
    pub fn notes(&self) -> Vec<String> {
        let Resampling { resamples, rounds, level, .. } = self.statistics;
        let percent = (1000.0 * level).round() / 10.0;
        let mut notes = vec![format!(
            "{} split, both directions, filtered, ties realistic; in percent but for MR. The interval covers {percent} % of \
             {resamples} bootstrap draws of the queries.",
            capitalised(&self.split)
        )];
        if self.rows().any(|row| row.seeds.len() > 1) {
            notes.push(
                "± is the standard deviation over seeds, of which intervals and p-values know nothing: they are over \
                 queries, with the seeds averaged."
                    .to_owned(),
            );
        }
        if let Some(Row { label, .. }) = self.rows().find(|row| self.baseline.as_ref() == Some(&row.variant))
        {
            let metric = self.metrics.first().map_or("", |metric| metric.title());
            notes.push(format!(
                "Δ is the difference in {metric} to {label}, query by query over the seeds that both have, with a p-value by \
                 {rounds} rounds of paired approximate randomisation; * where it is below {SIGNIFICANT} after Holm's adjustment for the \
                 comparisons on a dataset."
            ));
        }
        notes
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

impl OfDataset {
    fn of(spec: &Spec, dataset: &Dataset, measured: &[Measured]) -> OfDataset {
        let mut rows: Vec<(Row, Vec<&RankTable>)> = Vec::new();
        for variant in spec.variants() {
            let mut cells: Vec<&Measured> = measured.iter().collect();
            cells.retain(|of| of.cell.dataset == dataset.name && of.cell.variant == variant.name);
            let tables: Vec<&RankTable> = cells.iter().filter_map(|cell| cell.ranks_on(spec.split)).collect();
            if !tables.is_empty() {
                rows.push((row(spec, &dataset.name, &variant, &cells), tables));
            }
        }
        intervals(spec, &mut rows);
        let queries = rows.first().map_or(0, |(_, tables)| tables[0].ranks.len());
        let rows = rows.into_iter().map(|(row, _)| row).collect();
        OfDataset { name: dataset.name.clone(), title: dataset.title().to_owned(), queries, rows }
    }

    /// The largest number of seeds of a row.
    fn seeds(&self) -> usize {
        self.rows.iter().map(|row| row.seeds.len()).max().unwrap_or(0)
    }

    /// Returns whether a row has all seeds, and no other row with all seeds has a better mean.
    pub fn is_best(&self, metric: Metric, row: &Row) -> bool {
        let mean = |row: &Row| {
            row.figures.get(&metric).filter(|_| row.seeds.len() == self.seeds()).map(|of| of.mean)
        };
        mean(row).is_some_and(|best| !self.rows.iter().filter_map(mean).any(|mean| metric.better(mean, best)))
    }
}

/// A row of means and deviations over seeds.
fn row(spec: &Spec, dataset: &str, variant: &Variant, cells: &[&Measured]) -> Row {
    let figures = spec.metrics.iter().map(|metric| {
        let of_seeds: Vec<f64> = cells.iter().filter_map(|cell| cell.figure(spec.split, *metric)).collect();
        (*metric, Figure { mean: mean(&of_seeds), deviation: deviation(&of_seeds), interval: None })
    });
    Row {
        variant: variant.name.clone(),
        label: variant.label().to_owned(),
        place: variant.place.clone(),
        seeds: cells.iter().map(|cell| cell.cell.seed).collect(),
        figures: figures.collect(),
        comparison: None,
        paper: variant.paper.get(dataset).cloned().unwrap_or_default(),
    }
}

/// Adds intervals and comparisons. Rows with the same queries are resampled together.
fn intervals(spec: &Spec, rows: &mut [(Row, Vec<&RankTable>)]) {
    let baseline =
        spec.baseline.as_ref().and_then(|name| rows.iter().position(|(row, _)| row.variant == *name));
    let Some(asked) = rows.get(baseline.unwrap_or(0)).map(|(_, tables)| &tables[0].asked) else { return };
    let mut alike = Vec::new();
    for (i, (row, tables)) in rows.iter().enumerate() {
        if tables.iter().all(|table| table.asked == *asked) {
            alike.push(i);
        } else {
            tracing::warn!("{}: other queries than the rest, so no interval and no comparison", row.variant);
        }
    }
    let by_metric = |row: usize| {
        let tables = &rows[row].1;
        spec.metrics.iter().map(move |metric| ((row, *metric), by_query(tables, *metric)))
    };
    let (places, values): (Vec<_>, Vec<_>) = alike.iter().flat_map(|row| by_metric(*row)).unzip();
    for ((row, metric), interval) in places.into_iter().zip(resampled(spec, &values)) {
        if let Some(figure) = rows[row].0.figures.get_mut(&metric) {
            figure.interval = Some(interval);
        }
    }
    if let Some(baseline) = baseline.filter(|baseline| alike.contains(baseline)) {
        compare(spec, rows, baseline, &alike);
    }
}

/// The interval of each column's mean.
fn resampled(spec: &Spec, columns: &[Vec<f64>]) -> Vec<Interval> {
    let Resampling { resamples, level, seed, .. } = spec.statistics;
    let bootstrap = Bootstrap::draw(columns, resamples, seed);
    (0..columns.len()).map(|column| bootstrap.interval(column, level)).collect()
}

/// Compares the first metric of the rows `alike` with the baseline's, over the seeds that both rows have.
fn compare(spec: &Spec, rows: &mut [(Row, Vec<&RankTable>)], baseline: usize, alike: &[usize]) {
    let shared = |this: usize, other: usize| -> Vec<&RankTable> {
        let ((row, tables), others) = (&rows[this], &rows[other].0.seeds);
        let shared = row.seeds.iter().zip(tables).filter(|(seed, _)| others.contains(seed));
        shared.map(|(_, table)| *table).collect()
    };
    let compared = alike.iter().copied().filter(|row| *row != baseline).filter_map(|row| {
        let [these, those] = [shared(row, baseline), shared(baseline, row)];
        let difference = |(this, that)| this - that;
        (!these.is_empty()).then(|| {
            let [these, those] = [these, those].map(|tables| by_query(&tables, spec.metrics[0]));
            (row, these.into_iter().zip(those).map(difference).collect())
        })
    });
    let (compared, differences): (Vec<usize>, Vec<Vec<f64>>) = compared.unzip();
    let p_values: Vec<f64> = differences
        .iter()
        .map(|differences| randomisation(differences, spec.statistics.rounds, spec.statistics.seed))
        .collect();
    let figures = p_values.iter().zip(holm(&p_values)).zip(resampled(spec, &differences));
    for ((row, differences), ((&p, adjusted), interval)) in compared.iter().zip(&differences).zip(figures) {
        rows[*row].0.comparison = Some(Comparison { difference: mean(differences), interval, p, adjusted });
    }
}

/// The label of a row, with its number of seeds if another row has more.
fn label_with_seeds(dataset: &OfDataset, row: &Row) -> String {
    let most = dataset.seeds();
    match row.seeds.len() {
        all if all == most => row.label.clone(),
        some => format!("{} ({some} of {most} seeds)", row.label),
    }
}

/// A p-value, with only its meaningful digits.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

/// A figure with its digits: mean ranks need fewer than percentages.
pub fn number(metric: Metric, value: f64) -> String {
    if metric == Metric::Mr { format!("{value:.1}") } else { format!("{value:.2}") }
}
