//! Parts of the split: relation types, entities never trained on, single relations.

use dsom_evaluate::slices::{Slice, Slices};
use maud::{Markup, html};
use mkg::Split;
use std::collections::BTreeMap;

use super::UNEVALUATED;
use crate::Report;
use crate::format::{grouped, percent};
use crate::page::absent;

/// Relations that are shown at once; the others on demand.
const SHOWN: usize = 15;

pub(crate) fn body(report: &Report) -> Markup {
    let Some(split) = report.data.shown() else { return absent(UNEVALUATED) };
    let tables: [(&str, &str, OfSlices, bool); 4] = [
        (
            "Relation types",
            "By how many heads a tail has in train, and tails a head (Bordes et al., 2013).",
            |s| &s.relation_type,
            false,
        ),
        (
            "Entities",
            "Unseen: head or tail has no training triple, so only its features tell of it.",
            |s| &s.entity,
            false,
        ),
        (
            "Overlap",
            "Repeated: the triple stands in an earlier split, too, so its rank says little.",
            |s| &s.overlap,
            false,
        ),
        ("Relations", "The most frequent first.", |s| &s.relation, true),
    ];
    html! {
        p.soft { "MRR in percent on the " (split) " split, both directions; darker is higher, the best of a row is bold." }
        @for (title, note, of, relations) in tables {
            h3 { (title) }
            p.soft { (note) }
            (table(report, split, of, relations))
        }
    }
}

/// One kind of slices.
type OfSlices = fn(&Slices) -> &BTreeMap<String, Slice>;

fn table(report: &Report, split: Split, of: OfSlices, relations: bool) -> Markup {
    let slices: Vec<(&str, &BTreeMap<String, Slice>)> = report
        .data
        .models
        .iter()
        .filter_map(|(model, _)| Some((model.as_str(), of(&report.data.figures(model, split)?.slices))))
        .collect();
    let Some((_, first)) = slices.first() else { return html! {} };
    let mut rows: Vec<(&String, usize)> = first.iter().map(|(key, slice)| (key, slice.triples)).collect();
    if relations {
        rows.sort_by_key(|(key, triples)| (std::cmp::Reverse(*triples), *key));
    }
    let (shown, rest) = rows.split_at(rows.len().min(SHOWN));
    let draw = |rows: &[(&String, usize)]| {
        html! {
            div.scroll tabindex="0" { table {
                thead { tr {
                    th { (if relations { "relation" } else { "slice" }) } th.n { "triples" } @for (model, _) in &slices { th.n { code { (model) } } }
                } }
                tbody { @for (key, triples) in rows { tr {
                    td.name { (if relations { label(report, key) } else { key.as_str() }) }
                    td.n { (grouped(*triples)) }
                    (cells(&slices, key))
                } } }
            } }
        }
    };
    html! {
        (draw(shown))
        @if !rest.is_empty() { details { summary { (rest.len()) " more" } (draw(rest)) } }
    }
}

fn cells(slices: &[(&str, &BTreeMap<String, Slice>)], key: &str) -> Markup {
    let mrr = |slice: &&BTreeMap<String, Slice>| slice.get(key).map(|slice| slice.figures.mrr);
    let best = slices.iter().filter_map(|(_, slice)| mrr(slice)).fold(0.0, f64::max);
    html! { @for (_, slice) in slices { @match mrr(slice) {
        Some(mrr) => td.n.tinted.best[mrr >= best] style=(format!("--share: {:.0}%", 45.0 * mrr)) { (percent(mrr)) },
        None => td.n { span.none { "–" } },
    } } }
}

/// A relation's name by its key.
fn label<'a>(report: &'a Report, key: &'a str) -> &'a str {
    let relation = report.data.vocabulary.relations.iter().find(|relation| relation.key == key);
    relation.map_or(key, |relation| relation.label())
}
