//! The run in a few figures and sentences.

use dsom_evaluate::metrics::Figures;
use dsom_evaluate::report::SplitMetrics;
use maud::{Markup, html};
use mkg::Split;

use super::UNEVALUATED;
use super::calibration::Calibration;
use crate::Report;
use crate::format::{count, counted, grouped, minute, percent, share};
use crate::page::absent;
use crate::run::Choices;
use crate::strategies::{favourite, readable};

/// The line below the heading: the run, its dataset and its date.
pub(crate) fn lead(report: &Report) -> String {
    let data = &report.data;
    let mut parts = vec![
        format!("Run {}", data.name),
        format!("{} entities", grouped(data.vocabulary.entities.len())),
        counted(data.vocabulary.relations.len(), "relation"),
    ];
    let graph = data.of_program("dsom-import").next();
    let train = graph.and_then(|stage| count(&stage.manifest.summary["train"]));
    parts.extend(train.map(|train| counted(train, "training triple")));
    parts.extend(data.stages.last().map(|stage| format!("finished {}", minute(&stage.manifest.finished))));
    parts.join(" · ")
}

pub(crate) fn body(report: &Report) -> Markup {
    let stale = report.data.stages.iter().filter_map(|stage| Some((&stage.folder, stage.stale.as_deref()?)));
    let split = report.data.shown();
    let first = split.and_then(|split| Some((split, report.data.figures_on(split).into_iter().next()?)));
    let found =
        [comparison(report), report.data.choices.first().map(policy), confidence(report), warnings(report)];
    let found: Vec<Markup> = found.into_iter().flatten().collect();
    html! {
        @for (folder, reason) in stale { p.notice { b { code { (folder) } " is stale: " } (reason) } }
        @match first {
            Some((split, (model, metrics))) => (figures(report, split, model, metrics)),
            None => (absent(UNEVALUATED)),
        }
        @if !found.is_empty() { ul.plain { @for sentence in found { li { (sentence) } } } }
    }
}

fn figures(report: &Report, split: Split, model: &str, metrics: &SplitMetrics) -> Markup {
    let Figures { mrr, mr, hits_at_1, hits_at_3, hits_at_10 } = &metrics.both.realistic;
    html! {
        p { "The model " code { (model) } " on the " (split) " split: " (counted(metrics.both.triples, "triple"))
            ", head and tail predicted, known answers left out. All in percent but the mean rank." }
        div.tiles {
            div.tile {
                b { (percent(*mrr)) }
                span { "MRR" @if let Some(i) = report.intervals.get(model) { (format!(", 95 % {:.1} to {:.1}", i.low, i.high)) } }
            }
            @for (hits, name) in [(hits_at_1, "Hits@1"), (hits_at_3, "Hits@3"), (hits_at_10, "Hits@10")] {
                div.tile { b { (percent(*hits)) } span { (name) } }
            }
            div.tile { b { (format!("{mr:.1}")) } span { "mean rank" } }
        }
    }
}

fn comparison(report: &Report) -> Option<Markup> {
    let models = report.data.figures_on(report.data.shown()?);
    let mut mrrs = models.iter().map(|(model, metrics)| (model, metrics.both.realistic.mrr));
    let (first, ours) = mrrs.next()?;
    let (other, theirs) = mrrs.rev().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let apart = 100.0 * (ours - theirs);
    let direction = if apart < 0.0 { "behind" } else { "ahead of" };
    Some(html! {
        code { (first) } " is " (format!("{:.2}", apart.abs())) " points of MRR " (direction) " the best other model, "
        code { (other) } " (" (percent(theirs)) "): see " a href="#results" { "results" } "."
    })
}

fn policy(choices: &Choices) -> Markup {
    let (shares, _) = choices.shares(&choices.queries);
    let best = favourite(&shares);
    html! {
        "The policy of " code { (choices.student) } " listens to "
        b { (readable(&choices.strategies[best], best + 1 == shares.len())) } " for " (share(shares[best]))
        " of the training triples: see " a href="#strategies" { "strategies" } "."
    }
}

fn confidence(report: &Report) -> Option<Markup> {
    let table = report.data.ranks_on(report.data.shown()?).next()?;
    let of = Calibration::of(table)?;
    let sure = of.all.confidence > of.all.right;
    Some(html! {
        code { (table.model) } " is " (if sure { "surer than it is right" } else { "less sure than it is right" })
        ": mean confidence " (share(of.all.confidence)) ", right " (share(of.all.right))
        ", expected calibration error " (share(of.error())) ": see " a href="#calibration" { "calibration" } "."
    })
}

fn warnings(report: &Report) -> Option<Markup> {
    let warnings = &report.data.audit.as_ref()?.warnings;
    (!warnings.is_empty()).then(|| {
        html! { "The audit of the graph has " (counted(warnings.len(), "warning")) ": see " a href="#audit" { "audit" } "." }
    })
}
