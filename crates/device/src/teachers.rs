//! The teachers' scores of a batch: computed from their models, or copied from a cache of half-precision numbers.

use candle_core::{DType, Device, Result, Tensor};
use half::f16;
use kge::matrix::index;
use mkg::{Query, QuerySet};
use rayon::prelude::*;
use recipe::Precision;

use crate::host::Number;
use crate::model::{DeviceModel, product};

/// A function from a training query and a teacher to their numbers in half precision.
pub type TeacherRows<'a> = Box<dyn Fn(usize, usize) -> &'a [f16] + Sync + 'a>;

/// The source of the teachers' scores.
pub enum TeacherSource<'a> {
    /// The teachers' models: scores are computed for every batch.
    Models(Vec<DeviceModel>),
    /// A cache of training queries.
    Cache {
        /// Number of teachers.
        teachers: usize,
        /// The scores of all entities.
        scores: TeacherRows<'a>,
        /// The query vectors.
        vectors: TeacherRows<'a>,
    },
}

/// The teachers' scores of the last batch. The policy asks for them before a step, the student in the step.
pub struct DeviceTeachers<'a> {
    device: Device,
    kind: DType,
    precision: Precision,
    source: TeacherSource<'a>,
    batch: Vec<u32>,
    /// Scores of each teacher `(query, entity)`.
    scores: Vec<Tensor>,
}

impl<'a> DeviceTeachers<'a> {
    /// Makes teachers with scores from `source` as numbers of type `T`; models compute products in this `precision`.
    pub fn new<T: Number>(device: &Device, precision: Precision, source: TeacherSource<'a>) -> Self {
        let (device, kind) = (device.clone(), T::DTYPE);
        DeviceTeachers { device, kind, precision, source, batch: Vec::new(), scores: Vec::new() }
    }

    /// Each teacher's scores `(query, entity)` of the queries numbered `batch`.
    pub(crate) fn scores(&mut self, queries: &QuerySet, batch: &[u32]) -> Result<&[Tensor]> {
        if self.batch != batch {
            self.scores.clear();
            self.scores = match &self.source {
                TeacherSource::Models(models) => {
                    let vectors = self.vectors(queries, batch)?;
                    let scores = models
                        .iter()
                        .zip(vectors)
                        .map(|(model, vectors)| product(self.precision, &vectors, &model.entity.t()?));
                    scores.collect::<Result<_>>()?
                }
                TeacherSource::Cache { teachers, scores, .. } => self.copies(*teachers, batch, scores)?,
            };
            self.batch = batch.to_vec();
        }
        Ok(&self.scores)
    }

    /// Each teacher's query vectors `(query, columns)`.
    pub(crate) fn vectors(&self, queries: &QuerySet, batch: &[u32]) -> Result<Vec<Tensor>> {
        match &self.source {
            TeacherSource::Models(models) => {
                let asked: Vec<Query> = batch.iter().map(|query| queries.query(index(*query))).collect();
                models.iter().map(|model| model.vectors(&asked)).collect()
            }
            TeacherSource::Cache { teachers, vectors, .. } => self.copies(*teachers, batch, vectors),
        }
    }

    fn copies(&self, teachers: usize, batch: &[u32], rows: &TeacherRows<'_>) -> Result<Vec<Tensor>> {
        let copies = (0..teachers).map(|teacher| {
            let width = batch.first().map_or(0, |query| rows(index(*query), teacher).len());
            let mut halves = vec![f16::ZERO; batch.len() * width];
            let into = halves.par_chunks_exact_mut(width.max(1)).zip(batch);
            into.for_each(|(into, query)| into.copy_from_slice(rows(index(*query), teacher)));
            Tensor::from_vec(halves, (batch.len(), width), &self.device)?.to_dtype(self.kind)
        });
        copies.collect()
    }
}
