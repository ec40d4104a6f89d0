//! A row-major matrix and the products of a training step.

use std::any::TypeId;
use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use rayon::prelude::*;

use crate::Real;

pub mod bf16;

/// Converts the 32-bit number of a row to an index.
pub fn index(number: u32) -> usize {
    number as usize
}

/// A dense row-major matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix<T> {
    rows: usize,
    columns: usize,
    values: Vec<T>,
}

impl<T: Real> Matrix<T> {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Matrix { rows, columns, values: zeros(rows * columns) }
    }

    /// Makes a matrix of `rows · columns` values in row-major order; panics if there are more or fewer values.
    pub fn from_values(rows: usize, columns: usize, values: Vec<T>) -> Self {
        assert_eq!(values.len(), rows * columns, "a {rows} x {columns} matrix");
        Matrix { rows, columns, values }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All values in row-major order.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// All values in row-major order.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[T] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// One row.
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        &mut self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// All rows, for work on all cores.
    pub fn par_rows_mut(&mut self) -> impl IndexedParallelIterator<Item = &mut [T]> {
        self.values.par_chunks_mut(self.columns.max(1))
    }

    /// Changes the shape to `rows x columns`, in the same memory if that is large enough; the content is unspecified.
    pub fn resize(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns) = (rows, columns);
        if rows * columns > self.values.capacity() {
            self.values = zeros(rows * columns);
        }
        self.values.resize(rows * columns, T::ZERO);
    }

    /// Sets every value to zero, on all cores.
    pub fn clear(&mut self) {
        self.values.par_chunks_mut(1 << 16).for_each(|chunk| chunk.fill(T::ZERO));
    }

    /// Tells whether every value is finite.
    pub fn is_finite(&self) -> bool {
        self.values.par_chunks(1 << 16).all(crate::row::all_finite)
    }

    /// Copies the rows numbered `rows` of `from`, on all cores, into this matrix, which it resizes.
    pub fn gather(&mut self, from: &Matrix<T>, rows: &[u32]) {
        self.resize(rows.len(), from.columns);
        self.par_rows_mut().zip(rows).for_each(|(to, &row)| to.copy_from_slice(from.row(index(row))));
    }

    /// A view of the matrix with rows and columns exchanged.
    pub fn transposed(&self) -> View<'_, T> {
        self.view().transposed()
    }

    /// A view of the matrix.
    pub fn view(&self) -> View<'_, T> {
        let Matrix { rows, columns, ref values } = *self;
        View { rows, columns, row_stride: columns, column_stride: 1, values }
    }

    /// Computes `self = keep · self + a · b` on all cores; `keep` is 0 or 1. All products panic if shapes do not fit.
    pub fn product(&mut self, keep: bool, a: View<'_, T>, b: View<'_, T>) {
        self.product_in(ProductPrecision::Full, keep, a, b);
    }

    /// Computes the same product in the given `precision`: in bf16, `keep · self + bf16(a) · bf16(b)`.
    pub(crate) fn product_in(
        &mut self,
        precision: ProductPrecision,
        keep: bool,
        a: View<'_, T>,
        b: View<'_, T>,
    ) {
        self.multiply(precision, rayon::current_num_threads(), keep, a, b);
    }

    /// Computes `self = a · b` on the calling thread alone, for work that is already divided among threads.
    pub fn product_here(&mut self, precision: ProductPrecision, a: View<'_, T>, b: View<'_, T>) {
        self.multiply(precision, 1, false, a, b);
    }

    #[expect(unsafe_code, reason = "the gemm crate takes pointers and strides")]
    fn multiply(
        &mut self,
        precision: ProductPrecision,
        threads: usize,
        keep: bool,
        a: View<'_, T>,
        b: View<'_, T>,
    ) {
        assert_eq!(a.columns, b.rows, "inner dimensions");
        assert_eq!((self.rows, self.columns), (a.rows, b.columns), "shape of the product");
        if self.values.is_empty() || a.columns == 0 {
            if !keep {
                self.values.fill(T::ZERO);
            }
        } else if let ProductPrecision::Bf16(kernel) = precision
            && let (Some(a), Some(b)) = (a.as_f32(), b.as_f32())
        {
            let target = (bytemuck::cast_slice_mut(&mut self.values), self.columns);
            kernel.multiply(threads, target, keep, a, b);
        } else {
            let alpha = if keep { T::ONE } else { T::ZERO };
            let threads =
                if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
            // SAFETY: the views cover their slices (checked when they were made: `from_values` and `resize` keep
            // `values.len() == rows * columns`), the shapes fit (checked above), and `self` is borrowed uniquely.
            unsafe {
                gemm::gemm(
                    self.rows,
                    self.columns,
                    a.columns,
                    self.values.as_mut_ptr(),
                    1,
                    stride(self.columns),
                    keep,
                    a.values.as_ptr(),
                    stride(a.column_stride),
                    stride(a.row_stride),
                    b.values.as_ptr(),
                    stride(b.column_stride),
                    stride(b.row_stride),
                    alpha,
                    T::ONE,
                    false,
                    false,
                    false,
                    threads,
                );
            }
        }
    }
}

/// The precision in which a product is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ProductPrecision {
    /// The precision of the numbers themselves.
    Full,
    /// Rounds `f32` to bf16 and sums in `f32`. Leaves `f64` in full precision.
    Bf16(bf16::Kernel),
}

impl ProductPrecision {
    /// Maximum bytes that the products of a step need besides the matrices: those of the scores' packed gradient.
    pub fn memory(self, entities: usize, queries: usize) -> u64 {
        match self {
            ProductPrecision::Full => 0,
            ProductPrecision::Bf16(_) => 2 * (entities * queries) as u64,
        }
    }
}

impl Display for ProductPrecision {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ProductPrecision::Full => formatter.write_str("full precision"),
            ProductPrecision::Bf16(kernel) => write!(formatter, "bf16 by {kernel}"),
        }
    }
}

fn stride(stride: usize) -> isize {
    isize::try_from(stride).expect("strides are below the address space")
}

/// Allocates `len` zeros, in pages of 2 MiB where the system has them. Products walk through columns, and a row of
/// scores is many pages long: with pages of 4 KiB, every vector read or written would need the address of another page.
fn zeros<T: Real>(len: usize) -> Vec<T> {
    let mut values = vec![T::ZERO; len];
    prefer_large_pages(&mut values);
    values
}

/// Asks the system for large pages. The system may ignore this; memory that was touched before keeps its small pages.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a system call")]
fn prefer_large_pages<T>(values: &mut [T]) {
    const LARGE: usize = 1 << 21;
    let range = values.as_mut_ptr_range();
    let start = range.start.addr().next_multiple_of(LARGE);
    let length = (range.end.addr() / LARGE * LARGE).saturating_sub(start);
    if length > 0 {
        let start = range.start.with_addr(start);
        // SAFETY: the range consists of whole pages within the slice, and the call does not change their content.
        unsafe { libc::madvise(start.cast(), length, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn prefer_large_pages<T>(_values: &mut [T]) {}

/// A matrix to read, perhaps transposed.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
    values: &'a [T],
}

impl<'a, T: Real> View<'a, T> {
    /// This view as a view of `f32`, if `T` is `f32`.
    fn as_f32(self) -> Option<View<'a, f32>> {
        let View { rows, columns, row_stride, column_stride, .. } = self;
        (TypeId::of::<T>() == TypeId::of::<f32>()).then(|| View {
            rows,
            columns,
            row_stride,
            column_stride,
            values: bytemuck::cast_slice(self.values),
        })
    }

    /// The view with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        let View { rows, columns, row_stride, column_stride, values } = self;
        View { rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride, values }
    }

    /// The rows in a range; panics if the view has fewer rows.
    pub fn rows(self, range: Range<usize>) -> Self {
        self.transposed().columns(range).transposed()
    }

    /// The columns in a range; panics if the view has fewer columns.
    pub fn columns(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.columns, "columns of the view");
        let from = (range.start * self.column_stride).min(self.values.len());
        View { columns: range.len(), values: &self.values[from..], ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_in_all_orientations_and_of_some_columns() {
        let a = Matrix::from_values(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let b = Matrix::from_values(2, 3, vec![1.0, 0.0, 2.0, 0.0, 1.0, 0.0]);
        let mut c = Matrix::zeros(2, 2);
        c.product(false, a.view(), b.transposed());
        assert_eq!(c.values(), [7.0, 2.0, 16.0, 5.0]);
        let mut d = Matrix::from_values(3, 3, vec![1.0; 9]);
        d.product(true, a.transposed(), b.view());
        assert_eq!(d.values(), [2.0, 5.0, 3.0, 3.0, 6.0, 5.0, 4.0, 7.0, 7.0]);
        let b = Matrix::from_values(2, 2, vec![1.0, 0.0, 0.0, 10.0]);
        c.product_here(ProductPrecision::Full, a.view().columns(1..3).transposed(), b.view());
        assert_eq!(c.values(), [2.0, 50.0, 3.0, 60.0]);
        let mut none = Matrix::zeros(0, 2);
        none.product_here(ProductPrecision::Full, a.view().columns(3..3).transposed(), b.view());
        let mut rows = Matrix::default();
        rows.gather(&a, &[1, 0, 1]);
        assert_eq!(rows.values(), [4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}
