//! Questions and triples from files; and the model in files for other programs, read back.

use dsom_tests::ends;
use kge::complex::compose;
use kge::{Backbone, Matrix, Model, Scorer};
use mkg::Query;
use serde_json::{Value, json};

use crate::lab::{Lab, perfect, succeeds, text};

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
    let piped = lab.call("dsom-predict", &["--questions", "-", "--json"], &format!("\u{feff}{QUESTIONS}"));
    assert_eq!(succeeds(&piped).lines().count(), together.len());
    let lines =
        ["{\"head\":\"Q0\",\"relation\":\"P0\"}", "{\"head\":\"Q0\",\"relation\":null,\"tail\":\"Q1\"}"];
    let file = lab.file("questions.JSONL", &lines.join("\n"));
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
    ends(&call, 65, &said);
    assert!(!lab.path("out.tsv").exists());
    let file = lab.file("wrong.jsonl", "{\"head\": \"Q0\", \"relatoin\": \"P0\"}\n[1]\n");
    let said = ["line 1: unknown field `relatoin`", "line 2: ", "; a line has one object"];
    ends(&lab.predict(&["--questions", &file]), 65, &said);
    ends(&lab.predict(&["--questions", &lab.file("none", "")]), 65, &["no row"]);
    ends(&lab.predict(&["--questions", "nowhere.tsv"]), 66, &[]);
}

#[test]
fn given_triples_are_scored_and_ranked() {
    let lab = Lab::new();
    // France itself scores highest. The first triple is known and tied with the second; the third is tied with others.
    let file = lab.file("triples.tsv", "France\tborders\tSpain\nQ0\tP0\tQ3\nQ3\tP1\tQ1\n");
    let rows = lab.json(&["--score", &file]);
    let figures = |row: &Value| (row["rank"].as_f64(), row["score"].as_f64(), row["known"].as_bool());
    assert_eq!(figures(&rows[0]), (Some(2.5), Some(1.0), Some(true)));
    assert_eq!(figures(&rows[1]), (Some(2.0), Some(1.0), Some(false)));
    assert_eq!(rows[2]["rank"].as_f64().unwrap().fract(), 0.5, "{}", rows[2]);
    let printed = succeeds(&lab.predict(&["--score", &file]));
    let cells: Vec<&str> = printed.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!(cells[..5], ["France", "borders", "Spain", "2.5", "known"], "{printed}");
    ends(&lab.predict(&["--score", &lab.file("two", "Q0\tP0\n")]), 65, &["must all be given"]);
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
    succeeds(&lab.predict(&["--questions", &file, "--output", &lab.name("out.PARQUET")]));
    let (expected, mut rows) = (lab.json(&["--questions", &file]), 0);
    mkg::graph::for_each_batch(&lab.path("out.PARQUET"), |batch| {
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
    ends(&lab.predict(&["Q0", "P0", "--format", "parquet"]), 2, &["--output"]);
    let printed = [&["Q0", "P0", "--json"][..], &["Q0", "P0", "--json", "--output", "-"]];
    let [plain, dashed] = printed.map(|arguments| succeeds(&lab.predict(arguments)));
    assert_eq!(plain, dashed, "standard output");
    let call = lab.predict(&["Q0", "P0", "--output", &lab.name("out.csv")]);
    ends(&call, 2, &["no format has names in .csv", "give --format"]);
    assert!(!lab.path("out.csv").exists());
}

/// Reads a matrix from NumPy's format.
fn npy(bytes: &[u8]) -> Matrix<f32> {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(start % 64 == 0 && header.ends_with('\n') && header.contains("'<f4'"), "{header}");
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let shape: Vec<usize> = shape.split(", ").map(|n| n.parse().unwrap()).collect();
    let values = bytes[start..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    Matrix::from_values(shape[0], shape[1], values.collect())
}

/// Reads words and numbers from word2vec's text.
fn word2vec(text: &str) -> (Vec<String>, Matrix<f32>) {
    let mut lines = text.lines();
    let shape: Vec<usize> = lines.next().unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
    let (mut words, mut values) = (Vec::new(), Vec::new());
    for line in lines {
        let mut cells = line.split(' ');
        words.push(cells.next().unwrap().to_owned());
        values.extend(cells.map(|cell| cell.parse::<f32>().unwrap()));
    }
    (words, Matrix::from_values(shape[0], shape[1], values))
}

#[test]
fn arrays_and_word2vec_have_the_same_scores() {
    let lab = Lab::new();
    succeeds(&lab.predict(&["--export", &lab.name("export")]));
    let bytes = |name: &str| std::fs::read(lab.path("export").join(name)).unwrap();
    let text = |name: &str| String::from_utf8(bytes(name)).unwrap();
    let arrays = Model::complex(npy(&bytes("entities.npy")), npy(&bytes("relations.npy")));
    let (entities, relations) = (word2vec(&text("entities.vec")), word2vec(&text("relations.vec")));
    assert_eq!(relations.0, ["P0", "P1", "P2", "P0⁻¹", "P1⁻¹", "P2⁻¹"]);
    let (model, words) = (perfect(), Model::complex(entities.1, relations.1));
    assert_eq!((&arrays, &words), (&model, &model));
    let query = Query { head: mkg::EntityId(5), relation: mkg::RelationId(1) };
    let mut scores = Matrix::default();
    arrays.scores(&[query], &mut scores);
    assert_eq!(scores.row(0)[0], 1.0);
    let keys = text("entities.tsv");
    assert_eq!(keys.lines().nth(7).unwrap(), "6\tQ6\ttab\\tline\\nescape\\u001b[31m %");
}

#[test]
fn pykeen_has_pairs_of_numbers_and_inverses_beside_their_relations() {
    let lab = Lab::new();
    succeeds(&lab.predict(&["--export", &lab.name("export")]));
    let bytes = std::fs::read(lab.path("export/pykeen/model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let table = |name: &str| -> Vec<f32> {
        let tensor = tensors.tensor(&format!("{name}_representations.0._embeddings.weight")).unwrap();
        tensor.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let (entity, relation, model) = (table("entity"), table("relation"), perfect());
    let width = model.width();
    // The real parts of a row, then its imaginary parts.
    let halves = |table: &[f32], row: usize| -> Vec<f32> {
        let row = &table[row * width..(row + 1) * width];
        row.iter().step_by(2).chain(row.iter().skip(1).step_by(2)).copied().collect()
    };
    assert_eq!(halves(&entity, 5), model.entity.row(5));
    // Relation 1 and its inverse, whose number here is 4.
    for (theirs, ours) in [(2, 1), (3, 4)] {
        let mut vectors = [vec![0.0; width], vec![0.0; width]];
        compose(&halves(&entity, 5), &halves(&relation, theirs), &mut vectors[0]);
        compose(model.entity.row(5), model.relation.row(ours), &mut vectors[1]);
        assert_eq!(vectors[0], vectors[1]);
    }
    let ids = std::fs::read_to_string(lab.path("export/pykeen/relation_to_id.tsv")).unwrap();
    assert_eq!(ids, "id\tlabel\n0\tP0\n1\tP1\n2\tP2\n");
    // An export of another model replaces the first completely.
    lab.student("student-real", &Model { backbone: Backbone::DistMult, ..perfect() });
    succeeds(&lab.predict(&["--model", "student-real", "--export", &lab.name("export")]));
    assert!(!lab.path("export/pykeen").exists());
}

#[test]
fn only_one_model_has_embeddings() {
    let lab = Lab::new();
    lab.teacher("textual", &perfect());
    let call = lab.predict(&["--model", "average", "--export", &lab.name("export")]);
    ends(&call, 2, &["`average` is made of 2 models"]);
    assert!(!lab.path("export").exists());
}
