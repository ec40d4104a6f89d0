//! Gradients from query vectors into the heads and relations they are composed of, and the regulariser.

use rayon::prelude::*;

use super::{Batch, Uses};
use crate::backbone::further_columns;
use crate::matrix::index;
use crate::{Backbone, Matrix, N3, Real, complex, row, widest};

/// Data of a step once query vectors have their gradient.
pub(crate) struct Flow<'a, T> {
    pub(crate) backbone: Backbone,
    pub(crate) n3: N3,
    /// One over the batch's pairs.
    pub(crate) scale: f64,
    pub(crate) batch: &'a Batch,
    /// The rows of the entities that the batch uses.
    pub(crate) used: &'a Matrix<T>,
    /// The relations that it uses, as they are composed.
    pub(crate) relations: &'a Matrix<T>,
    /// All relations as they are trained.
    pub(crate) table: &'a Matrix<T>,
    pub(crate) vectors: &'a Matrix<T>,
    /// The gradient of the query vectors; of a distance that of `q`.
    pub(crate) vector_gradient: &'a Matrix<T>,
    /// The gradient of TuckER's `r ⊗ h`.
    pub(crate) outer: &'a Matrix<T>,
}

impl<'a, T: Real> Flow<'a, T> {
    /// Writes the gradient of the rows of entities and returns their part of the regulariser.
    pub(crate) fn write_entities(&self, gradient: &mut Matrix<T>) -> f64 {
        let (uses, width) = (&self.batch.entities, self.width());
        gradient.resize(uses.rows.len(), self.used.columns());
        let embedding = |number| &self.used.row(number)[..width];
        self.write_rows(uses, self.n3, gradient, embedding, |position, onto| {
            let (of, onto) = (self.vector_gradient(position), &mut onto[..width]);
            let relation = self.relations.row(self.batch.relations.number(position));
            match self.backbone {
                Backbone::ComplEx | Backbone::RotatE => complex::add_compose_gradient(of, relation, onto),
                Backbone::DistMult => add_products(of, relation, onto),
                Backbone::TransE => row::add_scaled(onto, T::ONE, of),
                Backbone::TuckER => {
                    for (part, &r) in self.outer.row(position).chunks_exact(width).zip(relation) {
                        row::add_scaled(onto, r, part);
                    }
                }
            }
        })
    }

    /// Writes the gradient of the relations used and returns their part of the regulariser. A rotation's moduli are 1 whatever
    /// its phases.
    pub(crate) fn write_relations(&self, gradient: &mut Matrix<T>) -> f64 {
        let (uses, width) = (&self.batch.relations, self.width());
        gradient.resize(uses.rows.len(), self.table.columns());
        let n3 = if self.backbone == Backbone::RotatE { N3 { weight: 0.0 } } else { self.n3 };
        let embedding = |number: usize| self.table.row(index(uses.rows[number]));
        self.write_rows(uses, n3, gradient, embedding, |position, onto| {
            let of = self.vector_gradient(position);
            let head = &self.used.row(self.batch.entities.number(position))[..width];
            match self.backbone {
                Backbone::ComplEx => complex::add_compose_gradient(of, head, onto),
                Backbone::RotatE => add_phase_gradient(of, &self.vectors.row(position)[..width], onto),
                Backbone::DistMult => add_products(of, head, onto),
                Backbone::TransE => row::add_scaled(onto, T::ONE, of),
                Backbone::TuckER => {
                    for (part, onto) in self.outer.row(position).chunks_exact(width).zip(onto) {
                        *onto += row::dot(part, head);
                    }
                }
            }
        })
    }

    fn width(&self) -> usize {
        self.used.columns() - further_columns(self.backbone)
    }

    fn vector_gradient(&self, position: usize) -> &'a [T] {
        &self.vector_gradient.row(position)[..self.width()]
    }

    /// Every row's gradient: what `add` adds for each position where it is composed, and that of `n3` for its `embedding`;
    /// sums the values of that.
    fn write_rows<'b>(
        &self,
        uses: &Uses,
        n3: N3,
        gradient: &mut Matrix<T>,
        embedding: impl Fn(usize) -> &'b [T] + Sync,
        add: impl Fn(usize, &mut [T]) + Sync,
    ) -> f64 {
        let rows = gradient.par_rows_mut().enumerate().map(|(number, onto)| {
            onto.fill(T::ZERO);
            uses.positions(number).iter().for_each(|position| add(*position, onto));
            let x = embedding(number);
            n3.add(self.backbone, x, self.scale * f64::from(uses.pairs[number]), &mut onto[..x.len()])
        });
        rows.collect::<Vec<f64>>().iter().sum()
    }
}

/// `onto += x ∘ y`, by coordinates.
fn add_products<T: Real>(xs: &[T], ys: &[T], onto: &mut [T]) {
    widest!({
        for ((onto, &x), &y) in onto.iter_mut().zip(xs).zip(ys) {
            *onto += x * y;
        }
    });
}

/// Adds to `onto (k)` the gradient of a rotation's phases: `∂q/∂r = i q`, of which `vector` begins with `2q`.
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
