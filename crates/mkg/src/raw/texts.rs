//! Files with one text per key: two columns, or a JSON object.

use recipe::TextSource;
use serde_json::{Map, Value};
use stage::{Error, Result};
use std::path::Path;

use super::lines::Lines;
use super::names::decode_percents;

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
        let error = Error::data(message).at(path);
        match self.line {
            Some(line) => error.line(line),
            None => error,
        }
    }
}

/// Reads a text source's own file, found at `path`.
pub(super) fn read_source(path: &Path, source: &TextSource) -> Result<Vec<TextRow>> {
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let mut rows = if json { read_json(path, source)? } else { read_rows(path)? };
    if let Some(prefix) = &source.key_prefix {
        let cut = |mut row: TextRow| {
            row.key = decode_percents(row.key.strip_prefix(prefix)?);
            Some(row)
        };
        rows = rows.into_iter().filter_map(cut).collect();
        if rows.is_empty() {
            return Err(Error::data(format!("no key begins with `{prefix}`")).at(path));
        }
    }
    Ok(rows)
}

/// Reads `key<TAB>text` lines, perhaps after a count line.
pub fn read_rows(path: &Path) -> Result<Vec<TextRow>> {
    let lines = Lines::read(path)?;
    let row = |(number, line): (u64, &str)| {
        let (key, text) = line.split_once('\t').ok_or_else(|| {
            lines
                .error(number, "expected key<TAB>text, found no tab")
                .hint("is a text broken over two lines?")
        })?;
        Ok(TextRow::new(Some(number), key.trim(), text))
    };
    lines.body()?.map(row).collect()
}

fn read_json(path: &Path, source: &TextSource) -> Result<Vec<TextRow>> {
    let entries: Map<String, Value> = stage::files::read_json(path)?;
    if let Some(first) = entries.values().next() {
        // A field that no entry has is a misspelt one; most entries may lack it.
        for field in [&source.field, &source.key_field].into_iter().flatten() {
            if !entries.values().any(|entry| entry.get(field).is_some()) {
                let error = Error::data(format!("no entry has a field `{field}`")).at(path);
                return Err(error.hint(format!("the first entry has {}", fields(first))));
            }
        }
    }
    let row = |(key, entry): (&String, &Value)| {
        let joined_on = match &source.key_field {
            Some(_) => text(entry, &source.key_field)?,
            None => Some(key.as_str()),
        };
        let text = text(entry, &source.field)?.unwrap_or_default();
        // An entry without the field to join on has no place to go.
        Ok(joined_on.map(|key| TextRow::new(None, key, text)))
    };
    let rows = entries.iter().map(|entry| row(entry).map_err(|error: Error| error.at(path)));
    rows.filter_map(Result::transpose).collect()
}

/// The text of an entry: itself, or one of its fields; null is no text.
fn text<'a>(entry: &'a Value, field: &Option<String>) -> Result<Option<&'a str>> {
    let (value, name) = match field {
        Some(field) => (entry.get(field).unwrap_or(&Value::Null), format!("field `{field}`")),
        None => (entry, "an entry".to_owned()),
    };
    match value {
        Value::String(text) => Ok(Some(text)),
        Value::Null => Ok(None),
        Value::Object(_) if field.is_none() => {
            let error = Error::data("the entries hold fields, not texts");
            Err(error.hint(format!("say which with `field = ...`: {}", fields(entry))))
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
    use super::super::lines::tests::Written;
    use super::*;

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
        let read = |keys: &str| read_json(&file.path(), &source(keys));
        assert_eq!(pairs(read("field = 'text'")), [pair("a", "x"), pair("b", ""), pair("c", "")]);
        assert_eq!(pairs(read("field = 'text'\nkey_field = 'q'")), [pair("Q1", "x"), pair("Q3", "")]);
        let plain = Written::new(r#"{"a": "x"}"#);
        assert_eq!(pairs(read_json(&plain.path(), &source(""))), [pair("a", "x")]);
    }

    #[test]
    fn a_wrong_field_is_refused_with_those_there_are() {
        let file = Written::new("{\"a\": {\"text\": 1}}");
        let error = read_json(&file.path(), &source("field = 'txt'")).unwrap_err();
        assert!(error.to_string().ends_with("no entry has a field `txt`"), "{error}");
        assert_eq!(error.hint_text(), Some("the first entry has `text`"));
        assert!(
            read_json(&file.path(), &source("field = 'text'")).unwrap_err().to_string().contains("no text")
        );
        assert!(read_json(&file.path(), &source("")).unwrap_err().to_string().contains("hold fields"));
        let broken = Written::new("{\n\"a\": ");
        assert!(read_json(&broken.path(), &source("")).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn a_prefix_selects_and_is_cut() {
        let file = Written::new("http://w/A%2CB/C\tx\nother\ty\n");
        let rows = read_source(&file.path(), &source("key_prefix = 'http://w/'"));
        assert_eq!(pairs(rows), [pair("A,B/C", "x")]);
        assert!(read_source(&file.path(), &source("key_prefix = 'ftp'")).is_err());
    }
}
