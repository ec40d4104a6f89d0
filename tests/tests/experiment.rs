//! `dsom-experiment` on the embedded dataset: shared stages, tables, resumption, failed cells.

use dsom_tests::{ends, interrupted_at, program};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

const HEAD: &str = "title = \"A test\"\nseeds = [0, 1]\nbaseline = \"dsom\"\n\
    statistics = { resamples = 200, rounds = 500 }\n\
    set = { teachers.rank = 8, teachers.epochs = 3, distill.rank = 8, distill.epochs = 6, distill.selection.hidden = 16 }\n\
    [[dataset]]\nname = \"nations\"\nrecipe = [\"pipelines/nations.toml\"]\nraw = \"data/nations\"\n";
const DSOM: &str = "[[variant]]\nname = \"dsom\"\nlabel = \"DSoM\"\n";
const ALONE: &str = "[[variant]]\nname = \"alone\"\nset = { distill.term.kind = \"none\" }\n";
const STRUCTURAL: &str = "[[variant]]\nname = \"s\"\nset = { soft_labels.teachers = [\"structural\"] }\n";

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
        let text = format!("{HEAD}{}", variants.concat());
        std::fs::write(self.folder.path().join("test.toml"), text).expect("the experiment is written");
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = program("dsom-experiment");
        command.arg(self.folder.path().join("test.toml")).arg("--out").arg(self.out("")).args(more);
        command
    }

    /// Runs the experiment, which must end with exit code `code` and print all `words`; returns its output.
    #[track_caller]
    fn ends(&self, more: &[&str], code: i32, words: &[&str]) -> String {
        ends(&self.command(more).output().expect("the program starts"), code, words)
    }

    fn record(&self) -> Value {
        stage::files::read_json(&self.out("experiment.json")).expect("there is a record")
    }

    fn manifest(&self, student: &str) -> Value {
        let path = self.out("nations/seed-1").join(student).join("stage.json");
        stage::files::read_json(&path).expect("the stage has finished")
    }
}

fn report(arguments: &str, folder: PathBuf) {
    ends(&program("dsom-report").arg(arguments).arg(folder).output().expect("the program starts"), 0, &[]);
}

#[test]
fn shared_stages_are_done_once_and_again_means_fresh() {
    let lab = Lab::new(&[DSOM, ALONE, STRUCTURAL]);
    lab.ends(&["--dry-run"], 0, &["6 cells, 18 steps: 0 fresh, 18 to run; how long is unknown"]);
    assert!(!lab.out("").exists());
    lab.ends(&["--report"], 0, &["$ dsom-distill --run "]);
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
    // Runs of an experiment are ordinary runs.
    report("--run", lab.out("nations/seed-1-s"));

    let before = lab.manifest("student-dsom-1");
    lab.ends(&["--dry-run"], 0, &["6 cells, 18 steps: 18 fresh, 0 to run"]);
    lab.ends(&[], 0, &[]);
    assert_eq!(lab.manifest("student-dsom-1"), before);
    assert_eq!(lab.record(), record);
    // An additional variant is an additional student.
    let distilled = "[[variant]]\nname = \"kd\"\nset = { distill.term.kind = \"kd\" }\n";
    lab.write(&[DSOM, ALONE, STRUCTURAL, distilled]);
    lab.ends(&["--dry-run"], 0, &["16 fresh, 4 to run, about "]);
}

#[test]
fn a_cell_that_fails_leaves_the_others_alone() {
    let diverging = "[[variant]]\nname = \"bad\"\nset = { distill.learning_rate = 1e30 }\n";
    let lab = Lab::new(&[DSOM, diverging]);
    lab.ends(&[], 70, &["2 of 4 cells are missing: dsom-distill ended with 70"]);
    let record = lab.record();
    assert_eq!(record["table"]["datasets"][0]["rows"].as_array().unwrap().len(), 1);
    let problems = record["steps"].as_array().unwrap().iter().filter(|step| !step["problem"].is_null());
    assert_eq!(problems.count(), 2);
    report("--experiment", lab.out(""));
    assert!(std::fs::read_to_string(lab.out("report.html")).unwrap().contains("Not complete"));
    // A part without results leaves the tables of the whole experiment.
    lab.ends(&["--variant", "bad"], 70, &["2 of 2 cells are missing"]);
    assert_eq!(lab.record(), record);
}

#[test]
fn tables_of_what_is_finished_need_no_training() {
    let lab = Lab::new(&[DSOM, ALONE]);
    let none = lab.command(&["--finished"]).output().unwrap();
    assert!(!none.status.success(), "nothing to show");
    lab.ends(&["--seed", "1", "--variant", "alone"], 0, &[]);
    let student = lab.manifest("student-alone-1");
    let called = lab.ends(&["--finished"], 0, &["$ dsom-evaluate"]);
    assert!(!called.contains("$ dsom-distill"), "{called}");
    let record = lab.record();
    let rows = record["table"]["datasets"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["variant"], &rows[0]["seeds"]), (&"alone".into(), &serde_json::json!([1])));
    assert_eq!(lab.manifest("student-alone-1"), student);
}

#[test]
fn an_interrupted_experiment_goes_on() {
    let long = "[[variant]]\nname = \"dsom\"\nset = { distill.epochs = 400, distill.patience = 400 }\n";
    let lab = Lab::new(&[long]);
    let checkpoint = lab.out("nations/seed-0/student-dsom-0/checkpoint.safetensors");
    interrupted_at(&checkpoint, &mut lab.command(&[]));
    assert!(!lab.out("experiment.json").exists());
    lab.write(&[&long.replace("distill.patience", "distill.validate_every = 40, distill.patience")]);
    lab.ends(&["--dry-run"], 0, &["incomplete"]);
    lab.write(&[long]);
    lab.ends(&[], 0, &["student-dsom-0: continues after epoch"]);
}

#[test]
fn a_wrong_experiment_is_refused_before_anything_runs() {
    for (variants, words) in [
        ("[[variant]]\nname = \"dsom\"\nset = { distill.gama = 1 }\n", "`distill.gama`: no such key"),
        ("[[variant]]\nname = \"x\"\n", "the baseline `dsom` is no variant"),
        ("[[variant]]\nname = \"dsom\"\nmodel = \"acoustic\"\n", "`acoustic` is no model"),
    ] {
        let lab = Lab::new(&[variants]);
        lab.ends(&[], 2, &[words]);
        assert!(!lab.out("").exists());
    }
    Lab::new(&[DSOM]).ends(&["--data", "nations=nowhere"], 66, &[]);
    ends(&program("dsom-experiment").arg("missing.toml").output().unwrap(), 66, &[]);
}
