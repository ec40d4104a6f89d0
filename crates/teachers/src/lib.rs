//! Stage 3: one model per modality, pre-trained alone (Eq. 3).
//!
//! Teachers are independent of each other, so each teacher is a separate stage folder and can be a separate job. A
//! saved teacher has its entity embeddings as they enter the scores, so later stages read a plain model and no
//! features. The file also holds the trained projection and the mask of entities with features (`present`).

use dsom_features::{FeatureTable, table};
use kge::checkpoint::{NamedTensors, TensorReader};
use kge::{Matrix, StepLoss};
use program::Common;
use recipe::{Recipe, Teachers};
use serde_json::{Map, Value, json};
use stage::task::Task;
use stage::work::Work;
use stage::{Modality, Result};
use training::{Data, Engine, Learner, MODEL, Place, fit, initial};

pub mod command;
mod missing;
pub mod unseen;

/// Parameters of the teacher of `modality`, as in the recipe. The structural teacher has no keys about features, and
/// the keys about hidden entities are absent if nothing is hidden.
fn parameters(modality: &Modality, teachers: &Teachers) -> Value {
    let Teachers { training, absent, missing_rate, missing_seed, .. } = teachers;
    let projected = !modality.is_structural();
    let missing =
        (projected && *missing_rate > 0.0).then(|| json!({ "rate": missing_rate, "seed": missing_seed }));
    let absent = projected.then_some(absent);
    json!({ "modality": modality, "training": training, "absent": absent, "missing": missing })
}

/// Trains the teacher of `modality`, unless it is fresh.
fn train(common: &Common, recipe: &Recipe, modality: &Modality) -> Result<()> {
    let run = common.run();
    let teachers = recipe.teachers.of(modality);
    let training = &teachers.training;
    let parameters = parameters(modality, &teachers);
    let mut task = Task::new(&run, "dsom-teachers", run.teacher(modality), &parameters, recipe.seed);
    let data = Data::open(&run, &mut task)?;
    let (mut summary, mut features, mut presence) = (Map::new(), None, None);
    if !modality.is_structural() {
        let path = task.stage_input(&run.features(modality), table::FILE)?;
        let mut table = FeatureTable::read(&path, data.entities())?;
        features = Some(features_of(&mut table, modality, &teachers, recipe.seed, &data, &mut summary)?);
        presence = Some(missing::presence(&table));
    }
    let ready = || {
        let place = Place::choose(common.device(), training.precision)?;
        let bytes = place.training_memory(training, &data, features.as_ref().map_or(0, Matrix::columns));
        place.require_memory(bytes, "training a teacher", "lower `teachers.batch` or `teachers.rank`")?;
        Ok(place)
    };
    let Some((work, place)) = common.begin(task, ready)? else { return Ok(()) };

    let name = format!("teacher {modality}");
    let initial = initial(&name, recipe.seed, training, &data, features);
    let engine = place.engine(initial, training)?;
    let mut teacher = Teacher { data: &data, engine, presence };
    let fitted = fit(&work, &name, recipe.seed, training, &data, &mut teacher)?;
    summary.insert("products".to_owned(), place.products().into());
    if let Value::Object(fitted) = json!(fitted) {
        summary.extend(fitted);
    }
    work.finish(Value::Object(summary))
}

/// A modality's features as its teacher sees and projects them, `(entity, width)`. Clears hidden rows in the table, and
/// adds the numbers of entities with features and of hidden entities to the summary.
fn features_of(
    table: &mut FeatureTable,
    modality: &Modality,
    teachers: &Teachers,
    seed: u64,
    data: &Data,
    summary: &mut Map<String, Value>,
) -> Result<Matrix<f32>> {
    let hidden = missing::hide(table, teachers, modality, &data.vocabulary.entities)?;
    summary.insert("present".to_owned(), table.count_present().into());
    if teachers.missing_rate > 0.0 {
        tracing::info!("{modality}: {hidden} entities hidden, {} present", table.count_present());
        summary.insert("hidden".to_owned(), hidden.into());
    }
    missing::require_place(table, teachers, modality)?;
    let rows = missing::feature_matrix(table, teachers, modality, seed);
    if missing::is_collapsed(&rows, table) {
        tracing::warn!(
            "{modality}: the features of all entities are the same once they are divided by their norm, so this teacher \
             tells none from another"
        );
    }
    Ok(rows)
}

struct Teacher<'a> {
    data: &'a Data,
    engine: Box<dyn Engine>,
    /// Mask of entities with features, `(entity, 1)`.
    presence: Option<Matrix<f32>>,
}

impl Learner for Teacher<'_> {
    fn step(&mut self, batch: &[u32]) -> Result<StepLoss> {
        self.engine.step(&self.data.queries, batch)
    }

    fn engine(&mut self) -> &mut dyn Engine {
        &mut *self.engine
    }

    fn state(&mut self) -> Result<NamedTensors<'_>> {
        Ok(NamedTensors::default().nested("teacher", self.engine.state()?))
    }

    fn restore(&mut self, state: &TensorReader) -> Result<()> {
        self.engine.restore(state, "teacher")
    }

    fn write_best(&mut self, work: &Work) -> Result<()> {
        let (model, projection) = self.engine.parts()?;
        let mut tensors = model.tensors();
        for (name, matrix) in [("projection", projection), ("present", self.presence.as_ref())] {
            if let Some(matrix) = matrix {
                tensors = tensors.matrix(name, matrix);
            }
        }
        tensors.write(&work.path(MODEL))
    }
}
