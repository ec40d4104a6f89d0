//! `dsom-experiment` on the embedded dataset: shared stages, tables, resumption, cells that fail.

use dsom_tests::{program, said, terminate, wait_for};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HEAD: &str = "title = \"A test\"\nseeds = [0, 1]\nbaseline = \"dsom\"\n\
    statistics = { resamples = 200, rounds = 500 }\n\
    set = { teachers.rank = 8, teachers.epochs = 3, distill.rank = 8, distill.epochs = 6, distill.selection.hidden = 16 }\n\
    [[dataset]]\nname = \"nations\"\nrecipe = [\"pipelines/nations.toml\"]\nraw = \"data/nations\"\n";
const DSOM: &str = "[[variant]]\nname = \"dsom\"\nlabel = \"DSoM\"\n";
const ALONE: &str = "[[variant]]\nname = \"alone\"\nset = { distill.term.kind = \"none\" }\n";
const STRUCTURAL: &str = "[[variant]]\nname = \"s\"\nset = { soft_labels.teachers = [\"structural\"] }\n";

/// An experiment in a folder of its own.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(variants: &[&str]) -> Lab {
        let lab = Lab { folder: tempfile::tempdir().expect("a folder") };
        lab.write(variants);
        lab
    }

    fn write(&self, variants: &[&str]) {
        std::fs::write(self.file(), format!("{HEAD}{}", variants.concat()))
            .expect("the experiment is written");
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("test.toml")
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = program("dsom-experiment");
        command.arg(self.file()).arg("--out").arg(self.folder.path().join("out")).args(more);
        command
    }

    fn run(&self, more: &[&str]) -> Output {
        self.command(more).output().expect("the program starts")
    }

    fn record(&self) -> Value {
        let bytes = std::fs::read(self.out("experiment.json")).expect("there is a record");
        serde_json::from_slice(&bytes).expect("the record is JSON")
    }
}

fn manifest(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("stage.json")).expect("the stage has finished")
}

#[test]
fn shared_stages_are_done_once_and_again_means_fresh() {
    let lab = Lab::new(&[DSOM, ALONE, STRUCTURAL]);
    let dry = lab.run(&["--dry-run"]);
    assert!(
        said(&dry).contains("6 cells, 18 steps: 0 fresh, 18 to run; how long is unknown"),
        "{}",
        said(&dry)
    );
    assert!(!lab.folder.path().join("out").exists());
    let output = lab.run(&["--report"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("$ dsom-distill --run "), "{}", said(&output));
    let record = lab.record();
    let rows = record["table"]["datasets"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["seeds"], serde_json::json!([0, 1]));
    assert!(rows[1]["comparison"]["p"].is_f64() && rows[0]["comparison"].is_null());
    for file in ["results.parquet", "table.md", "table.tex", "report.html"] {
        assert!(lab.out(file).is_file(), "{file}");
    }
    let markdown = std::fs::read_to_string(lab.out("table.md")).unwrap();
    assert!(markdown.contains("| DSoM | ") && markdown.contains(" ± "), "{markdown}");
    let links = ["nations/seed-1/graph", "nations/seed-0-s/teachers", "nations/seed-1-s/teachers"];
    for link in links {
        assert!(lab.out(link).is_symlink(), "{link}");
    }
    // Runs of an experiment are runs as any other.
    let report = program("dsom-report").arg("--run").arg(lab.out("nations/seed-1-s")).output().unwrap();
    assert!(report.status.success(), "{}", said(&report));

    let before = manifest(&lab.out("nations/seed-1/student-dsom-1"));
    let dry = lab.run(&["--dry-run"]);
    assert!(said(&dry).contains("6 cells, 18 steps: 18 fresh, 0 to run"), "{}", said(&dry));
    assert!(lab.run(&[]).status.success());
    assert_eq!(manifest(&lab.out("nations/seed-1/student-dsom-1")), before);
    assert_eq!(lab.record(), record);
    // One variant more is one student more.
    lab.write(&[
        DSOM,
        ALONE,
        STRUCTURAL,
        "[[variant]]\nname = \"kd\"\nset = { distill.term.kind = \"kd\" }\n",
    ]);
    let dry = lab.run(&["--dry-run"]);
    assert!(said(&dry).contains("16 fresh, 4 to run, about "), "{}", said(&dry));
}

#[test]
fn a_cell_that_fails_leaves_the_others_alone() {
    let diverging = "[[variant]]\nname = \"bad\"\nset = { distill.learning_rate = 1e30 }\n";
    let lab = Lab::new(&[DSOM, diverging]);
    let output = lab.run(&[]);
    assert_eq!(output.status.code(), Some(70), "{}", said(&output));
    assert!(
        said(&output).contains("2 of 4 cells are missing: dsom-distill ended with 70"),
        "{}",
        said(&output)
    );
    let record = lab.record();
    assert_eq!(record["table"]["datasets"][0]["rows"].as_array().unwrap().len(), 1);
    let problems = record["steps"].as_array().unwrap().iter().filter(|step| !step["problem"].is_null());
    assert_eq!(problems.count(), 2);
    let report =
        program("dsom-report").arg("--experiment").arg(lab.folder.path().join("out")).output().unwrap();
    assert!(report.status.success(), "{}", said(&report));
    assert!(std::fs::read_to_string(lab.out("report.html")).unwrap().contains("Not complete"));
}

#[test]
fn tables_of_what_is_finished_need_no_training() {
    let lab = Lab::new(&[DSOM, ALONE]);
    let none = lab.run(&["--finished"]);
    assert!(!none.status.success(), "nothing to show: {}", said(&none));
    let output = lab.run(&["--seed", "1", "--variant", "alone"]);
    assert!(output.status.success(), "{}", said(&output));
    let student = manifest(&lab.out("nations/seed-1/student-alone-1"));
    let output = lab.run(&["--finished"]);
    assert!(output.status.success(), "{}", said(&output));
    let called = said(&output);
    assert!(called.contains("$ dsom-evaluate") && !called.contains("$ dsom-distill"), "{called}");
    let record = lab.record();
    let rows = record["table"]["datasets"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["variant"], &rows[0]["seeds"]), (&"alone".into(), &serde_json::json!([1])));
    assert_eq!(manifest(&lab.out("nations/seed-1/student-alone-1")), student);
}

#[test]
fn an_interrupted_experiment_goes_on() {
    let long = "[[variant]]\nname = \"dsom\"\nset = { distill.epochs = 400, distill.patience = 400 }\n";
    let lab = Lab::new(&[long]);
    let mut child = lab.command(&[]).stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for(&lab.out("nations/seed-0/student-dsom-0/checkpoint.safetensors"), &mut child);
    terminate(&child);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(75));
    assert!(!lab.out("experiment.json").exists());
    lab.write(&[&long.replace("distill.patience", "distill.validate_every = 40, distill.patience")]);
    let dry = said(&lab.run(&["--dry-run"]));
    assert!(dry.contains("incomplete"), "{dry}");
    lab.write(&[long]);
    let output = lab.run(&[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("student-dsom-0: continues after epoch"), "{}", said(&output));
}

#[test]
fn a_wrong_experiment_is_refused_before_anything_runs() {
    for (variants, code, words) in [
        ("[[variant]]\nname = \"dsom\"\nset = { distill.gama = 1 }\n", 2, "`distill.gama`: no such key"),
        ("[[variant]]\nname = \"x\"\n", 2, "the baseline `dsom` is no variant"),
        ("[[variant]]\nname = \"dsom\"\nmodel = \"acoustic\"\n", 2, "`acoustic` is no model"),
    ] {
        let lab = Lab::new(&[variants]);
        let output = lab.run(&[]);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
        assert!(!lab.folder.path().join("out").exists());
    }
    let output = Lab::new(&[DSOM]).run(&["--data", "nations=nowhere"]);
    assert_eq!(output.status.code(), Some(66), "{}", said(&output));
    assert_eq!(program("dsom-experiment").arg("missing.toml").output().unwrap().status.code(), Some(66));
}
