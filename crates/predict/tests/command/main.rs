//! The real program on a run that the tests build: its output, and every kind of error with its exit code.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod answers;
mod files;
#[path = "../../../evaluate/tests/command/lab.rs"]
mod lab;
mod unseen;

use arrow::array::{ArrayRef, Float32Array, StringArray, UInt32Array};
use kge::{Matrix, Model};
use mkg::graph::write_table;
use mkg::{Split, Triple};
use serde_json::{Value, json};
use std::process::Output;
use std::sync::Arc;

use lab::{Lab, finish, succeeds, write_model};

/// The names of the entities, whose keys are `Q0` to `Q6`. Train does not have Q5; the name of Q6 is hostile.
const NAMES: [&str; 7] =
    ["France", "Spain", "Belgium", "Georgia", "Georgia", "Laos", "tab\tline\nescape\u{1b}[31m %"];
/// Train has no loop of `borders`, one loop of `twin of`, and no triple of `rules`.
const RELATIONS: [&str; 3] = ["borders", "twin of", "rules"];
/// The highest score of all.
const FRANCE: f32 = 2.0;

fn triples(split: Split) -> Vec<Triple> {
    let triples = match split {
        Split::Train => &[(0, 0, 1), (0, 0, 2), (3, 1, 4), (4, 1, 4), (6, 0, 0)][..],
        Split::Valid => &[(1, 0, 2)],
        Split::Test => &[(0, 0, 3), (5, 1, 0)],
    };
    triples.iter().map(|(head, relation, tail)| Triple::new(*head, *relation, *tail)).collect()
}

impl Lab {
    /// Adds `student-alike`, which scores all entities alike and whose policy was asked one query: `(Q1, P0, ?)`.
    fn add_alike(&self) {
        let ones = |rows| Matrix::from_values(rows, 2, vec![1.0; 2 * rows]);
        let number = |id: u32| -> ArrayRef { Arc::new(UInt32Array::from_iter_values([id])) };
        let text = || -> ArrayRef { Arc::new(StringArray::from_iter_values(["x"])) };
        let share = |p: f32| -> ArrayRef { Arc::new(Float32Array::from_iter_values([p])) };
        let columns = [
            ("head", number(1)),
            ("relation", number(0)),
            ("head_name", text()),
            ("relation_name", text()),
            ("neighbours", number(0)),
            ("textual", share(0.25)),
            ("structural", share(0.75)),
        ];
        let task = self.task("dsom-distill", self.run().student("student-alike"));
        finish(task, json!({}), |work| {
            write_model(work, &Model::complex(ones(NAMES.len()), ones(2 * RELATIONS.len())));
            let columns = columns.into_iter().map(|(name, values)| (name, values, false));
            write_table(&work.path("strategies.parquet"), columns.collect()).unwrap();
        });
    }

    /// The path of a file beside the run, as text.
    fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.name(name)
    }

    fn predict(&self, more: &[&str]) -> Output {
        self.call("dsom-predict", more, "")
    }

    fn json(&self, more: &[&str]) -> Vec<Value> {
        let printed = succeeds(&self.predict(&[more, &["--json"]].concat()));
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
