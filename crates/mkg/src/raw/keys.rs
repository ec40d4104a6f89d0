//! Keys and their ids.

use stage::{Error, Kind, Result};
use std::collections::HashMap;
use std::path::Path;

use super::columns;
use super::lines::{Lines, trimmed};

/// The keys of all entities or relations, each at the position of its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyMap {
    keys: Vec<String>,
    ids: HashMap<String, u32>,
}

impl KeyMap {
    /// Reads an id map: `key id` lines, with or without a count line before them. What separates the two is a tab,
    /// or else the last space, so that keys may hold spaces.
    pub(super) fn read(path: &Path) -> Result<KeyMap> {
        KeyMap::of(&Lines::read(path)?)
    }

    /// The id map that these lines are.
    pub(super) fn of(lines: &Lines) -> Result<KeyMap> {
        let pairs = lines.body()?.map(|(number, line)| pair(lines, number, line));
        KeyMap::from_pairs(lines, pairs.collect::<Result<_>>()?)
    }

    /// Puts every key at its id; ids must be all of `0..n`, each once, in whatever order.
    fn from_pairs(lines: &Lines, pairs: Vec<(u64, &str, u64)>) -> Result<KeyMap> {
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
        // As many ids as places, none twice, none out of range: every place is taken.
        let mut map = KeyMap::default();
        for (number, key) in holders.into_iter().flatten() {
            map.push(key).map_err(|error| lines.locate(number, error))?;
        }
        Ok(map)
    }

    /// Adds a key with the next id; a key must not come twice.
    pub(super) fn push(&mut self, key: &str) -> Result<u32> {
        let id = self.keys.len() as u32;
        if let Some(before) = self.ids.insert(key.to_owned(), id) {
            return Err(Error::new(Kind::Data, format!("key `{key}` has id {before} already")));
        }
        self.keys.push(key.to_owned());
        Ok(id)
    }

    /// The id of `key`.
    pub(super) fn id(&self, key: &str) -> Option<u32> {
        self.ids.get(key).copied()
    }

    /// All keys in the order of their ids.
    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// All keys as texts, in the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.keys.iter().map(String::as_str)
    }

    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

fn pair<'a>(lines: &Lines, number: u64, line: &'a str) -> Result<(u64, &'a str, u64)> {
    let line = trimmed(line);
    let (key, id) = line.rsplit_once('\t').or_else(|| line.rsplit_once(' ')).ok_or_else(|| {
        let error = lines.error(number, "expected a key and an id, found one column");
        error.hint(
            columns::hint(line).unwrap_or_else(|| "an id map holds `key<TAB>id` or `key id`".to_owned()),
        )
    })?;
    let (key, id) = (trimmed(key), trimmed(id));
    let parsed = id.parse().map_err(|_| {
        let hint = "an id map has the key first, the id last, and no header; a readable table begins with a header \
            whose first column is `key`";
        lines.error(number, format!("expected an id, found `{id}`")).hint(hint)
    })?;
    Ok((number, key, parsed))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::fixture::{self, Written};
    use proptest::prelude::*;

    fn read(text: &str) -> Result<KeyMap> {
        KeyMap::read(&Written::new(text).path())
    }

    /// The map that numbers these keys.
    pub(in crate::raw) fn of_keys(keys: &[&str]) -> KeyMap {
        let mut map = KeyMap::default();
        keys.iter().for_each(|key| assert!(map.push(key).is_ok()));
        map
    }

    fn complaint(text: &str) -> String {
        fixture::complaint(read(text))
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
            assert_eq!(read(text).unwrap().keys(), ["a b", "č"], "{text:?}");
        }
    }

    #[test]
    fn keys_keep_their_odd_characters() {
        let map = read("<http://dbpedia.org/resource/Naga,_Sur> 0\nAC/DC 1\n... 2\n").unwrap();
        assert_eq!(map.keys(), ["<http://dbpedia.org/resource/Naga,_Sur>", "AC/DC", "..."]);
        assert_eq!(map.id("AC/DC"), Some(1));
    }

    #[test]
    fn wrong_maps_are_refused_with_their_line() {
        assert_eq!(complaint("a\t0\nb\t0\n"), "line 2: id 0 was given on line 1 already");
        assert_eq!(complaint("a\t0\na\t1\n"), "line 2: key `a` has id 0 already");
        assert_eq!(complaint("a\t0\nb\t2\n"), "line 2: id 2 is out of range 0..2: the ids have holes");
        assert_eq!(complaint("a\t0\nb\t-1\n"), "line 2: expected an id, found `-1`");
        assert_eq!(complaint("a\t0\nb\n"), "line 2: expected a key and an id, found one column");
        assert_eq!(
            complaint("a\t0\nb\t4294967296\n"),
            "line 2: id 4294967296 is out of range 0..2: the ids have holes"
        );
        assert_eq!(complaint("a\t0\n\t1\n"), "line 2: expected a key and an id, found one column");
        assert_eq!(complaint("3\na\t0\nb\t1\n"), "line 1: the count line says 3, but 2 lines follow");
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
            let map = read(&text).unwrap();
            prop_assert_eq!(map.keys(), keys.as_slice());
            prop_assert!(keys.iter().enumerate().all(|(id, key)| map.id(key) == Some(id as u32)));
        }
    }
}
