//! The audit as tables that people read.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use mkg::audit::{Audit, Coverage, Leakage, NeighbourCounts, Overlap, SplitCounts, percent};
use mkg::raw::{TextKind, TextReport};
use recipe::Join;

/// The audit in tables and words, without a line end after the last line.
pub fn render(audit: &Audit) -> String {
    let mut parts = vec![
        format!(
            "{}: {} entities, {} relations",
            audit.name,
            grouped(audit.entities),
            grouped(audit.relations)
        ),
        splits(audit).to_string(),
        format!("validation: {}", validation(audit)),
        table(&FINDINGS, finding_rows(audit)).to_string(),
    ];
    if !audit.coverage.sources.is_empty() {
        parts.push(sources(&audit.coverage).to_string());
    }
    if !audit.warnings.is_empty() {
        let lines: Vec<String> = audit.warnings.iter().map(|warning| format!("  ! {warning}")).collect();
        parts.push(format!("worth knowing:\n{}", lines.join("\n")));
    }
    parts.join("\n\n")
}

const RULE: LineStyle = LineStyle::none().fill('─').junction('─');

/// A table whose columns after the first hold numbers.
fn table<R: Into<comfy_table::Row>>(header: &[&str], rows: impl IntoIterator<Item = R>) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(RULE)).set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.add_rows(rows);
    table
}

fn splits(audit: &Audit) -> Table {
    let row = |counts: &SplitCounts| {
        let numbers = [counts.lines, counts.triples, counts.duplicate_lines, counts.self_loops];
        [counts.split.to_string()].into_iter().chain(numbers.map(grouped))
    };
    let header = ["published", "lines", "triples", "repeated lines", "self-loops"];
    table(&header, audit.splits.iter().map(row))
}

fn validation(audit: &Audit) -> String {
    let report = &audit.validation;
    format!(
        "{} ({}); {} triples for training, {} for validation",
        String::from(report.used),
        report.reason,
        grouped(report.train),
        grouped(report.valid)
    )
}

/// The header of [`finding_rows`].
pub const FINDINGS: [&str; 3] = ["finding", "count", "share"];

/// The findings, each with its count, and the share of its whole, if it is one.
pub fn finding_rows(audit: &Audit) -> Vec<[String; 3]> {
    overlap_rows(audit)
        .chain(train_rows(audit))
        .chain(neighbour_rows(&audit.neighbours))
        .chain(leakage_rows(&audit.leakage))
        .chain(coverage_rows(audit))
        .collect()
}

type Finding = [String; 3];

fn count(finding: impl Into<String>, part: usize, whole: usize) -> Finding {
    [finding.into(), grouped(part), percent(part as f64 / whole.max(1) as f64, 1)]
}

fn overlap_rows(audit: &Audit) -> impl Iterator<Item = Finding> {
    audit.overlaps.iter().filter(|overlap| overlap.triples > 0 && overlap.within.is_some()).map(|overlap| {
        let Overlap { of, within, lines, triples } = overlap;
        let within = within.map_or(String::new(), |split| split.to_string());
        let whole = audit.splits.iter().find(|counts| counts.split == *of).map_or(0, |counts| counts.triples);
        count(format!("{of} triples also in {within} ({} lines)", grouped(*lines)), *triples, whole)
    })
}

fn train_rows(audit: &Audit) -> [Finding; 3] {
    let train = &audit.train;
    [
        count("entities in train", train.entities, audit.entities),
        count("relations in train", train.relations, audit.relations),
        count("relations with under 5 train triples", train.rare_relations, audit.relations),
    ]
}

fn neighbour_rows(neighbours: &NeighbourCounts) -> [Finding; 5] {
    let plain = |finding: &str, value: String| [finding.to_owned(), value, String::new()];
    [
        count("distinct train queries, both directions", neighbours.queries, neighbours.directed_triples),
        plain("known tails of a query, at most", grouped(neighbours.max)),
        plain("known tails of a query, mean", format!("{:.2}", neighbours.mean)),
        plain("known tails of a query, median", grouped(neighbours.median)),
        [
            "queries with one known tail".to_owned(),
            grouped((neighbours.single * neighbours.queries as f64).round() as usize),
            percent(neighbours.single, 1),
        ],
    ]
}

fn leakage_rows(leakage: &Leakage) -> [Finding; 7] {
    let Leakage { test, .. } = *leakage;
    [
        count("test (h, r, t) with (t, any r', h) in train", leakage.inverse, test),
        count("  of which the same r", leakage.inverse_same_relation, test),
        count("test (h, r, t) with (h, other r', t) in train", leakage.parallel, test),
        count("test (h, r, t) with either", leakage.any_link, test),
        count("test triples with an entity unseen in train", leakage.unseen_entity, test),
        count("test triples with a relation unseen in train", leakage.unseen_relation, test),
        [
            "test queries that train has tails for".to_owned(),
            grouped((leakage.queries_seen * 2.0 * test as f64).round() as usize),
            percent(leakage.queries_seen, 1),
        ],
    ]
}

fn coverage_rows(audit: &Audit) -> [Finding; 5] {
    let Coverage { names, descriptions, captions, entities_with_images, images, .. } = audit.coverage;
    [
        count("entities with a name", names, audit.entities),
        count("entities with a description", descriptions, audit.entities),
        count("entities with a caption", captions, audit.entities),
        count(
            format!("entities with an image ({} images)", grouped(images)),
            entities_with_images,
            audit.entities,
        ),
        count("relations with a name", audit.coverage.relation_names, audit.relations),
    ]
}

/// The header of [`source_rows`].
pub const SOURCES: [&str; 9] =
    ["texts", "from", "joined by", "rows", "unknown keys", "empty", "repeated", "found", "used"];

/// The fate of every text source.
pub fn source_rows(coverage: &Coverage) -> Vec<[String; 9]> {
    let row = |source: &TextReport| {
        let TextReport { rows, unknown, empty, repeated, ambiguous, found, used, .. } = source;
        let counts = [*rows, unknown + ambiguous, *empty, *repeated, *found, *used];
        let [rows, unknown, empty, repeated, found, used] = counts.map(grouped);
        let [kind, join] = [kind_name(source.kind), join_name(source.join)].map(str::to_owned);
        [kind, source.file.clone(), join, rows, unknown, empty, repeated, found, used]
    };
    coverage.sources.iter().map(row).collect()
}

fn sources(coverage: &Coverage) -> Table {
    let mut table = table(&SOURCES, source_rows(coverage));
    for column in table.column_iter_mut().take(3) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}

fn kind_name(kind: TextKind) -> &'static str {
    match kind {
        TextKind::Name => "names",
        TextKind::Description => "descriptions",
        TextKind::Caption => "captions",
        TextKind::RelationName => "relation names",
    }
}

fn join_name(join: Join) -> &'static str {
    match join {
        Join::Auto => "auto",
        Join::Id => "id",
        Join::Key => "key",
        Join::LastSegment => "last segment",
        Join::WithoutFirstLetter => "all but first letter",
    }
}

/// `12345` as `12,345`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
