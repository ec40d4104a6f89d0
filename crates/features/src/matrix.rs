//! Matrices that somebody else made: `.npy` and `.safetensors` with f16, f32 or f64.
//!
//! Files are checked before anything is allocated for them, so that a damaged one is an error with a place. (candle
//! reads `.npy` too, but trusts the sizes in its header and knows only C order.)

use half::f16;
use safetensors::{Dtype, SafeTensors};
use stage::files::read_bytes;
use stage::{Error, Result};
use std::path::Path;

/// A matrix, row after row.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// How many rows.
    pub rows: usize,
    /// Numbers per row.
    pub width: usize,
    /// `(row, width)`; may hold numbers that are not finite.
    pub values: Vec<f32>,
}

impl Matrix {
    /// Reads `path`; its extension says the format. `tensor` names one of several in a `.safetensors` file.
    pub fn read(path: &Path, tensor: Option<&str>) -> Result<Matrix> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let parse = match extension {
            "npy" => |bytes: &[u8], _: Option<&str>| npy(bytes),
            "safetensors" => safetensors,
            _ => {
                return Err(Error::usage("features are read from .npy and .safetensors").at(path));
            }
        };
        let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        let knob = "use a machine with more memory, or features with fewer columns";
        // The file, and as f32 at most twice as much again.
        stage::resources::require_memory(3 * bytes, "reading the features", knob)?;
        parse(&read_bytes(path)?, tensor).map_err(|e| e.at(path))
    }
}

/// How a number is stored, little-endian.
#[derive(Clone, Copy)]
enum Number {
    F16,
    F32,
    F64,
}

impl Number {
    fn size(self) -> usize {
        match self {
            Number::F16 => 2,
            Number::F32 => 4,
            Number::F64 => 8,
        }
    }

    fn read(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Number::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Number::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Number::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        }
    }
}

/// The only tensor with two axes, or the one named.
fn safetensors(bytes: &[u8], name: Option<&str>) -> Result<Matrix> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| Error::data("not a whole safetensors file").because(e))?;
    let mut names = file.names();
    names.sort_unstable();
    let matrices: Vec<&str> =
        names.iter().copied().filter(|name| file.tensor(name).is_ok_and(|t| t.shape().len() == 2)).collect();
    let name = match (name, matrices.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => only,
        (None, _) => {
            let message = format!("{} tensors with two axes among {}", matrices.len(), names.join(", "));
            return Err(Error::data(message).hint("name one with `tensor` in the recipe"));
        }
    };
    let tensor = file
        .tensor(name)
        .map_err(|_| Error::data(format!("no tensor `{name}`, but {}", names.join(", "))))?;
    let number = match tensor.dtype() {
        Dtype::F16 => Number::F16,
        Dtype::F32 => Number::F32,
        Dtype::F64 => Number::F64,
        other => {
            return Err(Error::data(format!("tensor `{name}` holds {other}, not F16, F32 or F64")));
        }
    };
    let (rows, width) = two_axes(tensor.shape())?;
    Ok(Matrix { rows, width, values: number.read(tensor.data()) })
}

fn two_axes(shape: &[usize]) -> Result<(usize, usize)> {
    match shape {
        &[rows, width] if width > 0 => Ok((rows, width)),
        _ => Err(Error::data(format!("shape {shape:?}, expected (entity, width)"))),
    }
}

/// NumPy's format, versions 1 to 3: a magic string, the header's length, the header as a Python literal, the numbers.
fn npy(bytes: &[u8]) -> Result<Matrix> {
    let (header, data) = npy_parts(bytes).ok_or_else(|| Error::data("not a whole .npy file"))?;
    let number = match npy_field(header, "descr").map(|text| text.trim_matches(['\'', '"'])) {
        Some("<f2" | "=f2") => Number::F16,
        Some("<f4" | "=f4") => Number::F32,
        Some("<f8" | "=f8") => Number::F64,
        other => {
            let message = format!("holds {}, not little-endian f2, f4 or f8", other.unwrap_or("no numbers"));
            return Err(Error::data(message).hint("save it with .astype('float32')"));
        }
    };
    let shape = npy_field(header, "shape").ok_or_else(|| Error::data("no shape in the header"))?;
    let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty()).map(str::parse);
    let axes: Vec<usize> =
        axes.collect::<Result<_, _>>().map_err(|_| Error::data(format!("shape ({shape}) in the header")))?;
    let (rows, width) = two_axes(&axes)?;
    let expected = rows.checked_mul(width).and_then(|count| count.checked_mul(number.size()));
    if expected != Some(data.len()) {
        let message = format!(
            "shape ({rows}, {width}) of {} bytes each does not fit the {} bytes that follow: truncated?",
            number.size(),
            data.len()
        );
        return Err(Error::data(message));
    }
    let values = number.read(data);
    let values = match npy_field(header, "fortran_order") {
        Some("True") => transposed(&values, width, rows),
        _ => values,
    };
    Ok(Matrix { rows, width, values })
}

/// Header and numbers.
fn npy_parts(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (version, rest) = rest.split_at_checked(2)?;
    let (length, rest) = rest.split_at_checked(if version[0] == 1 { 2 } else { 4 })?;
    let length = length.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// The value of a key in `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, a tuple without its brackets.
fn npy_field<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, after) = header.split_once(&format!("'{key}'"))?;
    let value = after.trim_start().strip_prefix(':')?.trim_start();
    match value.strip_prefix('(') {
        Some(tuple) => Some(tuple.split_once(')')?.0),
        None => Some(value.split([',', '}']).next()?.trim()),
    }
}

/// A `(rows, columns)` matrix with its axes exchanged.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut exchanged = Vec::with_capacity(values.len());
    for column in 0..columns {
        exchanged.extend((0..rows).map(|row| values[row * columns + column]));
    }
    exchanged
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use stage::Kind;
    use std::path::PathBuf;

    fn tensor() -> Tensor {
        Tensor::new(&[[1f32, 2.0, 3.0], [0.5, -0.25, 0.0]], &Device::Cpu).unwrap()
    }

    fn expected() -> Matrix {
        Matrix { rows: 2, width: 3, values: vec![1.0, 2.0, 3.0, 0.5, -0.25, 0.0] }
    }

    fn file(name: &str, write: impl FnOnce(&Path)) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        write(&path);
        (dir, path)
    }

    #[test]
    fn numpy_files_of_three_widths_are_read() {
        for dtype in [DType::F16, DType::F32, DType::F64] {
            let tensor = tensor().to_dtype(dtype).unwrap();
            let (_dir, path) = file("x.npy", |path| tensor.write_npy(path).unwrap());
            assert_eq!(Matrix::read(&path, None).unwrap(), expected(), "{dtype:?}");
        }
    }

    #[test]
    fn a_transposed_numpy_file_is_read() {
        // np.save of `x.T`, which NumPy stores in Fortran order; version 2 has a longer length field.
        let header = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n";
        let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend([1f32, 0.5, 2.0, -0.25, 3.0, 0.0].iter().flat_map(|x| x.to_le_bytes()));
        assert_eq!(npy(&bytes).unwrap(), expected());
    }

    #[test]
    fn safetensors_files_of_three_widths_are_read() {
        for dtype in [DType::F16, DType::F32, DType::F64] {
            let tensors = [("a", tensor().to_dtype(dtype).unwrap()), ("mask", tensor().get(0).unwrap())];
            let tensors = std::collections::HashMap::from(tensors);
            let (_dir, path) =
                file("x.safetensors", |path| candle_core::safetensors::save(&tensors, path).unwrap());
            assert_eq!(Matrix::read(&path, None).unwrap(), expected());
            assert_eq!(Matrix::read(&path, Some("a")).unwrap(), expected());
            let message = Matrix::read(&path, Some("b")).unwrap_err().to_string();
            assert!(message.ends_with("no tensor `b`, but a, mask"), "{message}");
        }
    }

    #[test]
    fn truncated_files_are_errors_not_panics() {
        let tensors = std::collections::HashMap::from([("a", tensor())]);
        let (_a, npy) = file("x.npy", |path| tensor().write_npy(path).unwrap());
        let (_b, safe) =
            file("x.safetensors", |path| candle_core::safetensors::save(&tensors, path).unwrap());
        for path in [npy, safe] {
            let bytes = std::fs::read(&path).unwrap();
            for length in 0..bytes.len() {
                std::fs::write(&path, &bytes[..length]).unwrap();
                assert_eq!(Matrix::read(&path, None).unwrap_err().kind(), Kind::Data, "{length} bytes");
            }
        }
    }

    #[test]
    fn headers_that_lie_are_errors_not_panics() {
        let lying = |header: &str| {
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.as_bytes());
            bytes.extend([0; 24]);
            npy(&bytes).unwrap_err().to_string()
        };
        let huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }";
        assert!(lying(huge).contains("truncated?"));
        assert!(lying("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }").contains("shape [6]"));
        assert!(lying("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 6), }").contains("(-1, 6)"));
        assert!(lying("{'descr': '<i8', 'fortran_order': False, 'shape': (1, 3), }").contains("<i8"));
        assert!(lying("{'shape': (1, 3), }").contains("no numbers"));
        assert!(lying("").contains("no numbers"));
    }
}
