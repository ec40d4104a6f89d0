//! The graph's audit.

use dsom_import::report::{FINDINGS, finding_rows};
use maud::{Markup, html};
use mkg::audit::Audit;

use crate::Report;
use crate::format::grouped;
use crate::page::{absent, table};

pub(crate) fn body(report: &Report) -> Markup {
    let Some(audit) = &report.data.audit else { return absent("The graph has no audit.") };
    html! {
        @if audit.warnings.is_empty() { p { "No warnings." } }
        @for warning in &audit.warnings { p.notice { (warning) } }
        h3 { "Splits as published" }
        (splits(audit))
        p { "Validation: " (String::from(audit.validation.used)) " (" (audit.validation.reason) "); "
            (grouped(audit.validation.train)) " triples for training, " (grouped(audit.validation.valid)) " for validation." }
        h3 { "Findings" }
        (table(&FINDINGS, 1, finding_rows(audit)))
    }
}

fn splits(audit: &Audit) -> Markup {
    let rows = audit.splits.iter().map(|counts| {
        let numbers = [counts.lines, counts.triples, counts.duplicate_lines, counts.self_loops].map(grouped);
        [counts.split.to_string()].into_iter().chain(numbers)
    });
    table(&["split", "lines", "triples", "repeated lines", "self-loops"], 1, rows)
}
