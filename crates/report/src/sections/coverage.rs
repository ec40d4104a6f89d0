//! The part of the graph that each modality knows.

use maud::{Markup, html};
use serde_json::Value;

use crate::Report;
use crate::chart::share_bar;
use crate::format::{grouped, share};
use crate::page::{absent, table};
use crate::run::Stage;

pub(crate) fn body(report: &Report) -> Markup {
    let features: Vec<&Stage> = report.data.of_program("dsom-features").collect();
    html! {
        h3 { "Modalities" }
        @if features.is_empty() {
            (absent("No features: the structural teacher knows every entity, and there is no other modality."))
        } @else {
            p.soft { "Entities that have features in a modality, of " (grouped(report.data.vocabulary.entities.len())) ". Without features there is no evidence." }
            (modalities(report, &features))
        }
        @for stage in &features { (images(stage)) }
        @if let Some(audit) = &report.data.audit {
            h3 { "Texts" }
            @if audit.coverage.sources.is_empty() {
                (absent("No text source is named: names and descriptions are what the entity table has."))
            } @else {
                (table(&dsom_import::report::SOURCES, 3, dsom_import::report::source_rows(&audit.coverage)))
            }
        }
    }
}

fn modalities(report: &Report, features: &[&Stage]) -> Markup {
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { "modality" } th { "entities with features" } th.n { "share" } th.n { "entities" }
                th.n { "width" } th.n { "hidden from its teacher" } th { "encoder" } } }
            tbody { @for stage in features {
                @let summary = &stage.manifest.summary;
                @let coverage = summary["coverage"].as_f64().unwrap_or_default();
                tr {
                    td.name { (stage.name()) }
                    td.bar { (share_bar([(coverage, report.data.class(stage.name()), "with features")].into_iter())) }
                    td.n { (share(coverage)) }
                    td.n { (count(&summary["present"])) }
                    td.n { (count(&summary["width"])) }
                    td.n { (hidden(report, stage.name())) }
                    td.one { (summary["encoder"].as_str().unwrap_or("given")) }
                }
            } }
        } }
    }
}

fn count(value: &Value) -> String {
    value.as_u64().map_or("–".to_owned(), |count| grouped(count as usize))
}

/// Number of entities that the teacher of a modality was not shown (`teachers.missing_rate`).
fn hidden(report: &Report, modality: &str) -> String {
    let teacher = report.data.of_program("dsom-teachers").find(|stage| stage.name() == modality);
    teacher.map_or("–".to_owned(), |stage| match stage.manifest.summary["hidden"].as_u64() {
        Some(hidden) => grouped(hidden as usize),
        None => "0".to_owned(),
    })
}

/// The images of a modality: numbers, sizes, faults.
fn images(stage: &Stage) -> Markup {
    let summary = &stage.manifest.summary;
    let Some(read) = summary["images_read"].as_u64() else { return html! {} };
    let of = |name: &str| count(&summary[name]);
    html! {
        p { "Images of " b { (stage.name()) } ": " (grouped(read as usize)) " read, " (of("images_duplicate")) " of them the same as others, "
            (of("images_unreadable")) " unreadable." }
        @if let Some(named) = summary["unreadable"].as_array().filter(|named| !named.is_empty()) {
            ul.plain { @for name in named { li { code { (name.as_str().unwrap_or_default()) } } } }
        }
    }
}
