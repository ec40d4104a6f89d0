//! Whom the policy chooses: overall, for which relation, for which entity, with examples by name.

use maud::{Markup, html};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::Report;
use crate::chart::{Mark, legend, share_bar};
use crate::format::{grouped, share};
use crate::page::{absent, table};
use crate::run::{Asked, Choices};
use crate::strategies::{Shown, readable};

/// Rows of a table that are shown at once.
const SHOWN: usize = 16;
/// Queries that are named for a strategy.
const NAMED: usize = 5;

/// Columns of what was found about choices learned beforehand.
const POLICY: [&str; 8] =
    ["student", "policy", "best constant", "standard error", "taken", "all teachers", "random", "oracle"];

pub(crate) fn body(report: &Report) -> Markup {
    let choices = &report.data.choices;
    let beforehand = beforehand(report);
    if choices.is_empty() {
        if let Some(beforehand) = beforehand {
            return beforehand;
        }
        let students = report.data.of_program("dsom-distill").count();
        return absent(match students {
            0 => "No student has been distilled yet.",
            _ => {
                "No policy: the students of this run learn alone, from all teachers, or by chance; or an earlier version \
                  distilled them (dsom-distill --force writes student/strategies.parquet)."
            }
        });
    }
    html! {
        p.soft {
            "What the policy that was kept would draw: its probabilities, averaged over training triples, both directions. "
            "One that learned beforehand does not draw, but takes its favourite."
        }
        @if let Some(beforehand) = beforehand { (beforehand) }
        @for choices in choices { (student(choices)) }
    }
}

/// What was learned before there was a student, or as MulDE's Senior beside it: how choices and scales did on queries that they
/// did not learn from.
fn beforehand(report: &Report) -> Option<Markup> {
    let of = |what: &'static str| {
        let students = report.data.of_program("dsom-distill");
        students.filter_map(move |stage| Some((stage.name(), stage.manifest.summary.get(what)?)))
    };
    let calibration = |(name, value): (&str, &Value)| {
        [name.to_owned(), number(value, "before"), number(value, "after"), by_teacher(&value["scales"], 2)]
    };
    let senior = |(name, value): (&str, &Value)| [name.to_owned(), by_teacher(value, 2)];
    let weight =
        |(name, value): (&str, &Value)| [name.to_owned(), number(value, "least"), number(value, "most")];
    let useful = |(name, value): (&str, &Value)| {
        let chosen = value["chosen"].as_str().unwrap_or("–");
        [name.to_owned(), chosen.to_owned(), by_teacher(&value["adds"], 4)]
    };
    let counts = ["policy", "useful", "calibration", "senior", "query_weight"].map(|what| of(what).count());
    let [policies, usefulness, calibrations, seniors, weights] = counts;
    counts.iter().any(|count| *count > 0).then(|| html! {
        @if policies > 0 {
            h3 { "Choices learned beforehand" }
            p.soft {
                "Means over the queries that were learned from of what strategies are worth there (distill.policy_value). Of the \
                 policy and of the best constant choice in cross-validation: each is judged by queries that it was not chosen by. \
                 A policy that is not better by more than the standard error of the difference is not kept."
            }
            (table(&POLICY, 1, of("policy").map(learned)))
        }
        @if usefulness > 0 {
            h3 { "Useful teachers" }
            p.soft {
                "What each teacher adds to the others: the mean log-probability of validation targets, in nats, by the best \
                 weighted sum of scores with it less that by the best without it. Of those that were left out, when they were."
            }
            (table(&["student", "listens to", "each adds"], 2, of("useful").map(useful)))
        }
        @if calibrations > 0 {
            h3 { "Scales of the teachers' scores" }
            p.soft { "Mean log-probability of held-out validation targets by the mean of all teachers' scores." }
            (table(&["student", "as they are", "scaled", "scales, before a relation's own"], 1, of("calibration").map(calibration)))
        }
        @if seniors > 0 {
            h3 { "Scales of MulDE's Senior" }
            p.soft { "What it multiplies each teacher's scores with in the end, on average over the relations: 1 at first, 2 at most." }
            (table(&["student", "scales"], 2, of("senior").map(senior)))
        }
        @if weights > 0 {
            h3 { "Weights of the queries' distillation" }
            p.soft { "By their teachers' reliability for the relation on validation triples; 1 on average." }
            (table(&["student", "least", "most"], 1, of("query_weight").map(weight)))
        }
    })
}

/// A row of [`POLICY`]: what a student's policy learned beforehand.
fn learned((student, value): (&str, &Value)) -> [String; 8] {
    let of = |name| number(value, name);
    let text = |name: &str| value[name].as_str().unwrap_or("–");
    let constant = text("constant_strategy");
    let taken = if text("taken") == "constant" { constant } else { "policy" };
    [
        student.to_owned(),
        of("policy"),
        format!("{} ({constant})", of("constant")),
        of("standard_error"),
        taken.to_owned(),
        of("all"),
        of("random"),
        of("oracle"),
    ]
}

fn number(value: &Value, name: &str) -> String {
    value[name].as_f64().map_or("–".to_owned(), |x| format!("{x:.4}"))
}

/// A number of each teacher's, with so many digits.
fn by_teacher(value: &Value, digits: usize) -> String {
    let teachers = value.as_object().into_iter().flatten();
    let numbers = teachers.map(|(teacher, x)| format!("{teacher} {:.digits$}", x.as_f64().unwrap_or(0.0)));
    numbers.collect::<Vec<_>>().join(", ")
}

/// One student's policy.
pub(crate) fn student(choices: &Choices) -> Markup {
    let (shares, triples) = choices.shares(|_| true);
    let shown = Shown::of(&choices.strategies, &shares);
    html! {
        h3 { "Policy of " code { (choices.student) } }
        (legend(shown.names.iter().map(|(name, class)| (name.as_str(), class.clone(), Mark::Area))))
        (bars(&shown, "", vec![("all triples".to_owned(), shares.clone(), triples)]))
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
        div.scroll { table {
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
        div.scroll { table {
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
