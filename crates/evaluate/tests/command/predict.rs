//! `dsom-predict`.

use mkg::Split;
use serde_json::Value;

use crate::fixture::{Lab, fails, succeeds};

#[test]
fn a_question_by_name_leaves_out_what_is_known() {
    let lab = Lab::new();
    let printed = succeeds(&lab.predict(&["france", "Borders", "--top", "2"]));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "France · borders · ?");
    let best: Vec<&str> = lines[3].split_whitespace().collect();
    // The test split's answer, found without the test split: the softmax of three ones and three zeros.
    assert_eq!(best, ["1", "Georgia", "Q3", "1.0000", "24.37", "%"], "{printed}");
    assert_eq!(lines.len(), 6, "{printed}");
    assert!(lines[5].starts_with("left out: 2 known"), "{printed}");
}

#[test]
fn answers_are_json_lines() {
    let lab = Lab::new();
    let printed =
        succeeds(&lab.predict(&["Q1", "P0", "--inverse", "--include-known", "--json", "--top", "3"]));
    let answers: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 3);
    assert_eq!((&answers[0]["key"], &answers[0]["known"]), (&"Q0".into(), &true.into()));
    assert_eq!((&answers[0]["rank"], &answers[0]["score"]), (&1.into(), &1.0.into()));
    assert_eq!(answers[1]["known"], false);
}

#[test]
fn the_test_split_is_not_opened() {
    let lab = Lab::new();
    std::fs::remove_file(lab.run().graph().join(Split::Test.file())).unwrap();
    succeeds(&lab.predict(&["Q0", "borders"]));
    succeeds(&lab.predict(&["Q0", "borders", "--model", "structural"]));
}

#[test]
fn names_that_do_not_decide_are_refused() {
    let lab = Lab::new();
    let log = fails(&lab.predict(&["georgia", "borders"]), 2);
    assert!(log.contains("Georgia (Q3), Georgia (Q4)") && log.contains("give the entity's key"), "{log}");
    let log = fails(&lab.predict(&["Belgum", "borders"]), 2);
    assert!(log.contains("did you mean: Belgium (Q2)"), "{log}");
    let log = fails(&lab.predict(&["Belgium", "twin"]), 2);
    assert!(log.contains("did you mean: twin of (P1)"), "{log}");
    let log = fails(&lab.predict(&["Belgium", "borders", "--model", "teacher"]), 2);
    assert!(log.contains("there are: student, structural"), "{log}");
}
