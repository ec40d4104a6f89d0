use super::*;
use stage::Kind;

/// The encoder with random weights, whose vocabulary is the words of `texts`, and the tokens of `texts`.
fn encoder_of(texts: &[String]) -> (TextEncoder, Tokens) {
    let reader = TextReader::open(None, TextOutput::Mean, texts, 32, 7, &Device::Cpu).unwrap();
    let tokens = reader.tokens(texts).unwrap();
    (reader.encoder, tokens)
}

#[test]
fn fields_are_joined_where_present() {
    let [name, description, caption] = ["Oslo ", "  ", "a fjord"].map(|text| Some(text.to_owned()));
    let entity = Entity { name, description, caption, ..Entity::default() };
    let all = [TextField::Name, TextField::Description, TextField::Caption];
    assert_eq!(texts_of(&[entity, Entity::default()], &all), ["Oslo. a fjord", ""]);
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let [ab, aa, bb] =
        [(a, b), (a, a), (b, b)].map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>());
    ab / (aa * bb).sqrt()
}

#[test]
fn a_batch_equals_single_texts_and_common_words_keep_texts_together() {
    let texts = [
        "a republic in central europe",
        "a republic in west africa",
        "two islands of the pacific ocean, a river",
    ];
    let (encoder, tokens) = encoder_of(&texts.map(str::to_owned));
    let batch: Vec<&[u32]> = tokens.ids.iter().map(Vec::as_slice).collect();
    let together = encoder.encode(&batch).unwrap();
    let rows: Vec<&[f32]> = together.chunks(encoder.width()).collect();
    for (ids, row) in tokens.ids.iter().zip(&rows) {
        let single = encoder.encode(&[ids]).unwrap();
        assert!(single.iter().zip(*row).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    assert!(cosine(rows[0], rows[1]) > cosine(rows[0], rows[2]) + 0.3);
    let error = encoder.encode(&[&[1, 999]]).unwrap_err();
    assert!(error.kind() == Kind::Data && error.to_string().contains("token 999"), "{error}");
}

#[test]
fn a_damaged_tokenizer_is_an_error_wherever_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    for (file, content) in [("config.json", "{}"), ("model.safetensors", "")] {
        std::fs::write(dir.path().join(file), content).unwrap();
    }
    let checkpoint = Checkpoint::open(dir.path(), &[]).unwrap();
    let read = |content: &[u8]| {
        std::fs::write(dir.path().join(TOKENIZER), content).unwrap();
        tokenizer(&checkpoint)
    };
    let whole = WITH_DECODER.as_bytes();
    assert_eq!(read(whole).unwrap().get_vocab_size(true), 2);
    for i in 0..whole.len() {
        let error = read(&whole[..i]).err().unwrap();
        assert!(error.kind() == Kind::Data && error.to_string().contains(TOKENIZER), "{error}");
        // A file with one changed letter may still be a valid tokenizer.
        if let Err(error) = read(&[&whole[..i], b"~", &whole[i + 1..]].concat()) {
            assert_eq!(error.kind(), Kind::Data);
        }
    }
    assert!(read(b"{}").err().unwrap().to_string().ends_with("tokenizer.json: not a tokenizer"));
}

const WITH_DECODER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
    "decoder": {"type": "WordPiece", "prefix": "\u0023\u0023", "cleanup": true},
    "model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}}"#;
