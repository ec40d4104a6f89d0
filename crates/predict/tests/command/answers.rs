//! One question on the command line.

use dsom_tests::ends;
use mkg::{Split, Triple};
use serde_json::json;

use crate::lab::{Lab, succeeds, text};
use crate::triples;

#[test]
fn a_question_by_name_leaves_out_what_is_known_and_who_is_asked_about() {
    let lab = Lab::new();
    let printed = succeeds(&lab.predict(&["france", "Borders", "--top", "2"]));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "France · borders · ?");
    let best: Vec<&str> = lines[3].split_whitespace().collect();
    // The test split's answer, found without the test split: the softmax of 2, three times 1, two times 0, and -1.
    assert_eq!(best[..5], ["1", "Georgia", "Q3", "1.0000", "15.18"], "{printed}");
    assert!(lines[5].starts_with("left out: 2 known"), "{printed}");
    assert!(lines[6].starts_with("left out: France itself") && lines.len() == 7, "{printed}");
    let printed = succeeds(&lab.predict(&["france", "Borders", "--top", "2", "--loops"]));
    assert!(printed.lines().nth(3).unwrap().contains("France") && !printed.contains("itself"), "{printed}");
}

/// The keys of the answers, which are tails.
fn tails(lab: &Lab, words: &[&str]) -> Vec<String> {
    lab.json(words).iter().map(|row| row["tail_key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_relation_with_a_loop_in_train_may_answer_with_one() {
    let lab = Lab::new();
    assert!(tails(&lab, &["Q3", "P1"]).contains(&"Q3".to_owned()));
    let keys = tails(&lab, &["Q1", "P0"]);
    assert!(!keys.contains(&"Q1".to_owned()) && keys.len() == 5, "{keys:?}");
}

#[test]
fn every_place_can_be_asked_for() {
    let lab = Lab::new();
    let heads = lab.json(&["Q1", "P0", "--inverse", "--include-known", "--top", "3"]);
    assert_eq!((heads.len(), heads[0]["asked"].as_str()), (3, Some("head")));
    assert_eq!((&heads[0]["head_key"], &heads[0]["known"]), (&json!("Q0"), &json!(true)));
    assert_eq!((&heads[0]["rank"], &heads[0]["score"]), (&json!(1.0), &json!(1.0)));
    assert_eq!(heads, lab.json(&["?", "borders", "Spain", "--include-known", "--top", "3"]));
    let relation = &lab.json(&["Laos", "?", "France"])[0];
    assert_eq!((&relation["asked"], &relation["relation_name"]), (&json!("relation"), &json!("twin of")));
    assert_eq!(lab.json(&["Q0", "?", "Q1"])[0]["relation_key"], "P1");
    assert_eq!(lab.json(&["Q0", "?", "Q1", "--include-known"])[0]["relation_key"], "P0");
    ends(&lab.predict(&["Q0", "P0", "Q1"]), 2, &["nothing is asked for"]);
    ends(&lab.predict(&["?", "P0", "?"]), 2, &["two places"]);
}

#[test]
fn candidates_are_those_of_a_file_or_those_the_relation_has_had() {
    let lab = Lab::new();
    let file = lab.file("some", "Q5\nBelgium\nQ3\n");
    assert_eq!(tails(&lab, &["Q0", "P0", "--candidates", &file]), ["Q3", "Q5"]);
    assert_eq!(tails(&lab, &["Q0", "P0", "--range", "--include-known", "--loops"]), ["Q0", "Q1", "Q2"]);
    let probability = |more: &[&str]| lab.json(&[&["Q0", "P0"], more].concat())[0]["probability"].clone();
    assert_eq!(probability(&[]), probability(&["--candidates", &file]));
    let file = lab.file("typo", "Q5\nBelgum\n");
    let said = "line 2: no entity is called `Belgum`; did you mean: Belgium (Q2)";
    ends(&lab.predict(&["Q0", "P0", "--candidates", &file]), 65, &[said]);
    ends(&lab.predict(&["Q0", "?", "Q1", "--range"]), 2, &["asks for a relation"]);
}

#[test]
fn what_train_does_not_have_is_a_guess_and_says_so() {
    let lab = Lab::new();
    let log = text(&lab.predict(&["Laos", "rules"]).stderr);
    for name in ["Laos", "rules"] {
        assert!(log.contains(&format!("`{name}` is in no training triple")), "{log}");
    }
    let log = text(&lab.predict(&["Q3", "P1"]).stderr);
    assert!(log.contains("1 of the answers are in no training triple"), "{log}");
    assert_eq!(text(&lab.predict(&["Q3", "P1", "--range"]).stderr), "");
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
    for (words, said) in [
        (&["georgia", "borders"][..], &["Georgia (Q3), Georgia (Q4)", "give the entity's key"][..]),
        (&["Belgum", "borders"], &["did you mean: Belgium (Q2)"]),
        (&["Belgium", "twin"], &["did you mean: twin of (P1)"]),
        (&["Belgium", "borders", "--model", "teacher"], &["there are: student, structural"]),
    ] {
        ends(&lab.predict(words), 2, said);
    }
}

#[test]
fn a_model_of_another_graph_is_refused() {
    let lab = Lab::new();
    let [mut train, valid, test] = Split::ALL.map(triples);
    train.push(Triple::new(2, 2, 3));
    lab.import([train, valid, test]);
    ends(&lab.predict(&["Q0", "borders"]), 65, &["made from another graph", "graph/train.parquet"]);
}

#[test]
fn an_answer_is_explained_by_ranks_policy_and_like_facts() {
    let lab = Lab::new();
    lab.add_alike();
    let why = |words: &[&str]| lab.json(&[words, &["--why", "--model", "student-alike"]].concat());
    let row = &why(&["Q1", "P0"])[0];
    // The blank teacher ties all six candidates. All facts of train except the answer itself are equally similar.
    assert_eq!((&row["tail_key"], &row["why"]["ranks"]), (&json!("Q0"), &json!([["structural", 3.5, 5]])));
    let facts = json!([["Q0", "P0", "Q1"], ["Q0", "P0", "Q2"], ["Q6", "P0", "Q0"]]);
    assert_eq!(row["why"]["facts"], facts);
    assert_eq!(row["why"]["policy"], json!([["structural", 0.75], ["textual", 0.25]]));
    // For an inverse, the facts have the same direction, and the policy was not asked this query.
    let row = &why(&["?", "P0", "Q2", "--include-known"])[0];
    assert_eq!((&row["head_key"], &row["known"]), (&json!("Q0"), &json!(true)));
    assert_eq!(row["why"]["facts"], json!([["Q6", "P0", "Q0"], ["Q0", "P0", "Q1"]]));
    assert_eq!(row["why"]["policy"], json!(null));
    let printed = succeeds(&lab.predict(&["Q1", "P0", "--why", "--model", "student-alike"]));
    for words in [
        "policy: structural 75 %, textual 25 % (of 2 strategies)",
        "France · borders · Spain (France like Spain 1.00, Spain like France 1.00)",
    ] {
        assert!(printed.contains(words), "{printed}");
    }
    let ranks = lab.json(&["Q1", "P0", "--why", "--model", "structural"])[0]["why"]["ranks"].clone();
    assert_eq!(ranks, json!([["structural", 3.5, 5]]));
}

#[test]
fn only_answers_that_are_entities_are_explained() {
    let lab = Lab::new();
    ends(&lab.predict(&["Q0", "?", "Q1", "--why"]), 2, &["--why explains answers"]);
    ends(&lab.predict(&["Q1", "P0", "--why", "--format", "tsv"]), 2, &["--format json"]);
    assert!(succeeds(&lab.predict(&["Q1", "P0", "--why"])).contains("policy: none"));
}
