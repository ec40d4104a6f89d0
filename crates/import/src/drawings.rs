//! Flags that are drawn into the graph's folder, as the images of the embedded demo.

use mkg::Vocabulary;
use mkg::raw::read_rows;
use stage::work::Work;
use stage::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

use crate::flags::{DEFAULT_HEIGHT, DEFAULT_WIDTH, Flag};

/// The folder of the drawn images in the graph's folder.
pub(crate) const FOLDER: &str = "images";
/// File systems take names of 255 bytes.
const LONGEST_NAME: usize = 200;

/// Flags with the names of their image files, and how many descriptions belong to no entity.
#[derive(Debug, Default)]
pub(crate) struct Drawings {
    flags: Vec<(String, Flag)>,
    pub(crate) unknown: usize,
}

impl Drawings {
    /// Reads `key<TAB>description` lines, perhaps after the header `key<TAB>flag`, and lists the file to be drawn
    /// among its entity's images. The last of several descriptions for one key wins.
    pub(crate) fn read(path: &Path, vocabulary: &mut Vocabulary) -> Result<Drawings> {
        let keys = vocabulary.entities.iter().enumerate();
        let ids: HashMap<String, usize> = keys.map(|(id, entity)| (entity.key.clone(), id)).collect();
        let mut drawings = Drawings::default();
        let rows = read_rows(path)?;
        let header = rows.first().is_some_and(|row| row.key == "key" && row.text.as_deref() == Some("flag"));
        for row in rows.into_iter().skip(usize::from(header)) {
            let Some(&id) = ids.get(&row.key) else {
                drawings.unknown += 1;
                continue;
            };
            let flag = row.text.as_deref().unwrap_or_default().parse::<Flag>();
            let flag = flag.map_err(|error| row.error(path, error.to_string()))?;
            let name = file_name(&row.key, id);
            vocabulary.entities[id].images = vec![name.clone()];
            drawings.flags.push((name, flag));
        }
        Ok(drawings)
    }

    pub(crate) fn len(&self) -> usize {
        self.flags.len()
    }

    /// Draws every flag into the folder of `work`.
    pub(crate) fn write(&self, work: &Work) -> Result<()> {
        let folder = work.path(FOLDER);
        for (name, flag) in &self.flags {
            stage::interrupt::check()?;
            let path = folder.join(name);
            let png = flag.draw_png(DEFAULT_WIDTH, DEFAULT_HEIGHT);
            stage::files::write_bytes(
                &path,
                &png.map_err(|error| Error::data(error.to_string()).at(&path))?,
            )?;
        }
        Ok(())
    }
}

/// A file name that says which key it is and that every file system takes: what is no letter, digit, `-`, `_` or
/// inner dot becomes `%2F`, and a long name ends in the entity's id instead.
fn file_name(key: &str, id: usize) -> String {
    let mut name = String::with_capacity(key.len() + 4);
    for (i, byte) in key.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if i > 0 => name.push('.'),
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    if name.len() > LONGEST_NAME {
        name.truncate(LONGEST_NAME);
        // No shorter name can hold a tilde, so this one is nobody else's.
        name.push_str(&format!("~{id}"));
    }
    name + ".png"
}

#[cfg(test)]
mod tests {
    use super::*;
    use mkg::Entity;

    #[test]
    fn every_key_makes_a_safe_name() {
        assert_eq!(file_name("United_Kingdom", 0), "United_Kingdom.png");
        assert_eq!(file_name("../etc", 0), "%2E.%2Fetc.png");
        assert_eq!(file_name("Côte d'Or", 0), "C%C3%B4te%20d%27Or.png");
        assert_eq!(file_name(&"x".repeat(900), 7), format!("{}~7.png", "x".repeat(200)));
        assert_eq!(file_name("", 0), ".png");
    }

    fn read(text: &str) -> (Result<Drawings>, Vocabulary) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flags.tsv");
        std::fs::write(&path, text).unwrap();
        let entity = |key: &str| Entity { key: key.into(), ..Entity::default() };
        let mut vocabulary = Vocabulary { entities: vec![entity("fr"), entity("jp")], relations: Vec::new() };
        (Drawings::read(&path, &mut vocabulary), vocabulary)
    }

    #[test]
    fn flags_become_images_of_their_entities() {
        let (drawings, vocabulary) =
            read("key\tflag\njp\tplain white; disc red 0.5 0.5 0.3\nxx\tplain red\n");
        let drawings = drawings.unwrap();
        assert_eq!((drawings.len(), drawings.unknown), (1, 1));
        assert_eq!(vocabulary.entities[1].images, ["jp.png"]);
        assert!(vocabulary.entities[0].images.is_empty());
    }

    #[test]
    fn a_wrong_description_is_named_with_its_line() {
        let error = read("key\tflag\njp\tplain whit\n").0.unwrap_err().to_string();
        assert!(error.ends_with("flags.tsv: line 2: expected a colour, found `whit` at column 7"), "{error}");
    }
}
