//! Timing the engine on a workload.

use clap::Args;
use dsom_distill::{Student, Teaching};
use dsom_soft_labels::SoftLabels;
use half::f16;
use half::slice::HalfFloatSliceExt;
use kge::{CrossEntropy, Embedding, Initial, Matrix, Model, Scorer, StepLoss};
use mkg::graph::Entity;
use mkg::{KnownAnswers, QuerySet, Vocabulary};
use program::print_line;
use recipe::{Distill, PolicyKeys, PolicyState, Precision, Selection, Training};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stage::{Error, Modality, Result};
use std::time::Instant;
use training::{Data, Learner, Place, precision};

use crate::workload::{Workload, even, widened};

/// The model and the parameters that are timed.
#[derive(Args, Debug)]
pub(crate) struct Case {
    /// "student", or a teacher's modality
    #[arg(long)]
    model: String,
    /// Complex rank
    #[arg(long)]
    rank: usize,
    /// Worker threads
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Steps to time, after one untimed step
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Precision of the products with scores, named as in recipes
    #[arg(long, default_value = "f32", value_parser = named::<Precision>)]
    precision: Precision,
    /// State that the student's policy sees, named as in recipes
    #[arg(long, default_value = "query", value_parser = named::<PolicyState>)]
    policy_state: PolicyState,
    /// Make the student always take all teachers: nothing is random, so its losses can be compared
    #[arg(long)]
    all: bool,
}

/// The value that has this name in recipes.
fn named<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

/// Times the steps of a case and reports the seconds and the loss of each.
pub(crate) fn run(workload: Workload, case: &Case) -> Result<Value> {
    let (queries, batches) = workload.queries();
    match case.model.as_str() {
        "student" => student(workload, case, queries, &batches),
        teacher => self::teacher(workload, case, teacher, &queries, &batches),
    }
}

fn teacher(
    workload: Workload,
    case: &Case,
    name: &str,
    queries: &QuerySet,
    batches: &[Vec<u32>],
) -> Result<Value> {
    let (plan, width) = (&workload.plan, 2 * case.rank);
    let embedding = match plan.teachers.get(&name.parse::<Modality>()?) {
        None => return Err(Error::usage(format!("the workload has no teacher `{name}`"))),
        Some(0) => Embedding::Table(even(plan.entities, width, 0.1, 1)),
        Some(_) => {
            let features = workload.tensors.matrix(&format!("{name}.features"))?;
            Embedding::Projected { projection: even(features.columns(), width, 0.1, 1), features }
        }
    };
    let initial = Initial::complex(embedding, even(2 * plan.relations, width, 0.1, 2));
    let mut trainer = training::on_cpu(initial, &Training::default(), precision(case.precision));
    let objective = CrossEntropy { queries };
    // Training does not need the files' content in memory.
    drop(workload);
    ready(0)?;
    timed(batches, case.steps, |batch| Ok(trainer.step(queries, batch, &objective)?.0))
}

fn student(workload: Workload, case: &Case, queries: QuerySet, batches: &[Vec<u32>]) -> Result<Value> {
    let (plan, width) = (&workload.plan, 2 * case.rank);
    let labels = soft_labels(&workload, &queries, case.rank)?;
    let cached = queries.len() * plan.teachers.len() * (plan.entities + width) * size_of::<f16>();
    let data = Data {
        queries,
        valid: Vec::new(),
        known: KnownAnswers::default(),
        vocabulary: Vocabulary { entities: vec![Entity::default(); plan.entities], relations: Vec::new() },
    };
    let (entity, relation) = if plan.student {
        let model = workload.model("student")?;
        (widened(&model.entity, case.rank), widened(&model.relation, case.rank))
    } else {
        (even(plan.entities, width, 0.1, 1), even(2 * plan.relations, width, 0.1, 2))
    };
    let keys = PolicyKeys { state: case.policy_state, ..PolicyKeys::default() };
    let selection = if case.all { Selection::All } else { Selection::Policy(keys) };
    let training = Training { rank: case.rank, ..Training::default() };
    let recipe = Distill { training, selection, ..Distill::default() };
    let initial = Initial::complex(Embedding::Table(entity), relation);
    let place = Place::Cpu(precision(case.precision));
    let models = match case.policy_state {
        PolicyState::Scores if !case.all => teachers(&workload, case, labels.teachers())?,
        _ => Vec::new(),
    };
    drop(workload);
    let teaching = Teaching::new(&data, &labels, models, &recipe, 0)?;
    let mut student = Student::new(&place, initial, &data, Some(teaching), None, &recipe)?;
    student.begin_epoch(1);
    ready(cached)?;
    timed(batches, case.steps, |batch| student.step(batch))
}

/// The teachers' models. If these are narrow, a policy that sees scores multiplies their factors.
fn teachers(workload: &Workload, case: &Case, teachers: &[Modality]) -> Result<Vec<Model<f32>>> {
    let models = teachers.iter().map(|modality| {
        let model = workload.model(modality.as_str())?;
        Ok(Model::complex(widened(&model.entity, case.rank), widened(&model.relation, case.rank)))
    });
    models.collect()
}

/// The teachers' scores for the workload's queries, and their query vectors at complex rank `rank`.
fn soft_labels(workload: &Workload, queries: &QuerySet, rank: usize) -> Result<SoftLabels> {
    const PART: usize = 1000;
    let plan = &workload.plan;
    let (teachers, entities) = (plan.teachers.len(), plan.entities);
    let mut rows = vec![f16::ZERO; queries.len() * teachers * entities];
    let (mut scores, mut own, mut vectors) = (Matrix::default(), Matrix::default(), Vec::new());
    for (teacher, modality) in plan.teachers.keys().enumerate() {
        let model = workload.model(modality.as_str())?;
        for (part, asked) in queries.queries().chunks(PART).enumerate() {
            model.scores(asked, &mut scores);
            for row in 0..asked.len() {
                let from = ((part * PART + row) * teachers + teacher) * entities;
                rows[from..from + entities].convert_from_f32_slice(scores.row(row));
            }
        }
        model.queries(queries.queries(), &mut own);
        vectors.push(widened(&own, rank));
    }
    let names = plan.teachers.keys().cloned().collect();
    Ok(SoftLabels::from_rows(names, entities, rows).with_vectors(&vectors))
}

/// Reports that work begins, and how much of the memory is the cache, which a real run maps from a file.
fn ready(cached: usize) -> Result<()> {
    print_line(&json!({ "ready": true, "cached": cached }).to_string())
}

fn timed(
    batches: &[Vec<u32>],
    steps: usize,
    mut step: impl FnMut(&[u32]) -> Result<StepLoss>,
) -> Result<Value> {
    let (mut seconds, mut losses, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    for batch in batches.iter().cycle().take(steps + 1) {
        let started = Instant::now();
        let loss = step(batch)?;
        seconds.push(started.elapsed().as_secs_f64());
        losses.push([loss.objective, loss.regulariser]);
        pairs.push(loss.pairs);
    }
    Ok(json!({ "seconds": seconds, "losses": losses, "pairs": pairs }))
}
