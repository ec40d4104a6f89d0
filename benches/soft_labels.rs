//! The cache of soft labels: writing and reading, compared with arrow's general writer and reader on equal columns.
//!
//! ```text
//! cargo bench -p dsom-benches --bench soft_labels -- [ENTITIES [QUERIES [TEACHERS [RANK [TOP]]]]]
//! ```
//!
//! At rank 1, the default, scoring costs almost nothing, so only the cache is timed; a higher rank adds the products.
//! Files go to the temporary folder (`TMPDIR`) and are read back from memory. The two alternate; quote the medians of
//! the ratios. For both, writing includes waiting for the disk. Then the whole cache is compared with the lossy one
//! that keeps `TOP` entities (256), with teachers of rank 128 unless another is given: writing it, and filling rows of
//! scores from it.

use arrow::array::{ArrayRef, AsArray, FixedSizeListArray, Float16Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Float16Type};
use dsom_soft_labels::{SoftLabels, TrainedTeacher, scored, write_part};
use half::f16;
use half::slice::HalfFloatSliceExt;
use kge::model::normal;
use kge::{Matrix, Model, Scorer};
use mkg::graph::{Entity, Relation, for_each_batch, list_item};
use mkg::{EntityId, KnownAnswers, Query, QuerySet, RelationId, Vocabulary};
use parquet::arrow::ArrowWriter;
use parquet::basic::Encoding;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use program::{Progress, print_line};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use stage::Modality;
use stage::files::write_atomically;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use training::Data;

const ROUNDS: usize = 3;
/// The number of rows that arrow gets at once, which equals our row groups at the default shape.
const ROWS: usize = 728;

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let number = |i: usize, default: usize| numbers.get(i).copied().unwrap_or(default);
    let (entities, queries, count, rank) = (number(0, 15_000), number(1, 3000), number(2, 3), number(3, 1));
    let data = graph(entities, queries);
    let teachers = teachers(&data, count, rank)?;
    let folder = tempfile::tempdir()?;
    let (our_file, their_file) = (folder.path().join("ours.parquet"), folder.path().join("arrow.parquet"));
    let megabytes = (queries * entities * count * size_of::<f16>()) as f64 / 1e6;

    let mut write = Side { task: "write", ..Side::default() };
    let mut scan = Side { task: "read in order", ..Side::default() };
    let mut random = Vec::new();
    for _ in 0..ROUNDS {
        let ours = written(&our_file, &data, &teachers, 0)?;
        write.add(ours, timed(|| write_by_arrow(&their_file, &data, &teachers))?.0);
        let ours = timed(|| {
            let labels = SoftLabels::map(std::slice::from_ref(&our_file), names(&teachers), &data)?;
            Ok((sum(&labels, 0..queries), labels))
        })?;
        let theirs = timed(|| scan_by_arrow(&their_file, count))?;
        assert_eq!(ours.1.0, theirs.1, "the two read the same numbers");
        scan.add(ours.0, theirs.0);
        let mut order: Vec<usize> = (0..queries).collect();
        order.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(1));
        random.push(timed(|| Ok(std::hint::black_box(sum(&ours.1.1, order))))?.0);
    }
    print_line(&format!(
        "{queries} queries, {entities} entities, {count} teachers, rank {rank}: {megabytes:.0} MB"
    ))?;
    print_line("                   ours       arrow      ratio")?;
    write.print(megabytes, "MB/s")?;
    scan.print(megabytes, "MB/s")?;
    print_line(&format!("{:<14} {:7.0} MB/s", "random rows", megabytes / median(random)))?;
    let teachers = self::teachers(&data, count, number(3, 128))?;
    compare_lossy(folder.path(), &data, &teachers, number(4, 256))
}

/// Compares the rows per second of the whole cache and the lossy cache.
fn compare_lossy(
    folder: &Path,
    data: &Data,
    teachers: &[TrainedTeacher],
    top: usize,
) -> Result<(), Box<dyn Error>> {
    let queries = data.queries.len();
    let (mut write, mut fill) =
        (Side { task: "write", ..Side::default() }, Side { task: "fill", ..Side::default() });
    let mut sizes = [0, 0];
    for _ in 0..ROUNDS {
        let mut seconds = [(0.0, 0.0); 2];
        for (i, top) in [0, top].into_iter().enumerate() {
            let file = folder.join(format!("top-{top}.parquet"));
            let written = written(&file, data, teachers, top)?;
            sizes[i] = file.metadata()?.len();
            let labels = SoftLabels::map(&[file], names(teachers), data)?;
            let filled = timed(|| Ok(std::hint::black_box(fill_all(&labels, queries))))?;
            seconds[i] = (written, filled.0);
        }
        write.add(seconds[1].0, seconds[0].0);
        fill.add(seconds[1].1, seconds[0].1);
    }
    let share = 100.0 * sizes[1] as f64 / sizes[0] as f64;
    print_line(&format!("top {top}, rank {}: {share:.1} % of the bytes", teachers[0].model.rank()))?;
    print_line("rows           lossy       whole      ratio")?;
    let rows = (queries * teachers.len()) as f64;
    write.print(rows, "/s")?;
    fill.print(rows, "/s")?;
    Ok(())
}

/// Fills every row, in another order than the file's.
fn fill_all(labels: &SoftLabels, queries: usize) -> f32 {
    let mut row = vec![0.0; labels.entities()];
    let mut sum = 0.0;
    for query in (0..queries).map(|i| i * 7919 % queries) {
        for teacher in 0..labels.teachers().len() {
            labels.fill(query, teacher, 4.0, &mut row);
            sum += row[query % row.len()];
        }
    }
    sum
}

/// The seconds of one task, for our cache and for arrow's.
#[derive(Default)]
struct Side {
    task: &'static str,
    ours: Vec<f64>,
    theirs: Vec<f64>,
    ratios: Vec<f64>,
}

impl Side {
    fn add(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
        self.ratios.push(theirs / ours);
    }

    fn print(self, amount: f64, unit: &str) -> stage::Result<()> {
        let Side { task, ours, theirs, ratios } = self;
        let [ours, theirs] = [ours, theirs].map(|seconds| amount / median(seconds));
        print_line(&format!("{task:<14} {ours:7.0} {unit} {theirs:7.0} {unit} {:7.1}", median(ratios)))
    }
}

fn timed<T>(work: impl FnOnce() -> Result<T, Box<dyn Error>>) -> Result<(f64, T), Box<dyn Error>> {
    let started = Instant::now();
    let done = work()?;
    Ok((started.elapsed().as_secs_f64(), done))
}

/// The seconds that writing the cache takes.
fn written(path: &Path, data: &Data, teachers: &[TrainedTeacher], top: usize) -> Result<f64, Box<dyn Error>> {
    let queries = data.queries.len();
    let progress = Progress::new("writing", queries as u64, "queries");
    let work = || Ok(write_part(path, data, &scored(teachers), top, 0..queries, &progress)?);
    Ok(timed(work)?.0)
}

fn names(teachers: &[TrainedTeacher]) -> Vec<Modality> {
    teachers.iter().map(|teacher| teacher.modality.clone()).collect()
}

fn graph(entities: usize, queries: usize) -> Data {
    let relations = queries.div_ceil(entities);
    let pair = |i: usize| {
        let query =
            Query { head: EntityId((i % entities) as u32), relation: RelationId((i / entities) as u32) };
        (query, EntityId((i * 7 % entities) as u32))
    };
    Data {
        queries: QuerySet::from_pairs((0..queries).map(pair).collect()),
        valid: Vec::new(),
        known: KnownAnswers::default(),
        vocabulary: Vocabulary {
            entities: vec![Entity { key: "entity".into(), ..Entity::default() }; entities],
            relations: vec![Relation { key: "relation".into(), name: None }; relations],
        },
    }
}

fn teachers(data: &Data, count: usize, rank: usize) -> Result<Vec<TrainedTeacher>, Box<dyn Error>> {
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut table = |rows: usize| normal(rows, 2 * rank, 1.0, &mut generator);
    (0..count)
        .map(|i| {
            let model = Model::complex(table(data.entities()), table(2 * data.relations()));
            Ok(TrainedTeacher { modality: format!("m{i}").parse()?, model })
        })
        .collect()
}

fn write_by_arrow(path: &Path, data: &Data, teachers: &[TrainedTeacher]) -> Result<(), Box<dyn Error>> {
    let properties = WriterProperties::builder()
        .set_encoding(Encoding::PLAIN)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let mut scores = Matrix::zeros(0, 0);
    let mut batch = |queries: &[Query]| -> RecordBatch {
        let ids = queries.iter().map(|query| query.head.0);
        let mut columns: Vec<(String, ArrayRef)> =
            vec![("head".into(), Arc::new(UInt32Array::from_iter_values(ids)))];
        for TrainedTeacher { modality, model } in teachers {
            model.scores(queries, &mut scores);
            let mut halves = vec![f16::ZERO; scores.values().len()];
            halves.convert_from_f32_slice(scores.values());
            let (item, values) = (list_item(DataType::Float16), Float16Array::from(halves));
            let lists = FixedSizeListArray::new(item, data.entities() as i32, Arc::new(values), None);
            columns.push((modality.to_string(), Arc::new(lists)));
        }
        let columns = columns.into_iter().map(|(name, values)| (name, values, false));
        RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length")
    };
    let schema = batch(&data.queries.queries()[..1]).schema();
    write_atomically(path, |file| {
        let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).expect("a valid schema");
        for queries in data.queries.queries().chunks(ROWS) {
            writer.write(&batch(queries)).and_then(|()| writer.flush()).expect("it can be written");
        }
        writer.close().expect("it can be written");
        Ok(())
    })?;
    Ok(())
}

/// The sum of the bits of all scores: this work is limited only by memory.
fn sum(labels: &SoftLabels, queries: impl IntoIterator<Item = usize>) -> u64 {
    let teachers = labels.teachers().len();
    queries.into_iter().map(|query| (0..teachers).map(|t| bits(labels.stored(query, t))).sum::<u64>()).sum()
}

fn scan_by_arrow(path: &Path, teachers: usize) -> Result<u64, Box<dyn Error>> {
    let mut sum = 0;
    for_each_batch(path, |batch| {
        for column in &batch.columns()[1..=teachers] {
            let values = column.as_fixed_size_list().values().as_primitive::<Float16Type>();
            sum += values.values().chunks(1000).map(bits).sum::<u64>();
        }
        Ok(())
    })?;
    Ok(sum)
}

fn bits(values: &[f16]) -> u64 {
    values
        .reinterpret_cast()
        .chunks(1 << 16)
        .map(|part| u64::from(part.iter().map(|bits| u32::from(*bits)).sum::<u32>()))
        .sum()
}

/// The median of `values`; the higher one of two middle values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
