//! Predictions by name.

use dsom_evaluate::examples::{Answer, Example, Prediction};
use maud::{Markup, html};

use crate::Report;
use crate::format::short;
use crate::page::{absent, scroll};

/// Answers that are named with their ranks.
const NAMED: usize = 5;

pub(crate) fn body(report: &Report) -> Markup {
    let examples = &report.data.examples;
    let Some((model, _)) = report.data.models.first().filter(|_| !examples.is_empty()) else {
        return absent(
            "None were asked for: --set evaluate.examples=10 lets dsom-evaluate draw ten queries.",
        );
    };
    let head = html! { tr { th { "query" } th { "first candidates" } th { "answers at rank" } } };
    html! {
        p.soft { "Queries drawn from the last split that was evaluated, answered by " code { (model) } ". Answers have a tick; known answers "
            "of other splits are grey and count for nothing." }
        (scroll(head, html! { @for example in examples { (row(example)) } }))
    }
}

fn row(example: &Example) -> Markup {
    html! { tr {
        td.name { (example.head) " · " (example.relation) " ·\u{a0}?" }
        td.wide { @for (i, prediction) in example.predictions.iter().enumerate() {
            @if i > 0 { ", " } (candidate(prediction))
        } }
        td.wide { @for (i, Answer { name, rank, .. }) in example.answers.iter().take(NAMED).enumerate() {
            @if i > 0 { ", " } (name) " " b { (short(*rank)) }
        }
        @if example.answers.len() > NAMED { " and " (example.answers.len() - NAMED) " more" } }
    } }
}

fn candidate(prediction: &Prediction) -> Markup {
    let title = format!("{}, score {:.3}", prediction.key, prediction.score);
    html! { @match (prediction.answer, prediction.known) {
        (true, _) => b title=(title) { (prediction.name) span.yes { " ✓" } },
        (_, true) => span.soft title=(title) { (prediction.name) },
        _ => span title=(title) { (prediction.name) },
    } }
}
