//! The 1-vs-all training step on a device: see [`kge::train`] for what it computes, and in which order.

mod mirror;
mod objective;
mod projected;
mod sent;

pub use objective::{CrossEntropy, Objective, Visit};

use kge::rank::{Asked, measure_blocks};
use kge::train::{Batch, Embedding, Way};
use kge::{Initial, Matrix, N3, Rank, StepLoss};
use mkg::{KnownAnswers, Query, QuerySet, Triple};
use recipe::Precision;
use stage::{Error, Kind, Result};

use crate::Gpu;
use crate::kernel;
use crate::memory::{Array, DeviceMatrix, Lists, PADDED, gather};
use crate::model::{compose, require_complex};
use crate::rank::Ranker;
use mirror::Mirror;
use projected::{Entities, Projected};
use sent::Sent;

/// Entities whose gradient is computed and used at a time: that of the whole table is never there.
const BLOCK: usize = 8192;

/// A ComplEx model in training on a device.
pub struct Trainer {
    gpu: Gpu,
    /// Entities as they score; where they are projected, they may lag behind.
    entity: DeviceMatrix,
    relation: DeviceMatrix,
    relation_squares: DeviceMatrix,
    entities: Entities,
    learning_rate: f64,
    n3: N3,
    precision: Precision,
    buffers: Buffers,
    ranker: Ranker,
    mirror: Mirror,
}

/// The matrices of a step; names as in [`kge::train`].
struct Buffers {
    lists: Lists,
    used: DeviceMatrix,
    used_gradient: DeviceMatrix,
    vectors: DeviceMatrix,
    vector_gradient: DeviceMatrix,
    scores: DeviceMatrix,
    relation_gradient: DeviceMatrix,
    /// Of a block of entities, or of all.
    entity_gradient: DeviceMatrix,
    /// N3's parts: of each entity used, then of each relation.
    values: Array<f64>,
}

impl Trainer {
    /// Starts from `initial` parameters, with products that read or write scores in this precision.
    ///
    /// # Errors
    /// If the device's memory does not hold them, or it has another backbone than ComplEx.
    pub fn new(
        gpu: &Gpu,
        initial: Initial<f32>,
        learning_rate: f64,
        n3: N3,
        precision: Precision,
    ) -> Result<Trainer> {
        let Initial { backbone, embedding, relation, .. } = initial;
        require_complex(backbone)?;
        let zeros = |matrix: &Matrix<f32>| DeviceMatrix::zeros(gpu, matrix.rows(), matrix.columns());
        let new = || DeviceMatrix::new(gpu);
        let (entity, entities) = match &embedding {
            Embedding::Table(table) => (DeviceMatrix::of(gpu, table)?, Entities::Free(zeros(table)?)),
            Embedding::Projected { features, projection, scale } => {
                let projected = Projected::new(gpu, features, projection, *scale)?;
                (new(), Entities::Projected(Box::new(projected)))
            }
        };
        let buffers = Buffers {
            lists: Lists::new(gpu),
            used: new(),
            used_gradient: new(),
            vectors: new(),
            vector_gradient: new(),
            scores: DeviceMatrix::padded(gpu),
            relation_gradient: new(),
            entity_gradient: new(),
            values: Array::new(gpu),
        };
        Ok(Trainer {
            gpu: gpu.clone(),
            entity,
            relation_squares: zeros(&relation)?,
            relation: DeviceMatrix::of(gpu, &relation)?,
            entities,
            learning_rate,
            n3,
            precision,
            buffers,
            ranker: Ranker::new(gpu),
            mirror: Mirror::new(),
        })
    }

    /// Bytes of the device's memory that training takes at most: see [`kge::Trainer::memory`] for the shapes.
    pub fn memory(entities: usize, width: usize, pairs: usize, queries: usize, features: usize) -> u64 {
        let used = (queries + pairs).min(entities);
        let scores = entities.next_multiple_of(PADDED);
        let step = queries.max(kge::rank::BLOCK) * (scores + 2 * width) + 2 * used * width;
        let parameters = match features {
            0 => 2 * entities * width + entities.min(BLOCK) * width,
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

    /// One step of Adagrad on the queries numbered `numbers`.
    ///
    /// # Errors
    /// If the loss is no longer finite, or the device fails.
    pub fn step<O: Objective>(
        &mut self,
        queries: &QuerySet,
        numbers: &[u32],
        objective: &mut O,
    ) -> Result<(StepLoss, O::Rows)> {
        let batch = Batch::new(queries, numbers);
        let sent = Sent::of(&mut self.buffers.lists, &batch, queries, numbers)?;
        self.mirror.fresh = false;
        self.score(&batch, &sent)?;
        let scale = 1.0 / batch.pairs as f64;
        let visit = Visit {
            gpu: &self.gpu,
            queries,
            numbers,
            pairs: batch.pairs,
            starts: self.buffers.lists.at(sent.starts, 0),
            tails: self.buffers.lists.at(sent.tails, 0),
        };
        objective.gradient(&visit, &mut self.buffers.scores, scale)?;
        self.differentiate()?;
        self.propagate(&batch, &sent, scale)?;
        self.update(&batch, &sent)?;
        // Everything is under way: only now is it waited for.
        let (loss, rows) = objective.results()?;
        if !loss.is_finite() {
            let hint = "lower the learning rate; the last checkpoint and the best model are kept";
            return Err(Error::new(Kind::Diverged, "the loss is no longer finite").hint(hint));
        }
        let regulariser = match self.n3.weight {
            0.0 => 0.0,
            _ => self.buffers.values.to_vec()?.iter().sum(),
        };
        Ok((StepLoss { objective: loss * scale, regulariser, pairs: batch.pairs }, rows))
    }

    /// Composes the batch's queries and scores all entities.
    fn score(&mut self, batch: &Batch, sent: &Sent) -> Result<()> {
        let queries = batch.queries;
        self.prepare(batch, sent)?;
        let Buffers { lists, used, vectors, scores, .. } = &mut self.buffers;
        vectors.resize(queries, self.relation.columns())?;
        let compose = kernel::Compose {
            heads: used.at(0),
            relations: self.relation.at(0),
            head_of: lists.at(sent.entities.numbers, 0),
            relation_of: lists.at(sent.relation_of, 0),
            vectors: vectors.at(0),
            rank: (self.relation.columns() / 2) as u64,
        };
        self.gpu.launch(queries, &compose)?;
        match &mut self.entities {
            Entities::Projected(projected) if projected.way == Way::Features => {
                projected.score(&self.gpu, self.precision, vectors, scores)
            }
            _ => {
                self.gpu.product(self.precision, false, 1.0, vectors.view(), self.entity.transposed(), scores)
            }
        }
    }

    /// Reads the embeddings of the entities that the batch uses itself.
    fn prepare(&mut self, batch: &Batch, sent: &Sent) -> Result<()> {
        let (count, queries) = (batch.entities.rows().len(), batch.queries);
        if let Entities::Projected(projected) = &mut self.entities {
            projected.choose_way(queries, count);
        }
        let Buffers { lists, used, .. } = &mut self.buffers;
        let rows = lists.at(sent.entities.rows, 0);
        match &mut self.entities {
            Entities::Projected(projected) if projected.way == Way::Features => {
                projected.embed(&self.gpu, (rows, count), used)
            }
            _ => {
                self.write_table()?;
                gather(&self.gpu, &self.entity, rows, count, &mut self.buffers.used)
            }
        }
    }

    /// Brings the table up to date.
    fn write_table(&mut self) -> Result<()> {
        match &mut self.entities {
            Entities::Free(_) => Ok(()),
            Entities::Projected(projected) => projected.write_table(&self.gpu, &mut self.entity),
        }
    }

    /// The gradient of the query vectors, from the scores'.
    fn differentiate(&mut self) -> Result<()> {
        let Buffers { scores, vector_gradient, .. } = &mut self.buffers;
        match &mut self.entities {
            Entities::Projected(projected) if projected.way == Way::Features => {
                projected.differentiate(&self.gpu, self.precision, scores, vector_gradient)
            }
            _ => {
                let (scores, table) = (scores.view(), self.entity.view());
                self.gpu.product(self.precision, false, 1.0, scores, table, vector_gradient)
            }
        }
    }

    /// From query vectors on to heads and relations, and N3 on head, relation and tail of every triple.
    fn propagate(&mut self, batch: &Batch, sent: &Sent, scale: f64) -> Result<()> {
        let Buffers { lists, used, used_gradient, vector_gradient, relation_gradient, values, .. } =
            &mut self.buffers;
        let (entities, relations) = (batch.entities.rows().len(), batch.relations.rows().len());
        let width = self.relation.columns();
        used_gradient.resize(entities, width)?;
        relation_gradient.resize(relations, width)?;
        values.resize(entities + relations)?;
        let of_entities = kernel::Flow {
            vector_gradient: vector_gradient.at(0),
            other: self.relation.at(0),
            own: used.at(0),
            other_of: lists.at(sent.relation_of, 0),
            own_of: lists.at(sent.entities.identity, 0),
            starts: lists.at(sent.entities.starts, 0),
            positions: lists.at(sent.entities.positions, 0),
            pairs: lists.at(sent.entities.pairs, 0),
            gradient: used_gradient.at(0),
            values: values.at(0),
            rank: (width / 2) as u64,
            weight: self.n3.weight * scale,
        };
        self.gpu.launch(entities, &of_entities)?;
        let of_relations = kernel::Flow {
            other: used.at(0),
            own: self.relation.at(0),
            other_of: lists.at(sent.entities.numbers, 0),
            own_of: lists.at(sent.relations.rows, 0),
            starts: lists.at(sent.relations.starts, 0),
            positions: lists.at(sent.relations.positions, 0),
            pairs: lists.at(sent.relations.pairs, 0),
            gradient: relation_gradient.at(0),
            values: values.at(entities),
            ..of_entities
        };
        self.gpu.launch(relations, &of_relations)
    }

    fn update(&mut self, batch: &Batch, sent: &Sent) -> Result<()> {
        let rate = self.learning_rate as f32;
        match &mut self.entities {
            Entities::Free(_) => self.update_table(batch, sent, rate)?,
            Entities::Projected(_) => self.update_projection(batch, sent, rate)?,
        }
        let Buffers { lists, relation_gradient, .. } = &self.buffers;
        let relations = kernel::AdagradRows {
            parameters: self.relation.at(0),
            squares: self.relation_squares.at(0),
            gradient: relation_gradient.at(0),
            rows: lists.at(sent.relations.rows, 0),
            width: self.relation.columns() as u64,
            rate,
        };
        self.gpu.launch(batch.relations.rows().len(), &relations)
    }

    /// `Gᵀ Q + ∂U` of the entities from `first` on, so many of them.
    fn entity_gradient(&mut self, batch: &Batch, sent: &Sent, first: usize, count: usize) -> Result<()> {
        let Buffers { lists, scores, vectors, used_gradient, entity_gradient, .. } = &mut self.buffers;
        let of_block = scores.columns_at(first..first + count).transposed();
        self.gpu.product(self.precision, false, 1.0, of_block, vectors.view(), entity_gradient)?;
        let rows = batch.entities.rows();
        let from = rows.partition_point(|row| (*row as usize) < first);
        let to = rows.partition_point(|row| (*row as usize) < first + count);
        let add = kernel::AddRows {
            gradient: entity_gradient.at(0),
            used: used_gradient.at(from),
            rows: lists.at(sent.entities.rows, from),
            width: entity_gradient.columns() as u64,
            first: first as u64,
        };
        self.gpu.launch(to - from, &add)
    }

    fn update_table(&mut self, batch: &Batch, sent: &Sent, rate: f32) -> Result<()> {
        let (entities, width) = (self.entity.rows(), self.entity.columns());
        for first in (0..entities).step_by(BLOCK) {
            let count = BLOCK.min(entities - first);
            self.entity_gradient(batch, sent, first, count)?;
            let Entities::Free(squares) = &self.entities else { return Ok(()) };
            let adagrad = kernel::Adagrad {
                parameters: self.entity.at(first),
                squares: squares.at(first),
                gradient: self.buffers.entity_gradient.at(0),
                count: (count * width) as u64,
                rate,
            };
            self.gpu.launch_over(count * width, &adagrad)?;
        }
        Ok(())
    }

    fn update_projection(&mut self, batch: &Batch, sent: &Sent, rate: f32) -> Result<()> {
        if let Entities::Projected(projected) = &self.entities
            && projected.way == Way::Entities
        {
            self.entity_gradient(batch, sent, 0, self.entity.rows())?;
        }
        let Entities::Projected(projected) = &mut self.entities else { return Ok(()) };
        let Buffers { vectors, used_gradient, entity_gradient, .. } = &self.buffers;
        match projected.way {
            Way::Entities => projected.update_by_entities(&self.gpu, entity_gradient, rate),
            Way::Features => projected.update_by_features(&self.gpu, vectors, used_gradient, rate),
        }
    }

    /// The ranks of tail and head of each triple by the model as it stands, as [`kge::rank_triples`] has them.
    pub fn rank_triples(
        &mut self,
        triples: &[Triple],
        relations: usize,
        known: &KnownAnswers,
        progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<Vec<[Rank; 2]>> {
        self.write_table()?;
        let judged = measure_blocks(triples, relations, known, progress, |asked| {
            self.score_all(asked)?;
            self.ranker.judge(asked, &self.buffers.scores)
        })?;
        Ok(judged.into_iter().map(|sides| sides.map(|side| side.rank)).collect())
    }

    fn score_all(&mut self, asked: &[Asked<'_>]) -> Result<()> {
        let Buffers { lists, vectors, scores, .. } = &mut self.buffers;
        let queries: Vec<Query> = asked.iter().map(|asked| asked.query).collect();
        compose(&self.gpu, (&self.entity, &self.relation), &queries, lists, vectors)?;
        self.gpu.product(Precision::F32, false, 1.0, vectors.view(), self.entity.transposed(), scores)
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }
}

#[cfg(test)]
mod tests;
