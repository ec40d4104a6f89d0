//! What was learned before there was a student, or as MulDE's Senior beside it: how choices and scales did on queries
//! that they did not learn from.

use maud::{Markup, html};
use serde_json::Value;

use crate::Report;
use crate::page::table;

/// Something that a student's `stage.json` says of how it chooses, with a table of its own.
struct Part {
    /// Its name in the summary.
    name: &'static str,
    title: &'static str,
    text: &'static str,
    /// Of the table, behind the student's name.
    columns: &'static [&'static str],
    /// How many of its columns, the student's name among them, are text.
    texts: usize,
    /// The cells of these columns.
    cells: fn(&Value) -> Vec<String>,
}

const PARTS: [Part; 5] = [
    Part {
        name: "policy",
        title: "Choices learned beforehand",
        text: "Means over the queries that were learned from of what strategies are worth there (distill.policy_value). Of the \
               policy and of the best constant choice in cross-validation: each is judged by queries that it was not chosen by. \
               A policy that is not better by more than the standard error of the difference is not kept.",
        columns: &["policy", "best constant", "standard error", "taken", "all teachers", "random", "oracle"],
        texts: 1,
        cells: policy,
    },
    Part {
        name: "useful",
        title: "Useful teachers",
        text: "What each teacher adds to the others: the mean log-probability of validation targets, in nats, by the best \
               weighted sum of scores with it less that by the best without it. Of those that were left out, when they were.",
        columns: &["listens to", "each adds"],
        texts: 2,
        cells: |of| vec![text(of, "chosen"), by_teacher(&of["adds"], 4)],
    },
    Part {
        name: "calibration",
        title: "Scales of the teachers' scores",
        text: "Mean log-probability of held-out validation targets by the mean of all teachers' scores.",
        columns: &["as they are", "scaled", "scales, before a relation's own"],
        texts: 1,
        cells: |of| vec![number(of, "before"), number(of, "after"), by_teacher(&of["scales"], 2)],
    },
    Part {
        name: "senior",
        title: "Scales of MulDE's Senior",
        text: "What it multiplies each teacher's scores with in the end, on average over the relations: 1 at first, 2 at most.",
        columns: &["scales"],
        texts: 2,
        cells: |of| vec![by_teacher(of, 2)],
    },
    Part {
        name: "query_weight",
        title: "Weights of the queries' distillation",
        text: "By their teachers' reliability for the relation on validation triples; 1 on average.",
        columns: &["least", "most"],
        texts: 1,
        cells: |of| vec![number(of, "least"), number(of, "most")],
    },
];

/// The parts that some student has.
pub(crate) fn beforehand(report: &Report) -> Option<Markup> {
    let parts: Vec<Markup> = PARTS.iter().filter_map(|part| part.body(report)).collect();
    (!parts.is_empty()).then(|| html! { @for part in parts { (part) } })
}

impl Part {
    fn body(&self, report: &Report) -> Option<Markup> {
        let rows: Vec<Vec<String>> = report
            .data
            .of_program("dsom-distill")
            .filter_map(|stage| {
                let mut row = vec![stage.name().to_owned()];
                row.extend((self.cells)(stage.manifest.summary.get(self.name)?));
                Some(row)
            })
            .collect();
        let header = [&["student"], self.columns].concat();
        (!rows.is_empty()).then(|| {
            html! {
                h3 { (self.title) }
                p.soft { (self.text) }
                (table(&header, self.texts, rows))
            }
        })
    }
}

fn policy(of: &Value) -> Vec<String> {
    let constant = text(of, "constant_strategy");
    let taken = if text(of, "taken") == "constant" { constant.clone() } else { "policy".to_owned() };
    vec![
        number(of, "policy"),
        format!("{} ({constant})", number(of, "constant")),
        number(of, "standard_error"),
        taken,
        number(of, "all"),
        number(of, "random"),
        number(of, "oracle"),
    ]
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or("–").to_owned()
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
