//! Named matrices as safetensors: models, and the state of unfinished training.

use rayon::prelude::*;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, json};
use stage::files::{digest_of, write_tensors};
use stage::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{Matrix, row};

/// Named matrices to save, and texts for the file's header.
#[derive(Default)]
pub struct NamedTensors<'a> {
    matrices: Vec<(String, &'a Matrix<f32>)>,
    metadata: BTreeMap<String, String>,
}

impl<'a> NamedTensors<'a> {
    /// Adds a matrix.
    pub fn matrix(mut self, name: impl Into<String>, matrix: &'a Matrix<f32>) -> Self {
        self.matrices.push((name.into(), matrix));
        self
    }

    /// Adds everything in `other`, with `prefix.` before each name.
    pub fn nested(mut self, prefix: &str, other: NamedTensors<'a>) -> Self {
        let NamedTensors { matrices, metadata } = other;
        let name = |name: String| format!("{prefix}.{name}");
        self.matrices.extend(matrices.into_iter().map(|(of, matrix)| (name(of), matrix)));
        self.metadata.extend(metadata.into_iter().map(|(of, text)| (name(of), text)));
        self
    }

    /// Adds text to the file's header.
    pub fn text(mut self, name: &str, text: impl Into<String>) -> Self {
        self.metadata.insert(name.to_owned(), text.into());
        self
    }

    /// Writes one safetensors file, atomically.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut header = Map::new();
        if !self.metadata.is_empty() {
            header.insert("__metadata__".to_owned(), json!(self.metadata));
        }
        let mut end = 0;
        for (name, matrix) in &self.matrices {
            let begin = end;
            end += bytes(matrix).len();
            let shape = [matrix.rows(), matrix.columns()];
            let tensor = json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, end] });
            header.insert(name.clone(), tensor);
        }
        write_tensors(path, &header.into(), self.matrices.iter().map(|(_, matrix)| bytes(matrix)))
    }

    /// Writes the same file with a digest of its content, which [`TensorReader::open_checked`] checks. Meant for files
    /// that no manifest records.
    pub fn write_checked(self, path: &Path) -> Result<()> {
        let texts = self.metadata.iter().map(|(name, text)| (name.as_str(), text.as_bytes()));
        let tensors = self.matrices.iter().map(|(name, matrix)| (name.as_str(), bytes(matrix)));
        let digest = digest(texts.chain(tensors));
        self.text(DIGEST, digest).write(path)
    }
}

fn bytes(matrix: &Matrix<f32>) -> &[u8] {
    bytemuck::cast_slice(matrix.values())
}

/// The name of the header's text that holds the digest of everything else.
const DIGEST: &str = "sha256";

/// The digest of named texts and tensors.
fn digest<'a>(parts: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let digests: BTreeMap<&str, String> = parts.map(|(name, of)| (name, digest_of(of))).collect();
    digest_of(json!(digests).to_string().as_bytes())
}

/// A safetensors file read into memory.
pub struct TensorReader {
    path: PathBuf,
    bytes: Vec<u8>,
    header: Metadata,
}

impl TensorReader {
    /// Reads the file and checks that it is whole.
    pub fn open(path: &Path) -> Result<TensorReader> {
        let bytes = stage::files::read_bytes(path)?;
        match SafeTensors::read_metadata(&bytes) {
            Ok((_, header)) => Ok(TensorReader { path: path.to_owned(), bytes, header }),
            Err(e) => Err(broken(path, &format!("not a readable safetensors file: {e}"))),
        }
    }

    /// Reads a file written by [`NamedTensors::write_checked`]; an error if its content has changed since.
    pub fn open_checked(path: &Path) -> Result<TensorReader> {
        const REMEDY: &str = "rerun with --force";
        let reader = TensorReader::open(path).map_err(|error| error.hint(REMEDY))?;
        if reader.text(DIGEST)? == reader.digest() {
            return Ok(reader);
        }
        Err(Error::data("damaged: its digest is another one").at(path).hint(REMEDY))
    }

    fn digest(&self) -> String {
        let texts = self.header.metadata().iter().flatten().filter(|(name, _)| *name != DIGEST);
        let texts = texts.map(|(name, text)| (name.as_str(), text.as_bytes()));
        let tensors = self.header.tensors();
        digest(texts.chain(tensors.iter().map(|(name, tensor)| (name.as_str(), self.data(tensor)))))
    }

    fn data(&self, tensor: &TensorInfo) -> &[u8] {
        let header = self.bytes.len() - self.header.data_len();
        let (start, end) = tensor.data_offsets;
        &self.bytes[header..][start..end]
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A text of the header.
    pub fn text(&self, name: &str) -> Result<String> {
        let text = self.header.metadata().as_ref().and_then(|texts| texts.get(name)).cloned();
        text.ok_or_else(|| broken(&self.path, &format!("no `{name}` in the header")))
    }

    /// A whole number in the header.
    pub fn number(&self, name: &str) -> Result<u64> {
        self.text(name)?.parse().map_err(|e| broken(&self.path, &format!("`{name}`: {e}")))
    }

    /// Tells whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// A matrix by name.
    pub fn matrix(&self, name: &str) -> Result<Matrix<f32>> {
        let broken = |message: &str| broken(&self.path, message);
        let tensor = self.header.info(name).ok_or_else(|| broken(&format!("no tensor `{name}`")))?;
        match (tensor.dtype, tensor.shape.as_slice()) {
            (Dtype::F32, &[rows, columns]) => {
                let (values, _) = self.data(tensor).as_chunks::<4>();
                let values = values.par_iter().map(|bytes| f32::from_le_bytes(*bytes));
                Ok(Matrix::from_values(rows, columns, values.collect()))
            }
            (dtype, shape) => {
                Err(broken(&format!("`{name}` is {dtype:?} {shape:?}, expected an F32 matrix")))
            }
        }
    }

    /// Reads `name` into a matrix; an error if the shapes differ.
    pub fn load(&self, name: &str, into: &mut Matrix<f32>) -> Result<()> {
        let matrix = self.matrix(name)?;
        if (matrix.rows(), matrix.columns()) != (into.rows(), into.columns()) {
            let found = format!("`{name}` is {} x {}", matrix.rows(), matrix.columns());
            let message = format!("{found}, expected {} x {}", into.rows(), into.columns());
            return Err(broken(&self.path, &message));
        }
        *into = matrix;
        Ok(())
    }
}

fn broken(path: &Path, message: &str) -> Error {
    Error::data(message).at(path).hint("truncated or not written by this pipeline: rerun its stage")
}

/// Refuses values that are not finite, naming the first row that has one.
pub fn require_finite(name: &str, matrix: &Matrix<f32>) -> Result<()> {
    match (0..matrix.rows()).into_par_iter().find_first(|row| !row::all_finite(matrix.row(*row))) {
        Some(row) => Err(diverged(&format!("`{name}`")).row(row as u64)),
        None => Ok(()),
    }
}

/// The error of a training in which `what` is no longer finite.
pub fn diverged(what: &str) -> Error {
    let hint = "lower the learning rate; a checkpoint and a model that are there are kept";
    Error::new(Kind::Diverged, format!("{what} is no longer finite")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_survive_and_another_reader_agrees() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let (a, b) = (Matrix::from_values(2, 3, (0..6u8).map(f32::from).collect()), Matrix::zeros(0, 4));
        NamedTensors::default().matrix("b", &b).matrix("a", &a).text("note", "x").write(&path).unwrap();
        let reader = TensorReader::open(&path).unwrap();
        assert_eq!((reader.matrix("a").unwrap(), reader.text("note").unwrap()), (a, "x".to_owned()));
        assert_eq!(reader.matrix("b").unwrap().columns(), 4);
        let theirs = candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
        assert_eq!(theirs["a"].to_vec2::<f32>().unwrap(), [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]);
    }

    #[test]
    fn a_checked_file_is_not_believed_with_any_bit_flipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let matrix = Matrix::from_values(2, 2, vec![1.0, 2.0, 3.0, 4.0]);
        NamedTensors::default().matrix("m", &matrix).text("progress", "[3]").write_checked(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert!(TensorReader::open_checked(&path).is_ok());
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            let padding = damaged[place] == b'!';
            assert!(padding || TensorReader::open_checked(&path).is_err(), "byte {place} of {}", whole.len());
        }
    }
}
