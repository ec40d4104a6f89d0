//! Adagrad (Duchi et al., 2011), as PyTorch computes it.

use rayon::prelude::*;

use crate::{Matrix, Real};

/// Added to the root so that a parameter never touched stays where it is.
const EPSILON: f64 = 1e-10;

/// The optimiser's state for one matrix of parameters.
#[derive(Clone, Debug)]
pub struct Adagrad<T> {
    learning_rate: T,
    sum_of_squares: Matrix<T>,
}

impl<T: Real> Adagrad<T> {
    /// A fresh state for a `rows x columns` matrix.
    pub fn new(learning_rate: f64, rows: usize, columns: usize) -> Self {
        Adagrad { learning_rate: T::from_f64(learning_rate), sum_of_squares: Matrix::zeros(rows, columns) }
    }

    /// `s += g²; x -= lr · g / (√s + ε)`, on all cores.
    pub fn step(&mut self, parameters: &mut Matrix<T>, gradient: &Matrix<T>) {
        const CHUNK: usize = 1 << 14;
        let (learning_rate, epsilon) = (self.learning_rate, T::from_f64(EPSILON));
        let sums = self.sum_of_squares.values_mut().par_chunks_mut(CHUNK);
        let gradients = gradient.values().par_chunks(CHUNK);
        parameters.values_mut().par_chunks_mut(CHUNK).zip(sums).zip(gradients).for_each(
            |((xs, sums), gs)| {
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || {
                        for ((x, sum), &g) in xs.iter_mut().zip(sums.iter_mut()).zip(gs) {
                            *sum += g * g;
                            *x -= learning_rate * g / (sum.sqrt() + epsilon);
                        }
                    },
                );
            },
        );
    }

    /// The accumulated squares, for checkpoints.
    pub fn state(&self) -> &Matrix<T> {
        &self.sum_of_squares
    }

    /// The accumulated squares, for checkpoints.
    pub fn state_mut(&mut self) -> &mut Matrix<T> {
        &mut self.sum_of_squares
    }
}
