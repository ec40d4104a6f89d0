//! One dataset that is right, and every way to be wrong with its exit code.

use mkg::graph::{Vocabulary, read_triples};
use serde_json::Value;
use std::path::Path;

use crate::{File, Lab, program};

/// A dataset of four entities in a ring.
const RING: [File; 6] = [
    ("entity2id.txt", b"4\na\t0\nb\t1\nc\t2\nd\t3\n"),
    ("relation2id.txt", b"1\nnextTo\t0\n"),
    ("train2id.txt", b"6\n0 1 0\n1 2 0\n2 3 0\n3 0 0\n0 2 0\n0 2 0\n"),
    ("valid2id.txt", b"1\n1 3 0\n"),
    ("test2id.txt", b"1\n2 0 0\n"),
    ("entity2text.txt", b"a\tAlpha\nb\tBeta\nzzz\tnobody\n"),
];

/// The ring, whose files `changes` replace or add to.
fn ring(changes: &[File]) -> Lab {
    Lab::of(&[&RING, changes].concat())
}

fn json(lab: &Lab, name: &str) -> Value {
    stage::files::read_json(&lab.graph().join(name)).unwrap()
}

/// With these files changed and arguments added, fails with this code and says this; nothing is written.
#[track_caller]
fn fails(changes: &[File], more: &[&str], code: i32, says: &str) {
    let lab = ring(changes);
    let ended = lab.import(more);
    ended.ends(code, &[says]);
    assert_eq!(ended.stdout, "");
    assert!(!lab.graph().exists(), "nothing is written before all is checked");
}

#[test]
fn a_dataset_becomes_a_graph() {
    let lab = ring(&[("images/a/1.png", b"x"), ("images/a/2.txt", b"x"), ("images/stranger/1.png", b"x")]);
    let printed = lab.import(&[]).succeeds();
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
    lab.import(&["-q"]).succeeds();
    let before = std::fs::read(lab.graph().join("stage.json")).unwrap();
    assert_eq!(lab.import(&[]).succeeds(), "", "a fresh graph is not audited again");
    assert_eq!(std::fs::read(lab.graph().join("stage.json")).unwrap(), before);
    lab.write("valid2id.txt", b"1\n3 1 0\n");
    let status = lab.import(&["--status"]).succeeds();
    assert!(status.contains("input `raw/valid2id.txt` changed"), "{status}");
    lab.import(&["-q"]).succeeds();
    assert!(lab.import(&["--status"]).succeeds().contains("fresh"));
}

#[test]
fn the_same_call_writes_the_same_bytes() {
    let outputs = |lab: Lab| {
        lab.import(&["-q", "--validation", "holdout:0.2", "--seed", "7"]).succeeds();
        json(&lab, "stage.json")["outputs"].clone()
    };
    let (first, second) = (outputs(ring(&[])), outputs(ring(&[])));
    assert_eq!(first.as_array().unwrap().len(), 6);
    assert_eq!(first[0]["path"], "audit.json");
    // The audit names the raw folder's own files only, so that even it is the same.
    assert_eq!(first, second);
}

#[test]
fn quiet_means_quiet() {
    let ended = ring(&[]).import(&["-q"]);
    ended.ends(0, &["lines of train repeat"]);
    assert_eq!((&*ended.stdout, &*ring(&[]).import(&["-qq"]).stderr), ("", ""));
}

#[test]
fn a_listing_stands_for_many_images() {
    let lab = ring(&[]);
    (0..2001).for_each(|image| lab.write(&format!("images/a/{image}.png"), b"x"));
    lab.import(&["-qq"]).succeeds();
    let manifest = json(&lab, "stage.json");
    assert_eq!(manifest["summary"]["images"], 2001);
    let inputs = manifest["inputs"].to_string();
    assert!(inputs.contains("raw/images/(listing)") && !inputs.contains("/7.png"), "{inputs}");
    lab.write("images/a/7.png", b"longer");
    assert!(lab.import(&["--status"]).succeeds().contains("`raw/images/(listing)` changed"));
}

#[test]
fn a_copied_validation_split_is_replaced() {
    let lab = ring(&[("valid2id.txt", b"1\n0 1 0\n")]);
    let printed = lab.import(&["--set", "import.holdout_fraction=0.2"]).succeeds();
    let warning =
        "100 % of the published validation triples stand in train: 20 % of train is held out instead";
    assert!(printed.contains(warning), "{printed}");
    assert_eq!(json(&lab, "audit.json")["validation"]["used"], "holdout:0.2");
    let published = ring(&[("valid2id.txt", b"1\n0 1 0\n")]);
    published.import(&["-q", "--validation", "published"]).succeeds();
    assert_eq!(json(&published, "stage.json")["summary"]["valid"], 1);
}

#[test]
fn wrong_content_exits_with_65_and_its_line() {
    fails(&[("train2id.txt", b"1\n0 1\n")], &[], 65, "train2id.txt: line 2: expected 3 columns, found 2");
    fails(&[("train2id.txt", b"1\n0 4 0\n")], &[], 65, "line 2: tail 4 is out of range 0..4");
    fails(&[("train2id.txt", b"1\n0 x 0\n")], &[], 65, "line 2: expected the id of the tail, found `x`");
    fails(&[("train2id.txt", b"9\n0 1 0\n")], &[], 65, "line 1: the count line says 9, but 1 lines follow");
    fails(&[("test2id.txt", b"0\n")], &[], 65, "test2id.txt: holds no triples");
    for (test, says) in [
        ("a\tfar\tb\n", "test2id.txt: line 1: relation `far` is not among the relations"),
        ("a\tnextTo\tq\n", "test2id.txt: line 1: tail `q` is not among the entities"),
    ] {
        let (train, valid): (File, File) =
            (("train2id.txt", b"a\tnextTo\tb\n"), ("valid2id.txt", b"b\tnextTo\ta\n"));
        fails(&[train, valid, ("test2id.txt", test.as_bytes())], &[], 65, says);
    }
    fails(&[("entity2id.txt", b"a\t0\nb\t0\n")], &[], 65, "entity2id.txt: line 2: id 0 was given on line 1");
    fails(
        &[("entity2id.txt", b"a\t0\nb\t2\n")],
        &[],
        65,
        "line 2: id 2 is out of range 0..2: the ids have holes",
    );
    fails(&[("entity2id.txt", b"a\t0\na\t1\n")], &[], 65, "line 2: key `a` has id 0 already");
    fails(&[("entity2text.txt", b"a Alpha\n")], &[], 65, "entity2text.txt: line 1: expected key<TAB>text");
    fails(&[], &["--format", "ids"], 65, "is the format `openke`?");
    let by_id = r#"import.names=[{file="entity2text.txt",join="id"}]"#;
    fails(&[], &["--set", by_id], 65, "entity2text.txt: line 1: expected an id, found `a`");
    fails(
        &[("entity2text.txt", b"0\tA\n7\tB\n")],
        &["--set", by_id],
        65,
        "line 2: id 7 is out of range 0..4",
    );
    let by_key = r#"import.names=[{file="entity2text.txt",join="key"}]"#;
    fails(
        &[("entity2text.txt", b"q\tA\n")],
        &["--set", by_key],
        65,
        "joined by \"key\", nothing is found: no `q`",
    );
    fails(&[("entity2text.txt", b"a\tok\nb\t\xff\n")], &[], 65, "entity2text.txt: line 2: not valid UTF-8");
}

#[test]
fn what_is_missing_exits_with_66() {
    fails(&[], &["--set", "import.train=nowhere.txt"], 66, "nowhere.txt: no such file");
    fails(&[], &["--set", "import.entities=map"], 66, "map: no such file");
    fails(&[], &["--set", "import.images=nowhere"], 66, "nowhere: no such folder");
    fails(&[], &["--set", r#"import.names=[{file="nowhere.txt"}]"#], 66, "nowhere.txt: no such file");
    fails(&[], &["--raw", "/nowhere"], 2, "cannot be used multiple times");
    let lab = ring(&[]);
    std::fs::remove_file(lab.raw().join("test2id.txt")).unwrap();
    lab.import(&[]).ends(66, &["no test triples here", "hint: looked for test.tsv, test2id.txt"]);
    std::fs::remove_dir_all(lab.raw()).unwrap();
    lab.import(&[]).ends(66, &[]);
}

#[test]
fn a_wrong_call_exits_with_2() {
    fails(&[], &["--validation", "half"], 2, "is not a validation");
    fails(&[], &["--format", "csv"], 2, "use auto, openke, ids or named");
    fails(&[], &["--set", "import.trian=x"], 2, "`import.trian`: no such key");
    program(&["--run", "r"]).ends(2, &[]);
}

#[test]
fn help_says_what_it_does() {
    program(&["--help"])
        .ends(0, &["--raw <DIR>", "--validation <HOW>", "holdout:FRACTION", "Exit codes", "Example"]);
}
