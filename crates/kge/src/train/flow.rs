//! Gradients of the heads and relations in query vectors, and the regulariser.

use rayon::prelude::*;

use super::{Batch, StepMatrices, Trainer, Uses};
use crate::backbone::further_columns;
use crate::matrix::index;
use crate::{Backbone, Matrix, N3, Real, complex, row, widest};

impl<T: Real> Trainer<T> {
    /// Writes the gradient of the entity rows that a batch uses, and returns their part of the regulariser.
    pub(super) fn write_entities(&self, batch: &Batch, gradient: &mut Matrix<T>) -> f64 {
        let StepMatrices { used, relations, outer, vector_gradient, .. } = &self.buffers;
        let (backbone, uses) = (self.model.backbone, &batch.entities);
        let width = used.columns() - further_columns(backbone);
        gradient.resize(uses.rows.len(), used.columns());
        let embedding = |number| &used.row(number)[..width];
        self.write_rows((uses, batch.scale()), self.n3, gradient, embedding, |position, onto| {
            let (of, onto) = (&vector_gradient.row(position)[..width], &mut onto[..width]);
            let relation = relations.row(batch.relations.number(position));
            match backbone {
                Backbone::ComplEx | Backbone::RotatE => complex::add_compose_gradient(of, relation, onto),
                Backbone::DistMult => add_products(of, relation, onto),
                Backbone::TransE => row::add_scaled(onto, T::ONE, of),
                Backbone::TuckER => {
                    for (part, &r) in outer.row(position).chunks_exact(width).zip(relation) {
                        row::add_scaled(onto, r, part);
                    }
                }
            }
        })
    }

    /// Writes the gradient of the relations that a batch uses, and returns their part of the regulariser. RotatE's
    /// relations have no such part: the moduli of a rotation are always 1.
    pub(super) fn write_relations(&self, batch: &Batch, gradient: &mut Matrix<T>) -> f64 {
        let StepMatrices { used, outer, vectors, vector_gradient, .. } = &self.buffers;
        let (backbone, table, uses) = (self.model.backbone, &self.model.relation, &batch.relations);
        let width = used.columns() - further_columns(backbone);
        gradient.resize(uses.rows.len(), table.columns());
        let n3 = if backbone == Backbone::RotatE { N3 { weight: 0.0 } } else { self.n3 };
        let embedding = |number: usize| table.row(index(uses.rows[number]));
        self.write_rows((uses, batch.scale()), n3, gradient, embedding, |position, onto| {
            let of = &vector_gradient.row(position)[..width];
            let head = &used.row(batch.entities.number(position))[..width];
            match backbone {
                Backbone::ComplEx => complex::add_compose_gradient(of, head, onto),
                Backbone::RotatE => add_phase_gradient(of, &vectors.row(position)[..width], onto),
                Backbone::DistMult => add_products(of, head, onto),
                Backbone::TransE => row::add_scaled(onto, T::ONE, of),
                Backbone::TuckER => {
                    for (part, onto) in outer.row(position).chunks_exact(width).zip(onto) {
                        *onto += row::dot(part, head);
                    }
                }
            }
        })
    }

    /// Writes each row's gradient: the parts that `add` adds for each position of the row, and the gradient of `n3` for
    /// the row's `embedding`, times its pairs and `scale`. Returns the sum of the values of `n3`.
    fn write_rows<'b>(
        &self,
        (uses, scale): (&Uses, f64),
        n3: N3,
        gradient: &mut Matrix<T>,
        embedding: impl Fn(usize) -> &'b [T] + Sync,
        add: impl Fn(usize, &mut [T]) + Sync,
    ) -> f64 {
        let rows = gradient.par_rows_mut().enumerate().map(|(number, onto)| {
            onto.fill(T::ZERO);
            uses.positions(number).iter().for_each(|position| add(*position, onto));
            let (x, pairs) = (embedding(number), f64::from(uses.pairs[number]));
            n3.add(self.model.backbone, x, scale * pairs, &mut onto[..x.len()])
        });
        rows.collect::<Vec<f64>>().iter().sum()
    }
}

/// Computes `onto += x ∘ y`, coordinate by coordinate.
fn add_products<T: Real>(xs: &[T], ys: &[T], onto: &mut [T]) {
    widest!({
        for ((onto, &x), &y) in onto.iter_mut().zip(xs).zip(ys) {
            *onto += x * y;
        }
    });
}

/// Adds the gradient of a rotation's phases to `onto (k)`: `∂q/∂r = i q`, where `vector` begins with `2q`.
fn add_phase_gradient<T: Real>(gradient: &[T], vector: &[T], onto: &mut [T]) {
    let rank = onto.len();
    let ((g_re, g_im), (v_re, v_im)) = (gradient.split_at(rank), vector.split_at(rank));
    let half = T::from_f64(0.5);
    widest!({
        for i in 0..rank {
            onto[i] += half * (v_re[i] * g_im[i] - v_im[i] * g_re[i]);
        }
    });
}
