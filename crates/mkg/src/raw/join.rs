//! Bringing texts to the entities or relations they belong to.

use recipe::{Join, TextPart, TextSource};
use serde::{Deserialize, Serialize};
use stage::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use super::keys::KeyMap;
use super::links;
use super::names::last_segment;
use super::texts::{TextRow, read_source};

/// What a text is to its entity or relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextKind {
    /// An entity's name.
    Name,
    /// An entity's description.
    Description,
    /// A sentence that a vision-language model wrote from an entity's images.
    Caption,
    /// A relation's name.
    RelationName,
}

/// How one text source fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextReport {
    /// What its texts are.
    pub kind: TextKind,
    /// Its file, relative to the raw folder.
    pub file: String,
    /// How its keys were joined.
    pub join: Join,
    /// Rows, after translation through links.
    pub rows: usize,
    /// Rows whose key is not in this graph.
    pub unknown: usize,
    /// Entities (or relations) that it has a text for.
    pub found: usize,
    /// Those among them that no earlier source had a text for.
    pub used: usize,
}

/// Gathers texts from several sources; the first that has one wins.
pub(super) struct Gathering<'a> {
    pub(super) root: &'a Path,
    pub(super) keys: &'a KeyMap,
    pub(super) kind: TextKind,
    pub(super) texts: Vec<Option<String>>,
    pub(super) reports: Vec<TextReport>,
}

impl<'a> Gathering<'a> {
    pub(super) fn new(root: &'a Path, keys: &'a KeyMap, kind: TextKind) -> Self {
        Gathering { root, keys, kind, texts: vec![None; keys.len()], reports: Vec::new() }
    }

    /// Adds what a source of the recipe has.
    pub(super) fn add(&mut self, source: &TextSource) -> Result<()> {
        let path = self.root.join(&source.file);
        let mut rows = links::translate(self.root, source, read_source(&path, source)?)?;
        for row in &mut rows {
            row.text = row.text.take().and_then(|text| part(&text, source.part));
        }
        let joined = join(&path, &rows, self.keys, source.join)?;
        self.fill(&source.file, rows.len(), joined);
        Ok(())
    }

    /// Adds a column of the table that lists the keys.
    pub(super) fn add_column(&mut self, file: &Path, texts: Vec<Option<String>>) {
        let joined = Joined { join: Join::Id, texts, unknown: 0 };
        self.fill(file, joined.texts.len(), joined);
    }

    fn fill(&mut self, file: &Path, rows: usize, joined: Joined) {
        let found = joined.found();
        let before = self.texts.iter().flatten().count();
        for (text, new) in self.texts.iter_mut().zip(joined.texts) {
            *text = text.take().or(new);
        }
        let used = self.texts.iter().flatten().count() - before;
        let file = file.to_string_lossy().into_owned();
        let (kind, join, unknown) = (self.kind, joined.join, joined.unknown);
        self.reports.push(TextReport { kind, file, join, rows, unknown, found, used });
    }
}

/// A part of a text that holds `name, description`.
fn part(text: &str, part: Option<TextPart>) -> Option<String> {
    let split = text.split_once(',');
    let text = match part {
        None => text,
        Some(TextPart::BeforeComma) => split.map_or(text, |(before, _)| before),
        Some(TextPart::AfterComma) => split.map_or("", |(_, after)| after),
    };
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

struct Joined {
    join: Join,
    texts: Vec<Option<String>>,
    unknown: usize,
}

impl Joined {
    fn found(&self) -> usize {
        self.texts.iter().flatten().count()
    }
}

/// Joins rows as told, or in the way that finds most; the first text of a key wins.
fn join(path: &Path, rows: &[TextRow], keys: &KeyMap, join: Join) -> Result<Joined> {
    if join == Join::Auto {
        let ways = [Join::Key, Join::LastSegment, Join::WithoutFirstLetter, Join::Id];
        let tried = ways.map(|way| join_by(rows, keys, way));
        // Of equals the last is the greatest, so that the plainest way comes last.
        let best = tried.into_iter().rev().max_by_key(Joined::found);
        return Ok(best.expect("there are ways to join"));
    }
    if join == Join::Id {
        check_ids(path, rows, keys.len())?;
    }
    let joined = join_by(rows, keys, join);
    if joined.unknown == rows.len() && !rows.is_empty() {
        let way = format!("{join:?}").to_lowercase();
        let message = format!("joined by {way}, nothing is found: no `{}` in this graph", rows[0].key);
        return Err(Error::data(message).at(path).hint("leave `join` out to take the way that finds most"));
    }
    Ok(joined)
}

fn join_by(rows: &[TextRow], keys: &KeyMap, join: Join) -> Joined {
    let ids = index(keys, join);
    let mut joined = Joined { join, texts: vec![None; keys.len()], unknown: 0 };
    for row in rows {
        let found: &[u32] = ids.get(row.key.as_str()).map_or(&[], Vec::as_slice);
        joined.unknown += usize::from(found.is_empty());
        for &id in found {
            let text = &mut joined.texts[id as usize];
            *text = text.take().or_else(|| row.text.clone());
        }
    }
    joined
}

/// Which ids each key of a text file means.
fn index(keys: &KeyMap, join: Join) -> HashMap<Cow<'_, str>, Vec<u32>> {
    let mut index: HashMap<Cow<'_, str>, Vec<u32>> = HashMap::new();
    for (id, key) in (0u32..).zip(keys.keys()) {
        let name = match join {
            Join::Id => Cow::Owned(id.to_string()),
            Join::LastSegment => last_segment(key).into(),
            Join::WithoutFirstLetter => key.get(first_letter(key)..).unwrap_or_default().into(),
            Join::Key | Join::Auto => key.as_str().into(),
        };
        index.entry(name).or_default().push(id);
    }
    index
}

fn first_letter(key: &str) -> usize {
    key.chars().next().map_or(0, char::len_utf8)
}

fn check_ids(path: &Path, rows: &[TextRow], count: usize) -> Result<()> {
    for row in rows {
        match row.key.parse::<usize>() {
            Ok(id) if id < count => {}
            Ok(id) => return Err(row.error(path, format!("id {id} is out of range 0..{count}"))),
            Err(_) => {
                let error = row.error(path, format!("expected an id, found `{}`", row.key));
                return Err(error.hint("leave `join` out to take the way that finds most"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> KeyMap {
        let mut map = KeyMap::default();
        keys.iter().for_each(|key| assert!(map.push(key).is_ok()));
        map
    }

    fn rows(pairs: &[(&str, &str)]) -> Vec<TextRow> {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let row = |(line, (key, value)): (u64, &(&str, &str))| TextRow {
            line: Some(line),
            key: (*key).to_owned(),
            text: text(value),
        };
        (1..).zip(pairs).map(row).collect()
    }

    fn joined(pairs: &[(&str, &str)], map: &[&str], way: Join) -> Result<(Join, Vec<Option<String>>, usize)> {
        let joined = join(Path::new("file.txt"), &rows(pairs), &keys(map), way)?;
        Ok((joined.join, joined.texts, joined.unknown))
    }

    #[test]
    fn auto_takes_what_finds_most() {
        let way = |pairs: &[(&str, &str)], map: &[&str]| joined(pairs, map, Join::Auto).unwrap().0;
        assert_eq!(way(&[("0", "x"), ("1", "y")], &["a", "b"]), Join::Id);
        assert_eq!(way(&[("a", "x"), ("0", "y"), ("b", "z")], &["a", "b"]), Join::Key);
        assert_eq!(way(&[("Q1", "x")], &["http://w/entity/Q1", "http://w/entity/Q2"]), Join::LastSegment);
        assert_eq!(way(&[("00001740", "x")], &["n00004475", "n00001740"]), Join::WithoutFirstLetter);
        // WordNet's keys look like ids, but an id has no leading zero.
        assert_eq!(way(&[("00000001", "x")], &["00000001", "b"]), Join::Key);
        assert_eq!(way(&[("z", "x")], &["a"]), Join::Key);
    }

    #[test]
    fn unknown_keys_are_counted_and_empty_texts_absent() {
        let pairs = [("b", ""), ("z", "x"), ("b", "second"), ("b", "third")];
        let (_, texts, unknown) = joined(&pairs, &["a", "b"], Join::Key).unwrap();
        assert_eq!((texts, unknown), (vec![None, Some("second".to_owned())], 1));
    }

    #[test]
    fn an_explicit_join_that_fails_is_an_error() {
        let complaint = |pairs, way| joined(pairs, &["a", "b"], way).unwrap_err().to_string();
        let message = complaint(&[("z", "x")], Join::Key);
        assert_eq!(message, "file.txt: joined by key, nothing is found: no `z` in this graph");
        let message = complaint(&[("0", "x"), ("2", "x")], Join::Id);
        assert_eq!(message, "file.txt: line 2: id 2 is out of range 0..2");
        assert_eq!(complaint(&[("a", "x")], Join::Id), "file.txt: line 1: expected an id, found `a`");
    }

    #[test]
    fn parts_of_a_text() {
        let text = "stool, solid, hard";
        assert_eq!(part(text, Some(TextPart::BeforeComma)).as_deref(), Some("stool"));
        assert_eq!(part(text, Some(TextPart::AfterComma)).as_deref(), Some("solid, hard"));
        assert_eq!(part("stool", Some(TextPart::BeforeComma)).as_deref(), Some("stool"));
        assert_eq!(part("stool,", Some(TextPart::AfterComma)), None);
    }

    #[test]
    fn a_key_of_one_letter_or_of_wide_ones_is_no_trap() {
        assert_eq!(
            joined(&[("b", "x")], &["éb", "a", ""], Join::WithoutFirstLetter).unwrap().1[0].as_deref(),
            Some("x")
        );
    }
}
