//! The 1-vs-all training step.
//!
//! A batch is a set of distinct queries, each with all its tails: a query's scores are computed once and its
//! tails weigh them. With `Q` the query vectors and `E` the entity embeddings,
//!
//! ```text
//! S  = Q Eᵀ                     scores (query, entity)
//! G  = ∂loss/∂S                 row by row, in place: the objective's part
//! ∂Q = G E,   ∂E = Gᵀ Q         ∂Q flows on to heads and relations
//! ```
//!
//! Projected embeddings have a shorter way to the same numbers: see `Embedding`.

use mkg::QuerySet;
use rayon::prelude::*;
use stage::{Error, Kind, Result};

use crate::adagrad::Adagrad;
use crate::checkpoint::{Reader, Tensors, require_finite};
use crate::complex::{self, N3};
use crate::{ComplEx, Matrix, Precision, Real, row};

mod entities;
mod uses;

pub use entities::{Embedding, Way};
use entities::{Entities, Gradients, Projected};
pub use uses::Uses;

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
    /// The objective's.
    pub objective: f64,
    /// N3's.
    pub regulariser: f64,
    /// How many pairs of query and tail the means are over.
    pub pairs: usize,
}

/// A ComplEx model in training: parameters, optimisers and preallocated buffers.
#[derive(Debug)]
pub struct Trainer<T> {
    /// Entity and relation tables as they score; where entities are projected, theirs may lag behind.
    model: ComplEx<T>,
    entities: Entities<T>,
    relation_optimiser: Adagrad<T>,
    n3: N3,
    precision: Precision,
    buffers: Buffers<T>,
}

/// The matrices of a step.
#[derive(Debug)]
struct Buffers<T> {
    /// The embeddings of entities that the batch uses itself `(use, 2k)`, and their gradient.
    used: Matrix<T>,
    used_gradient: Matrix<T>,
    /// `Q (query, 2k)`, and its gradient.
    vectors: Matrix<T>,
    vector_gradient: Matrix<T>,
    /// `S (query, entity)`, then `G`.
    scores: Matrix<T>,
    /// Of the relations that the batch uses `(use, 2k)`.
    relation_gradient: Matrix<T>,
}

impl<T: Real> Buffers<T> {
    fn new() -> Self {
        let empty = || Matrix::zeros(0, 0);
        Buffers {
            used: empty(),
            used_gradient: empty(),
            vectors: empty(),
            vector_gradient: empty(),
            scores: empty(),
            relation_gradient: empty(),
        }
    }
}

/// The entities and relations that a batch of queries uses itself.
#[derive(Debug)]
pub struct Batch {
    /// Entities, as heads and as tails.
    pub entities: Uses,
    /// Relations.
    pub relations: Uses,
    /// The relation's index at each position.
    pub relation_of: Vec<u32>,
    /// How many pairs of query and tail.
    pub pairs: usize,
}

impl Batch {
    /// Of the queries numbered `numbers`.
    pub fn new(queries: &QuerySet, numbers: &[u32]) -> Batch {
        let query = |number: &u32| queries.query(*number as usize);
        let tails = |number: &u32| queries.tails(*number as usize);
        let pairs = |number: &u32| tails(number).len() as u32;
        let heads = numbers.iter().map(|number| (query(number).head.0, pairs(number)));
        let relations = numbers.iter().map(|number| (query(number).relation.0, pairs(number)));
        Batch {
            entities: Uses::new(heads, numbers.iter().flat_map(tails).map(|tail| tail.0)),
            relations: Uses::new(relations, std::iter::empty()),
            relation_of: numbers.iter().map(|number| query(number).relation.0).collect(),
            pairs: numbers.iter().map(|number| tails(number).len()).sum(),
        }
    }
}

impl<T: Real> Trainer<T> {
    /// Starts from initial `embedding` and `relation` `(relation and inverse, 2k)`.
    pub fn new(embedding: Embedding<T>, relation: Matrix<T>, learning_rate: f64, n3: N3) -> Self {
        let (entity, entities) = match embedding {
            Embedding::Table(table) => {
                let optimiser = Adagrad::new(learning_rate, table.rows(), table.columns());
                (table, Entities::Free(optimiser))
            }
            Embedding::Projected { features, projection, scale } => {
                assert_eq!(projection.columns(), relation.columns(), "entities and relations have one rank");
                let projected = Projected::new(features, projection, scale, learning_rate);
                (Matrix::zeros(0, relation.columns()), Entities::Projected(Box::new(projected)))
            }
        };
        assert_eq!(entity.columns(), relation.columns(), "entities and relations have one rank");
        Trainer {
            relation_optimiser: Adagrad::new(learning_rate, relation.rows(), relation.columns()),
            model: ComplEx { entity, relation },
            entities,
            n3,
            precision: Precision::Full,
            buffers: Buffers::new(),
        }
    }

    /// The same with the products that read or write scores in this precision. Everything else, parameters and
    /// optimisers among it, stays in the trainer's own.
    pub fn with_precision(self, precision: Precision) -> Self {
        Trainer { precision, ..self }
    }

    /// The model as it stands.
    pub fn model(&mut self) -> &ComplEx<T> {
        self.parts().0
    }

    /// The model as it stands, and the trained projection, if there is one.
    pub fn parts(&mut self) -> (&ComplEx<T>, Option<&Matrix<T>>) {
        self.entities.write_table(&mut self.model.entity);
        let projection = match &self.entities {
            Entities::Free(_) => None,
            Entities::Projected(projected) => Some(&projected.projection),
        };
        (&self.model, projection)
    }

    /// One step of Adagrad on the queries numbered `batch`; what each row left behind is in the batch's order.
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
        let scale = 1.0 / uses.pairs as f64;
        let (objective_loss, rows) = self.differentiate_rows(batch, objective, scale);
        if !objective_loss.is_finite() {
            let hint = "lower the learning rate; the last checkpoint and the best model are kept";
            return Err(Error::new(Kind::Diverged, "the loss is no longer finite").hint(hint));
        }
        let Buffers { scores, vector_gradient, .. } = &mut self.buffers;
        self.entities.differentiate(self.precision, &self.model.entity, scores, vector_gradient);
        let regulariser = self.propagate(uses, scale);
        Ok((StepLoss { objective: objective_loss * scale, regulariser, pairs: uses.pairs }, rows))
    }

    /// Composes the batch's queries and scores all entities.
    fn score(&mut self, batch: &Batch) {
        let Buffers { used, vectors, scores, .. } = &mut self.buffers;
        let (queries, width) = (batch.relation_of.len(), self.model.relation.columns());
        self.entities.prepare(&mut self.model.entity, queries, &batch.entities, used);
        vectors.resize(queries, width);
        let rows = vectors.values_mut().par_chunks_mut(width).zip(&batch.relation_of).enumerate();
        rows.for_each(|(position, (vector, &relation))| {
            let head = used.row(batch.entities.number(position));
            complex::compose(head, self.model.relation.row(relation as usize), vector);
        });
        self.entities.score(self.precision, &self.model.entity, vectors, scores);
    }

    fn differentiate_rows<O: Objective<T>>(
        &mut self,
        batch: &[u32],
        objective: &O,
        scale: f64,
    ) -> (f64, Vec<O::Row>) {
        let entities = self.buffers.scores.columns();
        let scale = T::from_f64(scale);
        let (losses, rows): (Vec<f64>, Vec<O::Row>) = self
            .buffers
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

    /// From query vectors on to heads and relations, and N3 on head, relation and tail of every triple.
    fn propagate(&mut self, batch: &Batch, scale: f64) -> f64 {
        let Buffers { used, used_gradient, vector_gradient, relation_gradient, .. } = &mut self.buffers;
        let (relations, n3) = (&self.model.relation, self.n3);
        let head_of = |position: u32| used.row(batch.entities.number(position as usize));
        let relation_of = |position: u32| relations.row(batch.relation_of[position as usize] as usize);
        let of_relation = |number: usize| relations.row(batch.relations.rows()[number] as usize);
        let flow = Flow { vector_gradient, n3, scale };
        flow.write_rows(&batch.entities, relation_of, |number| used.row(number), used_gradient)
            + flow.write_rows(&batch.relations, head_of, of_relation, relation_gradient)
    }

    fn update(&mut self, batch: &Batch) {
        let Buffers { scores, vectors, used_gradient, relation_gradient, .. } = &self.buffers;
        let (precision, uses) = (self.precision, &batch.entities);
        let gradients = Gradients { precision, scores, vectors, uses, used: used_gradient };
        self.entities.update(&mut self.model.entity, &gradients);
        let (table, rows) = (&mut self.model.relation, batch.relations.rows());
        self.relation_optimiser.step_rows(table, rows, relation_gradient);
    }
}

/// What flows from query vectors into one of their two factors.
struct Flow<'a, T> {
    /// `(query, 2k)`.
    vector_gradient: &'a Matrix<T>,
    n3: N3,
    /// One over the batch's pairs.
    scale: f64,
}

impl<T: Real> Flow<'_, T> {
    /// Writes the gradient of the rows of `uses` and returns their part of the regulariser. `other` is the second
    /// factor at a position, `row` a row's own embedding.
    fn write_rows<'b>(
        &self,
        uses: &Uses,
        other: impl Fn(u32) -> &'b [T] + Sync,
        row: impl Fn(usize) -> &'b [T] + Sync,
        gradient: &mut Matrix<T>,
    ) -> f64 {
        let width = self.vector_gradient.columns();
        gradient.resize(uses.rows().len(), width);
        let rows = gradient.values_mut().par_chunks_mut(width).enumerate();
        let values: Vec<f64> = rows
            .map(|(number, onto)| {
                onto.fill(T::ZERO);
                for &position in uses.positions(number) {
                    let gradient = self.vector_gradient.row(position as usize);
                    complex::add_compose_gradient(gradient, other(position), onto);
                }
                self.n3.add(row(number), self.scale * f64::from(uses.pairs(number)), onto)
            })
            .collect();
        values.iter().sum()
    }
}

impl Trainer<f32> {
    /// Bytes that training takes at most, for `entities x width` embeddings and batches of `pairs` pairs of query
    /// and tail in at most so many `queries`, over features of `features` columns (0 for a free table).
    pub fn memory(entities: usize, width: usize, pairs: usize, queries: usize, features: usize) -> u64 {
        let used = (queries + pairs).min(entities);
        let step = queries * (entities + 2 * width) + 2 * used * width;
        let parameters = match features {
            0 => 2 * entities * width,
            // The table is there for validation, its gradient where the step goes through the entities.
            _ => {
                let tables = match Way::cheaper(entities, features, width, queries, used) {
                    Way::Entities => 2 * entities * width,
                    Way::Features => entities * width + (queries + used) * features,
                };
                tables + entities * features + 3 * features * width
            }
        };
        4 * (parameters + step) as u64
    }

    /// Everything needed to go on: parameters and optimiser.
    pub fn state(&self) -> Tensors<'_> {
        let (parameters, optimiser) = match &self.entities {
            Entities::Free(optimiser) => (&self.model.entity, optimiser),
            Entities::Projected(projected) => (&projected.projection, &projected.optimiser),
        };
        Tensors::default()
            .matrix("parameters", parameters)
            .matrix("relation", &self.model.relation)
            .matrix("parameters_squares", optimiser.state())
            .matrix("relation_squares", self.relation_optimiser.state())
    }

    /// Takes up a state saved under `prefix.`.
    pub fn restore(&mut self, reader: &Reader, prefix: &str) -> Result<()> {
        let (parameters, optimiser) = match &mut self.entities {
            Entities::Free(optimiser) => (&mut self.model.entity, optimiser),
            Entities::Projected(projected) => {
                projected.stale = true;
                (&mut projected.projection, &mut projected.optimiser)
            }
        };
        reader.load(&format!("{prefix}.parameters"), parameters)?;
        reader.load(&format!("{prefix}.relation"), &mut self.model.relation)?;
        reader.load(&format!("{prefix}.parameters_squares"), optimiser.state_mut())?;
        reader.load(&format!("{prefix}.relation_squares"), self.relation_optimiser.state_mut())
    }

    /// Refuses parameters that are no longer finite.
    pub fn require_finite(&mut self) -> Result<()> {
        let model = self.model();
        require_finite("entity", &model.entity)?;
        require_finite("relation", &model.relation)
    }
}

#[cfg(test)]
mod tests;
