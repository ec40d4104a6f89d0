//! Every model's figures: with intervals, by direction, under the three tie rules, and for every k.

use dsom_evaluate::metrics::{AllRules, Figures};
use dsom_evaluate::report::SplitMetrics;
use dsom_evaluate::table::RankTable;
use maud::{Markup, html};
use mkg::Split;

use super::UNEVALUATED;
use crate::Report;
use crate::chart::{Line, LineChart, interval};
use crate::format::percent;
use crate::page::absent;

/// Up to which k the curve of Hits@k goes.
const LARGEST_K: u32 = 1000;

pub(crate) fn body(report: &Report) -> Markup {
    let Some(split) = report.data.shown() else { return absent(UNEVALUATED) };
    let mut others: Vec<Split> = Vec::new();
    for (of, _) in report.data.models.iter().flat_map(|(_, splits)| splits) {
        if *of != split && !others.contains(of) {
            others.push(*of);
        }
    }
    html! {
        p.soft { "In percent but the mean rank (MR); both directions, ties realistic. The interval is where the MRR would "
            "lie for 95 % of test splits drawn like this one (bootstrap over its queries); it knows nothing of other seeds." }
        h3 { "Split " (split) }
        (models(report, split))
        @for other in others {
            details { summary { "Split " (other) } (models(report, other)) }
        }
        div.charts { (hits(report, split)) }
        h3 { "Ties" }
        p.soft { "How a rank counts where others have the same score: the best of the tied places, the mean, the worst. Where "
            "the three differ much, a model gives many entities the same score." }
        (ties(report, split))
    }
}

/// The models that have figures on a split.
fn on<'a>(report: &'a Report, split: Split) -> Vec<(&'a str, &'a SplitMetrics)> {
    let models = report.data.models.iter();
    models.filter_map(|(model, _)| Some((model.as_str(), report.data.figures(model, split)?))).collect()
}

fn models(report: &Report, split: Split) -> Markup {
    let models = on(report, split);
    let columns: [fn(&SplitMetrics) -> f64; 6] = [
        |m| m.both.realistic.mrr,
        |m| m.both.realistic.hits_at_1,
        |m| m.both.realistic.hits_at_3,
        |m| m.both.realistic.hits_at_10,
        |m| m.head.realistic.mrr,
        |m| m.tail.realistic.mrr,
    ];
    let best = columns.map(|of| models.iter().map(|(_, m)| of(m)).fold(0.0, f64::max));
    let least = models.iter().map(|(_, m)| m.both.realistic.mr).fold(f64::INFINITY, f64::min);
    let shown = report.data.shown() == Some(split);
    let scale = scale(report);
    html! {
        div.scroll tabindex="0" { table {
            thead { tr {
                th { "model" } th.n { "MRR" } @if shown { th { "95 % interval" } }
                th.n { "Hits@1" } th.n { "Hits@3" } th.n { "Hits@10" } th.n { "MR" }
                th.n { "MRR of heads" } th.n { "of tails" }
            } }
            tbody { @for (model, metrics) in &models { tr {
                td.name { code { (model) } }
                (number(columns[0](metrics), best[0]))
                @if shown { td.interval {
                    @if let Some(i) = report.intervals.get(*model) {
                        (interval(i.low, 100.0 * columns[0](metrics), i.high, scale, &report.data.class(model)))
                    }
                } }
                @for i in 1..4 { (number(columns[i](metrics), best[i])) }
                td.n.best[metrics.both.realistic.mr <= least] { (format!("{:.1}", metrics.both.realistic.mr)) }
                @for i in 4..6 { (number(columns[i](metrics), best[i])) }
            } } }
        } }
    }
}

fn number(value: f64, best: f64) -> Markup {
    html! { td.n.best[value >= best] { (percent(value)) } }
}

/// The range from the lowest to the highest end of the intervals, with a little room.
fn scale(report: &Report) -> (f64, f64) {
    let low = report.intervals.values().map(|i| i.low).fold(f64::INFINITY, f64::min);
    let high = report.intervals.values().map(|i| i.high).fold(0.0, f64::max);
    (low - 0.02 * (high - low), high + 0.02 * (high - low))
}

/// Hits@k for every k.
fn hits(report: &Report, split: Split) -> Markup {
    let lines = report.data.ranks_on(split).map(|table| Line {
        name: table.model.clone(),
        class: report.data.class(&table.model),
        points: hits_of(table),
        ..Line::default()
    });
    let chart = LineChart {
        id: "hits",
        title: "Hits@k",
        note: "share of answers among the first k candidates",
        x: "k",
        y: "Hits@k in %",
        logarithmic: true,
        from_zero: true,
        labelled: false,
        lines: lines.collect(),
    };
    chart.render()
}

fn hits_of(table: &RankTable) -> Vec<(f64, f64)> {
    let mut ranks = table.ranks.clone();
    ranks.sort_by(f64::total_cmp);
    let steps = (0..).map(|i| 1.25f64.powi(i).round()).take_while(|k| *k <= f64::from(LARGEST_K));
    let mut ks: Vec<f64> = steps.collect();
    ks.dedup();
    let share = |k: f64| 100.0 * ranks.partition_point(|rank| *rank <= k) as f64 / ranks.len().max(1) as f64;
    let entities = ranks.last().copied().unwrap_or(1.0);
    ks.into_iter().take_while(|k| *k <= entities).map(|k| (k, share(k))).collect()
}

/// The figures under one tie rule.
type OfRule = fn(&AllRules) -> &Figures;

fn ties(report: &Report, split: Split) -> Markup {
    let rules: [(&str, OfRule); 3] = [
        ("optimistic", |of| &of.optimistic),
        ("realistic", |of| &of.realistic),
        ("pessimistic", |of| &of.pessimistic),
    ];
    html! {
        div.scroll tabindex="0" { table {
            thead {
                tr { td {} @for (rule, _) in &rules { th.over colspan="3" { (rule) } } }
                tr { th { "model" } @for _ in &rules { th.n.first { "MRR" } th.n { "Hits@1" } th.n { "MR" } } }
            }
            tbody { @for (model, metrics) in on(report, split) { tr {
                td.name { code { (model) } }
                @for (_, of) in &rules {
                    td.n.first { (percent(of(&metrics.both).mrr)) }
                    td.n { (percent(of(&metrics.both).hits_at_1)) }
                    td.n { (format!("{:.1}", of(&metrics.both).mr)) }
                }
            } } }
        } }
    }
}
