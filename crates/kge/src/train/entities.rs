//! The two kinds of entity embeddings in training, and how each is scored and learns.
//!
//! A free table `E` scores queries `Q` as `S = Q Eᵀ`. A projected one, `E = F W / s` with fixed features `F`, can do
//! the same through the entities, or never form `E` at all:
//!
//! ```text
//!                     through the entities            through the features
//! scores              E = F W / s,  S = Q Eᵀ           K = Q Wᵀ / s,  S = K Fᵀ
//! ∂Q                  G E                             ∂K = G F,  ∂Q = ∂K W / s
//! ∂W                  ∂E = Gᵀ Q + ∂U,  Fᵀ ∂E / s        (∂Kᵀ Q + Fᵤᵀ ∂U) / s
//! ```
//!
//! A distance has `-‖e‖²` of every entity in the table, so there a projected one takes the way through the entities, and
//! in `∂E` the gradient of these norms is folded into that of the embeddings.
//!
//! `∂U` is what flows into the embeddings that the batch uses itself, as heads and under the regulariser. Both ways
//! give the same numbers up to rounding; the shapes decide which takes fewer operations.

use rayon::prelude::*;

use super::Uses;
use crate::adagrad::Adagrad;
use crate::backbone::distance;
use crate::matrix::index;
use crate::{Matrix, ProductPrecision, Real, row};

/// Source of the entity embeddings.
#[derive(Clone, Debug)]
pub enum Embedding<T> {
    /// A free table `(entity, 2k)`: structural teacher and student.
    Table(Matrix<T>),
    /// `features · projection / scale`: fixed features `(entity, f)`, a trained projection `(f, 2k)`.
    Projected {
        /// Zero rows for entities without features: no evidence, no embedding.
        features: Matrix<T>,
        /// Parameters that are trained.
        projection: Matrix<T>,
        /// Divides the product.
        scale: f64,
    },
}

/// Matrices that a projected step multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// Entity embeddings.
    #[default]
    Entities,
    /// Features and projected queries.
    Features,
}

impl Way {
    /// The cheaper one, in multiplications of a step of so many `queries` that uses `used` entities itself; the one
    /// way of a distance.
    pub fn cheaper(
        is_distance: bool,
        entities: usize,
        features: usize,
        width: usize,
        queries: usize,
        used: usize,
    ) -> Way {
        let through_entities = 2 * entities * features * width + 3 * queries * entities * width;
        let through_features =
            2 * queries * entities * features + (3 * queries + 2 * used) * features * width;
        if !is_distance && through_features < through_entities { Way::Features } else { Way::Entities }
    }
}

/// Entity embeddings with their optimiser. `table` is the entity table of the model as it scores: the parameters
/// themselves where embeddings are free, and where they are projected a product that may lag behind.
#[derive(Debug)]
pub(crate) enum Entities<T> {
    Free(Adagrad<T>),
    Projected(Box<Projected<T>>),
}

impl<T: Real> Entities<T> {
    /// Prepares a step on so many queries that uses the entities `uses`, and reads their embeddings.
    pub(crate) fn prepare(
        &mut self,
        table: &mut Matrix<T>,
        queries: usize,
        uses: &[u32],
        into: &mut Matrix<T>,
    ) {
        if let Entities::Projected(projected) = self {
            let Projected { features, projection, is_distance, .. } = &**projected;
            let (columns, width) = (features.columns(), projection.columns());
            projected.way = Way::cheaper(*is_distance, features.rows(), columns, width, queries, uses.len());
            if projected.way == Way::Features {
                projected.used.gather(&projected.features, uses);
                into.resize(uses.len(), width);
                let factor = projected.factor();
                return into.product(false, factor, projected.used.view(), projected.projection.view());
            }
        }
        self.write_table(table);
        into.gather(table, uses);
    }

    /// `scores (query, entity)` of the query `vectors (query, 2k)`.
    pub(crate) fn score(
        &mut self,
        precision: ProductPrecision,
        table: &Matrix<T>,
        vectors: &Matrix<T>,
        scores: &mut Matrix<T>,
    ) {
        let (vectors, entities) = match self {
            Entities::Projected(projected) if projected.way == Way::Features => {
                let (factor, projection) = (projected.factor(), projected.projection.transposed());
                projected.keys.resize(vectors.rows(), projected.features.columns());
                projected.keys.product(false, factor, vectors.view(), projection);
                (&projected.keys, &projected.features)
            }
            _ => (vectors, table),
        };
        scores.resize(vectors.rows(), entities.rows());
        scores.product_in(precision, false, T::ONE, vectors.view(), entities.transposed());
    }

    /// The gradient of the query vectors, from the scores' gradient.
    pub(crate) fn differentiate(
        &mut self,
        precision: ProductPrecision,
        table: &Matrix<T>,
        scores: &Matrix<T>,
        into: &mut Matrix<T>,
    ) {
        into.resize(scores.rows(), table.columns());
        match self {
            Entities::Projected(projected) if projected.way == Way::Features => {
                let (factor, features) = (projected.factor(), projected.features.view());
                projected.keys.product_in(precision, false, T::ONE, scores.view(), features);
                into.product(false, factor, projected.keys.view(), projected.projection.view());
            }
            _ => into.product_in(precision, false, T::ONE, scores.view(), table.view()),
        }
    }

    /// One step of the optimiser, from the gradients of the scores and of the embeddings used.
    pub(crate) fn update(&mut self, table: &mut Matrix<T>, gradients: &EntityGradients<'_, T>) {
        match self {
            Entities::Free(optimiser) => {
                gradients.for_each_block(optimiser.blocks(table, BLOCK), |block, gradient| {
                    gradients.fold_norms(block.parameters, gradient);
                    let rows = block.step(gradient.values());
                    if gradients.is_distance {
                        rows.chunks_exact_mut(gradient.columns()).for_each(distance::close_entity);
                    }
                })
            }
            Entities::Projected(projected) => projected.update(table, gradients),
        }
    }

    pub(crate) fn write_table(&mut self, table: &mut Matrix<T>) {
        let Entities::Projected(projected) = self else { return };
        let Projected { features, projection, .. } = &**projected;
        if projected.stale {
            table.resize(features.rows(), projection.columns());
            table.product(false, projected.factor(), features.view(), projection.view());
            if projected.is_distance {
                distance::close_entities(table);
            }
            projected.stale = false;
        }
    }
}

/// Entities whose gradient is computed and used at a time: a block stays in the cache, and the gradient of the
/// whole table is never there.
pub(crate) const BLOCK: usize = 512;

pub(crate) struct EntityGradients<'a, T> {
    pub(crate) precision: ProductPrecision,
    pub(crate) scores: &'a Matrix<T>,
    pub(crate) vectors: &'a Matrix<T>,
    pub(crate) uses: &'a Uses,
    /// Gradient of their embeddings `(use, 2k)`.
    pub(crate) used: &'a Matrix<T>,
    /// True if the table has the norms of its rows.
    pub(crate) is_distance: bool,
}

impl<T: Real> EntityGradients<'_, T> {
    /// Hands each of `blocks`, of [`BLOCK`] entities, its gradient `Gᵀ Q + ∂U`; blocks side by side.
    pub(crate) fn for_each_block<B: Send>(
        &self,
        blocks: impl IndexedParallelIterator<Item = B>,
        each: impl Fn(B, &mut Matrix<T>) + Sync + Send,
    ) {
        blocks.enumerate().for_each_init(Matrix::default, |gradient, (number, block)| {
            self.of_block(number, gradient);
            each(block, gradient);
        });
    }

    fn of_block(&self, number: usize, gradient: &mut Matrix<T>) {
        let range = number * BLOCK..((number + 1) * BLOCK).min(self.scores.columns());
        gradient.resize(range.len(), self.vectors.columns());
        let scores = self.scores.view().columns(range.clone()).transposed();
        gradient.product_here(self.precision, scores, self.vectors.view());
        let from = self.uses.rows.partition_point(|row| index(*row) < range.start);
        let rows = self.uses.rows.iter().map(|row| index(*row)).enumerate().skip(from);
        for (number, row) in rows.take_while(|(_, row)| *row < range.end) {
            row::add_scaled(gradient.row_mut(row - range.start), T::ONE, self.used.row(number));
        }
    }

    /// Makes the gradient of some rows of the table one of their embeddings alone.
    fn fold_norms(&self, rows: &[T], gradient: &mut Matrix<T>) {
        if self.is_distance {
            let width = gradient.columns();
            for (row, of) in rows.chunks_exact(width).zip(gradient.values_mut().chunks_exact_mut(width)) {
                distance::open_entity_gradient(row, of);
            }
        }
    }

    /// The gradient of all entities' embeddings, the rows of `table`.
    pub(crate) fn of_all(&self, table: &Matrix<T>, into: &mut Matrix<T>) {
        let (entities, width) = (self.scores.columns(), self.vectors.columns());
        into.resize(entities, width);
        let blocks = into.values_mut().par_chunks_mut(BLOCK * width);
        let blocks = blocks.zip(table.values().par_chunks(BLOCK * width));
        self.for_each_block(blocks, |(block, rows), gradient| {
            self.fold_norms(rows, gradient);
            block.copy_from_slice(gradient.values());
        });
    }
}

#[derive(Debug, Default)]
pub(crate) struct Projected<T> {
    pub(crate) features: Matrix<T>,
    pub(crate) projection: Matrix<T>,
    pub(crate) scale: f64,
    /// True if the table has the norms of its rows; the projection's last columns are zero then.
    pub(crate) is_distance: bool,
    pub(crate) optimiser: Adagrad<T>,
    /// True if the model's table is older than the projection.
    pub(crate) stale: bool,
    pub(crate) way: Way,
    /// `K (query, f)` or its gradient.
    pub(super) keys: Matrix<T>,
    /// Rows of the features that a batch uses.
    pub(super) used: Matrix<T>,
    pub(super) entity_gradient: Matrix<T>,
    pub(crate) gradient: Matrix<T>,
}

impl<T: Real> Projected<T> {
    fn factor(&self) -> T {
        T::from_f64(1.0 / self.scale)
    }

    fn update(&mut self, table: &Matrix<T>, gradients: &EntityGradients<'_, T>) {
        let factor = self.factor();
        self.gradient.resize(self.projection.rows(), self.projection.columns());
        match self.way {
            Way::Entities => {
                gradients.of_all(table, &mut self.entity_gradient);
                let (features, entities) = (self.features.transposed(), self.entity_gradient.view());
                self.gradient.product(false, factor, features, entities);
            }
            Way::Features => {
                self.gradient.product(false, factor, self.keys.transposed(), gradients.vectors.view());
                self.gradient.product(true, factor, self.used.transposed(), gradients.used.view());
            }
        }
        self.optimiser.step(&mut self.projection, &self.gradient);
        self.stale = true;
    }
}
