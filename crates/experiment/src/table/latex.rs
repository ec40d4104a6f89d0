//! The table as LaTeX, for `\input` into a paper: it needs the package booktabs.

use super::{Comparison, Figure, OfDataset, Row, SIGNIFICANT, Table, label_with_seeds, number, p_value};
use crate::Metric;

/// A `table` environment with the datasets below each other.
pub(crate) fn latex(table: &Table) -> String {
    let paper = table.paper_metrics();
    let header = header(table, &paper);
    let columns = header.len();
    let caption = format!("{}. {} {}", table.title, table.notes().join(" "), table.caption.trim());
    let mut text = "% Needs \\usepackage{booktabs}.\n\\begin{table}\n\\centering\n".to_owned();
    text += &format!("\\caption{{{}}}\n", escaped(caption.trim_end()));
    text += &format!("\\begin{{tabular}}{{l{}}}\n\\toprule\n", "r".repeat(columns - 1));
    text += &line(&header);
    for dataset in &table.datasets {
        text += "\\midrule\n";
        if table.datasets.len() > 1 {
            text +=
                &format!("\\multicolumn{{{columns}}}{{l}}{{\\emph{{{}}}}} \\\\\n", escaped(&dataset.title));
        }
        for row in &dataset.rows {
            text += &line(&cells(table, dataset, row, &paper));
        }
    }
    text + "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
}

fn header(table: &Table, paper: &[Metric]) -> Vec<String> {
    let mut header = table.header("Model");
    if table.baseline.is_some() {
        header.extend(["$\\Delta$", "$p$"].map(str::to_owned));
    }
    header.extend(paper.iter().map(|metric| format!("paper's {}", metric.title())));
    header
}

fn cells(table: &Table, dataset: &OfDataset, row: &Row, paper: &[Metric]) -> Vec<String> {
    let mut cells = vec![escaped(&label_with_seeds(dataset, row))];
    for (i, metric) in table.metrics.iter().enumerate() {
        let Some(figure) = row.figures.get(metric) else { continue };
        cells.push(with_deviation(*metric, figure, dataset.is_best(*metric, row)));
        if i == 0 {
            let ends = figure.interval.map(|of| [of.low, of.high].map(|end| number(*metric, end)).join("--"));
            cells.push(ends.unwrap_or("--".to_owned()));
        }
    }
    if table.baseline.is_some() {
        cells.extend(comparison(row.comparison.as_ref()));
    }
    for metric in paper {
        cells.push(row.paper.get(metric).map_or("--".to_owned(), |value| number(*metric, *value)));
    }
    cells
}

fn with_deviation(metric: Metric, figure: &Figure, best: bool) -> String {
    let mean = number(metric, figure.mean);
    let mean = if best { format!("\\mathbf{{{mean}}}") } else { mean };
    match figure.deviation {
        Some(deviation) => format!("${mean} \\pm {}$", number(metric, deviation)),
        None => format!("${mean}$"),
    }
}

fn comparison(comparison: Option<&Comparison>) -> [String; 2] {
    match comparison {
        None => ["--".to_owned(), "--".to_owned()],
        Some(Comparison { difference, p, adjusted, .. }) => {
            let star = if *adjusted < SIGNIFICANT { "^{*}" } else { "" };
            [format!("${difference:+.2}{star}$"), format!("${}$", p_value(*p))]
        }
    }
}

fn line(cells: &[String]) -> String {
    format!("{} \\\\\n", cells.join(" & "))
}

/// Text with escapes, so that LaTeX shows it unchanged.
fn escaped(text: &str) -> String {
    let mut set = String::new();
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => set.extend(['\\', c]),
            '~' => set += "\\textasciitilde{}",
            '^' => set += "\\textasciicircum{}",
            '\\' => set += "\\textbackslash{}",
            '<' => set += "$<$",
            '>' => set += "$>$",
            '±' => set += "$\\pm$",
            'Δ' => set += "$\\Delta$",
            'α' => set += "$\\alpha$",
            'β' => set += "$\\beta$",
            'γ' => set += "$\\gamma$",
            'τ' => set += "$\\tau$",
            '–' => set += "--",
            c => set.push(c),
        }
    }
    set
}
