//! Entities that the graph does not have, by a text, an image or a vector.

use dsom_features::tokens::word_level;
use dsom_features::{FeatureTable, table};
use dsom_tests::ends;
use image::{Rgb, RgbImage};
use kge::Matrix;
use kge::checkpoint::NamedTensors;
use serde_json::Value;
use std::path::Path;
use std::sync::LazyLock;

use crate::NAMES;
use crate::lab::{Lab, succeeds, text};

/// Texts through a tiny BERT in a folder and through random weights; images through random weights, for a distance.
const RECIPE: &str = r#"
[features.textual]
from = "text"
fields = ["name"]
encoder = "BERT"
output = "cls"
[features.words]
from = "text"
fields = ["name"]
encoder = "random"
[features.visual]
from = "images"
encoder = "random"
[teachers]
rank = 4
epochs = 3
absent = "learned"
modality.visual.backbone = "transe"
"#;

/// A run with teachers of these modalities, made once.
static LAB: LazyLock<Lab> = LazyLock::new(|| {
    let lab = Lab::new();
    let recipe = RECIPE.replace("BERT", &bert(&lab.path("bert")));
    let (run, recipe) = (lab.run(), lab.file("recipe.toml", &recipe));
    std::fs::create_dir(lab.path("images")).unwrap();
    for (name, colour) in [("00", [255, 0, 0]), ("01", [0, 0, 255]), ("11", [9, 200, 9])] {
        RgbImage::from_pixel(60, 40, Rgb(colour)).save(lab.path(&format!("images/{name}.png"))).unwrap();
    }
    for (program, more) in [("dsom-features", &["--images", &lab.name("images")][..]), ("dsom-teachers", &[])]
    {
        let mut command = dsom_tests::program(program);
        let command = command.arg("--run").arg(run.root()).args(["--recipe", &recipe]).args(more);
        succeeds(&command.output().unwrap());
    }
    lab
});

/// Puts the tiny BERT of the golden files into a folder, with a tokenizer for the entities' names.
fn bert(folder: &Path) -> String {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/encoders/bert");
    std::fs::create_dir(folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden.join(file), folder.join(file)).unwrap();
    }
    let tokenizer = word_level(&NAMES.map(str::to_owned)).unwrap();
    tokenizer.save(folder.join("tokenizer.json"), false).unwrap();
    folder.to_str().unwrap().to_owned()
}

/// Asserts that a description of the entity called `name` gets the same answers as the entity, as heads or as tails.
fn assert_same(teacher: &str, name: &str, words: &[&str], inverse: bool) {
    let all = ["--model", teacher, "--include-known", "--loops", "--top", "9", "--inverse"];
    let all = &all[..all.len() - usize::from(!inverse)];
    let by_name = LAB.json(&[&[name, "borders"], all].concat());
    let unseen = LAB.json(&[&["--relation", "P0"], all, words].concat());
    assert_eq!((unseen.len(), by_name.len()), (NAMES.len(), NAMES.len()));
    let number = |row: &Value, field: &str| row[field].as_f64().unwrap();
    for (ours, theirs) in unseen.iter().zip(&by_name) {
        for field in ["score", "probability", "rank"] {
            let (ours, theirs) = (number(ours, field), number(theirs, field));
            assert!((ours - theirs).abs() < 1e-5, "{teacher} {field}: {ours}, by name {theirs}");
        }
    }
    assert!(by_name.windows(2).any(|rows| number(&rows[0], "score") > number(&rows[1], "score") + 1e-4));
}

#[test]
fn what_describes_an_entity_of_the_graph_gets_its_answers() {
    let vector = LAB.path("vector.safetensors");
    let features = LAB.run().features(&"textual".parse().unwrap()).join(table::FILE);
    let features = FeatureTable::read(&features, NAMES.len()).unwrap();
    let row = Matrix::from_values(1, features.width, features.row(1).to_vec());
    NamedTensors::default().matrix("row", &row).write(&vector).unwrap();
    let [first, second, vector, bert] =
        ["images/00.png", "images/01.png", "vector.safetensors", "bert"].map(|name| LAB.name(name));
    for inverse in [false, true] {
        assert_same("textual", "Spain", &["--text", " Spain", "--encoder", &bert], inverse);
        assert_same("textual", "Spain", &["--vector", &vector], inverse);
        assert_same("words", "Belgium", &["--text", "Belgium"], inverse);
        assert_same("visual", "France", &["--image", &first, "--image", &second], inverse);
    }
    // Only one teacher learned from images, so it need not be named; and the graph's filter does not know the entity.
    let output = LAB.predict(&["--image", &first, "--relation", "borders", "--top", "1"]);
    let printed = succeeds(&output);
    assert!(
        printed.starts_with(&format!("{first} · borders · ?")) && !printed.contains("left out"),
        "{printed}"
    );
    assert!(text(&output.stderr).contains("teacher `visual` places it by its features alone"));
}

#[test]
fn what_cannot_be_encoded_as_the_features_were_is_refused() {
    let refused = |words: &[&str], code: i32, said: &str| {
        ends(&LAB.predict(&[&["--relation", "P0"], words].concat()), code, &[said]);
    };
    let (other, image) = (LAB.name("other"), LAB.name("images/00.png"));
    if !LAB.path("other").exists() {
        bert(&LAB.path("other"));
    }
    let tokenizer = std::fs::read_to_string(LAB.path("other/tokenizer.json")).unwrap();
    std::fs::write(LAB.path("other/tokenizer.json"), tokenizer.replace("france", "gaul")).unwrap();
    refused(&["--text", "x"], 2, "name one with --model: textual, words");
    refused(&["--text", "x", "--model", "textual"], 2, "name it with --encoder");
    refused(
        &["--text", "x", "--model", "textual", "--encoder", &other],
        65,
        "encoder/tokenizer.json is another file",
    );
    refused(
        &["--text", "x", "--model", "textual", "--encoder", "random"],
        2,
        "`textual` was not made with random weights",
    );
    refused(&["--text", "x", "--model", "words", "--encoder", &other], 2, "--encoder has nothing to say");
    refused(&["--text", "  ", "--model", "words"], 2, "without a word");
    refused(&["--text", "x", "--model", "visual"], 2, "`visual` learned from images");
    refused(&["--image", &other, "--model", "visual"], 74, "other");
    refused(&["--image", &LAB.name("recipe.toml")], 65, "not an image");
    refused(&["--text", "x", "--model", "student"], 2, "`student` has no place for an entity");
    refused(&["--text", "x", "--model", "structural"], 2, "`structural` has no place for an entity");
    refused(&["--text", "x", "--image", &image], 2, "cannot be used with");
    ends(&LAB.predict(&["--text", "x"]), 2, &["--relation <RELATION>"]);
    ends(&LAB.predict(&["--relation", "P0"]), 2, &["--text <TEXT>"]);
}
