//! Random features: what a projection, which is linear, cannot say of features, in features of its own.
//!
//! An encoder's few hundred numbers bound what a projected teacher can tell apart: its scores are bilinear in them. Beside
//! each row `x` stand rectified random projections of it, as fixed as the features themselves, so that the teacher is still a
//! trained projection of fixed features:
//!
//! ```text
//! z = ReLU(x̂ Ωᵀ - 1/2)      Ω ~ N(0, 1) (count, f)      φ = [x | ẑ]
//! ```
//!
//! where a hat takes the mean of all entities off and divides by the norm. Their products approximate a kernel that is not
//! linear (Rahimi and Recht, 2007; of rectified ones Cho and Saul, 2009), as a hidden layer of that width would that
//! is not trained. Without the hats the mean is most of a row, and Adagrad takes many epochs to see the rest.

use kge::Matrix;
use kge::model::normal;
use rayon::prelude::*;
use stage::{Modality, seed};

use crate::missing::normalise;

/// Taken off before rectifying: about a third of a row is above it.
const THRESHOLD: f32 = 0.5;

/// The `features (entity, f)` with `count` random features behind each row, `(entity, f + count)`; a row of zeros stays
/// one. They depend on the run's `seed` and the modality.
pub fn beside(features: Matrix<f32>, count: usize, modality: &Modality, seed: u64) -> Matrix<f32> {
    if count == 0 {
        return features;
    }
    let present: Vec<bool> =
        (0..features.rows()).map(|i| features.row(i).iter().any(|x| *x != 0.0)).collect();
    let mut generator = seed::generator(seed, &format!("random-features/{modality}"), 0);
    let directions = normal(count, features.columns(), 1.0, &mut generator);
    let mut centred = features.clone();
    standardise(&mut centred, &present);
    let mut random = Matrix::zeros(features.rows(), count);
    random.product(false, 1.0, centred.view(), directions.transposed());
    random.values_mut().par_iter_mut().for_each(|z| *z = (*z - THRESHOLD).max(0.0));
    standardise(&mut random, &present);
    joined(&features, &random)
}

/// Takes the mean of the rows that are `present` off them, and divides each by its norm; the others are zero.
fn standardise(rows: &mut Matrix<f32>, present: &[bool]) {
    let columns = rows.columns();
    let mut mean = vec![0f64; columns];
    let count = present.iter().filter(|present| **present).count().max(1) as f64;
    for i in (0..rows.rows()).filter(|i| present[*i]) {
        mean.iter_mut().zip(rows.row(i)).for_each(|(mean, x)| *mean += f64::from(*x) / count);
    }
    rows.values_mut().par_chunks_mut(columns).zip(present).for_each(|(row, present)| {
        if *present {
            row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= *mean as f32);
            normalise(row);
        } else {
            row.fill(0.0);
        }
    });
}

/// Both side by side.
fn joined(left: &Matrix<f32>, right: &Matrix<f32>) -> Matrix<f32> {
    let mut both = Matrix::zeros(left.rows(), left.columns() + right.columns());
    for i in 0..left.rows() {
        let (to_left, to_right) = both.row_mut(i).split_at_mut(left.columns());
        to_left.copy_from_slice(left.row(i));
        to_right.copy_from_slice(right.row(i));
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    fn textual() -> Modality {
        "textual".parse().unwrap()
    }

    /// Four corners of a square, and a row of zeros.
    fn corners() -> Matrix<f32> {
        let side = 0.5f32.sqrt();
        let rows = [[side, side], [0.0, 0.0], [side, -side], [-side, side], [-side, -side]];
        Matrix::from_values(5, 2, rows.concat())
    }

    /// `Σ_ij v_i v_j ⟨row i, row j⟩`: how much of the opinions `v` a projection of these rows can have.
    fn energy(rows: &Matrix<f32>, opinions: [f32; 5]) -> f32 {
        let mut sum = vec![0.0; rows.columns()];
        (0..5).for_each(|i| kge::row::add_scaled(&mut sum, opinions[i], rows.row(i)));
        sum.iter().map(|x| x * x).sum()
    }

    #[test]
    fn a_projection_can_tell_opposite_corners_from_the_others() {
        let either = [1.0, 0.0, -1.0, -1.0, 1.0];
        assert!(energy(&corners(), either) < 1e-9);
        let wide = beside(corners(), 500, &textual(), 1);
        assert_eq!((wide.rows(), wide.columns()), (5, 502));
        assert!(energy(&wide, either) > 0.5, "{}", energy(&wide, either));
    }

    #[test]
    fn features_stay_and_random_ones_have_unit_norm() {
        let wide = beside(corners(), 500, &textual(), 1);
        for i in 0..5 {
            let (features, random) = wide.row(i).split_at(2);
            assert_eq!(features, corners().row(i));
            let norm = random.iter().map(|x| x * x).sum::<f32>();
            let wanted = if i == 1 { 0.0 } else { 1.0 };
            assert!((norm - wanted).abs() < 1e-5, "{i}: {norm}");
        }
        assert!(beside(corners(), 0, &textual(), 1) == corners());
    }

    #[test]
    fn they_depend_on_seed_and_modality_alone() {
        let of = |seed, modality: &str| beside(corners(), 20, &modality.parse().unwrap(), seed);
        assert_eq!(of(1, "textual"), of(1, "textual"));
        assert!(of(1, "textual") != of(2, "textual") && of(1, "textual") != of(1, "visual"));
    }
}
