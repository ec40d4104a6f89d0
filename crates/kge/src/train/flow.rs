//! Gradients from query vectors into the heads and relations they are composed of, and the regulariser.

use rayon::prelude::*;

use super::{Batch, Uses};
use crate::backbone::{self, further_columns};
use crate::{Backbone, Matrix, N3, Real, complex, row};

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
    /// The query vectors.
    pub(crate) vectors: &'a Matrix<T>,
    /// Their gradient; of a distance that of `q`.
    pub(crate) vector_gradient: &'a Matrix<T>,
    /// The gradient of TuckER's `r ⊗ h`.
    pub(crate) outer: &'a Matrix<T>,
}

impl<T: Real> Flow<'_, T> {
    /// Writes the gradient of the rows of entities and returns their part of the regulariser.
    pub(crate) fn write_entities(&self, gradient: &mut Matrix<T>) -> f64 {
        let uses = &self.batch.entities;
        let columns = self.used.columns();
        let width = columns - further_columns(self.backbone);
        gradient.resize(uses.rows().len(), columns);
        let relation = |position: usize| self.relations.row(self.batch.relations.number(position));
        let of = |position: usize| &self.vector_gradient.row(position)[..width];
        let norm = |number: usize, factor: f64, onto: &mut [T]| {
            let embedding = &self.used.row(number)[..width];
            backbone::regularise_entity(self.backbone, self.n3, embedding, factor, &mut onto[..width])
        };
        match self.backbone {
            Backbone::ComplEx | Backbone::RotatE => {
                self.write_rows(uses, gradient, norm, |position, onto| {
                    complex::add_compose_gradient(of(position), relation(position), &mut onto[..width]);
                })
            }
            Backbone::DistMult => self.write_rows(uses, gradient, norm, |position, onto| {
                backbone::add_multiply_gradient(of(position), relation(position), onto);
            }),
            Backbone::TransE => self.write_rows(uses, gradient, norm, |position, onto| {
                row::add_scaled(&mut onto[..width], T::ONE, of(position));
            }),
            Backbone::TuckER => self.write_rows(uses, gradient, norm, |position, onto| {
                backbone::add_head_gradient(self.outer.row(position), relation(position), onto);
            }),
        }
    }

    /// Writes the gradient of the relations used and returns their part of the regulariser.
    pub(crate) fn write_relations(&self, gradient: &mut Matrix<T>) -> f64 {
        let uses = &self.batch.relations;
        let width = self.used.columns() - further_columns(self.backbone);
        gradient.resize(uses.rows().len(), self.table.columns());
        let head = |position: usize| self.used.row(self.batch.entities.number(position));
        let of = |position: usize| &self.vector_gradient.row(position)[..width];
        let norm = |number: usize, factor: f64, onto: &mut [T]| {
            let relation = self.table.row(uses.rows()[number] as usize);
            backbone::regularise_relation(self.backbone, self.n3, relation, factor, onto)
        };
        match self.backbone {
            Backbone::ComplEx => self.write_rows(uses, gradient, norm, |position, onto| {
                complex::add_compose_gradient(of(position), head(position), onto);
            }),
            Backbone::RotatE => self.write_rows(uses, gradient, norm, |position, onto| {
                backbone::add_phase_gradient(of(position), &self.vectors.row(position)[..width], onto);
            }),
            Backbone::DistMult => self.write_rows(uses, gradient, norm, |position, onto| {
                backbone::add_multiply_gradient(of(position), head(position), onto);
            }),
            Backbone::TransE => self.write_rows(uses, gradient, norm, |position, onto| {
                row::add_scaled(onto, T::ONE, of(position));
            }),
            Backbone::TuckER => self.write_rows(uses, gradient, norm, |position, onto| {
                backbone::add_relation_gradient(self.outer.row(position), head(position), onto);
            }),
        }
    }

    /// Every row's gradient: what `add` adds for each position where it is composed, and the regulariser's by `norm`,
    /// whose values are summed.
    fn write_rows(
        &self,
        uses: &Uses,
        gradient: &mut Matrix<T>,
        norm: impl Fn(usize, f64, &mut [T]) -> f64 + Sync,
        add: impl Fn(usize, &mut [T]) + Sync,
    ) -> f64 {
        let width = gradient.columns();
        let rows = gradient.values_mut().par_chunks_mut(width).enumerate();
        let values: Vec<f64> = rows
            .map(|(number, onto)| {
                onto.fill(T::ZERO);
                uses.positions(number).iter().for_each(|position| add(*position as usize, onto));
                norm(number, self.scale * f64::from(uses.pairs(number)), onto)
            })
            .collect();
        values.iter().sum()
    }
}
