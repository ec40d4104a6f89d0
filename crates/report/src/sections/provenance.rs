//! The origin of every file.

use maud::{Markup, html};
use stage::manifest::{FileRecord, Manifest};
use stage::resources::human;

use crate::Report;
use crate::format::{counted, minute, or_dash, seconds};
use crate::page::scroll;
use crate::run::Stage;

/// The most files of one stage that are listed.
const LISTED: usize = 40;

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
