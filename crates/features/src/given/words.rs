//! Visual words of entities, as MyGO publishes them: ids in a vocabulary that has a vector for each word.

use mkg::graph::Entity;
use serde::Deserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use stage::files::{read_bytes, text};
use stage::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::{GivenRows, Wanted, member, members, open_archive, read, require_memory};

/// Returns for each key the mean of its words' vectors; a repeated word counts each time. A list of only padding gives
/// zeros. If `entities` are given, the keys in the file are their ids.
pub(crate) fn words(file: &Path, vectors: &Path, entities: Option<&[Entity]>) -> Result<GivenRows> {
    let table = read(vectors, Wanted::default())?;
    if let Some(key) = table.keys.first() {
        let error = Error::data(format!("names its rows, such as `{key}`, but word i has row i")).at(vectors);
        return Err(
            error.hint("save the vectors as one matrix, (word, width), in the order of the words' ids")
        );
    }
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

/// The mean of the words' vectors without padding, whose id is the number of vectors; or the first higher id.
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
    let is_zip = path.extension().is_some_and(|extension| extension == "zip");
    let bytes = if is_zip { unzipped(path)? } else { read_bytes(path)? };
    // A number of two bytes or more, with its comma, takes eight bytes in memory.
    require_memory(4 * bytes.len() as u64)?;
    let hint = "visual words are one object: {\"key\": [17, 8191, ...], ...}";
    let text = text(bytes)?;
    let mut json = serde_json::Deserializer::from_str(&text);
    let lists = json.deserialize_map(Lists).and_then(|lists| json.end().map(|()| lists));
    lists.map_err(|e| Error::data(e.to_string()).hint(hint))
}

/// Reads lists by key; a repeated key is an error.
struct Lists;

impl<'de> Visitor<'de> for Lists {
    type Value = BTreeMap<String, Vec<usize>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one object of lists")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut lists = BTreeMap::new();
        while let Some((key, list)) = map.next_entry()? {
            if lists.contains_key(&key) {
                return Err(A::Error::custom(format!("key `{key}` stands twice")));
            }
            lists.insert(key, list);
        }
        Ok(lists)
    }
}

fn unzipped(path: &Path) -> Result<Vec<u8>> {
    const DAMAGED: &str = "a damaged zip archive";
    let mut archive = open_archive(path, || Error::data(DAMAGED))?;
    let names = members(&archive);
    let mut content = names.iter().filter(|name| name.ends_with(".json") && !name.starts_with("__MACOSX"));
    let (Some(name), None) = (content.next(), content.next()) else {
        let message = format!("one JSON file was expected in it, but it has {}", names.join(", "));
        return Err(Error::data(message));
    };
    let size = archive.by_name(name).map_err(|e| Error::data(DAMAGED).because(e))?.size();
    require_memory(size)?;
    member(&mut archive, name, size).map_err(|e| Error::data(DAMAGED).because(e))
}
