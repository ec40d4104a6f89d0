//! The figures of every model: with intervals, by direction, under the three tie rules, for every k, and on parts of
//! the split; and predictions by name.

use dsom_evaluate::examples::{Answer, Example, Prediction};
use dsom_evaluate::metrics::{Figures, Slice, Slices};
use dsom_evaluate::table::RankTable;
use maud::{Markup, html};
use mkg::Split;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::UNEVALUATED;
use crate::Report;
use crate::chart::{Line, LineChart, around, interval};
use crate::format::{grouped, percent, short};
use crate::page::{absent, scroll};

/// The largest k of the curve of Hits@k.
const LARGEST_K: f64 = 1000.0;
/// The number of relations shown at once; the others appear on demand.
const SHOWN: usize = 15;
/// The number of answers that are named with their ranks.
const NAMED: usize = 5;

pub(crate) fn body(report: &Report) -> Markup {
    let Some(split) = report.data.shown() else { return absent(UNEVALUATED) };
    html! {
        p.soft { "In percent but the mean rank (MR); both directions, ties realistic. The interval is where the MRR would "
            "lie for 95 % of test splits drawn like this one (bootstrap over its queries); it knows nothing of other seeds." }
        h3 { "Split " (split) }
        (models(report, split, true))
        @for other in report.data.splits().filter(|of| *of != split) {
            details { summary { "Split " (other) } (models(report, other, false)) }
        }
        div.charts { (hits(report, split)) }
        h3 { "Ties" }
        p.soft { "How a rank counts where others have the same score: the best of the tied places, the mean, the worst. Where "
            "the three differ much, a model gives many entities the same score." }
        (ties(report, split))
    }
}

fn models(report: &Report, split: Split, with_intervals: bool) -> Markup {
    let rows = report.data.figures_on(split).into_iter().map(|(model, of)| {
        let Figures { mrr, mr, hits_at_1, hits_at_3, hits_at_10 } = of.both.realistic;
        let [heads, tails] = [&of.head, &of.tail].map(|of| of.realistic.mrr);
        // Larger values are better here, so the mean rank is negative.
        (model, [mrr, hits_at_1, hits_at_3, hits_at_10, -mr, heads, tails])
    });
    let rows: Vec<(&str, [f64; 7])> = rows.collect();
    let mut best = [f64::NEG_INFINITY; 7];
    for (_, values) in &rows {
        best.iter_mut().zip(values).for_each(|(best, value)| *best = best.max(*value));
    }
    let scale = around(report.intervals.values().copied());
    let head = html! { tr {
        th { "model" } th.n { "MRR" } @if with_intervals { th { "95 % interval" } }
        th.n { "Hits@1" } th.n { "Hits@3" } th.n { "Hits@10" } th.n { "MR" }
        th.n { "MRR of heads" } th.n { "of tails" }
    } };
    let rows = html! { @for (model, values) in rows { tr {
        td.name { code { (model) } }
        @for (i, value) in values.into_iter().enumerate() {
            td.n.best[value >= best[i]] { (if value < 0.0 { format!("{:.1}", -value) } else { percent(value) }) }
            @if i == 0 && with_intervals { td.interval {
                @if let Some((of, scale)) = report.intervals.get(model).zip(scale) {
                    (interval(*of, 100.0 * value, scale, report.data.class(model)))
                }
            } }
        }
    } } };
    scroll(head, rows)
}

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
        lines: lines.collect(),
        ..LineChart::default()
    };
    chart.render()
}

fn hits_of(table: &RankTable) -> Vec<(f64, f64)> {
    let mut ranks = table.ranks.clone();
    ranks.sort_by(f64::total_cmp);
    let largest = ranks.last().copied().unwrap_or(1.0).min(LARGEST_K);
    let mut ks: Vec<f64> = (0..).map(|i| 1.25f64.powi(i).round()).take_while(|k| *k <= largest).collect();
    ks.dedup();
    let counts = ks.iter().map(|k| ranks.partition_point(|rank| rank <= k));
    ks.iter().zip(counts).map(|(k, count)| (*k, 100.0 * count as f64 / ranks.len() as f64)).collect()
}

fn ties(report: &Report, split: Split) -> Markup {
    let head = html! {
        tr { td {} @for rule in ["optimistic", "realistic", "pessimistic"] { th.over colspan="3" { (rule) } } }
        tr { th { "model" } @for _ in 0..3 { th.n.first { "MRR" } th.n { "Hits@1" } th.n { "MR" } } }
    };
    let rows = html! { @for (model, of) in report.data.figures_on(split) { tr {
        td.name { code { (model) } }
        @for figures in [&of.both.optimistic, &of.both.realistic, &of.both.pessimistic] {
            td.n.first { (percent(figures.mrr)) }
            td.n { (percent(figures.hits_at_1)) }
            td.n { (format!("{:.1}", figures.mr)) }
        }
    } } };
    scroll(head, rows)
}

type OfSlices = fn(&Slices) -> &BTreeMap<String, Slice>;

/// The parts of the split: relation types, entities without training triples, single relations.
pub(crate) fn slices(report: &Report) -> Markup {
    let Some(split) = report.data.shown() else { return absent(UNEVALUATED) };
    let tables: [(&str, &str, OfSlices); 4] = [
        (
            "Relation types",
            "By how many heads a tail has in train, and tails a head (Bordes et al., 2013).",
            |s| &s.relation_type,
        ),
        ("Entities", "Unseen: head or tail has no training triple, so only its features tell of it.", |s| {
            &s.entity
        }),
        ("Overlap", "Repeated: the triple stands in an earlier split, too, so its rank says little.", |s| {
            &s.overlap
        }),
        ("Relations", "The most frequent first.", |s| &s.relation),
    ];
    html! {
        p.soft { "MRR in percent on the " (split) " split, both directions; darker is higher, the best of a row is bold." }
        @for (title, note, of) in tables {
            h3 { (title) }
            p.soft { (note) }
            (slice_table(report, split, of, title == "Relations"))
        }
    }
}

fn slice_table(report: &Report, split: Split, of: OfSlices, relations: bool) -> Markup {
    let models = report.data.figures_on(split);
    let slices: Vec<_> = models.iter().map(|(_, figures)| of(&figures.slices)).collect();
    let Some(first) = slices.first() else { return html! {} };
    let mut rows: Vec<(&String, usize)> = first.iter().map(|(key, slice)| (key, slice.triples)).collect();
    if relations {
        rows.sort_by_key(|(key, triples)| (Reverse(*triples), *key));
    }
    let (shown, rest) = rows.split_at(rows.len().min(SHOWN));
    let head = html! { tr {
        th { (if relations { "relation" } else { "slice" }) } th.n { "triples" }
        @for (model, _) in &models { th.n { code { (model) } } }
    } };
    let [shown, others] = [shown, rest].map(|rows| {
        let rows = html! { @for (key, triples) in rows { tr {
            td.name { (if relations { label(report, key) } else { key.as_str() }) }
            td.n { (grouped(*triples)) }
            (cells(&slices, key))
        } } };
        scroll(head.clone(), rows)
    });
    html! {
        (shown)
        @if !rest.is_empty() { details { summary { (rest.len()) " more" } (others) } }
    }
}

fn cells(slices: &[&BTreeMap<String, Slice>], key: &str) -> Markup {
    let mrrs = slices.iter().map(|slice| Some(slice.get(key)?.figures.mrr));
    let best = mrrs.clone().flatten().fold(0.0, f64::max);
    html! { @for mrr in mrrs { @match mrr {
        Some(mrr) => td.n.tinted.best[mrr >= best] style=(format!("--share: {:.0}%", 45.0 * mrr)) { (percent(mrr)) },
        None => td.n { span.none { "–" } },
    } } }
}

fn label<'a>(report: &'a Report, key: &'a str) -> &'a str {
    let relation = report.data.vocabulary.relations.iter().find(|relation| relation.key == key);
    relation.map_or(key, |relation| relation.label())
}

pub(crate) fn examples(report: &Report) -> Markup {
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
        (scroll(head, html! { @for of in examples { (example(of)) } }))
    }
}

fn example(example: &Example) -> Markup {
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
