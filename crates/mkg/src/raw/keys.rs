//! Keys and their ids, from an id map, a readable table or the triples; and human-readable names made from keys.

use percent_encoding::percent_decode_str;
use stage::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use unicode_normalization::UnicodeNormalization;

use super::columns;
use super::lines::{Lines, filled, trimmed};
use super::triples::is_number;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyMap {
    /// Each key at the position of its id.
    pub(super) all: Vec<String>,
    ids: HashMap<String, usize>,
}

impl KeyMap {
    /// Reads an id map: lines `key id`, perhaps after a count line. The separator is a tab, or else the last space, so
    /// that keys may hold spaces. The ids must be all of `0..n`, in any order.
    pub(super) fn of(lines: &Lines) -> Result<KeyMap> {
        let pairs = lines.body()?.map(|(number, line)| pair(lines, number, line));
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        let mut holders = vec![None; pairs.len()];
        for (number, key, id) in &pairs {
            let holder = usize::try_from(*id).ok().and_then(|id| holders.get_mut(id));
            let Some(holder) = holder else {
                let message = format!("id {id} is out of range 0..{}: the ids have holes", pairs.len());
                return Err(lines.error(*number, message));
            };
            if let Some((before, _)) = holder.replace((*number, *key)) {
                return Err(lines.error(*number, format!("id {id} was given on line {before} already")));
            }
        }
        // There are as many ids as places, none twice and none out of range, so every place is taken.
        let mut map = KeyMap::default();
        for (number, key) in holders.into_iter().flatten() {
            map.push(key).map_err(|error| lines.locate(number, error))?;
        }
        Ok(map)
    }

    /// Adds a key with the next id; a repeated key is an error.
    pub(super) fn push(&mut self, key: &str) -> Result<usize> {
        let id = self.all.len();
        if let Some(before) = self.ids.insert(key.to_owned(), id) {
            return Err(Error::data(format!("key `{key}` has id {before} already")));
        }
        self.all.push(key.to_owned());
        Ok(id)
    }

    pub(super) fn id(&self, key: &str) -> Option<usize> {
        self.ids.get(key).copied()
    }

    /// The ids of all keys, grouped by the name that `spell` makes from each key.
    pub(super) fn spelled<'a>(
        &'a self,
        spell: impl Fn(usize, &'a str) -> Cow<'a, str>,
    ) -> HashMap<Cow<'a, str>, Vec<usize>> {
        let mut ids: HashMap<_, Vec<usize>> = HashMap::new();
        for (id, key) in self.all.iter().enumerate() {
            ids.entry(spell(id, key)).or_default().push(id);
        }
        ids
    }

    /// The text `one` or `other` with the first two keys that a name may mean.
    pub(super) fn either(&self, ids: &[usize]) -> String {
        format!("`{}` or `{}`", self.all[ids[0]], self.all[ids[1]])
    }

    pub(super) fn unlike(&self, key: &str) -> String {
        unlike(key, self.all.iter().map(String::as_str))
    }
}

fn pair<'a>(lines: &Lines, number: u64, line: &'a str) -> Result<(u64, &'a str, u64)> {
    let line = trimmed(line);
    let (key, id) = line.rsplit_once('\t').or_else(|| line.rsplit_once(' ')).ok_or_else(|| {
        let hint = columns::separated(line, 2);
        let hint = hint.unwrap_or_else(|| "an id map holds `key<TAB>id` or `key id`".to_owned());
        lines.error(number, "expected a key and an id, found one column").hint(hint)
    })?;
    let (key, id) = (trimmed(key), trimmed(id));
    if key.contains('\t') {
        let error = lines.error(number, "expected a key and an id, found more columns");
        return Err(
            error.hint("an id map holds `key<TAB>id`; the header of a readable table begins with `key`")
        );
    }
    let parsed = id.parse().map_err(|_| {
        let hint = "an id map has the key first, the id last, and no header; a readable table begins with a header \
            whose first column is `key`";
        lines.error(number, format!("expected an id, found `{id}`")).hint(hint)
    })?;
    Ok((number, key, parsed))
}

/// Columns of a table other than `key`, by name, with one cell per key.
type Columns = HashMap<String, Vec<Option<String>>>;

/// Keys, and their texts in a readable table.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// `entities` or `relations`.
    pub(super) called: &'static str,
    pub(super) keys: KeyMap,
    pub(super) columns: Columns,
    /// True if no file lists the keys: the triples do, in order of first appearance.
    pub(super) open: bool,
}

/// The keys of a dataset.
pub(super) struct Listings {
    pub(super) entities: Listing,
    pub(super) relations: Listing,
}

impl Listing {
    /// Reads an id map, or a table whose header begins with `key` and whose line order gives the ids. Without a file,
    /// the listing is open.
    pub(super) fn read(called: &'static str, path: Option<&Path>) -> Result<Listing> {
        let Some(path) = path else {
            return Ok(Listing { called, open: true, ..Listing::default() });
        };
        let lines = Lines::read(path)?;
        let (keys, columns) = match lines.first() {
            Some(header) if is_header(header) => read_table(&lines, header)?,
            _ => (KeyMap::of(&lines)?, HashMap::new()),
        };
        if keys.all.is_empty() {
            return Err(Error::data("lists no keys").at(path));
        }
        Ok(Listing { called, keys, columns, open: false })
    }

    /// The id of a cell of digits, if it is in range.
    pub(super) fn id_in(&self, cell: &str) -> Option<usize> {
        cell.parse().ok().filter(|id| is_number(cell) && *id < self.keys.all.len())
    }

    /// The id of a triple's key; `what` is its place in the triple. An open listing gives a new key the next id.
    pub(super) fn id(&mut self, what: &str, key: &str) -> Result<u32> {
        let id = match self.keys.id(key) {
            None if self.open => self.keys.push(key).ok(),
            known => known,
        };
        id.map(|id| id as u32).ok_or_else(|| {
            let (called, unlike) = (self.called, self.keys.unlike(key));
            let hint = format!("{unlike}; is `import.{called}` the file that belongs to these triples?");
            Error::data(format!("{what} `{key}` is not among the {called}")).hint(hint)
        })
    }
}

/// Tells whether a line is a table's header. `key<TAB>0` is not: it is a line of an id map with an entity called "key".
fn is_header(line: &str) -> bool {
    let mut cells = line.split('\t').map(trimmed);
    cells.next().is_some_and(|first| first.eq_ignore_ascii_case("key"))
        && cells.next().is_none_or(|second| second.parse::<u32>().is_err())
}

fn read_table(lines: &Lines, header: &str) -> Result<(KeyMap, Columns)> {
    let names: Vec<String> = header.split('\t').map(|name| trimmed(name).to_lowercase()).collect();
    if let Some((_, name)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        return Err(lines.error(1, format!("two columns are called `{name}`")));
    }
    let (mut keys, mut columns) = (KeyMap::default(), vec![Vec::new(); names.len() - 1]);
    for (number, line) in lines.numbered().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        if cells.len() != names.len() {
            let message = format!("expected {} columns as in the header, found {}", names.len(), cells.len());
            return Err(lines.error(number, message).hint("cells are separated by single tabs"));
        }
        let key = trimmed(cells[0]);
        if key.is_empty() {
            return Err(lines.error(number, "the key is empty"));
        }
        keys.push(key).map_err(|error| lines.locate(number, error))?;
        for (column, cell) in columns.iter_mut().zip(&cells[1..]) {
            column.push(filled(cell));
        }
    }
    let columns = names.into_iter().skip(1).zip(columns).collect();
    refuse_other_ids(&columns).map_err(|error| error.at(lines.path()))?;
    Ok((keys, columns))
}

/// Refuses a column `id` whose ids differ from the order of the lines.
fn refuse_other_ids(columns: &Columns) -> Result<()> {
    let Some(cells) = columns.get("id") else { return Ok(()) };
    let ids: Option<Vec<usize>> = cells.iter().map(|cell| cell.as_ref()?.parse().ok()).collect();
    let ids = ids.filter(|ids| ids.iter().all(|id| *id < ids.len())).unwrap_or_default();
    match (0..).zip(ids).find(|(place, id)| place != id) {
        Some((place, id)) => {
            let message = format!("the column `id` has {id} where the order of the lines gives {place}");
            Err(Error::data(message)
                .hint("sort the table by `id`, or leave that column out if it is another's"))
        }
        None => Ok(()),
    }
}

/// The part after the last `/` or `#` of a key, without a closing `>`; the whole key if that part is empty.
pub(super) fn last_segment(key: &str) -> &str {
    let key = key.strip_suffix('>').unwrap_or(key);
    match key.rsplit(['/', '#']).next() {
        Some(segment) if !segment.is_empty() => segment,
        _ => key,
    }
}

/// An entity's name from its key: the end of a URI, with spaces for underscores.
pub(super) fn entity_name(key: &str) -> String {
    // A slash separates only in a URI; `AC/DC` is a name.
    let name = if key.contains("://") { last_segment(key) } else { key };
    decode_escapes(&decode_percents(name)).replace('_', " ").trim().to_owned()
}

/// A relation's name from its key: as for an entity, but `wasBornIn` becomes `was born in`.
pub(super) fn relation_name(key: &str) -> String {
    let letters: Vec<char> = entity_name(key).chars().collect();
    let mut name = String::new();
    for (i, &letter) in letters.iter().enumerate() {
        let begins_word = letter.is_uppercase() && i > 0 && letters[i - 1].is_lowercase();
        // An abbreviation keeps its capitals: `hasISBN`.
        let one_capital = letters.get(i + 1).is_none_or(|next| next.is_lowercase());
        if begins_word {
            name.push(' ');
        }
        if begins_word && one_capital {
            name.extend(letter.to_lowercase());
        } else {
            name.push(letter);
        }
    }
    name
}

/// Decodes `%2C` to a comma; keeps text that is not such a code or does not decode to UTF-8.
pub(super) fn decode_percents(text: &str) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(|_| text.to_owned(), Cow::into_owned)
}

/// Decodes `\u00E9` of N-Triples to its letter; keeps text that is not such a code.
fn decode_escapes(text: &str) -> String {
    let mut parts = text.split("\\u");
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match code.and_then(char::from_u32) {
            Some(letter) => decoded.extend([letter.to_string().as_str(), &part[4..]]),
            None => decoded.extend(["\\u", part]),
        }
    }
    decoded
}

/// The look of a key, equal for keys that differ only in bytes: `é` as one character or as two, a non-breaking space or
/// an ordinary one.
pub(super) fn look(key: &str) -> String {
    let key = decode_escapes(key);
    let seen =
        key.nfc().filter(|c| !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'));
    seen.map(|c| if c.is_whitespace() { ' ' } else { c }).collect()
}

/// A key without the parts that people leave out or add when they copy it: case, quotes, brackets, underscores, the
/// front of an address.
fn gist(key: &str) -> String {
    let name = if key.contains("://") { last_segment(key) } else { key };
    let name = look(&decode_percents(name)).replace('_', " ");
    name.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).to_lowercase()
}

/// A sentence about a key that is not in `keys`: the key that it may mean, or an example of the keys.
pub fn unlike<'a>(key: &str, mut keys: impl Iterator<Item = &'a str> + Clone) -> String {
    let (shape, meaning) = (look(trimmed(key)), gist(key));
    if let Some(twin) = keys.clone().find(|other| look(other) == shape) {
        let (twin, key) = (twin.escape_default(), key.escape_default());
        return format!("there is `{twin}`, which looks the same as `{key}` but has other bytes");
    }
    if let Some(other) = keys.clone().find(|other| gist(other) == meaning) {
        return format!("there is `{other}`");
    }
    keys.next().map_or("there are none".to_owned(), |first| format!("they are like `{first}`"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::fixture::{complaint, written};
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Listing> {
        written(text, |path| Listing::read("entities", Some(path)))
    }

    pub(in crate::raw) fn of_keys(keys: &[&str]) -> KeyMap {
        let mut map = KeyMap::default();
        keys.iter().for_each(|key| assert!(map.push(key).is_ok()));
        map
    }

    #[test]
    fn every_published_layout_reads_alike() {
        for text in [
            "a b\t0\nč\t1\n",
            "2\na b\t0\n\nč \t 1\n",
            "2\r\na b\t0\r\nč\t1\r\n",
            "a b 0\nč   1",
            "č 1\na b 0\n",
        ] {
            assert_eq!(read(text).unwrap().keys.all, ["a b", "č"], "{text:?}");
        }
        let odd = read("<http://dbpedia.org/resource/Naga,_Sur> 0\nAC/DC 1\n... 2\n").unwrap().keys;
        assert_eq!(odd.all, ["<http://dbpedia.org/resource/Naga,_Sur>", "AC/DC", "..."]);
        // An entity with the key `key` does not make the file a table.
        assert_eq!(read("key\t0\nlock\t1\n").unwrap().keys.all, ["key", "lock"]);
    }

    #[test]
    fn a_table_gives_keys_and_texts() {
        let listing = read("key\tname\tkind\r\nfr\tFrance\tcountry\r\nČ\t \tcountry\r\n").unwrap();
        assert_eq!(listing.keys.all, ["fr", "Č"]);
        assert_eq!(listing.columns["name"], [Some("France".to_owned()), None]);
        assert!(!listing.columns.contains_key("description"));
    }

    #[test]
    fn wrong_maps_and_tables_are_refused_with_their_line() {
        for (text, says) in [
            ("a\t0\nb\t0\n", "line 2: id 0 was given on line 1 already"),
            ("a\t0\na\t1\n", "line 2: key `a` has id 0 already"),
            ("a\t0\nb\t2\n", "line 2: id 2 is out of range 0..2: the ids have holes"),
            ("a\t0\nb\t-1\n", "line 2: expected an id, found `-1`"),
            ("a\t0\nb\n", "line 2: expected a key and an id, found one column"),
            ("a\t0\nb\t4294967296\n", "line 2: id 4294967296 is out of range 0..2: the ids have holes"),
            ("a\t0\n\t1\n", "line 2: expected a key and an id, found one column"),
            ("3\na\t0\nb\t1\n", "line 1: the count line says 3, but 2 lines follow"),
            ("key\tname\nfr\tFrance\nde\n", "line 3: expected 2 columns as in the header, found 1"),
            ("key\tname\nfr\ta\nfr\tb\n", "line 3: key `fr` has id 0 already"),
            ("key\tname\tname\nfr\ta\tb\n", "line 1: two columns are called `name`"),
            ("key\tname\n", "lists no keys"),
        ] {
            assert_eq!(complaint(read(text)), says);
        }
    }

    #[test]
    fn uris_end_in_names_and_relations_read_as_words() {
        for (key, name) in [
            ("<http://dbpedia.org/resource/Naga,_Camarines_Sur>", "Naga, Camarines Sur"),
            ("http://dbpedia.org/resource/Caf%C3%A9", "Café"),
            (r"<http://a/Caf\u00E9_%2C_b>", "Café , b"),
            ("AC/DC", "AC/DC"),
        ] {
            assert_eq!(entity_name(key), name);
        }
        for (key, name) in [
            ("wasBornIn", "was born in"),
            ("_member_of_domain_topic", "member of domain topic"),
            ("<http://www.w3.org/2000/01/rdf-schema#seeAlso>", "see also"),
            ("hasISBN", "has ISBN"),
        ] {
            assert_eq!(relation_name(key), name);
        }
        assert_eq!(["http://w/entity/Q42", "/m/027rn", "/"].map(last_segment), ["Q42", "027rn", "/"]);
    }

    #[test]
    fn keys_that_people_take_for_each_other() {
        let keys = ["Caf\u{e9}", "New_York", "<http://a/Oslo>"];
        let unlike = |key: &str| super::unlike(key, keys.into_iter());
        let twin = r"there is `Caf\u{e9}`, which looks the same as `Cafe\u{301}` but has other bytes";
        assert_eq!(unlike("Cafe\u{301}"), twin);
        assert!(unlike("New_York\u{200b}").contains(r"New_York\u{200b}"));
        assert_eq!(unlike("\"new york\""), "there is `New_York`");
        assert_eq!(unlike("Oslo"), "there is `<http://a/Oslo>`");
        assert_eq!(unlike("Q42"), "they are like `Caf\u{e9}`");
        assert_eq!(look(r"Caf\u00E9"), look("Cafe\u{301}"));
    }

    #[test]
    fn broken_codes_stay() {
        for text in ["100%", "%2", "%zz", "%ff", "%é"] {
            assert_eq!(decode_percents(text), text);
        }
        assert_eq!(decode_escapes(r"C:\users\u12"), r"C:\users\u12");
    }

    proptest! {
        #[test]
        fn a_map_survives_a_round_trip(
            keys in prop::collection::hash_set("[^\\s\\p{Cc}\u{feff}]([^\t\n\r\0]{0,12}[^\\s\\p{Cc}\u{feff}])?", 1..20),
            counted: bool,
            windows: bool,
            tab: bool,
        ) {
            let keys: Vec<String> = keys.into_iter().collect();
            let (end, gap) = (if windows { "\r\n" } else { "\n" }, if tab { "\t" } else { " " });
            let mut text = if counted { format!("{}{end}", keys.len()) } else { String::new() };
            for (id, key) in keys.iter().enumerate() {
                text.push_str(&format!("{key}{gap}{id}{end}"));
            }
            let map = KeyMap::of(&written(&text, Lines::read).unwrap()).unwrap();
            prop_assert_eq!(&map.all, &keys);
            prop_assert!(keys.iter().enumerate().all(|(id, key)| map.id(key) == Some(id)));
        }
    }
}
