//! A trained model on a device.

use kge::{Backbone, Matrix, Scorer};
use mkg::Query;
use recipe::Precision;
use stage::{Error, Result};
use std::sync::{Mutex, PoisonError};

use crate::Gpu;
use crate::kernel::Compose;
use crate::memory::{Address, DeviceMatrix, Lists, PADDED};

/// A ComplEx model on a device, to be asked.
pub struct Model {
    gpu: Gpu,
    /// `(entity, 2k)`.
    entity: DeviceMatrix,
    /// `(relation and inverse, 2k)`.
    relation: DeviceMatrix,
    buffers: Mutex<Buffers>,
}

/// What one caller after another scores in.
struct Buffers {
    lists: Lists,
    vectors: DeviceMatrix,
    scores: DeviceMatrix,
}

impl Model {
    /// A copy of `model`.
    ///
    /// # Errors
    /// If the device's memory does not hold it, or it has another backbone.
    pub fn new(gpu: &Gpu, model: &kge::Model<f32>) -> Result<Model> {
        require_complex(model.backbone)?;
        let buffers = Buffers {
            lists: Lists::new(gpu),
            vectors: DeviceMatrix::new(gpu),
            scores: DeviceMatrix::padded(gpu),
        };
        Ok(Model {
            gpu: gpu.clone(),
            entity: DeviceMatrix::of(gpu, &model.entity)?,
            relation: DeviceMatrix::of(gpu, &model.relation)?,
            buffers: Mutex::new(buffers),
        })
    }

    /// Bytes that a model of these shapes takes, with the scores of so many queries at a time.
    pub fn memory(entities: usize, relations: usize, width: usize, queries: usize) -> u64 {
        let scores = queries * entities.next_multiple_of(PADDED);
        4 * ((entities + 2 * relations + queries) * width + scores) as u64
    }

    /// `scores = keep · scores + factor ·` this model's `(query, entity)`.
    pub(crate) fn add_scores(
        &self,
        queries: &[Query],
        (keep, factor): (bool, f32),
        scores: &mut DeviceMatrix,
    ) -> Result<()> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let Buffers { lists, vectors, .. } = &mut *buffers;
        self.vectors(queries, lists, vectors)?;
        self.gpu.product(Precision::F32, keep, factor, vectors.view(), self.entity.transposed(), scores)
    }

    /// The scores `(query, entity)`, by products in this precision, to a place with room for rows of such a stride.
    pub(crate) fn write_scores(
        &self,
        queries: &[Query],
        precision: Precision,
        into: (Address, usize),
    ) -> Result<()> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let Buffers { lists, vectors, .. } = &mut *buffers;
        self.vectors(queries, lists, vectors)?;
        self.gpu.product_at(precision, false, 1.0, vectors.view(), self.entity.transposed(), into)
    }

    /// Query vectors `(query, 2k)`, into a matrix it resizes.
    pub(crate) fn write_vectors(&self, queries: &[Query], into: &mut DeviceMatrix) -> Result<()> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        self.vectors(queries, &mut buffers.lists, into)
    }

    /// How many entities it scores.
    pub(crate) fn entities(&self) -> usize {
        self.entity.rows()
    }

    /// Query vectors `(query, 2k)`.
    fn vectors(&self, queries: &[Query], lists: &mut Lists, vectors: &mut DeviceMatrix) -> Result<()> {
        compose(&self.gpu, (&self.entity, &self.relation), queries, lists, vectors)
    }

    /// The scores `(query, entity)`, on the host.
    ///
    /// # Errors
    /// If the device fails.
    pub fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) -> Result<()> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let Buffers { lists, vectors, scores } = &mut *buffers;
        self.vectors(queries, lists, vectors)?;
        self.gpu.product(Precision::F32, false, 1.0, vectors.view(), self.entity.transposed(), scores)?;
        scores.read(into)
    }
}

/// Query vectors `(query, 2k)` from the tables of entities and relations, into a matrix it resizes.
pub(crate) fn compose(
    gpu: &Gpu,
    (entity, relation): (&DeviceMatrix, &DeviceMatrix),
    queries: &[Query],
    lists: &mut Lists,
    vectors: &mut DeviceMatrix,
) -> Result<()> {
    lists.clear();
    let heads = lists.add(queries.iter().map(|query| query.head.0));
    let relations = lists.add(queries.iter().map(|query| query.relation.0));
    lists.send()?;
    vectors.resize(queries.len(), relation.columns())?;
    let arguments = Compose {
        heads: entity.at(0),
        relations: relation.at(0),
        head_of: lists.at(heads, 0),
        relation_of: lists.at(relations, 0),
        vectors: vectors.at(0),
        rank: (relation.columns() / 2) as u64,
    };
    gpu.launch(queries.len(), &arguments)
}

/// Refuses what the kernels do not compose.
pub(crate) fn require_complex(backbone: Backbone) -> Result<()> {
    match backbone {
        Backbone::ComplEx => Ok(()),
        other => {
            Err(Error::usage(format!("a {other} model is not computed on a device"))
                .hint("--device cpu does it"))
        }
    }
}

impl Scorer for Model {
    fn entities(&self) -> usize {
        self.entity.rows()
    }

    /// Scores that are not finite if the device fails: whoever reads them refuses these.
    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) {
        if let Err(error) = Model::scores(self, queries, into) {
            tracing::error!("{error}");
            into.resize(queries.len(), self.entity.rows());
            into.values_mut().fill(f32::NAN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_device::gpu;
    use kge::model::normal;
    use mkg::{EntityId, RelationId};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rayon::prelude::*;

    /// As parts of the soft labels are written: every thread that waits for the device may have another part to do.
    #[test]
    fn many_threads_may_ask_one_model() {
        let (gpu, mut generator) = (gpu(), ChaCha8Rng::seed_from_u64(10));
        let entity = normal(300, 16, 0.5, &mut generator);
        let model = kge::Model::complex(entity, normal(2, 16, 0.5, &mut generator));
        let on_device = Model::new(&gpu, &model).unwrap();
        let query = |head| Query { head: EntityId(head), relation: RelationId(head % 2) };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        pool.install(|| {
            (0..200u32).into_par_iter().for_each(|part| {
                let queries: Vec<Query> = (part..part + 64).map(query).collect();
                let (mut found, mut expected) = (Matrix::zeros(0, 0), Matrix::zeros(0, 0));
                on_device.scores(&queries, &mut found).unwrap();
                Scorer::scores(&model, &queries, &mut expected);
                let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
                assert!(found.values().iter().zip(expected.values()).all(close), "part {part}");
            });
        });
    }
}
