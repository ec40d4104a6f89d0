//! The table as Markdown.

use super::{Comparison, Figure, OfDataset, Row, SIGNIFICANT, Table, label_with_seeds, number, p_value};
use crate::Metric;

/// The whole text: the title, a table for each dataset, and notes.
pub(crate) fn markdown(table: &Table) -> String {
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
    let mut header = table.header("model");
    if table.baseline.is_some() {
        header.extend(["Δ", "its interval", "p"].map(str::to_owned));
    }
    let paper = table.paper_metrics();
    if !paper.is_empty() {
        let titles: Vec<&str> = paper.iter().map(|metric| metric.title()).collect();
        header.push(format!("paper: {}", titles.join(" / ")));
    }
    let mut text = format!("{}|{}{}\n", line(&header), " --- |", " ---: |".repeat(header.len() - 1));
    for row in &dataset.rows {
        let mut cells = vec![escaped(&label_with_seeds(dataset, row))];
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

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn figures(table: &Table, dataset: &OfDataset, row: &Row) -> Vec<String> {
    let mut cells = Vec::new();
    for (i, metric) in table.metrics.iter().enumerate() {
        let Some(figure) = row.figures.get(metric) else { continue };
        let text = with_deviation(*metric, figure);
        cells.push(if dataset.is_best(*metric, row) { format!("**{text}**") } else { text });
        if i == 0 {
            let ends =
                figure.interval.map(|of| [of.low, of.high].map(|end| number(*metric, end)).join(" to "));
            cells.push(ends.unwrap_or("–".to_owned()));
        }
    }
    cells
}

fn with_deviation(metric: Metric, figure: &Figure) -> String {
    let mean = number(metric, figure.mean);
    figure.deviation.map_or(mean.clone(), |deviation| format!("{mean} ± {}", number(metric, deviation)))
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
    let values = metrics.iter().map(|metric| (metric, row.paper.get(metric)));
    let values =
        values.map(|(metric, value)| value.map_or("–".to_owned(), |value| number(*metric, *value)));
    values.collect::<Vec<_>>().join(" / ")
}

/// Text with escapes, so that Markdown shows it unchanged.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| "|*_`<>[]\\".contains(c).then_some('\\').into_iter().chain([c])).collect()
}
