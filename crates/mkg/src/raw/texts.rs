//! Files with one text per key: two columns, or a JSON object.

use recipe::TextSource;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use stage::{Error, Result};
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use super::columns;
use super::lines::{Lines, trimmed};
use super::names::decode_percents;
use super::tokens::WordPieces;

/// A key with its text; `None` where the text is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextRow {
    /// The line it stands on, which JSON does not tell.
    pub line: Option<u64>,
    /// The file's key.
    pub key: String,
    /// The text, without space around it.
    pub text: Option<String>,
}

impl TextRow {
    fn new(line: Option<u64>, key: &str, text: &str) -> TextRow {
        let text = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        TextRow { line, key: key.to_owned(), text }
    }

    /// An error about this row of the file at `path`.
    pub fn error(&self, path: &Path, message: impl Into<String>) -> Error {
        Error::data(message).at(path).maybe_line(self.line)
    }
}

/// Reads a text source's own file, found at `path`; `pieces` are the source's vocabulary.
pub(super) fn read_source(
    path: &Path,
    source: &TextSource,
    pieces: Option<&WordPieces>,
) -> Result<Vec<TextRow>> {
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let mut rows = match (json, pieces) {
        (true, _) => read_json(path, source, pieces)?,
        (false, None) => read_rows(path)?,
        (false, Some(_)) => {
            return Err(Error::data("token ids (`vocabulary`) are read from JSON alone").at(path));
        }
    };
    if let Some(prefix) = &source.key_prefix {
        let example = rows.first().map_or(String::new(), |row| format!("the first is `{}`", row.key));
        let cut = |mut row: TextRow| {
            row.key = decode_percents(row.key.strip_prefix(prefix)?);
            Some(row)
        };
        rows = rows.into_iter().filter_map(cut).collect();
        if rows.is_empty() {
            return Err(Error::data(format!("no key begins with `{prefix}`")).at(path).hint(example));
        }
    }
    Ok(rows)
}

/// Takes out the texts whose key has one on an earlier row; counts them, with the first such key.
pub(super) fn take_repeated(rows: &mut Vec<TextRow>) -> (usize, Option<String>) {
    let (mut seen, mut first, before) = (HashSet::new(), None, rows.len());
    rows.retain(|row| {
        let is_new = row.text.is_none() || seen.insert(row.key.clone());
        if !is_new {
            first.get_or_insert_with(|| row.key.clone());
        }
        is_new
    });
    (before - rows.len(), first)
}

/// Reads `key<TAB>text` lines, perhaps after a count line.
pub fn read_rows(path: &Path) -> Result<Vec<TextRow>> {
    let lines = Lines::read(path)?;
    let row = |(number, line): (u64, &str)| {
        let (key, text) = line.split_once('\t').ok_or_else(|| {
            let csv = columns::hint(line).filter(|hint| hint.contains("CSV"));
            let hint = csv.unwrap_or_else(|| "is a text broken over two lines?".to_owned());
            lines.error(number, "expected key<TAB>text, found no tab").hint(hint)
        })?;
        Ok(TextRow::new(Some(number), trimmed(key), text))
    };
    lines.body()?.map(row).collect()
}

/// Reads the entries of a JSON object in the file's order, also those whose key comes again.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one object, with a key for every text")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        std::iter::from_fn(|| map.next_entry().transpose()).collect()
    }
}

fn read_entries(path: &Path) -> Result<Vec<(String, Value)>> {
    let text = stage::files::read_text(path)?;
    let mut json = serde_json::Deserializer::from_str(&text);
    let entries = json.deserialize_map(Entries).and_then(|entries| json.end().map(|()| entries));
    entries.map_err(|e| {
        let error = Error::data(e.to_string()).at(path).line(e.line() as u64);
        let one_a_line = text.lines().take(2).filter(|line| line.trim_end().ends_with('}')).count() == 2;
        if one_a_line || text.trim_start().starts_with('[') {
            error.hint(
                "JSON Lines and lists are not read: write one object, {\"key\": {\"field\": \"text\"}, ...}",
            )
        } else {
            error
        }
    })
}

fn read_json(path: &Path, source: &TextSource, pieces: Option<&WordPieces>) -> Result<Vec<TextRow>> {
    let mut entries = read_entries(path)?;
    if let Some(pieces) = pieces {
        let decoded = entries.iter_mut().try_for_each(|(key, entry)| pieces.decode(key, entry));
        decoded.map_err(|error| error.at(path))?;
    }
    if let Some((_, first)) = entries.first() {
        // A field that no entry has is a misspelt one; most entries may lack it.
        for field in [&source.field, &source.key_field].into_iter().flatten() {
            if !entries.iter().any(|(_, entry)| entry.get(field).is_some()) {
                let error = Error::data(format!("no entry has a field `{field}`")).at(path);
                return Err(error.hint(format!("the first entry has {}", fields(first))));
            }
        }
    }
    let row = |(key, entry): &(String, Value)| {
        let joined_on = match &source.key_field {
            Some(_) => text(key, entry, &source.key_field)?,
            None => Some(key.as_str()),
        };
        let text = text(key, entry, &source.field)?.unwrap_or_default();
        // An entry without the field to join on has no place to go.
        Ok(joined_on.map(|key| TextRow::new(None, trimmed(key), text)))
    };
    let rows = entries.iter().map(|entry| row(entry).map_err(|error: Error| error.at(path)));
    rows.filter_map(Result::transpose).collect()
}

/// The text of the entry called `key`: itself, or one of its fields; null is no text.
fn text<'a>(key: &str, entry: &'a Value, field: &Option<String>) -> Result<Option<&'a str>> {
    let (value, name) = match field {
        Some(field) => {
            (entry.get(field).unwrap_or(&Value::Null), format!("field `{field}` of entry `{key}`"))
        }
        None => (entry, format!("entry `{key}`")),
    };
    match value {
        Value::String(text) => Ok(Some(text)),
        Value::Null => Ok(None),
        Value::Object(_) if field.is_none() => {
            let error = Error::data("the entries hold fields, not texts");
            Err(error.hint(format!("say which with `field = ...`: {}", fields(entry))))
        }
        Value::Array(_) => {
            let error = Error::data(format!("{name} is a list, not a text"));
            Err(error.hint("token ids are read where `vocabulary = ...` names the file of their tokens"))
        }
        other => Err(Error::data(format!("{name} is no text: {other:.60}"))),
    }
}

fn fields(entry: &Value) -> String {
    let names = entry.as_object().map(|fields| fields.keys().map(|name| format!("`{name}`")));
    names.map_or("no fields".to_owned(), |names| names.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Written;

    fn source(keys: &str) -> TextSource {
        toml::from_str(&format!("file = \"file.json\"\n{keys}")).unwrap()
    }

    fn pairs(rows: Result<Vec<TextRow>>) -> Vec<(String, Option<String>)> {
        rows.unwrap().into_iter().map(|row| (row.key, row.text)).collect()
    }

    fn pair(key: &str, text: &str) -> (String, Option<String>) {
        (key.to_owned(), Some(text.to_owned()).filter(|text| !text.is_empty()))
    }

    #[test]
    fn two_columns_with_their_oddities() {
        for text in ["2\n0\t A, b.\n1\t\n", "0\tA, b.\r\n1\t \r\n"] {
            let rows = pairs(read_rows(&Written::new(text).path()));
            assert_eq!(rows, [pair("0", "A, b."), pair("1", "")], "{text:?}");
        }
        let error = read_rows(&Written::new("a\tb\nc\n").path()).unwrap_err().to_string();
        assert!(error.ends_with("line 2: expected key<TAB>text, found no tab"), "{error}");
    }

    #[test]
    fn json_entries_are_texts_or_hold_them() {
        let file = Written::new(
            r#"{"a": {"text": " x ", "q": "Q1"}, "b": {"text": null, "q": null}, "c": {"q": "Q3"}}"#,
        );
        let read = |keys: &str| read_json(&file.path(), &source(keys), None);
        assert_eq!(pairs(read("field = 'text'")), [pair("a", "x"), pair("b", ""), pair("c", "")]);
        assert_eq!(pairs(read("field = 'text'\nkey_field = 'q'")), [pair("Q1", "x"), pair("Q3", "")]);
        let plain = Written::new(r#"{"a": "x"}"#);
        assert_eq!(pairs(read_json(&plain.path(), &source(""), None)), [pair("a", "x")]);
    }

    #[test]
    fn a_wrong_field_is_refused_with_those_there_are() {
        let file = Written::new("{\"a\": {\"text\": 1}}");
        let error = read_json(&file.path(), &source("field = 'txt'"), None).unwrap_err();
        assert!(error.to_string().ends_with("no entry has a field `txt`"), "{error}");
        assert_eq!(error.hint_text(), Some("the first entry has `text`"));
        assert!(
            read_json(&file.path(), &source("field = 'text'"), None)
                .unwrap_err()
                .to_string()
                .contains("entry `a` is no text")
        );
        assert!(read_json(&file.path(), &source(""), None).unwrap_err().to_string().contains("hold fields"));
        let broken = Written::new("{\n\"a\": ");
        assert!(read_json(&broken.path(), &source(""), None).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn a_prefix_selects_and_is_cut() {
        let file = Written::new("http://w/A%2CB/C\tx\nother\ty\n");
        let rows = read_source(&file.path(), &source("key_prefix = 'http://w/'"), None);
        assert_eq!(pairs(rows), [pair("A,B/C", "x")]);
        assert!(read_source(&file.path(), &source("key_prefix = 'ftp'"), None).is_err());
    }

    #[test]
    fn a_key_given_twice_counts_once_in_every_format() {
        let json = Written::new(r#"{"a": "", "b": "x", "a": "first", "a": "second"}"#);
        let lines = Written::new("a\t\nb\tx\na\tfirst\na\tsecond\n");
        for mut rows in
            [read_json(&json.path(), &source(""), None).unwrap(), read_rows(&lines.path()).unwrap()]
        {
            assert_eq!(take_repeated(&mut rows), (1, Some("a".to_owned())));
            assert_eq!(pairs(Ok(rows)), [pair("a", ""), pair("b", "x"), pair("a", "first")]);
        }
    }

    #[test]
    fn token_ids_need_a_vocabulary() {
        let (ids, vocabulary) = (Written::new(r#"{"a": [0, 1], "b": [0]}"#), Written::new("[CLS]\nborn\n"));
        let pieces = WordPieces::read(&vocabulary.path()).unwrap();
        let read = read_json(&ids.path(), &source("vocabulary = 'vocab.txt'"), Some(&pieces));
        assert_eq!(pairs(read), [pair("a", "born"), pair("b", "")]);
        let error = read_json(&ids.path(), &source(""), None).unwrap_err();
        assert!(error.hint_text().unwrap().contains("`vocabulary = ...`"), "{error}");
        let columns = Written::new("a\t0 1\n");
        assert!(read_source(&columns.path(), &source(""), Some(&pieces)).is_err());
    }
}
