//! The real binary on tiny datasets: one that is right, and every way to be wrong with its exit code.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use mkg::graph::{Vocabulary, read_triples};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A raw folder and a run of a test.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// A dataset of four entities in a ring, whose files `changes` replace or add to.
    fn new(changes: &[(&str, &str)]) -> Lab {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        let files = [
            ("entity2id.txt", "4\na\t0\nb\t1\nc\t2\nd\t3\n"),
            ("relation2id.txt", "1\nnextTo\t0\n"),
            ("train2id.txt", "6\n0 1 0\n1 2 0\n2 3 0\n3 0 0\n0 2 0\n0 2 0\n"),
            ("valid2id.txt", "1\n1 3 0\n"),
            ("test2id.txt", "1\n2 0 0\n"),
            ("entity2text.txt", "a\tAlpha\nb\tBeta\nzzz\tnobody\n"),
        ];
        for (name, text) in files.iter().chain(changes) {
            lab.write(name, text);
        }
        lab
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.raw().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn raw(&self) -> PathBuf {
        self.dir.path().join("raw")
    }

    fn graph(&self) -> PathBuf {
        self.dir.path().join("run/graph")
    }

    fn import(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsom-import"));
        command.env_remove("RUST_LOG").env_remove("DSOM_RUN");
        command.arg("--run").arg(self.dir.path().join("run")).arg("--raw").arg(self.raw());
        command.args(more).output().unwrap()
    }

    fn json(&self, name: &str) -> Value {
        stage::files::read_json(&self.graph().join(name)).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// With these files changed and arguments added, fails with this code and says this; nothing is written.
#[track_caller]
fn fails(changes: &[(&str, &str)], more: &[&str], code: i32, says: &str) {
    let lab = Lab::new(changes);
    let output = lab.import(more);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains(says), "expected `{says}`, found: {errors}");
    assert!(!lab.graph().exists(), "nothing is written before all is checked");
}

#[test]
fn a_dataset_becomes_a_graph() {
    let lab = Lab::new(&[("images/a/1.png", "x"), ("images/a/2.txt", "x"), ("images/stranger/1.png", "x")]);
    let printed = succeeds(&lab.import(&[]));
    assert!(
        printed.contains("4 entities, 1 relations") && printed.contains("lines of train repeat"),
        "{printed}"
    );

    let vocabulary = Vocabulary::read(&lab.graph()).unwrap();
    let labels: Vec<&str> = vocabulary.entities.iter().map(|entity| entity.label()).collect();
    assert_eq!(labels, ["Alpha", "Beta", "c", "d"]);
    assert_eq!(vocabulary.entities[0].images, ["a/1.png"]);
    let triples = |split: &str| read_triples(&lab.graph().join(split), 4, 1).unwrap().len();
    assert_eq!((triples("train.parquet"), triples("valid.parquet"), triples("test.parquet")), (5, 1, 1));

    let audit = lab.json("audit.json");
    assert_eq!((&audit["splits"][0]["lines"], &audit["splits"][0]["triples"]), (&6.into(), &5.into()));
    let manifest = lab.json("stage.json");
    let root = manifest["summary"]["images_root"].as_str().unwrap();
    assert!(Path::new(root).is_absolute() && Path::new(root).join("a/1.png").is_file());
    let parameters = manifest["parameters"].to_string();
    assert!(!parameters.contains(lab.dir.path().to_str().unwrap()), "{parameters}");
    let inputs: Vec<&str> =
        manifest["inputs"].as_array().unwrap().iter().map(|i| i["path"].as_str().unwrap()).collect();
    assert!(inputs.contains(&"raw/train2id.txt") && inputs.contains(&"raw/images/a/1.png"), "{inputs:?}");
}

#[test]
fn a_graph_stays_fresh_until_an_input_changes() {
    let lab = Lab::new(&[]);
    succeeds(&lab.import(&["-q"]));
    let before = std::fs::read(lab.graph().join("stage.json")).unwrap();
    assert_eq!(succeeds(&lab.import(&[])), "", "a fresh graph is not audited again");
    assert_eq!(std::fs::read(lab.graph().join("stage.json")).unwrap(), before);
    lab.write("valid2id.txt", "1\n3 1 0\n");
    let status = succeeds(&lab.import(&["--status"]));
    assert!(status.contains("input `raw/valid2id.txt` changed"), "{status}");
    succeeds(&lab.import(&["-q"]));
    assert!(succeeds(&lab.import(&["--status"])).contains("fresh"));
}

#[test]
fn the_same_call_writes_the_same_bytes() {
    let outputs = |lab: &Lab| {
        succeeds(&lab.import(&["-q", "--validation", "holdout:0.2", "--seed", "7"]));
        lab.json("stage.json")["outputs"].clone()
    };
    let (first, second) = (outputs(&Lab::new(&[])), outputs(&Lab::new(&[])));
    assert_eq!(first.as_array().unwrap().len(), 6);
    assert_eq!(first[0]["path"], "audit.json");
    // The audit names the raw folder's own files only, so that even it is the same.
    assert_eq!(first, second);
}

#[test]
fn quiet_means_quiet() {
    let output = Lab::new(&[]).import(&["-q"]);
    assert_eq!(succeeds(&output), "");
    assert!(text(&output.stderr).contains("lines of train repeat"));
    assert_eq!(text(&Lab::new(&[]).import(&["-qq"]).stderr), "");
}

#[test]
fn a_listing_stands_for_many_images() {
    let lab = Lab::new(&[]);
    (0..2001).for_each(|image| lab.write(&format!("images/a/{image}.png"), "x"));
    succeeds(&lab.import(&["-qq"]));
    let manifest = lab.json("stage.json");
    assert_eq!(manifest["summary"]["images"], 2001);
    let inputs = manifest["inputs"].to_string();
    assert!(inputs.contains("raw/images/(listing)") && !inputs.contains("/7.png"), "{inputs}");
    lab.write("images/a/7.png", "longer");
    assert!(succeeds(&lab.import(&["--status"])).contains("`raw/images/(listing)` changed"));
}

#[test]
fn a_copied_validation_split_is_replaced() {
    let lab = Lab::new(&[("valid2id.txt", "1\n0 1 0\n")]);
    let printed = succeeds(&lab.import(&["--set", "import.holdout_fraction=0.2"]));
    let warning =
        "100 % of the published validation triples stand in train: 20 % of train is held out instead";
    assert!(printed.contains(warning), "{printed}");
    assert_eq!(lab.json("audit.json")["validation"]["used"], "holdout:0.2");
    let published = Lab::new(&[("valid2id.txt", "1\n0 1 0\n")]);
    succeeds(&published.import(&["-q", "--validation", "published"]));
    assert_eq!(published.json("stage.json")["summary"]["valid"], 1);
}

#[test]
fn wrong_content_exits_with_65_and_its_line() {
    fails(&[("train2id.txt", "1\n0 1\n")], &[], 65, "train2id.txt: line 2: expected 3 columns, found 2");
    fails(&[("train2id.txt", "1\n0 4 0\n")], &[], 65, "line 2: tail 4 is out of range 0..4");
    fails(&[("train2id.txt", "1\n0 x 0\n")], &[], 65, "line 2: expected the id of the tail, found `x`");
    fails(&[("train2id.txt", "9\n0 1 0\n")], &[], 65, "line 1: the count line says 9, but 1 lines follow");
    fails(&[("test2id.txt", "0\n")], &[], 65, "test2id.txt: holds no triples");
    let named = |test: &'static str| {
        [("train2id.txt", "a\tnextTo\tb\n"), ("valid2id.txt", "b\tnextTo\ta\n"), ("test2id.txt", test)]
    };
    fails(&named("a\tfar\tb\n"), &[], 65, "test2id.txt: line 1: relation `far` is not among the relations");
    fails(&named("a\tnextTo\tq\n"), &[], 65, "test2id.txt: line 1: tail `q` is not among the entities");
    fails(&[("entity2id.txt", "a\t0\nb\t0\n")], &[], 65, "entity2id.txt: line 2: id 0 was given on line 1");
    fails(
        &[("entity2id.txt", "a\t0\nb\t2\n")],
        &[],
        65,
        "line 2: id 2 is out of range 0..2: the ids have holes",
    );
    fails(&[("entity2id.txt", "a\t0\na\t1\n")], &[], 65, "line 2: key `a` has id 0 already");
    fails(&[("entity2text.txt", "a Alpha\n")], &[], 65, "entity2text.txt: line 1: expected key<TAB>text");
    fails(&[], &["--format", "ids"], 65, "is the format `openke`?");
    let by_id = r#"import.names=[{file="entity2text.txt",join="id"}]"#;
    fails(&[], &["--set", by_id], 65, "entity2text.txt: line 1: expected an id, found `a`");
    fails(&[("entity2text.txt", "0\tA\n7\tB\n")], &["--set", by_id], 65, "line 2: id 7 is out of range 0..4");
    let by_key = r#"import.names=[{file="entity2text.txt",join="key"}]"#;
    fails(&[("entity2text.txt", "q\tA\n")], &["--set", by_key], 65, "joined by \"key\", nothing is found");
}

#[test]
fn bytes_that_are_no_text_exit_with_65() {
    let lab = Lab::new(&[]);
    std::fs::write(lab.raw().join("entity2text.txt"), b"a\tok\nb\t\xff\n").unwrap();
    let output = lab.import(&[]);
    assert_eq!(output.status.code(), Some(65));
    assert!(text(&output.stderr).contains("entity2text.txt: line 2: not valid UTF-8"));
}

#[test]
fn what_is_missing_exits_with_66() {
    fails(&[], &["--set", "import.train=nowhere.txt"], 66, "nowhere.txt: no such file");
    fails(&[], &["--set", "import.images=nowhere"], 66, "nowhere: no such folder");
    fails(&[], &["--set", r#"import.names=[{file="nowhere.txt"}]"#], 66, "nowhere.txt: no such file");
    fails(&[], &["--raw", "/nowhere"], 2, "cannot be used multiple times");
    let lab = Lab::new(&[]);
    std::fs::remove_file(lab.raw().join("test2id.txt")).unwrap();
    let output = lab.import(&[]);
    assert_eq!(output.status.code(), Some(66));
    assert!(text(&output.stderr).contains("hint: looked for test.tsv, test2id.txt"));
    std::fs::remove_dir_all(lab.raw()).unwrap();
    assert_eq!(lab.import(&[]).status.code(), Some(66));
}

#[test]
fn a_wrong_call_exits_with_2() {
    fails(&[], &["--validation", "half"], 2, "is not a validation");
    fails(&[], &["--format", "csv"], 2, "use auto, openke, ids or named");
    fails(&[], &["--set", "import.trian=x"], 2, "`import.trian`: no such key");
    let output = Command::new(env!("CARGO_BIN_EXE_dsom-import")).arg("--run").arg("r").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn help_says_what_it_does() {
    let output = Command::new(env!("CARGO_BIN_EXE_dsom-import")).arg("--help").output().unwrap();
    let help = succeeds(&output);
    for part in ["--raw <DIR>", "holdout:FRACTION", "Exit codes", "Example"] {
        assert!(help.contains(part), "{help}");
    }
}
