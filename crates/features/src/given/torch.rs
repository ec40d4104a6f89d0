//! Files that `torch.save` writes: a zip archive with a pickle that describes tensors, and their numbers.
//!
//! The pickle is read by candle's reader, which knows the few instructions that tensors need and calls nothing: what a
//! pickle asks Python to do is read as a description and refused if it is no tensor.

use candle_core::pickle::{Object, Stack, TensorInfo};
use candle_core::{Device, Layout, Tensor};
use stage::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;
use zip::ZipArchive;

use super::read::{Array, Order, Tensors, Wanted, tensor, unread};

/// The largest description that is read, in bytes: about a million tensors.
const MAX_PICKLE: u64 = 256 << 20;
/// The name of a tensor that was saved alone.
const ALONE: &str = "tensor";
/// An entry that the dictionary of a module's parameters has beside them.
const METADATA: &str = "_metadata";

/// An archive whose description has been read.
pub(super) struct Torch {
    archive: ZipArchive<BufReader<File>>,
    order: Order,
    described: Described,
}

/// Things that a pickle describes.
#[derive(Default)]
struct Described {
    tensors: BTreeMap<String, StoredTensor>,
    /// Lists of texts or whole numbers.
    lists: Vec<(String, Array)>,
    /// The first thing that is none of these, nor a number or a word.
    other: Option<Error>,
}

/// The place of a tensor's numbers.
struct StoredTensor {
    info: TensorInfo,
    /// Says that the numbers are stored with the other sign, as PyTorch's negative views are.
    negated: bool,
}

impl Torch {
    pub(super) fn open(path: &Path, wanted: Wanted) -> Result<Torch> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let archive = ZipArchive::new(BufReader::new(file));
        let mut archive = archive.map_err(|e| not_torch(path).because(e))?;
        let names = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned()));
        let pickle = names.into_iter().find(|name| name.ends_with("data.pkl"));
        let pickle = pickle.ok_or_else(|| not_torch(path))?;
        let mut bytes = Vec::new();
        let member = archive.by_name(&pickle).map_err(|e| broken().because(e))?;
        member.take(MAX_PICKLE).read_to_end(&mut bytes).map_err(|e| broken().because(e))?;
        let folder = Path::new(&pickle).with_extension("");
        // candle takes some lists of arguments apart without counting them first.
        let described = stage::caught(|| describe(&bytes, &folder)).unwrap_or_else(|| Err(broken()))?;
        let is_there = wanted.tensor.is_some_and(|name| described.tensors.contains_key(name));
        match described.other {
            Some(other) if !is_there => Err(other),
            _ => Ok(Torch { order: order(&mut archive, &folder)?, archive, described }),
        }
    }

    /// The bytes of a tensor, from its first number to its last, each of `size` bytes.
    fn stored(&mut self, name: &str, size: usize) -> Result<(Layout, Vec<u8>)> {
        let stored = self.described.tensors.get(name).ok_or_else(|| in_tensor(name, "is not there"))?;
        let (layout, path) = (stored.info.layout.clone(), stored.info.path.clone());
        let span = span(&layout).and_then(|span| span.checked_mul(size));
        let (Some(span), start) = (span, layout.start_offset()) else {
            return Err(in_tensor(name, "has a shape beyond any memory"));
        };
        let member = self.archive.by_name(&path).map_err(|e| in_tensor(name, "has no numbers").because(e))?;
        let mut bytes = Vec::new();
        let most = (start as u64).saturating_add(span as u64);
        member.take(most).read_to_end(&mut bytes).map_err(|e| in_tensor(name, "is damaged").because(e))?;
        match bytes.get(start..).filter(|rest| rest.len() == span) {
            Some(numbers) => Ok((layout, numbers.to_vec())),
            None => {
                let message = format!("needs {most} bytes of numbers, there are {}: truncated?", bytes.len());
                Err(in_tensor(name, &message))
            }
        }
    }
}

/// The order of bytes: since PyTorch 2.1 the archive says it.
fn order(archive: &mut ZipArchive<BufReader<File>>, folder: &Path) -> Result<Order> {
    let name = folder.with_file_name("byteorder").to_string_lossy().into_owned();
    let Ok(member) = archive.by_name(&name) else { return Ok(Order::LittleEndian) };
    let mut word = String::new();
    member.take(16).read_to_string(&mut word).map_err(|e| broken().because(e))?;
    match word.trim() {
        "little" => Ok(Order::LittleEndian),
        "big" => Ok(Order::BigEndian),
        other => Err(Error::data(format!("the archive's byte order is `{other}`, not little or big"))),
    }
}

/// The error of a file that is no archive of PyTorch; its first bytes tell what it is.
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

/// Reads what a pickle describes: one tensor, or a dictionary with tensors.
fn describe(bytes: &[u8], folder: &Path) -> Result<Described> {
    let mut stack = Stack::empty();
    let read = stack.read_loop(&mut Cursor::new(bytes)).and_then(|()| stack.finalize());
    let mut described = Described::default();
    match read.map_err(|e| broken().because(e))? {
        Object::Dict(entries) => described.add_all("", entries, folder)?,
        Object::List(_) | Object::Tuple(_) => {
            let error = Error::data("a list, not a tensor or a dictionary of tensors");
            return Err(error.hint("in Python: torch.save(torch.stack(features), path)"));
        }
        alone => described.add(ALONE.to_owned(), alone, folder)?,
    }
    Ok(described)
}

impl Described {
    /// Adds the entries of a dictionary called `within`; those of a dictionary in it are called `within.name`.
    fn add_all(&mut self, within: &str, entries: Vec<(Object, Object)>, folder: &Path) -> Result<()> {
        for (key, value) in entries {
            match key {
                Object::Unicode(name) if name == METADATA => {}
                Object::Unicode(name) => self.add(format!("{within}{name}"), value, folder)?,
                Object::Int(_) | Object::Long(_) => {
                    let error =
                        Error::data("its keys are whole numbers, not the keys of entities: are they ids?");
                    let hint = "in Python: torch.save(torch.stack([features[i] for i in range(len(features))]), path)";
                    self.other.get_or_insert(error.hint(hint));
                }
                other => return Err(Error::data(format!("a tensor whose name is {other:?}"))),
            }
        }
        Ok(())
    }

    fn add(&mut self, name: String, value: Object, folder: &Path) -> Result<()> {
        match value {
            Object::Dict(entries) => self.add_all(&format!("{name}."), entries, folder)?,
            Object::List(items) | Object::Tuple(items) => {
                self.lists.extend(labels(&items).map(|read| (name, read)))
            }
            Object::Int(_) | Object::Long(_) | Object::Float(_) | Object::Unicode(_) | Object::Bool(_) => {}
            Object::None => {}
            value => {
                let negated = is_negated(&value);
                let info = value.into_tensor_info(Object::Unicode(name.clone()), folder);
                match info.map_err(|e| in_tensor(&name, "cannot be read").because(e)) {
                    Ok(Some(info)) if info.layout.dims().len() != info.layout.stride().len() => {
                        return Err(in_tensor(&name, "has another number of strides than of axes"));
                    }
                    Ok(Some(info)) => drop(self.tensors.insert(name, StoredTensor { info, negated })),
                    Ok(None) => {
                        let error = in_tensor(&name, "is no plain tensor, and nothing else is read");
                        self.other.get_or_insert(error);
                    }
                    Err(error) => drop(self.other.get_or_insert(error)),
                }
            }
        }
        Ok(())
    }
}

/// A list of texts, or of whole numbers.
fn labels(items: &[Object]) -> Option<Array> {
    let texts = items.iter().map(|item| match item {
        Object::Unicode(text) => Some(text.clone()),
        _ => None,
    });
    let numbers = items.iter().map(|item| match item {
        Object::Int(number) => Some(i64::from(*number)),
        Object::Long(number) => Some(*number),
        _ => None,
    });
    match texts.collect::<Option<_>>() {
        Some(texts) => Some(Array::Texts(texts)),
        None => Tensor::new(numbers.collect::<Option<Vec<i64>>>()?, &Device::Cpu).ok().map(Array::Numbers),
    }
}

/// Returns whether the arguments that rebuild a tensor say that its numbers are stored with the other sign.
fn is_negated(object: &Object) -> bool {
    match object {
        Object::Reduce { args, .. } => is_negated(args),
        Object::Tuple(items) => items.iter().any(is_negated),
        Object::Dict(entries) => entries.contains(&(Object::Unicode("neg".to_owned()), Object::Bool(true))),
        _ => false,
    }
}

fn in_tensor(name: &str, message: &str) -> Error {
    Error::data(format!("`{name}` {message}"))
        .hint("in Python: torch.save({key: torch.as_tensor(row) for key, row in features.items()}, path)")
}

impl Tensors for Torch {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        let shapes = self.described.tensors.iter();
        shapes.map(|(name, stored)| (name.clone(), stored.info.layout.dims().to_vec())).collect()
    }

    fn lists(&mut self) -> Vec<(String, Array)> {
        std::mem::take(&mut self.described.lists)
    }

    fn read(&mut self, name: &str) -> Result<Array> {
        let stored = self.described.tensors.get(name).ok_or_else(|| in_tensor(name, "is not there"))?;
        let (dtype, negated) = (stored.info.dtype, stored.negated);
        let size = dtype.size_in_bytes();
        let (layout, bytes) = self.stored(name, size)?;
        let numbers = tensor(&self.order.little(&bytes, size), dtype, &[bytes.len() / size.max(1)])?;
        let numbers = gather(&numbers, &layout).and_then(|x| if negated { x.neg() } else { Ok(x) });
        Ok(Array::Numbers(numbers.map_err(unread)?))
    }
}

/// The count of numbers that lie between the first and the last of a tensor, both counted.
fn span(layout: &Layout) -> Option<usize> {
    if layout.dims().contains(&0) {
        return Some(0);
    }
    let reach =
        |sum: usize, (axis, stride): (&usize, &usize)| sum.checked_add((axis - 1).checked_mul(*stride)?);
    layout.dims().iter().zip(layout.stride()).try_fold(0, reach)?.checked_add(1)
}

/// The tensor whose numbers lie where the layout says, the first of them first.
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
