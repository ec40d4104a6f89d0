//! The program itself: what it writes, refuses, skips and logs.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use candle_core::{Device, Tensor};
use dsom_features::FeatureTable;
use dsom_tests::{ends, wait_for};
use mkg::Vocabulary;
use mkg::graph::Entity;
use serde_json::{Value, json};
use stage::Run;
use stage::manifest::Manifest;
use stage::task::Task;
use std::path::{Path, PathBuf};
use std::process::Command;

mod encoders;

/// A run whose graph has four countries: three with texts, two with images of which one is damaged.
struct Fixture {
    dir: tempfile::TempDir,
}

fn country(key: &str, description: Option<&str>, images: &[&str]) -> Entity {
    Entity {
        key: key.into(),
        description: description.map(str::to_owned),
        images: images.iter().map(|image| (*image).to_owned()).collect(),
        ..Entity::default()
    }
}

fn countries() -> Vec<Entity> {
    vec![
        country("Q1", Some("a republic in central europe"), &["a.png"]),
        country("Q2", Some("an island state in the pacific"), &["damaged.png", "b.png"]),
        country("Q3", None, &[]),
        country("Q4", Some("a republic in west africa"), &[]),
    ]
}

const RECIPE: &str = r#"
seed = 7
[features.textual]
from = "text"
encoder = "random"
max_tokens = 4
[features.visual]
from = "images"
encoder = "random"
"#;

impl Fixture {
    fn new() -> Self {
        Fixture::of(countries(), json!({ "images_root": "images" }))
    }

    fn of(entities: Vec<Entity>, summary: Value) -> Self {
        let fixture = Fixture { dir: tempfile::tempdir().unwrap() };
        fixture.import(entities, summary, [0, 0, 255]);
        fixture.write("recipe.toml", RECIPE);
        fixture
    }

    /// Does the work of `dsom-import`; the second image has this colour.
    fn import(&self, entities: Vec<Entity>, summary: Value, colour: [u8; 3]) {
        let task = Task::new(&self.run(), "dsom-import", self.run().graph(), &json!({ "colour": colour }), 0);
        let (work, ()) = task.begin(true, || Ok(())).unwrap().unwrap();
        Vocabulary { entities, relations: Vec::new() }.write(&self.run().graph()).unwrap();
        std::fs::create_dir_all(work.path("images")).unwrap();
        for (name, colour) in [("a.png", [255, 0, 0]), ("b.png", colour)] {
            let image = image::RgbImage::from_pixel(60, 40, image::Rgb(colour));
            image.save(work.path("images").join(name)).unwrap();
        }
        std::fs::write(work.path("images/damaged.png"), "no image").unwrap();
        work.finish(summary).unwrap();
    }

    fn run(&self) -> Run {
        Run::new(self.path("run"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn prepared(&self, arguments: &[&str]) -> Command {
        let mut command = dsom_tests::program("dsom-features");
        command.arg("--run").arg(self.path("run")).arg("--recipe").arg(self.path("recipe.toml"));
        for name in ["DSOM_TEXT_MODEL", "DSOM_IMAGE_MODEL", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH"] {
            command.env_remove(name);
        }
        // The hub's cache belongs to the test, and nothing uses the network unless a test names a server.
        command.env("HF_HOME", self.path("hf")).env("HF_HUB_OFFLINE", "1");
        command.current_dir(self.dir.path()).args(arguments);
        command
    }

    /// Asserts that the program ends with this exit code and prints all `words`; returns its whole output.
    #[track_caller]
    fn says(&self, arguments: &[&str], code: i32, words: &[&str]) -> String {
        ends(&self.prepared(arguments).output().unwrap(), code, words)
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        self.says(arguments, 0, &[])
    }

    fn folder(&self, modality: &str) -> PathBuf {
        self.run().features(&modality.parse().unwrap())
    }

    /// The number of finished batches that unfinished work has kept.
    fn kept(&self, modality: &str) -> usize {
        let files = std::fs::read_dir(self.folder(modality)).into_iter().flatten().flatten();
        files.filter(|file| file.file_name().to_string_lossy().starts_with("batch-")).count()
    }

    fn table(&self, modality: &str) -> FeatureTable {
        FeatureTable::read(&self.folder(modality).join("features.safetensors"), 4).unwrap()
    }

    fn bytes(&self, modality: &str) -> Vec<u8> {
        std::fs::read(self.folder(modality).join("features.safetensors")).unwrap()
    }

    fn summary(&self, modality: &str) -> Value {
        Manifest::read(&self.folder(modality)).unwrap().summary
    }

    /// A recipe with one modality called `given`.
    fn given(&self, keys: &str) {
        self.write("recipe.toml", format!("[features.given]\nfrom = \"file\"\n{keys}\n"));
    }
}

#[test]
fn texts_and_images_become_features() {
    let fixture = Fixture::new();
    fixture.says(&[], 0, &["the text encoder has random weights, seed 7: it was never trained"]);
    assert_eq!(fixture.table("textual").present, [true, true, false, true]);
    assert_eq!(fixture.table("visual").present, [true, true, false, false]);
    let summary = fixture.summary("textual");
    let told =
        ["entities", "present", "coverage", "texts_truncated", "width"].map(|name| summary[name].as_f64());
    assert_eq!(told, [4.0, 3.0, 0.75, 3.0, 128.0].map(Some));
    let summary = fixture.summary("visual");
    assert_eq!([&summary["images_read"], &summary["images_unreadable"]], [2, 1]);
    assert!(summary["unreadable"][0].as_str().unwrap().starts_with("damaged.png: "), "{summary}");
    assert_eq!(summary["encoder"], "random weights, seed 7");
    let out = fixture.path("out");
    let fresh = ["features/textual is fresh", "features/visual is fresh"];
    fixture.says(&["--export", out.to_str().unwrap()], 0, &fresh);
    for modality in ["textual", "visual"] {
        let mut rows = 0;
        mkg::graph::for_each_batch(&out.join(format!("{modality}.parquet")), |batch| {
            rows += batch.num_rows();
            Ok(())
        })
        .unwrap();
        assert_eq!(rows, 4);
    }
}

#[test]
fn an_unreadable_image_is_listed_or_refused() {
    let fixture = Fixture::new();
    let strict = ["--modality", "visual", "--strict"];
    fixture.says(&strict, 65, &["damaged.png: unreadable image: not an image"]);
    fixture.says(&strict[..2], 0, &["unreadable image damaged.png: not an image"]);
    let list = std::fs::read_to_string(fixture.folder("visual").join("unreadable.tsv")).unwrap();
    assert_eq!(list, "damaged.png\tnot an image\n");
    fixture.says(&strict, 65, &["features/visual: unreadable image: damaged.png"]);
    assert_eq!(fixture.summary("visual")["images_read"], 2);
}

/// A file whose beginning cannot be read: the process's own memory.
#[cfg(target_os = "linux")]
#[test]
fn an_image_that_cannot_be_read_is_an_error_and_never_absent() {
    let entities = vec![country("Q1", None, &["status", "mem"])];
    let fixture = Fixture::of(entities, json!({ "images_root": "/proc/self" }));
    let only = ["--modality", "visual"];
    fixture.says(&only, 74, &["/proc/self/mem: Input/output error"]);
    assert!(!fixture.succeeds(&[&only[..], &["--status"]].concat()).contains("fresh"));
}

#[test]
fn the_same_seed_gives_the_same_bytes_whatever_the_threads() {
    let (one, two) = (Fixture::new(), Fixture::new());
    one.succeeds(&["--threads", "1"]);
    two.succeeds(&["--threads", "3"]);
    for modality in ["textual", "visual"] {
        assert_eq!(one.bytes(modality), two.bytes(modality));
    }
    two.succeeds(&["--seed", "8"]);
    for modality in ["textual", "visual"] {
        assert_ne!(one.bytes(modality), two.bytes(modality));
    }
}

#[test]
fn one_modality_can_be_made_alone() {
    let fixture = Fixture::new();
    fixture.succeeds(&["--modality", "visual"]);
    assert!(fixture.folder("visual").join("stage.json").is_file() && !fixture.folder("textual").exists());
    let states = ["features/textual         absent", "features/visual          fresh"];
    fixture.says(&["--status"], 0, &states);
    fixture.says(&["--modality", "audio"], 2, &["no modality `audio`", "the recipe has textual, visual"]);
    std::fs::remove_file(fixture.run().graph().join("stage.json")).unwrap();
    fixture.says(&[], 66, &["run `dsom-import` first"]);
}

#[test]
fn a_modality_with_nothing_to_encode_is_skipped() {
    let fixture = Fixture::of(vec![country("Q1", Some("alone"), &[])], json!({}));
    fixture.says(&[], 0, &["visual: skipped, no entity has an image"]);
    assert!(fixture.folder("textual").join("stage.json").is_file() && !fixture.folder("visual").exists());
    fixture.write("recipe.toml", "");
    fixture.says(&[], 0, &["the recipe has no [features]"]);
}

#[test]
fn another_image_makes_the_features_stale() {
    let fixture = Fixture::new();
    fixture.succeeds(&[]);
    fixture.import(countries(), json!({ "images_root": "images" }), [0, 255, 0]);
    let states = ["features/textual         fresh", "features/visual          stale: input `images` changed"];
    fixture.says(&["--status"], 0, &states);
}

#[test]
fn images_may_lie_elsewhere() {
    let fixture = Fixture::of(countries(), json!({ "images_root": "/nowhere" }));
    fixture.says(&[], 66, &["/nowhere: no such image folder", "--images DIR"]);
    let images = fixture.run().graph().join("images");
    fixture.succeeds(&["--images", images.to_str().unwrap()]);
    assert_eq!(fixture.table("visual").coverage(), 0.5);
}

#[test]
fn requests_that_cannot_be_met_are_refused_before_any_work() {
    let fixture = Fixture::new();
    for (set, code, parts) in [
        ("visual.encoder=vit-base", 66, ["vit-base/config.json", "config.json and model.safetensors"]),
        ("visual.output=cls", 2, ["features.visual.output", "random weights have an output of their own"]),
        ("textual.output=last", 2, ["last", "pooler"]),
        ("textual.encoder=nowhere", 66, ["nowhere/config.json", "tokenizer.json"]),
        ("textual.revision=main", 2, ["features.textual.revision", "hub"]),
    ] {
        fixture.says(&["--set", &format!("features.{set}")], code, &parts);
    }
    fixture.write("recipe.toml", "[features.textual]\nfrom = \"text\"\n");
    fixture.says(&[], 66, &["HF_HUB_OFFLINE", "google-bert/bert-base-uncased@", "--text-model"]);
    assert!(!fixture.run().root().join("features").exists());
    fixture.succeeds(&["--text-model", "random"]);
}

#[test]
fn a_missing_tokenizer_is_named_with_what_makes_one() {
    let fixture = Fixture::new();
    let commit = "0123456789012345678901234567890123456789";
    for folder in ["lacking", &format!("hf/hub/models--owner--name/snapshots/{commit}")] {
        std::fs::create_dir_all(fixture.path(folder)).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fixture.write(&format!("{folder}/{file}"), "{}");
        }
    }
    for (encoder, said) in [
        ("./lacking".to_owned(), "lacking/tokenizer.json: no such file"),
        (format!("owner/name@{commit}"), "is cached without tokenizer.json"),
    ] {
        let set = format!("features.textual.encoder=\"{encoder}\"");
        fixture.says(&["--modality", "textual", "--set", &set], 66, &[said, "AutoTokenizer"]);
    }
}

#[test]
fn given_features_are_joined_by_key() {
    let fixture = Fixture::new();
    fixture.given("file = \"x.npy\"");
    fixture.says(&[], 66, &["x.npy"]);
    let rows = Tensor::new(&[[1f32, 2.0], [0.0, 0.0], [3.0, 4.0]], &Device::Cpu).unwrap();
    rows.write_npy(fixture.path("x.npy")).unwrap();
    fixture.says(&[], 65, &["3 rows, but the graph has 4 entities"]);
    fixture.write("keys.txt", "Q3\nQ2\nQ1\n");
    fixture.given("file = \"x.npy\"\nkeys = \"keys.txt\"");
    fixture.succeeds(&[]);
    let table = fixture.table("given");
    assert_eq!([table.row(0), table.row(2)], [[3.0, 4.0], [1.0, 2.0]]);
    assert_eq!(table.present, [true, false, true, false]);
    fixture.write("keys.txt", "Q3\nQ1\nQ2\n");
    fixture.says(&["--status"], 0, &["stale: input `given/keys.txt` changed"]);
    fixture.write("keys.txt", "Q3\nQ9\nQ2\n");
    fixture.says(&[], 65, &["keys.txt: line 2: no entity has the key `Q9`"]);
    // A table that this program wrote can be given features, too.
    fixture.write("recipe.toml", RECIPE);
    fixture.succeeds(&["--modality", "textual"]);
    let table = fixture.folder("textual").join("features.safetensors");
    std::fs::copy(table, fixture.path("x.safetensors")).unwrap();
    fixture.given("file = \"x.safetensors\"");
    fixture.succeeds(&[]);
    assert_eq!(fixture.table("given"), fixture.table("textual"));
    let same = Tensor::ones((4, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    same.write_npy(fixture.path("x.npy")).unwrap();
    fixture.given("file = \"x.npy\"");
    fixture.says(&[], 0, &["all 4 entities have the same features"]);
}

/// Signals the program after it has kept some batches, and returns its exit code; none if the signal killed it.
fn stopped(fixture: &Fixture, modality: &str, arguments: &[&str], signal: &str) -> Option<i32> {
    let mut child = fixture.prepared(arguments).args(["--threads", "1"]).spawn().unwrap();
    wait_for(&fixture.folder(modality).join("batch-000002.tmp"), &mut child);
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let code = child.wait().unwrap().code();
    assert!(!fixture.folder(modality).join("stage.json").exists(), "it was too late to show anything");
    code
}

#[test]
fn interrupted_and_killed_work_is_continued_to_the_same_bytes() {
    let images: Vec<String> = (0..500).map(|i| format!("{i}.png")).collect();
    let entity = |i: usize| {
        country(&format!("Q{i}"), Some(&"island river republic ".repeat(20 + i % 9)), &[&images[i]])
    };
    let fixture = Fixture::of((0..500).map(entity).collect(), json!({ "images_root": "../pictures" }));
    std::fs::create_dir(fixture.path("run/pictures")).unwrap();
    for (i, name) in images.iter().enumerate().filter(|(i, _)| i % 10 != 0) {
        let noise = image::RgbImage::from_fn(200, 150, |x, y| image::Rgb([(x * y) as u8, y as u8, i as u8]));
        noise.save(fixture.path("run/pictures").join(name)).unwrap();
    }
    for (modality, unit, signal, code) in [
        ("textual", "texts", "-INT", Some(75)),
        ("textual", "texts", "-KILL", None),
        ("visual", "images", "-KILL", None),
    ] {
        let (batch, tokens) = (format!("features.{modality}.batch=8"), "features.textual.max_tokens=64");
        let only = ["--modality", modality, "--set", &batch, "--set", tokens];
        assert_eq!(stopped(&fixture, modality, &only, signal), code);
        fixture.says(&only, 0, &[&format!("{modality}: continues with "), unit]);
        assert_eq!(fixture.kept(modality), 0);
        let (continued, summary) = (fixture.bytes(modality), fixture.summary(modality));
        fixture.succeeds(&[&only[..], &["--force"]].concat());
        assert!(continued == fixture.bytes(modality), "{modality}");
        assert_eq!(summary, fixture.summary(modality));
        std::fs::remove_dir_all(fixture.folder(modality)).unwrap();
    }
    let said = fixture.succeeds(&["--modality", "visual"]);
    assert_eq!(fixture.summary("visual")["images_unreadable"], 50, "{said}");
}

#[test]
fn shards_merge_to_the_same_bytes() {
    let (whole, sharded) = (Fixture::new(), Fixture::new());
    let sets = ["--set", "features.textual.batch=1", "--set", "features.visual.batch=1"];
    let small = |more: &[&'static str]| [&sets, more].concat();
    whole.succeeds(&sets);
    for shard in ["1/3", "3/3"] {
        sharded.succeeds(&small(&["--shard", shard]));
    }
    sharded.says(&small(&["--merge", "3"]), 66, &["shard-2-of-3: this shard is absent"]);
    sharded.succeeds(&small(&["--shard", "2/3"]));
    sharded.says(&small(&["--shard", "2/3"]), 0, &["is fresh"]);
    // A shard of another recipe does not belong to these shards.
    sharded.says(&["--merge", "3"], 66, &["this shard is stale"]);
    sharded.succeeds(&small(&["--merge", "3"]));
    for modality in ["textual", "visual"] {
        assert_eq!(whole.bytes(modality), sharded.bytes(modality));
        assert_eq!(whole.summary(modality), sharded.summary(modality));
    }
    sharded.says(&small(&["--status"]), 0, &["features/visual          fresh"]);
    sharded.says(&["--shard", "4/3"], 2, &["is no shard"]);
}
