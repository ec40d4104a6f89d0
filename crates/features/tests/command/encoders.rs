//! Encoders from folders and from the hub.

use super::*;
use server::{COMMIT, FakeHub, NAME};
use stage::files::digest_of;

#[allow(dead_code, reason = "written for the tests of `hub`, which need more of it")]
#[path = "../../../hub/tests/hub/server.rs"]
mod server;

/// The flags that choose the encoders of [`with_checkpoints`].
const FLAGS: [&str; 4] = ["--text-model", "./bert", "--image-model", "./vit"];

/// A fixture whose folder has the tiny checkpoints of the golden files. The BERT gets a tokenizer for the countries'
/// words.
fn with_checkpoints() -> Fixture {
    let fixture = Fixture::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/encoders");
    for name in ["bert", "vit"] {
        std::fs::create_dir(fixture.path(name)).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(golden.join(name).join(file), fixture.path(name).join(file)).unwrap();
        }
    }
    let texts: Vec<String> = countries().into_iter().filter_map(|country| country.description).collect();
    let tokenizer = dsom_features::tokens::word_level(&texts).unwrap();
    tokenizer.save(fixture.path("bert/tokenizer.json"), false).unwrap();
    fixture.write("recipe.toml", RECIPE.replace("encoder = \"random\"\n", ""));
    fixture
}

#[test]
fn checkpoints_are_encoders_and_every_output_is_another_feature() {
    let fixture = with_checkpoints();
    fixture.succeeds(&FLAGS);
    assert_eq!(fixture.table("textual").present, [true, true, false, true]);
    assert_eq!(fixture.table("visual").present, [true, true, false, false]);
    assert_eq!((fixture.table("textual").width, fixture.table("visual").width), (16, 16));
    let usual = ["--set", "features.textual.output=mean", "--set", "features.visual.output=cls"];
    fixture.says(&[&FLAGS[..], &usual].concat(), 0, &["textual is fresh", "visual is fresh"]);
    let mut seen = vec![fixture.bytes("textual"), fixture.bytes("visual")];
    for (modality, outputs) in [("textual", ["cls", "pooler"]), ("visual", ["patches", "pooler"])] {
        for output in outputs {
            let set = format!("features.{modality}.output={output}");
            let only = ["--modality", modality, "--set", &set];
            fixture.says(&[&FLAGS[..], &only].concat(), 0, &["parameter `output` was"]);
            let bytes = fixture.bytes(modality);
            assert!(!seen.contains(&bytes), "{modality} {output}");
            seen.push(bytes);
        }
    }
}

#[test]
fn what_a_checkpoint_says_of_images_is_followed_and_an_input() {
    let fixture = with_checkpoints();
    let run = || fixture.succeeds(&[&FLAGS[..], &["--modality", "visual"]].concat());
    run();
    let plain = fixture.bytes("visual");
    fixture.write("vit/preprocessor_config.json", r#"{"size": 16, "image_mean": [0.5, 0.5, 0.5]}"#);
    assert!(run().contains("stale: input `encoder/preprocessor_config.json` is new"));
    assert!(plain == fixture.bytes("visual"), "it says what is assumed without it");
    fixture.write("vit/preprocessor_config.json", r#"{"size": 16, "image_mean": [0.1, 0.5, 0.5]}"#);
    run();
    assert!(plain != fixture.bytes("visual"));
    fixture.write("vit/preprocessor_config.json", r#"{"size": 32}"#);
    fixture.says(&FLAGS, 65, &["gives images of 32 x 32, the encoder takes 16 x 16"]);
    // The program found the error before it touched anything.
    assert!(fixture.folder("visual").join("stage.json").is_file());
}

#[test]
fn the_default_encoder_is_taken_from_the_cache_of_the_hub() {
    let fixture = with_checkpoints();
    let textual = ["--modality", "textual"];
    let unknown = [
        "textual         unknown until google-bert/bert-base-uncased@86b5",
        "visual          unknown until google/vit-base-patch16-224@3f49",
    ];
    fixture.says(&["--status"], 0, &unknown);
    // The encoder lies in the hub's cache as other tools leave it there.
    let (name, commit) = dsom_features::source::TEXT.default.split_once('@').unwrap();
    let folder = fixture.path("hf/hub").join(format!("models--{}", name.replace('/', "--")));
    let snapshot = folder.join("snapshots").join(commit);
    std::fs::create_dir_all(&snapshot).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(fixture.path("bert").join(file), snapshot.join(file)).unwrap();
    }
    fixture.says(&[&textual[..], &["--status"]].concat(), 0, &["absent"]);
    fixture.succeeds(&textual);
    let origin = fixture.summary("textual")["encoder"].as_str().unwrap().to_owned();
    assert!(origin.starts_with("google-bert/bert-base-uncased at 86b5e0934494bd"), "{origin}");
    // The same files in another folder are the same encoder.
    let status = [&textual[..], &["--text-model", "./bert", "--status"]].concat();
    fixture.says(&status, 0, &["textual         fresh"]);
}

#[test]
fn an_encoder_is_fetched_once_and_asked_for_only_where_there_is_work() {
    let fixture = with_checkpoints();
    let [config, weights] = ["config.json", "model.safetensors"]
        .map(|file| std::fs::read(fixture.path("vit").join(file)).unwrap());
    // These ETags are no digests, so they promise nothing about the content.
    let hub = FakeHub::start()
        .file("config.json", "config", &config)
        .file("preprocessor_config.json", "preprocessor", br#"{"size": 16}"#)
        .file("model.safetensors", &digest_of(&weights), &weights);
    let run = |more: &[&str]| {
        let only = ["--modality", "visual", "--image-model", NAME];
        let mut command = fixture.prepared(&[&only[..], more].concat());
        let output = command.env("HF_HUB_OFFLINE", "0").env("HF_ENDPOINT", &hub.address).output().unwrap();
        (ends(&output, 0, &[]), hub.requests().len())
    };
    assert!(run(&["--status"]).0.contains("unknown until owner/model@main is fetched"));
    assert_eq!(hub.requests().len(), 0);
    let (_, fetched) = run(&[]);
    assert_eq!(fixture.summary("visual")["encoder"], format!("{NAME} at {COMMIT}"));
    let inputs = Manifest::read(&fixture.folder("visual")).unwrap().inputs;
    for file in ["config.json", "model.safetensors", "preprocessor_config.json"] {
        assert!(inputs.iter().any(|record| record.path == format!("encoder/{file}")), "{inputs:?}");
    }
    let (said, requests) = run(&[]);
    assert!(said.contains("features/visual is fresh") && requests == fetched, "{said}");
    let (said, requests) = run(&["--set", "features.visual.output=patches", "--status"]);
    assert!(said.contains("parameter `output` was") && requests == fetched, "{said}");
    let (_, requests) = run(&["--set", "features.visual.output=patches"]);
    assert_eq!(requests, fetched + 1, "where the branch is");
}
