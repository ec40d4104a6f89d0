//! Entity embeddings in training: free, or projected from fixed features. See [`kge::train::Embedding`].

use candle_core::{Device, Result, Tensor};
use kge::Backbone;
use kge::backbone::further_columns;
use kge::train::{Batch, Embedding, Way};
use recipe::Precision;

use crate::host::{Number, failed, list, spread, upload};
use crate::model::{close_entities, product};
use crate::optimiser::AdagradWeight;

/// Entity embeddings with their optimiser.
pub(crate) struct DeviceEntities {
    backbone: Backbone,
    /// Precision of the products that read or write scores.
    precision: Precision,
    /// Embeddings `(entity, 2k)`, or the projection `(f, 2k)`.
    pub(crate) weight: AdagradWeight,
    /// Features `(entity, f)`, if embeddings are projected.
    features: Option<Tensor>,
    /// The model's entity table `(entity, columns)`; `None` if it is out of date.
    table: Option<Tensor>,
    way: Way,
    /// The gradient of projected queries, where the step goes through the features.
    keys: Option<Tensor>,
}

impl DeviceEntities {
    pub(crate) fn new<T: Number>(
        device: &Device,
        (backbone, precision): (Backbone, Precision),
        embedding: &Embedding<T>,
    ) -> stage::Result<Self> {
        let (value, features) = match embedding {
            Embedding::Table(table) => (table, None),
            Embedding::Projected { features, projection } => {
                (projection, Some(upload(device, features).map_err(failed)?))
            }
        };
        let weight = AdagradWeight::new(device, value)?;
        let (table, keys, way) = (None, None, Way::Entities);
        Ok(DeviceEntities { backbone, precision, weight, features, table, way, keys })
    }

    pub(crate) fn is_projected(&self) -> bool {
        self.features.is_some()
    }

    pub(crate) fn count(&self) -> usize {
        self.features.as_ref().unwrap_or(&self.weight.value).dims()[0]
    }

    pub(crate) fn table(&mut self) -> Result<Tensor> {
        if let Some(table) = &self.table {
            return Ok(table.clone());
        }
        let embeddings = match &self.features {
            None => self.weight.value.clone(),
            Some(features) => self.project(features)?,
        };
        Ok(self.table.insert(close_entities(self.backbone, &embeddings)?).clone())
    }

    fn project(&self, rows: &Tensor) -> Result<Tensor> {
        product(Precision::F32, rows, &self.weight.value)
    }

    /// The features, if the step goes through them.
    fn through(&self) -> Option<&Tensor> {
        self.features.as_ref().filter(|_| self.way == Way::Features)
    }

    /// Prepares a step on `batch`; returns the embeddings of the entities in its triples.
    pub(crate) fn prepare(&mut self, batch: &Batch) -> Result<Tensor> {
        let (rows, width) =
            (list(self.weight.value.device(), &batch.entities.rows)?, self.weight.value.dim(1)?);
        if let Some(features) = &self.features {
            let ((entities, columns), used) = (features.dims2()?, batch.entities.rows.len());
            self.way = Way::cheaper(self.backbone, entities, columns, width, batch.queries, used);
        }
        match self.through() {
            Some(features) => self.project(&features.index_select(&rows, 0)?),
            None => self.table()?.index_select(&rows, 0)?.narrow(1, 0, width),
        }
    }

    /// The scores `(query, entity)` of query `vectors`.
    pub(crate) fn score(&mut self, vectors: &Tensor) -> Result<Tensor> {
        let Some(features) = self.through() else {
            return product(self.precision, vectors, &self.table()?.t()?);
        };
        let keys = product(Precision::F32, vectors, &self.weight.value.t()?)?;
        product(self.precision, &keys, &features.t()?)
    }

    pub(crate) fn differentiate(&mut self, scores: &Tensor) -> Result<Tensor> {
        let Some(features) = self.through() else {
            return product(self.precision, scores, &self.table()?);
        };
        let keys = product(self.precision, scores, features)?;
        let vectors = self.project(&keys);
        self.keys = Some(keys);
        vectors
    }

    /// Takes one step of the optimiser, from the gradient of the `scores`, the query `vectors`, and the gradient
    /// `of_used (use, 2k)` of the batch's entity rows.
    pub(crate) fn update(
        &mut self,
        rate: f64,
        rows: &[u32],
        [scores, vectors, of_used]: [&Tensor; 3],
    ) -> Result<()> {
        let keys = self.keys.take();
        let gradient = match (&self.features, keys) {
            (Some(features), Some(keys)) => {
                let rows = features.index_select(&list(keys.device(), rows)?, 0)?;
                let of_scores = product(Precision::F32, &keys.t()?, vectors)?;
                (of_scores + product(Precision::F32, &rows.t()?, of_used)?)?
            }
            (features, _) => {
                let width = self.weight.value.dim(1)?;
                let mut gradient = product(self.precision, &scores.t()?, vectors)?;
                if self.backbone.is_distance() {
                    // The gradient of the norms `-‖t‖²` is folded into the gradient of `t`.
                    let table = self.table.as_ref().expect("the step read the table");
                    let of_norms = (gradient.narrow(1, width, 1)? * 2.0)?;
                    let of_norms = table.narrow(1, 0, width)?.broadcast_mul(&of_norms)?;
                    gradient = (gradient.narrow(1, 0, width)? - of_norms)?;
                }
                let embeddings = (gradient + spread(of_used, rows, self.count())?)?;
                match features {
                    None => embeddings,
                    Some(features) => product(Precision::F32, &features.t()?, &embeddings)?,
                }
            }
        };
        self.table = None;
        self.weight.step(rate, &gradient)
    }

    /// The embeddings' parameters and squares, as a checkpoint stores them. With a distance they include its further
    /// columns, which follow from the other columns.
    pub(crate) fn stored(&mut self) -> Result<[Tensor; 2]> {
        let value = if self.is_projected() { self.widened(&self.weight.value)? } else { self.table()? };
        Ok([value, self.widened(&self.weight.squares)?])
    }

    fn widened(&self, tensor: &Tensor) -> Result<Tensor> {
        tensor.pad_with_zeros(1, 0, further_columns(self.backbone))
    }

    /// Restores the output of [`DeviceEntities::stored`].
    pub(crate) fn take(&mut self, [value, squares]: [Tensor; 2]) -> Result<()> {
        let width = self.weight.value.dim(1)?;
        let (value, squares) = (value.narrow(1, 0, width)?, squares.narrow(1, 0, width)?);
        self.weight = AdagradWeight { value: value.contiguous()?, squares: squares.contiguous()? };
        self.table = None;
        Ok(())
    }
}
