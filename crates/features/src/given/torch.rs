//! Files that `torch.save` writes: zip archives with a pickle, which describes tensors, and the numbers of the tensors.
//!
//! candle's reader reads the pickle. It knows the few instructions that tensors need and calls nothing: a call to
//! Python in the pickle is read as a description, and refused if it describes no tensor.

use candle_core::pickle::{Object, Stack, TensorInfo};
use candle_core::{Device, Layout, Tensor};
use stage::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use zip::result::ZipError;

use crate::plain;

use super::{Archive, Array, Tensors, Wanted, little_endian, member, members, open_archive, tensor, unread};

const SAVE: &str =
    "in Python: torch.save({str(key): torch.as_tensor(row) for key, row in features.items()}, path)";

/// The largest description that is read, in bytes: about a million tensors.
const MAX_PICKLE: u64 = 256 << 20;

#[derive(Default)]
struct Described {
    tensors: BTreeMap<String, StoredTensor>,
    lists: Vec<(String, Option<usize>, Array)>,
    /// The error of the first value that is no tensor, list, number or text.
    other: Option<Error>,
}

struct StoredTensor {
    info: TensorInfo,
    /// True if the numbers are stored with the opposite sign, as in PyTorch's negative views.
    negated: bool,
}

pub(super) fn open(path: &Path, wanted: Wanted) -> Result<Tensors> {
    let mut archive = open_archive(path, || not_torch(path))?;
    let pickle = members(&archive).into_iter().find(|name| name.ends_with("data.pkl"));
    let pickle = pickle.ok_or_else(|| not_torch(path))?;
    let bytes = member(&mut archive, &pickle, MAX_PICKLE).map_err(|e| broken().because(e))?;
    let folder = Path::new(&pickle).with_extension("");
    // candle's reader unpacks some lists of arguments without checking their length.
    let Described { tensors, lists, other } =
        stage::caught(|| describe(&bytes, &folder)).unwrap_or_else(|| Err(broken()))?;
    if let Some(other) = other
        && !wanted.tensor.is_some_and(|name| tensors.contains_key(name))
    {
        return Err(other);
    }
    let is_big_endian = is_big_endian(&mut archive, &folder)?;
    let shapes = tensors.iter().map(|(name, stored)| (name.clone(), stored.info.layout.dims().to_vec()));
    let list = shapes.collect();
    let read = Box::new(move |name: &str| tensors[name].read(name, &mut archive, is_big_endian));
    Ok(Tensors { list, lists, read })
}

impl StoredTensor {
    fn read(&self, name: &str, archive: &mut Archive, is_big_endian: bool) -> Result<Array> {
        let TensorInfo { dtype, layout, path, .. } = &self.info;
        let (size, start) = (dtype.size_in_bytes(), layout.start_offset());
        let Some(span) = span(layout).and_then(|span| span.checked_mul(size)) else {
            return Err(in_tensor(name, "has a shape beyond any memory"));
        };
        let most = start.saturating_add(span) as u64;
        let bytes = member(archive, path, most).map_err(|e| {
            let is_there = !matches!(e, ZipError::FileNotFound);
            in_tensor(name, if is_there { "is damaged" } else { "has no numbers" }).because(e)
        })?;
        let Some(bytes) = bytes.get(start..).filter(|rest| rest.len() == span) else {
            let message = format!("needs {most} bytes of numbers, there are {}: truncated?", bytes.len());
            return Err(in_tensor(name, &message));
        };
        let numbers = little_endian(bytes, size, is_big_endian);
        let numbers = tensor(&numbers, *dtype, &[bytes.len() / size.max(1)])?;
        let numbers = gather(&numbers, layout).and_then(|x| if self.negated { x.neg() } else { Ok(x) });
        Ok(Array::Numbers(numbers.map_err(unread)?))
    }
}

/// Returns whether the highest byte of a number comes first; archives state this since PyTorch 2.1.
fn is_big_endian(archive: &mut Archive, folder: &Path) -> Result<bool> {
    let word = match member(archive, &folder.with_file_name("byteorder").to_string_lossy(), 16) {
        Err(ZipError::FileNotFound) => return Ok(false),
        word => word.map_err(|e| broken().because(e))?,
    };
    match String::from_utf8_lossy(&word).trim() {
        "little" => Ok(false),
        "big" => Ok(true),
        other => Err(Error::data(format!("the archive's byte order is `{other}`, not little or big"))),
    }
}

/// The error of a file that is not a PyTorch archive; its first bytes show what it is.
fn not_torch(path: &Path) -> Error {
    let mut start = [0; 2];
    let is_pickle =
        File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start[0] == 0x80;
    let error = Error::data("not a file that torch.save wrote since PyTorch 1.6");
    error.hint(if is_pickle {
        "a pickle of Python: import pickle; d = pickle.load(open(path, 'rb')); torch.save({key: torch.as_tensor(row) \
         for key, row in d.items()}, path), or torch.save(torch.load(path), path) of what an older PyTorch saved"
    } else {
        "in Python: torch.save(torch.as_tensor(features), path), or numpy.save for .npy"
    })
}

fn broken() -> Error {
    Error::data("a damaged PyTorch file")
}

/// Reads the description in a pickle: one tensor, or a dictionary with tensors.
fn describe(bytes: &[u8], folder: &Path) -> Result<Described> {
    let mut stack = Stack::empty();
    let read = stack.read_loop(&mut Cursor::new(bytes)).and_then(|()| stack.finalize());
    let mut described = Described::default();
    let unread = |e| {
        let hint =
            "if PyTorch reads it, in Python: torch.save(torch.load(path), path), without pickle_protocol";
        broken().because(plain(e)).hint(hint)
    };
    match read.map_err(unread)? {
        Object::Dict(entries) => described.add_all("", entries, folder)?,
        Object::List(_) | Object::Tuple(_) => {
            let error = Error::data("a list, not a tensor or a dictionary of tensors");
            return Err(error.hint("in Python: torch.save(torch.stack(features), path)"));
        }
        alone => described.add("tensor".to_owned(), alone, folder)?,
    }
    Ok(described)
}

impl Described {
    /// Adds the entries of a dictionary called `within`; those of a nested dictionary are called `within.name`.
    fn add_all(&mut self, within: &str, entries: Vec<(Object, Object)>, folder: &Path) -> Result<()> {
        for (key, value) in entries {
            match key {
                // A dictionary of a module's parameters has this entry beside them.
                Object::Unicode(name) if name == "_metadata" => {}
                Object::Unicode(name) => self.add(format!("{within}{name}"), value, folder)?,
                Object::Int(_) | Object::Long(_) => {
                    let error =
                        Error::data("its keys are whole numbers: the keys of entities, or their ids?");
                    let hint = "in Python, keys: torch.save({str(key): row for key, row in features.items()}, path); \
                                ids: torch.save(torch.stack([features[i] for i in range(len(features))]), path)";
                    self.other.get_or_insert(error.hint(hint));
                }
                _ => return Err(Error::data("a dictionary with a key that is no text").hint(SAVE)),
            }
        }
        Ok(())
    }

    fn add(&mut self, name: String, value: Object, folder: &Path) -> Result<()> {
        match value {
            Object::Dict(entries) if entries.iter().all(|(key, value)| is_plain(key) && is_plain(value)) => {
                let unread = Array::Unread(in_tensor(&name, "is a dictionary"));
                self.lists.push((name, Some(entries.len()), unread))
            }
            Object::Dict(entries) => self.add_all(&format!("{name}."), entries, folder)?,
            Object::List(items) | Object::Tuple(items) => {
                self.lists.push((name, Some(items.len()), labels(&items)))
            }
            value if is_plain(&value) => {}
            value => {
                let (negated, is_array) = (is_negated(&value), is_of_numpy(&value));
                let error = match value.into_tensor_info(Object::Unicode(name.clone()), folder) {
                    Ok(Some(info)) if info.layout.dims().len() != info.layout.stride().len() => {
                        return Err(in_tensor(&name, "has another number of strides than of axes"));
                    }
                    Ok(Some(info)) => {
                        self.tensors.insert(name, StoredTensor { info, negated });
                        return Ok(());
                    }
                    Ok(None) => in_tensor(&name, "is no plain tensor, and nothing else is read"),
                    Err(error) => in_tensor(&name, "cannot be read").because(plain(error)),
                };
                if is_array {
                    self.lists.push((name, None, Array::Unread(Error::data("an array of NumPy"))));
                }
                self.other.get_or_insert(error);
            }
        }
        Ok(())
    }
}

fn is_of_numpy(value: &Object) -> bool {
    match value {
        Object::Reduce { callable, .. } => is_of_numpy(callable),
        Object::Build { callable, .. } => is_of_numpy(callable),
        Object::Class { module_name, .. } => module_name.starts_with("numpy"),
        _ => false,
    }
}

fn is_plain(value: &Object) -> bool {
    matches!(value, Object::Unicode(_) | Object::None) || number(value).is_some()
}

fn number(value: &Object) -> Option<f64> {
    match value {
        Object::Int(number) => Some(f64::from(*number)),
        Object::Long(number) => Some(*number as f64),
        Object::Float(number) => Some(*number),
        Object::Bool(is_true) => Some(f64::from(u8::from(*is_true))),
        _ => None,
    }
}

/// A list of texts or of numbers; any other list is not read.
fn labels(items: &[Object]) -> Array {
    if let Some(texts) = items.iter().map(|item| item.clone().unicode().ok()).collect() {
        return Array::Texts(texts);
    }
    let numbers: Option<Vec<f64>> = items.iter().map(number).collect();
    let numbers = numbers.and_then(|numbers| Tensor::new(numbers, &Device::Cpu).ok());
    numbers.map_or_else(|| Array::Unread(Error::data("a list")), Array::Numbers)
}

/// Returns whether the arguments that rebuild a tensor say that its numbers are stored with the opposite sign.
fn is_negated(object: &Object) -> bool {
    match object {
        Object::Reduce { args, .. } => is_negated(args),
        Object::Tuple(items) => items.iter().any(is_negated),
        Object::Dict(entries) => entries.contains(&(Object::Unicode("neg".to_owned()), Object::Bool(true))),
        _ => false,
    }
}

fn in_tensor(name: &str, message: &str) -> Error {
    Error::data(format!("`{name}` {message}")).hint(SAVE)
}

/// The count of stored numbers from the first to the last number of a tensor, both included.
fn span(layout: &Layout) -> Option<usize> {
    if layout.dims().contains(&0) {
        return Some(0);
    }
    let mut axes = layout.dims().iter().zip(layout.stride());
    axes.try_fold(1usize, |sum, (axis, stride)| sum.checked_add((axis - 1).checked_mul(*stride)?))
}

/// The tensor with the numbers at the places of the layout; the first stored number is the tensor's first.
fn gather(stored: &Tensor, layout: &Layout) -> candle_core::Result<Tensor> {
    if layout.is_contiguous() {
        return stored.reshape(layout.dims());
    }
    let mut places = vec![0];
    for (axis, stride) in layout.dims().iter().zip(layout.stride()) {
        let before = std::mem::take(&mut places).into_iter();
        places.extend(before.flat_map(|place| (0..*axis).map(move |i| place + (i * stride) as i64)));
    }
    stored.index_select(&Tensor::new(places, &Device::Cpu)?, 0)?.reshape(layout.dims())
}
