//! A tiny finished run: a graph, a student that knows everything, a teacher that knows nothing.

use arrow::array::{ArrayRef, Float32Array, StringArray, UInt32Array};
use kge::{Matrix, Model};
use mkg::graph::{write_table, write_triples};
use mkg::{Entity, Relation, Split, Triple, Vocabulary};
use serde_json::{Value, json};
use stage::Run;
use stage::task::Task;
use stage::work::Work;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

/// The names of the entities; their keys are `Q0` to `Q6`. France has two images, Spain one. Nobody in train knows of Q5; Q6's name is hostile.
pub(crate) const NAMES: [&str; 7] =
    ["France", "Spain", "Belgium", "Georgia", "Georgia", "Laos", "tab\tline\nescape\u{1b}[31m %"];
/// Train has no loop of `borders`, has one of `twin of`, and nothing of `rules`.
const RELATIONS: [&str; 3] = ["borders", "twin of", "rules"];

/// A run in a folder of its own.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// A run with a perfect student and the structural teacher, which scores all entities alike.
    pub(crate) fn new() -> Lab {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        lab.import(&Split::ALL.map(triples));
        lab.model("dsom-distill", &lab.run().student("student"), &perfect());
        let blank = Model::complex(Matrix::zeros(NAMES.len(), 4), Matrix::zeros(6, 4));
        lab.model("dsom-teachers", &lab.run().teacher(&"structural".parse().unwrap()), &blank);
        lab
    }

    /// Writes the graph anew.
    pub(crate) fn import(&self, splits: &[Vec<Triple>; 3]) {
        let task = Task::new(&self.run(), "dsom-import", self.run().graph(), &json!({}), 0);
        finish(task, json!({}), |work| {
            let folder = work.path("");
            vocabulary().write(&folder).unwrap();
            for (split, triples) in Split::ALL.into_iter().zip(splits) {
                write_triples(&folder.join(split.file()), triples).unwrap();
            }
        });
    }

    fn model(&self, program: &'static str, folder: &Path, model: &Model<f32>) {
        let mut task = Task::new(&self.run(), program, folder.to_owned(), &json!({}), 0);
        task.stage_input(&self.run().graph(), "train.parquet").unwrap();
        finish(task, json!({}), |work| model.tensors().write(&work.path(training::MODEL)).unwrap());
    }

    /// Adds `student-alike`, to whom all entities are the same, and whose policy was asked one query: `(Q1, P0, ?)`.
    pub(crate) fn add_alike(&self) {
        let mut task =
            Task::new(&self.run(), "dsom-distill", self.run().student("student-alike"), &json!({}), 0);
        task.stage_input(&self.run().graph(), "train.parquet").unwrap();
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
        finish(task, json!({}), |work| {
            let model = Model::complex(ones(NAMES.len()), ones(2 * RELATIONS.len()));
            model.tensors().write(&work.path(training::MODEL)).unwrap();
            let columns = columns.into_iter().map(|(name, values)| (name, values, false));
            write_table(&work.path("strategies.parquet"), columns.collect()).unwrap();
        });
    }

    pub(crate) fn run(&self) -> Run {
        Run::new(self.path("run"))
    }

    /// A path beside the run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file beside the run.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Runs `dsom-predict` on the run.
    pub(crate) fn predict(&self, more: &[&str]) -> Output {
        self.with_input("", more)
    }

    /// The same with a text on standard input.
    pub(crate) fn with_input(&self, text: &str, more: &[&str]) -> Output {
        let mut command = dsom_tests::program("dsom-predict");
        command.env_remove("RUST_LOG").env_remove("DSOM_RUN").arg("--run").arg(self.run().root()).args(more);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// The answers as JSON.
    pub(crate) fn json(&self, more: &[&str]) -> Vec<Value> {
        let printed = succeeds(&self.predict(&[more, &["--json"]].concat()));
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn finish(task: Task, summary: Value, write: impl FnOnce(&Work)) {
    let (work, ()) = task.begin(true, || Ok(())).unwrap().unwrap();
    write(&work);
    work.finish(summary).unwrap();
}

pub(crate) fn vocabulary() -> Vocabulary {
    let entity = |(i, name): (usize, &str)| Entity {
        key: format!("Q{i}"),
        name: Some(name.to_owned()),
        images: (i..2).map(|k| format!("{i}{k}.png")).collect(),
        ..Entity::default()
    };
    let relation = |(i, name): (usize, &str)| Relation { key: format!("P{i}"), name: Some(name.to_owned()) };
    Vocabulary {
        entities: NAMES.into_iter().enumerate().map(entity).collect(),
        relations: RELATIONS.into_iter().enumerate().map(relation).collect(),
    }
}

pub(crate) fn triples(split: Split) -> Vec<Triple> {
    match split {
        Split::Train => [(0, 0, 1), (0, 0, 2), (3, 1, 4), (4, 1, 4), (6, 0, 0)].map(triple).to_vec(),
        Split::Valid => vec![Triple::new(1, 0, 2)],
        Split::Test => vec![Triple::new(0, 0, 3), Triple::new(5, 1, 0)],
    }
}

fn triple((head, relation, tail): (u32, u32, u32)) -> Triple {
    Triple::new(head, relation, tail)
}

/// A model that scores every triple of the graph about 1, in both directions, and every other one about 0 or less.
///
/// Triple number k has a complex dimension of its own, in which the head is 1, the tail i, the relation i and its
/// inverse -i: `Re(1 · i · conj(i)) = 1`, while head and tail exchanged give -1, and twice the same 0. A last dimension
/// scores France as the tail of `borders` highest of all: 2.
pub(crate) fn perfect() -> Model<f32> {
    let all: Vec<Triple> = Split::ALL.into_iter().flat_map(triples).collect();
    let (rank, relations) = (all.len() + 1, RELATIONS.len());
    let mut entity = Matrix::zeros(NAMES.len(), 2 * rank);
    let mut relation = Matrix::zeros(2 * relations, 2 * rank);
    for (k, triple) in all.iter().enumerate() {
        entity.row_mut(triple.head.index())[k] += 1.0;
        entity.row_mut(triple.tail.index())[rank + k] += 1.0;
        relation.row_mut(triple.relation.index())[rank + k] = 1.0;
        relation.row_mut(triple.relation.inverse(relations).index())[rank + k] = -1.0;
    }
    entity.row_mut(0)[rank - 1] = 1.0;
    relation.row_mut(0)[rank - 1] = 2.0;
    Model::complex(entity, relation)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Asserts the exit code and gives what was logged.
pub(crate) fn fails(output: &Output, code: i32) -> String {
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{log}");
    log
}

/// Asserts success and gives what was printed.
pub(crate) fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}
