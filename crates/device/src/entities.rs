//! Entity embeddings in training: free, or projected from fixed features. See [`kge::train::Embedding`] for both ways.

use candle_core::{Device, Result, Tensor};
use kge::Backbone;
use kge::train::{Batch, Embedding, Way};
use recipe::Precision;

use crate::host::{Number, failed, list, spread, upload};
use crate::model::{close_entities, product};
use crate::optimiser::AdagradWeight;

/// Entity embeddings with their optimiser.
pub(crate) struct DeviceEntities {
    backbone: Backbone,
    /// Embeddings `(entity, 2k)`, or the projection `(f, 2k)`.
    pub(crate) weight: AdagradWeight,
    features: Option<FeatureTensors>,
    /// The table `(entity, columns)` as it scores, unless it is out of date.
    table: Option<Tensor>,
}

struct FeatureTensors {
    /// `(entity, f)`.
    rows: Tensor,
    /// Divides the product with the projection.
    scale: f64,
}

/// Gradients that flow into the embeddings in a step.
pub(crate) struct Upstream<'a> {
    /// The gradient of the scores `(query, entity)`.
    pub(crate) scores: &'a Tensor,
    /// The query vectors.
    pub(crate) vectors: &'a Tensor,
    /// The gradient of projected queries, where the step goes through the features.
    pub(crate) keys: Option<Tensor>,
    /// The gradient of the embeddings that the batch uses itself `(use, 2k)`.
    pub(crate) used: Tensor,
}

impl DeviceEntities {
    pub(crate) fn new<T: Number>(
        device: &Device,
        backbone: Backbone,
        embedding: &Embedding<T>,
    ) -> stage::Result<Self> {
        let (value, features) = match embedding {
            Embedding::Table(table) => (table, None),
            Embedding::Projected { features, projection, scale } => {
                let rows = upload(device, features).map_err(failed)?;
                (projection, Some(FeatureTensors { rows, scale: *scale }))
            }
        };
        let weight = AdagradWeight::new(device, value)?;
        Ok(DeviceEntities { backbone, weight, features, table: None })
    }

    pub(crate) fn is_projected(&self) -> bool {
        self.features.is_some()
    }

    /// Number of entities.
    pub(crate) fn count(&self) -> usize {
        self.features.as_ref().map_or(&self.weight.value, |features| &features.rows).dims()[0]
    }

    /// The matrices that a step on `batch` multiplies.
    pub(crate) fn way(&self, batch: &Batch) -> Way {
        let Some(features) = &self.features else { return Way::Entities };
        let (columns, width) = (features.rows.dims()[1], self.weight.value.dims()[1]);
        let (queries, used) = (batch.queries, batch.entities.rows.len());
        Way::cheaper(self.backbone.is_distance(), self.count(), columns, width, queries, used)
    }

    /// The table as it scores.
    pub(crate) fn table(&mut self) -> Result<Tensor> {
        if let Some(table) = &self.table {
            return Ok(table.clone());
        }
        let embeddings = match &self.features {
            None => self.weight.value.clone(),
            Some(features) => self.project(&features.rows, features.scale)?,
        };
        Ok(self.table.insert(close_entities(self.backbone, &embeddings)?).clone())
    }

    fn project(&self, features: &Tensor, scale: f64) -> Result<Tensor> {
        product(Precision::F32, features, &self.weight.value)? / scale
    }

    /// The embeddings of the entities in `rows`.
    pub(crate) fn rows(&mut self, way: Way, rows: &[u32]) -> Result<Tensor> {
        let rows = list(self.weight.value.device(), rows)?;
        match (&self.features, way) {
            (Some(features), Way::Features) => {
                self.project(&features.rows.index_select(&rows, 0)?, features.scale)
            }
            _ => {
                let width = self.weight.value.dim(1)?;
                self.table()?.index_select(&rows, 0)?.narrow(1, 0, width)
            }
        }
    }

    /// Scores `(query, entity)` of query `vectors`.
    pub(crate) fn score(&mut self, way: Way, precision: Precision, vectors: &Tensor) -> Result<Tensor> {
        match (&self.features, way) {
            (Some(features), Way::Features) => {
                let keys = (product(Precision::F32, vectors, &self.weight.value.t()?)? / features.scale)?;
                product(precision, &keys, &features.rows.t()?)
            }
            _ => product(precision, vectors, &self.table()?.t()?),
        }
    }

    /// The gradient of the query vectors, and of the projected queries if the way goes through the features.
    pub(crate) fn differentiate(
        &mut self,
        way: Way,
        precision: Precision,
        scores: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>)> {
        match (&self.features, way) {
            (Some(features), Way::Features) => {
                let keys = product(precision, scores, &features.rows)?;
                let vectors = (product(Precision::F32, &keys, &self.weight.value)? / features.scale)?;
                Ok((vectors, Some(keys)))
            }
            _ => Ok((product(precision, scores, &self.table()?)?, None)),
        }
    }

    /// One step of the optimiser; `used` are the rows that the batch uses itself.
    pub(crate) fn update(
        &mut self,
        rate: f64,
        precision: Precision,
        used: &[u32],
        upstream: &Upstream<'_>,
    ) -> Result<()> {
        let gradient = match (&self.features, &upstream.keys) {
            (Some(features), Some(keys)) => {
                let rows = features.rows.index_select(&list(keys.device(), used)?, 0)?;
                let of_scores = product(Precision::F32, &keys.t()?, upstream.vectors)?;
                let of_used = product(Precision::F32, &rows.t()?, &upstream.used)?;
                ((of_scores + of_used)? / features.scale)?
            }
            (features, _) => {
                let width = self.weight.value.dim(1)?;
                let mut gradient = product(precision, &upstream.scores.t()?, upstream.vectors)?;
                if self.backbone.is_distance() {
                    // Norms `-‖t‖²` are folded into `t`.
                    let table = self.table.as_ref().expect("the step read the table");
                    let of_norms = (gradient.narrow(1, width, 1)? * 2.0)?;
                    let of_norms = table.narrow(1, 0, width)?.broadcast_mul(&of_norms)?;
                    gradient = (gradient.narrow(1, 0, width)? - of_norms)?;
                }
                let embeddings = (gradient + spread(&upstream.used, used, self.count())?)?;
                match features {
                    None => embeddings,
                    Some(features) => {
                        (product(Precision::F32, &features.rows.t()?, &embeddings)? / features.scale)?
                    }
                }
            }
        };
        self.table = None;
        self.weight.step(rate, &gradient)
    }

    /// The embeddings' parameters and squares as a checkpoint has them: with a distance they have its further columns, which
    /// follow from the others.
    pub(crate) fn stored(&mut self) -> Result<[Tensor; 2]> {
        let value = if self.is_projected() { self.widened(&self.weight.value)? } else { self.table()? };
        Ok([value, self.widened(&self.weight.squares)?])
    }

    fn widened(&self, tensor: &Tensor) -> Result<Tensor> {
        if self.backbone.is_distance() {
            return tensor.pad_with_zeros(1, 0, kge::backbone::distance::COLUMNS);
        }
        Ok(tensor.clone())
    }

    /// Takes what [`DeviceEntities::stored`] gave.
    pub(crate) fn take(&mut self, [value, squares]: [Tensor; 2]) -> Result<()> {
        let width = self.weight.value.dim(1)?;
        let (value, squares) = (value.narrow(1, 0, width)?, squares.narrow(1, 0, width)?);
        self.weight = AdagradWeight { value: value.contiguous()?, squares: squares.contiguous()? };
        self.table = None;
        Ok(())
    }
}
