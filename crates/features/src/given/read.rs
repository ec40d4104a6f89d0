//! A file of named tensors, whatever its format, becomes rows.

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use stage::files::read_bytes;
use stage::{Error, Result};
use std::borrow::Cow;
use std::path::Path;

use super::numpy::{Npy, Npz};
use super::torch::Torch;
use crate::plain;

/// The formats, for messages.
const FORMATS: &str = ".npy, .npz, .safetensors, and .pth, .pt or .pkl as torch.save writes them";

/// Rows of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenRows {
    /// The rows' entities by key; where it is empty, rows are in an order that somebody else knows.
    pub keys: Vec<String>,
    /// The number of rows.
    pub count: usize,
    /// Numbers in each.
    pub width: usize,
    /// `(row, width)`; may hold numbers that are not finite.
    pub values: Vec<f32>,
}

/// The rows of a file that are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// The tensor's name; the only one with two axes where it is left out.
    pub tensor: Option<&'a str>,
    /// Says that the recipe names the rows: then nothing that stands beside them is looked at.
    pub keyed: bool,
}

/// Named tensors of which only the names and shapes have been read.
pub(super) trait Tensors {
    /// Names and shapes, sorted by name.
    fn list(&self) -> Vec<(String, Vec<usize>)>;
    /// One of them.
    fn read(&mut self, name: &str) -> Result<Array>;
    /// Lists beside the tensors.
    fn lists(&mut self) -> Vec<(String, Array)> {
        Vec::new()
    }
}

/// Things that a file holds under a name.
#[derive(Debug)]
pub(super) enum Array {
    Numbers(Tensor),
    Texts(Vec<String>),
    /// Something else, with what can be done about it.
    Unread(Error),
}

/// Reads the rows in `path`; its extension says the format.
///
/// # Errors
/// [`stage::Kind::Usage`] for other formats, [`stage::Kind::Data`] where the file is damaged or gives no rows.
pub fn read(path: &Path, wanted: Wanted) -> Result<GivenRows> {
    open(path, wanted).and_then(|mut tensors| rows(tensors.as_mut(), wanted)).map_err(|e| e.at(path))
}

fn open(path: &Path, wanted: Wanted) -> Result<Box<dyn Tensors>> {
    let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    require_memory(2 * bytes)?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "npy" if wanted.tensor.is_some() => {
            let error = Error::usage("a .npy file has one array without a name");
            Err(error.hint("leave out `tensor` in the recipe"))
        }
        "npy" => Ok(Box::new(Npy::open(path)?)),
        "npz" => Ok(Box::new(Npz::open(path)?)),
        "safetensors" => Ok(Box::new(Safetensors::open(path)?)),
        "pth" | "pt" | "pkl" | "pickle" | "bin" => Ok(Box::new(Torch::open(path, wanted)?)),
        "h5" | "hdf5" => {
            let hint = "in Python: numpy.save(\"features.npy\", h5py.File(path)[name][:])";
            Err(Error::usage(format!("HDF5 is not read; features come from {FORMATS}")).hint(hint))
        }
        _ => Err(Error::usage(format!("features are read from {FORMATS}"))),
    }
}

pub(super) fn require_memory(bytes: u64) -> Result<()> {
    let knob = "use a machine with more memory, or features with fewer columns";
    stage::resources::require_memory(bytes, "reading the features", knob)
}

/// The rows of the tensor that is wanted; without its name those of the only one with two axes, or one row from each where
/// all have one axis and are named like entities. Texts that stand beside a matrix, one for each row, are its keys.
fn rows(tensors: &mut dyn Tensors, wanted: Wanted) -> Result<GivenRows> {
    let list = tensors.list();
    let matrices: Vec<&(String, Vec<usize>)> = list.iter().filter(|(_, shape)| shape.len() == 2).collect();
    match (wanted.tensor, list.as_slice(), matrices.as_slice()) {
        (_, [], _) => Err(Error::data("no tensors at all")),
        (Some(name), ..) => match list.iter().find(|(other, _)| other == name) {
            Some((name, shape)) => matrix(tensors, name, shape, wanted.keyed),
            None => Err(Error::data(format!("no tensor `{name}`, but {}", names(&list)))),
        },
        (None, _, [(name, shape)]) | (None, [(name, shape)], _) => matrix(tensors, name, shape, wanted.keyed),
        (None, ..) if list.iter().all(|(_, shape)| matches!(shape.as_slice(), [_] | [1, _])) => {
            by_key(tensors, list)
        }
        (None, _, matrices) => {
            let message = format!("{} tensors with two axes among {}", matrices.len(), names(&list));
            Err(Error::data(message).hint("name one with `tensor` in the recipe"))
        }
    }
}

/// The first names.
fn names(list: &[(String, Vec<usize>)]) -> String {
    const MOST: usize = 8;
    let first = list.iter().take(MOST).map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    if list.len() > MOST { format!("{first}, {} more", list.len() - MOST) } else { first }
}

fn matrix(tensors: &mut dyn Tensors, name: &str, shape: &[usize], keyed: bool) -> Result<GivenRows> {
    let (&[count, width], false) = (shape, shape.ends_with(&[0])) else {
        return Err(wrong_shape(name, shape));
    };
    require_memory_for([shape])?;
    let keys = if keyed { Vec::new() } else { keys_beside(tensors, count)? };
    Ok(GivenRows { keys, count, width, values: numbers(tensors, name)? })
}

/// The numbers of a tensor, its last axis fastest.
fn numbers(tensors: &mut dyn Tensors, name: &str) -> Result<Vec<f32>> {
    let numbers = match tensors.read(name)? {
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

/// The keys of `count` rows, where something beside them names them.
///
/// # Errors
/// Where something beside them seems to say whose they are, but not by key.
fn keys_beside(tensors: &mut dyn Tensors, count: usize) -> Result<Vec<String>> {
    let mut labels = tensors.lists();
    for (name, _) in tensors.list().into_iter().filter(|(_, shape)| *shape == [count]) {
        let array = tensors.read(&name)?;
        labels.push((name, array));
    }
    labels.retain(|(_, array)| array.may_name(count));
    let (name, holds) = match labels.as_slice() {
        [] => return Ok(Vec::new()),
        [(_, Array::Texts(keys))] => return Ok(keys.clone()),
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
    /// Returns whether these may say whose `count` rows are: not numbers with a fraction, ids that count up, or a mask
    /// of zeros and ones.
    fn may_name(&self, count: usize) -> bool {
        match self {
            Array::Texts(texts) => texts.len() == count,
            Array::Unread(_) => true,
            Array::Numbers(numbers) => {
                let whole = numbers.dtype().is_int() && numbers.dims() == [count];
                let numbers = numbers.to_dtype(DType::I64).and_then(|numbers| numbers.to_vec1::<i64>());
                let numbers = numbers.unwrap_or_default();
                let counts_up = (0..).zip(&numbers).all(|(i, number)| i == *number);
                whole && !counts_up && !numbers.iter().all(|n| matches!(n, 0 | 1))
            }
        }
    }
}

fn wrong_shape(name: &str, shape: &[usize]) -> Error {
    let error = Error::data(format!("tensor `{name}` has shape {shape:?}, expected (entity, width)"));
    match shape {
        [_] => error.hint("in Python: one number for each entity is features.reshape(-1, 1)"),
        [_, _, _, ..] => error.hint("in Python: features.reshape(len(features), -1)"),
        _ => error,
    }
}

fn by_key(tensors: &mut dyn Tensors, list: Vec<(String, Vec<usize>)>) -> Result<GivenRows> {
    require_memory_for(list.iter().map(|(_, shape)| shape.as_slice()))?;
    let (first, shape) = list[0].clone();
    let Some(width @ 1..) = shape.last().copied() else { return Err(wrong_shape(&first, &shape)) };
    let mut rows = GivenRows { keys: Vec::new(), count: list.len(), width, values: Vec::new() };
    for (name, shape) in list {
        match shape.last() {
            Some(other) if *other != width => {
                let message = format!("`{name}` has {other} numbers, but `{first}` has {width}");
                return Err(Error::data(message));
            }
            _ => rows.values.extend(numbers(tensors, &name)?),
        }
        rows.keys.push(name);
    }
    Ok(rows)
}

/// Asks for numbers of 64 bits as they are stored and once more as a tensor, and as numbers of 32 bits twice.
fn require_memory_for<'a>(shapes: impl IntoIterator<Item = &'a [usize]>) -> Result<()> {
    let counts = shapes
        .into_iter()
        .map(|shape| shape.iter().fold(1u64, |product, axis| product.saturating_mul(*axis as u64)));
    require_memory(counts.fold(0u64, u64::saturating_add).saturating_mul(24))
}

/// The order of the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    LittleEndian,
    BigEndian,
}

impl Order {
    /// The bytes of numbers of `size` bytes each, the lowest first.
    pub(super) fn little(self, bytes: &[u8], size: usize) -> Cow<'_, [u8]> {
        match self {
            Order::LittleEndian => bytes.into(),
            Order::BigEndian => bytes.chunks_exact(size).flat_map(|one| one.iter().rev()).copied().collect(),
        }
    }
}

/// The tensor of these bytes, the lowest of each number first.
pub(super) fn tensor(bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu).map_err(unread)
}

/// The error of numbers that candle does not take.
pub(super) fn unread(error: candle_core::Error) -> Error {
    Error::data("numbers that cannot be read").because(plain(error))
}

/// A `.safetensors` file in memory.
struct Safetensors(Vec<u8>);

impl Safetensors {
    fn open(path: &Path) -> Result<Self> {
        let bytes = read_bytes(path)?;
        SafeTensors::deserialize(&bytes)
            .map_err(|e| Error::data("not a whole safetensors file").because(e))?;
        Ok(Safetensors(bytes))
    }
}

impl Tensors for Safetensors {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        let file = SafeTensors::deserialize(&self.0).ok();
        let tensors = file.iter().flat_map(SafeTensors::iter);
        let mut list: Vec<_> =
            tensors.map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec())).collect();
        list.sort();
        list
    }

    fn read(&mut self, name: &str) -> Result<Array> {
        let file = SafeTensors::deserialize(&self.0).and_then(|file| file.tensor(name));
        let stored = file.map_err(|e| Error::data(format!("no tensor `{name}`")).because(e))?;
        let numbers = match stored.dtype() {
            Dtype::I8 | Dtype::BOOL => tensor(stored.data(), DType::U8, stored.shape())?,
            Dtype::U64 => tensor(stored.data(), DType::I64, stored.shape())?,
            _ => stored.load(&Device::Cpu).map_err(unread)?,
        };
        Ok(Array::Numbers(numbers))
    }
}
