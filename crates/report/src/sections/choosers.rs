//! Choices of teachers, as the `stage.json` of students and ensembles have them: useful teachers, the scales of MulDE's
//! Senior, and the weights and policies of ensembles.

use maud::{Markup, html};
use serde_json::Value;

use crate::Report;
use crate::page::table;

/// A field of the summaries of a program's stages, with a table of its own.
struct Part {
    program: &'static str,
    /// Its name in the summary.
    name: &'static str,
    title: &'static str,
    text: &'static str,
    /// Columns of the table, behind the model's name.
    columns: &'static [&'static str],
    /// The cells of these columns.
    cells: fn(&Value) -> Vec<String>,
}

const PARTS: [Part; 4] = [
    Part {
        program: "dsom-distill",
        name: "useful",
        title: "Useful teachers",
        text: "What each teacher adds to the others: the mean log-probability of validation targets, in nats, by the best \
               weighted sum of scores with it less that by the best without it. Of those that were left out, when they were.",
        columns: &["listens to", "each adds"],
        cells: |of| vec![of["chosen"].as_str().unwrap_or("–").to_owned(), by_teacher(&of["adds"], 4)],
    },
    Part {
        program: "dsom-distill",
        name: "senior",
        title: "Scales of MulDE's Senior",
        text: "What it multiplies each teacher's scores with in the end, on average over the relations: 1 at first, 2 at most.",
        columns: &["scales"],
        cells: |of| vec![by_teacher(of, 2)],
    },
    Part {
        program: "dsom-ensemble",
        name: "weights",
        title: "Weights of ensembles",
        text: "Mean log-probability of held-out validation targets by the mean of all teachers' scores, and by the weighted sum; \
               and each teacher's weight, on average over the relations.",
        columns: &["mean", "weighted", "weights"],
        cells: |of| vec![number(of, "before"), number(of, "after"), by_teacher(&of["weights"], 2)],
    },
    Part {
        program: "dsom-ensemble",
        name: "policy",
        title: "Policies of ensembles",
        text: "Mean reciprocal ranks of validation targets by the teachers that are chosen. Of the policy and of the best constant \
               choice in cross-validation: each is judged by queries that it was not chosen by. A policy that is not better by \
               more than the standard error of the difference is not kept.",
        columns: &[
            "policy",
            "best constant",
            "its strategy",
            "standard error",
            "kept",
            "all teachers",
            "oracle",
        ],
        cells: |of| {
            let kept = if of["kept"] == true { "policy" } else { "constant" };
            vec![
                number(of, "policy"),
                number(of, "constant"),
                of["constant_strategy"].as_str().unwrap_or("–").to_owned(),
                number(of, "standard_error"),
                kept.to_owned(),
                number(of, "all"),
                number(of, "oracle"),
            ]
        },
    },
];

/// The parts that some model has.
pub(crate) fn choosers(report: &Report) -> Option<Markup> {
    let parts: Vec<Markup> = PARTS.iter().filter_map(|part| part.body(report)).collect();
    (!parts.is_empty()).then(|| html! { @for part in parts { (part) } })
}

impl Part {
    fn body(&self, report: &Report) -> Option<Markup> {
        let rows: Vec<Vec<String>> = report
            .data
            .of_program(self.program)
            .filter_map(|stage| {
                let mut row = vec![stage.name().to_owned()];
                row.extend((self.cells)(stage.manifest.summary.get(self.name)?));
                Some(row)
            })
            .collect();
        let header = [&["model"], self.columns].concat();
        (!rows.is_empty()).then(|| {
            html! {
                h3 { (self.title) }
                p.soft { (self.text) }
                (table(&header, header.len(), rows))
            }
        })
    }
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
