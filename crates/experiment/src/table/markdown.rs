//! The table as Markdown.

use super::{
    Comparison, Figure, OfDataset, Row, SIGNIFICANT, Table, label_with_seeds, most_seeds, number, p_value,
};
use crate::Metric;
use crate::statistics::Interval;

/// The whole text: title, a table for each dataset, notes.
pub fn markdown(table: &Table) -> String {
    let mut text = format!("# {}\n", table.title);
    for dataset in &table.datasets {
        text += &format!("\n## {}\n\n", escaped(&dataset.title));
        text += &rows(table, dataset);
        text += &format!("\n{} queries.\n", dataset.queries);
    }
    if table.datasets.is_empty() {
        text += "\nNothing has been measured yet.\n";
    }
    text += &format!("\n{}\n", table.notes().join(" "));
    if !table.caption.is_empty() {
        text += &format!("\n{}\n", table.caption.trim());
    }
    text
}

fn rows(table: &Table, dataset: &OfDataset) -> String {
    let first = table.metrics.first().copied();
    let mut header = vec!["model".to_owned()];
    for metric in &table.metrics {
        header.push(metric.title().to_owned());
        if Some(*metric) == first {
            header.push("interval".to_owned());
        }
    }
    if table.baseline.is_some() {
        header.extend(["Δ", "its interval", "p"].map(str::to_owned));
    }
    let paper = table.paper_metrics();
    if !paper.is_empty() {
        let titles: Vec<&str> = paper.iter().map(|metric| metric.title()).collect();
        header.push(format!("paper: {}", titles.join(" / ")));
    }
    let rule: Vec<&str> = (0..header.len()).map(|i| if i == 0 { "---" } else { "---:" }).collect();
    let mut text = line(&header) + &line(&rule);
    for row in &dataset.rows {
        let mut cells = vec![escaped(&label_with_seeds(row, most_seeds(dataset)))];
        cells.extend(figures(table, dataset, row));
        if table.baseline.is_some() {
            cells.extend(comparison(row.comparison.as_ref()));
        }
        if !paper.is_empty() {
            cells.push(of_paper(row, &paper));
        }
        text += &line(&cells);
    }
    text
}

fn line<S: AsRef<str>>(cells: &[S]) -> String {
    let cells: Vec<&str> = cells.iter().map(S::as_ref).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn figures(table: &Table, dataset: &OfDataset, row: &Row) -> Vec<String> {
    let mut cells = Vec::new();
    for (i, metric) in table.metrics.iter().enumerate() {
        let Some(figure) = row.figures.get(metric) else { continue };
        let text = with_deviation(*metric, figure);
        cells.push(if is_best(dataset, *metric, figure) { format!("**{text}**") } else { text });
        if i == 0 {
            cells
                .push(figure.interval.as_ref().map_or("–".to_owned(), |interval| between(*metric, interval)));
        }
    }
    cells
}

/// Tells whether no row of the dataset has a better mean.
pub(super) fn is_best(dataset: &OfDataset, metric: Metric, figure: &Figure) -> bool {
    let mut means = dataset.rows.iter().filter_map(|row| Some(row.figures.get(&metric)?.mean));
    !means.any(|mean| metric.better(mean, figure.mean))
}

fn with_deviation(metric: Metric, figure: &Figure) -> String {
    let mean = number(metric, figure.mean);
    figure.deviation.map_or(mean.clone(), |deviation| format!("{mean} ± {}", number(metric, deviation)))
}

fn between(metric: Metric, interval: &Interval) -> String {
    format!("{} to {}", number(metric, interval.low), number(metric, interval.high))
}

fn comparison(comparison: Option<&Comparison>) -> [String; 3] {
    match comparison {
        None => ["–"; 3].map(str::to_owned),
        Some(Comparison { difference, interval, p, adjusted }) => {
            let star = if *adjusted < SIGNIFICANT { " *" } else { "" };
            let interval = format!("{:+.2} to {:+.2}", interval.low, interval.high);
            [format!("{difference:+.2}{star}"), interval, p_value(*p)]
        }
    }
}

fn of_paper(row: &Row, metrics: &[Metric]) -> String {
    if row.paper.is_empty() {
        return "–".to_owned();
    }
    let of =
        |metric: &Metric| row.paper.get(metric).map_or("–".to_owned(), |value| number(*metric, *value));
    metrics.iter().map(of).collect::<Vec<_>>().join(" / ")
}

/// Text that Markdown leaves as it is.
fn escaped(text: &str) -> String {
    let special = |c: char| "|*_`<>[]\\".contains(c);
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}
