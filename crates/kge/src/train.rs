//! The 1-vs-all training step.
//!
//! A batch is a set of distinct queries, each with all its tails: the scores of a query are computed once for all its
//! tails. `Q` is the matrix of query vectors and `E` the matrix of entity embeddings:
//!
//! ```text
//! S  = Q Eᵀ                     scores (query, entity)
//! G  = ∂loss/∂S                 row by row, in place: the objective's part
//! ∂Q = G E,   ∂E = Gᵀ Q         ∂Q flows on to heads and relations
//! ```
//!
//! Projected embeddings can get the same numbers with fewer operations: see `Way`.

use mkg::QuerySet;
use rayon::prelude::*;
use stage::Result;

use crate::adagrad::Adagrad;
use crate::backbone::{compose, distance, further_columns, gather_relations};
use crate::checkpoint::{NamedTensors, TensorReader, diverged};
use crate::complex::N3;
use crate::matrix::index;
use crate::{Backbone, Matrix, Model, ProductPrecision, Real, Shape, rank, row};

mod entities;
mod flow;
mod uses;

pub use entities::{Embedding, Way};
use entities::{Entities, EntityGradients, Projected};
pub use uses::Uses;

/// Objective of a row of scores.
pub trait Objective<T>: Sync {
    /// Figures of one row, for the caller.
    type Row: Send;
    /// Buffers of one thread.
    type Scratch: Send;

    /// Fresh buffers for rows of `entities` scores.
    fn scratch(&self, entities: usize) -> Self::Scratch;

    /// Replaces the scores `(entity)` of query number `query`, at `position` in the batch, by `scale` times the
    /// gradient of the query's loss, summed over its tails. Returns the unscaled loss and the row's figures.
    fn gradient(
        &self,
        position: usize,
        query: usize,
        scores: &mut [T],
        scale: T,
        scratch: &mut Self::Scratch,
    ) -> (f64, Self::Row);
}

/// Softmax cross-entropy over all entities (Eq. 1), summed over a query's tails.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a> {
    /// The queries with their tails.
    pub queries: &'a QuerySet,
}

impl<T: Real> Objective<T> for CrossEntropy<'_> {
    type Row = ();
    type Scratch = ();

    fn scratch(&self, _entities: usize) {}

    fn gradient(&self, _position: usize, query: usize, scores: &mut [T], scale: T, (): &mut ()) -> (f64, ()) {
        let tails = self.queries.tails(query);
        let shift = row::max(scores);
        let of_tails: f64 = tails.iter().map(|tail| scores[tail.index()].to_f64()).sum();
        let sum = row::exp_and_sum(scores, shift);
        let count = tails.len() as f64;
        row::scale(scores, T::from_f64(count) * scale / sum);
        for tail in tails {
            scores[tail.index()] -= scale;
        }
        (count * (shift.to_f64() + sum.to_f64().ln()) - of_tails, ())
    }
}

/// Mean losses of one step, per triple.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepLoss {
    /// Loss of the objective.
    pub objective: f64,
    /// Loss of the regulariser, N3.
    pub regulariser: f64,
    /// Number of pairs of query and tail in the means.
    pub pairs: usize,
}

/// Initial parameters of a model.
#[derive(Clone, Debug)]
pub struct Initial<T> {
    /// The backbone, which defines the score.
    pub backbone: Backbone,
    /// Entity embeddings.
    pub embedding: Embedding<T>,
    /// Relation table, like [`Model::relation`].
    pub relation: Matrix<T>,
    /// TuckER's core, like [`Model::core`].
    pub core: Matrix<T>,
}

impl<T: Real> Initial<T> {
    /// Makes the parameters of a ComplEx model.
    pub fn complex(embedding: Embedding<T>, relation: Matrix<T>) -> Self {
        Initial { backbone: Backbone::ComplEx, embedding, relation, core: Matrix::default() }
    }
}

/// A model in training: parameters, optimisers and preallocated buffers.
#[derive(Debug)]
pub struct Trainer<T> {
    /// The model; if entities are projected, its entity table may be older than the projection.
    model: Model<T>,
    entities: Entities<T>,
    relation_optimiser: Adagrad<T>,
    core_optimiser: Adagrad<T>,
    n3: N3,
    precision: ProductPrecision,
    buffers: StepMatrices<T>,
}

#[derive(Debug, Default)]
struct StepMatrices<T> {
    /// The entity rows that occur in the batch's triples, and their gradient.
    used: Matrix<T>,
    used_gradient: Matrix<T>,
    relations: Matrix<T>,
    /// TuckER's `r ⊗ h (query, d · 2k)`, then its gradient.
    outer: Matrix<T>,
    /// `Q (query, width)`, and its gradient.
    vectors: Matrix<T>,
    vector_gradient: Matrix<T>,
    /// `S (query, entity)`, then `G`.
    scores: Matrix<T>,
    relation_gradient: Matrix<T>,
    core_gradient: Matrix<T>,
}

/// The entities and relations that occur in the triples of a batch.
#[derive(Debug)]
pub struct Batch {
    /// Entities, as heads and as tails.
    pub entities: Uses,
    /// Relations.
    pub relations: Uses,
    /// Number of queries.
    pub queries: usize,
    /// Number of pairs of query and tail.
    pub pairs: usize,
}

impl Batch {
    /// The batch of the queries numbered `numbers`.
    pub fn new(queries: &QuerySet, numbers: &[u32]) -> Batch {
        let numbers = numbers.iter().map(|number| index(*number));
        let asked = numbers.map(|number| (queries.query(number), queries.tails(number)));
        let tails = asked.clone().flat_map(|(_, tails)| tails);
        let heads = asked.clone().map(|(query, tails)| (query.head.0, tails.len() as u32));
        let relations = asked.clone().map(|(query, tails)| (query.relation.0, tails.len() as u32));
        Batch {
            queries: asked.len(),
            pairs: tails.clone().count(),
            entities: Uses::new(heads, tails.map(|tail| tail.0)),
            relations: Uses::new(relations, std::iter::empty()),
        }
    }

    /// One over the number of pairs: the factor that turns sums into means.
    pub fn scale(&self) -> f64 {
        1.0 / self.pairs as f64
    }
}

impl<T: Real> Trainer<T> {
    /// Makes a trainer from `initial` parameters; panics if their shapes do not belong to one model.
    pub fn new(initial: Initial<T>, learning_rate: f64, n3: N3) -> Self {
        let Initial { backbone, embedding, relation, core } = initial;
        let (entity, entities) = match embedding {
            Embedding::Table(table) => {
                let mut table = widened(table, further_columns(backbone));
                if backbone.is_distance() {
                    distance::close_entities(&mut table);
                }
                let optimiser = Adagrad::new(learning_rate, table.rows(), table.columns());
                (table, Entities::Free(optimiser))
            }
            Embedding::Projected { features, projection } => {
                let projection = widened(projection, further_columns(backbone));
                let (rows, width) = (projection.rows(), projection.columns());
                let optimiser = Adagrad::new(learning_rate, rows, width);
                let projected =
                    Projected { features, projection, optimiser, stale: true, ..Projected::default() };
                (Matrix::zeros(0, width), Entities::Projected(Box::new(projected)))
            }
        };
        let model = Model { backbone, entity, relation, core };
        let shape = Shape::of(&model);
        let of_shape = (shape.relation_columns(), shape.core_rows());
        assert_eq!((model.relation.columns(), model.core.rows()), of_shape, "all tables have one rank");
        Trainer {
            relation_optimiser: Adagrad::new(learning_rate, model.relation.rows(), model.relation.columns()),
            core_optimiser: Adagrad::new(learning_rate, model.core.rows(), model.core.columns()),
            model,
            entities,
            n3,
            precision: ProductPrecision::Full,
            buffers: StepMatrices::default(),
        }
    }

    /// Sets the precision of the products that read or write scores. Everything else, including parameters and
    /// optimisers, stays in the precision of `T`.
    pub fn with_precision(self, precision: ProductPrecision) -> Self {
        Trainer { precision, ..self }
    }

    /// The current model.
    pub fn model(&mut self) -> &Model<T> {
        self.parts().0
    }

    /// The current model, and the trained projection `(f, width)` if there is one. With a distance, the further columns
    /// of the projection are zero.
    pub fn parts(&mut self) -> (&Model<T>, Option<&Matrix<T>>) {
        self.entities.write_table(&mut self.model);
        let projection = match &self.entities {
            Entities::Free(_) => None,
            Entities::Projected(projected) => Some(&projected.projection),
        };
        (&self.model, projection)
    }

    /// Takes one Adagrad step on the queries numbered `batch`. Each row's figures are returned in the batch's order.
    pub fn step<O: Objective<T>>(
        &mut self,
        queries: &QuerySet,
        batch: &[u32],
        objective: &O,
    ) -> Result<(StepLoss, Vec<O::Row>)> {
        let uses = Batch::new(queries, batch);
        let (loss, rows) = self.differentiate(&uses, batch, objective)?;
        self.update(&uses);
        Ok((loss, rows))
    }

    /// Fills the buffers with the gradients that [`Trainer::update`] needs.
    fn differentiate<O: Objective<T>>(
        &mut self,
        uses: &Batch,
        batch: &[u32],
        objective: &O,
    ) -> Result<(StepLoss, Vec<O::Row>)> {
        self.score(uses);
        let StepMatrices { scores, vector_gradient, .. } = &mut self.buffers;
        let (entities, scale) = (scores.columns(), T::from_f64(uses.scale()));
        let (losses, rows): (Vec<f64>, Vec<O::Row>) = scores
            .par_rows_mut()
            .zip(batch)
            .enumerate()
            .map_init(
                || objective.scratch(entities),
                |scratch, (position, (scores, &query))| {
                    objective.gradient(position, index(query), scores, scale, scratch)
                },
            )
            .unzip();
        // Summed in order, so that the bits do not depend on the number of threads.
        let loss: f64 = losses.iter().sum();
        if !loss.is_finite() {
            return Err(diverged("the loss"));
        }
        self.entities.differentiate(self.precision, &self.model.entity, scores, vector_gradient);
        let (regulariser, objective) = (self.propagate(uses), loss * uses.scale());
        Ok((StepLoss { objective, regulariser, pairs: uses.pairs }, rows))
    }

    fn score(&mut self, batch: &Batch) {
        let StepMatrices { used, relations, outer, vectors, scores, .. } = &mut self.buffers;
        self.entities.prepare(&mut self.model, batch, used);
        let Model { backbone, entity, relation, core } = &self.model;
        gather_relations(*backbone, relation, &batch.relations.rows, relations);
        vectors.resize(batch.queries, entity.columns());
        compose(
            *backbone,
            core,
            |position| used.row(batch.entities.number(position)),
            |position| relations.row(batch.relations.number(position)),
            outer,
            vectors,
        );
        self.entities.score(self.precision, &self.model.entity, vectors, scores);
    }

    /// Propagates the gradient of the query vectors to heads, relations and core, and adds N3 for the entities and the
    /// relation of every triple.
    fn propagate(&mut self, batch: &Batch) -> f64 {
        let Model { backbone, core, .. } = &self.model;
        let StepMatrices { outer, vectors, vector_gradient, core_gradient, .. } = &mut self.buffers;
        if backbone.is_distance() {
            vector_gradient.par_rows_mut().enumerate().for_each(|(position, gradient)| {
                distance::open_query_gradient(vectors.row(position), gradient);
            });
        }
        if *backbone == Backbone::TuckER {
            core_gradient.resize(core.rows(), core.columns());
            core_gradient.product(false, outer.transposed(), vector_gradient.view());
            outer.product(false, vector_gradient.view(), core.transposed());
        }
        let mut of_entities = std::mem::take(&mut self.buffers.used_gradient);
        let mut of_relations = std::mem::take(&mut self.buffers.relation_gradient);
        let regulariser =
            self.write_entities(batch, &mut of_entities) + self.write_relations(batch, &mut of_relations);
        (self.buffers.used_gradient, self.buffers.relation_gradient) = (of_entities, of_relations);
        regulariser
    }

    fn update(&mut self, batch: &Batch) {
        let Model { backbone, entity, relation, core } = &mut self.model;
        let StepMatrices { scores, vectors, relation_gradient, core_gradient, .. } = &self.buffers;
        let gradients = EntityGradients {
            precision: self.precision,
            scores,
            vectors,
            uses: &batch.entities,
            used: &self.buffers.used_gradient,
            is_distance: backbone.is_distance(),
        };
        self.entities.update(entity, &gradients);
        self.relation_optimiser.step_rows(relation, &batch.relations.rows, relation_gradient);
        if *backbone == Backbone::TuckER {
            self.core_optimiser.step(core, core_gradient);
        }
    }
}

/// The matrix with `further` columns of zeros appended.
fn widened<T: Real>(matrix: Matrix<T>, further: usize) -> Matrix<T> {
    if further == 0 {
        return matrix;
    }
    let mut wide = Matrix::zeros(matrix.rows(), matrix.columns() + further);
    for row in 0..matrix.rows() {
        wide.row_mut(row)[..matrix.columns()].copy_from_slice(matrix.row(row));
    }
    wide
}

impl Trainer<f32> {
    /// Maximum bytes that training needs, for a model of this `shape` with `entities` entities, batches of `pairs`
    /// pairs of query and tail in at most `queries` queries, and features of `features` columns (0 for a free table).
    pub fn memory(shape: Shape, entities: usize, pairs: usize, queries: usize, features: usize) -> u64 {
        let width = shape.columns();
        let used = (queries + pairs).min(entities);
        // For TuckER: the core, its squares, its gradient, and the outer products.
        let core = shape.core_rows().saturating_mul(3 * shape.embedding() + queries);
        // Query vectors and relations, each with a gradient; validation has its own scores and vectors.
        let step = queries * (entities + 4 * width) + 2 * used * width + rank::BLOCK * (entities + width);
        let parameters = match features {
            0 => 2 * entities * width,
            // The table is needed for validation; its gradient only where the step goes through the entities.
            _ => {
                let tables = match Way::cheaper(shape.backbone, entities, features, width, queries, used) {
                    Way::Entities => 2 * entities * width,
                    Way::Features => entities * width + (queries + used) * features,
                };
                tables + entities * features + 3 * features * width
            }
        };
        ((parameters + step).saturating_add(core) as u64).saturating_mul(4)
    }

    /// Everything needed to resume training: parameters and optimiser.
    pub fn state(&self) -> NamedTensors<'_> {
        let (parameters, optimiser) = match &self.entities {
            Entities::Free(optimiser) => (&self.model.entity, optimiser),
            Entities::Projected(projected) => (&projected.projection, &projected.optimiser),
        };
        let tensors = NamedTensors::default()
            .matrix("parameters", parameters)
            .matrix("relation", &self.model.relation)
            .matrix("parameters_squares", &optimiser.squares)
            .matrix("relation_squares", &self.relation_optimiser.squares);
        match self.model.backbone {
            Backbone::TuckER => {
                tensors.matrix("core", &self.model.core).matrix("core_squares", &self.core_optimiser.squares)
            }
            _ => tensors,
        }
    }

    /// Restores a state that was saved under `prefix.`.
    pub fn restore(&mut self, reader: &TensorReader, prefix: &str) -> Result<()> {
        let Model { backbone, entity, relation, core } = &mut self.model;
        let (parameters, optimiser) = match &mut self.entities {
            Entities::Free(optimiser) => (entity, optimiser),
            Entities::Projected(projected) => {
                projected.stale = true;
                (&mut projected.projection, &mut projected.optimiser)
            }
        };
        let of_relations = ("relation", relation, &mut self.relation_optimiser);
        let mut tables = vec![("parameters", parameters, optimiser), of_relations];
        if *backbone == Backbone::TuckER {
            tables.push(("core", core, &mut self.core_optimiser));
        }
        for (name, values, optimiser) in tables {
            reader.load(&format!("{prefix}.{name}"), values)?;
            reader.load(&format!("{prefix}.{name}_squares"), &mut optimiser.squares)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
