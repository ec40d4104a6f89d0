//! A tiny finished run: a graph, a student that knows everything, and a teacher that knows nothing. The tests of
//! `dsom-evaluate` and of `dsom-predict` share it. Each defines its graph with `NAMES`, `RELATIONS`, `triples` and
//! `FRANCE`, the score of France as the tail of the first relation.

use kge::{Matrix, Model};
use mkg::graph::write_triples;
use mkg::{Entity, Relation, Split, Triple, Vocabulary};
use serde_json::{Value, json};
use stage::Run;
use stage::task::Task;
use stage::work::Work;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use crate::{FRANCE, NAMES, RELATIONS, triples};

/// A run in its own folder.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// A run with a graph of these splits and no model.
    pub(crate) fn with_graph(splits: [Vec<Triple>; 3]) -> Lab {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        lab.import(splits);
        lab
    }

    /// A run with a perfect student and the structural teacher, which gives all entities the same score.
    pub(crate) fn new() -> Lab {
        let lab = Lab::with_graph(Split::ALL.map(triples));
        lab.student("student", &perfect());
        lab.teacher("structural", &blank());
        lab
    }

    pub(crate) fn import(&self, splits: [Vec<Triple>; 3]) {
        let task = Task::new(&self.run(), "dsom-import", self.run().graph(), &json!({}), 0);
        finish(task, json!({}), |work| {
            let folder = work.path("");
            vocabulary().write(&folder).unwrap();
            for (split, triples) in Split::ALL.into_iter().zip(splits) {
                write_triples(&folder.join(split.file()), &triples).unwrap();
            }
        });
    }

    pub(crate) fn student(&self, name: &str, model: &Model<f32>) {
        self.model("dsom-distill", self.run().student(name), model);
    }

    pub(crate) fn teacher(&self, modality: &str, model: &Model<f32>) {
        self.model("dsom-teachers", self.run().teacher(&modality.parse().unwrap()), model);
    }

    fn model(&self, program: &'static str, folder: PathBuf, model: &Model<f32>) {
        finish(self.task(program, folder), json!({}), |work| write_model(work, model));
    }

    /// A task that has read the graph.
    pub(crate) fn task(&self, program: &'static str, folder: PathBuf) -> Task {
        let mut task = Task::new(&self.run(), program, folder, &json!({}), 0);
        task.stage_input(&self.run().graph(), "train.parquet").unwrap();
        task
    }

    pub(crate) fn run(&self) -> Run {
        Run::new(self.path("run"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Calls a program with a text on standard input.
    pub(crate) fn call(&self, program: &str, words: &[&str], input: &str) -> Output {
        let mut command = dsom_tests::program(program);
        command.arg("--run").arg(self.run().root()).args(words);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }
}

pub(crate) fn finish(task: Task, summary: Value, write: impl FnOnce(&Work)) {
    let (work, ()) = task.begin(true, || Ok(())).unwrap().unwrap();
    write(&work);
    work.finish(summary).unwrap();
}

pub(crate) fn write_model(work: &Work, model: &Model<f32>) {
    model.tensors().write(&work.path(training::MODEL)).unwrap();
}

/// Entities `Q0`, `Q1`, ..., of which the first has two images and the second one image; relations `P0`, `P1`, ...
fn vocabulary() -> Vocabulary {
    let entities = NAMES.into_iter().enumerate().map(|(i, name)| Entity {
        key: format!("Q{i}"),
        name: Some(name.to_owned()),
        images: (i..2).map(|k| format!("{i}{k}.png")).collect(),
        ..Entity::default()
    });
    let relations = RELATIONS.into_iter().enumerate();
    let relations = relations.map(|(i, name)| Relation { key: format!("P{i}"), name: Some(name.to_owned()) });
    Vocabulary { entities: entities.collect(), relations: relations.collect() }
}

/// A model that scores every triple of the graph about 1, in both directions, and every other triple about 0 or less.
///
/// Triple number k has its own complex dimension, in which the head is 1, the tail i, the relation i and its inverse
/// -i: `Re(1 · i · conj(i)) = 1`. Exchanged head and tail give -1, and the same entity twice gives 0. The last
/// dimension sets the score of France.
pub(crate) fn perfect() -> Model<f32> {
    let all: Vec<Triple> = Split::ALL.into_iter().flat_map(triples).collect();
    let (rank, relations) = (all.len() + 1, RELATIONS.len());
    let mut entity = Matrix::zeros(NAMES.len(), 2 * rank);
    let mut relation = Matrix::zeros(2 * relations, 2 * rank);
    for (k, triple) in all.iter().enumerate() {
        entity.row_mut(triple.head.index())[k] = 1.0;
        entity.row_mut(triple.tail.index())[rank + k] = 1.0;
        relation.row_mut(triple.relation.index())[rank + k] = 1.0;
        relation.row_mut(triple.relation.inverse(relations).index())[rank + k] = -1.0;
    }
    entity.row_mut(0)[rank - 1] = 1.0;
    relation.row_mut(0)[rank - 1] = FRANCE;
    Model::complex(entity, relation)
}

pub(crate) fn blank() -> Model<f32> {
    Model::complex(Matrix::zeros(NAMES.len(), 4), Matrix::zeros(2 * RELATIONS.len(), 4))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Asserts success and returns the printed text.
pub(crate) fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}
