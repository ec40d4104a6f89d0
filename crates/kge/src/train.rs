//! The 1-vs-all training step.
//!
//! A batch is a set of distinct queries, each with all its tails: a query's scores are computed once and its
//! tails weigh them. With `Q` the query vectors and `E` the entity embeddings,
//!
//! ```text
//! S  = Q Eᵀ                     scores (query, entity)
//! G  = ∂loss/∂S                 row by row, in place: the objective's part
//! ∂Q = G E,   ∂E = Gᵀ Q         then ∂Q flows on to heads and relations
//! ```

use mkg::QuerySet;
use rayon::prelude::*;
use stage::{Error, Kind, Result};

use crate::adagrad::Adagrad;
use crate::checkpoint::{Reader, Tensors, require_finite};
use crate::complex::{self, N3};
use crate::{ComplEx, Matrix, Real, row};

/// What a row of scores should become.
pub trait Objective<T>: Sync {
    /// What one row leaves behind for the caller.
    type Row: Send;
    /// Buffers of one thread.
    type Scratch: Send;

    /// Fresh buffers for rows of `entities` scores.
    fn scratch(&self, entities: usize) -> Self::Scratch;

    /// Replaces the scores `(entity)` of query number `query`, `position`-th of the batch, by `scale` times the
    /// gradient of the query's loss, summed over its tails. Returns that loss (not scaled) and the row's result.
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
        row::exp_in_place(scores, shift, T::ONE);
        let sum = row::sum(scores);
        let count = tails.len() as f64;
        row::scale(scores, T::from_f64(count) * scale / sum);
        for tail in tails {
            scores[tail.index()] -= scale;
        }
        (count * (shift.to_f64() + sum.to_f64().ln()) - of_tails, ())
    }
}

/// Where entity embeddings come from.
#[derive(Clone, Debug)]
pub enum Embedding<T> {
    /// A free table `(entity, 2k)`: structural teacher and student.
    Table(Matrix<T>),
    /// `features · projection / scale`: fixed features `(entity, f)`, a trained projection `(f, 2k)`.
    Projected {
        /// Zero rows for entities without features: no evidence, no embedding.
        features: Matrix<T>,
        /// What is trained.
        projection: Matrix<T>,
        /// Divides the product.
        scale: f64,
    },
}

impl<T: Real> Embedding<T> {
    /// The trained matrix.
    fn parameters(&mut self) -> &mut Matrix<T> {
        match self {
            Embedding::Table(table) => table,
            Embedding::Projected { projection, .. } => projection,
        }
    }

    fn write_table(&self, table: &mut Matrix<T>) {
        if let Embedding::Projected { features, projection, scale } = self {
            table.product(false, T::from_f64(1.0 / scale), features.view(), projection.view());
        }
    }
}

/// Mean losses of one step, per triple.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepLoss {
    /// The objective's.
    pub objective: f64,
    /// N3's.
    pub regulariser: f64,
    /// How many pairs of query and tail the means are over.
    pub pairs: usize,
}

/// A ComplEx model in training: parameters, optimiser and preallocated buffers.
#[derive(Debug)]
pub struct Trainer<T> {
    embedding: Embedding<T>,
    /// Entity and relation tables as they score; the entity table is recomputed from a projection.
    model: ComplEx<T>,
    n3: N3,
    entity_optimiser: Adagrad<T>,
    relation_optimiser: Adagrad<T>,
    vectors: Matrix<T>,
    scores: Matrix<T>,
    vector_gradient: Matrix<T>,
    entity_gradient: Matrix<T>,
    relation_gradient: Matrix<T>,
    projection_gradient: Matrix<T>,
}

impl<T: Real> Trainer<T> {
    /// Starts from initial `embedding` and `relation` `(relation and inverse, 2k)`.
    pub fn new(mut embedding: Embedding<T>, relation: Matrix<T>, learning_rate: f64, n3: N3) -> Self {
        let (entities, width) = match &embedding {
            Embedding::Table(table) => (table.rows(), table.columns()),
            Embedding::Projected { features, projection, .. } => (features.rows(), projection.columns()),
        };
        assert_eq!(relation.columns(), width, "entities and relations have one rank");
        let (rows, columns) = (embedding.parameters().rows(), embedding.parameters().columns());
        let empty = || Matrix::zeros(0, 0);
        let mut entity = empty();
        if let Embedding::Projected { .. } = embedding {
            entity.resize(entities, width);
        } else {
            std::mem::swap(&mut entity, embedding.parameters());
        }
        let mut trainer = Trainer {
            entity_optimiser: Adagrad::new(learning_rate, rows, columns),
            relation_optimiser: Adagrad::new(learning_rate, relation.rows(), width),
            relation_gradient: Matrix::zeros(relation.rows(), width),
            entity_gradient: Matrix::zeros(entities, width),
            projection_gradient: empty(),
            vectors: empty(),
            scores: empty(),
            vector_gradient: empty(),
            model: ComplEx { entity, relation },
            embedding,
            n3,
        };
        trainer.embedding.write_table(&mut trainer.model.entity);
        trainer
    }

    /// The model as it stands.
    pub fn model(&self) -> &ComplEx<T> {
        &self.model
    }

    /// The trained projection, if there is one.
    pub fn projection(&self) -> Option<&Matrix<T>> {
        match &self.embedding {
            Embedding::Table(_) => None,
            Embedding::Projected { projection, .. } => Some(projection),
        }
    }

    /// One step of Adagrad on the queries numbered `batch`; what each row left behind is in the batch's order.
    pub fn step<O: Objective<T>>(
        &mut self,
        queries: &QuerySet,
        batch: &[u32],
        objective: &O,
    ) -> Result<(StepLoss, Vec<O::Row>)> {
        let (loss, rows) = self.gradient(queries, batch, objective)?;
        self.update();
        Ok((loss, rows))
    }

    /// Fills the gradient buffers.
    pub(crate) fn gradient<O: Objective<T>>(
        &mut self,
        queries: &QuerySet,
        batch: &[u32],
        objective: &O,
    ) -> Result<(StepLoss, Vec<O::Row>)> {
        let pairs: usize = batch.iter().map(|&query| queries.tails(query as usize).len()).sum();
        self.score(queries, batch);
        let (objective_loss, rows) = self.differentiate_rows(batch, objective, 1.0 / pairs as f64);
        if !objective_loss.is_finite() {
            let hint = "lower the learning rate; the last checkpoint and the best model are kept";
            return Err(Error::new(Kind::Diverged, "the loss is no longer finite").hint(hint));
        }
        self.vector_gradient.resize(batch.len(), self.model.entity.columns());
        self.vector_gradient.product(false, T::ONE, self.scores.view(), self.model.entity.view());
        self.entity_gradient.product(false, T::ONE, self.scores.transposed(), self.vectors.view());
        let regulariser = self.propagate(queries, batch, 1.0 / pairs as f64);
        let objective = objective_loss / pairs as f64;
        Ok((StepLoss { objective, regulariser, pairs }, rows))
    }

    fn score(&mut self, queries: &QuerySet, batch: &[u32]) {
        let asked: Vec<_> = batch.iter().map(|&query| queries.query(query as usize)).collect();
        self.model.queries(&asked, &mut self.vectors);
        self.scores.resize(batch.len(), self.model.entity.rows());
        self.scores.product(false, T::ONE, self.vectors.view(), self.model.entity.transposed());
    }

    fn differentiate_rows<O: Objective<T>>(
        &mut self,
        batch: &[u32],
        objective: &O,
        scale: f64,
    ) -> (f64, Vec<O::Row>) {
        let entities = self.model.entity.rows();
        let scale = T::from_f64(scale);
        let (losses, rows): (Vec<f64>, Vec<O::Row>) = self
            .scores
            .values_mut()
            .par_chunks_mut(entities)
            .zip(batch)
            .enumerate()
            .map_init(
                || objective.scratch(entities),
                |scratch, (position, (scores, &query))| {
                    objective.gradient(position, query as usize, scores, scale, scratch)
                },
            )
            .unzip();
        // Summed in order: the same bits whatever the number of threads.
        (losses.iter().sum(), rows)
    }

    /// From query vectors to heads and relations, and N3 on head, relation and tail of every triple.
    fn propagate(&mut self, queries: &QuerySet, batch: &[u32], scale: f64) -> f64 {
        let (entity, relation, n3) = (&self.model.entity, &self.model.relation, self.n3);
        self.relation_gradient.clear();
        let mut value = 0.0;
        for (position, &number) in batch.iter().enumerate() {
            let (query, tails) = (queries.query(number as usize), queries.tails(number as usize));
            let (h, r) = (query.head.index(), query.relation.index());
            let gradient = self.vector_gradient.row(position);
            complex::add_compose_gradient(gradient, relation.row(r), self.entity_gradient.row_mut(h));
            complex::add_compose_gradient(gradient, entity.row(h), self.relation_gradient.row_mut(r));
            if n3.weight == 0.0 {
                continue;
            }
            let factor = scale * tails.len() as f64;
            value += n3.value(entity.row(h), factor) + n3.value(relation.row(r), factor);
            n3.add_gradient(entity.row(h), factor, self.entity_gradient.row_mut(h));
            n3.add_gradient(relation.row(r), factor, self.relation_gradient.row_mut(r));
            for tail in tails {
                value += n3.value(entity.row(tail.index()), scale);
                n3.add_gradient(entity.row(tail.index()), scale, self.entity_gradient.row_mut(tail.index()));
            }
        }
        value
    }

    fn update(&mut self) {
        match &mut self.embedding {
            Embedding::Table(_) => self.entity_optimiser.step(&mut self.model.entity, &self.entity_gradient),
            Embedding::Projected { features, projection, scale } => {
                let gradient = &mut self.projection_gradient;
                gradient.resize(projection.rows(), projection.columns());
                let factor = T::from_f64(1.0 / *scale);
                gradient.product(false, factor, features.transposed(), self.entity_gradient.view());
                self.entity_optimiser.step(projection, gradient);
            }
        }
        self.relation_optimiser.step(&mut self.model.relation, &self.relation_gradient);
        self.embedding.write_table(&mut self.model.entity);
    }
}

impl Trainer<f32> {
    /// Bytes that training takes at most, for `entities x width` embeddings and batches of `batch` queries, over
    /// features of `features` columns (0 for a free table).
    pub fn memory(entities: usize, width: usize, batch: usize, features: usize) -> u64 {
        let tables = 4 * entities * width + batch * (entities + 2 * width);
        let projection = entities * features + 3 * features * width;
        4 * (tables + projection) as u64
    }

    /// Everything needed to go on: parameters and optimiser.
    pub fn state(&self) -> Tensors<'_> {
        let parameters = match &self.embedding {
            Embedding::Table(_) => &self.model.entity,
            Embedding::Projected { projection, .. } => projection,
        };
        Tensors::default()
            .matrix("parameters", parameters)
            .matrix("relation", &self.model.relation)
            .matrix("parameters_squares", self.entity_optimiser.state())
            .matrix("relation_squares", self.relation_optimiser.state())
    }

    /// Takes up a state saved under `prefix.`.
    pub fn restore(&mut self, reader: &Reader, prefix: &str) -> Result<()> {
        let parameters = match &mut self.embedding {
            Embedding::Table(_) => &mut self.model.entity,
            Embedding::Projected { projection, .. } => projection,
        };
        reader.load(&format!("{prefix}.parameters"), parameters)?;
        reader.load(&format!("{prefix}.relation"), &mut self.model.relation)?;
        reader.load(&format!("{prefix}.parameters_squares"), self.entity_optimiser.state_mut())?;
        reader.load(&format!("{prefix}.relation_squares"), self.relation_optimiser.state_mut())?;
        self.embedding.write_table(&mut self.model.entity);
        Ok(())
    }

    /// Refuses parameters that are no longer finite.
    pub fn require_finite(&self) -> Result<()> {
        require_finite("entity", &self.model.entity)?;
        require_finite("relation", &self.model.relation)
    }
}

#[cfg(test)]
mod tests;
