//! What a student's `stage.json` says of its choice of teachers: which are useful, and the scales of MulDE's Senior.

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
    /// Columns of the table, behind the student's name.
    columns: &'static [&'static str],
    /// The cells of these columns.
    cells: fn(&Value) -> Vec<String>,
}

const PARTS: [Part; 2] = [
    Part {
        name: "useful",
        title: "Useful teachers",
        text: "What each teacher adds to the others: the mean log-probability of validation targets, in nats, by the best \
               weighted sum of scores with it less that by the best without it. Of those that were left out, when they were.",
        columns: &["listens to", "each adds"],
        cells: |of| vec![of["chosen"].as_str().unwrap_or("–").to_owned(), by_teacher(&of["adds"], 4)],
    },
    Part {
        name: "senior",
        title: "Scales of MulDE's Senior",
        text: "What it multiplies each teacher's scores with in the end, on average over the relations: 1 at first, 2 at most.",
        columns: &["scales"],
        cells: |of| vec![by_teacher(of, 2)],
    },
];

/// The parts that some student has.
pub(crate) fn choosers(report: &Report) -> Option<Markup> {
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
                (table(&header, header.len(), rows))
            }
        })
    }
}

/// A number of each teacher's, with so many digits.
fn by_teacher(value: &Value, digits: usize) -> String {
    let teachers = value.as_object().into_iter().flatten();
    let numbers = teachers.map(|(teacher, x)| format!("{teacher} {:.digits$}", x.as_f64().unwrap_or(0.0)));
    numbers.collect::<Vec<_>>().join(", ")
}
