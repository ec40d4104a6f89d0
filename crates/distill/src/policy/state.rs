//! The policy's view of a query: blocks of numbers, and how the first layer takes each.

use kge::{Matrix, ProductPrecision, Real, row};
use rayon::prelude::*;
use std::ops::Range;

/// One block of the state: a row of numbers for every training query.
pub trait Block<T>: Send + Sync {
    /// Numbers per query.
    fn width(&self) -> usize;

    /// Adds the block's part `state · W` of the hidden layer `(query, hidden)`; `weights (width, hidden)`.
    fn forward(&mut self, queries: &[u32], weights: &Matrix<T>, hidden: &mut Matrix<T>);

    /// Prepares the gradient of the weights, `stateᵀ · upstream` with `upstream (query, hidden)`, for
    /// [`Block::gradient`].
    fn backward(&mut self, queries: &[u32], upstream: &Matrix<T>);

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

    fn read(&mut self, queries: &[u32]) {
        self.state.resize(queries.len(), self.width);
        let rows = self.state.values_mut().par_chunks_mut(self.width.max(1));
        rows.zip(queries).for_each(|(into, &query)| (self.fill)(query as usize, into));
    }
}

impl<T: Real, F: Fn(usize, &mut [T]) + Sync + Send> Block<T> for Dense<T, F> {
    fn width(&self) -> usize {
        self.width
    }

    fn forward(&mut self, queries: &[u32], weights: &Matrix<T>, hidden: &mut Matrix<T>) {
        self.read(queries);
        hidden.product(true, T::ONE, self.state.view(), weights.view());
    }

    fn backward(&mut self, queries: &[u32], _upstream: &Matrix<T>) {
        self.read(queries);
    }

    fn gradient(&self, rows: Range<usize>, upstream: &Matrix<T>, into: &mut Matrix<T>) {
        into.product_here(
            ProductPrecision::Full,
            self.state.view().columns(rows).transposed(),
            upstream.view(),
        );
    }
}

/// A teacher's scores, standardised, and what they are made of.
pub(crate) trait Scored<T>: Send + Sync {
    /// Writes the standardised scores of a query `(entity)`.
    fn scores(&self, query: usize, into: &mut [T]);

    /// Writes its query vector `(2k)`.
    fn vector(&self, query: usize, into: &mut [T]);

    /// The mean and rate that its scores are standardised with.
    fn statistics(&self, query: usize) -> Statistics<T>;
}

/// A teacher's scores `E q`, standardised, without forming them:
///
/// ```text
/// state = (E q - μ) / σ      state · W = (q · (Eᵀ W) - μ (1ᵀ W)) / σ
/// ∂W = stateᵀ U = E (Vᵀ U) - 1 (mᵀ U)      V = q / σ,  m = μ / σ, row by row
/// ```
///
/// Its cost does not depend on the number of queries but on the width of `q`, so each product takes this way only
/// where the width is below the number of queries, and else reads the scores: the cheaper of two equal numbers.
pub(crate) struct Factored<T, S> {
    /// `E (entity, 2k)`.
    entity: Matrix<T>,
    scored: S,
    /// The scores `(query, entity)`, where they are read.
    state: Matrix<T>,
    /// `V (query, 2k)`.
    vectors: Matrix<T>,
    /// `m` of each query.
    means: Vec<T>,
    /// `Eᵀ W`, then `Vᵀ U` `(2k, hidden)`.
    folded: Matrix<T>,
    /// `1ᵀ W`, then `mᵀ U` `(1, hidden)`.
    sums: Matrix<T>,
    by_factors: bool,
}

impl<T: Real, S: Scored<T>> Factored<T, S> {
    /// The scores of a teacher with this entity table.
    pub(crate) fn new(entity: Matrix<T>, scored: S) -> Self {
        let empty = || Matrix::zeros(0, 0);
        Factored {
            entity,
            scored,
            state: empty(),
            vectors: empty(),
            means: Vec::new(),
            folded: empty(),
            sums: empty(),
            by_factors: false,
        }
    }

    /// Tells whether the last backward pass went by factors.
    #[cfg(test)]
    pub(super) fn by_factors(&self) -> bool {
        self.by_factors
    }

    fn read_scores(&mut self, queries: &[u32]) {
        let entities = self.entity.rows();
        self.state.resize(queries.len(), entities);
        let rows = self.state.values_mut().par_chunks_mut(entities);
        rows.zip(queries).for_each(|(into, &query)| self.scored.scores(query as usize, into));
    }

    fn read_factors(&mut self, queries: &[u32]) {
        let width = self.entity.columns();
        self.vectors.resize(queries.len(), width);
        let rows = self.vectors.values_mut().par_chunks_mut(width).zip(queries);
        let means = rows.map(|(into, &query)| {
            self.scored.vector(query as usize, into);
            let Statistics { mean, rate } = self.scored.statistics(query as usize);
            row::scale(into, rate);
            mean * rate
        });
        self.means = means.collect();
    }
}

impl<T: Real, S: Scored<T>> Block<T> for Factored<T, S> {
    fn width(&self) -> usize {
        self.entity.rows()
    }

    fn forward(&mut self, queries: &[u32], weights: &Matrix<T>, hidden: &mut Matrix<T>) {
        if self.entity.columns() >= queries.len() {
            self.read_scores(queries);
            return hidden.product(true, T::ONE, self.state.view(), weights.view());
        }
        self.read_factors(queries);
        self.folded.resize(self.entity.columns(), weights.columns());
        self.folded.product(false, T::ONE, self.entity.transposed(), weights.view());
        sum_rows(weights, &mut self.sums);
        hidden.product(true, T::ONE, self.vectors.view(), self.folded.view());
        for (query, &mean) in self.means.iter().enumerate() {
            row::add_scaled(hidden.row_mut(query), -mean, self.sums.row(0));
        }
    }

    fn backward(&mut self, queries: &[u32], upstream: &Matrix<T>) {
        self.by_factors = self.entity.columns() < queries.len();
        if !self.by_factors {
            return self.read_scores(queries);
        }
        self.read_factors(queries);
        self.folded.resize(self.entity.columns(), upstream.columns());
        self.folded.product(false, T::ONE, self.vectors.transposed(), upstream.view());
        self.sums.resize(1, upstream.columns());
        self.sums.clear();
        for (query, &mean) in self.means.iter().enumerate() {
            row::add_scaled(self.sums.row_mut(0), mean, upstream.row(query));
        }
    }

    fn gradient(&self, rows: Range<usize>, upstream: &Matrix<T>, into: &mut Matrix<T>) {
        if !self.by_factors {
            let columns = self.state.view().columns(rows);
            return into.product_here(ProductPrecision::Full, columns.transposed(), upstream.view());
        }
        into.product_here(ProductPrecision::Full, self.entity.view().rows(rows), self.folded.view());
        for row in 0..into.rows() {
            row::add_scaled(into.row_mut(row), -T::ONE, self.sums.row(0));
        }
    }
}

/// Column sums of a matrix, as one row.
pub(super) fn sum_rows<T: Real>(matrix: &Matrix<T>, into: &mut Matrix<T>) {
    into.resize(1, matrix.columns());
    into.clear();
    for row in 0..matrix.rows() {
        row::add_scaled(into.row_mut(0), T::ONE, matrix.row(row));
    }
}

/// Standardisation of a row of scores: `(score - mean) · rate`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Statistics<T> {
    /// Mean over all entities.
    pub(crate) mean: T,
    /// One over the standard deviation; 0 where all scores are equal.
    pub(crate) rate: T,
}

impl<T: Real> Statistics<T> {
    /// Statistics of a row of scores.
    pub(crate) fn of(scores: &[T]) -> Self {
        let count = T::from_f64(scores.len() as f64);
        let mean = row::sum(scores) / count;
        let deviation = (row::sum_squares(scores, mean) / count).sqrt();
        Statistics { mean, rate: if deviation > T::ZERO { T::ONE / deviation } else { T::ZERO } }
    }

    /// Standardises the scores.
    pub(crate) fn apply(self, scores: &mut [T]) {
        row::shift_and_scale(scores, self.mean, self.rate);
    }
}
