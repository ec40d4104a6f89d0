//! Encoders and preparation give the results of Hugging Face's transformers for the same weights and inputs.
//!
//! `tests/slow/encoders.py` makes the checkpoints and the expected results: tiny ones in `tests/golden/encoders`, and
//! those of true size, which `make check-slow` names by `DSOM_PARITY`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use candle_core::{DType, Device, Tensor, safetensors};
use dsom_features::checkpoint::Checkpoint;
use dsom_features::decode::decode;
use dsom_features::images::ImageEncoder;
use dsom_features::preparation::{self, Preparation};
use dsom_features::text::{TextEncoder, tokenizer};
use dsom_features::tokens::Tokens;
use recipe::{ImageOutput, TextOutput};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The largest accepted difference, divided by the largest number.
const TOLERANCE: f32 = 1e-4;

const TEXT_ARCHITECTURES: [&str; 6] =
    ["bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "nomic-bert"];
const IMAGE_ARCHITECTURES: [&str; 5] = ["vit", "beit", "dinov2", "clip", "siglip"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/encoders").join(name)
}

fn expected(folder: &Path) -> HashMap<String, Tensor> {
    safetensors::load(folder.join("expected.safetensors"), &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn load_text(folder: &Path, output: TextOutput) -> stage::Result<TextEncoder> {
    TextEncoder::load(&Checkpoint::open(folder, &[])?, output, &Device::Cpu)
}

fn load_images(folder: &Path, output: ImageOutput) -> stage::Result<ImageEncoder> {
    ImageEncoder::load(&Checkpoint::open(folder, &[])?, output, &Device::Cpu)
}

/// Asserts that an output equals that of transformers: the largest difference is small compared to the largest number.
/// An output that transformers does not give must be refused.
fn assert_output(
    folder: &Path,
    output: &Value,
    encoded: stage::Result<Vec<f32>>,
    expected: &HashMap<String, Tensor>,
) {
    let what = format!("{} {output}", folder.display());
    match (encoded, expected.get(output.as_str().unwrap()).map(numbers)) {
        (Ok(ours), Some(theirs)) => {
            assert!(ours.len() == theirs.len() && ours.iter().all(|x| x.is_finite()), "{what}");
            let largest = theirs.iter().fold(0f32, |most, x| most.max(x.abs()));
            let difference = ours.iter().zip(&theirs).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            println!("{what}: {:.1e}", difference / largest);
            assert!(difference / largest < TOLERANCE, "{what}: {difference} beside {largest}");
        }
        (Err(error), None) => {
            assert_eq!(error.kind(), stage::Kind::Usage, "{what}: {error}");
            assert!(error.to_string().contains("has no output"), "{what}: {error}");
        }
        (Ok(_), None) => panic!("{what} is more than transformers has"),
        (Err(error), Some(_)) => panic!("{what}: {error}: {:?}", std::error::Error::source(&error)),
    }
}

/// Asserts that every output of the text encoder in `folder` is as in `expected`.
fn check_texts(folder: &Path, expected: &HashMap<String, Tensor>) {
    let ids: Vec<Vec<u32>> = expected["ids"].to_dtype(DType::U32).unwrap().to_vec2().unwrap();
    let lengths: Vec<i64> = expected["lengths"].to_vec1().unwrap();
    let texts: Vec<&[u32]> = ids.iter().zip(lengths).map(|(ids, length)| &ids[..length as usize]).collect();
    for output in [TextOutput::Mean, TextOutput::Cls, TextOutput::Pooler] {
        let encoded = load_text(folder, output).map(|encoder| encoder.encode(&texts).unwrap());
        assert_output(folder, &json!(output), encoded, expected);
    }
}

/// Asserts that every output of the image encoder in `folder` is as in `expected`.
fn check_images(folder: &Path, expected: &HashMap<String, Tensor>) {
    let pixels = numbers(&expected["pixels"]);
    for output in [ImageOutput::Cls, ImageOutput::Patches, ImageOutput::Pooler] {
        let encoded = load_images(folder, output).map(|encoder| encoder.encode(&pixels).unwrap());
        assert_output(folder, &json!(output), encoded, expected);
    }
}

/// Differences of prepared images, in levels of 256: the largest, and the mean over all.
fn preparation_differences(folder: &Path) -> (f32, f32) {
    let preparation = Preparation::read(&folder.join(preparation::FILE), Preparation::vit(1)).unwrap();
    let (mut largest, mut sum, mut count) = (0f32, 0.0, 0);
    for (name, theirs) in expected(folder) {
        let image = decode(&std::fs::read(folder.join(&name)).unwrap()).unwrap();
        let (ours, theirs) = (preparation.pixels(&image), numbers(&theirs));
        assert_eq!(ours.len(), theirs.len());
        // One of ViT's levels is 2 / 255 of the range from -1 to 1; one of CLIP's is nearly twice as much.
        for levels in ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs() * 127.5) {
            (largest, sum, count) = (largest.max(levels), sum + levels, count + 1);
        }
    }
    (largest, sum / count as f32)
}

/// A copy of the golden checkpoint `from` with a changed configuration and renamed tensors; a tensor that gets an empty
/// name is left out.
fn changed(from: &str, config: impl Fn(&mut Value), rename: impl Fn(&str) -> String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tensors = safetensors::load(golden(from).join("model.safetensors"), &Device::Cpu).unwrap();
    let named = tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor));
    let tensors: HashMap<String, Tensor> = named.filter(|(name, _)| !name.is_empty()).collect();
    safetensors::save(&tensors, dir.path().join("model.safetensors")).unwrap();
    let mut values: Value = stage::files::read_json(&golden(from).join("config.json")).unwrap();
    config(&mut values);
    std::fs::write(dir.path().join("config.json"), values.to_string()).unwrap();
    for name in [preparation::FILE, "expected.safetensors"] {
        let file = golden(from).join(name);
        file.is_file().then(|| std::fs::copy(&file, dir.path().join(name)).unwrap());
    }
    dir
}

fn renamed(from: &str, rename: impl Fn(&str) -> String) -> tempfile::TempDir {
    changed(from, |_| (), rename)
}

/// Asserts that the encoder in `folder` gives the results of the golden checkpoint `name`.
fn check(folder: &Path, name: &str) {
    if TEXT_ARCHITECTURES.contains(&name) {
        check_texts(folder, &expected(&golden(name)))
    } else {
        check_images(folder, &expected(&golden(name)))
    }
}

#[test]
fn every_architecture_gives_what_transformers_gives() {
    for name in TEXT_ARCHITECTURES.into_iter().chain(IMAGE_ARCHITECTURES) {
        check(&golden(name), name);
    }
}

#[test]
fn encoders_are_found_in_checkpoints_that_have_more() {
    for (name, prefix) in [
        ("bert", "bert."),
        ("roberta", "roberta."),
        ("xlm-roberta", "roberta."),
        ("distilbert", "distilbert."),
        ("modernbert", "model."),
        ("nomic-bert", "nomic_bert."),
        ("vit", "vit."),
        ("beit", "beit."),
        ("dinov2", "dinov2."),
        ("siglip", "vision_model."),
    ] {
        check(renamed(name, |name| format!("{prefix}{name}")).path(), name);
    }
    let alone = renamed("clip", |name| name.trim_start_matches("vision_model.").to_owned());
    check(alone.path(), "clip");
}

#[test]
fn names_of_older_checkpoints_are_known() {
    let older = |name: &str| name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta");
    check(renamed("bert", older).path(), "bert");
    // The configuration as nomic-ai publishes it, without the values that the model never gets.
    let nomic = |config: &mut Value| {
        *config = json!({
            "model_type": "nomic_bert", "activation_function": "swiglu", "vocab_size": 40, "n_embd": 16, "n_head": 2,
            "n_layer": 2, "n_inner": 32, "n_positions": 8192, "max_trained_positions": 2048,
            "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "prenorm": false,
            "qkv_proj_bias": false, "mlp_fc1_bias": false, "mlp_fc2_bias": false, "type_vocab_size": 2,
            "pad_token_id": 0, "rotary_scaling_factor": null,
        });
    };
    let folder = changed("nomic-bert", nomic, str::to_owned);
    check(folder.path(), "nomic-bert");
    assert_eq!(load_text(folder.path(), TextOutput::Mean).unwrap().max_tokens(), 2048);
    let modernbert = |config: &mut Value| {
        for name in ["layer_types", "rope_parameters"] {
            config.as_object_mut().unwrap().remove(name);
        }
        config["global_attn_every_n_layers"] = 3.into();
        config["layer_norm_eps"] = 1e-5.into();
    };
    let folder = changed("modernbert", modernbert, str::to_owned);
    check(folder.path(), "modernbert");
}

#[test]
fn weights_of_torch_save_are_read() {
    let (folder, dir) = (golden("bert"), tempfile::tempdir().unwrap());
    for name in ["config.json", "pytorch_model.bin"] {
        std::fs::copy(folder.join(name), dir.path().join(name)).unwrap();
    }
    check(dir.path(), "bert");
    let whole = std::fs::read(dir.path().join("pytorch_model.bin")).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"", b"junk"] {
        std::fs::write(dir.path().join("pytorch_model.bin"), damaged).unwrap();
        let error = load_text(dir.path(), TextOutput::Mean).err().unwrap();
        assert_eq!(error.kind(), stage::Kind::Data);
        assert!(error.to_string().contains("pytorch_model.bin: not the weights"), "{error}");
    }
}

/// The error and its cause in one line.
fn told(error: &stage::Error) -> String {
    format!("{error}: {}", std::error::Error::source(error).unwrap())
}

#[test]
fn a_tensor_that_is_missing_is_named_in_one_line() {
    for (name, missing) in [
        ("bert", "pooler.dense.weight"),
        ("modernbert", "layers.1.attn_norm.weight"),
        ("distilbert", "transformer.layer.1.ffn.lin2.bias"),
    ] {
        let folder = renamed(name, |name| if name == missing { String::new() } else { name.to_owned() });
        let output = if name == "bert" { TextOutput::Pooler } else { TextOutput::Mean };
        let error = told(&load_text(folder.path(), output).err().unwrap());
        let said = "model.safetensors: not the weights that config.json describes: cannot find tensor";
        assert!(error.ends_with(&format!("{said} {missing}")), "{error}");
    }
    let folder = renamed("beit", |name| name.replace("pooler", "x"));
    assert!(load_images(folder.path(), ImageOutput::Cls).is_ok());
    let error = told(&load_images(folder.path(), ImageOutput::Pooler).err().unwrap());
    assert!(error.ends_with("cannot find tensor pooler.layernorm.weight"), "{error}");
}

#[test]
fn what_a_model_of_candle_transformers_does_not_compute_is_refused() {
    let irregular = json!(["full_attention", "full_attention", "sliding_attention"]);
    for (from, key, value, said) in [
        ("bert", "/hidden_act", json!("mish"), "hidden_act Mish is not supported"),
        ("bert", "/position_embedding_type", json!("alibi"), "unknown variant `alibi`, expected `absolute`"),
        ("roberta", "/position_embedding_type", json!("other"), "position_embedding_type \"other\""),
        ("modernbert", "/mlp_bias", json!(true), "mlp_bias true is not supported"),
        ("modernbert", "/layer_types", irregular, "no regular order"),
        ("nomic-bert", "/hidden_act", json!("gelu"), "hidden_act \"gelu\""),
        ("dinov2", "/use_swiglu_ffn", json!(true), "use_swiglu_ffn true"),
        ("beit", "/use_shared_relative_position_bias", json!(true), "use_shared_relative_position_bias"),
        ("siglip", "/num_channels", json!(1), "num_channels 1"),
        ("clip", "/vision_config/hidden_act", json!("gelu"), "hidden_act \"gelu\" is not supported"),
    ] {
        let change = |config: &mut Value| {
            let (within, name) = key.rsplit_once('/').unwrap();
            config.pointer_mut(within).unwrap()[name] = value.clone();
        };
        let folder = changed(from, change, str::to_owned);
        let error = if TEXT_ARCHITECTURES.contains(&from) {
            load_text(folder.path(), TextOutput::Mean).err()
        } else {
            load_images(folder.path(), ImageOutput::Patches).err()
        };
        let error = told(&error.unwrap_or_else(|| panic!("{from} {key} {value} was taken")));
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn images_are_prepared_as_transformers_prepares_them() {
    for folder in ["images", "images-cropped"] {
        let (largest, mean) = preparation_differences(&golden(folder));
        assert!(largest <= 2.0 && mean < 0.5, "{folder}: {largest} levels, {mean} in the mean");
    }
}

/// The folder of `make check-slow`, or its part called `name`.
fn slow(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("DSOM_PARITY").expect("DSOM_PARITY names a folder")).join(name)
}

#[test]
#[ignore = "needs the folder that tests/slow/encoders.py writes, in DSOM_PARITY"]
fn encoders_of_true_size_give_what_transformers_gives() {
    check_texts(&slow("bert-base"), &expected(&slow("bert-base")));
    check_images(&slow("vit-base"), &expected(&slow("vit-base")));
}

#[test]
#[ignore = "needs the folder that tests/slow/encoders.py writes, in DSOM_PARITY"]
fn mini_lm_gives_what_transformers_gives_from_texts_on() {
    let folder = slow("mini-lm");
    let expected = expected(&folder);
    let texts: Vec<String> = stage::files::read_json(&folder.join("texts.json")).unwrap();
    let tokenizer = tokenizer(&Checkpoint::open(&folder, &[]).unwrap()).unwrap();
    let tokens = Tokens::new(&texts, &tokenizer, 128).unwrap();
    let ids: Vec<Vec<i64>> = expected["ids"].to_vec2().unwrap();
    for (ours, theirs) in tokens.ids.iter().zip(&ids) {
        let padded = ours.iter().map(|id| i64::from(*id)).chain(std::iter::repeat(0));
        assert!(padded.take(theirs.len()).eq(theirs.iter().copied()));
    }
    assert_eq!(tokens.truncated, 1);
    check_texts(&folder, &expected);
}

#[test]
#[ignore = "needs the folder that tests/slow/encoders.py writes, in DSOM_PARITY"]
fn photographs_are_prepared_as_transformers_prepares_them() {
    // JPEG decoders may round differently; the difference between ours and Pillow's stays below these bounds.
    for (kind, most, most_mean) in [("images-png", 2.0, 0.5), ("images-jpeg", 8.0, 0.5)] {
        assert!(slow(kind).is_dir(), "{} was made without photographs (--images)", slow("").display());
        let (largest, mean) = preparation_differences(&slow(kind));
        println!("{kind}: {largest} levels at most, {mean} in the mean");
        assert!(largest <= most && mean < most_mean, "{kind}: {largest} levels, {mean} in the mean");
    }
}
