//! Adam (Kingma and Ba, 2015), a block of rows at a time.

use device::AdamRates;
use kge::{Matrix, Real};
use rayon::prelude::*;
use std::ops::Range;

/// Parameters with Adam's two moments.
///
/// Gradients are computed block by block and used at once. The first layer over all entities is the largest matrix of
/// the whole system: a gradient of its size would be written and read again without need.
#[derive(Clone, Debug)]
pub struct Adam<T> {
    /// The parameters themselves.
    pub parameters: Matrix<T>,
    /// The running mean of the gradients.
    pub mean: Matrix<T>,
    /// The running mean of the squared gradients.
    pub square: Matrix<T>,
}

/// The rates of step number `steps`, from 1.
pub fn rates(learning_rate: f64, steps: u64) -> AdamRates {
    let decays = [0.9, 0.999];
    let [mean, correction] = decays.map(|decay: f64| 1.0 - decay.powf(steps as f64));
    AdamRates { decays, rate: learning_rate / mean, correction, epsilon: 1e-8 }
}

impl<T: Real> Adam<T> {
    /// Number of values per block: a block of parameters, moments and gradient fits the second-level cache.
    const VALUES: usize = 1 << 16;

    /// Parameters with moments of zero.
    pub fn new(parameters: Matrix<T>) -> Self {
        let (rows, columns) = (parameters.rows(), parameters.columns());
        Adam { mean: Matrix::zeros(rows, columns), square: Matrix::zeros(rows, columns), parameters }
    }

    /// Takes a step; `gradient` computes the gradient of some rows into a matrix of their shape.
    pub fn step(&mut self, step: AdamRates, gradient: impl Fn(Range<usize>, &mut Matrix<T>) + Sync) {
        let (total, columns) = (self.parameters.rows(), self.parameters.columns());
        let rows = (Self::VALUES / columns.max(1)).max(1);
        let chunk = rows * columns.max(1);
        let moments = self.mean.values_mut().par_chunks_mut(chunk);
        let moments = moments.zip(self.square.values_mut().par_chunks_mut(chunk));
        let blocks = self.parameters.values_mut().par_chunks_mut(chunk).zip(moments).enumerate();
        blocks.for_each_init(Matrix::default, |buffer, (index, (parameters, (means, squares)))| {
            let range = index * rows..((index + 1) * rows).min(total);
            buffer.resize(range.len(), columns);
            gradient(range, buffer);
            update(step, parameters, buffer.values(), means, squares);
        });
    }
}

fn update<T: Real>(
    step: AdamRates,
    parameters: &mut [T],
    gradient: &[T],
    means: &mut [T],
    squares: &mut [T],
) {
    let beta = step.decays.map(T::from_f64);
    let rest = step.decays.map(|beta| T::from_f64(1.0 - beta));
    let (rate, correction) = (T::from_f64(step.rate), T::from_f64(1.0 / step.correction));
    let epsilon = T::from_f64(step.epsilon);
    kge::widest!({
        let moments = means.iter_mut().zip(squares.iter_mut());
        for ((x, &g), (mean, square)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *mean = beta[0] * *mean + rest[0] * g;
            *square = beta[1] * *square + rest[1] * g * g;
            *x -= rate * *mean / ((*square * correction).sqrt() + epsilon);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adam_takes_the_steps_worked_out_by_hand() {
        let mut adam = Adam::new(Matrix::from_values(1, 1, vec![1.0f64]));
        adam.step(rates(0.1, 1), |_, gradient| gradient.values_mut()[0] = 2.0);
        // The first step is lr · g / (|g| + ε).
        assert!((adam.parameters.values()[0] - (1.0 - 0.1 * 2.0 / (2.0 + 1e-8))).abs() < 1e-12);
        adam.step(rates(0.1, 2), |_, gradient| gradient.values_mut()[0] = -1.0);
        let (mean, square) = (0.9 * 0.2 - 0.1, 0.999 * 0.004 + 0.001);
        let step = 0.1 * (mean / 0.19) / ((square / (1.0 - 0.999f64.powi(2))).sqrt() + 1e-8);
        assert!((adam.parameters.values()[0] - (0.9 - step)).abs() < 1e-7);
    }

    #[test]
    fn every_row_takes_its_own_gradient() {
        let mut adam = Adam::new(Matrix::from_values(40_000, 3, vec![0.0f32; 120_000]));
        adam.step(rates(1.0, 1), |rows, gradient| {
            for (i, row) in rows.enumerate() {
                gradient.row_mut(i).fill(if row % 7 == 0 { -1.0 } else { 1.0 });
            }
        });
        for row in 0..40_000 {
            let expected = if row % 7 == 0 { 1.0 } else { -1.0 };
            assert!((adam.parameters.row(row)[2] - expected).abs() < 1e-6f32, "row {row}");
        }
    }
}
