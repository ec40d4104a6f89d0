//! Adagrad (Duchi et al., 2011), as PyTorch computes it.

use rayon::prelude::*;

use crate::matrix::index;
use crate::{Matrix, Real, widest};

/// The number added to the root, so that a parameter without any gradient yet does not move.
pub const EPSILON: f64 = 1e-10;

/// The optimiser's state for one matrix of parameters.
#[derive(Clone, Debug, Default)]
pub struct Adagrad<T> {
    learning_rate: T,
    pub(crate) squares: Matrix<T>,
}

impl<T: Real> Adagrad<T> {
    /// A fresh state for a `rows x columns` matrix.
    pub fn new(learning_rate: f64, rows: usize, columns: usize) -> Self {
        Adagrad { learning_rate: T::from_f64(learning_rate), squares: Matrix::zeros(rows, columns) }
    }

    /// Computes `s += g²; x -= lr · g / (√s + ε)` on all cores.
    pub fn step(&mut self, parameters: &mut Matrix<T>, gradient: &Matrix<T>) {
        const ROWS: usize = 32;
        let gradients = gradient.values().par_chunks(ROWS * gradient.columns().max(1));
        self.blocks(parameters, ROWS).zip(gradients).for_each(|(block, gradient)| {
            block.step(gradient);
        });
    }

    /// Steps only the rows numbered `rows`: a row without a gradient would not move.
    pub fn step_rows(&mut self, parameters: &mut Matrix<T>, rows: &[u32], gradient: &Matrix<T>) {
        for (i, row) in rows.iter().map(|row| index(*row)).enumerate() {
            let (parameters, sums) = (parameters.row_mut(row), self.squares.row_mut(row));
            AdagradRows { learning_rate: self.learning_rate, parameters, sums }.step(gradient.row(i));
        }
    }

    /// Parameters and state in blocks of `rows` rows, which can be stepped in parallel.
    pub fn blocks<'a>(
        &'a mut self,
        parameters: &'a mut Matrix<T>,
        rows: usize,
    ) -> impl IndexedParallelIterator<Item = AdagradRows<'a, T>> {
        let learning_rate = self.learning_rate;
        let values = rows * parameters.columns().max(1);
        let sums = self.squares.values_mut().par_chunks_mut(values);
        let parameters = parameters.values_mut().par_chunks_mut(values);
        parameters.zip(sums).map(move |(parameters, sums)| AdagradRows { learning_rate, parameters, sums })
    }
}

/// Rows of parameters with their state.
#[derive(Debug)]
pub struct AdagradRows<'a, T> {
    learning_rate: T,
    /// The parameters, row by row.
    pub parameters: &'a mut [T],
    sums: &'a mut [T],
}

impl<'a, T: Real> AdagradRows<'a, T> {
    /// Steps these rows and returns their parameters.
    pub fn step(self, gradient: &[T]) -> &'a mut [T] {
        let AdagradRows { learning_rate, parameters, sums } = self;
        let epsilon = T::from_f64(EPSILON);
        widest!({
            for ((x, sum), &g) in parameters.iter_mut().zip(sums.iter_mut()).zip(gradient) {
                *sum += g * g;
                *x -= learning_rate * g / (sum.sqrt() + epsilon);
            }
        });
        parameters
    }
}
