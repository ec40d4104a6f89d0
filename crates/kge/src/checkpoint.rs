//! Named matrices as safetensors: models, and the state of unfinished training.

use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};
use stage::files::make_readable;
use stage::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::{Matrix, row};

/// Matrices to save, by name, and text beside them.
#[derive(Default)]
pub struct Tensors<'a> {
    matrices: Vec<(String, &'a Matrix<f32>)>,
    metadata: HashMap<String, String>,
}

impl<'a> Tensors<'a> {
    /// Adds a matrix.
    pub fn matrix(mut self, name: impl Into<String>, matrix: &'a Matrix<f32>) -> Self {
        self.matrices.push((name.into(), matrix));
        self
    }

    /// Adds all of `other`, under `prefix.`.
    pub fn nested(mut self, prefix: &str, other: Tensors<'a>) -> Self {
        self.matrices
            .extend(other.matrices.into_iter().map(|(name, matrix)| (format!("{prefix}.{name}"), matrix)));
        self
    }

    /// Adds text to the file's header.
    pub fn text(mut self, name: &str, text: impl Into<String>) -> Self {
        self.metadata.insert(name.to_owned(), text.into());
        self
    }

    /// Writes one safetensors file, atomically.
    pub fn write(&self, path: &Path) -> Result<()> {
        // safetensors writes the file itself, so the temporary sibling is ours to name and to rename.
        let temporary = path.with_extension("tmp");
        let views = self.matrices.iter().map(|(name, matrix)| {
            let bytes = bytemuck::cast_slice(matrix.values());
            let shape = vec![matrix.rows(), matrix.columns()];
            TensorView::new(Dtype::F32, shape, bytes).map(|view| (name.as_str(), view))
        });
        let views = views.collect::<Result<Vec<_>, _>>().map_err(|e| Error::data(e.to_string()).at(path))?;
        // An empty header keeps bytes equal: a map of several entries has no fixed order.
        let metadata = (!self.metadata.is_empty()).then(|| self.metadata.clone());
        serialize_to_file(views, metadata, &temporary)
            .map_err(|e| Error::new(stage::Kind::Io, "cannot write").at(path).because(e))?;
        let file = File::open(&temporary).map_err(|e| Error::io(&temporary, e))?;
        make_readable(&file, path)?;
        std::fs::rename(&temporary, path).map_err(|e| Error::io(path, e))
    }
}

/// A safetensors file read into memory.
pub struct Reader {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Reader {
    /// Reads the file and checks that it is whole.
    pub fn open(path: &Path) -> Result<Reader> {
        let reader = Reader { path: path.to_owned(), bytes: stage::files::read_bytes(path)? };
        reader.parse()?;
        Ok(reader)
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn parse(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes)
            .map_err(|e| self.broken(&format!("not a readable safetensors file: {e}")))
    }

    fn broken(&self, message: &str) -> Error {
        Error::data(message).at(&self.path).hint("truncated or not written by this pipeline: rerun its stage")
    }

    /// A text of the header.
    pub fn text(&self, name: &str) -> Result<String> {
        self.find_text(name)?.ok_or_else(|| self.broken(&format!("no `{name}` in the header")))
    }

    /// A text of the header, if it is there.
    pub fn find_text(&self, name: &str) -> Result<Option<String>> {
        let (_, header) = SafeTensors::read_metadata(&self.bytes).map_err(|e| self.broken(&e.to_string()))?;
        Ok(header.metadata().as_ref().and_then(|texts| texts.get(name)).cloned())
    }

    /// A matrix by name.
    pub fn matrix(&self, name: &str) -> Result<Matrix<f32>> {
        let tensors = self.parse()?;
        let view = tensors.tensor(name).map_err(|_| self.broken(&format!("no tensor `{name}`")))?;
        match (view.dtype(), view.shape()) {
            (Dtype::F32, &[rows, columns]) => {
                let values = view.data().par_chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                Ok(Matrix::from_values(rows, columns, values.collect()))
            }
            (dtype, shape) => {
                Err(self.broken(&format!("`{name}` is {dtype:?} {shape:?}, expected an F32 matrix")))
            }
        }
    }

    /// Reads `name` into a matrix whose shape it must have.
    pub fn load(&self, name: &str, into: &mut Matrix<f32>) -> Result<()> {
        let matrix = self.matrix(name)?;
        if (matrix.rows(), matrix.columns()) != (into.rows(), into.columns()) {
            let found = format!("`{name}` is {} x {}", matrix.rows(), matrix.columns());
            return Err(self.broken(&format!("{found}, expected {} x {}", into.rows(), into.columns())));
        }
        *into = matrix;
        Ok(())
    }
}

/// Refuses values that are not finite, naming the first row that has one.
pub fn require_finite(name: &str, matrix: &Matrix<f32>) -> Result<()> {
    match (0..matrix.rows()).into_par_iter().find_first(|row| !row::all_finite(matrix.row(*row))) {
        Some(row) => {
            let message = format!("`{name}` is no longer finite");
            let hint = "lower the learning rate; the last checkpoint and the best model are kept";
            Err(Error::new(stage::Kind::Diverged, message).row(row as u64).hint(hint))
        }
        None => Ok(()),
    }
}
