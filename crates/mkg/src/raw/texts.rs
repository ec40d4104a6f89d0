//! Files with one text per key (two columns, or a JSON object), and files that link the keys of two datasets.

use recipe::TextSource;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use stage::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use super::columns;
use super::keys::{Listing, decode_percents};
use super::lines::{Lines, filled, trimmed};

/// A key with its text; `None` for an empty text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextRow {
    /// The row's line, which JSON does not give.
    pub(super) line: Option<u64>,
    pub(super) key: String,
    /// The text, without the space around it.
    pub(super) text: Option<String>,
}

impl TextRow {
    pub(super) fn new(line: Option<u64>, key: &str, text: &str) -> TextRow {
        TextRow { line, key: trimmed(key).to_owned(), text: filled(text) }
    }

    pub(super) fn error(&self, path: &Path, message: impl Into<String>) -> Error {
        Error::data(message).at(path).maybe_line(self.line)
    }
}

/// The rows of a source with keys of the dataset, and the keys of the texts that are left out because an earlier row of
/// the same key has a text.
pub(super) fn read_source(root: &Path, source: &TextSource) -> Result<(Vec<TextRow>, Vec<String>)> {
    let path = &root.join(&source.file);
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let mut rows = match &source.vocabulary {
        vocabulary if is_json => {
            let mut entries = read_entries(path)?;
            if let Some(vocabulary) = vocabulary {
                let tokens = stage::files::read_text(&root.join(vocabulary))?;
                decode(&tokens.lines().collect::<Vec<_>>(), &mut entries).map_err(|error| error.at(path))?;
            }
            select(&entries, source).map_err(|error| error.at(path))?
        }
        Some(_) => return Err(Error::data("token ids (`vocabulary`) are read from JSON alone").at(path)),
        None => read_rows(path)?,
    };
    if let Some(prefix) = &source.key_prefix {
        let example = rows.first().map_or(String::new(), |row| format!("the first is `{}`", row.key));
        rows.retain(|row| row.key.starts_with(prefix));
        rows.iter_mut().for_each(|row| row.key = decode_percents(&row.key[prefix.len()..]));
        if rows.is_empty() {
            return Err(Error::data(format!("no key begins with `{prefix}`")).at(path).hint(example));
        }
    }
    let mut seen = HashSet::new();
    let repeated = rows.extract_if(.., |row| row.text.is_some() && !seen.insert(row.key.clone()));
    let repeated = repeated.map(|row| row.key).collect();
    Ok((translate(root, source, rows)?, repeated))
}

/// Reads `key<TAB>text` lines, perhaps after a count line.
fn read_rows(path: &Path) -> Result<Vec<TextRow>> {
    let lines = Lines::read(path)?;
    let wide = lines.body()?.filter(|(_, line)| line.matches('\t').count() > 1).count();
    let all = lines.body()?.count();
    // A text may contain a tab.
    if 2 * wide > all {
        let message = format!("{wide} of {all} lines have three columns or more, expected key<TAB>text");
        return Err(Error::data(message).at(path).hint("leave the key and the text in it"));
    }
    let rows = lines.body()?.map(|(number, line)| {
        let (key, text) = line.split_once('\t').ok_or_else(|| {
            let hint = columns::separated(line, 3);
            let hint = hint.unwrap_or_else(|| {
                "is a text broken over two lines, or are there commas for tabs?".to_owned()
            });
            lines.error(number, "expected key<TAB>text, found no tab").hint(hint)
        })?;
        Ok(TextRow::new(Some(number), key, text))
    });
    rows.collect()
}

/// Reads the entries of a JSON object in the file's order, also entries with a repeated key.
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
        let error = Error::data(e.to_string()).at(path).line(e.line());
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

/// Replaces the entries' token ids, as MyGO publishes them, by texts: words between spaces, `##` pieces joined to the
/// word before, no special tokens such as `[CLS]`. The ids' tokenizer turns these texts into the same ids.
fn decode(tokens: &[&str], entries: &mut [(String, Value)]) -> Result<()> {
    for (key, entry) in entries {
        let ids = entry.as_array().ok_or_else(|| {
            Error::data(format!(
                "entry `{key}` is no list of token ids, which `vocabulary` asks for: {entry:.60}"
            ))
        })?;
        let found = ids.iter().map(|id| {
            let token = id.as_u64().and_then(|id| tokens.get(usize::try_from(id).ok()?));
            token.copied().ok_or_else(|| {
                let count = tokens.len();
                Error::data(format!("entry `{key}`: {id:.60} is no id in 0..{count} of the vocabulary"))
                    .hint("is `vocabulary` that of the model that made the ids?")
            })
        });
        *entry = Value::String(joined(&found.collect::<Result<Vec<&str>>>()?));
    }
    Ok(())
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

/// Tells whether a token is `[CLS]`, `[SEP]`, `[PAD]`, `[UNK]`, `[MASK]`, `[unused7]` or of their form.
fn is_special(token: &str) -> bool {
    token.len() > 2 && token.starts_with('[') && token.ends_with(']')
}

/// The entries' texts, by the key or by the field that the source joins on.
fn select(entries: &[(String, Value)], source: &TextSource) -> Result<Vec<TextRow>> {
    if let Some((_, first)) = entries.first() {
        // A field that no entry has is misspelt; most entries may lack a correct one.
        for field in [&source.field, &source.key_field].into_iter().flatten() {
            if !entries.iter().any(|(_, entry)| entry.get(field).is_some()) {
                let error = Error::data(format!("no entry has a field `{field}`"));
                return Err(error.hint(format!("the first entry has {}", fields(first))));
            }
        }
    }
    let rows = entries.iter().map(|(key, entry)| {
        let joined_on = match &source.key_field {
            Some(_) => text(key, entry, &source.key_field)?,
            None => Some(key.as_str()),
        };
        let text = text(key, entry, &source.field)?.unwrap_or_default();
        // An entry without the field to join on is left out.
        Ok(joined_on.map(|key| TextRow::new(None, key, text)))
    });
    rows.filter_map(Result::transpose).collect()
}

/// The text of the entry `key`: the entry itself, or one of its fields; null means no text.
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
    let names = entry.as_object().map(|fields| fields.keys().take(8).map(|name| format!("`{name}`")));
    names.map_or("no fields".to_owned(), |names| names.collect::<Vec<_>>().join(", "))
}

/// Translates the rows' keys to the dataset's keys: first from another dataset's ids to its keys, then through links. A
/// key without a translation is left out; a key with several gives its text to all of them.
fn translate(root: &Path, source: &TextSource, mut rows: Vec<TextRow>) -> Result<Vec<TextRow>> {
    if let Some(ids) = &source.ids {
        let keys = Listing::read("keys", Some(&root.join(ids)))?.keys.all;
        for row in &mut rows {
            let key = row.key.parse::<usize>().ok().and_then(|id| keys.get(id)).ok_or_else(|| {
                let (key, count) = (&row.key, keys.len());
                let message = format!("`{key}` is no id in 0..{count} of the map that `ids` names");
                row.error(&root.join(&source.file), message)
            })?;
            row.key.clone_from(key);
        }
    }
    let Some(path) = source.via.as_ref().map(|via| root.join(via)) else { return Ok(rows) };
    let links = read_links(&path)?;
    let mut translated = Vec::new();
    for row in &rows {
        let keys = links.get(&row.key).into_iter().flatten();
        translated.extend(keys.map(|key| TextRow { key: key.clone(), ..row.clone() }));
    }
    if translated.is_empty() && !rows.is_empty() {
        let message = format!("no line begins with a key of the text file, such as `{}`", rows[0].key);
        return Err(Error::data(message).at(path).hint("links read `other-key <SameAs> key .`"));
    }
    Ok(translated)
}

/// Reads lines of the form `other-key <SameAs> key .` or `other-key key`.
fn read_links(path: &Path) -> Result<HashMap<String, Vec<String>>> {
    let lines = Lines::read(path)?;
    let mut links: HashMap<String, Vec<String>> = HashMap::new();
    for (number, line) in lines.body()? {
        let tabs = line.contains('\t');
        let mut columns: Vec<&str> =
            if tabs { line.split('\t').map(trimmed).collect() } else { line.split_whitespace().collect() };
        columns.pop_if(|last| *last == ".");
        let (other, key) = match columns.as_slice() {
            [other, key] | [other, _, key] => (*other, *key),
            columns => {
                let message = format!("expected `other-key <SameAs> key`, found {} columns", columns.len());
                return Err(lines.error(number, message));
            }
        };
        links.entry(other.to_owned()).or_default().push(key.to_owned());
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::folder;

    /// The keys and texts of a file with this name and content, read and translated by the recipe's keys in `source`.
    fn read(name: &str, content: &str, source: &str) -> Result<Vec<(String, String)>> {
        let folder = folder(&[
            (name, content),
            ("vocab.txt", "[PAD]\n[CLS]\n[SEP]\nd\n##wan\nborn\n[\n##\n"),
            ("ids.txt", "2\nx y\t0\nz\t1\n"),
            (
                "links.txt",
                "/m/1 <SameAs> <http://a> .\r\n/m/1 <SameAs> <http://b> .\r\n/m/2 c\r\n/m/3\ta key\r\n",
            ),
            ("broken.txt", "a <SameAs> b .\nc .\n"),
        ]);
        let source = toml::from_str(&format!("file = \"{name}\"\n{source}")).unwrap();
        let rows = read_source(folder.path(), &source)?.0.into_iter();
        Ok(rows.map(|row| (row.key, row.text.unwrap_or_default())).collect())
    }

    #[test]
    fn rows_are_read_as_the_source_says() {
        let entries =
            r#"{"a": {"text": " x ", "q": "Q1"}, "b": {"text": null, "q": null}, "c": {"q": "Q3"}}"#;
        let twice = [("a", ""), ("b", "x"), ("a", "first")];
        for (name, content, source, expected) in [
            ("t", "2\n0\t A, b.\n1\t\n", "", &[("0", "A, b."), ("1", "")][..]),
            ("t", "0\tA, b.\r\n1\t \r\n", "", &[("0", "A, b."), ("1", "")]),
            ("t", "a\t\nb\tx\na\tfirst\na\tsecond\n", "", &twice),
            ("t", "http://w/A%2CB/C\tx\nother\ty\n", "key_prefix = 'http://w/'", &[("A,B/C", "x")]),
            ("t", "1\tx\n0\ty\n", "ids = 'ids.txt'", &[("z", "x"), ("x y", "y")]),
            (
                "t",
                "/m/2\tx\n/m/1\ty\n/m/9\tz\n/m/3\tw\n",
                "via = 'links.txt'",
                &[("c", "x"), ("<http://a>", "y"), ("<http://b>", "y"), ("a key", "w")],
            ),
            ("t.json", r#"{"a": "x"}"#, "", &[("a", "x")]),
            ("t.JSON", r#"{"a": "", "b": "x", "a": "first", "a": "second"}"#, "", &twice),
            ("t.json", entries, "field = 'text'", &[("a", "x"), ("b", ""), ("c", "")]),
            ("t.json", entries, "field = 'text'\nkey_field = 'q'", &[("Q1", "x"), ("Q3", "")]),
            (
                "t.json",
                r#"{"a": [1, 3, 4, 5, 2, 0, 0], "b": [1, 4, 6, 7, 2], "c": [1, 2]}"#,
                "vocabulary = 'vocab.txt'",
                &[("a", "dwan born"), ("b", "wan [ ##"), ("c", "")],
            ),
        ] {
            let rows = read(name, content, source).unwrap();
            let rows: Vec<_> = rows.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
            assert_eq!(rows, expected, "{content}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_there_is() {
        let tokens = "vocabulary = 'vocab.txt'";
        for (name, content, source, told, hint) in [
            ("t", "a\tb\nc\n", "", "t: line 2: expected key<TAB>text, found no tab", "over two lines"),
            (
                "t",
                "a\tb\ten\nc\td\te\tf\n",
                "",
                "2 of 2 lines have three columns or more",
                "the key and the text",
            ),
            ("t", "a\tb\n", "key_prefix = 'ftp'", "no key begins with `ftp`", "the first is `a`"),
            ("t", "2\tx\n", "ids = 'ids.txt'", "line 1: `2` is no id in 0..2", ""),
            ("t", "x\ty\n", "via = 'links.txt'", "no line begins with a key of the text file", "other-key"),
            (
                "t",
                "a\ty\n",
                "via = 'broken.txt'",
                "line 2: expected `other-key <SameAs> key`, found 1 columns",
                "",
            ),
            ("t", "a\t0 1\n", tokens, "token ids (`vocabulary`) are read from JSON alone", ""),
            ("t.json", "{\"a\": [1, 8]}", tokens, "entry `a`: 8 is no id in 0..8", "of the model"),
            ("t.json", "{\"a\": [-1]}", tokens, "-1 is no id", ""),
            ("t.json", "{\"a\": [\"dwan\"]}", tokens, "is no id", ""),
            ("t.json", "{\"a\": \"dwan\"}", tokens, "entry `a` is no list of token ids", ""),
            ("t.json", "{\"a\": [0, 1]}", "", "entry `a` is a list, not a text", "`vocabulary = ...`"),
            ("t.json", "{\"a\": {\"text\": 1}}", "field = 'txt'", "no entry has a field `txt`", "has `text`"),
            (
                "t.json",
                "{\"a\": {\"text\": 1}}",
                "field = 'text'",
                "field `text` of entry `a` is no text: 1",
                "",
            ),
            ("t.json", "{\"a\": {\"text\": 1}}", "", "the entries hold fields, not texts", "`text`"),
            ("t.json", "{\n\"a\": ", "", "t.json: line 2", ""),
        ] {
            let error = read(name, content, source).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(told) && error.hint_text().unwrap_or_default().contains(hint), "{said}");
        }
    }
}
