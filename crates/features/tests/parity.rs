//! Encoders and preparation give what Hugging Face's transformers gives, for the same weights and inputs.
//!
//! `tests/slow/encoders.py` makes the checkpoints and what they are to give: tiny ones, which lie in
//! `tests/golden/encoders`, and those of true size, to which `DSOM_PARITY` leads in `make check-slow`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use candle_core::{Device, Tensor, safetensors};
use cuda::test_device;
use dsom_features::checkpoint::Checkpoint;
use dsom_features::decode::decode;
use dsom_features::images::ImageEncoder;
use dsom_features::place::Place;
use dsom_features::preparation::{self, Preparation};
use dsom_features::text::TextEncoder;
use dsom_features::tokens::Tokens;
use recipe::{ImageOutput, Precision, TextOutput};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The largest difference that is let pass, over the largest number.
const TOLERANCE: f32 = 1e-4;

const TEXT_OUTPUTS: [(&str, TextOutput); 4] = [
    ("mean", TextOutput::Mean),
    ("cls", TextOutput::Cls),
    ("pooler", TextOutput::Pooler),
    ("second-last", TextOutput::SecondLast),
];
const IMAGE_OUTPUTS: [(&str, ImageOutput); 4] = [
    ("cls", ImageOutput::Cls),
    ("patches", ImageOutput::Patches),
    ("pooler", ImageOutput::Pooler),
    ("logits", ImageOutput::Logits),
];

/// The CPU, and a device: the emulator, or what `DSOM_TEST_DEVICE` names.
fn places() -> [(&'static str, Place); 2] {
    [("cpu", Place::cpu()), ("device", Place::new(test_device::name().parse().unwrap()))]
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/encoders").join(name)
}

fn expected(folder: &Path) -> HashMap<String, Tensor> {
    safetensors::load(folder.join("expected.safetensors"), &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference of two rows of numbers, over the largest of them.
fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let largest = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(f32::abs).fold(0.0, f32::max);
    assert!(ours.iter().all(|x| x.is_finite()));
    largest(&mut ours.iter().zip(theirs).map(|(a, b)| a - b)) / largest(&mut theirs.iter().copied())
}

fn assert_equal(what: &str, ours: &[f32], theirs: &Tensor) {
    let difference = difference(ours, &numbers(theirs));
    println!("{what}: {difference:.1e}");
    assert!(difference < TOLERANCE, "{what}: {difference:.1e} of the largest number");
}

/// Every output of the BERT in `folder` is what `expected` says.
fn check_texts(folder: &Path, expected: &HashMap<String, Tensor>) {
    let ids: Vec<Vec<i64>> = expected["ids"].to_vec2().unwrap();
    let lengths: Vec<i64> = expected["lengths"].to_vec1().unwrap();
    let texts = ids.iter().zip(lengths);
    let texts: Vec<Vec<u32>> =
        texts.map(|(ids, length)| ids[..length as usize].iter().map(|id| *id as u32).collect()).collect();
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let checkpoint = Checkpoint::open(folder, &[]).unwrap();
    for (place_name, place) in places() {
        for (name, output) in TEXT_OUTPUTS {
            let encoder = TextEncoder::load(&checkpoint, output, &place, Precision::F32).unwrap();
            let what = format!("{} {name}, {place_name}", folder.file_name().unwrap().display());
            assert_equal(&what, &encoder.encode(&texts).unwrap(), &expected[name]);
        }
    }
}

/// Every output of the ViT in `folder` is what `expected` says.
fn check_images(folder: &Path, expected: &HashMap<String, Tensor>) {
    let checkpoint = Checkpoint::open(folder, &[]).unwrap();
    for (place_name, place) in places() {
        for (name, output) in IMAGE_OUTPUTS {
            let encoder = ImageEncoder::load(&checkpoint, output, &place, Precision::F32).unwrap();
            let rows = encoder.encode(numbers(&expected["pixels"])).unwrap();
            assert_eq!(rows.len(), expected[name].dims()[0] * encoder.width());
            let what = format!("{} {name}, {place_name}", folder.file_name().unwrap().display());
            assert_equal(&what, &rows, &expected[name]);
        }
    }
}

/// Differences of prepared images, in levels of 256: the largest, and the mean over all.
fn preparation_differences(folder: &Path, size: usize) -> (f32, f32) {
    let preparation = Preparation::read(&folder.join(preparation::FILE), size).unwrap();
    let (mut largest, mut sum, mut count) = (0f32, 0.0, 0);
    for (name, theirs) in expected(folder) {
        let image = decode(&std::fs::read(folder.join(&name)).unwrap(), false).unwrap();
        let (ours, theirs) = (preparation.pixels(&image), numbers(&theirs));
        assert_eq!(ours.len(), theirs.len());
        // One level is 2 / 255 of the range from -1 to 1.
        for levels in ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs() * 127.5) {
            (largest, sum, count) = (largest.max(levels), sum + levels, count + 1);
        }
    }
    (largest, sum / count as f32)
}

/// A copy of the checkpoint `from` whose tensors have other names.
fn renamed(from: &Path, rename: impl Fn(&str) -> String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tensors = safetensors::load(from.join("model.safetensors"), &Device::Cpu).unwrap();
    let tensors: HashMap<String, Tensor> =
        tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
    safetensors::save(&tensors, dir.path().join("model.safetensors")).unwrap();
    std::fs::copy(from.join("config.json"), dir.path().join("config.json")).unwrap();
    dir
}

#[test]
fn a_bert_gives_what_transformers_gives() {
    let folder = golden("bert");
    check_texts(&folder, &expected(&folder));
}

#[test]
fn a_vit_gives_what_transformers_gives() {
    let folder = golden("vit");
    check_images(&folder, &expected(&folder));
}

#[test]
fn names_of_older_checkpoints_are_known() {
    let folder = golden("bert");
    let older = |name: &str| name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta");
    check_texts(renamed(&folder, older).path(), &expected(&folder));
    check_texts(renamed(&folder, |name| format!("bert.{}", older(name))).path(), &expected(&folder));
    // Without a head, a ViT's names have no prefix.
    let headless = renamed(&golden("vit"), |name| name.trim_start_matches("vit.").to_owned());
    check_images(headless.path(), &expected(&golden("vit")));
}

#[test]
fn weights_of_torch_save_are_read() {
    let (folder, dir) = (golden("bert"), tempfile::tempdir().unwrap());
    for name in ["config.json", "pytorch_model.bin"] {
        std::fs::copy(folder.join(name), dir.path().join(name)).unwrap();
    }
    check_texts(dir.path(), &expected(&folder));
    let whole = std::fs::read(dir.path().join("pytorch_model.bin")).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"", b"junk"] {
        std::fs::write(dir.path().join("pytorch_model.bin"), damaged).unwrap();
        let checkpoint = Checkpoint::open(dir.path(), &[]).unwrap();
        let error =
            TextEncoder::load(&checkpoint, TextOutput::Mean, &Place::cpu(), Precision::F32).err().unwrap();
        assert_eq!(error.kind(), stage::Kind::Data);
        assert!(error.to_string().contains("pytorch_model.bin: not the weights"), "{error}");
    }
}

#[test]
fn a_head_that_is_not_there_is_named() {
    let headless = renamed(&golden("vit"), |name| name.replace("pooler", "x").replace("classifier", "y"));
    let checkpoint = Checkpoint::open(headless.path(), &[]).unwrap();
    for (output, name) in [(ImageOutput::Pooler, "pooler"), (ImageOutput::Logits, "classifier")] {
        let error = ImageEncoder::load(&checkpoint, output, &Place::cpu(), Precision::F32).err().unwrap();
        assert!(error.to_string().ends_with(&format!("model.safetensors: has no {name}")), "{error}");
    }
    assert!(ImageEncoder::load(&checkpoint, ImageOutput::Cls, &Place::cpu(), Precision::F32).is_ok());
    let headless = renamed(&golden("bert"), |name| name.replace("pooler", "x"));
    let checkpoint = Checkpoint::open(headless.path(), &[]).unwrap();
    let error =
        TextEncoder::load(&checkpoint, TextOutput::Pooler, &Place::cpu(), Precision::F32).err().unwrap();
    assert!(error.to_string().ends_with("has no pooler"), "{error}");
}

#[test]
fn an_activation_that_no_device_has_is_left_to_the_cpu_where_that_may_be_chosen() {
    let other = renamed(&golden("bert"), str::to_owned);
    let config = std::fs::read_to_string(other.path().join("config.json")).unwrap();
    let config = config.replace(r#""hidden_act": "gelu""#, r#""hidden_act": "mish""#);
    std::fs::write(other.path().join("config.json"), config).unwrap();
    let checkpoint = Checkpoint::open(other.path(), &[]).unwrap();
    let load = |device: &str| {
        let place = Place::new(device.parse().unwrap());
        TextEncoder::load(&checkpoint, TextOutput::Mean, &place, Precision::F32)
    };
    let error = load("emulated").err().unwrap();
    assert!(error.to_string().contains("`hidden_act` Mish"), "{error}");
    assert_eq!(load("auto").unwrap().products(), "f32");
}

#[test]
fn a_batch_that_a_device_does_not_hold_is_refused_with_one_that_fits() {
    let checkpoint = Checkpoint::open(&golden("vit"), &[]).unwrap();
    for (_, place) in places() {
        let encoder = ImageEncoder::load(&checkpoint, ImageOutput::Cls, &place, Precision::F32).unwrap();
        let require = |batch| encoder.require_device_memory(batch, &"visual".parse().unwrap());
        require(32).unwrap();
        if encoder.products() != "f32" {
            let error = require(1 << 40).unwrap_err();
            assert_eq!(error.kind(), stage::Kind::Resource);
            let hint = error.hint_text().unwrap();
            assert!(hint.starts_with("`features.visual.batch=") && hint.contains("--device cpu"), "{hint}");
        }
    }
}

#[test]
fn images_are_prepared_as_transformers_prepares_them() {
    let (largest, mean) = preparation_differences(&golden("images"), 16);
    assert!(largest <= 2.0 && mean < 0.5, "{largest} levels, {mean} in the mean");
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
    let tokenizer = dsom_features::bert::tokenizer(&Checkpoint::open(&folder, &[]).unwrap()).unwrap();
    let tokens = Tokens::new(&texts, &tokenizer, 128).unwrap();
    let ids: Vec<Vec<i64>> = expected["ids"].to_vec2().unwrap();
    for (ours, theirs) in tokens.ids.iter().zip(&ids) {
        let padded = ours.iter().map(|id| i64::from(*id)).chain(std::iter::repeat(0));
        assert!(padded.zip(theirs).all(|(ours, theirs)| ours == *theirs));
    }
    assert_eq!(tokens.truncated, 1);
    check_texts(&folder, &expected);
}

#[test]
#[ignore = "needs the folder that tests/slow/encoders.py writes, in DSOM_PARITY"]
fn photographs_are_prepared_as_transformers_prepares_them() {
    // JPEG decoders may round differently; what ours and Pillow's differ by stays below this.
    for (kind, most, most_mean) in [("images-png", 2.0, 0.5), ("images-jpeg", 8.0, 0.5)] {
        if !slow(kind).is_dir() {
            eprintln!("{} was made without photographs: nothing tested", slow("").display());
            continue;
        }
        let (largest, mean) = preparation_differences(&slow(kind), 224);
        println!("{kind}: {largest} levels at most, {mean} in the mean");
        assert!(largest <= most && mean < most_mean, "{kind}: {largest} levels, {mean} in the mean");
    }
}
