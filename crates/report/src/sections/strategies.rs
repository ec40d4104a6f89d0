//! Choices of policies: overall, by relation and by entity, with examples by name. Also other choices of teachers, from
//! the `stage.json` of students and ensembles: useful teachers, the scales of MulDE's Senior, and the weights and
//! policies of ensembles.

use maud::{Markup, html};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::Report;
use crate::chart::{Mark, legend, share_bar};
use crate::format::{grouped, or_dash, share};
use crate::page::{absent, scroll, table};
use crate::run::{Asked, Choices, Shares};
use crate::strategies::{Shown, favourite, readable};

/// The numbers of rows shown at once and on demand: a large graph has more entities than a person reads.
const SHOWN: usize = 16;
const MORE: usize = 160;
const NAMED: usize = 5;

/// A field in the summaries of a program's stages; it gets its own table.
struct Part {
    program: &'static str,
    name: &'static str,
    title: &'static str,
    text: &'static str,
    /// The columns of the table, after the model's name.
    columns: &'static str,
    cells: fn(&Value) -> Vec<String>,
}

const PARTS: [Part; 4] = [
    Part {
        program: "dsom-distill",
        name: "useful",
        title: "Useful teachers",
        text: "What each teacher adds to the others: the mean log-probability of validation targets, in nats, by the best \
               weighted sum of scores with it less that by the best without it. Of those that were left out, when they were.",
        columns: "model, listens to, each adds",
        cells: |of| vec![cell(&of["chosen"]), by_teacher(&of["adds"], 4)],
    },
    Part {
        program: "dsom-distill",
        name: "senior",
        title: "Scales of MulDE's Senior",
        text: "What it multiplies each teacher's scores with in the end, on average over the relations: 1 at first, 2 at most.",
        columns: "model, scales",
        cells: |of| vec![by_teacher(of, 2)],
    },
    Part {
        program: "dsom-ensemble",
        name: "weights",
        title: "Weights of ensembles",
        text: "Mean log-probability of held-out validation targets by the mean of all teachers' scores, and by the weighted sum; \
               and each teacher's weight, on average over the relations.",
        columns: "model, mean, weighted, weights",
        cells: |of| vec![cell(&of["before"]), cell(&of["after"]), by_teacher(&of["weights"], 2)],
    },
    Part {
        program: "dsom-ensemble",
        name: "policy",
        title: "Policies of ensembles",
        text: "Mean reciprocal ranks of validation targets by the teachers that are chosen. Of the policy and of the best constant \
               choice in cross-validation: each is judged by queries that it was not chosen by. A policy that is not better by \
               more than the standard error of the difference is not kept.",
        columns: "model, policy, best constant, its strategy, standard error, kept, all teachers, oracle",
        cells: |of| {
            let kept = Value::from(if of["kept"] == true { "policy" } else { "constant" });
            let [policy, constant, strategy, error, all, oracle] =
                ["policy", "constant", "constant_strategy", "standard_error", "all", "oracle"]
                    .map(|name| &of[name]);
            [policy, constant, strategy, error, &kept, all, oracle].map(cell).to_vec()
        },
    },
];

impl Part {
    fn body(&self, report: &Report) -> Option<Markup> {
        let stages = report.data.of_program(self.program);
        let fields = stages.filter_map(|stage| Some((stage.name(), stage.manifest.summary.get(self.name)?)));
        let rows = fields.map(|(model, field)| [vec![model.to_owned()], (self.cells)(field)].concat());
        let rows: Vec<Vec<String>> = rows.collect();
        let header: Vec<&str> = self.columns.split(", ").collect();
        (!rows.is_empty()).then(|| {
            html! {
                h3 { (self.title) }
                p.soft { (self.text) }
                (table(&header, header.len(), rows))
            }
        })
    }
}

fn cell(value: &Value) -> String {
    let number = value.as_f64().map(|x| format!("{x:.4}"));
    or_dash(number.or(value.as_str().map(str::to_owned)))
}

/// The number of each teacher, with `digits` digits.
fn by_teacher(value: &Value, digits: usize) -> String {
    let teachers = value.as_object().into_iter().flatten();
    let numbers = teachers.map(|(teacher, x)| format!("{teacher} {:.digits$}", x.as_f64().unwrap_or(0.0)));
    numbers.collect::<Vec<_>>().join(", ")
}

pub(crate) fn body(report: &Report) -> Markup {
    let choices = &report.data.choices;
    let parts: Vec<Markup> = PARTS.iter().filter_map(|part| part.body(report)).collect();
    if choices.is_empty() && parts.is_empty() {
        return absent(match report.data.of_program("dsom-distill").count() {
            0 => "No student has been distilled yet.",
            _ => "No policy: the students of this run learn alone, by a rule, or by chance.",
        });
    }
    html! {
        @if !choices.is_empty() { p.soft {
            "What the policy that was kept would draw: its probabilities, averaged over training triples, both directions."
        } }
        @for part in parts { (part) }
        @for choices in choices { (student(choices)) }
    }
}

pub(crate) fn student(choices: &Choices) -> Markup {
    let shares = choices.shares(&choices.queries);
    let shown = Shown::of(&choices.strategies, &shares.0);
    html! {
        h3 { "Policy of " code { (choices.student) } }
        (legend(Mark::Area, &shown.names))
        (bars(&shown, "of", &[("all triples".to_owned(), shares)]))
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

/// The shares for each text `of(query)` of the queries, the most frequent text first.
fn grouped_bars(choices: &Choices, shown: &Shown, what: &str, of: fn(&Asked) -> &String) -> Markup {
    let mut groups: BTreeMap<&String, Vec<&Asked>> = BTreeMap::new();
    for asked in &choices.queries {
        groups.entry(of(asked)).or_default().push(asked);
    }
    let rows = groups.into_iter().map(|(name, queries)| (name.clone(), choices.shares(queries)));
    let mut rows: Vec<(String, Shares)> = rows.collect();
    rows.sort_by(|(_, (_, a)), (_, (_, b))| b.total_cmp(a));
    let (first, rest) = rows.split_at(rows.len().min(SHOWN));
    let (more, left) = rest.split_at(rest.len().min(MORE));
    html! {
        (bars(shown, what, first))
        @if !more.is_empty() {
            details {
                summary { (more.len()) " more" }
                (bars(shown, what, more))
                @if !left.is_empty() { p.soft { "And " (grouped(left.len())) " that are rarer." } }
            }
        }
    }
}

/// A table with a bar for each row: its name, its shares by strategy, and its number of triples.
pub(crate) fn bars(shown: &Shown, what: &str, rows: &[(String, Shares)]) -> Markup {
    let head = html! { tr { th { (what) } th { "strategies" } th { "favourite" } th.n { "triples" } } };
    let rows = html! { @for (name, (shares, triples)) in rows {
        @let pooled = shown.pool(shares);
        @let best = favourite(&pooled);
        @let parts = shown.names.iter().zip(&pooled).map(|((name, class), share)| (*share, *class, name.as_str()));
        tr {
            td.name { (name) }
            td.bar { (share_bar(parts)) }
            td { (shown.names[best].0) " " span.soft { (share(pooled[best])) } }
            td.n { (grouped(*triples as usize)) }
        }
    } };
    scroll(head, rows)
}

fn examples(choices: &Choices) -> Markup {
    let mut of: Vec<Vec<(f64, &Asked)>> = vec![Vec::new(); choices.strategies.len()];
    for asked in &choices.queries {
        let best = favourite(&asked.probabilities);
        of[best].push((asked.probabilities[best], asked));
    }
    of.iter_mut().for_each(|queries| queries.sort_by(|a, b| b.0.total_cmp(&a.0)));
    let last = of.len() - 1;
    let head = html! { tr { th { "strategy" } th.n { "queries" } th { "surest for" } } };
    let rows = html! { @for (strategy, queries) in of.iter().enumerate().filter(|(_, of)| !of.is_empty()) { tr {
        td.name { (readable(&choices.strategies[strategy], strategy == last)) }
        td.n { (grouped(queries.len())) }
        td.wide { @for (i, (probability, asked)) in queries.iter().take(NAMED).enumerate() {
            @if i > 0 { br; }
            (asked.head) " · " (asked.relation) " ·\u{a0}? " span.soft { (share(*probability)) }
        } }
    } } };
    html! {
        (scroll(head, rows))
        @if last == 0 { p.soft { "There is a single teacher, so there is nothing to choose." } }
    }
}
