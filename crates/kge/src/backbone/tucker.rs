//! TuckER (Balažević et al., 2019): `q = W ×₁ r ×₂ h` with a trained core `W (d, 2k, 2k)`.
//!
//! The core is kept as a matrix `(d · 2k, 2k)`, so that the query vectors of a batch are one product with the rows
//! `r ⊗ h`, and so are their gradients: `∂(r ⊗ h) = ∂q Wᵀ`, `∂W = (r ⊗ h)ᵀ ∂q`.

use rayon::prelude::*;

use crate::{Matrix, Real, row};

/// Writes `r ⊗ h (query, d · 2k)` to `outer`, and the query vectors.
pub(crate) fn compose<'a, T: Real>(
    core: &Matrix<T>,
    head: impl Fn(usize) -> &'a [T] + Sync,
    relation: impl Fn(usize) -> &'a [T] + Sync,
    outer: &mut Matrix<T>,
    vectors: &mut Matrix<T>,
) {
    outer.resize(vectors.rows(), core.rows());
    let rows = outer.values_mut().par_chunks_mut(core.rows().max(1)).enumerate();
    rows.for_each(|(position, outer)| {
        let head = head(position);
        for (part, &r) in outer.chunks_exact_mut(head.len()).zip(relation(position)) {
            part.copy_from_slice(head);
            row::scale(part, r);
        }
    });
    vectors.product(false, T::ONE, outer.view(), core.view());
}

/// Adds to `onto` the gradient of `h`, from that of `r ⊗ h`.
pub(crate) fn add_head_gradient<T: Real>(gradient: &[T], relation: &[T], onto: &mut [T]) {
    for (part, &r) in gradient.chunks_exact(onto.len()).zip(relation) {
        row::add_scaled(onto, r, part);
    }
}

/// Adds to `onto` the gradient of `r`, from that of `r ⊗ h`.
pub(crate) fn add_relation_gradient<T: Real>(gradient: &[T], head: &[T], onto: &mut [T]) {
    for (part, onto) in gradient.chunks_exact(head.len()).zip(onto) {
        *onto += row::dot(part, head);
    }
}
