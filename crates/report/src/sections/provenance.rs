//! The origin of every file.

use maud::{Markup, html};
use stage::manifest::{FileRecord, Manifest};
use stage::resources::human;

use crate::Report;
use crate::format::{counted, minute, seconds, short_digest};
use crate::run::Stage;

pub(crate) fn body(report: &Report) -> Markup {
    html! {
        p.soft { "From the " code { "stage.json" } " of every folder. Digests are SHA-256, of which the first digits stand here; the same "
            "parameters, seed and inputs give the same digests, whatever the number of threads." }
        (stages(&report.data.stages))
        h3 { "Parameters, inputs and outputs" }
        @for stage in &report.data.stages { (files(stage)) }
    }
}

fn stages(stages: &[Stage]) -> Markup {
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { "folder" } th { "program" } th { "version" } th.n { "seed" } th { "finished (UTC)" }
                th.n { "took" } th.n { "memory" } th.n { "threads" } th.n { "on disk" } th { "state" } } }
            tbody { @for stage in stages {
                @let Manifest { program, version, seed, finished, wall_seconds, peak_memory_bytes, threads, outputs, .. } = &stage.manifest;
                tr {
                    td.name { code { (stage.folder) } }
                    td.one { (program) } td.one { (version) } td.n { (seed) } td.one { (minute(finished)) }
                    td.n { (seconds(*wall_seconds)) }
                    td.n { (peak_memory_bytes.map_or("–".to_owned(), human)) }
                    td.n { (threads) }
                    td.n { (human(outputs.iter().map(|output| output.bytes).sum())) }
                    td { @if stage.stale.is_some() { span.no { "stale" } } @else { span.yes { "whole" } } }
                }
            } }
        } }
    }
}

fn files(stage: &Stage) -> Markup {
    let Manifest { inputs, outputs, parameters, .. } = &stage.manifest;
    let parameters = serde_json::to_string_pretty(parameters).unwrap_or_default();
    html! {
        details {
            summary { code { (stage.folder) } ": " (counted(inputs.len(), "input")) ", " (counted(outputs.len(), "output")) }
            @if let Some(reason) = &stage.stale { p.notice { (reason) } }
            pre { (parameters) }
            (records(inputs, "input"))
            (records(outputs, "output"))
        }
    }
}

/// The most files of one stage that are listed.
const LISTED: usize = 40;

fn records(records: &[FileRecord], what: &str) -> Markup {
    html! { @if !records.is_empty() {
        div.scroll tabindex="0" { table {
            thead { tr { th { (what) } th { "SHA-256" } th.n { "size" } } }
            tbody {
                @for record in records.iter().take(LISTED) { tr {
                    td.name { code { (record.path) } }
                    td { code.hash title=(record.sha256) { (short_digest(&record.sha256)) } }
                    td.n { (human(record.bytes)) }
                } }
            }
        } }
        @if records.len() > LISTED { p.soft { "And " (records.len() - LISTED) " more, which stage.json lists." } }
    } }
}
