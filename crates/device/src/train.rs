//! The 1-vs-all training step of [`kge::train`], on a device.

use candle_core::{Device, Result, Tensor, Var};
use kge::checkpoint::{NamedTensors, TensorReader, diverged};
use kge::train::{Batch, Uses};
use kge::{Backbone, Initial, Matrix, Model, N3, Shape, StepLoss};
use mkg::QuerySet;
use recipe::Precision;

use crate::entities::DeviceEntities;
use crate::host::{Number, bytes, failed, list, read_matrix, read_numbers, spread, upload, wide};
use crate::model::{DeviceModel, compose};
use crate::objective::{BatchObjective, BatchTails};
use crate::optimiser::AdagradWeight;

/// A model in training on a device.
pub struct DeviceTrainer<T> {
    device: Device,
    backbone: Backbone,
    pub(crate) entities: DeviceEntities,
    relation: AdagradWeight,
    core: Option<AdagradWeight>,
    learning_rate: f64,
    n3: N3,
    /// The parameters that the host has read last.
    mirror: Mirror<T>,
}

struct Mirror<T> {
    model: Model<T>,
    projection: Option<Matrix<T>>,
    /// Squares of the embeddings' parameters, relations and core, from the last [`DeviceTrainer::state`].
    squares: [Matrix<T>; 3],
    is_fresh: bool,
}

impl<T: Number> DeviceTrainer<T> {
    /// Makes a trainer from `initial` parameters; products that read or write scores have this precision.
    pub fn new(
        device: &Device,
        initial: &Initial<T>,
        learning_rate: f64,
        n3: N3,
        precision: Precision,
    ) -> stage::Result<Self> {
        let Initial { backbone, embedding, relation, core } = initial;
        let core = (*backbone == Backbone::TuckER).then(|| AdagradWeight::new(device, core)).transpose()?;
        let model = Model { backbone: *backbone, ..Model::complex(Matrix::default(), Matrix::default()) };
        Ok(DeviceTrainer {
            device: device.clone(),
            backbone: *backbone,
            entities: DeviceEntities::new(device, (*backbone, precision), embedding)?,
            relation: AdagradWeight::new(device, relation)?,
            core,
            learning_rate,
            n3,
            mirror: Mirror { model, projection: None, squares: Default::default(), is_fresh: false },
        })
    }

    /// Takes one Adagrad step on the queries numbered `numbers`; an error if the loss is no longer finite.
    pub fn step<O: BatchObjective>(
        &mut self,
        queries: &QuerySet,
        numbers: &[u32],
        objective: &mut O,
    ) -> stage::Result<(StepLoss, O::Left)> {
        let batch = Batch::new(queries, numbers);
        self.mirror.is_fresh = false;
        let losses = self.advance(&batch, queries, numbers, objective).map_err(failed)?;
        // The device has the whole step by now, so waiting starts only here.
        let losses = read_numbers(&losses).map_err(failed)?;
        if !losses[0].is_finite() {
            return Err(diverged("the loss"));
        }
        let (objective, left) = (losses[0] * batch.scale(), objective.left().map_err(failed)?);
        Ok((StepLoss { objective, regulariser: losses[1], pairs: batch.pairs }, left))
    }

    /// Takes the step; returns the objective's loss, summed over the batch, and the regulariser's loss.
    fn advance<O: BatchObjective>(
        &mut self,
        batch: &Batch,
        queries: &QuerySet,
        numbers: &[u32],
        objective: &mut O,
    ) -> Result<Tensor> {
        let used = Var::from_tensor(&self.entities.prepare(batch)?)?;
        let relation_rows = list(&self.device, &batch.relations.rows)?;
        let relation = Var::from_tensor(&self.relation.value.index_select(&relation_rows, 0)?)?;
        let core = self.core.as_ref().map(|core| Var::from_tensor(&core.value)).transpose()?;
        let heads = used.index_select(&list(&self.device, &batch.entities.numbers)?, 0)?;
        let relations = relation.index_select(&list(&self.device, &batch.relations.numbers)?, 0)?;
        let composed = compose(self.backbone, &heads, &relations, core.as_deref())?;
        let vectors = composed.detach();

        let scores = self.entities.score(&vectors)?;
        let tails = BatchTails::new(&self.device, queries, numbers)?;
        let gradient = objective.gradient(&tails, &scores, batch.scale())?;
        drop(scores);
        let of_vectors = self.entities.differentiate(&gradient.scores)?;

        let (cubes, regulariser) = self.regularise(&used, &relation, batch)?;
        let flow = ((composed * of_vectors)?.sum_all()? + cubes)?.backward()?;
        let of = |var: &Var| flow.get(var).cloned().map_or_else(|| var.zeros_like(), Ok);
        let upstream = [&gradient.scores, &vectors, &of(&used)?];
        self.entities.update(self.learning_rate, &batch.entities.rows, upstream)?;
        let count = self.relation.value.dim(0)?;
        let of_relations = spread(&of(&relation)?, &batch.relations.rows, count)?;
        self.relation.step(self.learning_rate, &of_relations)?;
        if let (Some(weight), Some(core)) = (&mut self.core, &core) {
            weight.step(self.learning_rate, &of(core)?)?;
        }
        Tensor::cat(&[gradient.losses.sum_all()?.reshape(1)?, regulariser.reshape(1)?], 0)
    }

    /// N3 on the head, relation and tail of every triple: a number whose gradient is N3's gradient, and N3's value. The
    /// number treats `|x|` as constant, since the root has no derivative at 0: `∂(3/2 |x| x²) = 3 |x| x`.
    fn regularise(&self, used: &Tensor, relation: &Tensor, batch: &Batch) -> Result<(Tensor, Tensor)> {
        let scale = self.n3.weight / batch.pairs as f64;
        let mut sum = self.cubes(used, &batch.entities, scale)?;
        if self.backbone != Backbone::RotatE {
            sum = (sum + self.cubes(relation, &batch.relations, scale)?)?;
        }
        Ok(((&sum * 1.5)?, sum.detach().to_dtype(wide(&self.device))?))
    }

    /// `Σ |x| x²` of each row, times its pairs and `scale`, over complex moduli or reals; `|x|` is treated as constant.
    fn cubes(&self, rows: &Tensor, uses: &Uses, scale: f64) -> Result<Tensor> {
        let squares = match self.backbone {
            Backbone::ComplEx | Backbone::RotatE => {
                let rank = rows.dim(1)? / 2;
                (rows.narrow(1, 0, rank)?.sqr()? + rows.narrow(1, rank, rank)?.sqr()?)?
            }
            Backbone::DistMult | Backbone::TransE | Backbone::TuckER => rows.sqr()?,
        };
        let pairs = Tensor::from_slice(&uses.pairs, (uses.pairs.len(), 1), &self.device)?;
        let cubes = (&squares * squares.detach().sqrt()?)?.sum_keepdim(1)?;
        (cubes * (pairs.to_dtype(rows.dtype())? * scale)?)?.sum_all()
    }

    /// The current model, on the device.
    pub fn model(&mut self) -> stage::Result<DeviceModel> {
        Ok(DeviceModel {
            backbone: self.backbone,
            entity: self.entities.table().map_err(failed)?,
            relation: self.relation.value.clone(),
            core: self.core.as_ref().map(|core| core.value.clone()),
        })
    }

    /// The current model, and the trained projection if there is one: see [`kge::Trainer::parts`].
    pub fn parts(&mut self) -> stage::Result<(&Model<T>, Option<&Matrix<T>>)> {
        if !self.mirror.is_fresh {
            self.read().map_err(failed)?;
        }
        Ok((&self.mirror.model, self.mirror.projection.as_ref()))
    }

    fn read(&mut self) -> Result<()> {
        let Mirror { model, projection, is_fresh, .. } = &mut self.mirror;
        model.entity = read_matrix(&self.entities.table()?)?;
        model.relation = read_matrix(&self.relation.value)?;
        if let Some(core) = &self.core {
            model.core = read_matrix(&core.value)?;
        }
        if self.entities.is_projected() {
            *projection = Some(read_matrix(&self.entities.stored()?[0])?);
        }
        *is_fresh = true;
        Ok(())
    }

    fn read_squares(&mut self) -> Result<()> {
        let [entities, relation, core] = &mut self.mirror.squares;
        *entities = read_matrix(&self.entities.stored()?[1])?;
        *relation = read_matrix(&self.relation.squares)?;
        if let Some(weight) = &self.core {
            *core = read_matrix(&weight.squares)?;
        }
        Ok(())
    }
}

impl DeviceTrainer<f32> {
    /// Everything needed to resume, here or on the CPU: see [`kge::Trainer::state`].
    pub fn state(&mut self) -> stage::Result<NamedTensors<'_>> {
        self.parts()?;
        self.read_squares().map_err(failed)?;
        let Mirror { model, projection, squares: [entities, relation, core], .. } = &self.mirror;
        let tensors = NamedTensors::default()
            .matrix("parameters", projection.as_ref().unwrap_or(&model.entity))
            .matrix("relation", &model.relation)
            .matrix("parameters_squares", entities)
            .matrix("relation_squares", relation);
        Ok(match self.core {
            Some(_) => tensors.matrix("core", &model.core).matrix("core_squares", core),
            None => tensors,
        })
    }

    /// Restores a state saved under `prefix.`, here or on the CPU; an error if tensors have other shapes.
    pub fn restore(&mut self, reader: &TensorReader, prefix: &str) -> stage::Result<()> {
        self.mirror.is_fresh = false;
        let mut stored = self.entities.stored().map_err(failed)?;
        for (name, into) in ["parameters", "parameters_squares"].into_iter().zip(&mut stored) {
            load(reader, &format!("{prefix}.{name}"), into)?;
        }
        self.entities.take(stored).map_err(failed)?;
        let core = self.core.as_mut().map(|core| ("core", core));
        for (name, weight) in [("relation", &mut self.relation)].into_iter().chain(core) {
            load(reader, &format!("{prefix}.{name}"), &mut weight.value)?;
            load(reader, &format!("{prefix}.{name}_squares"), &mut weight.squares)?;
        }
        Ok(())
    }

    /// Maximum bytes of the device's memory that training needs: see [`kge::Trainer::memory`] for the arguments.
    /// Tensors are never changed in place, so a step of Adagrad holds seven tensors of a parameter's size at once, and
    /// cross-entropy holds four matrices of scores.
    pub fn memory(shape: Shape, entities: usize, pairs: usize, queries: usize, features: usize) -> u64 {
        const OF_PARAMETERS: usize = 7;
        const OF_SCORES: usize = 4;
        let (width, used) = (shape.columns(), (queries.saturating_add(pairs)).min(entities));
        let parameters = match features {
            0 => vec![bytes(&[OF_PARAMETERS, entities, width])],
            _ => vec![
                // The table, its gradient, the gradient that flows into the table, and the sum of both gradients.
                bytes(&[4, entities, width]),
                bytes(&[entities, features]),
                bytes(&[OF_PARAMETERS, features, width]),
                bytes(&[queries.saturating_add(used), features]),
            ],
        };
        let others = [
            bytes(&[OF_SCORES, queries.max(kge::rank::BLOCK), entities]),
            bytes(&[6, queries, width]),
            bytes(&[4, used, width]),
            bytes(&[OF_PARAMETERS, shape.core_rows(), shape.embedding()]),
            bytes(&[4, shape.core_rows(), queries]),
        ];
        parameters.into_iter().chain(others).fold(0, u64::saturating_add)
    }
}

fn load(reader: &TensorReader, name: &str, into: &mut Tensor) -> stage::Result<()> {
    let (rows, columns) = into.dims2().map_err(failed)?;
    let mut matrix = Matrix::<f32>::zeros(rows, columns);
    reader.load(name, &mut matrix)?;
    *into = upload(into.device(), &matrix).map_err(failed)?;
    Ok(())
}
