//! The policy's view of a query: blocks of numbers, and how the first layer takes each.

use kge::{Matrix, ProductPrecision, Real, row};
use rayon::prelude::*;
use std::ops::Range;

/// One block of the state: a row of numbers for every training query.
pub trait Block<T>: Send + Sync {
    /// Numbers per query.
    fn width(&self) -> usize;

    /// Adds the block's part `state · W` of the hidden layer `(query, hidden)`; `weights (width, hidden)`.
    fn forward(&mut self, queries: &[usize], weights: &Matrix<T>, hidden: &mut Matrix<T>);

    /// Prepares the gradient of the weights, `stateᵀ · upstream` with `upstream (query, hidden)`, for
    /// [`Block::gradient`].
    fn backward(&mut self, queries: &[usize], upstream: &Matrix<T>);

    /// Rows of the gradient that was prepared.
    fn gradient(&self, rows: Range<usize>, upstream: &Matrix<T>, into: &mut Matrix<T>);
}

/// A block whose rows are written out: `fill` writes that of a query.
pub struct Dense<T, F> {
    width: usize,
    fill: F,
    state: Matrix<T>,
}

impl<T: Real, F: Fn(usize, &mut [T]) + Sync> Dense<T, F> {
    /// A block of so many numbers.
    pub fn new(width: usize, fill: F) -> Self {
        Dense { width, fill, state: Matrix::zeros(0, 0) }
    }
}

impl<T: Real, F: Fn(usize, &mut [T]) + Sync + Send> Block<T> for Dense<T, F> {
    fn width(&self) -> usize {
        self.width
    }

    fn forward(&mut self, queries: &[usize], weights: &Matrix<T>, hidden: &mut Matrix<T>) {
        fill_rows(&mut self.state, self.width, queries, &self.fill);
        hidden.product(true, T::ONE, self.state.view(), weights.view());
    }

    fn backward(&mut self, queries: &[usize], _upstream: &Matrix<T>) {
        fill_rows(&mut self.state, self.width, queries, &self.fill);
    }

    fn gradient(&self, rows: Range<usize>, upstream: &Matrix<T>, into: &mut Matrix<T>) {
        let state = self.state.view().columns(rows).transposed();
        into.product_here(ProductPrecision::Full, state, upstream.view());
    }
}

/// Makes `state` a row of so many numbers for each of the queries, as `fill` writes it.
pub(crate) fn fill_rows<T: Real>(
    state: &mut Matrix<T>,
    width: usize,
    queries: &[usize],
    fill: impl Fn(usize, &mut [T]) + Sync,
) {
    state.resize(queries.len(), width);
    let rows = state.values_mut().par_chunks_mut(width.max(1));
    rows.zip(queries).for_each(|(into, query)| fill(*query, into));
}

/// Column sums of a matrix, as one row.
pub(crate) fn sum_rows<T: Real>(matrix: &Matrix<T>, into: &mut Matrix<T>) {
    into.resize(1, matrix.columns());
    into.clear();
    for row in 0..matrix.rows() {
        row::add_scaled(into.row_mut(0), T::ONE, matrix.row(row));
    }
}
