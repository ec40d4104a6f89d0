//! What `torch.save` writes: a zip archive with a pickle that describes tensors, and their numbers.
//!
//! The pickle is read by candle's reader, which knows the few instructions that tensors need and calls nothing: what a
//! pickle asks Python to do is read as a description and refused if it is no tensor.

use candle_core::pickle::{Object, Stack, TensorInfo};
use candle_core::{DType, Layout};
use stage::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;
use zip::ZipArchive;

use super::tensors::{Number, Tensors};

/// The largest description that is read, in bytes: about a million tensors.
const MAX_PICKLE: u64 = 256 << 20;
/// What a tensor that was saved alone is called.
const ALONE: &str = "tensor";

/// An archive whose description has been read.
pub(super) struct Torch {
    archive: ZipArchive<BufReader<File>>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Torch {
    pub(super) fn open(path: &Path) -> Result<Torch> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| not_torch().because(e))?;
        let names = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned()));
        let pickle = names.into_iter().find(|name| name.ends_with("data.pkl")).ok_or_else(not_torch)?;
        let mut bytes = Vec::new();
        let member = archive.by_name(&pickle).map_err(|e| broken().because(e))?;
        member.take(MAX_PICKLE).read_to_end(&mut bytes).map_err(|e| broken().because(e))?;
        let folder = Path::new(&pickle).with_extension("");
        // candle takes some lists of arguments apart without counting them first.
        let described = std::panic::catch_unwind(|| describe(&bytes, &folder));
        Ok(Torch { archive, tensors: described.unwrap_or_else(|_| Err(broken()))? })
    }
}

fn not_torch() -> Error {
    Error::data("not a file that torch.save wrote since PyTorch 1.6")
        .hint("in Python: torch.save(torch.as_tensor(features), path), or numpy.save for .npy")
}

fn broken() -> Error {
    Error::data("a damaged PyTorch file")
}

/// The tensors that a pickle describes: one, or those of a dictionary.
fn describe(bytes: &[u8], folder: &Path) -> Result<BTreeMap<String, TensorInfo>> {
    let mut stack = Stack::empty();
    let read = stack.read_loop(&mut Cursor::new(bytes)).and_then(|()| stack.finalize());
    let named = match read.map_err(|e| broken().because(e))? {
        Object::Dict(entries) => entries,
        alone => vec![(Object::Unicode(ALONE.to_owned()), alone)],
    };
    let mut tensors = BTreeMap::new();
    for (key, value) in named {
        let name = match key {
            Object::Unicode(name) => name,
            Object::Int(id) => id.to_string(),
            other => return Err(Error::data(format!("a tensor whose name is {other:?}"))),
        };
        let info = value.into_tensor_info(Object::Unicode(name.clone()), folder);
        let info = info.map_err(|e| in_tensor(&name, "cannot be read").because(e))?;
        let plain = "is no plain tensor, and nothing else is read";
        let info = info.ok_or_else(|| in_tensor(&name, plain))?;
        if info.layout.dims().len() != info.layout.stride().len() {
            return Err(in_tensor(&name, "has another number of strides than of axes"));
        }
        tensors.insert(name, info);
    }
    Ok(tensors)
}

fn in_tensor(name: &str, message: &str) -> Error {
    Error::data(format!("`{name}` {message}"))
        .hint("in Python: torch.save({key: torch.as_tensor(row) for key, row in features.items()}, path)")
}

impl Tensors for Torch {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|(name, info)| (name.clone(), info.layout.dims().to_vec())).collect()
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let info = self.tensors.get(name).ok_or_else(|| in_tensor(name, "is not there"))?;
        let number = match info.dtype {
            DType::F16 => Number::F16,
            DType::BF16 => Number::Bf16,
            DType::F32 => Number::F32,
            DType::F64 => Number::F64,
            other => {
                let message = format!("holds {}, not floating-point numbers", other.as_str());
                return Err(in_tensor(name, &message));
            }
        };
        let span = span(&info.layout).and_then(|span| span.checked_mul(number.size()));
        let (Some(span), start) = (span, info.layout.start_offset()) else {
            return Err(in_tensor(name, "has a shape beyond any memory"));
        };
        let member =
            self.archive.by_name(&info.path).map_err(|e| in_tensor(name, "has no numbers").because(e))?;
        let mut bytes = Vec::new();
        let most = (start as u64).saturating_add(span as u64);
        member.take(most).read_to_end(&mut bytes).map_err(|e| in_tensor(name, "is damaged").because(e))?;
        match bytes.get(start..).filter(|rest| rest.len() == span) {
            Some(stored) => Ok(gather(&info.layout, &number.read(stored))),
            None => {
                let message = format!("needs {most} bytes of numbers, there are {}: truncated?", bytes.len());
                Err(in_tensor(name, &message))
            }
        }
    }
}

/// How many numbers lie between the first and the last of a tensor, both counted.
fn span(layout: &Layout) -> Option<usize> {
    if layout.dims().contains(&0) {
        return Some(0);
    }
    let reach =
        |sum: usize, (axis, stride): (&usize, &usize)| sum.checked_add((axis - 1).checked_mul(*stride)?);
    layout.dims().iter().zip(layout.stride()).try_fold(0, reach)?.checked_add(1)
}

/// The numbers of one or two axes in the order of the last axis, from where their strides say they lie.
fn gather(layout: &Layout, stored: &[f32]) -> Vec<f32> {
    match (layout.dims(), layout.stride()) {
        (&[count], &[stride]) => (0..count).map(|i| stored[i * stride]).collect(),
        (&[rows, width], &[down, right]) => {
            let row = |y: usize| (0..width).map(move |x| y * down + x * right);
            (0..rows).flat_map(row).map(|i| stored[i]).collect()
        }
        // `rows` asks for no others.
        _ => stored.to_vec(),
    }
}
