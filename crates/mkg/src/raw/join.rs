//! Bringing texts to the entities or relations they belong to.
//!
//! A text whose key is one of the graph's belongs there, whatever else its key may mean. A key that may mean several
//! entities brings its text to none of them, and numbers that may be ids as well as keys are refused: both are told.

use recipe::{Join, TextPart, TextSource};
use serde::{Deserialize, Serialize};
use stage::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use super::format::is_number;
use super::keys::KeyMap;
use super::links;
use super::names::{last_segment, unlike};
use super::texts::{TextRow, read_source, take_repeated};
use super::tokens::WordPieces;

/// Words that programs write where there is no text.
const PLACEHOLDERS: [&str; 12] =
    ["nan", "NaN", "NAN", "None", "null", "NULL", "NA", "N/A", "n/a", "<NA>", "#N/A", "undefined"];

/// The meaning of a text for its entity or relation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextKind {
    /// An entity's name.
    #[default]
    Name,
    /// An entity's description.
    Description,
    /// A sentence that a vision-language model wrote from an entity's images.
    Caption,
    /// A relation's name.
    RelationName,
}

/// The fate of one text source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextReport {
    /// The kind of its texts.
    pub kind: TextKind,
    /// Its file, relative to the raw folder.
    pub file: String,
    /// The way in which its keys were joined.
    pub join: Join,
    /// Rows, after translation through links.
    pub rows: usize,
    /// Rows whose key is not in this graph.
    pub unknown: usize,
    /// Rows without a text.
    pub empty: usize,
    /// Rows whose key, or whose entity, has a text from another row already.
    pub repeated: usize,
    /// Rows whose key may mean several entities.
    pub ambiguous: usize,
    /// Entities (or relations) that it has a text for.
    pub found: usize,
    /// Those among them that no earlier source had a text for.
    pub used: usize,
    /// Everything odd about it, in words.
    pub notes: Vec<String>,
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
        let pieces = source.vocabulary.as_ref().map(|file| WordPieces::read(&self.root.join(file)));
        let mut rows = read_source(&path, source, pieces.transpose()?.as_ref())?;
        let (repeated, twice) = take_repeated(&mut rows);
        let mut rows = links::translate(self.root, source, rows)?;
        for row in &mut rows {
            row.text = row.text.take().and_then(|text| part(&text, source.part));
        }
        let mut joined = join(&path, &rows, self.keys, source.join)?;
        joined.report.repeated += repeated;
        if let Some(key) = twice {
            let note = format!(
                "{repeated} texts have a key that has one already, such as `{key}`: the first counts"
            );
            joined.report.notes.push(note);
        }
        self.fill(&source.file, rows.len() + repeated, joined);
        Ok(())
    }

    /// Adds a column of the table that lists the keys.
    pub(super) fn add_column(&mut self, file: &Path, texts: Vec<Option<String>>) {
        let empty = texts.iter().filter(|text| text.is_none()).count();
        let mut joined = Joined::new(Join::Id, 0);
        joined.report.empty = empty;
        self.fill(file, texts.len(), Joined { texts, ..joined });
    }

    fn fill(&mut self, file: &Path, rows: usize, joined: Joined) {
        let file = file.to_string_lossy().into_owned();
        let notes = self.notes(&joined, rows).iter().map(|note| format!("{file}: {note}")).collect();
        let (found, before) = (joined.texts.iter().flatten().count(), self.texts.iter().flatten().count());
        for (text, new) in self.texts.iter_mut().zip(joined.texts) {
            *text = text.take().or(new);
        }
        let used = self.texts.iter().flatten().count() - before;
        self.reports.push(TextReport { kind: self.kind, file, rows, found, used, notes, ..joined.report });
    }

    fn notes(&self, joined: &Joined, rows: usize) -> Vec<String> {
        let mut notes = joined.report.notes.clone();
        let found = || joined.texts.iter().flatten();
        if found().next().is_none() && rows > 0 {
            notes.push(match &joined.stranger {
                Some(key) if joined.report.empty < rows => {
                    let keys = unlike(key, self.keys.iter());
                    format!(
                        "none of its {rows} texts belongs to this graph, which has no key `{key}`: {keys}"
                    )
                }
                _ => format!("all its {rows} texts are empty"),
            });
        }
        let placeholder = |text: &&String| PLACEHOLDERS.contains(&text.as_str());
        let count = found().filter(placeholder).count();
        // Somebody may be called Nan.
        let least = if matches!(self.kind, TextKind::Name | TextKind::RelationName) { 2 } else { 1 };
        if let Some(first) = found().find(placeholder).filter(|_| count >= least) {
            notes.push(format!(
                "{count} texts are words for a missing value, such as `{first}`: leave them empty"
            ));
        }
        notes
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

#[derive(Debug)]
struct Joined {
    report: TextReport,
    texts: Vec<Option<String>>,
    /// True for each entity that a row names, with or without a text.
    named: Vec<bool>,
    /// The first key that is no entity's.
    stranger: Option<String>,
}

impl Joined {
    fn new(join: Join, count: usize) -> Joined {
        let report = TextReport { join, ..TextReport::default() };
        Joined { report, texts: vec![None; count], named: vec![false; count], stranger: None }
    }

    fn named(&self) -> usize {
        self.named.iter().filter(|named| **named).count()
    }

    fn give(&mut self, id: u32, row: &TextRow) {
        let id = id as usize;
        self.named[id] = true;
        match &row.text {
            None => self.report.empty += 1,
            Some(_) if self.texts[id].is_some() => self.report.repeated += 1,
            text => self.texts[id].clone_from(text),
        }
    }
}

/// Joins rows as told, or in the way that `choose` takes; the first text of a key wins.
fn join(path: &Path, rows: &[TextRow], keys: &KeyMap, join: Join) -> Result<Joined> {
    match join {
        Join::Auto => return choose(path, rows, keys),
        Join::Id => check_ids(path, rows, keys.len())?,
        _ => {}
    }
    let joined = join_by(rows, keys, join);
    if joined.report.unknown == rows.len() && !rows.is_empty() {
        let (way, key) = (word(join), &rows[0].key);
        let message = format!("joined by {way}, nothing is found: no `{key}` in this graph");
        let keys = unlike(key, keys.iter());
        let hint = format!("of the graph's keys {keys}; leave `join` out to take the way that finds most");
        return Err(Error::data(message).at(path).hint(hint));
    }
    Ok(joined)
}

/// A way to join is chosen over one before it where it finds so many times the entities.
const FAR_MORE: usize = 10;

/// Joins rows by key; in another way only where that finds far more, which chance does not.
///
/// # Errors
/// [`stage::Kind::Data`] for numbers that may be ids as well as keys.
fn choose(path: &Path, rows: &[TextRow], keys: &KeyMap) -> Result<Joined> {
    let spelled = by_spelling(rows, keys);
    let by_id = join_by(rows, keys, Join::Id);
    let numbers = keys.keys().iter().filter(|key| is_number(key)).count();
    let (found, ids) = (spelled.named(), by_id.named());
    let are_keys = spelled.report.join == Join::Key && (ids <= found || 2 * numbers > keys.len());
    if are_keys || ids == 0 || found >= FAR_MORE * ids || spelled.texts == by_id.texts {
        return Ok(spelled);
    }
    if ids >= FAR_MORE * found {
        return Ok(by_id);
    }
    let message = format!("its keys may be those of {found} entities, or the ids of {ids}");
    let hint = "say which with `join` in the recipe: names = [{ file = \"...\", join = \"key\" }], or \"id\"";
    Err(Error::data(message).at(path).hint(hint))
}

fn by_spelling(rows: &[TextRow], keys: &KeyMap) -> Joined {
    let mut best = join_by(rows, keys, Join::Key);
    // Words without their first letter are other words; numbers without a letter are WordNet's.
    let numbers = rows.iter().all(|row| is_number(&row.key));
    for way in [Some(Join::LastSegment), numbers.then_some(Join::WithoutFirstLetter)].into_iter().flatten() {
        let other = join_by(rows, keys, way);
        let (found, more) = (best.named(), other.named());
        if more > 0 && more >= FAR_MORE * found {
            best = other;
        } else if more > found {
            let (used, unused) = (word(best.report.join), word(other.report.join));
            best.report.notes.push(format!(
                "joined by {used} it has texts for {found}, by {unused} it would for {more}: `join` in the recipe decides"
            ));
        }
    }
    best
}

/// The recipe's word for a way to join.
fn word(join: Join) -> String {
    serde_json::to_string(&join).unwrap_or_default()
}

fn join_by(rows: &[TextRow], keys: &KeyMap, join: Join) -> Joined {
    let index = index(keys, join);
    let exact = |row: &&TextRow| join != Join::Id && keys.id(&row.key).is_some();
    let mut joined = Joined::new(join, keys.len());
    for row in rows.iter().filter(exact) {
        keys.id(&row.key).into_iter().for_each(|id| joined.give(id, row));
    }
    for row in rows.iter().filter(|row| !exact(row)) {
        match index.get(row.key.as_str()).map_or(&[][..], Vec::as_slice) {
            [] => {
                joined.report.unknown += 1;
                joined.stranger.get_or_insert_with(|| row.key.clone());
            }
            [id] => joined.give(*id, row),
            ids => {
                if joined.report.ambiguous == 0 {
                    joined.report.notes.push(shared(&row.key, ids, keys));
                }
                joined.report.ambiguous += 1;
            }
        }
    }
    joined
}

/// A sentence about the first key that several entities share under a spelling.
fn shared(key: &str, ids: &[u32], keys: &KeyMap) -> String {
    let key_of = |id: u32| &keys.keys()[id as usize];
    let (one, other) = (key_of(ids[0]), key_of(ids[1]));
    format!("`{key}` may mean `{one}` or `{other}`: such texts are left out")
}

/// The ids that each key of a text file means under a spelling of the graph's keys.
fn index(keys: &KeyMap, join: Join) -> HashMap<Cow<'_, str>, Vec<u32>> {
    let mut index: HashMap<Cow<'_, str>, Vec<u32>> = HashMap::new();
    for (id, key) in (0u32..).zip(keys.keys()) {
        let name = match join {
            Join::Id => Cow::Owned(id.to_string()),
            Join::LastSegment => last_segment(key).into(),
            Join::WithoutFirstLetter => key.char_indices().nth(1).map_or("", |(at, _)| &key[at..]).into(),
            Join::Key | Join::Auto => key.as_str().into(),
        };
        index.entry(name).or_default().push(id);
    }
    index
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
    use super::super::keys::tests::of_keys as keys;
    use super::*;

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
        Ok((joined.report.join, joined.texts, joined.report.unknown))
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
    fn an_exact_key_goes_before_any_other_meaning() {
        let text = |pairs: &[(&str, &str)], map: &[&str]| {
            let texts = joined(pairs, map, Join::Auto).unwrap().1;
            texts.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>()
        };
        assert_eq!(text(&[("0", "x"), ("1", "y")], &["70", "50"]), ["", ""]);
        assert_eq!(text(&[("at", "x"), ("rain", "y")], &["cat", "train"]), ["", ""]);
    }

    #[test]
    fn a_key_that_may_mean_several_gives_its_text_to_none_and_says_so() {
        let map = keys(&["http://x/a", "http://y/a", "http://y/b"]);
        let found = join(Path::new("file.txt"), &rows(&[("a", "?"), ("b", "of b")]), &map, Join::LastSegment)
            .unwrap();
        assert_eq!((found.texts[..2].to_vec(), found.report.ambiguous), (vec![None, None], 1));
        assert_eq!(
            found.report.notes,
            ["`a` may mean `http://x/a` or `http://y/a`: such texts are left out"]
        );
    }

    #[test]
    fn numbers_that_may_be_ids_or_keys_are_refused() {
        let map: Vec<String> =
            (0..10).map(|i| if i < 3 { (i + 4).to_string() } else { format!("k{i}") }).collect();
        let map: Vec<&str> = map.iter().map(String::as_str).collect();
        let numbers: Vec<String> = (0..10).map(|i| i.to_string()).collect();
        let pairs: Vec<(&str, &str)> =
            numbers.iter().map(|number| (number.as_str(), number.as_str())).collect();
        let error = joined(&pairs, &map, Join::Auto).unwrap_err();
        assert_eq!(error.to_string(), "file.txt: its keys may be those of 3 entities, or the ids of 10");
        assert!(error.hint_text().unwrap().contains("join"));
        assert_eq!(joined(&pairs, &map, Join::Id).unwrap().2, 0);
        // As ids, or as Wikidata's without their letter.
        assert!(joined(&pairs[..3], &["Q2", "Q0", "Q1"], Join::Auto).is_err());
    }

    #[test]
    fn rows_add_up_and_what_is_odd_is_said() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("d.txt"), "a\tnan\nb\tx\nb\ty\nc\t\nz\tw\nd\tNaN\n").unwrap();
        let map = keys(&["a", "b", "c", "d"]);
        let mut gathering = Gathering::new(dir.path(), &map, TextKind::Description);
        gathering.add(&toml::from_str("file = 'd.txt'").unwrap()).unwrap();
        gathering.add_column(Path::new("t.tsv"), vec![None; 4]);
        let report = &gathering.reports[0];
        assert_eq!(
            (report.rows, report.unknown, report.empty, report.repeated, report.found),
            (6, 1, 1, 1, 3)
        );
        let notes = [
            "d.txt: 1 texts have a key that has one already, such as `b`: the first counts",
            "d.txt: 2 texts are words for a missing value, such as `nan`: leave them empty",
        ];
        assert_eq!(report.notes, notes);
        assert_eq!(gathering.reports[1].notes, ["t.tsv: all its 4 texts are empty"]);
    }

    #[test]
    fn unknown_keys_are_counted_and_empty_texts_absent() {
        let pairs = [("b", ""), ("z", "x"), ("b", "second"), ("b", "third")];
        let (_, texts, unknown) = joined(&pairs, &["a", "b"], Join::Key).unwrap();
        assert_eq!((texts, unknown), (vec![None, Some("second".to_owned())], 1));
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
