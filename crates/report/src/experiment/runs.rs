//! The folders of the cells, and every command.

use maud::{Markup, html};

use super::Experiment;

pub(super) fn body(experiment: &Experiment) -> Markup {
    let record = &experiment.record;
    html! {
        p.soft { "Run by dsom-experiment " (record.version) ". A run is a directory as any other; those that agree on their first stages link "
            "to the same folders." }
        div.scroll tabindex="0" { table {
            thead { tr { th { "run" } th.n { "cells" } th.n { "measured" } th { "report" } } }
            tbody { @for (run, has_report) in &experiment.runs {
                @let cells = || record.cells.iter().filter(|cell| *cell.run.to_string_lossy() == *run);
                tr {
                    td.name { code { (run) } }
                    td.n { (cells().count()) }
                    td.n { (cells().filter(|cell| cell.measured).count()) }
                    td { @if *has_report { a href={ (run) "/report.html" } { "report.html" } }
                        @else { span.none { "none: dsom-report --run writes it" } } }
                }
            } }
        } }
        @for step in record.steps.iter().filter(|step| step.problem.is_some()) {
            p.notice { code { (step.command) } br; (step.problem.as_deref().unwrap_or_default()) }
        }
        details {
            summary { "All " (record.steps.len()) " commands" }
            pre { @for step in &record.steps { (step.command) "\n" } }
        }
    }
}
