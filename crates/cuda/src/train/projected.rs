//! Entities whose embeddings are projected from features: see [`kge::train`] for the two ways.

use kge::Matrix;
use kge::train::Way;
use recipe::Precision;
use stage::Result;

use crate::Gpu;
use crate::kernel;
use crate::memory::{Address, DeviceMatrix, gather};

/// Where entity embeddings come from.
pub(super) enum Entities {
    /// A free table and its optimiser's squares.
    Free(DeviceMatrix),
    Projected(Box<Projected>),
}

pub(super) struct Projected {
    features: DeviceMatrix,
    pub(super) projection: DeviceMatrix,
    pub(super) squares: DeviceMatrix,
    scale: f64,
    /// Whether the table is older than the projection.
    pub(super) stale: bool,
    pub(super) way: Way,
    /// `K (query, f)` or its gradient.
    keys: DeviceMatrix,
    /// Rows of the features that a batch uses.
    used: DeviceMatrix,
    gradient: DeviceMatrix,
}

impl Projected {
    pub(super) fn new(
        gpu: &Gpu,
        features: &Matrix<f32>,
        projection: &Matrix<f32>,
        scale: f64,
    ) -> Result<Self> {
        let new = || DeviceMatrix::new(gpu);
        Ok(Projected {
            features: DeviceMatrix::of(gpu, features)?,
            squares: DeviceMatrix::zeros(gpu, projection.rows(), projection.columns())?,
            projection: DeviceMatrix::of(gpu, projection)?,
            scale,
            stale: true,
            way: Way::Entities,
            keys: new(),
            used: new(),
            gradient: new(),
        })
    }

    fn factor(&self) -> f32 {
        1.0 / self.scale as f32
    }

    /// Takes the cheaper way for so many queries, which use so many entities themselves.
    pub(super) fn choose_way(&mut self, queries: usize, used: usize) {
        let (entities, of_features) = (self.features.rows(), self.features.columns());
        self.way = Way::cheaper(entities, of_features, self.projection.columns(), queries, used);
    }

    /// Brings the `table` of entities up to date.
    pub(super) fn write_table(&mut self, gpu: &Gpu, table: &mut DeviceMatrix) -> Result<()> {
        if self.stale {
            let (features, projection) = (self.features.view(), self.projection.view());
            gpu.product(Precision::F32, false, self.factor(), features, projection, table)?;
            self.stale = false;
        }
        Ok(())
    }

    /// The embeddings of the `count` entities whose numbers lie at `rows`, without the table.
    pub(super) fn embed(
        &mut self,
        gpu: &Gpu,
        (rows, count): (Address, usize),
        into: &mut DeviceMatrix,
    ) -> Result<()> {
        gather(gpu, &self.features, rows, count, &mut self.used)?;
        let (used, projection) = (self.used.view(), self.projection.view());
        gpu.product(Precision::F32, false, self.factor(), used, projection, into)
    }

    /// Scores all entities through the features.
    pub(super) fn score(
        &mut self,
        gpu: &Gpu,
        precision: Precision,
        vectors: &DeviceMatrix,
        scores: &mut DeviceMatrix,
    ) -> Result<()> {
        let (factor, weights) = (self.factor(), self.projection.transposed());
        gpu.product(Precision::F32, false, factor, vectors.view(), weights, &mut self.keys)?;
        gpu.product(precision, false, 1.0, self.keys.view(), self.features.transposed(), scores)
    }

    /// The gradient of the query vectors, from the scores', through the features.
    pub(super) fn differentiate(
        &mut self,
        gpu: &Gpu,
        precision: Precision,
        scores: &DeviceMatrix,
        vector_gradient: &mut DeviceMatrix,
    ) -> Result<()> {
        gpu.product(precision, false, 1.0, scores.view(), self.features.view(), &mut self.keys)?;
        let (keys, weights) = (self.keys.view(), self.projection.view());
        gpu.product(Precision::F32, false, self.factor(), keys, weights, vector_gradient)
    }

    /// A step of the projection, from the gradient of all entities.
    pub(super) fn update_by_entities(&mut self, gpu: &Gpu, gradient: &DeviceMatrix, rate: f32) -> Result<()> {
        let (factor, features) = (self.factor(), self.features.transposed());
        gpu.product(Precision::F32, false, factor, features, gradient.view(), &mut self.gradient)?;
        self.update(gpu, rate)
    }

    /// A step of the projection through the features, from the query vectors and the gradient of the entities used.
    pub(super) fn update_by_features(
        &mut self,
        gpu: &Gpu,
        vectors: &DeviceMatrix,
        used_gradient: &DeviceMatrix,
        rate: f32,
    ) -> Result<()> {
        let (factor, full) = (self.factor(), Precision::F32);
        let Projected { keys, used, gradient, .. } = self;
        gpu.product(full, false, factor, keys.transposed(), vectors.view(), gradient)?;
        gpu.product(full, true, factor, used.transposed(), used_gradient.view(), gradient)?;
        self.update(gpu, rate)
    }

    fn update(&mut self, gpu: &Gpu, rate: f32) -> Result<()> {
        let count = self.projection.rows() * self.projection.columns();
        let adagrad = kernel::Adagrad {
            parameters: self.projection.at(0),
            squares: self.squares.at(0),
            gradient: self.gradient.at(0),
            count: count as u64,
            rate,
        };
        self.stale = true;
        gpu.launch_over(count, &adagrad)
    }
}
