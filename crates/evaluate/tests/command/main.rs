//! The real binary on a run that the tests build: its output, and every kind of error with its exit code.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod lab;

use dsom_tests::ends;
use mkg::graph::for_each_batch;
use mkg::{Split, Triple};
use serde_json::{Value, json};
use std::process::Output;

use lab::{Lab, blank, finish, perfect, succeeds, text};

/// The names of the entities, whose keys are `Q0` to `Q5`. Train has no triple with Q5.
const NAMES: [&str; 6] = ["France", "Spain", "Belgium", "Georgia", "Georgia", "Laos"];
const RELATIONS: [&str; 2] = ["borders", "twin of"];
const FRANCE: f32 = 0.0;

fn triples(split: Split) -> Vec<Triple> {
    match split {
        Split::Train => vec![Triple::new(0, 0, 1), Triple::new(0, 0, 2), Triple::new(3, 1, 4)],
        Split::Valid => vec![Triple::new(1, 0, 2)],
        Split::Test => vec![Triple::new(0, 0, 3), Triple::new(5, 1, 0)],
    }
}

impl Lab {
    fn soft_labels(&self, teachers: &[&str]) {
        let task = self.task("dsom-soft-labels", self.run().soft_labels());
        finish(task, json!({ "teachers": teachers }), |_| {});
    }

    /// Leaves a student whose training was interrupted.
    fn cut_short(&self, name: &str) {
        let task = self.task("dsom-distill", self.run().student(name));
        drop(task.begin(false, || Ok(())).unwrap().unwrap());
    }

    fn evaluate(&self, more: &[&str]) -> Output {
        self.call("dsom-evaluate", more, "")
    }

    fn evaluation(&self, name: &str) -> Value {
        stage::files::read_json(&self.run().evaluation().join(name)).unwrap()
    }
}

#[test]
fn a_perfect_student_and_a_blank_teacher_have_their_figures_and_every_rank_is_a_row() {
    let lab = Lab::new();
    let printed = succeeds(&lab.evaluate(&[]));
    let metrics = lab.evaluation("metrics.json");
    assert_eq!(metrics["model"], "student");
    for path in [
        "/test/both/mrr",
        "/test/head/hits_at_1",
        "/test/both/optimistic/mrr",
        "/valid/both/mrr",
        "/test/tail/mr",
    ] {
        assert_eq!(metrics.pointer(path), Some(&json!(1.0)), "{path}");
    }
    // (France, borders, ?) leaves out two known answers of six equal candidates: pessimistic 4.
    // (Laos, twin of, ?) has no other answer: pessimistic 6.
    let blank = &metrics["models"]["structural"]["test"];
    assert_eq!(blank["both"]["optimistic"]["mr"], 1.0);
    assert_eq!(blank["tail"]["pessimistic"]["mr"], 5.0);
    assert_eq!(blank["both"]["triples"], 2);
    assert_eq!(blank["slices"]["entity"]["unseen"]["triples"], 1);
    assert_eq!(blank["slices"]["relation_type"]["1-N"]["mr"], 3.0);
    assert_eq!(blank["slices"]["relation"]["P1"]["mr"], 3.5);
    let lines: Vec<&str> = printed.lines().filter(|line| line.contains("test")).collect();
    assert!(lines[0].contains("student") && lines[0].contains("100.00"), "{printed}");
    assert!(lines[1].contains("structural"), "{printed}");
    let stage = lab.evaluation("stage.json");
    assert_eq!(stage["summary"]["mrr"], 1.0);
    assert_eq!(stage["parameters"]["models"], json!(["student", "structural"]));
    let (mut rows, mut names) = (0, Vec::new());
    for_each_batch(&lab.run().evaluation().join("ranks.parquet"), |batch| {
        rows += batch.num_rows();
        names = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        Ok(())
    })
    .unwrap();
    // Two models, three triples, two directions.
    assert_eq!(rows, 12);
    let expected = "model split direction head relation tail head_key relation_key tail_key rank optimistic pessimistic \
         confidence";
    assert_eq!(names.join(" "), expected);
}

#[test]
fn a_second_run_is_fresh_and_still_shows_the_figures() {
    let lab = Lab::new();
    let first = succeeds(&lab.evaluate(&["--set", "evaluate.examples=2"]));
    let again = lab.evaluate(&["--set", "evaluate.examples=2"]);
    assert!(text(&again.stderr).contains("evaluation is fresh"), "{}", text(&again.stderr));
    assert_eq!(succeeds(&again), first);
    assert!(succeeds(&lab.evaluate(&["--status"])).contains("stale: parameter `examples` was 2, now 0"));
    assert_eq!(succeeds(&lab.evaluate(&["-q"])), "");
}

#[test]
fn examples_are_told_by_name() {
    let lab = Lab::new();
    let printed = succeeds(&lab.evaluate(&["--set", "evaluate.examples=9", "--split", "test"]));
    let line = printed.lines().find(|line| line.starts_with("France · borders · ?")).unwrap();
    assert!(line.ends_with("→  Spain (known), Belgium (known), Georgia ✓, France, Georgia, Laos"), "{line}");
    assert!(printed.contains("France · twin of⁻¹ · ?  →  Laos ✓"), "{printed}");
    assert!(printed.contains("answer: Laos at rank 1"), "{printed}");
}

#[test]
fn all_models_in_the_order_of_reports() {
    let lab = Lab::new();
    lab.teacher("visual", &perfect());
    lab.student("student-alone", &blank());
    succeeds(&lab.evaluate(&["--split", "valid"]));
    let metrics = lab.evaluation("metrics.json");
    let names: Vec<&String> = metrics["models"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["student", "student-alone", "average", "structural", "visual"]);
    // Halved perfect scores rank like perfect scores.
    assert_eq!(metrics["models"]["average"]["valid"]["both"]["mrr"], 1.0);
}

#[test]
fn the_average_is_of_the_soft_labels_teachers() {
    let lab = Lab::new();
    lab.teacher("visual", &perfect());
    lab.soft_labels(&["structural"]);
    let both = ["--model", "average", "--model", "visual"];
    succeeds(&lab.evaluate(&both));
    let metrics = lab.evaluation("metrics.json");
    assert_eq!(metrics["model"], "average");
    assert_ne!(metrics["test"]["both"]["mrr"], 1.0);
    assert_eq!(metrics["models"]["visual"]["test"]["both"]["mrr"], 1.0);
}

#[test]
fn what_has_not_finished_is_missing() {
    let lab = Lab::with_graph(Split::ALL.map(triples));
    ends(&lab.evaluate(&[]), 66, &["no student and no teacher has finished"]);
    lab.teacher("structural", &blank());
    ends(&lab.evaluate(&["--model", "student"]), 66, &["run `dsom-distill` first; there are: structural"]);
    assert!(succeeds(&lab.evaluate(&["--model", "student", "--status"])).contains("waits"));
    lab.cut_short("student-alone");
    ends(&lab.evaluate(&["--model", "student-alone"]), 66, &["`student-alone` has not finished"]);
    std::fs::remove_file(lab.run().graph().join("stage.json")).unwrap();
    ends(&lab.evaluate(&[]), 66, &["run `dsom-import` first"]);
}

#[test]
fn wrong_names_are_refused() {
    let lab = Lab::new();
    for (words, said) in [
        (["--model", "studnet"], &["`studnet` is not a model", "there are: student, structural"][..]),
        (["--model", "graph"], &[]),
        (["--model", "../run/student"], &[]),
        (["--split", "tset"], &["use train, valid or test"]),
    ] {
        ends(&lab.evaluate(&words), 2, said);
    }
}

#[test]
fn broken_models_are_refused_and_nothing_is_overwritten() {
    let lab = Lab::new();
    succeeds(&lab.evaluate(&[]));
    let mut model = perfect();
    model.entity.row_mut(1)[0] = f32::NAN;
    lab.student("student-broken", &model);
    ends(&lab.evaluate(&["--model", "student-broken"]), 65, &["not finite"]);
    let path = lab.run().student("student").join(training::MODEL);
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, bytes.len() / 2] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        ends(&lab.evaluate(&["--model", "student"]), 65, &["truncated", "rerun `dsom-distill`"]);
    }
    assert!(lab.run().evaluation().join("stage.json").is_file());
}

#[test]
fn a_model_that_is_damaged_or_cut_short_is_never_left_out() {
    let lab = Lab::new();
    lab.teacher("visual", &perfect());
    let (student, teacher) = (lab.run().student("student"), lab.run().teacher(&"visual".parse().unwrap()));
    for (folder, program) in [(student, "dsom-distill"), (teacher, "dsom-teachers")] {
        let [manifest, model] = ["stage.json", training::MODEL].map(|name| folder.join(name));
        let (of_manifest, of_model) = (std::fs::read(&manifest).unwrap(), std::fs::read(&model).unwrap());
        std::fs::write(&manifest, "").unwrap();
        ends(&lab.evaluate(&[]), 65, &["stage.json", &format!("rerun `{program}`")]);
        std::fs::remove_file(&manifest).unwrap();
        ends(&lab.evaluate(&[]), 66, &["has not finished", "or name other models with --model"]);
        std::fs::write(&manifest, of_manifest).unwrap();
        std::fs::remove_file(&model).unwrap();
        ends(&lab.evaluate(&[]), 66, &[training::MODEL]);
        std::fs::write(&model, of_model).unwrap();
        succeeds(&lab.evaluate(&[]));
    }
    lab.cut_short("student-alone");
    ends(&lab.evaluate(&[]), 66, &[]);
    succeeds(&lab.evaluate(&["--model", "student"]));
}

#[test]
fn an_empty_split_is_refused_only_where_it_is_asked_for() {
    let lab = Lab::with_graph([triples(Split::Train), triples(Split::Valid), Vec::new()]);
    lab.student("student", &perfect());
    ends(&lab.evaluate(&[]), 65, &["the test split is empty"]);
    succeeds(&lab.evaluate(&["--split", "valid"]));
    assert_eq!(lab.evaluation("stage.json")["summary"]["split"], "valid");
}
