//! The readers of all files that other programs wrote or that may be damaged, for fuzzing and for the files that
//! fuzzing found. The bytes are written to a file, and a stage's reader reads it. The reader must return for all bytes.

use dsom_features::checkpoint::Checkpoint;
use dsom_features::decode::{ImageFolder, decode};
use dsom_features::text::TOKENIZER;
use dsom_features::{FeatureTable, given};
use dsom_soft_labels::SoftLabels;
use kge::checkpoint::TensorReader;
use kge::{Matrix, Model, Scorer};
use mkg::graph::{self, Entity, Relation};
use mkg::raw::{Dataset, Plan, SplitTriples};
use mkg::{EntityId, Triple, Vocabulary};
use recipe::{Recipe, Training, UnknownKeys};
use stage::manifest::{self, Manifest};
use stage::{Modality, Result, Run, files};
use std::io::Write;
use std::path::Path;
use training::{Data, Engine};

/// A kind of file, and its reader.
pub struct UntrustedFile {
    /// The name of the kind, and of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// The file names that the bytes get, one after the other.
    files: &'static [&'static str],
    read: fn(&Path) -> Result<()>,
}

impl UntrustedFile {
    /// All kinds of untrusted files.
    pub const ALL: [UntrustedFile; 14] = [
        UntrustedFile { name: "triples", files: &["train.tsv"], read: dataset_of_keys },
        UntrustedFile { name: "ids", files: &["train.tsv"], read: dataset_of_ids },
        UntrustedFile { name: "maps", files: &["entity2id.txt", "entities.tsv"], read: dataset_of_ids },
        UntrustedFile { name: "texts", files: &TEXTS, read: dataset_of_ids },
        UntrustedFile { name: "recipe", files: &["recipe.toml"], read: recipe },
        UntrustedFile { name: "given", files: &["x.npy", "x.npz", "x.pt", "x.safetensors"], read: rows },
        UntrustedFile { name: "archived", files: &["x"], read: rows_in_archive },
        UntrustedFile { name: "tokenizer", files: &[TOKENIZER], read: tokenizer },
        UntrustedFile { name: "image", files: &["image"], read: image },
        UntrustedFile { name: "manifest", files: &[manifest::FILE], read: manifest },
        UntrustedFile {
            name: "tables",
            files: &[graph::ENTITIES, graph::RELATIONS, "train.parquet"],
            read: tables,
        },
        UntrustedFile { name: "tensors", files: &["model.safetensors"], read: tensors },
        UntrustedFile { name: "checkpoint", files: &[manifest::CHECKPOINT], read: checkpoint },
        UntrustedFile { name: "soft-labels", files: &["part-00000.parquet"], read: soft_labels },
    ];

    /// Reads `bytes` as a file of this kind.
    ///
    /// # Panics
    /// If the reader has a bug.
    pub fn read(&self, bytes: &[u8]) {
        for name in self.files {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("a temporary file");
            // An error is as acceptable as a result.
            let _ = (self.read)(&path);
        }
    }
}

/// The files of a small dataset with texts from every kind of source.
const DATASET: [(&str, &str); 11] = [
    ("train.tsv", "a\tr\tb\nb\ts\tc\nc\tr\ta\n"),
    ("valid.tsv", "b\tr\tc\n"),
    ("test.tsv", "c\ts\tb\n"),
    ("entity2id.txt", "3\na 0\nb 1\nc 2\n"),
    ("relation2id.txt", "2\nr 0\ns 1\n"),
    ("names.txt", "a\tA\nb\tB\n"),
    ("other.txt", "0\tof a\n1\tof b\n"),
    ("other2id.txt", "x 0\ny 1\n"),
    ("links.txt", "x <SameAs> a .\ny b\n"),
    ("texts.json", r#"{"1": {"of": "a", "text": "A"}, "2": {"of": "b", "text": null}}"#),
    ("tokens.json", r#"{"a": [0, 1, 2]}"#),
];
/// The files with texts, and the vocabulary of the token ids.
const TEXTS: [&str; 7] =
    ["names.txt", "other.txt", "other2id.txt", "links.txt", "texts.json", "tokens.json", "vocab.txt"];
const TABLES: [(&str, &[u8]); 2] = [
    (graph::ENTITIES, include_bytes!("../../fuzz/corpus/tables/entities")),
    (graph::RELATIONS, include_bytes!("../../fuzz/corpus/tables/relations")),
];
const IMPORT: &str = r#"
    names = [{ file = "names.txt" }]
    descriptions = [
        { file = "other.txt", ids = "other2id.txt", via = "links.txt" },
        { file = "texts.json", field = "text", key_field = "of" },
    ]
    captions = [{ file = "tokens.json", vocabulary = "vocab.txt" }]
"#;

fn dataset_of_ids(path: &Path) -> Result<()> {
    dataset(path, IMPORT, &DATASET)
}

fn dataset_of_keys(path: &Path) -> Result<()> {
    dataset(path, "", &DATASET[..3])
}

/// Imports the dataset in which one file is `path`.
fn dataset(path: &Path, import: &str, others: &[(&str, &str)]) -> Result<()> {
    let folder = path.parent().expect("a folder");
    for (name, text) in others.iter().chain(&[("vocab.txt", "[CLS]\nfall\n##en\n")]) {
        if !path.ends_with(name) {
            std::fs::write(folder.join(name), text).expect("a temporary file");
        }
    }
    let import = toml::from_str(import).expect("a recipe's table");
    let dataset = Dataset::read(&Plan::resolve(folder, &import)?)?;
    let parts = SplitTriples::choose(&dataset, &import, 0)?;
    mkg::audit::Audit::new(&dataset, &parts);
    Ok(())
}

/// Reads a recipe, which must stay the same when it is written and read again; and its lines as overrides.
fn recipe(path: &Path) -> Result<()> {
    let sets = files::read_text(path)?.lines().map(str::to_owned).collect::<Vec<_>>();
    let _ = Recipe::load(&[], &sets);
    let recipe = Recipe::load(&[path.to_owned()], &[])?;
    let written = toml::to_string(&recipe).expect("a recipe is plain data");
    files::write_bytes(path, written.as_bytes())?;
    let again = Recipe::load(&[path.to_owned()], &[]).expect("a recipe");
    assert_eq!(toml::to_string(&again).expect("a recipe is plain data"), written);
    Ok(())
}

fn rows(path: &Path) -> Result<()> {
    let entities = vocabulary().entities;
    let mapping = given::Mapping { keys: None, unknown: UnknownKeys::Skip, zero_is_absent: true };
    let _ = given::read(path, given::Wanted { tensor: Some("x"), keyed: true });
    let rows = given::read(path, given::Wanted::default())?;
    given::join(&rows, path, mapping, &entities)?.check()
}

/// Reads the bytes as an array in an archive and as the pickle in one: random bytes alone are not an archive.
fn rows_in_archive(path: &Path) -> Result<()> {
    let bytes = files::read_bytes(path)?;
    let numbers: Vec<u8> = (0..24u8).collect();
    for members in
        [[("x.npy", bytes.as_slice()), ("y", &[])], [("a/data.pkl", &bytes), ("a/data/0", &numbers)]]
    {
        let mut archive = zip::ZipWriter::new(std::fs::File::create(path).expect("a temporary file"));
        for (name, bytes) in members {
            archive.start_file(name, zip::write::SimpleFileOptions::default()).expect("a member");
            archive.write_all(bytes).expect("a temporary file");
        }
        archive.finish().expect("an archive");
        for extension in ["npz", "pt"] {
            let of_format = path.with_extension(extension);
            std::fs::copy(path, &of_format).expect("a temporary file");
            let _ = rows(&of_format);
        }
    }
    Ok(())
}

fn tokenizer(path: &Path) -> Result<()> {
    let folder = path.parent().expect("a folder");
    for name in ["config.json", "model.safetensors"] {
        files::write_bytes(&folder.join(name), b"{}")?;
    }
    let checkpoint = Checkpoint::open(folder, &[TOKENIZER])?;
    dsom_features::text::tokenizer(&checkpoint).map(drop)
}

fn image(path: &Path) -> Result<()> {
    let folder = ImageFolder::open(path.parent().expect("a folder"))?;
    folder.read("image")?.and_then(|bytes| decode(&bytes)).map(drop).map_err(stage::Error::data)
}

fn manifest(path: &Path) -> Result<()> {
    let folder = path.parent().expect("a folder");
    let run = Run::new(folder);
    let manifest = Manifest::read(folder)?;
    let _ = (manifest.stale(&run), manifest.require_same_graph(&run, folder), manifest::verify(folder));
    manifest.summary_field::<Vec<Modality>>(folder, "teachers").map(drop)
}

fn tables(path: &Path) -> Result<()> {
    let folder = path.parent().expect("a folder");
    for (name, bytes) in TABLES {
        if !path.ends_with(name) {
            std::fs::write(folder.join(name), bytes).expect("a temporary file");
        }
    }
    let _ = graph::read_triples(path, 3, 2);
    Vocabulary::read(folder).map(drop)
}

fn tensors(path: &Path) -> Result<()> {
    let _ = FeatureTable::read(path, 3);
    let model = Model::from_reader(&TensorReader::open(path)?, 3, 2)?;
    let mut scores = Matrix::zeros(0, 0);
    model.scores(data().queries.queries(), &mut scores);
    Ok(())
}

/// Continues a training from a checkpoint. Stages check a checkpoint's digest first, which random bytes never match.
fn checkpoint(path: &Path) -> Result<()> {
    let (reader, data) = (TensorReader::open(path)?, data());
    let _ = TensorReader::open_checked(path);
    let training = Training { rank: 2, ..Training::default() };
    let initial = training::initial("teacher", 0, &training, &data, None);
    let mut engine = training::on_cpu(initial, &training, training::precision(training.precision));
    Engine::restore(&mut engine, &reader, "teacher")?;
    Engine::require_finite(&mut engine)?;
    Engine::valid_ranks(&mut engine, &data).map(drop)
}

fn soft_labels(path: &Path) -> Result<()> {
    let (data, modality) = (data(), "structural".parse::<Modality>()?);
    let labels = SoftLabels::map(&[path.to_owned()], vec![modality], &data)?;
    let mut row = vec![0.0; data.entities()];
    for query in 0..data.queries.len() {
        labels.fill(query, 0, 1.0, &mut row);
        let _ = labels.score(query, 0, EntityId(2));
    }
    labels.vectors(0);
    Ok(())
}

fn vocabulary() -> Vocabulary {
    let entity = |key: &str| Entity { key: key.to_owned(), ..Entity::default() };
    let relation = |key: &str| Relation { key: key.to_owned(), name: None };
    Vocabulary { entities: ["a", "b", "c"].map(entity).into(), relations: ["r", "s"].map(relation).into() }
}

fn data() -> Data {
    let (train, valid) = ([(0, 0, 1), (1, 1, 2), (2, 0, 0)], vec![Triple::new(1, 0, 2)]);
    let train = train.map(|(head, relation, tail)| Triple::new(head, relation, tail));
    Data::new(vocabulary(), &train, valid)
}
