//! Token ids in the place of texts, as MyGO publishes them.

use serde_json::Value;
use stage::{Error, Result};
use std::path::Path;

/// A vocabulary of word pieces: the token of each id, one a line, as in the `vocab.txt` of BERT.
pub(super) struct WordPieces(Vec<String>);

impl WordPieces {
    pub(super) fn read(path: &Path) -> Result<WordPieces> {
        Ok(WordPieces(stage::files::read_text(path)?.lines().map(str::to_owned).collect()))
    }

    /// Puts into the place of an entry's ids the text that they stand for: words between spaces, `##` glued to what stands
    /// before it, without `[CLS]` and its kin. The tokenizer that made the ids makes them of this text again.
    pub(super) fn decode(&self, key: &str, entry: &mut Value) -> Result<()> {
        let ids = entry.as_array().ok_or_else(|| {
            Error::data(format!(
                "entry `{key}` is no list of token ids, which `vocabulary` asks for: {entry:.60}"
            ))
        })?;
        let tokens = ids.iter().map(|id| self.token(id).ok_or_else(|| self.unknown(key, id)));
        *entry = Value::String(joined(&tokens.collect::<Result<Vec<&str>>>()?));
        Ok(())
    }

    fn token(&self, id: &Value) -> Option<&str> {
        let place = usize::try_from(id.as_u64()?).ok()?;
        self.0.get(place).map(String::as_str)
    }

    fn unknown(&self, key: &str, id: &Value) -> Error {
        let message = format!("entry `{key}`: {id:.60} is no id in 0..{} of the vocabulary", self.0.len());
        Error::data(message).hint("is `vocabulary` that of the model that made the ids?")
    }
}

fn joined(tokens: &[&str]) -> String {
    let mut text = String::new();
    for token in tokens.iter().filter(|token| !is_special(token)) {
        match token.strip_prefix("##") {
            Some(piece) if !piece.is_empty() => text.push_str(piece),
            _ if text.is_empty() => text.push_str(token),
            _ => text.extend([" ", token]),
        }
    }
    text
}

/// `[CLS]`, `[SEP]`, `[PAD]`, `[UNK]`, `[MASK]`, `[unused7]`.
fn is_special(token: &str) -> bool {
    token.len() > 2 && token.starts_with('[') && token.ends_with(']')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Written;
    use serde_json::json;

    fn pieces() -> WordPieces {
        WordPieces::read(&Written::new("[PAD]\n[CLS]\n[SEP]\nd\n##wan\nborn\n[\n##\n").path()).unwrap()
    }

    fn decoded(mut ids: Value) -> Result<Value> {
        pieces().decode("a", &mut ids).map(|()| ids)
    }

    #[test]
    fn pieces_become_words_without_special_tokens() {
        for (ids, text) in [
            (json!([1, 3, 4, 5, 2, 0, 0]), "dwan born"),
            (json!([1, 4, 6, 7, 2]), "wan [ ##"),
            (json!([1, 2]), ""),
        ] {
            assert_eq!(decoded(ids).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for (ids, told) in [
            (json!([1, 8]), "entry `a`: 8 is no id in 0..8"),
            (json!([-1]), "-1 is no id"),
            (json!(["dwan"]), "is no id"),
            (json!("dwan"), "entry `a` is no list of token ids"),
        ] {
            let error = decoded(ids).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
