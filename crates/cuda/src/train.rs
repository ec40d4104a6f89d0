//! The 1-vs-all training step on a device: see [`kge::train`] for what it computes, and in which order.

use kge::checkpoint::{Reader, Tensors, require_finite};
use kge::rank::{Asked, measure_blocks};
use kge::train::{Batch, Embedding, Uses, Way};
use kge::{Initial, Matrix, Model, N3, Rank, StepLoss};
use mkg::{KnownAnswers, Query, QuerySet, Triple};
use stage::recipe::Precision;
use stage::{Error, Kind, Result};

use crate::Gpu;
use crate::kernel;
use crate::memory::{Address, Array, DeviceMatrix, List, Lists};
use crate::model::{compose, require_complex};
use crate::rank::Ranker;

/// Entities whose gradient is computed and used at a time: that of the whole table is never there.
const BLOCK: usize = 8192;

/// What rows of scores should become.
pub trait Objective {
    /// What the rows leave behind for the caller.
    type Rows;

    /// Has the device replace the `scores (query, entity)` of a batch by `scale` times the gradient of its loss, summed
    /// over tails.
    fn gradient(&mut self, visit: &Visit<'_>, scores: &mut DeviceMatrix, scale: f64) -> Result<()>;

    /// Waits for the device: the loss, summed over tails and not scaled, and what the rows left.
    fn results(&mut self) -> Result<(f64, Self::Rows)>;
}

/// A batch whose scores an objective visits.
pub struct Visit<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// The training queries.
    pub queries: &'a QuerySet,
    /// The numbers of the batch's.
    pub numbers: &'a [u32],
    /// How many pairs of query and tail.
    pub pairs: usize,
    pub(crate) starts: Address,
    pub(crate) tails: Address,
}

/// Softmax cross-entropy over all entities.
pub struct CrossEntropy {
    losses: Array<f64>,
}

impl CrossEntropy {
    /// With buffers on a device.
    pub fn new(gpu: &Gpu) -> Self {
        CrossEntropy { losses: Array::new(gpu) }
    }
}

impl Objective for CrossEntropy {
    type Rows = ();

    fn gradient(&mut self, visit: &Visit<'_>, scores: &mut DeviceMatrix, scale: f64) -> Result<()> {
        self.losses.resize(visit.numbers.len())?;
        let arguments = kernel::CrossEntropy {
            scores: scores.at(0),
            starts: visit.starts,
            tails: visit.tails,
            losses: self.losses.at(0),
            entities: scores.columns() as u64,
            scale,
        };
        visit.gpu.launch(visit.numbers.len(), &arguments)
    }

    fn results(&mut self) -> Result<(f64, ())> {
        Ok((self.losses.to_vec()?.iter().sum(), ()))
    }
}

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

/// Where entity embeddings come from.
enum Entities {
    /// A free table and its optimiser's squares.
    Free(DeviceMatrix),
    Projected(Box<Projected>),
}

struct Projected {
    features: DeviceMatrix,
    projection: DeviceMatrix,
    squares: DeviceMatrix,
    scale: f64,
    /// Whether the table is older than the projection.
    stale: bool,
    way: Way,
    /// `K (query, f)` or its gradient.
    keys: DeviceMatrix,
    /// Rows of the features that a batch uses.
    used: DeviceMatrix,
    gradient: DeviceMatrix,
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

/// The parameters and squares on the host, as they were last read.
struct Mirror {
    fresh: bool,
    model: Model<f32>,
    projection: Matrix<f32>,
    squares: Matrix<f32>,
    relation_squares: Matrix<f32>,
}

/// The lists of a step.
struct Sent {
    entities: SentUses,
    relations: SentUses,
    relation_of: List,
    starts: List,
    tails: List,
}

/// [`Uses`] on the device.
struct SentUses {
    rows: List,
    /// 0, 1, 2, ..: where a row's own embedding is the row of that number.
    identity: List,
    numbers: List,
    starts: List,
    positions: List,
    pairs: List,
}

impl SentUses {
    fn add(lists: &mut Lists, uses: &Uses) -> SentUses {
        SentUses {
            rows: lists.add(uses.rows().iter().copied()),
            identity: lists.add(0..uses.rows().len() as u32),
            numbers: lists.add(uses.numbers().iter().copied()),
            starts: lists.add(uses.starts().iter().map(|start| *start as u32)),
            positions: lists.add(uses.all_positions().iter().copied()),
            pairs: lists.add(uses.all_pairs().iter().copied()),
        }
    }
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
                let projected = Projected {
                    features: DeviceMatrix::of(gpu, features)?,
                    projection: DeviceMatrix::of(gpu, projection)?,
                    squares: zeros(projection)?,
                    scale: *scale,
                    stale: true,
                    way: Way::Entities,
                    keys: new(),
                    used: new(),
                    gradient: new(),
                };
                (new(), Entities::Projected(Box::new(projected)))
            }
        };
        let buffers = Buffers {
            lists: Lists::new(gpu),
            used: new(),
            used_gradient: new(),
            vectors: new(),
            vector_gradient: new(),
            scores: new(),
            relation_gradient: new(),
            entity_gradient: new(),
            values: Array::new(gpu),
        };
        let empty = || Matrix::zeros(0, 0);
        let mirror = Mirror {
            fresh: false,
            model: Model::complex(empty(), empty()),
            projection: empty(),
            squares: empty(),
            relation_squares: empty(),
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
            mirror,
        })
    }

    /// Bytes of the device's memory that training takes at most: see [`kge::Trainer::memory`] for the shapes.
    pub fn memory(entities: usize, width: usize, pairs: usize, queries: usize, features: usize) -> u64 {
        let used = (queries + pairs).min(entities);
        let step = queries.max(kge::rank::BLOCK) * (entities + 2 * width) + 2 * used * width;
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
        let sent = self.send(&batch, queries, numbers)?;
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

    fn send(&mut self, batch: &Batch, queries: &QuerySet, numbers: &[u32]) -> Result<Sent> {
        let lists = &mut self.buffers.lists;
        lists.clear();
        let tails = |number: &u32| queries.tails(*number as usize);
        let relation = |number: &u32| queries.query(*number as usize).relation.0;
        let sent = Sent {
            entities: SentUses::add(lists, &batch.entities),
            relations: SentUses::add(lists, &batch.relations),
            relation_of: lists.add(numbers.iter().map(relation)),
            starts: lists.add_starts(numbers.iter().map(|number| tails(number).len())),
            tails: lists.add(numbers.iter().flat_map(tails).map(|tail| tail.0)),
        };
        lists.send()?;
        Ok(sent)
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
                let Projected { features, projection, keys, scale, .. } = &mut **projected;
                let (factor, weights) = (1.0 / *scale as f32, projection.transposed());
                self.gpu.product(Precision::F32, false, factor, vectors.view(), weights, keys)?;
                self.gpu.product(self.precision, false, 1.0, keys.view(), features.transposed(), scores)
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
            let Projected { features, projection, .. } = &**projected;
            let (entities, of_features) = (features.rows(), features.columns());
            projected.way = Way::cheaper(entities, of_features, projection.columns(), queries, count);
        }
        let Buffers { lists, used, .. } = &mut self.buffers;
        let rows = lists.at(sent.entities.rows, 0);
        match &mut self.entities {
            Entities::Projected(projected) if projected.way == Way::Features => {
                let Projected { features, projection, used: of_features, scale, .. } = &mut **projected;
                gather(&self.gpu, features, rows, count, of_features)?;
                let factor = 1.0 / *scale as f32;
                self.gpu.product(Precision::F32, false, factor, of_features.view(), projection.view(), used)
            }
            _ => {
                self.write_table()?;
                gather(&self.gpu, &self.entity, rows, count, &mut self.buffers.used)
            }
        }
    }

    /// Brings the table up to date.
    fn write_table(&mut self) -> Result<()> {
        let Entities::Projected(projected) = &mut self.entities else { return Ok(()) };
        if projected.stale {
            let (factor, features) = (1.0 / projected.scale as f32, projected.features.view());
            let projection = projected.projection.view();
            self.gpu.product(Precision::F32, false, factor, features, projection, &mut self.entity)?;
            projected.stale = false;
        }
        Ok(())
    }

    /// The gradient of the query vectors, from the scores'.
    fn differentiate(&mut self) -> Result<()> {
        let Buffers { scores, vector_gradient, .. } = &mut self.buffers;
        match &mut self.entities {
            Entities::Projected(projected) if projected.way == Way::Features => {
                let Projected { features, projection, keys, scale, .. } = &mut **projected;
                self.gpu.product(self.precision, false, 1.0, scores.view(), features.view(), keys)?;
                let factor = 1.0 / *scale as f32;
                let (keys, weights) = (keys.view(), projection.view());
                self.gpu.product(Precision::F32, false, factor, keys, weights, vector_gradient)
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
        let way = projected.way;
        let Projected { features, projection, squares, scale, keys, used, gradient, .. } = &mut **projected;
        let Buffers { vectors, used_gradient, entity_gradient, .. } = &self.buffers;
        let (gpu, factor, full) = (&self.gpu, 1.0 / *scale as f32, Precision::F32);
        match way {
            Way::Entities => {
                gpu.product(full, false, factor, features.transposed(), entity_gradient.view(), gradient)?;
            }
            Way::Features => {
                gpu.product(full, false, factor, keys.transposed(), vectors.view(), gradient)?;
                gpu.product(full, true, factor, used.transposed(), used_gradient.view(), gradient)?;
            }
        }
        let count = projection.rows() * projection.columns();
        let adagrad = kernel::Adagrad {
            parameters: projection.at(0),
            squares: squares.at(0),
            gradient: gradient.at(0),
            count: count as u64,
            rate,
        };
        projected.stale = true;
        gpu.launch_over(count, &adagrad)
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

    /// Reads parameters and squares, unless they were read since the last step.
    fn read(&mut self) -> Result<()> {
        if self.mirror.fresh {
            return Ok(());
        }
        self.write_table()?;
        self.entity.read(&mut self.mirror.model.entity)?;
        self.relation.read(&mut self.mirror.model.relation)?;
        self.relation_squares.read(&mut self.mirror.relation_squares)?;
        match &self.entities {
            Entities::Free(squares) => squares.read(&mut self.mirror.squares)?,
            Entities::Projected(projected) => {
                projected.projection.read(&mut self.mirror.projection)?;
                projected.squares.read(&mut self.mirror.squares)?;
            }
        }
        self.mirror.fresh = true;
        Ok(())
    }

    /// The model as it stands, and the trained projection, if there is one.
    pub fn parts(&mut self) -> Result<(&Model<f32>, Option<&Matrix<f32>>)> {
        self.read()?;
        let projected = matches!(self.entities, Entities::Projected(_));
        Ok((&self.mirror.model, projected.then_some(&self.mirror.projection)))
    }

    /// Everything needed to go on, here or on the CPU: as [`kge::Trainer::state`].
    pub fn state(&mut self) -> Result<Tensors<'_>> {
        self.read()?;
        let Mirror { model, projection, squares, relation_squares, .. } = &self.mirror;
        let parameters = match &self.entities {
            Entities::Free(_) => &model.entity,
            Entities::Projected(_) => projection,
        };
        Ok(Tensors::default()
            .matrix("parameters", parameters)
            .matrix("relation", &model.relation)
            .matrix("parameters_squares", squares)
            .matrix("relation_squares", relation_squares))
    }

    /// Takes up a state saved under `prefix.`, by either device.
    pub fn restore(&mut self, reader: &Reader, prefix: &str) -> Result<()> {
        self.mirror.fresh = false;
        let load = |name: &str, into: &mut DeviceMatrix| {
            let mut matrix = Matrix::zeros(into.rows(), into.columns());
            reader.load(&format!("{prefix}.{name}"), &mut matrix)?;
            into.write(&matrix)
        };
        let (parameters, squares) = match &mut self.entities {
            Entities::Free(squares) => (&mut self.entity, squares),
            Entities::Projected(projected) => {
                projected.stale = true;
                (&mut projected.projection, &mut projected.squares)
            }
        };
        load("parameters", parameters)?;
        load("relation", &mut self.relation)?;
        load("parameters_squares", squares)?;
        load("relation_squares", &mut self.relation_squares)
    }

    /// Refuses parameters that are no longer finite.
    pub fn require_finite(&mut self) -> Result<()> {
        let (model, _) = self.parts()?;
        require_finite("entity", &model.entity)?;
        require_finite("relation", &model.relation)
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }
}

/// The `count` rows of `from` whose numbers lie at `rows`, into a matrix it resizes.
fn gather(
    gpu: &Gpu,
    from: &DeviceMatrix,
    rows: Address,
    count: usize,
    into: &mut DeviceMatrix,
) -> Result<()> {
    into.resize(count, from.columns())?;
    let arguments =
        kernel::Gather { table: from.at(0), rows, into: into.at(0), width: from.columns() as u64 };
    gpu.launch(count, &arguments)
}

#[cfg(test)]
mod tests;
