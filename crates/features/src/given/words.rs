//! Visual words of entities, as MyGO publishes them: ids of a vocabulary that has a vector for each.

use mkg::graph::Entity;
use stage::files::read_bytes;
use stage::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;

use super::check_finite;
use super::read::{GivenRows, Wanted, read, require_memory};

/// Rows of the mean of each key's words' vectors, a word as often as it stands there. A list of padding alone gives zeros.
/// Keys are those of `entities`' ids, if these are given.
///
/// # Errors
/// [`stage::Kind::Data`] where the file is no such object, a word has no vector, or a key is no id.
pub(crate) fn words(file: &Path, vectors: &Path, entities: Option<&[Entity]>) -> Result<GivenRows> {
    let table = read(vectors, Wanted { tensor: None, keyed: true })?;
    check_finite(&table).map_err(|e| e.at(vectors))?;
    let lists = lists(file).map_err(|e| e.at(file))?;
    let mut rows = GivenRows { keys: Vec::new(), count: lists.len(), width: table.width, values: Vec::new() };
    for (key, ids) in lists {
        rows.values.extend(mean(&table, &ids).map_err(|id| {
            let message = format!("entry `{key}`: word {id}, but there are {} vectors", table.count);
            Error::data(message).at(file).hint("do the words and the vectors belong together?")
        })?);
        rows.keys.push(match entities {
            None => key,
            Some(entities) => by_id(&key, entities).map_err(|e| e.at(file))?,
        });
    }
    Ok(rows)
}

/// The mean of the words' vectors without padding, which has the id behind the last; or the first id beyond that.
fn mean(table: &GivenRows, ids: &[usize]) -> Result<Vec<f32>, usize> {
    let (mut sum, mut words) = (vec![0.0; table.width], 0.0);
    for &id in ids.iter().filter(|id| **id != table.count) {
        let vector = table.values.chunks_exact(table.width).nth(id).ok_or(id)?;
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(*x));
        words += 1.0;
    }
    Ok(sum.into_iter().map(|sum| (sum / f64::max(words, 1.0)) as f32).collect())
}

fn by_id(key: &str, entities: &[Entity]) -> Result<String> {
    let entity = key.parse().ok().and_then(|id: usize| entities.get(id));
    entity.map(|entity| entity.key.clone()).ok_or_else(|| {
        let hint = "without `by_id` in the recipe, keys are those of entities";
        Error::data(format!("`{key}` is no id in 0..{}", entities.len())).hint(hint)
    })
}

/// The object in a JSON file, or in the only member of a zip archive.
fn lists(path: &Path) -> Result<BTreeMap<String, Vec<usize>>> {
    let bytes = if path.extension().is_some_and(|extension| extension == "zip") {
        unzipped(path)?
    } else {
        read_bytes(path)?
    };
    // A number of two bytes or more with its comma becomes eight.
    require_memory(4 * bytes.len() as u64)?;
    let hint = "visual words are one object: {\"key\": [17, 8191, ...], ...}";
    serde_json::from_slice(&bytes).map_err(|e| Error::data(e.to_string()).hint(hint))
}

fn unzipped(path: &Path) -> Result<Vec<u8>> {
    let damaged = |error| Error::data("a damaged zip archive").because(error);
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let is_content = |name: &&String| name.ends_with(".json") && !name.starts_with("__MACOSX");
    let [name] = names.iter().filter(is_content).collect::<Vec<_>>()[..] else {
        return Err(Error::data(format!(
            "one JSON file was expected in it, but it has {}",
            names.join(", ")
        )));
    };
    let member = archive.by_name(name).map_err(damaged)?;
    require_memory(member.size())?;
    let (size, mut bytes) = (member.size(), Vec::new());
    let read = member.take(size).read_to_end(&mut bytes);
    read.map_err(|e| Error::data("a damaged zip archive").because(e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use std::io::Write;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    /// Three words of width 2; 3 is padding.
    fn read_words(name: &str, bytes: &[u8], by_id: bool) -> Result<GivenRows> {
        let dir = tempfile::tempdir().unwrap();
        let (file, vectors) = (dir.path().join(name), dir.path().join("visual.npy"));
        std::fs::write(&file, bytes).unwrap();
        let table = Tensor::new(&[[1f32, 0.0], [0.0, 4.0], [8.0, -4.0]], &Device::Cpu).unwrap();
        table.write_npy(&vectors).unwrap();
        let entities: Vec<Entity> =
            ["a", "b", "c"].map(|key| Entity { key: key.into(), ..Entity::default() }).into();
        words(&file, &vectors, by_id.then_some(&entities))
    }

    fn zipped(members: &[(&str, &str)]) -> Vec<u8> {
        let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, content) in members {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    #[test]
    fn features_are_the_mean_of_words_without_padding() {
        let json = r#"{"2": [0, 1, 1, 3, 2], "0": [3, 3], "1": [2]}"#;
        let rows = GivenRows {
            keys: ["0", "1", "2"].map(str::to_owned).into(),
            count: 3,
            width: 2,
            values: vec![0.0, 0.0, 8.0, -4.0, 2.25, 1.0],
        };
        assert_eq!(read_words("x.json", json.as_bytes(), false).unwrap(), rows);
        let zip = zipped(&[("tokens/x.json", json), ("__MACOSX/tokens/._x.json", "junk")]);
        assert_eq!(read_words("x.json.zip", &zip, true).unwrap().keys, ["a", "b", "c"]);
    }

    #[test]
    fn what_is_no_object_of_words_is_refused() {
        let two = zipped(&[("a.json", "{}"), ("b.json", "{}")]);
        for (name, bytes, said) in [
            ("x.json", br#"{"a": [4]}"#.as_slice(), "entry `a`: word 4, but there are 3 vectors"),
            ("x.json", br#"{"a": [-1]}"#, "invalid value"),
            ("x.json", br#"{"a": [[1]]}"#, "invalid type"),
            ("x.json", br#"{"0": [1], "3": [1]}"#, "`3` is no id in 0..3"),
            ("x.zip", b"junk", "a damaged zip archive"),
            ("x.zip", &two, "one JSON file was expected in it, but it has a.json, b.json"),
        ] {
            let error = read_words(name, bytes, said.contains("no id")).unwrap_err();
            assert!(error.kind() == stage::Kind::Data && error.to_string().contains(said), "{error}");
        }
    }
}
