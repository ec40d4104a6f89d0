use super::*;
use crate::tokens::{Tokens, word_level};
use stage::Kind;

/// The encoder with random weights and the tokenizer for it, whose vocabulary is that of `texts`.
fn encoder_for(texts: &[String], seed: u64) -> (TextEncoder, Tokenizer) {
    let tokenizer = word_level(texts).unwrap();
    let words = tokenizer.get_vocab_size(true);
    (TextEncoder::random(seed, words, 32, &Device::Cpu).unwrap(), tokenizer)
}

fn texts() -> Vec<String> {
    ["a republic in central europe", "a river", "an island state in the south pacific ocean, a republic"]
        .map(str::to_owned)
        .to_vec()
}

fn encode(texts: &[String], seed: u64) -> Vec<Vec<f32>> {
    let (encoder, tokenizer) = encoder_for(texts, seed);
    let tokens = Tokens::new(texts, &tokenizer, 32).unwrap();
    let batch: Vec<&[u32]> = tokens.ids.iter().map(Vec::as_slice).collect();
    let rows = encoder.encode(&batch).unwrap();
    rows.chunks(encoder.width()).map(<[f32]>::to_vec).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_batch_of_different_lengths_equals_single_texts() {
    let texts = texts();
    let (encoder, tokenizer) = encoder_for(&texts, 7);
    let tokens = Tokens::new(&texts, &tokenizer, 32).unwrap();
    let together = encode(&texts, 7);
    for (ids, row) in tokens.ids.iter().zip(&together) {
        let single = encoder.encode(&[ids]).unwrap();
        assert!(largest_difference(&single, row) < 1e-5);
    }
    assert!(largest_difference(&together[0], &together[1]) > 0.1);
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let [ab, aa, bb] =
        [(a, b), (a, a), (b, b)].map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>());
    ab / (aa * bb).sqrt()
}

#[test]
fn random_weights_keep_texts_with_common_words_together() {
    let texts =
        ["a republic in central europe", "a republic in west africa", "two islands of the pacific ocean"];
    let rows = encode(&texts.map(str::to_owned), 7);
    assert!(cosine(&rows[0], &rows[1]) > cosine(&rows[0], &rows[2]) + 0.3);
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let (encoder, _) = encoder_for(&texts(), 7);
    let error = encoder.encode(&[&[1, 999]]).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.to_string().contains("token 999"), "{error}");
}

#[test]
fn a_damaged_tokenizer_is_an_error_wherever_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    for (file, content) in [("config.json", "{}"), ("model.safetensors", "")] {
        std::fs::write(dir.path().join(file), content).unwrap();
    }
    let path = dir.path().join(TOKENIZER);
    let whole = WITH_DECODER.replace("VOCABULARY", &serde_json::json!({ "a": 0, "[UNK]": 1 }).to_string());
    let checkpoint = Checkpoint::open(dir.path(), &[]).unwrap();
    let read = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        tokenizer(&checkpoint)
    };
    assert_eq!(read(whole.as_bytes()).unwrap().get_vocab_size(true), 2);
    for i in 0..whole.len() {
        let error = read(&whole.as_bytes()[..i]).err().unwrap();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains(TOKENIZER), "{error}");
        // Where a letter is another one, it may be as good a tokenizer.
        if let Err(error) = read(&[&whole.as_bytes()[..i], b"~", &whole.as_bytes()[i + 1..]].concat()) {
            assert_eq!(error.kind(), Kind::Data);
        }
    }
    assert!(read(b"{}").err().unwrap().to_string().ends_with("tokenizer.json: not a tokenizer"));
}

const WITH_DECODER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
    "decoder": {"type": "WordPiece", "prefix": "\u0023\u0023", "cleanup": true},
    "model": {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "[UNK]"}}"#;
