//! A tiny finished run: a graph, a student that knows everything, a teacher that knows nothing.

use kge::{Matrix, Model};
use mkg::graph::write_triples;
use mkg::{Entity, Relation, Split, Triple, Vocabulary};
use serde_json::{Value, json};
use stage::Run;
use stage::manifest::FILE;
use stage::task::Task;
use stage::work::Work;
use std::path::Path;
use std::process::Output;

/// The names of the entities; their keys are `Q0` to `Q5`. Nobody in train knows of Q5.
const NAMES: [&str; 6] = ["France", "Spain", "Belgium", "Georgia", "Georgia", "Laos"];

/// A run in a folder of its own.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// A run with a graph and no model.
    pub(crate) fn with_graph() -> Lab {
        Lab::with_splits(triples)
    }

    /// A run with a graph of these splits and no model.
    pub(crate) fn with_splits(triples: impl Fn(Split) -> Vec<Triple>) -> Lab {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        lab.finish("dsom-import", &lab.run().graph(), json!({}), |work| {
            let folder = work.path("");
            vocabulary().write(&folder).unwrap();
            for split in Split::ALL {
                write_triples(&folder.join(split.file()), &triples(split)).unwrap();
            }
        });
        lab
    }

    /// A run with a perfect student and the structural teacher, which scores all entities alike.
    pub(crate) fn new() -> Lab {
        let lab = Lab::with_graph();
        lab.student("student", &perfect());
        lab.teacher("structural", &blank());
        lab
    }

    /// Adds a finished student.
    pub(crate) fn student(&self, name: &str, model: &Model<f32>) {
        self.model("dsom-distill", &self.run().student(name), model);
    }

    /// Adds a finished teacher.
    pub(crate) fn teacher(&self, modality: &str, model: &Model<f32>) {
        self.model("dsom-teachers", &self.run().teacher(&modality.parse().unwrap()), model);
    }

    /// Adds finished soft labels of these teachers.
    pub(crate) fn soft_labels(&self, teachers: &[&str]) {
        let folder = self.run().soft_labels();
        self.finish("dsom-soft-labels", &folder, json!({ "teachers": teachers }), |_| {});
    }

    /// Leaves a student behind whose training was cut short.
    pub(crate) fn cut_short(&self, name: &str) {
        let task = Task::new(&self.run(), "dsom-distill", self.run().student(name), &json!({}), 0);
        drop(task.begin(false, || Ok(())).unwrap().unwrap());
    }

    fn model(&self, program: &'static str, folder: &Path, model: &Model<f32>) {
        let write = |work: &Work| model.tensors().write(&work.path(training::MODEL)).unwrap();
        self.finish(program, folder, json!({}), write);
    }

    fn finish(&self, program: &'static str, folder: &Path, summary: Value, write: impl FnOnce(&Work)) {
        let task = Task::new(&self.run(), program, folder.to_owned(), &json!({}), 0);
        let (work, ()) = task.begin(false, || Ok(())).unwrap().unwrap();
        write(&work);
        work.finish(summary).unwrap();
    }

    pub(crate) fn run(&self) -> Run {
        Run::new(self.dir.path().join("run"))
    }

    /// Runs `dsom-evaluate` on the run.
    pub(crate) fn evaluate(&self, more: &[&str]) -> Output {
        let mut command = dsom_tests::program("dsom-evaluate");
        command.arg("--run").arg(self.run().root()).args(more).output().unwrap()
    }

    /// A JSON file of the evaluation.
    pub(crate) fn evaluation(&self, name: &str) -> Value {
        stage::files::read_json(&self.run().evaluation().join(name)).unwrap()
    }

    /// Tells whether the evaluation finished.
    pub(crate) fn is_evaluated(&self) -> bool {
        self.run().evaluation().join(FILE).is_file()
    }
}

fn vocabulary() -> Vocabulary {
    let entity = |(i, name): (usize, &str)| Entity {
        key: format!("Q{i}"),
        name: Some(name.to_owned()),
        ..Entity::default()
    };
    let relation = |(i, name): (usize, &str)| Relation { key: format!("P{i}"), name: Some(name.to_owned()) };
    Vocabulary {
        entities: NAMES.into_iter().enumerate().map(entity).collect(),
        relations: ["borders", "twin of"].into_iter().enumerate().map(relation).collect(),
    }
}

pub(crate) fn triples(split: Split) -> Vec<Triple> {
    match split {
        Split::Train => vec![Triple::new(0, 0, 1), Triple::new(0, 0, 2), Triple::new(3, 1, 4)],
        Split::Valid => vec![Triple::new(1, 0, 2)],
        Split::Test => vec![Triple::new(0, 0, 3), Triple::new(5, 1, 0)],
    }
}

/// A model that scores every triple of the graph 1, in both directions, and every other one 0 or less.
///
/// Triple number k has a complex dimension of its own, in which the head is 1, the tail i, the relation i and its
/// inverse -i: `Re(1 · i · conj(i)) = 1`, while head and tail exchanged give -1, and twice the same 0.
pub(crate) fn perfect() -> Model<f32> {
    let all: Vec<Triple> = Split::ALL.into_iter().flat_map(triples).collect();
    let rank = all.len();
    let (mut entity, mut relation) = (Matrix::zeros(NAMES.len(), 2 * rank), Matrix::zeros(4, 2 * rank));
    for (k, triple) in all.iter().enumerate() {
        entity.row_mut(triple.head.index())[k] = 1.0;
        entity.row_mut(triple.tail.index())[rank + k] = 1.0;
        relation.row_mut(triple.relation.index())[rank + k] = 1.0;
        relation.row_mut(triple.relation.inverse(2).index())[rank + k] = -1.0;
    }
    Model::complex(entity, relation)
}

/// A model that scores everything 0.
pub(crate) fn blank() -> Model<f32> {
    Model::complex(Matrix::zeros(NAMES.len(), 4), Matrix::zeros(4, 4))
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
