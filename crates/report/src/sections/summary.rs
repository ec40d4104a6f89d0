//! The run in a few figures and sentences.

use dsom_evaluate::metrics::Figures;
use maud::{Markup, html};
use mkg::Split;

use super::UNEVALUATED;
use super::calibration::Calibration;
use crate::Report;
use crate::format::{counted, grouped, minute, percent, share};
use crate::page::absent;
use crate::run::Choices;
use crate::strategies::readable;

/// One line below the heading: which run, of what, from when.
pub(crate) fn lead(report: &Report) -> String {
    let data = report.data;
    let (entities, relations) = (data.vocabulary.entities.len(), data.vocabulary.relations.len());
    let mut parts = vec![
        format!("Run {}", data.name),
        format!("{} entities", grouped(entities)),
        counted(relations, "relation"),
    ];
    let graph = data.of_program("dsom-import").next();
    let train = graph.and_then(|stage| stage.manifest.summary["train"].as_u64());
    parts.extend(train.map(|train| counted(train as usize, "training triple")));
    parts.extend(data.stages.last().map(|stage| format!("finished {}", minute(&stage.manifest.finished))));
    parts.join(" · ")
}

pub(crate) fn body(report: &Report) -> Markup {
    let data = report.data;
    let stale = data.stages.iter().filter_map(|stage| Some((stage, stage.stale.as_deref()?)));
    html! {
        @for (stage, reason) in stale {
            p.notice { b { code { (stage.folder) } " is stale: " } (reason) }
        }
        @match (data.shown(), data.models.first()) {
            (Some(split), Some((model, _))) => (figures(report, model, split)),
            _ => (absent(UNEVALUATED)),
        }
        (findings(report))
    }
}

/// The first model's figures as tiles.
fn figures(report: &Report, model: &str, split: Split) -> Markup {
    let Some(metrics) = report.data.figures(model, split) else { return html! {} };
    let Figures { mrr, mr, hits_at_1, hits_at_3, hits_at_10 } = &metrics.both.realistic;
    let interval = report.intervals.get(model);
    html! {
        p { "The model " code { (model) } " on the " (split) " split: " (counted(metrics.both.triples, "triple"))
            ", head and tail predicted, known answers left out. All in percent but the mean rank." }
        div.tiles {
            div.tile {
                b { (percent(*mrr)) }
                span { "MRR" @if let Some(i) = interval { (format!(", 95 % {:.1} to {:.1}", i.low, i.high)) } }
            }
            div.tile { b { (percent(*hits_at_1)) } span { "Hits@1" } }
            div.tile { b { (percent(*hits_at_3)) } span { "Hits@3" } }
            div.tile { b { (percent(*hits_at_10)) } span { "Hits@10" } }
            div.tile { b { (format!("{mr:.1}")) } span { "mean rank" } }
        }
    }
}

/// The other sections' findings, in sentences.
fn findings(report: &Report) -> Markup {
    let mut found: Vec<Markup> = Vec::new();
    found.extend(comparison(report));
    found.extend(report.data.choices.first().map(favourite));
    found.extend(confidence(report));
    found.extend(warnings(report));
    html! { @if !found.is_empty() { ul.plain { @for sentence in found { li { (sentence) } } } } }
}

/// The first model beside the best of the others.
fn comparison(report: &Report) -> Option<Markup> {
    let split = report.data.shown()?;
    let mrr = |model: &str| Some(report.data.figures(model, split)?.both.realistic.mrr);
    let mut others: Vec<(&str, f64)> = Vec::new();
    for (model, _) in report.data.models.iter().skip(1) {
        others.extend(mrr(model).map(|mrr| (model.as_str(), mrr)));
    }
    others.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (first, (other, theirs)) = (&report.data.models.first()?.0, others.first()?);
    let apart = 100.0 * (mrr(first)? - theirs);
    let direction = if apart < 0.0 { "behind" } else { "ahead of" };
    Some(html! {
        code { (first) } " is " (format!("{:.2}", apart.abs())) " points of MRR " (direction) " the best other model, "
        code { (other) } " (" (percent(*theirs)) "): see " a href="#results" { "results" } "."
    })
}

fn favourite(choices: &Choices) -> Markup {
    let (shares, _) = choices.shares(|_| true);
    let best = (0..shares.len()).max_by(|a, b| shares[*a].total_cmp(&shares[*b])).unwrap_or(0);
    let name =
        choices.strategies.get(best).map_or(String::new(), |name| readable(name, best + 1 == shares.len()));
    html! {
        "The policy of " code { (choices.student) } " listens to " b { (name) } " for "
        (share(shares.get(best).copied().unwrap_or_default())) " of the training triples: see "
        a href="#strategies" { "strategies" } "."
    }
}

fn confidence(report: &Report) -> Option<Markup> {
    let table = report.data.ranks_on(report.data.shown()?).next()?;
    let of = Calibration::of(table)?;
    let word = if of.sure > of.right { "surer than it is right" } else { "less sure than it is right" };
    Some(html! {
        code { (table.model) } " is " (word) ": mean confidence " (share(of.sure)) ", right " (share(of.right))
        ", expected calibration error " (share(of.error())) ": see " a href="#calibration" { "calibration" } "."
    })
}

fn warnings(report: &Report) -> Option<Markup> {
    let warnings = &report.data.audit.as_ref()?.warnings;
    (!warnings.is_empty()).then(|| {
        html! { "The audit of the graph has " (counted(warnings.len(), "warning")) ": see " a href="#audit" { "audit" } "." }
    })
}
