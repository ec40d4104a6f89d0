//! ComplEx (Trouillon et al., 2016) and the N3 regulariser (Lacroix et al., 2018).
//!
//! An embedding of complex rank `k` is a row of `2k` reals, `[re | im]`. The score of a triple,
//! `Re(<e_h, w_r, conj(e_t)>)`, is the real dot product of the query vector `q = e_h ∘ w_r` (complex product) with
//! `e_t`, so a query is composed once and scores all entities by a matrix product.

use crate::{Real, row, widest};

/// `q = head ∘ relation`, all `(2k)`.
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
/// The product is symmetric, so one function serves head (`other` = relation) and relation (`other` = head).
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

/// The nuclear 3-norm regulariser: `weight · Σ |x|³` over the complex moduli of head, relation and tail, or over their
/// reals.
#[derive(Clone, Copy, Debug)]
pub struct N3 {
    /// Its weight in the loss; 0 turns it off.
    pub weight: f64,
}

impl N3 {
    /// The value for one embedding `(2k)`, times `factor`; adds its gradient, `3 |x| x` times weight and factor, to
    /// `onto`.
    pub fn add<T: Real>(self, x: &[T], factor: f64, onto: &mut [T]) -> f64 {
        if self.weight == 0.0 {
            return 0.0;
        }
        let k = x.len() / 2;
        let (re, im) = x.split_at(k);
        let (to_re, to_im) = onto.split_at_mut(k);
        let slope = T::from_f64(3.0 * self.weight * factor);
        widest!({
            for i in 0..k {
                let scale = slope * (re[i] * re[i] + im[i] * im[i]).sqrt();
                to_re[i] += scale * re[i];
                to_im[i] += scale * im[i];
            }
        });
        self.weight * factor * row::sum_cubed_moduli(re, im).to_f64()
    }

    /// The same for an embedding of reals: `weight · Σ |x|³`.
    pub fn add_reals<T: Real>(self, x: &[T], factor: f64, onto: &mut [T]) -> f64 {
        if self.weight == 0.0 {
            return 0.0;
        }
        let slope = T::from_f64(3.0 * self.weight * factor);
        widest!({
            for (onto, &x) in onto.iter_mut().zip(x) {
                *onto += slope * (x * x).sqrt() * x;
            }
        });
        self.weight * factor * row::sum_cubes(x).to_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    fn composed(head: &[f64], relation: &[f64]) -> Vec<f64> {
        let mut query = vec![0.0; head.len()];
        compose(head, relation, &mut query);
        query
    }

    #[test]
    fn a_score_worked_out_by_hand() {
        // (1 + 2i)(3 + i) = 1 + 7i; Re((1 + 7i) · conj(2 - i)) = 2 - 7.
        assert_eq!(dot(&composed(&[1.0, 2.0], &[3.0, 1.0]), &[2.0, -1.0]), -5.0);
    }

    proptest! {
        #[test]
        fn gradients_equal_finite_differences(
            head in prop::array::uniform6(-1f64..1.0),
            relation in prop::array::uniform6(-1f64..1.0),
            upstream in prop::array::uniform6(-1f64..1.0),
        ) {
            let mut gradient = [0.0; 6];
            add_compose_gradient(&upstream, &relation, &mut gradient);
            let n3 = N3 { weight: 0.3 };
            n3.add(&head, 2.0, &mut gradient);
            let value = |head: &[f64]| {
                dot(&composed(head, &relation), &upstream) + n3.add(head, 2.0, &mut [0.0; 6])
            };
            for i in 0..6 {
                let step = 1e-5;
                let moved = |by: f64| { let mut x = head; x[i] += by; value(&x) };
                let difference = (moved(step) - moved(-step)) / (2.0 * step);
                prop_assert!((difference - gradient[i]).abs() < 1e-8, "{} {}", difference, gradient[i]);
            }
        }
    }
}
