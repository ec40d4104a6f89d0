//! Stage 3: one ComplEx model per modality, pre-trained alone (Eq. 3).
//!
//! Teachers are independent of each other, so each is a stage folder of its own and can be a job of its own. A
//! teacher is saved with its entity embeddings as they score, so later stages read a plain ComplEx model and no
//! features; the trained projection is kept beside them.

use dsom_features::{FeatureTable, table};
use kge::checkpoint::{Reader, Tensors};
use kge::{ComplEx, CrossEntropy, Matrix, N3, StepLoss, Trainer};
use serde::Serialize;
use serde_json::{Map, Value};
use stage::recipe::{Absent, Recipe, Training};
use stage::task::Task;
use stage::work::Work;
use stage::{Common, Modality, Result, Run, resources};
use training::{Data, Learner, MODEL, embeddings, fit};

/// What a teacher depends on beside its inputs and the seed.
#[derive(Serialize)]
struct Parameters<'a> {
    modality: &'a Modality,
    #[serde(flatten)]
    training: Training,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit_norm: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature_scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<Absent>,
}

/// The modalities a run can have teachers for: the graph itself, and whatever features are finished.
pub fn available(run: &Run) -> Vec<Modality> {
    let mut modalities = vec![Modality::structural()];
    modalities.extend(run.finished("features"));
    modalities
}

/// Trains the teacher of `modality`, unless it is fresh.
pub fn train(common: &Common, recipe: &Recipe, modality: &Modality) -> Result<()> {
    let run = common.run();
    let training = recipe.teachers.training_of(modality);
    let projected = !modality.is_structural();
    let parameters = Parameters {
        modality,
        training: training.clone(),
        unit_norm: projected.then_some(recipe.teachers.unit_norm),
        feature_scale: projected.then_some(recipe.teachers.feature_scale),
        absent: projected.then_some(recipe.teachers.absent),
    };
    let mut task = Task::new(&run, "dsom-teachers", run.teacher(modality), &parameters, recipe.seed);
    let data = Data::open(&run, &mut task)?;
    let features =
        if projected { Some(open_features(&run, &mut task, modality, recipe, &data)?) } else { None };
    let width = features.as_ref().map_or(0, |(features, _)| features.columns());
    let fits = || {
        let bytes = Trainer::memory(
            data.entities(),
            2 * training.rank,
            training.batch,
            data.largest_batch(training.batch),
            width,
        );
        resources::require_memory(bytes, "training a teacher", "lower `teachers.batch` or `teachers.rank`")
    };
    let Some((work, ())) = common.begin(task, fits)? else { return Ok(()) };

    let name = format!("teacher {modality}");
    let (embedding, relation) = embeddings(&name, recipe.seed, &training, &data, features);
    let trainer = Trainer::new(embedding, relation, training.learning_rate, N3 { weight: training.n3 });
    let mut teacher = Teacher { data: &data, trainer };
    let fitted = fit(&work, &name, recipe.seed, &training, &data, &mut teacher)?;
    work.finish(serde_json::json!(fitted))?;
    Ok(())
}

/// Reads a modality's features as the matrix to project `(entity, width)` and its scale.
fn open_features(
    run: &Run,
    task: &mut Task,
    modality: &Modality,
    recipe: &Recipe,
    data: &Data,
) -> Result<(Matrix<f32>, f64)> {
    let path = task.stage_input(&run.features(modality), table::FILE)?;
    let features = FeatureTable::read(&path, data.entities())?;
    Ok((
        feature_matrix(&features, recipe.teachers.unit_norm, recipe.teachers.absent),
        recipe.teachers.feature_scale,
    ))
}

/// The rows to project. The embedding that absent entities share is the projection of a feature of their own: a
/// last column that is 1 for them and 0 for all others.
fn feature_matrix(table: &FeatureTable, unit_norm: bool, absent: Absent) -> Matrix<f32> {
    let entities = table.present.len();
    let width = table.width + usize::from(absent == Absent::Learned);
    let mut features = Matrix::zeros(entities, width);
    for (entity, present) in table.present.iter().enumerate() {
        let row = features.row_mut(entity);
        row[..table.width].copy_from_slice(table.row(entity));
        if unit_norm {
            normalise(row);
        }
        if absent == Absent::Learned && !present {
            row[table.width] = 1.0;
        }
    }
    features
}

/// Divides a row by its Euclidean norm; a zero row (an absent modality) stays zero.
fn normalise(row: &mut [f32]) {
    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm > 0.0 {
        row.iter_mut().for_each(|x| *x /= norm);
    }
}

struct Teacher<'a> {
    data: &'a Data,
    trainer: Trainer<f32>,
}

impl Learner for Teacher<'_> {
    fn begin_epoch(&mut self, _epoch: usize) {}

    fn step(&mut self, batch: &[u32]) -> Result<StepLoss> {
        let objective = CrossEntropy { queries: &self.data.queries };
        Ok(self.trainer.step(&self.data.queries, batch, &objective)?.0)
    }

    fn end_epoch(&mut self) -> Map<String, Value> {
        Map::new()
    }

    fn model(&mut self) -> &ComplEx<f32> {
        self.trainer.model()
    }

    fn require_finite(&mut self) -> Result<()> {
        self.trainer.require_finite()
    }

    fn state(&self) -> Tensors<'_> {
        Tensors::default().nested("teacher", self.trainer.state())
    }

    fn restore(&mut self, state: &Reader, _counters: &[u64]) -> Result<()> {
        self.trainer.restore(state, "teacher")
    }

    fn write_best(&mut self, work: &Work) -> Result<()> {
        let (model, projection) = self.trainer.parts();
        let mut tensors = model.tensors();
        if let Some(projection) = projection {
            tensors = tensors.matrix("projection", projection);
        }
        tensors.write(&work.path(MODEL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_get_unit_norm_and_absent_ones_stay_zero() {
        let (mut present, mut absent) = ([3.0, 4.0], [0.0, 0.0]);
        normalise(&mut present);
        normalise(&mut absent);
        assert_eq!((present, absent), ([0.6, 0.8], [0.0, 0.0]));
    }

    #[test]
    fn absent_entities_share_a_feature_of_their_own_or_have_none() {
        let table = FeatureTable { width: 2, values: vec![3.0, 4.0, 0.0, 0.0], present: vec![true, false] };
        assert_eq!(feature_matrix(&table, true, Absent::Learned).values(), [0.6, 0.8, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(feature_matrix(&table, false, Absent::Zero).values(), [3.0, 4.0, 0.0, 0.0]);
    }
}
