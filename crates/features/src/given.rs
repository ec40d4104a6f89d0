//! Given features: rows from another program are assigned to entities.
//!
//! | file | rows |
//! |---|---|
//! | `.npy` | f16, f32, f64; C or Fortran order |
//! | `.npz`, `.safetensors` | the array with two axes, or one array per entity key |
//! | `.pth`, `.pt`, `.pkl` | what `torch.save` writes of a tensor or a dictionary with tensors; nothing is executed |
//!
//! Lists of visual words (module `words`) become rows through the words' vectors.
//!
//! Texts beside a matrix, one for each row, are the keys of the rows. Whole numbers beside it, which may be ids of
//! another graph, are refused, and so is any other array or list with one item per row.
//!
//! HDF5 is not read: its readers in pure Rust are young, and this crate avoids the dependency on the C library.

use candle_core::safetensors::{BufferedSafetensors, Load};
use candle_core::{DType, Device, Tensor};
use mkg::graph::Entity;
use mkg::raw::{Lines, trimmed, unlike};
use recipe::UnknownKeys;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use stage::files::read_bytes;
use stage::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;
use zip::result::ZipResult;

use crate::{FeatureTable, plain};

mod numpy;
mod torch;
mod words;

pub(crate) use words::words;

const FORMATS: &str = ".npy, .npz, .safetensors, and .pth, .pt or .pkl as torch.save writes them";

/// The rows that a file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenRows {
    /// The key of each row's entity; if empty, the file does not name the rows' entities.
    pub keys: Vec<String>,
    /// The number of rows.
    pub count: usize,
    /// The count of numbers in each row.
    pub width: usize,
    /// `(row, width)`, all finite.
    pub values: Vec<f32>,
}

/// The selection of rows from a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// The tensor's name; without a name, the only tensor with two axes.
    pub tensor: Option<&'a str>,
    /// True if the recipe names the rows' entities: then nothing else in the file is taken for their keys.
    pub keyed: bool,
}

type ReadArray = Box<dyn FnMut(&str) -> Result<Array>>;

/// An open file; only the names and shapes of its tensors have been read.
struct Tensors {
    /// Names and shapes, sorted by name.
    pub list: Vec<(String, Vec<usize>)>,
    /// Lists and dictionaries beside the tensors, with their numbers of items.
    pub lists: Vec<(String, Option<usize>, Array)>,
    pub read: ReadArray,
}

enum Array {
    Numbers(Tensor),
    Texts(Vec<String>),
    /// Anything else, with the error to report if the array is needed.
    Unread(Error),
}

/// Reads the rows in `path` by its extension; others are errors of the kind [`Usage`](stage::Kind::Usage).
pub fn read(path: &Path, wanted: Wanted) -> Result<GivenRows> {
    open(path, wanted).and_then(|tensors| rows(tensors, wanted)).and_then(finite).map_err(|e| e.at(path))
}

fn open(path: &Path, wanted: Wanted) -> Result<Tensors> {
    let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    require_memory(2 * bytes)?;
    match path.extension().unwrap_or_default().to_ascii_lowercase().to_str().unwrap_or_default() {
        "npy" if wanted.tensor.is_some() => {
            let error = Error::usage("a .npy file has one array without a name");
            Err(error.hint("leave out `tensor` in the recipe"))
        }
        "npy" => numpy::array(path),
        "npz" => numpy::archive(path),
        "safetensors" => open_safetensors(path),
        "pth" | "pt" | "pkl" | "pickle" | "bin" => torch::open(path, wanted),
        "h5" | "hdf5" => {
            let hint = "in Python: numpy.save(\"features.npy\", h5py.File(path)[name][:])";
            Err(Error::usage(format!("HDF5 is not read; features come from {FORMATS}")).hint(hint))
        }
        _ => Err(Error::usage(format!("features are read from {FORMATS}"))),
    }
}

fn require_memory(bytes: u64) -> Result<()> {
    let knob = "use a machine with more memory, or features with fewer columns";
    stage::resources::require_memory(bytes, "reading the features", knob)
}

/// The rows of the wanted tensor. Without a name, the rows of the only tensor with two axes, or one row from each
/// tensor if all have one axis and are named like entities. Texts beside a matrix, one for each row, are its keys.
fn rows(tensors: Tensors, wanted: Wanted) -> Result<GivenRows> {
    let list = tensors.list.clone();
    if list.is_empty() {
        return Err(Error::data("no tensors at all"));
    }
    if let Some(name) = wanted.tensor {
        let found = list.iter().find(|(other, _)| other == name);
        let missing = || Error::data(format!("no tensor `{name}`, but {}", names(&list)));
        let (name, shape) = found.ok_or_else(missing)?;
        return matrix(tensors, name, shape, wanted.keyed);
    }
    let matrices: Vec<&(String, Vec<usize>)> = list.iter().filter(|(_, shape)| shape.len() >= 2).collect();
    match (list.as_slice(), matrices.as_slice()) {
        (_, [(name, shape)]) | ([(name, shape)], _) => {
            if list.len() > 1 {
                tracing::info!("of {} tensors `{name}` is read: it has two axes", list.len());
            }
            matrix(tensors, name, shape, wanted.keyed)
        }
        _ if list.iter().all(|(_, shape)| matches!(shape.as_slice(), [_] | [1, _])) => by_key(tensors),
        _ => {
            let message = format!("{} tensors with two axes or more among {}", matrices.len(), names(&list));
            Err(Error::data(message).hint("name one with `tensor` in the recipe"))
        }
    }
}

fn names(list: &[(String, Vec<usize>)]) -> String {
    const MOST: usize = 8;
    let first = list.iter().take(MOST).map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    if list.len() > MOST { format!("{first}, {} more", list.len() - MOST) } else { first }
}

fn matrix(mut tensors: Tensors, name: &str, shape: &[usize], keyed: bool) -> Result<GivenRows> {
    let &[count, width @ (1..)] = shape else { return Err(wrong_shape(name, shape)) };
    require_memory_for([shape])?;
    let keys = if keyed { Vec::new() } else { keys_beside(&mut tensors, name, count)? };
    Ok(GivenRows { keys, count, width, values: numbers(&mut tensors.read, name)? })
}

/// The numbers of a tensor; the last axis varies fastest.
fn numbers(read: &mut ReadArray, name: &str) -> Result<Vec<f32>> {
    let numbers = match read(name)? {
        Array::Numbers(numbers) => numbers,
        Array::Texts(_) => {
            let error = Error::data(format!("`{name}` holds texts, not floating-point numbers"));
            return Err(error.hint("are these the keys of the rows?"));
        }
        Array::Unread(error) => return Err(error),
    };
    if !numbers.dtype().is_float() {
        let kind = numbers.dtype().as_str();
        let error = Error::data(format!("`{name}` holds {kind}, not floating-point numbers"));
        return Err(error.hint("save x.float() of a tensor, x.astype('float32') of an array"));
    }
    let flat = numbers.to_dtype(DType::F32).and_then(|numbers| numbers.flatten_all()?.to_vec1());
    flat.map_err(unread)
}

/// The keys beside the tensor `rows`, which has `count` rows; empty if nothing beside it names the rows.
fn keys_beside(tensors: &mut Tensors, rows: &str, count: usize) -> Result<Vec<String>> {
    let lists = std::mem::take(&mut tensors.lists).into_iter();
    let mut labels: Vec<(String, Array)> =
        lists.filter(|list| list.1.is_none_or(|n| n == count)).map(|(name, _, list)| (name, list)).collect();
    for (name, shape) in &tensors.list {
        let is_beside = matches!(shape.as_slice(), [n] | [n, _] | [1, n] if *n == count);
        if is_beside && name != rows {
            labels.push((name.clone(), (tensors.read)(name)?));
        }
    }
    labels.retain(|(_, array)| array.may_name_rows());
    let (name, holds) = match labels.as_slice() {
        [] => return Ok(Vec::new()),
        [(_, Array::Texts(keys))] if keys.len() == count => return Ok(keys.clone()),
        [(name, Array::Texts(keys))] if keys.len() > count => (name, "several texts for each"),
        [(name, Array::Numbers(_)), ..] => (name, "a whole number for each"),
        [(name, Array::Unread(_)), ..] => (name, "something that is not read"),
        [(name, Array::Texts(_)), ..] => (name, "a text for each, and something else does, too"),
    };
    let error = Error::data(format!("`{name}` beside the rows holds {holds}: does it say whose they are?"));
    Err(error.hint(
        "write the keys of the rows' entities to a file, one a line, and name it with `keys` in the recipe",
    ))
}

impl Array {
    /// Returns whether this array, with one item for each row, may name the rows' entities. Numbers with a fraction,
    /// ids that count up, and masks of zeros and ones do not.
    fn may_name_rows(&self) -> bool {
        let Array::Numbers(numbers) = self else { return true };
        let numbers = numbers.to_dtype(DType::F64).and_then(|numbers| numbers.flatten_all()?.to_vec1());
        let numbers: Vec<f64> = numbers.unwrap_or_default();
        let counts_up = numbers.iter().enumerate().all(|(i, number)| i as f64 == *number);
        let is_mask = numbers.iter().all(|number| [0.0, 1.0].contains(number));
        !counts_up && !is_mask && numbers.iter().all(|number| number.fract() == 0.0)
    }
}

fn wrong_shape(name: &str, shape: &[usize]) -> Error {
    let error = Error::data(format!("tensor `{name}` has shape {shape:?}, expected (entity, width)"));
    match shape {
        [_] => error.hint(
            "in Python: one number for each entity is features.reshape(-1, 1), one entity's vector features.reshape(1, -1)",
        ),
        [_, _, _, ..] => error.hint("in Python: features.reshape(len(features), -1)"),
        _ => error,
    }
}

fn by_key(mut tensors: Tensors) -> Result<GivenRows> {
    let list = &tensors.list;
    require_memory_for(list.iter().map(|(_, shape)| shape.as_slice()))?;
    let (first, shape) = &list[0];
    let &[.., width @ (1..)] = shape.as_slice() else { return Err(wrong_shape(first, shape)) };
    let mut rows = GivenRows { keys: Vec::new(), count: list.len(), width, values: Vec::new() };
    for (name, shape) in list {
        if let Some(other) = shape.last().filter(|other| **other != width) {
            return Err(Error::data(format!("`{name}` has {other} numbers, but `{first}` has {width}")));
        }
        rows.values.extend(numbers(&mut tensors.read, name)?);
        rows.keys.push(name.clone());
    }
    Ok(rows)
}

/// Refuses rows with a number that is not finite.
fn finite(rows: GivenRows) -> Result<GivenRows> {
    let Some(i) = rows.values.iter().position(|value| !value.is_finite()) else { return Ok(rows) };
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

/// Requires memory for tensors of these shapes: 64 bits per number as stored, 64 more in a tensor, and 32 bits twice.
fn require_memory_for<'a>(shapes: impl IntoIterator<Item = &'a [usize]>) -> Result<()> {
    let counts =
        shapes.into_iter().map(|shape| shape.iter().fold(1, |count, axis| axis.saturating_mul(count)));
    require_memory(counts.fold(0, usize::saturating_add).saturating_mul(24) as u64)
}

/// The bytes of numbers of `size` bytes each, lowest byte first.
fn little_endian(bytes: &[u8], size: usize, is_big_endian: bool) -> Cow<'_, [u8]> {
    if !is_big_endian {
        return bytes.into();
    }
    bytes.chunks_exact(size).flat_map(|one| one.iter().rev()).copied().collect()
}

/// The tensor of these bytes; the lowest byte of each number comes first.
fn tensor(bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu).map_err(unread)
}

fn unread(error: candle_core::Error) -> Error {
    Error::data("numbers that cannot be read").because(plain(error))
}

fn open_safetensors(path: &Path) -> Result<Tensors> {
    let bytes = read_bytes(path)?;
    let lists = metadata(&bytes);
    let file = BufferedSafetensors::new(bytes)
        .map_err(|e| Error::data("not a whole safetensors file").because(plain(e)))?;
    let tensors = file.tensors().into_iter();
    let mut list: Vec<_> = tensors.map(|(name, tensor)| (name, tensor.shape().to_vec())).collect();
    list.sort();
    let read = Box::new(move |name: &str| {
        let stored = file.get(name).map_err(unread)?;
        let numbers = match stored.dtype() {
            Dtype::I8 | Dtype::BOOL => tensor(stored.data(), DType::U8, stored.shape())?,
            Dtype::U64 => tensor(stored.data(), DType::I64, stored.shape())?,
            _ => stored.load(&Device::Cpu).map_err(unread)?,
        };
        Ok(Array::Numbers(numbers))
    });
    Ok(Tensors { list, lists, read })
}

/// The lists and objects that a safetensors file has as JSON in its metadata.
fn metadata(bytes: &[u8]) -> Vec<(String, Option<usize>, Array)> {
    let header = SafeTensors::read_metadata(bytes).ok();
    let texts = header.and_then(|(_, header)| header.metadata().clone()).unwrap_or_default();
    let lists = texts.into_iter().filter_map(|(name, text)| {
        let count = match serde_json::from_str(&text).ok()? {
            Value::Array(items) => items.len(),
            Value::Object(items) => items.len(),
            _ => return None,
        };
        Some((name, Some(count), Array::Unread(Error::data("metadata"))))
    });
    lists.collect()
}

type Archive = ZipArchive<BufReader<File>>;

/// Opens the zip archive at `path`; `damaged` makes the error if the file is not one.
fn open_archive(path: &Path, damaged: impl Fn() -> Error) -> Result<Archive> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    ZipArchive::new(BufReader::new(file)).map_err(|e| damaged().because(e))
}

/// The names of an archive's members.
fn members(archive: &Archive) -> Vec<String> {
    archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect()
}

/// The content of an archive's member, up to `most` bytes.
fn member(archive: &mut Archive, name: &str, most: u64) -> ZipResult<Vec<u8>> {
    let mut bytes = Vec::new();
    archive.by_name(name)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The rules that assign rows to entities.
#[derive(Clone, Copy, Debug)]
pub struct Mapping<'a> {
    /// The file that names the rows: line i has the key of row i's entity.
    pub keys: Option<&'a Path>,
    /// The treatment of a key that belongs to no entity.
    pub unknown: UnknownKeys,
    /// True if a row of zeros means that its entity has no features.
    pub zero_is_absent: bool,
}

/// Assigns the rows of `file` to entities.
///
/// The keys of the rows come from their file (one tensor per key) or from `mapping.keys`; without keys, row i belongs
/// to entity i. Entities without a row are absent.
///
/// # Errors
/// [`stage::Kind::Data`] if the number of rows is wrong, a key is unknown or repeated, or no entity has features.
pub fn join(rows: &GivenRows, file: &Path, mapping: Mapping, entities: &[Entity]) -> Result<FeatureTable> {
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

/// The entity of each row; none for a key that is skipped.
fn owners(
    rows: &GivenRows,
    file: &Path,
    mapping: Mapping,
    entities: &[Entity],
) -> Result<Vec<Option<usize>>> {
    match (rows.keys.as_slice(), mapping.keys) {
        ([], None) => {
            require_same(rows, file, entities.len(), "the graph has")?;
            Ok((0..entities.len()).map(Some).collect())
        }
        ([], Some(keys)) => {
            let lines = Lines::read(keys)?;
            let (numbers, named): (Vec<u64>, Vec<&str>) =
                lines.numbered().map(|(number, line)| (number, trimmed(line))).unzip();
            let owners = find(&named, entities, mapping.unknown, |e, i| e.at(keys).line(numbers[i]))?;
            require_same(rows, file, named.len(), &format!("{} names", keys.display()))?;
            Ok(owners)
        }
        (named, None) => find(named, entities, mapping.unknown, |e, _| e.at(file)),
        (_, Some(keys)) => {
            let message = "names its rows itself, so `keys` has nothing to say";
            Err(Error::usage(message).at(file).hint(format!("leave out `keys = {keys:?}`")))
        }
    }
}

fn require_same(rows: &GivenRows, file: &Path, count: usize, whose: &str) -> Result<()> {
    if rows.count == count {
        return Ok(());
    }
    let error = Error::data(format!("{} rows, but {whose} {count} entities", rows.count)).at(file);
    Err(error.hint("name the rows' entities with `keys` in the recipe"))
}

/// Finds the entity of each key; `place` says where key number i stands.
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
