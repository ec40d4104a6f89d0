//! Stage 5: the student learns from the teachers that the policy chooses.
//!
//! The student is a plain model of whatever backbone. It minimises `CE + L_RC + γ · L_NDKD` (Eq. 4), where the policy
//! loss `L_RC` reaches only the policy's own parameters. Everything that depends on the query alone (teachers' scores, the
//! state, the student's scores) is computed once per query; cross-entropy, rewards and actions are per triple.

mod adam;
mod calibrate;
mod choices;
mod chooser;
mod combine;
mod device;
mod ensemble;
mod inputs;
mod learn;
mod memory;
mod objective;
mod policy;
mod reliability;
mod senior;
mod strategy;
mod student;
mod summary;
mod teaching;
mod worth;

pub use device::{cached, objective as device_objective};
pub use ensemble::Ensemble;
pub use objective::{Distillation, Pass};
pub use strategy::{Strategy, strategies};
pub use student::Student;
pub use teaching::{Models, Teaching};

use dsom_soft_labels::SoftLabels;
use kge::Model;
use kge::checkpoint::Reader;
use stage::manifest::Manifest;
use stage::recipe::{
    Backbone, Calibrate, Distill, Objective, PolicyLearns, PolicyState, PolicyValue, QueryWeight, Recipe,
    Selection,
};
use stage::task::Task;
use stage::{Common, Error, Modality, Result, Run};
use training::{Data, MODEL, Place, fit, initial, open_model};

/// Trains the student called `name`, unless it is fresh.
pub fn run(common: &Common, recipe: &Recipe, name: &str, soft_labels: FromWhere) -> Result<()> {
    let (run, distill) = (common.run(), &recipe.distill);
    let mut task = Task::new(&run, "dsom-distill", run.student(name), &parameters(distill), recipe.seed);
    let data = Data::open(&run, &mut task)?;
    let labels = match distill.objective {
        Objective::None => None,
        _ => Some(SoftLabels::open(&run, &mut task)?),
    };
    let modalities = labels.as_ref().map_or(&[][..], |labels| labels.teachers());
    require_few(modalities.len())?;
    if let (Selection::Fixed(chosen), false) = (&distill.selection, modalities.is_empty()) {
        Strategy::named(chosen, modalities)?;
    }
    if labels.is_some() {
        require_sound(distill, modalities)?;
    }
    let mut models = models(distill, &run, &mut task, &data, modalities)?;
    // The labels are read before the folder is claimed: a damaged cache must not cost the student that is there.
    let ready = || {
        let labels = labels.map(|labels| labels.read(&data)).transpose()?;
        let place = Place::choose(common.device(), device::lacking(distill).as_deref(), &distill.training)?;
        let teachers = match (&place, &labels) {
            (Place::Device(..), Some(labels)) => soft_labels.teachers(&run, &data, labels)?,
            _ => None,
        };
        memory::require(&place, &data, distill, labels.as_ref(), teachers.as_deref())?;
        Ok((labels, place, teachers))
    };
    let Some((work, (labels, place, teachers))) = common.begin(task, ready)? else { return Ok(()) };

    let initial = initial(name, recipe.seed, &distill.training, &data, None);
    let training = &distill.training;
    let engine = place.engine(initial, training)?;
    let on_device = match place.gpu() {
        Some(gpu) => Some(device_objective(gpu, distill, sources(gpu, teachers, labels.as_ref())?)),
        None => None,
    };
    if on_device.is_some() && distill.policy_learns == PolicyLearns::Student {
        // Its policy multiplies the scores, which are on the device.
        models.factored.iter_mut().for_each(|model| *model = None);
    }
    let teaching = labels.as_ref().map(|labels| Teaching::new(&data, labels, models, distill, recipe.seed));
    let teaching = teaching.transpose()?;
    let mut student = Student::new(&data, teaching, engine, distill, recipe.seed).with_device(on_device)?;
    let mut summary = match training.epochs {
        // The ensemble alone.
        0 => {
            student.write_choosers(&work)?;
            serde_json::json!({ "epochs": 0 })
        }
        _ => serde_json::json!(fit(&work, name, recipe.seed, training, &data, &mut student)?),
    };
    student.write_choosing(&work)?;
    summary["products"] = place.products().into();
    if let Some(teaching) = student.teaching() {
        describe(teaching, &mut summary);
    }
    work.finish(summary)?;
    Ok(())
}

/// Adds to the stage's summary who taught, and what was learned about them.
fn describe(teaching: &Teaching<'_>, summary: &mut serde_json::Value) {
    summary[student::TEACHERS] = serde_json::json!(teaching.labels.teachers());
    if let Some(learned) = teaching.chooser.learned() {
        summary["policy"] = serde_json::json!(learned);
    }
    if let Some(senior) = teaching.chooser.senior() {
        summary["senior"] = teaching.by_teacher(senior.mean_scales());
    }
    if let Some((_, range)) = &teaching.reliability {
        summary["query_weight"] = serde_json::json!(range);
    }
    if let Some((_, calibrated)) = &teaching.calibration {
        summary["calibration"] = serde_json::json!(calibrated);
    }
}

/// What the student depends on: the student alone knows nothing of teachers.
fn parameters(distill: &Distill) -> serde_json::Value {
    match distill.objective {
        Objective::None => serde_json::json!({ "objective": "none", "training": distill.training }),
        _ => {
            let mut parameters = serde_json::json!(distill);
            // What has no effect is left out, so that students from before it could be chosen are fresh.
            let idle = [
                ("policy_folds", distill.policy_learns == PolicyLearns::Student),
                ("query_weight", distill.query_weight == QueryWeight::Equal),
            ];
            for (key, _) in idle.iter().filter(|(_, idle)| *idle) {
                parameters.as_object_mut().map(|known| known.shift_remove(*key));
            }
            parameters
        }
    }
}

/// Strategies double with every teacher.
fn require_few(teachers: usize) -> Result<()> {
    const MOST: usize = 8;
    if teachers > MOST {
        let message = format!("{teachers} teachers have too many strategies; at most {MOST} teachers");
        return Err(Error::usage(message).hint("name those to learn from in `soft_labels.teachers`"));
    }
    Ok(())
}

/// Refuses what cannot be chosen or learned without a student, or beforehand.
fn require_sound(distill: &Distill, teachers: &[Modality]) -> Result<()> {
    if distill.training.epochs == 0 && !stands_alone(distill) {
        let message = format!("`distill.epochs` = 0: `{}` is no choice without a student", distill.selection);
        let hint =
            "choose `all`, `conf`, fixed teachers, or a policy with `distill.policy_learns` = \"valid\"";
        return Err(Error::usage(message).hint(hint));
    }
    if distill.selection != Selection::Policy || distill.policy_learns == PolicyLearns::Student {
        return Ok(());
    }
    let beside = matches!(distill.policy_value, PolicyValue::Complement | PolicyValue::Mixed);
    if beside && !teachers.iter().any(Modality::is_structural) {
        let message =
            "`distill.policy_value` asks for the structural teacher, which the soft labels do not have";
        return Err(Error::usage(message).hint("choose another value, or let it into `soft_labels.teachers`"));
    }
    Ok(())
}

/// Whether teachers are chosen before there is a student, and without the answers: an ensemble in its own right.
fn stands_alone(distill: &Distill) -> bool {
    match distill.selection {
        Selection::All | Selection::Conf | Selection::Fixed(_) => true,
        Selection::Policy => distill.policy_learns != PolicyLearns::Student,
        Selection::Random | Selection::BestTeacher | Selection::BestStrategy | Selection::Mulde => false,
    }
}

/// Whether the teachers are asked about validation triples, which the soft labels are not of.
fn asks_validation(distill: &Distill) -> bool {
    let by_policy = distill.selection == Selection::Policy && distill.policy_learns == PolicyLearns::Valid;
    let weighed = distill.query_weight != QueryWeight::Equal;
    distill.objective != Objective::None && (by_policy || weighed || distill.calibrate != Calibrate::None)
}

/// The teachers' models: where they are asked about validation triples, and for a policy that sees scores, where it
/// would rather multiply their factors: where the embeddings are narrower than a batch has queries.
fn models(
    distill: &Distill,
    run: &Run,
    task: &mut Task,
    data: &Data,
    modalities: &[Modality],
) -> Result<Models> {
    let is_policy = distill.selection == Selection::Policy;
    let sees_scores = is_policy && distill.policy_state == PolicyState::Scores;
    let open = |modality: &Modality| open_model(task, &run.teacher(modality), &data.vocabulary);
    let opened: Vec<Model<f32>> = match sees_scores || asks_validation(distill) {
        true => modalities.iter().map(open).collect::<Result<_>>()?,
        false => Vec::new(),
    };
    let asked = if asks_validation(distill) { opened.clone() } else { Vec::new() };
    let queries = data.largest_batch(distill.training.batch);
    let is_narrow = |model: &Model<f32>| sees_scores && model.width() < queries;
    let mut factored: Vec<_> = opened.into_iter().map(|model| Some(model).filter(is_narrow)).collect();
    factored.resize_with(modalities.len(), || None);
    Ok(Models { factored, asked })
}

/// Where a student on a device has its teachers' scores from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FromWhere {
    /// What is faster for the shapes, as far as can be told beforehand
    #[default]
    Auto,
    /// From the soft labels, copied to the device batch by batch
    Cache,
    /// From the teachers' models on the device, computed anew for every batch
    Recompute,
}

/// Up to this width of an embedding, a device computes scores faster than it gets them: 2 bytes of a score at 8 GB/s take
/// as long as 5,000 multiplications and additions at 20 TFLOP/s. Estimated from data sheets, not measured.
const WIDEST: usize = 5000;

impl FromWhere {
    /// The teachers' models, if scores are to be computed anew.
    fn teachers(self, run: &Run, data: &Data, labels: &SoftLabels) -> Result<Option<Vec<Model<f32>>>> {
        if self == FromWhere::Cache && !labels.is_whole() {
            let error = Error::usage("a device cannot copy soft labels that keep only the top");
            return Err(error.hint("--soft-labels recompute, or --device cpu"));
        }
        let stale = Manifest::read(&run.soft_labels())?.stale(run);
        match (self, stale) {
            (FromWhere::Cache, _) => return Ok(None),
            (FromWhere::Auto, Some(reason)) if labels.is_whole() => {
                tracing::info!("teachers' scores: from the cache ({reason})");
                return Ok(None);
            }
            (_, Some(reason)) => {
                let error = Error::data(format!("the teachers are not those of the soft labels: {reason}"));
                return Err(error.hint("rerun `dsom-soft-labels`"));
            }
            (_, None) => {}
        }
        let open = |modality: &Modality| {
            let reader = Reader::open(&run.teacher(modality).join(MODEL))?;
            Model::from_reader(&reader, data.entities(), data.relations())
        };
        let models = labels.teachers().iter().map(open).collect::<Result<Vec<_>>>()?;
        if let Some(other) = models.iter().find(|model| model.backbone != Backbone::ComplEx) {
            let why = format!("a {} teacher", other.backbone);
            if self == FromWhere::Auto && labels.is_whole() {
                tracing::info!("teachers' scores: from the cache ({why})");
                return Ok(None);
            }
            let error = Error::usage(format!("the scores of {why} are not computed on a device"));
            return Err(error.hint("--soft-labels cache, or --device cpu"));
        }
        let width = models.iter().map(|model| model.width()).sum::<usize>() / models.len().max(1);
        if self == FromWhere::Auto && labels.is_whole() && width > WIDEST {
            tracing::info!("teachers' scores: from the cache (embeddings of {width} numbers)");
            return Ok(None);
        }
        tracing::info!("teachers' scores: computed anew on the device, in full precision");
        Ok(Some(models))
    }
}

/// The teachers on a device: their models, or their soft labels.
fn sources<'a>(
    gpu: &cuda::Gpu,
    teachers: Option<Vec<Model<f32>>>,
    labels: Option<&'a SoftLabels>,
) -> Result<Option<cuda::Sources<'a>>> {
    let models = teachers.map(|models| {
        let models = models.iter().map(|model| cuda::Model::new(gpu, model));
        models.collect::<Result<_>>().map(cuda::Sources::Models)
    });
    match models.transpose()? {
        Some(models) => Ok(Some(models)),
        None => Ok(labels.map(cached)),
    }
}
