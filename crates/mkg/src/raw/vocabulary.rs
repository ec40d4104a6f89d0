//! The list of entities or relations: an id map, a readable table, or whatever the triples mention.

use stage::{Error, Result};
use std::path::Path;

use super::keys::KeyMap;
use super::lines::{Lines, trimmed};

/// Keys, and the texts that stand beside them in a readable table.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) keys: KeyMap,
    /// Columns of the table other than `key`, with one cell per key.
    columns: Vec<(String, Vec<Option<String>>)>,
    /// No file lists the keys: the triples do, in order of first appearance.
    pub(super) open: bool,
}

impl Listing {
    pub(super) fn open() -> Listing {
        Listing { open: true, ..Listing::default() }
    }

    /// Reads an id map, or a table whose header begins with `key` and whose line order gives the ids.
    pub(super) fn read(path: &Path) -> Result<Listing> {
        let lines = Lines::read(path)?;
        let listing = match lines.first() {
            Some(header) if is_header(header) => read_table(&lines, header)?,
            _ => Listing { keys: KeyMap::of(&lines)?, ..Listing::default() },
        };
        if listing.keys.keys().is_empty() {
            return Err(Error::data("lists no keys").at(path));
        }
        Ok(listing)
    }

    /// Takes a column out, if the table has it.
    pub(super) fn take(&mut self, name: &str) -> Option<Vec<Option<String>>> {
        let position = self.columns.iter().position(|(column, _)| column == name)?;
        Some(self.columns.swap_remove(position).1)
    }

    /// Returns whether an id is one of the keys'.
    pub(super) fn has(&self, id: u32) -> bool {
        (id as usize) < self.keys.len()
    }

    /// The id of a key; an open listing gives a new key the next id.
    pub(super) fn id(&mut self, key: &str) -> Option<u32> {
        match self.keys.id(key) {
            None if self.open => self.keys.push(key).ok(),
            known => known,
        }
    }
}

/// `key<TAB>0` is the first line of an id map that has an entity called "key".
fn is_header(line: &str) -> bool {
    let mut cells = line.split('\t');
    cells.next() == Some("key") && cells.next().is_none_or(|second| second.parse::<u32>().is_err())
}

fn read_table(lines: &Lines, header: &str) -> Result<Listing> {
    let names: Vec<&str> = header.split('\t').collect();
    let columns = names[1..].iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
    let mut listing = Listing { columns, ..Listing::default() };
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
        listing.keys.push(key).map_err(|error| lines.locate(number, error))?;
        for ((_, column), cell) in listing.columns.iter_mut().zip(&cells[1..]) {
            column.push(Some(cell.trim().to_owned()).filter(|text| !text.is_empty()));
        }
    }
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Written;

    fn read(text: &str) -> Result<Listing> {
        Listing::read(&Written::new(text).path())
    }

    #[test]
    fn a_table_gives_keys_and_texts() {
        let mut listing = read("key\tname\tkind\r\nfr\tFrance\tcountry\r\nČ\t \tcountry\r\n").unwrap();
        assert_eq!(listing.keys.keys(), ["fr", "Č"]);
        assert_eq!(listing.take("name").unwrap(), [Some("France".to_owned()), None]);
        assert!(listing.take("description").is_none());
    }

    #[test]
    fn a_table_with_uneven_rows_is_refused() {
        let error = read("key\tname\nfr\tFrance\nde\n").unwrap_err().to_string();
        assert!(error.ends_with("line 3: expected 2 columns as in the header, found 1"), "{error}");
        let error = read("key\tname\nfr\ta\nfr\tb\n").unwrap_err().to_string();
        assert!(error.ends_with("line 3: key `fr` has id 0 already"), "{error}");
        assert!(read("key\tname\n").unwrap_err().to_string().ends_with("lists no keys"));
    }

    #[test]
    fn an_entity_called_key_makes_no_table() {
        assert_eq!(read("key\t0\nlock\t1\n").unwrap().keys.keys(), ["key", "lock"]);
    }
}
