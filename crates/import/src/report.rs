//! The audit as human-readable tables.

use mkg::audit::{self, Audit, Coverage, SplitCounts, percent};
use mkg::raw::{TextKind, TextReport};
use program::table;
use recipe::Join;

/// The audit in tables and sentences, without a line end after the last line.
pub fn render(audit: &Audit) -> String {
    let Audit { name, validation, coverage, warnings, .. } = audit;
    let [entities, relations] = [audit.entities, audit.relations].map(grouped);
    let [train, valid] = [validation.train, validation.valid].map(grouped);
    let (used, reason) = (String::from(validation.used), &validation.reason);
    let mut parts = vec![
        format!("{name}: {entities} entities, {relations} relations"),
        table(&SPLITS, 1).add_rows(audit.splits.iter().map(split_row)).to_string(),
        format!("validation: {used} ({reason}); {train} triples for training, {valid} for validation"),
        table(&FINDINGS, 1).add_rows(finding_rows(audit)).to_string(),
    ];
    if !coverage.sources.is_empty() {
        parts.push(table(&SOURCES, 3).add_rows(source_rows(coverage)).to_string());
    }
    if !warnings.is_empty() {
        let lines: Vec<String> = warnings.iter().map(|warning| format!("  ! {warning}")).collect();
        parts.push(format!("worth knowing:\n{}", lines.join("\n")));
    }
    parts.join("\n\n")
}

const SPLITS: [&str; 5] = ["published", "lines", "triples", "repeated lines", "self-loops"];

fn split_row(counts: &SplitCounts) -> impl Iterator<Item = String> {
    let numbers = [counts.lines, counts.triples, counts.duplicate_lines, counts.self_loops];
    [counts.split.to_string()].into_iter().chain(numbers.map(grouped))
}

/// The header of [`finding_rows`].
pub const FINDINGS: [&str; 3] = ["finding", "count", "share"];

/// The findings, each with its count and, if it is a part of something, its share.
pub fn finding_rows(audit: &Audit) -> Vec<[String; 3]> {
    let Audit { entities, relations, ref train, ref neighbours, ref leakage, ref coverage, .. } = *audit;
    let rows = [
        count("entities in train", train.entities, entities),
        count("relations in train", train.relations, relations),
        count("relations with under 5 train triples", train.rare_relations, relations),
        count("distinct train queries, both directions", neighbours.queries, neighbours.directed_triples),
        plain("known tails of a query, at most", grouped(neighbours.max)),
        plain("known tails of a query, mean", format!("{:.2}", neighbours.mean)),
        plain("known tails of a query, median", grouped(neighbours.median)),
        share("queries with one known tail", neighbours.single, neighbours.queries),
        count("test (h, r, t) with (t, any r', h) in train", leakage.inverse, leakage.test),
        count("  of which the same r", leakage.inverse_same_relation, leakage.test),
        count("test (h, r, t) with (h, other r', t) in train", leakage.parallel, leakage.test),
        count("test (h, r, t) with either", leakage.any_link, leakage.test),
        count("test triples with an entity unseen in train", leakage.unseen_entity, leakage.test),
        count("test triples with a relation unseen in train", leakage.unseen_relation, leakage.test),
        share("test queries that train has tails for", leakage.queries_seen, 2 * leakage.test),
        count("entities with a name", coverage.names, entities),
        count("entities with a description", coverage.descriptions, entities),
        count("entities with a caption", coverage.captions, entities),
        count(
            format!("entities with an image ({} images)", grouped(coverage.images)),
            coverage.entities_with_images,
            entities,
        ),
        count("relations with a name", coverage.relation_names, relations),
    ];
    overlap_rows(audit).chain(rows).collect()
}

type Finding = [String; 3];

fn count(finding: impl Into<String>, part: usize, whole: usize) -> Finding {
    [finding.into(), grouped(part), percent(audit::share(part, whole), 1)]
}

fn share(finding: &str, share: f64, whole: usize) -> Finding {
    [finding.to_owned(), grouped(audit::part(share, whole)), percent(share, 1)]
}

fn plain(finding: &str, value: String) -> Finding {
    [finding.to_owned(), value, String::new()]
}

fn overlap_rows(audit: &Audit) -> impl Iterator<Item = Finding> {
    audit.overlaps.iter().filter(|overlap| overlap.triples > 0).filter_map(|overlap| {
        let (of, within, lines) = (overlap.of, overlap.within?, grouped(overlap.lines));
        let whole = audit.splits.iter().find(|counts| counts.split == of).map_or(0, |counts| counts.triples);
        Some(count(format!("{of} triples also in {within} ({lines} lines)"), overlap.triples, whole))
    })
}

/// The header of [`source_rows`].
pub const SOURCES: [&str; 9] =
    ["texts", "from", "joined by", "rows", "unknown keys", "empty", "repeated", "found", "used"];

/// The results of every text source.
pub fn source_rows(coverage: &Coverage) -> Vec<[String; 9]> {
    let rows = coverage.sources.iter().map(|source| {
        let TextReport { rows, unknown, empty, repeated, ambiguous, found, used, .. } = *source;
        let counts = [rows, unknown + ambiguous, empty, repeated, found, used];
        let [rows, unknown, empty, repeated, found, used] = counts.map(grouped);
        let [kind, join] = [kind_name(source.kind), join_name(source.join)].map(str::to_owned);
        [kind, source.file.clone(), join, rows, unknown, empty, repeated, found, used]
    });
    rows.collect()
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

/// Formats `12345` as `12,345`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
