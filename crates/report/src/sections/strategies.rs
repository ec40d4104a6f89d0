//! Whom the policy chooses: overall, for which relation, for which entity, with examples by name.

use maud::{Markup, html};
use std::collections::BTreeMap;

use crate::Report;
use crate::chart::{Mark, legend, share_bar};
use crate::format::{grouped, share};
use crate::page::absent;
use crate::run::{Asked, Choices};
use crate::sections::choosers::choosers;
use crate::strategies::{Shown, readable};

/// Rows of a table that are shown at once.
const SHOWN: usize = 16;
/// Queries that are named for a strategy.
const NAMED: usize = 5;

pub(crate) fn body(report: &Report) -> Markup {
    let choices = &report.data.choices;
    let choosers = choosers(report);
    if choices.is_empty() {
        if let Some(choosers) = choosers {
            return choosers;
        }
        let students = report.data.of_program("dsom-distill").count();
        return absent(match students {
            0 => "No student has been distilled yet.",
            _ => "No policy: the students of this run learn alone, by a rule, or by chance.",
        });
    }
    html! {
        p.soft {
            "What the policy that was kept would draw: its probabilities, averaged over training triples, both directions."
        }
        @if let Some(choosers) = choosers { (choosers) }
        @for choices in choices { (student(choices)) }
    }
}

/// One student's policy.
pub(crate) fn student(choices: &Choices) -> Markup {
    let (shares, triples) = choices.shares(|_| true);
    let shown = Shown::of(&choices.strategies, &shares);
    html! {
        h3 { "Policy of " code { (choices.student) } }
        (legend(shown.names.iter().map(|(name, class)| (name.as_str(), class.clone(), Mark::Area))))
        (bars(&shown, "of", vec![("all triples".to_owned(), shares.clone(), triples)]))
        h3 { "By relation" }
        (grouped_bars(choices, &shown, "relation", |asked| &asked.relation))
        h3 { "By entity" }
        p.soft { "Whom it is asked about, the most frequent first." }
        (grouped_bars(choices, &shown, "entity", |asked| &asked.head))
        h3 { "By name" }
        p.soft { "For every strategy the queries for which it is most probable, and where it is the favourite." }
        (examples(choices))
    }
}

/// Shares by some text of a query, the most frequent first.
fn grouped_bars(choices: &Choices, shown: &Shown, what: &str, of: fn(&Asked) -> &String) -> Markup {
    let mut groups: BTreeMap<&str, (Vec<f64>, usize)> = BTreeMap::new();
    for asked in &choices.queries {
        let (sums, triples) =
            groups.entry(of(asked)).or_insert_with(|| (vec![0.0; choices.strategies.len()], 0));
        *triples += asked.triples;
        sums.iter_mut()
            .zip(&asked.probabilities)
            .for_each(|(sum, p)| *sum += asked.triples as f64 * f64::from(*p));
    }
    let mut rows: Vec<(String, Vec<f64>, usize)> = groups
        .into_iter()
        .map(|(name, (sums, triples))| {
            (name.to_owned(), sums.iter().map(|sum| sum / triples.max(1) as f64).collect(), triples)
        })
        .collect();
    rows.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
    let rest = rows.split_off(rows.len().min(SHOWN));
    // A large graph has more entities than anybody reads.
    let (more, left) = (rest.len().min(10 * SHOWN), rest.len().saturating_sub(10 * SHOWN));
    html! {
        (bars(shown, what, rows))
        @if more > 0 {
            details {
                summary { (more) " more" }
                (bars(shown, what, rest.into_iter().take(more).collect()))
                @if left > 0 { p.soft { "And " (grouped(left)) " that are rarer." } }
            }
        }
    }
}

/// A table with a bar for each row: its name, shares by strategy, and how many triples it stands for.
fn bars(shown: &Shown, what: &str, rows: Vec<(String, Vec<f64>, usize)>) -> Markup {
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { (what) } th { "strategies" } th { "favourite" } th.n { "triples" } } }
            tbody { @for (name, shares, triples) in rows { (bar(shown, &name, &(shares, triples))) } }
        } }
    }
}

/// One row of it.
pub(crate) fn bar(shown: &Shown, name: &str, (shares, triples): &(Vec<f64>, usize)) -> Markup {
    let pooled = shown.pool(shares);
    let best = favourite(&pooled);
    html! { tr {
        td.name { (name) }
        td.bar { (share_bar(parts(shown, &pooled))) }
        td { (shown.names[best].0) " " span.soft { (share(pooled[best])) } }
        td.n { (grouped(*triples)) }
    } }
}

fn parts<'a>(shown: &'a Shown, pooled: &'a [f64]) -> impl Iterator<Item = (f64, String, &'a str)> {
    shown.names.iter().zip(pooled).map(|((name, class), share)| (*share, class.clone(), name.as_str()))
}

fn favourite(shares: &[f64]) -> usize {
    (0..shares.len()).max_by(|a, b| shares[*a].total_cmp(&shares[*b]).then(b.cmp(a))).unwrap_or(0)
}

/// For every strategy that is any query's favourite, those queries, the surest first.
fn examples(choices: &Choices) -> Markup {
    let mut of: Vec<Vec<(f64, &Asked)>> = vec![Vec::new(); choices.strategies.len()];
    for asked in &choices.queries {
        let shares: Vec<f64> = asked.probabilities.iter().map(|p| f64::from(*p)).collect();
        let best = favourite(&shares);
        of[best].push((shares[best], asked));
    }
    of.iter_mut().for_each(|queries| queries.sort_by(|a, b| b.0.total_cmp(&a.0)));
    let last = of.len().saturating_sub(1);
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { "strategy" } th.n { "queries" } th { "surest for" } } }
            tbody { @for (strategy, queries) in of.iter().enumerate().filter(|(_, of)| !of.is_empty()) { tr {
                td.name { (readable(&choices.strategies[strategy], strategy == last)) }
                td.n { (grouped(queries.len())) }
                td.wide { @for (i, (probability, asked)) in queries.iter().take(NAMED).enumerate() {
                    @if i > 0 { br; }
                    (asked.head) " · " (asked.relation) " ·\u{a0}? " span.soft { (share(*probability)) }
                } }
            } } }
        } }
        @if last == 0 { p.soft { "There is a single teacher, so there is nothing to choose." } }
    }
}
