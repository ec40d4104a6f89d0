//! Runs the real binary on tiny datasets: one correct dataset, and every kind of error with its exit code.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod cases;

use dsom_tests::ends;
use mkg::graph::{Vocabulary, read_triples};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;

type File<'a> = (&'a str, &'a [u8]);

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// A raw folder with these files; a later file replaces an earlier one.
    fn of(files: &[File]) -> Lab {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        files.iter().for_each(|(name, content)| lab.write(name, content));
        lab
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.raw().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn raw(&self) -> PathBuf {
        self.dir.path().join("raw")
    }

    fn graph(&self) -> PathBuf {
        self.dir.path().join("run/graph")
    }

    fn import(&self, more: &[&str]) -> Output {
        let (run, raw) = (self.dir.path().join("run"), self.raw());
        let own = ["--run", run.to_str().unwrap(), "--raw", raw.to_str().unwrap()];
        program(&[&own, more].concat())
    }

    /// Asserts that the import ends with `code` and prints each of `says`; returns everything that it printed.
    #[track_caller]
    fn ends(&self, more: &[&str], code: i32, says: &[&str]) -> String {
        ends(&self.import(more), code, says)
    }
}

fn program(arguments: &[&str]) -> Output {
    dsom_tests::program("dsom-import").args(arguments).output().unwrap()
}

/// A dataset of four entities in a ring.
const RING: [File; 6] = [
    ("entity2id.txt", b"4\na\t0\nb\t1\nc\t2\nd\t3\n"),
    ("relation2id.txt", b"1\nnextTo\t0\n"),
    ("train2id.txt", b"6\n0 1 0\n1 2 0\n2 3 0\n3 0 0\n0 2 0\n0 2 0\n"),
    ("valid2id.txt", b"1\n1 3 0\n"),
    ("test2id.txt", b"1\n2 0 0\n"),
    ("entity2text.txt", b"a\tAlpha\nb\tBeta\nzzz\tnobody\n"),
];

/// The ring, with the files of `changes` replaced or added.
fn ring(changes: &[File]) -> Lab {
    Lab::of(&[&RING, changes].concat())
}

fn json(lab: &Lab, name: &str) -> Value {
    stage::files::read_json(&lab.graph().join(name)).unwrap()
}

/// Asserts that the import with these changes and arguments ends with this code, prints `says` and writes nothing.
#[track_caller]
fn fails(changes: &[File], more: &[&str], code: i32, says: &str) {
    let lab = ring(changes);
    let ended = lab.import(more);
    ends(&ended, code, &[says]);
    assert!(ended.stdout.is_empty());
    assert!(!lab.graph().exists(), "nothing is written before all is checked");
}

#[test]
fn a_dataset_becomes_a_graph() {
    let lab = ring(&[("images/a/1.png", b"x"), ("images/a/2.txt", b"x"), ("images/stranger/1.png", b"x")]);
    lab.ends(&[], 0, &["4 entities, 1 relations", "lines of train repeat"]);

    let vocabulary = Vocabulary::read(&lab.graph()).unwrap();
    let labels: Vec<&str> = vocabulary.entities.iter().map(|entity| entity.label()).collect();
    assert_eq!(labels, ["Alpha", "Beta", "c", "d"]);
    assert_eq!(vocabulary.entities[0].images, ["a/1.png"]);
    let triples = |split: &str| read_triples(&lab.graph().join(split), 4, 1).unwrap().len();
    assert_eq!((triples("train.parquet"), triples("valid.parquet"), triples("test.parquet")), (5, 1, 1));

    let audit = json(&lab, "audit.json");
    assert_eq!((&audit["splits"][0]["lines"], &audit["splits"][0]["triples"]), (&6.into(), &5.into()));
    let manifest = json(&lab, "stage.json");
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
    let lab = ring(&[]);
    lab.ends(&["-q"], 0, &["lines of train repeat"]);
    let before = json(&lab, "stage.json");
    assert!(lab.import(&[]).stdout.is_empty(), "a fresh graph is not audited again");
    assert_eq!(json(&lab, "stage.json"), before);
    lab.write("valid2id.txt", b"1\n3 1 0\n");
    lab.ends(&["--status"], 0, &["input `raw/valid2id.txt` changed"]);
    assert_eq!(lab.ends(&["-qq"], 0, &[]), "", "quiet means quiet");
    lab.ends(&["--status"], 0, &["fresh"]);
}

#[test]
fn the_same_call_writes_the_same_bytes() {
    let outputs = |lab: Lab| {
        lab.ends(&["-q", "--validation", "holdout:0.2", "--seed", "7"], 0, &[]);
        assert_eq!(json(&lab, "audit.json")["validation"]["used"], "holdout:0.2");
        json(&lab, "stage.json")["outputs"].clone()
    };
    let (first, second) = (outputs(ring(&[])), outputs(ring(&[])));
    assert_eq!(first.as_array().unwrap().len(), 6);
    assert_eq!(first[0]["path"], "audit.json");
    // The audit names only files of the raw folder itself, so even the audit is the same.
    assert_eq!(first, second);
}

#[test]
fn a_listing_stands_for_many_images() {
    let lab = ring(&[]);
    (0..2001).for_each(|image| lab.write(&format!("images/a/{image}.png"), b"x"));
    lab.ends(&["-qq"], 0, &[]);
    let manifest = json(&lab, "stage.json");
    assert_eq!(manifest["summary"]["images"], 2001);
    let inputs = manifest["inputs"].to_string();
    assert!(inputs.contains("raw/images/(listing)") && !inputs.contains("/7.png"), "{inputs}");
    lab.write("images/a/7.png", b"longer");
    lab.ends(&["--status"], 0, &["`raw/images/(listing)` changed"]);
}

#[test]
fn wrong_content_exits_with_65_and_its_line() {
    let by_id = r#"--set=import.names=[{file="entity2text.txt",join="id"}]"#;
    let by_key = r#"--set=import.names=[{file="entity2text.txt",join="key"}]"#;
    for (name, content, more, says) in [
        ("train2id.txt", &b"1\n0 1\n"[..], "-q", "train2id.txt: line 2: expected 3 columns, found 2"),
        ("train2id.txt", b"9\n0 1 0\n", "-q", "line 1: the count line says 9, but 1 lines follow"),
        ("test2id.txt", b"0\n", "-q", "test2id.txt: holds no triples"),
        ("entity2id.txt", b"a\t0\nb\t0\n", "-q", "entity2id.txt: line 2: id 0 was given on line 1"),
        ("entity2text.txt", b"a Alpha\n", "-q", "entity2text.txt: line 1: expected key<TAB>text"),
        ("entity2text.txt", b"a\tok\nb\t\xff\n", "-q", "entity2text.txt: line 2: not valid UTF-8"),
        ("entity2text.txt", b"a\tA\n", by_id, "entity2text.txt: line 1: expected an id, found `a`"),
        ("entity2text.txt", b"0\tA\n7\tB\n", by_id, "line 2: id 7 is out of range 0..4"),
        ("entity2text.txt", b"q\tA\n", by_key, "joined by \"key\", nothing is found: no `q`"),
    ] {
        fails(&[(name, content)], &[more], 65, says);
    }
    fails(&[], &["--format", "ids"], 65, "is the format `openke`?");
}

#[test]
fn what_is_missing_exits_with_66() {
    for (set, says) in [
        ("--set=import.train=nowhere.txt", "nowhere.txt: no such file"),
        ("--set=import.entities=map", "map: no such file"),
        ("--set=import.images=nowhere", "nowhere: no such folder"),
        (r#"--set=import.names=[{file="nowhere.txt"}]"#, "nowhere.txt: no such file"),
    ] {
        fails(&[], &[set], 66, says);
    }
    let lab = ring(&[]);
    std::fs::remove_file(lab.raw().join("test2id.txt")).unwrap();
    lab.ends(&[], 66, &["no test triples here", "hint: looked for test.tsv, test2id.txt"]);
    std::fs::remove_dir_all(lab.raw()).unwrap();
    lab.ends(&[], 66, &[]);
}

#[test]
fn a_wrong_call_exits_with_2_and_help_says_what_is_right() {
    fails(&[], &["--raw", "/nowhere"], 2, "cannot be used multiple times");
    fails(&[], &["--validation", "half"], 2, "is not a validation");
    fails(&[], &["--format", "csv"], 2, "use auto, openke, ids or named");
    fails(&[], &["--set", "import.trian=x"], 2, "`import.trian`: no such key");
    ends(&program(&["--run", "r"]), 2, &[]);
    let help = ["--raw <DIR>", "--validation <HOW>", "holdout:FRACTION", "Exit codes", "Example"];
    ends(&program(&["--help"]), 0, &help);
}
