//! Stage 3: one model per modality, pre-trained alone (Eq. 3).
//!
//! Teachers are independent of each other, so each is a stage folder of its own and can be a job of its own. A
//! teacher is saved with its entity embeddings as they score, so later stages read a plain model and no
//! features; the trained projection and which entities had features ([`PRESENT`]) are kept beside them.

use dsom_features::{FeatureTable, table};

use kge::checkpoint::{NamedTensors, TensorReader};
use kge::{Matrix, Rank, StepLoss};
use program::Common;
use recipe::{Absent, Recipe, Teachers, Training};
use serde::Serialize;
use serde_json::{Map, Value};
use stage::task::Task;
use stage::work::Work;
use stage::{Modality, Result, Run};
use training::{Data, Engine, Learner, MODEL, Place, Shapes, fit, initial, shape};

pub mod command;
pub mod missing;
pub mod unseen;

/// The tensor of a projected teacher's model that says which entities had features, `(entity, 1)` of 1 and 0.
pub const PRESENT: &str = "present";

/// Parameters that a teacher depends on beside its inputs and the seed.
#[derive(Serialize)]
struct TeacherParameters<'a> {
    modality: &'a Modality,
    training: Training,
    absent: Option<Absent>,
    missing: Option<Missing>,
}

impl<'a> TeacherParameters<'a> {
    /// Parameters of the teacher of `modality`, as in the recipe; the keys about features do not concern the structural one.
    fn new(modality: &'a Modality, teachers: &Teachers) -> Self {
        let projected = !modality.is_structural();
        TeacherParameters {
            modality,
            training: teachers.training.clone(),
            absent: projected.then_some(teachers.absent),
            missing: (projected && teachers.missing_rate > 0.0)
                .then_some(Missing { rate: teachers.missing_rate, seed: teachers.missing_seed }),
        }
    }
}

/// The share that is hidden; absent where nothing is.
#[derive(Serialize)]
struct Missing {
    rate: f64,
    seed: u64,
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
    let teachers = recipe.teachers.of(modality);
    let training = &teachers.training;
    let projected = !modality.is_structural();
    let parameters = TeacherParameters::new(modality, &teachers);
    let mut task = Task::new(&run, "dsom-teachers", run.teacher(modality), &parameters, recipe.seed);
    let data = Data::open(&run, &mut task)?;
    let open = |task: &mut Task| TeacherFeatures::open(&run, task, modality, &teachers, recipe.seed, &data);
    let features = projected.then(|| open(&mut task)).transpose()?;
    let width = features.as_ref().map_or(0, |features| features.rows.columns());
    let ready = || {
        let place = Place::choose(common.device(), training.precision)?;
        let shapes = Shapes {
            shape: shape(training),
            entities: data.entities(),
            features: width,
            queries: data.largest_batch(training.batch),
            batch: training.batch,
        };
        let knob = "lower `teachers.batch` or `teachers.rank`";
        place.require_memory(place.training_memory(shapes), "training a teacher", knob)?;
        Ok(place)
    };
    let Some((work, place)) = common.begin(task, ready)? else { return Ok(()) };

    let name = format!("teacher {modality}");
    let (projected, presence, mut summary) = match features {
        Some(TeacherFeatures { rows, presence, summary }) => (Some(rows), Some(presence), summary),
        None => (None, None, Map::new()),
    };
    let initial = initial(&name, recipe.seed, training, &data, projected);
    let engine = place.engine(initial, training)?;
    let mut teacher = Teacher { data: &data, engine, presence };
    let fitted = fit(&work, &name, recipe.seed, training, &data, &mut teacher)?;
    summary.insert("products".to_owned(), place.products().into());
    if let Value::Object(fitted) = serde_json::json!(fitted) {
        summary.extend(fitted);
    }
    work.finish(Value::Object(summary))?;
    Ok(())
}

/// A modality's features as its teacher sees them.
struct TeacherFeatures {
    /// Features that are projected, `(entity, width)`.
    rows: Matrix<f32>,
    /// Mask of entities with features, `(entity, 1)`.
    presence: Matrix<f32>,
    /// Number of those that have features, and of those that were hidden.
    summary: Map<String, Value>,
}

impl TeacherFeatures {
    fn open(
        run: &Run,
        task: &mut Task,
        modality: &Modality,
        teachers: &Teachers,
        seed: u64,
        data: &Data,
    ) -> Result<TeacherFeatures> {
        let path = task.stage_input(&run.features(modality), table::FILE)?;
        let mut table = FeatureTable::read(&path, data.entities())?;
        let hidden = missing::hide(&mut table, teachers, modality, &data.vocabulary.entities)?;
        let mut summary = Map::from_iter([("present".to_owned(), table.count_present().into())]);
        if teachers.missing_rate > 0.0 {
            tracing::info!("{modality}: {hidden} entities hidden, {} present", table.count_present());
            summary.insert("hidden".to_owned(), hidden.into());
        }
        missing::require_place(&table, teachers, modality)?;
        let rows = missing::feature_matrix(&table, teachers, modality, seed);
        if missing::is_collapsed(&rows, &table) {
            tracing::warn!(
                "{modality}: the features of all entities are the same once they are divided by their norm, so this teacher \
                 tells none from another"
            );
        }
        Ok(TeacherFeatures { rows, presence: missing::presence(&table), summary })
    }
}

struct Teacher<'a> {
    data: &'a Data,
    engine: Box<dyn Engine>,
    presence: Option<Matrix<f32>>,
}

impl Learner for Teacher<'_> {
    fn begin_epoch(&mut self, _epoch: usize) {}

    fn step(&mut self, batch: &[u32]) -> Result<StepLoss> {
        self.engine.step(&self.data.queries, batch)
    }

    fn end_epoch(&mut self) -> Map<String, Value> {
        Map::new()
    }

    fn valid_ranks(&mut self, data: &Data) -> Result<Vec<[Rank; 2]>> {
        self.engine.valid_ranks(data)
    }

    fn require_finite(&mut self) -> Result<()> {
        self.engine.require_finite()
    }

    fn state(&mut self) -> Result<NamedTensors<'_>> {
        Ok(NamedTensors::default().nested("teacher", self.engine.state()?))
    }

    fn restore(&mut self, state: &TensorReader, _counters: &[u64]) -> Result<()> {
        self.engine.restore(state, "teacher")
    }

    fn write_best(&mut self, work: &Work) -> Result<()> {
        let (model, projection) = self.engine.parts()?;
        let mut tensors = model.tensors();
        if let Some(projection) = projection {
            tensors = tensors.matrix("projection", projection);
        }
        if let Some(presence) = &self.presence {
            tensors = tensors.matrix(PRESENT, presence);
        }
        tensors.write(&work.path(MODEL))
    }
}
