//! Files that say which keys of two datasets mean the same.

use recipe::TextSource;
use stage::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

use super::keys::KeyMap;
use super::lines::Lines;
use super::texts::TextRow;

/// Translates the rows' keys into the dataset's own: first from another dataset's ids to its keys, then through
/// links. A key without a translation finds nothing, one with several finds them all.
pub(super) fn translate(root: &Path, source: &TextSource, mut rows: Vec<TextRow>) -> Result<Vec<TextRow>> {
    if let Some(ids) = &source.ids {
        rows = through_ids(&root.join(&source.file), &KeyMap::read(&root.join(ids))?, rows)?;
    }
    match &source.via {
        Some(via) => through_links(&root.join(via), rows),
        None => Ok(rows),
    }
}

fn through_ids(path: &Path, keys: &KeyMap, mut rows: Vec<TextRow>) -> Result<Vec<TextRow>> {
    for row in &mut rows {
        let id = row.key.parse::<usize>();
        let key = id.ok().and_then(|id| keys.keys().get(id)).ok_or_else(|| {
            row.error(
                path,
                format!("`{}` is no id in 0..{} of the map that `ids` names", row.key, keys.len()),
            )
        })?;
        row.key.clone_from(key);
    }
    Ok(rows)
}

fn through_links(path: &Path, rows: Vec<TextRow>) -> Result<Vec<TextRow>> {
    let links = read_links(path)?;
    let none = Vec::new();
    let translated: Vec<TextRow> = rows
        .iter()
        .flat_map(|row| {
            let keys = links.get(&row.key).unwrap_or(&none);
            keys.iter().map(|key| TextRow { key: key.clone(), ..row.clone() })
        })
        .collect();
    if translated.is_empty() && !rows.is_empty() {
        let error =
            Error::data(format!("no line begins with a key of the text file, such as `{}`", rows[0].key));
        return Err(error.at(path).hint("links read `other-key <SameAs> key .`"));
    }
    Ok(translated)
}

/// Reads lines `other-key <SameAs> key .`, or `other-key key`.
fn read_links(path: &Path) -> Result<HashMap<String, Vec<String>>> {
    let lines = Lines::read(path)?;
    let mut links: HashMap<String, Vec<String>> = HashMap::new();
    for (number, line) in lines.body()? {
        let mut columns: Vec<&str> = line.split_whitespace().collect();
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
    use crate::fixture::Written;

    fn row(key: &str) -> TextRow {
        TextRow { line: Some(1), key: key.to_owned(), text: Some("text".to_owned()) }
    }

    #[test]
    fn links_lead_to_every_key_they_name() {
        let file = Written::new("/m/1 <SameAs> <http://a> .\r\n/m/1 <SameAs> <http://b> .\r\n/m/2 c\r\n");
        let rows = through_links(&file.path(), vec![row("/m/2"), row("/m/1"), row("/m/9")]).unwrap();
        let keys: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["c", "<http://a>", "<http://b>"]);
        assert!(through_links(&file.path(), vec![row("x")]).is_err());
    }

    #[test]
    fn a_line_that_links_nothing_is_refused() {
        let error = read_links(&Written::new("a <SameAs> b .\nc .\n").path()).unwrap_err().to_string();
        assert!(error.ends_with("line 2: expected `other-key <SameAs> key`, found 1 columns"), "{error}");
    }

    #[test]
    fn ids_of_another_map_become_its_keys() {
        let file = Written::new("2\nx y\t0\nz\t1\n");
        let map = KeyMap::read(&file.path()).unwrap();
        let rows = through_ids(&file.path(), &map, vec![row("1"), row("0")]).unwrap();
        assert_eq!((rows[0].key.as_str(), rows[1].key.as_str()), ("z", "x y"));
        let error = through_ids(&file.path(), &map, vec![row("2")]).unwrap_err().to_string();
        assert!(error.contains("line 1: `2` is no id in 0..2"), "{error}");
    }
}
