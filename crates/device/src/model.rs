//! Query vectors and scores: the equations of [`kge::backbone`] as tensors.

use candle_core::{Device, Result, Tensor};
use kge::backbone::further_columns;
use kge::{Backbone, Matrix, Model, Scorer};
use mkg::Query;
use recipe::Precision;

use crate::host::{Number, bytes, failed, list, read_matrix, upload};

/// A trained model on a device.
#[derive(Clone, Debug)]
pub struct DeviceModel {
    pub(crate) backbone: Backbone,
    /// The tables of [`Model`].
    pub(crate) entity: Tensor,
    pub(crate) relation: Tensor,
    pub(crate) core: Option<Tensor>,
}

impl DeviceModel {
    /// A copy of `model`.
    pub fn new<T: Number>(device: &Device, model: &Model<T>) -> stage::Result<DeviceModel> {
        let upload = |table| upload(device, table).map_err(failed);
        Ok(DeviceModel {
            backbone: model.backbone,
            entity: upload(&model.entity)?,
            relation: upload(&model.relation)?,
            core: (model.backbone == Backbone::TuckER).then(|| upload(&model.core)).transpose()?,
        })
    }

    /// Bytes of the device's memory for a model, and for `queries` queries with their scores.
    pub fn memory(model: &Model<f32>, queries: usize) -> u64 {
        let Model { entity, relation, core, .. } = model;
        let parameters: usize = [entity, relation, core].iter().map(|matrix| matrix.values().len()).sum();
        bytes(&[parameters]) + bytes(&[queries, 2 * entity.rows() + 3 * model.width() + core.rows()])
    }

    /// The query vectors `(query, columns)`.
    pub(crate) fn vectors(&self, queries: &[Query]) -> Result<Tensor> {
        let device = self.entity.device();
        let heads: Vec<u32> = queries.iter().map(|query| query.head.0).collect();
        let relations: Vec<u32> = queries.iter().map(|query| query.relation.0).collect();
        let heads = self.entity.index_select(&list(device, &heads)?, 0)?;
        let heads = heads.narrow(1, 0, heads.dim(1)? - further_columns(self.backbone))?;
        let relations = self.relation.index_select(&list(device, &relations)?, 0)?;
        compose(self.backbone, &heads, &relations, self.core.as_ref())
    }

    /// The scores `(query, entity)`.
    pub(crate) fn scores(&self, precision: Precision, queries: &[Query]) -> Result<Tensor> {
        product(precision, &self.vectors(queries)?, &self.entity.t()?)
    }
}

impl Scorer for DeviceModel {
    fn entities(&self) -> usize {
        self.entity.dims()[0]
    }

    /// Writes scores that are not finite if the device fails: readers refuse such scores.
    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) {
        match DeviceModel::scores(self, Precision::F32, queries).and_then(|scores| read_matrix(&scores)) {
            Ok(scores) => *into = scores,
            Err(error) => {
                tracing::error!("{}", failed(error));
                into.resize(queries.len(), Scorer::entities(self));
                into.values_mut().fill(f32::NAN);
            }
        }
    }
}

/// Query vectors `(query, columns)` of heads `(query, 2k)` and relations; candle can differentiate them.
pub(crate) fn compose(
    backbone: Backbone,
    heads: &Tensor,
    relations: &Tensor,
    core: Option<&Tensor>,
) -> Result<Tensor> {
    match (backbone, core) {
        (Backbone::ComplEx, _) => complex_product(heads, relations),
        (Backbone::DistMult, _) => heads * relations,
        (Backbone::TransE, _) => close_queries(&(heads + relations)?),
        (Backbone::RotatE, _) => {
            let rotations = Tensor::cat(&[relations.cos()?, relations.sin()?], 1)?;
            close_queries(&complex_product(heads, &rotations)?)
        }
        (Backbone::TuckER, Some(core)) => {
            let outer = relations.unsqueeze(2)?.broadcast_mul(&heads.unsqueeze(1)?)?;
            product(Precision::F32, &outer.reshape((heads.dim(0)?, ()))?, core)
        }
        (Backbone::TuckER, None) => candle_core::bail!("TuckER has a core"),
    }
}

/// `a ∘ b` of complex numbers `[re | im]`, row by row.
fn complex_product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let rank = a.dim(1)? / 2;
    let (a_re, a_im) = (a.narrow(1, 0, rank)?, a.narrow(1, rank, rank)?);
    let (b_re, b_im) = (b.narrow(1, 0, rank)?, b.narrow(1, rank, rank)?);
    let re = ((&a_re * &b_re)? - (&a_im * &b_im)?)?;
    let im = ((a_re * b_im)? + (a_im * b_re)?)?;
    Tensor::cat(&[re, im], 1)
}

/// Rows `q` as query vectors of a squared distance, `[2q | 1, -‖q‖²]`: see [`kge::backbone::distance`].
fn close_queries(q: &Tensor) -> Result<Tensor> {
    let one = Tensor::ones((q.dim(0)?, 1), q.dtype(), q.device())?;
    Tensor::cat(&[(q * 2.0)?, one, q.sqr()?.sum_keepdim(1)?.neg()?], 1)
}

/// Embeddings as rows of the model's entity table: `[t | -‖t‖², 1]` for a squared distance.
pub(crate) fn close_entities(backbone: Backbone, embeddings: &Tensor) -> Result<Tensor> {
    if !backbone.is_distance() {
        return Ok(embeddings.clone());
    }
    let one = Tensor::ones((embeddings.dim(0)?, 1), embeddings.dtype(), embeddings.device())?;
    Tensor::cat(&[embeddings, &embeddings.sqr()?.sum_keepdim(1)?.neg()?, &one], 1)
}

/// The product `a · b` in a precision: `tf32` uses CUDA's tensor cores, and is `f32` elsewhere; `bf16` rounds both
/// factors and sums in `f32`, on CUDA with the same cores, which represent such factors exactly.
pub(crate) fn product(precision: Precision, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = match precision {
        Precision::F32 | Precision::Tf32 => (a.clone(), b.clone()),
        Precision::Bf16 => (rounded(a)?, rounded(b)?),
    };
    // The switch is global, but only one thread gives a device work. `backward` must find full precision.
    candle_core::cuda::set_gemm_reduced_precision_f32(precision != Precision::F32);
    let product = a.matmul(&b);
    candle_core::cuda::set_gemm_reduced_precision_f32(false);
    product
}

fn rounded(tensor: &Tensor) -> Result<Tensor> {
    tensor.to_dtype(candle_core::DType::BF16)?.to_dtype(tensor.dtype())
}
