//! Numbers that move between the host and a device.

use candle_core::{DType, Device, Result, Tensor, WithDType};
use kge::Matrix;
use kge::matrix::index;
use mkg::EntityId;
use stage::{Error, Kind};
use std::cell::Cell;

/// A floating-point type: `f32` in programs, `f64` in tests that compare digits.
pub trait Number: kge::Real + WithDType {}

impl Number for f32 {}
impl Number for f64 {}

/// The padding in a list of indices: gathering it gives 0, and scattering to it does nothing.
pub(crate) const NOWHERE: u32 = u32::MAX;

thread_local! {
    static READ: Cell<usize> = const { Cell::new(0) };
}

/// Number of values that the calling thread has read from devices so far.
pub fn numbers_read() -> usize {
    READ.get()
}

/// All numbers of a tensor, row by row. No other function reads from a device to the host.
pub(crate) fn read<T: WithDType>(tensor: &Tensor) -> Result<Vec<T>> {
    READ.set(READ.get() + tensor.elem_count());
    tensor.flatten_all()?.to_vec1()
}

/// All numbers of a tensor of any floating-point type as `f64`.
pub(crate) fn read_numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    match tensor.dtype() {
        DType::F64 => read(tensor),
        _ => Ok(read::<f32>(&tensor.to_dtype(DType::F32)?)?.into_iter().map(f64::from).collect()),
    }
}

pub(crate) fn read_matrix<T: Number>(tensor: &Tensor) -> Result<Matrix<T>> {
    let (rows, columns) = tensor.dims2()?;
    Ok(Matrix::from_values(rows, columns, read(tensor)?))
}

pub(crate) fn upload<T: Number>(device: &Device, matrix: &Matrix<T>) -> Result<Tensor> {
    Tensor::from_slice(matrix.values(), (matrix.rows(), matrix.columns()), device)
}

pub(crate) fn list(device: &Device, indices: &[u32]) -> Result<Tensor> {
    Tensor::from_slice(indices, indices.len(), device)
}

/// Lists of entities as one tensor `(list, longest)`, with [`NOWHERE`] behind shorter lists.
pub(crate) fn lists<'a, L: Iterator<Item = &'a EntityId>>(
    device: &Device,
    lists: impl Iterator<Item = L>,
) -> Result<Tensor> {
    let lists: Vec<Vec<u32>> = lists.map(|list| list.map(|entity| entity.0).collect()).collect();
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let mut padded = vec![NOWHERE; lists.len() * longest];
    for (row, list) in padded.chunks_exact_mut(longest).zip(&lists) {
        row[..list.len()].copy_from_slice(list);
    }
    Tensor::from_vec(padded, (lists.len(), longest), device)
}

/// The rows of a tensor at `rows`, or all of them.
pub(crate) fn select(tensor: &Tensor, rows: Option<&Tensor>) -> Result<Tensor> {
    rows.map_or_else(|| Ok(tensor.clone()), |rows| tensor.index_select(rows, 0))
}

/// Bytes of a tensor of single precision with these dimensions.
pub(crate) fn bytes(dimensions: &[usize]) -> u64 {
    dimensions.iter().fold(4, |bytes, &of| bytes.saturating_mul(of as u64))
}

/// Puts rows `(use, width)` at their `places` among `count` rows; the other rows are zero.
pub(crate) fn spread(rows: &Tensor, places: &[u32], count: usize) -> Result<Tensor> {
    let mut numbers = vec![NOWHERE; count];
    for (number, place) in (0..).zip(places) {
        numbers[index(*place)] = number;
    }
    rows.index_select(&list(rows.device(), &numbers)?, 0)
}

/// The type of sums over a row.
pub(crate) fn wide(device: &Device) -> DType {
    if device.is_metal() { DType::F32 } else { DType::F64 }
}

/// Converts an error of candle to an error of this project.
pub(crate) fn failed(error: candle_core::Error) -> Error {
    let text = error.to_string();
    let is_full = text.to_lowercase().contains("out of memory") || text.contains("OUT_OF_MEMORY");
    let kind = if is_full { Kind::Resource } else { Kind::Unexpected };
    Error::new(kind, "the device failed").because(error)
}
