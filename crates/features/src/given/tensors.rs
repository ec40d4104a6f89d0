//! A file of named tensors, whatever its format, becomes rows.

use half::{bf16, f16};
use stage::{Error, Result};

/// How a number is stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F16,
    Bf16,
    F32,
    F64,
}

impl Number {
    /// Bytes per number.
    pub(super) fn size(self) -> usize {
        match self {
            Number::F16 | Number::Bf16 => 2,
            Number::F32 => 4,
            Number::F64 => 8,
        }
    }

    /// The numbers in `bytes`, a whole number of them.
    pub(super) fn read(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Number::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Number::Bf16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            Number::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Number::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        }
    }
}

/// Named tensors of which only the names and shapes have been read.
pub(super) trait Tensors {
    /// Names and shapes, sorted by name.
    fn list(&self) -> Vec<(String, Vec<usize>)>;
    /// The numbers of one of them, its last axis fastest.
    fn read(&mut self, name: &str) -> Result<Vec<f32>>;
}

/// What a file gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// The row's entities by key; where it is empty, rows are in an order that somebody else knows.
    pub keys: Vec<String>,
    /// How many rows.
    pub count: usize,
    /// Numbers per row.
    pub width: usize,
    /// `(row, width)`; may hold numbers that are not finite.
    pub values: Vec<f32>,
}

/// The rows of the tensor called `name`; without it those of the only one with two axes, or one row from each where all
/// have one axis and are named like entities.
pub(super) fn rows(tensors: &mut dyn Tensors, name: Option<&str>) -> Result<Rows> {
    let list = tensors.list();
    let matrices: Vec<&(String, Vec<usize>)> = list.iter().filter(|(_, shape)| shape.len() == 2).collect();
    let is_row = |shape: &[usize]| matches!(shape, [_] | [1, _]);
    match (name, matrices.as_slice()) {
        (Some(name), _) => {
            let missing = || Error::data(format!("no tensor `{name}`, but {}", names(&list)));
            let (name, shape) = list.iter().find(|(other, _)| other == name).ok_or_else(missing)?;
            matrix(tensors, name, shape)
        }
        (None, [(name, shape)]) => matrix(tensors, name, shape),
        (None, _) if !list.is_empty() && list.iter().all(|(_, shape)| is_row(shape)) => keyed(tensors, list),
        (None, matrices) => {
            let message = format!("{} tensors with two axes among {}", matrices.len(), names(&list));
            Err(Error::data(message).hint("name one with `tensor` in the recipe"))
        }
    }
}

/// The first names.
fn names(list: &[(String, Vec<usize>)]) -> String {
    const MOST: usize = 8;
    let mut names: Vec<&str> = list.iter().take(MOST).map(|(name, _)| name.as_str()).collect();
    let more = format!("{} more", list.len().saturating_sub(MOST));
    if list.len() > MOST {
        names.push(&more);
    }
    if names.is_empty() { "no tensors at all".to_owned() } else { names.join(", ") }
}

fn matrix(tensors: &mut dyn Tensors, name: &str, shape: &[usize]) -> Result<Rows> {
    let &[count, width] = shape else { return Err(wrong_shape(name, shape)) };
    if width == 0 {
        return Err(wrong_shape(name, shape));
    }
    require_memory([shape])?;
    Ok(Rows { keys: Vec::new(), count, width, values: tensors.read(name)? })
}

fn wrong_shape(name: &str, shape: &[usize]) -> Error {
    Error::data(format!("tensor `{name}` has shape {shape:?}, expected (entity, width)"))
}

fn keyed(tensors: &mut dyn Tensors, list: Vec<(String, Vec<usize>)>) -> Result<Rows> {
    require_memory(list.iter().map(|(_, shape)| shape.as_slice()))?;
    let width_of = |shape: &[usize]| shape.last().copied().unwrap_or_default();
    let (first, width) = (list[0].0.clone(), width_of(&list[0].1));
    if width == 0 {
        return Err(wrong_shape(&first, &list[0].1));
    }
    let mut rows = Rows { keys: Vec::new(), count: list.len(), width, values: Vec::new() };
    for (name, shape) in list {
        if width_of(&shape) != width {
            let message = format!("`{name}` has {} numbers, but `{first}` has {width}", width_of(&shape));
            return Err(Error::data(message));
        }
        rows.values.extend(tensors.read(&name)?);
        rows.keys.push(name);
    }
    Ok(rows)
}

/// As numbers, and once more as they are stored.
fn require_memory<'a>(shapes: impl IntoIterator<Item = &'a [usize]>) -> Result<()> {
    let count =
        |shape: &[usize]| shape.iter().fold(1u64, |product, axis| product.saturating_mul(*axis as u64));
    let total = shapes.into_iter().fold(0u64, |sum, shape| sum.saturating_add(count(shape)));
    let knob = "use a machine with more memory, or features with fewer columns";
    stage::resources::require_memory(total.saturating_mul(12), "reading the features", knob)
}
