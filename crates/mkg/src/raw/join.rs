//! Matching of texts to the entities or relations that they describe.
//!
//! A text whose key is a key of the graph goes there, even if the key could mean something else. A key that may mean
//! several entities gives its text to none, with a note. Numbers that may be both ids and keys are refused.

use recipe::{Join, TextPart, TextSource};
use serde::{Deserialize, Serialize};
use stage::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::keys::{KeyMap, Listing, last_segment};
use super::lines::filled;
use super::texts::{TextRow, read_source};
use super::triples::is_number;

/// Words that programs write in place of a missing text.
pub(super) const PLACEHOLDERS: [&str; 12] =
    ["nan", "NaN", "NAN", "None", "null", "NULL", "NA", "N/A", "n/a", "<NA>", "#N/A", "undefined"];

/// The kind of a text.
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

/// The results of one text source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextReport {
    /// The kind of the source's texts.
    pub kind: TextKind,
    /// The source's file, relative to the raw folder.
    pub file: String,
    /// The way in which the source's keys were joined.
    pub join: Join,
    /// Rows, after translation through links.
    pub rows: usize,
    /// Rows whose key is not in this graph.
    pub unknown: usize,
    /// Rows without a text.
    pub empty: usize,
    /// Rows whose key or entity already has a text from another row.
    pub repeated: usize,
    /// Rows whose key may mean several entities.
    pub ambiguous: usize,
    /// Entities (or relations) with a text from this source.
    pub found: usize,
    /// Entities among `found` without a text from an earlier source.
    pub used: usize,
    /// All oddities of the source, in words.
    pub notes: Vec<String>,
}

/// Gathers the texts of one kind: from the sources in order, then from a column of the table that lists the keys. An
/// entity's first text wins. Reports the results of each source.
pub(super) fn gather(
    root: &Path,
    listing: &Listing,
    kind: TextKind,
    sources: &[TextSource],
    column: Option<(&Path, Vec<Option<String>>)>,
) -> Result<(Vec<Option<String>>, Vec<TextReport>)> {
    let joined =
        sources.iter().map(|source| Ok((source.file.as_path(), Joined::of_source(root, listing, source)?)));
    let column = column.map(|(file, texts)| Ok((file, Joined::of_column(texts))));
    let keys = &listing.keys;
    let (mut texts, mut reports) = (vec![None; keys.all.len()], Vec::new());
    for joined in joined.chain(column) {
        let (file, joined) = joined?;
        let file = file.to_string_lossy().into_owned();
        let notes = joined.notes(keys, kind).iter().map(|note| format!("{file}: {note}")).collect();
        let (found, before) = (joined.texts.iter().flatten().count(), texts.iter().flatten().count());
        for (text, new) in texts.iter_mut().zip(joined.texts) {
            *text = text.take().or(new);
        }
        let used = texts.iter().flatten().count() - before;
        reports.push(TextReport { kind, file, found, used, notes, ..joined.report });
    }
    Ok((texts, reports))
}

fn without_ids(path: &Path, called: &str) -> Error {
    let error = Error::data(format!("joined by id, but no file lists the ids of the {called}")).at(path);
    error.hint(format!("name the file that does in `import.{called}`, or set `join = \"key\"` for this one"))
}

/// The part of a text that holds `name, description`.
fn part(text: &str, part: TextPart) -> Option<String> {
    let split = text.split_once(',');
    let text = match part {
        TextPart::BeforeComma => split.map_or(text, |(before, _)| before),
        TextPart::AfterComma => split.map_or("", |(_, after)| after),
    };
    filled(text)
}

/// Texts by entity, and a report on their rows.
#[derive(Debug, Default)]
struct Joined {
    report: TextReport,
    texts: Vec<Option<String>>,
    /// The entities that rows name, with or without a text.
    named: HashSet<usize>,
    /// The first key that fits no entity.
    stranger: Option<String>,
}

impl Joined {
    fn of_source(root: &Path, listing: &Listing, source: &TextSource) -> Result<Joined> {
        let (mut rows, repeated) = read_source(root, source)?;
        if let Some(wanted) = source.part {
            rows.iter_mut().for_each(|row| row.text = row.text.take().and_then(|text| part(&text, wanted)));
        }
        let (path, keys) = (&root.join(&source.file), &listing.keys);
        let mut joined = match source.join {
            Join::Auto if listing.open => by_spelling(&rows, keys),
            // Ids in the order of first appearance are ours alone, so no file can know them.
            Join::Id if listing.open => return Err(without_ids(path, listing.called)),
            way => join(path, &rows, keys, way)?,
        };
        if source.join == Join::Auto && joined.report.join == Join::Id && source.field.is_some() {
            let message = "its keys may be ids of the graph, or the numbers of its entries";
            let hint = "say which: `join = \"id\"`, or `key_field` for the field that names the entity";
            return Err(Error::data(message).at(path).hint(hint));
        }
        joined.report.rows = rows.len() + repeated.len();
        joined.report.repeated += repeated.len();
        if let Some(key) = repeated.first() {
            let count = repeated.len();
            joined.report.notes.push(format!(
                "{count} texts have a key that has one already, such as `{key}`: the first counts"
            ));
        }
        Ok(joined)
    }

    fn of_column(texts: Vec<Option<String>>) -> Joined {
        let empty = texts.iter().filter(|text| text.is_none()).count();
        let report = TextReport { join: Join::Id, rows: texts.len(), empty, ..TextReport::default() };
        Joined { report, texts, ..Joined::default() }
    }

    fn give(&mut self, id: usize, row: &TextRow) {
        self.named.insert(id);
        match &row.text {
            None => self.report.empty += 1,
            Some(_) if self.texts[id].is_some() => self.report.repeated += 1,
            text => self.texts[id].clone_from(text),
        }
    }

    fn notes(&self, keys: &KeyMap, kind: TextKind) -> Vec<String> {
        let TextReport { rows, empty, .. } = self.report;
        let mut notes = self.report.notes.clone();
        let found: Vec<&str> = self.texts.iter().flatten().map(String::as_str).collect();
        if found.is_empty() {
            notes.push(match &self.stranger {
                _ if rows == 0 => "holds no texts".to_owned(),
                Some(key) if empty < rows => {
                    let unlike = keys.unlike(key);
                    format!(
                        "none of its {rows} texts belongs to this graph, which has no key `{key}`: {unlike}"
                    )
                }
                _ => format!("all its {rows} texts are empty"),
            });
        }
        notes.extend(most(&found).map(|(text, count)| {
            let all = found.len();
            format!("{count} of its {all} texts are `{text:.60}`: where that says nothing, leave it empty")
        }));
        let is_quoted = |text: &&&str| {
            text.len() > 2 && text.starts_with('"') && text.ends_with('"') && text.contains("\"\"")
        };
        let quoted = found.iter().filter(is_quoted).count();
        if quoted > 0 {
            notes.push(format!("{quoted} texts are quoted as in CSV, and keep their quotes"));
        }
        let words: Vec<&str> = found.into_iter().filter(|text| PLACEHOLDERS.contains(text)).collect();
        // A single name may really be "Nan".
        let least = if matches!(kind, TextKind::Name | TextKind::RelationName) { 2 } else { 1 };
        if words.len() >= least {
            let (count, first) = (words.len(), words[0]);
            notes.push(format!(
                "{count} texts are words for a missing value, such as `{first}`: leave them empty"
            ));
        }
        notes
    }
}

/// The text that more than half of the texts repeat, at least three times, and its count; placeholders do not count.
fn most<'a>(texts: &[&'a str]) -> Option<(&'a str, usize)> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    texts.iter().for_each(|text| *counts.entry(text).or_default() += 1);
    let most =
        counts.into_iter().find(|(text, count)| 2 * count > texts.len() && !PLACEHOLDERS.contains(text));
    most.filter(|(_, count)| *count > 2)
}

/// Joins rows in the given way, or in the way that `choose` finds; the first text of a key wins.
fn join(path: &Path, rows: &[TextRow], keys: &KeyMap, join: Join) -> Result<Joined> {
    match join {
        Join::Auto => return choose(path, rows, keys),
        Join::Id => check_ids(path, rows, keys.all.len())?,
        _ => {}
    }
    let joined = join_by(rows, keys, join);
    if joined.report.unknown == rows.len() && !rows.is_empty() {
        let (way, key) = (word(join), &rows[0].key);
        let message = format!("joined by {way}, nothing is found: no `{key}` in this graph");
        let keys = keys.unlike(key);
        let hint = format!("of the graph's keys {keys}; leave `join` out to take the way that finds most");
        return Err(Error::data(message).at(path).hint(hint));
    }
    Ok(joined)
}

/// The factor by which another way to join must find more entities than the previous way to replace it.
const FAR_MORE: usize = 10;

/// Joins rows by key. Uses another way only if it finds far more entities than chance would.
fn choose(path: &Path, rows: &[TextRow], keys: &KeyMap) -> Result<Joined> {
    let spelled = by_spelling(rows, keys);
    let by_id = join_by(rows, keys, Join::Id);
    let numbers = keys.all.iter().filter(|key| is_number(key)).count();
    let (found, ids) = (spelled.named.len(), by_id.named.len());
    let are_keys = spelled.report.join == Join::Key && (ids <= found || 2 * numbers > keys.all.len());
    if are_keys || ids == 0 || found >= FAR_MORE * ids || spelled.texts == by_id.texts {
        return Ok(spelled);
    }
    if ids >= FAR_MORE * found {
        refuse_beyond(path, rows, keys.all.len())?;
        return Ok(by_id);
    }
    let message = format!("its keys may be those of {found} entities, or the ids of {ids}");
    let hint = "say which with `join` in the recipe: names = [{ file = \"...\", join = \"key\" }], or \"id\"";
    Err(Error::data(message).at(path).hint(hint))
}

/// Refuses numbers beyond the graph's ids: they are ids of something else or begin at 1, so even the numbers in range
/// would give their texts to wrong entities.
fn refuse_beyond(path: &Path, rows: &[TextRow], count: usize) -> Result<()> {
    let ids = || rows.iter().filter_map(|row| Some((row, row.key.parse::<usize>().ok()?)));
    let Some((row, id)) = ids().find(|(_, id)| *id >= count) else { return Ok(()) };
    let from_one = ids().all(|(_, id)| (1..=count).contains(&id));
    let (no_0, hint) = if from_one {
        (", and there is no 0", "do the ids begin at 1? those of this graph begin at 0: subtract 1")
    } else {
        ("", "are they the ids of another dataset? `ids` in the recipe names its map")
    };
    Err(row.error(path, format!("id {id} is out of range 0..{count}{no_0}")).hint(hint))
}

fn by_spelling(rows: &[TextRow], keys: &KeyMap) -> Joined {
    let mut best = join_by(rows, keys, Join::Key);
    // A word without its first letter is another word; a number without its letter is WordNet's key.
    let numbers = rows.iter().all(|row| is_number(&row.key));
    for way in [Some(Join::LastSegment), numbers.then_some(Join::WithoutFirstLetter)].into_iter().flatten() {
        let other = join_by(rows, keys, way);
        let (found, more) = (best.named.len(), other.named.len());
        // A few matches may be chance.
        let many = 2 * more > rows.len().min(keys.all.len());
        if many && more >= FAR_MORE * found {
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

fn word(join: Join) -> String {
    serde_json::to_string(&join).unwrap_or_default()
}

fn join_by(rows: &[TextRow], keys: &KeyMap, join: Join) -> Joined {
    let report = TextReport { join, ..TextReport::default() };
    let mut joined = Joined { report, texts: vec![None; keys.all.len()], ..Joined::default() };
    // An exact key goes before any other meaning.
    let mut others = Vec::new();
    for row in rows {
        match keys.id(&row.key) {
            Some(id) if join != Join::Id => joined.give(id, row),
            _ => others.push(row),
        }
    }
    let index = keys.spelled(|id, key| match join {
        Join::Id => id.to_string().into(),
        Join::LastSegment => last_segment(key).into(),
        Join::WithoutFirstLetter => key.char_indices().nth(1).map_or("", |(at, _)| &key[at..]).into(),
        Join::Key | Join::Auto => key.into(),
    });
    for row in others {
        match index.get(row.key.as_str()).map_or(&[][..], Vec::as_slice) {
            [] => {
                joined.report.unknown += 1;
                joined.stranger.get_or_insert_with(|| row.key.clone());
            }
            [id] => joined.give(*id, row),
            ids => {
                if joined.report.ambiguous == 0 {
                    let either = keys.either(ids);
                    let note = format!("`{}` may mean {either}: such texts are left out", row.key);
                    joined.report.notes.push(note);
                }
                joined.report.ambiguous += 1;
            }
        }
    }
    joined
}

fn check_ids(path: &Path, rows: &[TextRow], count: usize) -> Result<()> {
    if let Some(row) = rows.iter().find(|row| row.key.parse::<usize>().is_err()) {
        let error = row.error(path, format!("expected an id, found `{}`", row.key));
        return Err(error.hint("leave `join` out to take the way that finds most"));
    }
    refuse_beyond(path, rows, count)
}

#[cfg(test)]
mod tests {
    use super::super::keys::tests::of_keys as keys;
    use super::*;

    fn rows(pairs: &[(&str, &str)]) -> Vec<TextRow> {
        (1..).zip(pairs).map(|(line, (key, text))| TextRow::new(Some(line), key, text)).collect()
    }

    fn joined(pairs: &[(&str, &str)], map: &[&str], way: Join) -> Result<(Join, Vec<Option<String>>, usize)> {
        let joined = join(Path::new("file.txt"), &rows(pairs), &keys(map), way)?;
        Ok((joined.report.join, joined.texts, joined.report.unknown))
    }

    #[test]
    fn auto_takes_what_finds_most() {
        for (pairs, map, way) in [
            (&[("0", "x"), ("1", "y")][..], &["a", "b"][..], Join::Id),
            (&[("a", "x"), ("0", "y"), ("b", "z")], &["a", "b"], Join::Key),
            (&[("Q1", "x")], &["http://w/entity/Q1", "http://w/entity/Q2"], Join::LastSegment),
            (&[("00001740", "x")], &["n00004475", "n00001740"], Join::WithoutFirstLetter),
            // WordNet's keys look like ids, but an id has no leading zero.
            (&[("00000001", "x")], &["00000001", "b"], Join::Key),
            (&[("z", "x")], &["a"], Join::Key),
        ] {
            assert_eq!(joined(pairs, map, Join::Auto).unwrap().0, way, "{pairs:?}");
        }
    }

    #[test]
    fn texts_go_where_they_belong_or_nowhere() {
        for (pairs, map, way, expected) in [
            (&[("0", "x"), ("1", "y")][..], &["70", "50"][..], Join::Auto, ["", ""]),
            (&[("at", "x"), ("rain", "y")], &["cat", "train"], Join::Auto, ["", ""]),
            (
                &[("b", ""), ("z", "x"), ("b", "second"), ("b", "third")],
                &["a", "b"],
                Join::Key,
                ["", "second"],
            ),
            // The first letter has two bytes, and one key is a single letter.
            (&[("b", "x")], &["éb", "a"], Join::WithoutFirstLetter, ["x", ""]),
        ] {
            let texts = joined(pairs, map, way).unwrap().1.into_iter().map(Option::unwrap_or_default);
            assert!(texts.eq(expected), "{pairs:?}");
        }
    }

    #[test]
    fn a_key_that_may_mean_several_gives_its_text_to_none_and_says_so() {
        let map = keys(&["http://x/a", "http://y/a", "http://y/b"]);
        let found = join_by(&rows(&[("a", "?"), ("b", "of b")]), &map, Join::LastSegment);
        assert_eq!((found.texts[..2].to_vec(), found.report.ambiguous), (vec![None, None], 1));
        let note = "`a` may mean `http://x/a` or `http://y/a`: such texts are left out";
        assert_eq!(found.report.notes, [note]);
    }

    #[test]
    fn numbers_that_may_be_ids_or_keys_are_refused() {
        let map = ["4", "5", "6", "k3", "k4", "k5", "k6", "k7", "k8", "k9"];
        let pairs = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"].map(|number| (number, number));
        let error = joined(&pairs, &map, Join::Auto).unwrap_err();
        assert_eq!(error.to_string(), "file.txt: its keys may be those of 3 entities, or the ids of 10");
        assert!(error.hint_text().unwrap().contains("join"));
        assert_eq!(joined(&pairs, &map, Join::Id).unwrap().2, 0);
        // The numbers may be ids, or Wikidata's keys without their letter.
        assert!(joined(&pairs[..3], &["Q2", "Q0", "Q1"], Join::Auto).is_err());
    }

    #[test]
    fn ids_that_no_file_lists_join_nothing() {
        let dir = crate::fixture::folder(&[("d.txt", "0\tx\n1\ty\n")]);
        let listing =
            Listing { keys: keys(&["a", "b"]), open: true, called: "entities", ..Listing::default() };
        let source = |join| toml::from_str(&format!("file = 'd.txt'\njoin = '{join}'")).unwrap();
        let gathered = |join| gather(dir.path(), &listing, TextKind::Name, &[source(join)], None);
        let error = gathered("id").unwrap_err().to_string();
        assert!(error.ends_with("d.txt: joined by id, but no file lists the ids of the entities"), "{error}");
        assert_eq!(gathered("auto").unwrap().0, [None, None]);
    }

    #[test]
    fn rows_add_up_and_what_is_odd_is_said() {
        let dir = crate::fixture::folder(&[("d.txt", "a\tnan\nb\tx\nb\ty\nc\t\nz\tw\nd\tNaN\n")]);
        let (keys, column) = (keys(&["a", "b", "c", "d"]), (Path::new("t.tsv"), vec![None; 4]));
        let listing = Listing { keys, ..Listing::default() };
        let source = [toml::from_str("file = 'd.txt'").unwrap()];
        let (_, reports) =
            gather(dir.path(), &listing, TextKind::Description, &source, Some(column)).unwrap();
        let TextReport { rows, unknown, empty, repeated, found, .. } = reports[0];
        assert_eq!((rows, unknown, empty, repeated, found), (6, 1, 1, 1, 3));
        let notes = [
            "d.txt: 1 texts have a key that has one already, such as `b`: the first counts",
            "d.txt: 2 texts are words for a missing value, such as `nan`: leave them empty",
        ];
        assert_eq!(reports[0].notes, notes);
        assert_eq!(reports[1].notes, ["t.tsv: all its 4 texts are empty"]);
        let error = joined(&[("1", "x"), ("2", "y")], &["a", "b"], Join::Auto).unwrap_err();
        assert_eq!(error.to_string(), "file.txt: line 2: id 2 is out of range 0..2, and there is no 0");
        assert_eq!(most(&["x", "a", "x", "x"]), Some(("x", 3)));
        assert!(
            most(&["nan", "nan", "nan"])
                .or(most(&["x", "x"]))
                .or(most(&["x", "x", "x", "a", "b", "c"]))
                .is_none()
        );
    }

    #[test]
    fn parts_of_a_text() {
        for (text, wanted, expected) in [
            ("stool, solid, hard", TextPart::BeforeComma, Some("stool")),
            ("stool, solid, hard", TextPart::AfterComma, Some("solid, hard")),
            ("stool", TextPart::BeforeComma, Some("stool")),
            ("stool,", TextPart::AfterComma, None),
        ] {
            assert_eq!(part(text, wanted).as_deref(), expected, "{text}");
        }
    }
}
