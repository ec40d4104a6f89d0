//! A squared distance as a product of two rows.
//!
//! ```text
//! [2q | 1, -‖q‖²] · [t | -‖t‖², 1] = 2 q·t - ‖t‖² - ‖q‖² = -‖q - t‖²
//! ```
//!
//! The term `-‖q‖²` changes no softmax over entities. It makes the product the score itself, near zero for the entities
//! that matter, where half precision is finest. In bf16, the norms are rounded like all other factors.

use rayon::prelude::*;

use crate::{Matrix, Real, row, widest};

/// Number of columns behind the embedding.
pub(crate) const COLUMNS: usize = 2;

/// Writes the further columns of an entity's row `[t | -‖t‖², 1]`. Panics if the row is shorter than these columns.
pub fn close_entity<T: Real>(entity: &mut [T]) {
    let (t, further) = entity.split_at_mut(entity.len() - COLUMNS);
    further.copy_from_slice(&[-row::sum_squares(t, T::ZERO), T::ONE]);
}

pub(crate) fn close_entities<T: Real>(table: &mut Matrix<T>) {
    table.par_rows_mut().for_each(close_entity);
}

/// Turns a row that begins with `q` into its query vector, `[2q | 1, -‖q‖²]`.
pub(crate) fn close_query<T: Real>(query: &mut [T]) {
    let (q, further) = query.split_at_mut(query.len() - COLUMNS);
    further.copy_from_slice(&[T::ONE, -row::sum_squares(q, T::ZERO)]);
    row::scale(q, T::from_f64(2.0));
}

/// Turns the gradient of an entity's row into the gradient of its embedding, `∂t - 2t ∂(-‖t‖²)`. Sets the further
/// columns to zero, because the embedding determines them.
pub(crate) fn open_entity_gradient<T: Real>(entity: &[T], gradient: &mut [T]) {
    let width = gradient.len() - COLUMNS;
    let (gradient, further) = gradient.split_at_mut(width);
    row::add_scaled(gradient, T::from_f64(-2.0) * further[0], &entity[..width]);
    further.fill(T::ZERO);
}

/// Turns the gradient of a query `vector` into the gradient of `q`: `2 ∂(2q) - 2q ∂(-‖q‖²)`.
pub(crate) fn open_query_gradient<T: Real>(vector: &[T], gradient: &mut [T]) {
    let width = gradient.len() - COLUMNS;
    let (gradient, further) = gradient.split_at_mut(width);
    let (two, of_norm) = (T::from_f64(2.0), further[1]);
    widest!({
        for (gradient, &twice) in gradient.iter_mut().zip(vector) {
            *gradient = two * *gradient - twice * of_norm;
        }
    });
    further.fill(T::ZERO);
}

/// Tells whether a row equals the output of [`close_entity`] up to rounding.
pub(crate) fn is_closed(entity: &[f32]) -> bool {
    let (t, further) = entity.split_at(entity.len() - COLUMNS);
    let square = row::sum_squares(t, 0.0);
    further[1] == 1.0 && (further[0] + square).abs() <= 1e-4 * square
}
