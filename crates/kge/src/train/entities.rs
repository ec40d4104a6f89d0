//! The two kinds of entity embeddings in training, and how each is scored and trained.
//!
//! A free table `E` scores queries `Q` as `S = Q Eᵀ`. A projected table, `E = F W` with fixed features `F`, can use the
//! same way through the entities, or a way through the features that never forms `E`:
//!
//! ```text
//!           through the entities          through the features
//! scores    E = F W,  S = Q Eᵀ            K = Q Wᵀ,  S = K Fᵀ
//! ∂Q        G E                           ∂K = G F,  ∂Q = ∂K W
//! ∂W        ∂E = Gᵀ Q + ∂U,  Fᵀ ∂E        ∂Kᵀ Q + Fᵤᵀ ∂U
//! ```
//!
//! With a distance, the table holds `-‖e‖²` of every entity. A projected table then goes through the entities, and in
//! `∂E` the gradient of these norms is folded into the gradient of the embeddings.
//!
//! `∂U` is the gradient of the embeddings in the batch's triples, as heads and from the regulariser. Both ways give the
//! same numbers up to rounding; the shapes decide which way needs fewer operations.

use rayon::prelude::*;

use super::{Batch, Uses};
use crate::adagrad::Adagrad;
use crate::backbone::distance;
use crate::matrix::index;
use crate::{Backbone, Matrix, Model, ProductPrecision, Real, row};

/// Source of the entity embeddings.
#[derive(Clone, Debug)]
pub enum Embedding<T> {
    /// A free table `(entity, 2k)`: structural teacher and student.
    Table(Matrix<T>),
    /// `features · projection`: fixed features `(entity, f)`, a trained projection `(f, 2k)`.
    Projected {
        /// Fixed features. An entity without features has a row of zeros: no evidence, no embedding.
        features: Matrix<T>,
        /// The trained parameters.
        projection: Matrix<T>,
    },
}

/// The matrices that a step with projected embeddings multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// Entity embeddings.
    #[default]
    Entities,
    /// Features and projected queries.
    Features,
}

impl Way {
    /// The way with fewer multiplications in a step of `queries` queries with `used` entities in their triples. For a
    /// distance, always the way through the entities.
    pub fn cheaper(
        backbone: Backbone,
        entities: usize,
        features: usize,
        width: usize,
        queries: usize,
        used: usize,
    ) -> Way {
        let through_entities = 2 * entities * features * width + 3 * queries * entities * width;
        let through_features =
            2 * queries * entities * features + (3 * queries + 2 * used) * features * width;
        let is_free = !backbone.is_distance();
        if is_free && through_features < through_entities { Way::Features } else { Way::Entities }
    }
}

/// Entity embeddings with their optimiser. Free embeddings are the model's entity table itself. For projected
/// embeddings, the model's entity table is a product that may be out of date.
#[derive(Debug)]
pub(crate) enum Entities<T> {
    Free(Adagrad<T>),
    Projected(Box<Projected<T>>),
}

impl<T: Real> Entities<T> {
    /// Prepares a step on `batch`, and writes the embeddings of the entities in its triples to `into`.
    pub(crate) fn prepare(&mut self, model: &mut Model<T>, batch: &Batch, into: &mut Matrix<T>) {
        let uses = &batch.entities.rows;
        if let Entities::Projected(projected) = self {
            let Projected { features, projection, used, way, .. } = &mut **projected;
            let (columns, width) = (features.columns(), projection.columns());
            let (entities, queries) = (features.rows(), batch.queries);
            *way = Way::cheaper(model.backbone, entities, columns, width, queries, uses.len());
            if *way == Way::Features {
                used.gather(features, uses);
                into.resize(uses.len(), width);
                return into.product(false, used.view(), projection.view());
            }
        }
        self.write_table(model);
        into.gather(&model.entity, uses);
    }

    /// Computes the `scores (query, entity)` of the query `vectors (query, 2k)`.
    pub(crate) fn score(
        &mut self,
        precision: ProductPrecision,
        table: &Matrix<T>,
        vectors: &Matrix<T>,
        scores: &mut Matrix<T>,
    ) {
        let (vectors, entities) = match self {
            Entities::Projected(projected) if projected.way == Way::Features => {
                let Projected { features, projection, keys, .. } = &mut **projected;
                keys.resize(vectors.rows(), features.columns());
                keys.product(false, vectors.view(), projection.transposed());
                (&*keys, &*features)
            }
            _ => (vectors, table),
        };
        scores.resize(vectors.rows(), entities.rows());
        scores.product_in(precision, false, vectors.view(), entities.transposed());
    }

    /// Computes the gradient of the query vectors from the gradient of the scores.
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
                let Projected { features, projection, keys, .. } = &mut **projected;
                keys.product_in(precision, false, scores.view(), features.view());
                into.product(false, keys.view(), projection.view());
            }
            _ => into.product_in(precision, false, scores.view(), table.view()),
        }
    }

    /// Takes one step of the optimiser, from the gradients of the scores and of the used embeddings.
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

    /// Brings the model's table up to date.
    pub(crate) fn write_table(&mut self, model: &mut Model<T>) {
        let Entities::Projected(projected) = self else { return };
        let Projected { features, projection, stale, .. } = &mut **projected;
        if std::mem::take(stale) {
            model.entity.resize(features.rows(), projection.columns());
            model.entity.product(false, features.view(), projection.view());
            if model.backbone.is_distance() {
                distance::close_entities(&mut model.entity);
            }
        }
    }
}

/// Number of entities whose gradient is computed and used at a time: a block stays in the cache, and the gradient of a
/// whole free table is never stored.
pub(crate) const BLOCK: usize = 512;

pub(crate) struct EntityGradients<'a, T> {
    pub(crate) precision: ProductPrecision,
    pub(crate) scores: &'a Matrix<T>,
    pub(crate) vectors: &'a Matrix<T>,
    pub(crate) uses: &'a Uses,
    /// Gradient of the embeddings in `uses`, `(use, 2k)`.
    pub(crate) used: &'a Matrix<T>,
    /// True if the table holds the norms of its rows.
    pub(crate) is_distance: bool,
}

impl<T: Real> EntityGradients<'_, T> {
    /// Calls `each` with every block of [`BLOCK`] entities and its gradient `Gᵀ Q + ∂U`, blocks in parallel.
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

    /// Turns the gradient of some rows of the table into the gradient of their embeddings alone.
    fn fold_norms(&self, rows: &[T], gradient: &mut Matrix<T>) {
        if self.is_distance {
            let width = gradient.columns();
            for (row, of) in rows.chunks_exact(width).zip(gradient.values_mut().chunks_exact_mut(width)) {
                distance::open_entity_gradient(row, of);
            }
        }
    }

    /// Writes the gradient of all entities' embeddings, the rows of `table`, to `into`.
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
    /// The trained projection; the further columns of a distance are zero.
    pub(crate) projection: Matrix<T>,
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
    fn update(&mut self, table: &Matrix<T>, gradients: &EntityGradients<'_, T>) {
        self.gradient.resize(self.projection.rows(), self.projection.columns());
        match self.way {
            Way::Entities => {
                gradients.of_all(table, &mut self.entity_gradient);
                self.gradient.product(false, self.features.transposed(), self.entity_gradient.view());
            }
            Way::Features => {
                self.gradient.product(false, self.keys.transposed(), gradients.vectors.view());
                self.gradient.product(true, self.used.transposed(), gradients.used.view());
            }
        }
        self.optimiser.step(&mut self.projection, &self.gradient);
        self.stale = true;
    }
}
