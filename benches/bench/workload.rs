//! The workload: batches, features and teachers, in files that any program can read.

use dsom_features::table;
use kge::checkpoint::{NamedTensors, TensorReader};
use kge::{Matrix, Model};
use mkg::{EntityId, Query, QuerySet, RelationId, Triple};
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use stage::task::Task;
use stage::{Error, Modality, Result, Run, seed};
use std::collections::BTreeMap;
use std::path::Path;
use training::{Data, MODEL, open_model};

/// The number of pairs of query and tail in a step, as everywhere in the paper's code.
const BATCH: usize = 1000;
const FILE: &str = "workload.json";
const TENSORS: &str = "tensors.safetensors";

/// A query with its tails, by ids.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Asked(pub(crate) u32, pub(crate) u32, pub(crate) Vec<u32>);

/// The content of `workload.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) entities: usize,
    /// The number of relations without inverses.
    pub(crate) relations: usize,
    /// The number of pairs of query and tail in an epoch.
    pub(crate) pairs: usize,
    /// The steps of programs that group triples by query.
    pub(crate) batches: Vec<Vec<Asked>>,
    /// The steps of programs that do not group: one tail each, with its query and all tails of the query.
    pub(crate) triples: Vec<Vec<(u32, Asked)>>,
    /// The teachers with the width of their features; 0 for a free table.
    pub(crate) teachers: BTreeMap<Modality, usize>,
    /// True if the run has a trained student to start from.
    pub(crate) student: bool,
}

/// A workload that has been read.
pub(crate) struct Workload {
    pub(crate) plan: Plan,
    pub(crate) tensors: TensorReader,
}

impl Workload {
    pub(crate) fn read(folder: &Path) -> Result<Workload> {
        let plan = stage::files::read_json(&folder.join(FILE))?;
        Ok(Workload { plan, tensors: TensorReader::open(&folder.join(TENSORS))? })
    }

    /// The model stored under `prefix.`: the entity table used for scoring, and the relations.
    pub(crate) fn model(&self, prefix: &str) -> Result<Model<f32>> {
        let matrix = |name: &str| self.tensors.matrix(&format!("{prefix}.{name}"));
        Ok(Model::complex(matrix("entity")?, matrix("relation")?))
    }

    /// The batches' queries as a set, and each batch as query numbers in the set.
    pub(crate) fn queries(&self) -> (QuerySet, Vec<Vec<u32>>) {
        let query = |asked: &Asked| Query { head: EntityId(asked.0), relation: RelationId(asked.1) };
        let asked = self.plan.batches.iter().flatten();
        let pairs =
            asked.flat_map(|asked| asked.2.iter().map(move |&tail| (query(asked), EntityId(tail)))).collect();
        let set = QuerySet::from_pairs(pairs);
        let number = |asked: &Asked| {
            set.queries().binary_search(&query(asked)).expect("the set holds every batch's queries") as u32
        };
        let batches = self.plan.batches.iter().map(|batch| batch.iter().map(number).collect()).collect();
        (set, batches)
    }
}

/// Writes the first `steps` steps of an epoch of `run` to a workload.
pub(crate) fn cut(run: &Run, folder: &Path, steps: usize) -> Result<()> {
    let mut task = Task::new(run, "dsom-bench", folder.to_owned(), &(), 0);
    let data = Data::open(run, &mut task)?;
    let mut plan = plan(&data.queries, data.entities(), data.relations(), steps);
    let mut matrices = Vec::new();
    for modality in run.finished("teachers")? {
        let model = open_model(&mut task, &run.teacher(&modality), &data.vocabulary)?;
        let mut width = 0;
        if !modality.is_structural() {
            let path = task.stage_input(&run.features(&modality), table::FILE)?;
            let mut features = TensorReader::open(&path)?.matrix("features")?;
            unit_rows(&mut features);
            width = features.columns();
            matrices.push((format!("{modality}.features"), features));
            let reader = TensorReader::open(&run.teacher(&modality).join(MODEL))?;
            matrices.push((format!("{modality}.projection"), reader.matrix("projection")?));
        }
        push_model(&mut matrices, modality.as_str(), model);
        plan.teachers.insert(modality, width);
    }
    for student in ["student", "student-alone"].map(|name| run.student(name)) {
        if !plan.student && student.join(stage::manifest::FILE).is_file() {
            push_model(&mut matrices, "student", open_model(&mut task, &student, &data.vocabulary)?);
            plan.student = true;
        }
    }
    write(folder, &plan, &matrices)
}

/// A random graph like MKG-W: 2.3 triples per entity, and 169 relations. Its three teachers are random and of a low
/// rank: their scores cost as much as real ones but mean nothing.
pub(crate) fn synthetic(folder: &Path, entities: usize, steps: usize) -> Result<()> {
    const RANK: usize = 8;
    let (entities32, relations) = (entities as u32, 169u32);
    let count = (entities * 23 / 10).max(BATCH);
    let mut generator = seed::generator(0, "synthetic", entities as u64);
    let triples: Vec<Triple> = (0..count)
        .map(|_| {
            // The cube makes a few entities and relations frequent, as in real graphs.
            let mut draw = |below: u32| {
                let even: f64 = generator.random();
                (even.powi(3) * f64::from(below)) as u32
            };
            Triple::new(draw(entities32), draw(relations), draw(entities32))
        })
        .collect();
    let mut plan = plan(&QuerySet::new(&triples, relations as usize), entities, relations as usize, steps);
    let mut matrices = Vec::new();
    for (stream, name) in [Modality::structural().as_str(), "textual", "visual"].into_iter().enumerate() {
        let model = Model::complex(
            even(entities, 2 * RANK, 1.0, 10 + stream as u32),
            even(2 * relations as usize, 2 * RANK, 1.0, 20 + stream as u32),
        );
        push_model(&mut matrices, name, model);
        plan.teachers.insert(name.parse()?, 0);
    }
    write(folder, &plan, &matrices)
}

fn plan(queries: &QuerySet, entities: usize, relations: usize, steps: usize) -> Plan {
    let mut generator = seed::generator(0, "workload", 0);
    let mut order: Vec<u32> = (0..queries.len() as u32).collect();
    order.shuffle(&mut generator);
    let (mut batches, mut batch, mut filled) = (Vec::new(), Vec::new(), 0);
    for &number in &order {
        filled += queries.tails(number as usize).len();
        batch.push(asked(queries, number as usize));
        if filled >= BATCH {
            batches.push(std::mem::take(&mut batch));
            filled = 0;
        }
        if batches.len() == steps {
            break;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    let mut pairs: Vec<(u32, usize)> = (0..queries.len())
        .flat_map(|number| queries.tails(number).iter().map(move |tail| (tail.0, number)))
        .collect();
    pairs.shuffle(&mut generator);
    let with_query = |&(tail, number): &(u32, usize)| (tail, asked(queries, number));
    let triples =
        pairs.chunks(BATCH).take(steps).map(|batch| batch.iter().map(with_query).collect()).collect();
    let (pairs, teachers) = (queries.pairs(), BTreeMap::new());
    Plan { entities, relations, pairs, batches, triples, teachers, student: false }
}

fn asked(queries: &QuerySet, number: usize) -> Asked {
    let query = queries.query(number);
    Asked(query.head.0, query.relation.0, queries.tails(number).iter().map(|tail| tail.0).collect())
}

/// The features in the teachers' form: rows of unit norm, zero where absent.
fn unit_rows(features: &mut Matrix<f32>) {
    for entity in 0..features.rows() {
        let row = features.row_mut(entity);
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        let rate = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= rate);
    }
}

fn push_model(matrices: &mut Vec<(String, Matrix<f32>)>, prefix: &str, model: Model<f32>) {
    matrices.push((format!("{prefix}.entity"), model.entity));
    matrices.push((format!("{prefix}.relation"), model.relation));
}

fn write(folder: &Path, plan: &Plan, matrices: &[(String, Matrix<f32>)]) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let tensors = matrices
        .iter()
        .fold(NamedTensors::default(), |tensors, (name, matrix)| tensors.matrix(name.clone(), matrix));
    tensors.write(&folder.join(TENSORS))?;
    stage::files::write_json(&folder.join(FILE), plan)
}

/// Uniform numbers in `±scale` that any program can draw: each 32-bit position's hash (Mueller's `lowbias32`).
pub(crate) fn even(rows: usize, columns: usize, scale: f64, stream: u32) -> Matrix<f32> {
    let value = |i: usize| {
        let unit = f64::from(hash(i as u32 ^ hash(stream))) / f64::from(1u32 << 31) - 1.0;
        (unit * scale) as f32
    };
    Matrix::from_values(rows, columns, (0..rows * columns).map(value).collect())
}

fn hash(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// Embeddings at a higher complex rank: the added components are zero, so every score stays the same.
///
/// A teacher that was trained at a low rank replaces one of any rank: its scores are real, and computing them costs as
/// much as at the higher rank.
pub(crate) fn widened(table: &Matrix<f32>, rank: usize) -> Matrix<f32> {
    let own = table.columns() / 2;
    let mut wide = Matrix::zeros(table.rows(), 2 * rank);
    let kept = own.min(rank);
    for row in 0..table.rows() {
        let (re, im) = wide.row_mut(row).split_at_mut(rank);
        re[..kept].copy_from_slice(&table.row(row)[..kept]);
        im[..kept].copy_from_slice(&table.row(row)[own..own + kept]);
    }
    wide
}
