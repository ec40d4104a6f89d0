use crate::random::bert::encoder_for;
use crate::tokens::Tokens;
use stage::Kind;

fn texts() -> Vec<String> {
    ["a republic in central europe", "a river", "an island state in the south pacific ocean, a republic"]
        .map(str::to_owned)
        .to_vec()
}

fn encode(texts: &[String], seed: u64) -> Vec<Vec<f32>> {
    let (encoder, tokenizer) = encoder_for(texts, seed, 32).unwrap();
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
    let (encoder, tokenizer) = encoder_for(&texts, 7, 32).unwrap();
    let tokens = Tokens::new(&texts, &tokenizer, 32).unwrap();
    let together = encode(&texts, 7);
    for (ids, row) in tokens.ids.iter().zip(&together) {
        let single = encoder.encode(&[ids]).unwrap();
        assert!(largest_difference(&single, row) < 1e-5);
    }
    assert!(largest_difference(&together[0], &together[1]) > 0.1);
}

#[test]
fn random_weights_keep_texts_with_common_words_together() {
    let texts =
        ["a republic in central europe", "a republic in west africa", "two islands of the pacific ocean"];
    let rows = encode(&texts.map(str::to_owned), 7);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let cosine = |i: usize, j: usize| {
        dot(&rows[i], &rows[j]) / (dot(&rows[i], &rows[i]) * dot(&rows[j], &rows[j])).sqrt()
    };
    assert!(cosine(0, 1) > cosine(0, 2) + 0.3);
}

#[test]
fn the_seed_decides_the_weights() {
    assert_eq!(encode(&texts(), 7), encode(&texts(), 7));
    assert_ne!(encode(&texts(), 7), encode(&texts(), 8));
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let (encoder, _) = encoder_for(&texts(), 7, 32).unwrap();
    let error = encoder.encode(&[&[1, 999]]).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.to_string().contains("token 999"), "{error}");
}
