//! The table as LaTeX, for `\input` into a paper: it needs the package booktabs.

use super::markdown::is_best;
use super::{
    Comparison, Figure, OfDataset, Row, SIGNIFICANT, Table, label_with_seeds, most_seeds, number, p_value,
};
use crate::Metric;

/// A `table` environment with the datasets below each other.
pub fn latex(table: &Table) -> String {
    let compared = table.baseline.is_some();
    let paper = table.paper_metrics();
    let columns = 1 + table.metrics.len() + 1 + 2 * usize::from(compared) + paper.len();
    let mut text = "% Needs \\usepackage{booktabs}.\n\\begin{table}\n\\centering\n".to_owned();
    text += &format!("\\caption{{{} {}}}\n", escaped(&table.title) + ".", escaped(&caption(table)));
    text += &format!("\\begin{{tabular}}{{l{}}}\n\\toprule\n", "r".repeat(columns - 1));
    text += &header(table, compared, &paper);
    for dataset in &table.datasets {
        text += "\\midrule\n";
        if table.datasets.len() > 1 {
            text +=
                &format!("\\multicolumn{{{columns}}}{{l}}{{\\emph{{{}}}}} \\\\\n", escaped(&dataset.title));
        }
        for row in &dataset.rows {
            text += &line(&cells(table, dataset, row, compared, &paper));
        }
    }
    text + "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
}

fn caption(table: &Table) -> String {
    let mut notes = table.notes();
    notes.extend(Some(table.caption.trim().to_owned()).filter(|caption| !caption.is_empty()));
    notes.join(" ")
}

fn header(table: &Table, compared: bool, paper: &[Metric]) -> String {
    let mut header = vec!["Model".to_owned()];
    for (i, metric) in table.metrics.iter().enumerate() {
        header.push(metric.title().to_owned());
        if i == 0 {
            header.push("interval".to_owned());
        }
    }
    if compared {
        header.extend(["$\\Delta$", "$p$"].map(str::to_owned));
    }
    header.extend(paper.iter().map(|metric| format!("paper's {}", metric.title())));
    line(&header)
}

fn cells(table: &Table, dataset: &OfDataset, row: &Row, compared: bool, paper: &[Metric]) -> Vec<String> {
    let mut cells = vec![escaped(&label_with_seeds(row, most_seeds(dataset)))];
    for (i, metric) in table.metrics.iter().enumerate() {
        let Some(figure) = row.figures.get(metric) else { continue };
        cells.push(with_deviation(*metric, figure, is_best(dataset, *metric, figure)));
        if i == 0 {
            let ends =
                figure.interval.map(|i| format!("{}--{}", number(*metric, i.low), number(*metric, i.high)));
            cells.push(ends.unwrap_or("--".to_owned()));
        }
    }
    if compared {
        cells.extend(comparison(row.comparison.as_ref()));
    }
    let of = |metric: &Metric| row.paper.get(metric).map_or("--".to_owned(), |value| number(*metric, *value));
    cells.extend(paper.iter().map(of));
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

/// Text as LaTeX sets it.
fn escaped(text: &str) -> String {
    let letter = |c: char| match c {
        '&' | '%' | '$' | '#' | '_' | '{' | '}' => format!("\\{c}"),
        '~' => "\\textasciitilde{}".to_owned(),
        '^' => "\\textasciicircum{}".to_owned(),
        '\\' => "\\textbackslash{}".to_owned(),
        '<' => "$<$".to_owned(),
        '>' => "$>$".to_owned(),
        '±' => "$\\pm$".to_owned(),
        'Δ' => "$\\Delta$".to_owned(),
        'α' => "$\\alpha$".to_owned(),
        'β' => "$\\beta$".to_owned(),
        'γ' => "$\\gamma$".to_owned(),
        'τ' => "$\\tau$".to_owned(),
        '–' => "--".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(letter).collect()
}
