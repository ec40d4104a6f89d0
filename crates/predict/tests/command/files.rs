//! Many questions, and triples to score, in files.

use serde_json::{Value, json};

use crate::lab::{Lab, fails, succeeds, text};

const QUESTIONS: &str = "head\trelation\ttail\nFrance\tborders\n\nQ0\t\tQ1\n?\ttwin of\tQ4\r\nQ6\tP0\t?\n";

#[test]
fn many_questions_have_the_answers_of_as_many_calls() {
    let lab = Lab::new();
    let file = lab.file("questions.tsv", QUESTIONS);
    let together = lab.json(&["--questions", &file]);
    let calls = [&["Q0", "P0"][..], &["Q0", "?", "Q1"], &["?", "P1", "Q4"], &["Q6", "P0"]];
    let alone = calls.iter().enumerate().flat_map(|(i, words)| {
        let number = move |mut row: Value| {
            row["question"] = (i + 1).into();
            row
        };
        lab.json(words).into_iter().map(number)
    });
    assert_eq!(together, alone.collect::<Vec<_>>());
    let piped = lab.call("dsom-predict", &["--questions", "-", "--json"], QUESTIONS);
    assert_eq!(succeeds(&piped).lines().count(), together.len());
    let lines =
        ["{\"head\":\"Q0\",\"relation\":\"P0\"}", "{\"head\":\"Q0\",\"relation\":null,\"tail\":\"Q1\"}"];
    let file = lab.file("questions.jsonl", &lines.join("\n"));
    assert_eq!(lab.json(&["--questions", &file]), together[..6]);
}

#[test]
fn rows_that_cannot_be_understood_are_counted_and_the_first_ones_shown() {
    let lab = Lab::new();
    let wrong =
        "Frnace\tborders\nQ0\tP0\nQ0\tborder\nQ0\n?\t?\tQ0\nQ0\tP0\tQ1\n".to_owned() + &"x\ty\n".repeat(3);
    let file = lab.file("wrong.tsv", &wrong);
    let call = lab.predict(&["--questions", &file, "--output", &lab.name("out.tsv")]);
    let said = [
        "wrong.tsv: 8 of 9 rows cannot be understood",
        "line 1: head: no entity is called `Frnace`; did you mean: France (Q0)",
        "line 3: relation: no relation is called `border`; did you mean: borders (P0)",
        "line 4: 1 cells",
        "line 5: two places must be known",
        "line 6: nothing is asked for",
        "and 3 more",
    ];
    fails(&call, 65, &said);
    assert!(!lab.path("out.tsv").exists());
    let file = lab.file("wrong.jsonl", "{\"head\": \"Q0\", \"relatoin\": \"P0\"}\n[1]\n");
    fails(&lab.predict(&["--questions", &file]), 65, &["line 1: unknown field `relatoin`", "line 2: "]);
    fails(&lab.predict(&["--questions", &lab.file("none", "")]), 65, &["no row"]);
    fails(&lab.predict(&["--questions", "nowhere.tsv"]), 66, &[]);
}

#[test]
fn given_triples_are_scored_and_ranked() {
    let lab = Lab::new();
    // France itself scores highest. The first is known, and tied with the second; the third is tied with others.
    let file = lab.file("triples.tsv", "France\tborders\tSpain\nQ0\tP0\tQ3\nQ3\tP1\tQ1\n");
    let rows = lab.json(&["--score", &file]);
    let figures = |row: &Value| (row["rank"].as_f64(), row["score"].as_f64(), row["known"].as_bool());
    assert_eq!(figures(&rows[0]), (Some(2.5), Some(1.0), Some(true)));
    assert_eq!(figures(&rows[1]), (Some(2.0), Some(1.0), Some(false)));
    assert_eq!(rows[2]["rank"].as_f64().unwrap().fract(), 0.5, "{}", rows[2]);
    let printed = succeeds(&lab.predict(&["--score", &file]));
    let cells: Vec<&str> = printed.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!(cells[..5], ["France", "borders", "Spain", "2.5", "known"], "{printed}");
    fails(&lab.predict(&["--score", &lab.file("two", "Q0\tP0\n")]), 65, &["must all be given"]);
}

#[test]
fn hostile_names_stay_in_their_cells() {
    let lab = Lab::new();
    let file = lab.file("q.tsv", "Q6\tP0\t\nQ1\tP0\n");
    let output = lab.predict(&["--questions", &file, "--output", &lab.name("out.tsv")]);
    assert_eq!(succeeds(&output), "");
    assert!(text(&output.stderr).contains("left out: 2 known"));
    let lines = std::fs::read_to_string(lab.path("out.tsv")).unwrap();
    assert!(lines.lines().all(|line| line.split('\t').count() == 12), "{lines}");
    assert!(lines.contains("\tQ6\ttab\\tline\\nescape\\u001b[31m %\t"), "{lines}");
    let table = succeeds(&lab.predict(&["Q6", "P0"]));
    assert!(table.starts_with("tab\\tline\\nescape\\u001b[31m % · borders · ?\n"), "{table}");
    assert_eq!(lab.json(&["Q6", "P0"])[0]["head_name"], json!("tab\tline\nescape\u{1b}[31m %"));
}

#[test]
fn parquet_has_the_same_rows() {
    let lab = Lab::new();
    let file = lab.file("q.tsv", QUESTIONS);
    succeeds(&lab.predict(&["--questions", &file, "--output", &lab.name("out.parquet")]));
    let (expected, mut rows) = (lab.json(&["--questions", &file]), 0);
    mkg::graph::for_each_batch(&lab.path("out.parquet"), |batch| {
        let keys = mkg::graph::texts(batch, "tail_key")?;
        let scores = mkg::graph::numbers::<arrow::datatypes::Float32Type>(batch, "score")?;
        for (i, expected) in expected.iter().enumerate() {
            assert_eq!(keys.value(i), expected["tail_key"].as_str().unwrap());
            assert_eq!(scores.value(i), expected["score"].as_f64().unwrap() as f32);
        }
        rows += batch.num_rows();
        Ok(())
    })
    .unwrap();
    assert_eq!(rows, expected.len());
    fails(&lab.predict(&["Q0", "P0", "--format", "parquet"]), 2, &["--output"]);
}
