//! ComplEx (Trouillon et al., 2016) and the N3 regulariser (Lacroix et al., 2018).
//!
//! An embedding of complex rank `k` is a row of `2k` reals, `[re | im]`. The score of a triple,
//! `Re(<e_h, w_r, conj(e_t)>)`, is the real dot product of the query vector `q = e_h ∘ w_r` (complex product) with
//! `e_t`, so a query is composed once and scores all entities by a matrix product.

use crate::{Backbone, Real, row, widest};

/// Computes `q = head ∘ relation`, all of shape `(2k)`.
pub fn compose<T: Real>(head: &[T], relation: &[T], query: &mut [T]) {
    let k = head.len() / 2;
    let ((h_re, h_im), (r_re, r_im)) = (head.split_at(k), relation.split_at(k));
    let (q_re, q_im) = query.split_at_mut(k);
    widest!({
        for i in 0..k {
            q_re[i] = h_re[i] * r_re[i] - h_im[i] * r_im[i];
            q_im[i] = h_re[i] * r_im[i] + h_im[i] * r_re[i];
        }
    });
}

/// Adds to `onto` the gradient of [`compose`] for one factor: `gradient ∘ conj(other)`.
///
/// The product is symmetric, so the function works for the head (`other` = relation) and the relation (`other` = head).
pub fn add_compose_gradient<T: Real>(gradient: &[T], other: &[T], onto: &mut [T]) {
    let k = other.len() / 2;
    let ((g_re, g_im), (o_re, o_im)) = (gradient.split_at(k), other.split_at(k));
    let (to_re, to_im) = onto.split_at_mut(k);
    widest!({
        for i in 0..k {
            to_re[i] += g_re[i] * o_re[i] + g_im[i] * o_im[i];
            to_im[i] += g_im[i] * o_re[i] - g_re[i] * o_im[i];
        }
    });
}

/// The nuclear 3-norm regulariser: `weight · Σ |x|³` over heads, relations and tails.
#[derive(Clone, Copy, Debug)]
pub struct N3 {
    /// The weight in the loss; 0 turns the regulariser off.
    pub weight: f64,
}

impl N3 {
    /// Returns the value for one embedding, times `factor`, and adds its gradient, `3 |x| x` times weight and factor,
    /// to `onto`. Where the backbone has complex numbers, `|x|` is the complex modulus.
    pub fn add<T: Real>(self, backbone: Backbone, x: &[T], factor: f64, onto: &mut [T]) -> f64 {
        if self.weight == 0.0 {
            return 0.0;
        }
        let slope = T::from_f64(3.0 * self.weight * factor);
        let sum = match backbone {
            Backbone::ComplEx | Backbone::RotatE => {
                let k = x.len() / 2;
                let (re, im) = x.split_at(k);
                let (to_re, to_im) = onto.split_at_mut(k);
                widest!({
                    for i in 0..k {
                        let scale = slope * (re[i] * re[i] + im[i] * im[i]).sqrt();
                        to_re[i] += scale * re[i];
                        to_im[i] += scale * im[i];
                    }
                });
                row::sum_cubed_moduli(re, im)
            }
            Backbone::DistMult | Backbone::TransE | Backbone::TuckER => {
                widest!({
                    for (onto, &x) in onto.iter_mut().zip(x) {
                        *onto += slope * (x * x).sqrt() * x;
                    }
                });
                row::sum_cubes(x)
            }
        };
        self.weight * factor * sum.to_f64()
    }
}
