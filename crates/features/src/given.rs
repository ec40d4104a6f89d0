//! Given features: rows that somebody else made find their entities.
//!
//! | file | rows |
//! |---|---|
//! | `.npy` | f16, f32, f64; C or Fortran order |
//! | `.npz`, `.safetensors` | the array with two axes, or one array per entity key |
//! | `.pth`, `.pt`, `.pkl` | what `torch.save` writes of a tensor or a dictionary with tensors; nothing is executed |
//!
//! Lists of visual words (module `words`) become rows by the words' vectors.
//!
//! Texts beside a matrix, one for each row, are its keys; numbers beside it, which may be ids of another graph, are refused.
//!
//! HDF5 is not read: the pure Rust readers of it are young, and the C library is a dependency we do without.

use mkg::graph::Entity;
use mkg::raw::{Lines, trimmed, unlike};
use recipe::UnknownKeys;
use stage::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

use crate::FeatureTable;

mod numpy;
mod read;
mod torch;
mod words;

pub use read::{GivenRows, Wanted, read};
pub(crate) use words::words;

/// The way from rows to their entities.
#[derive(Clone, Copy, Debug)]
pub struct Mapping<'a> {
    /// The file that names the rows: line i has the key of row i's entity.
    pub keys: Option<&'a Path>,
    /// The lot of a key that no entity has.
    pub unknown: UnknownKeys,
    /// Says that a row of zeros is no features.
    pub zero_is_absent: bool,
}

/// Gives entities the rows that were read from `file`.
///
/// Rows are named by their file (one tensor per key), by `mapping.keys`, or by nobody: then row i is entity i. Entities
/// that nobody names are absent.
///
/// # Errors
/// [`stage::Kind::Data`] where the numbers of rows differ, a key is unknown or twice there, a number is not finite,
/// or no entity has features.
pub fn join(rows: &GivenRows, file: &Path, mapping: Mapping, entities: &[Entity]) -> Result<FeatureTable> {
    check_finite(rows).map_err(|e| e.at(file))?;
    let owners = owners(rows, file, mapping, entities)?;
    let mut table = FeatureTable::absent(entities.len(), rows.width);
    for (owner, row) in owners.into_iter().zip(rows.values.chunks_exact(rows.width)) {
        let is_absent = mapping.zero_is_absent && row.iter().all(|value| *value == 0.0);
        if let Some(entity) = owner.filter(|_| !is_absent) {
            table.set(entity, row);
        }
    }
    if table.count_present() == 0 {
        let message = format!("no entity has features: none of {} rows is one's and not zero", rows.count);
        return Err(Error::data(message).at(file));
    }
    Ok(table)
}

pub(crate) fn check_finite(rows: &GivenRows) -> Result<()> {
    let Some(i) = rows.values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let (row, column) = (i / rows.width, i % rows.width);
    let whose = rows.keys.get(row).map_or(String::new(), |key| format!("`{key}`, "));
    let message = format!("{whose}column {column} is {}, not a finite 32-bit number", rows.values[i]);
    let error = Error::data(message).row(row as u64);
    Err(if rows.values[i].is_nan() {
        error.hint("where NaN stands for no features, in Python: np.nan_to_num(features) gives rows of zeros, which are absent")
    } else {
        error.hint("numbers beyond 3.4e38 do not fit; divide the features by a constant")
    })
}

/// The entity of each row; none for a key that is skipped.
fn owners(
    rows: &GivenRows,
    file: &Path,
    mapping: Mapping,
    entities: &[Entity],
) -> Result<Vec<Option<usize>>> {
    match (rows.keys.as_slice(), mapping.keys) {
        ([], None) => {
            require_same(rows, file, entities.len(), "the graph has", "entities")?;
            Ok((0..entities.len()).map(Some).collect())
        }
        ([], Some(keys)) => {
            let lines = Lines::read(keys)?;
            let (numbers, named): (Vec<u64>, Vec<&str>) =
                lines.numbered().map(|(number, line)| (number, trimmed(line))).unzip();
            let owners = find(&named, entities, mapping.unknown, |e, i| e.at(keys).line(numbers[i]))?;
            require_same(rows, file, named.len(), &format!("{} names", keys.display()), "entities")?;
            Ok(owners)
        }
        (named, None) => find(named, entities, mapping.unknown, |e, _| e.at(file)),
        (_, Some(keys)) => {
            let message = "names its rows itself, so `keys` has nothing to say";
            Err(Error::usage(message).at(file).hint(format!("leave out `keys = {keys:?}`")))
        }
    }
}

fn require_same(rows: &GivenRows, file: &Path, count: usize, whose: &str, what: &str) -> Result<()> {
    if rows.count == count {
        return Ok(());
    }
    let error = Error::data(format!("{} rows, but {whose} {count} {what}", rows.count)).at(file);
    Err(error.hint("name the rows' entities with `keys` in the recipe"))
}

/// The entity of each key; `place` says where key number i stands.
fn find(
    keys: &[impl AsRef<str>],
    entities: &[Entity],
    unknown: UnknownKeys,
    place: impl Fn(Error, usize) -> Error,
) -> Result<Vec<Option<usize>>> {
    let ids: HashMap<&str, usize> = entities.iter().map(|entity| entity.key.as_str()).zip(0..).collect();
    let owners: Vec<Option<usize>> = keys.iter().map(|key| ids.get(key.as_ref()).copied()).collect();
    let (count, all) = (owners.iter().filter(|owner| owner.is_none()).count(), keys.len());
    match owners.iter().position(Option::is_none) {
        Some(i) if unknown == UnknownKeys::Refuse => {
            let key = keys[i].as_ref();
            let message = format!("no entity has the key `{key}`");
            let hint = format!(
                "of the graph's keys {}; of {all} keys, {count} are no entity's, and `unknown_keys = \"skip\"` in the \
                 recipe passes over them",
                unlike(key, entities.iter().map(|entity| entity.key.as_str()))
            );
            return Err(place(Error::data(message).hint(hint), i));
        }
        Some(_) => tracing::info!("{count} of {all} keys are no entity's: skipped"),
        None => {}
    }
    let mut first_at: HashMap<usize, usize> = HashMap::new();
    for (i, owner) in owners.iter().enumerate() {
        let Some(earlier) = owner.and_then(|owner| first_at.insert(owner, i)) else { continue };
        let message = format!("key `{}` stands twice, first as number {}", keys[i].as_ref(), earlier + 1);
        return Err(place(Error::data(message), i));
    }
    Ok(owners)
}

#[cfg(test)]
mod tests;
