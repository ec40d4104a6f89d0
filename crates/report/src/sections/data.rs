//! Origins of a run: each modality's coverage of the graph, the graph's audit, and the origin of every file.

use dsom_import::report::{FINDINGS, SOURCES, finding_rows, source_rows};
use maud::{Markup, html};
use stage::manifest::{FileRecord, Manifest};
use stage::resources::human;

use crate::Report;
use crate::chart::share_bar;
use crate::format::{count, counted, grouped, minute, or_dash, seconds, share};
use crate::page::{absent, scroll, table};
use crate::run::Stage;

/// The largest number of files listed for one stage.
const LISTED: usize = 40;

pub(crate) fn coverage(report: &Report) -> Markup {
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
                (table(&SOURCES, 3, source_rows(&audit.coverage)))
            }
        }
    }
}

fn modalities(report: &Report, features: &[&Stage]) -> Markup {
    let head = html! { tr {
        th { "modality" } th { "entities with features" } th.n { "share" } th.n { "entities" }
        th.n { "width" } th.n { "hidden from its teacher" } th { "encoder" }
    } };
    let rows = html! { @for stage in features {
        @let summary = &stage.manifest.summary;
        @let coverage = summary["coverage"].as_f64().unwrap_or_default();
        tr {
            td.name { (stage.name()) }
            td.bar { (share_bar([(coverage, report.data.class(stage.name()), "with features")].into_iter())) }
            td.n { (share(coverage)) }
            td.n { (or_dash(count(&summary["present"]).map(grouped))) }
            td.n { (or_dash(count(&summary["width"]).map(grouped))) }
            td.n { (hidden(report, stage.name())) }
            td.one { (summary["encoder"].as_str().unwrap_or("given")) }
        }
    } };
    scroll(head, rows)
}

/// The number of entities hidden from the teacher of a modality (`teachers.missing_rate`).
fn hidden(report: &Report, modality: &str) -> String {
    let teacher = report.data.of_program("dsom-teachers").find(|stage| stage.name() == modality);
    or_dash(teacher.map(|stage| grouped(count(&stage.manifest.summary["hidden"]).unwrap_or_default())))
}

/// The images of a modality: their numbers, sizes and faults.
fn images(stage: &Stage) -> Markup {
    let summary = &stage.manifest.summary;
    let Some(read) = count(&summary["images_read"]) else { return html! {} };
    let [same, unreadable] =
        ["images_duplicate", "images_unreadable"].map(|name| or_dash(count(&summary[name]).map(grouped)));
    html! {
        p { "Images of " b { (stage.name()) } ": " (grouped(read)) " read, " (same) " of them the same as others, "
            (unreadable) " unreadable." }
        @if let Some(named) = summary["unreadable"].as_array().filter(|named| !named.is_empty()) {
            ul.plain { @for name in named { li { code { (name.as_str().unwrap_or_default()) } } } }
        }
    }
}

pub(crate) fn audit(report: &Report) -> Markup {
    let Some(audit) = &report.data.audit else { return absent("The graph has no audit.") };
    let splits = audit.splits.iter().map(|of| {
        let [lines, triples, repeated, loops] =
            [of.lines, of.triples, of.duplicate_lines, of.self_loops].map(grouped);
        [of.split.to_string(), lines, triples, repeated, loops]
    });
    html! {
        @if audit.warnings.is_empty() { p { "No warnings." } }
        @for warning in &audit.warnings { p.notice { (warning) } }
        h3 { "Splits as published" }
        (table(&["split", "lines", "triples", "repeated lines", "self-loops"], 1, splits))
        p { "Validation: " (String::from(audit.validation.used)) " (" (audit.validation.reason) "); "
            (grouped(audit.validation.train)) " triples for training, " (grouped(audit.validation.valid)) " for validation." }
        h3 { "Findings" }
        (table(&FINDINGS, 1, finding_rows(audit)))
    }
}

pub(crate) fn provenance(report: &Report) -> Markup {
    html! {
        p.soft { "From the " code { "stage.json" } " of every folder. Digests are SHA-256, of which the first digits stand here; the same "
            "parameters, seed and inputs give the same digests, whatever the number of threads." }
        (stages(&report.data.stages))
        h3 { "Parameters, inputs and outputs" }
        @for stage in &report.data.stages { (files(stage)) }
    }
}

fn stages(stages: &[Stage]) -> Markup {
    let head = html! { tr {
        th { "folder" } th { "program" } th { "version" } th.n { "seed" } th { "finished (UTC)" }
        th.n { "took" } th.n { "memory" } th.n { "threads" } th.n { "on disk" } th { "state" }
    } };
    let rows = html! { @for Stage { folder, manifest: of, stale, .. } in stages { tr {
        td.name { code { (folder) } }
        td.one { (of.program) } td.one { (of.version) } td.n { (of.seed) } td.one { (minute(&of.finished)) }
        td.n { (seconds(of.wall_seconds)) }
        td.n { (or_dash(of.peak_memory_bytes.map(human))) }
        td.n { (of.threads) }
        td.n { (human(of.outputs.iter().map(|output| output.bytes).sum())) }
        td { @if stale.is_some() { span.no { "stale" } } @else { span.yes { "whole" } } }
    } } };
    scroll(head, rows)
}

fn files(stage: &Stage) -> Markup {
    let Manifest { inputs, outputs, parameters, .. } = &stage.manifest;
    html! {
        details {
            summary { code { (stage.folder) } ": " (counted(inputs.len(), "input")) ", " (counted(outputs.len(), "output")) }
            @if let Some(reason) = &stage.stale { p.notice { (reason) } }
            pre { (serde_json::to_string_pretty(parameters).unwrap_or_default()) }
            (records(inputs, "input"))
            (records(outputs, "output"))
        }
    }
}

fn records(records: &[FileRecord], what: &str) -> Markup {
    let head = html! { tr { th { (what) } th { "SHA-256" } th.n { "size" } } };
    let rows = html! { @for FileRecord { path, sha256, bytes } in records.iter().take(LISTED) { tr {
        td.name { code { (path) } }
        td { code.hash title=(sha256) { (sha256.get(..12).unwrap_or(sha256)) } }
        td.n { (human(*bytes)) }
    } } };
    html! { @if !records.is_empty() {
        (scroll(head, rows))
        @if records.len() > LISTED { p.soft { "And " (records.len() - LISTED) " more, which stage.json lists." } }
    } }
}
