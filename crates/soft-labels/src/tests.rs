//! The file has what the teachers say, for our reader and for arrow's.

use arrow::array::AsArray;
use arrow::datatypes::Float16Type;
use half::f16;
use kge::model::normal;
use kge::{Matrix, Model, Scorer};
use mkg::graph::{Entity, Relation, column, for_each_batch};
use mkg::{EntityId, KnownAnswers, Query, QuerySet, RelationId, Vocabulary};
use parquet::arrow::ArrowWriter;
use program::Progress;
use proptest::prelude::*;
use stage::{Kind, Result, seed};
use std::path::{Path, PathBuf};
use training::Data;

use crate::SoftLabels;
use crate::schema::{scores_column, vector_column};
use crate::write::{TrainedTeacher, layout, scorers, write_part};

mod lossy;

/// A graph of so many entities in which every entity asks one question.
fn graph(entities: usize, queries: usize) -> Data {
    let entity = |i: usize| Entity { key: format!("e{i}"), ..Entity::default() };
    let relation = |i: usize| Relation { key: format!("r{i}"), name: None };
    let relations = queries.div_ceil(entities);
    let pair = |i: usize| {
        let query =
            Query { head: EntityId((i % entities) as u32), relation: RelationId((i / entities) as u32) };
        (query, EntityId((i * 7 % entities) as u32))
    };
    Data {
        vocabulary: Vocabulary {
            entities: (0..entities).map(entity).collect(),
            relations: (0..relations).map(relation).collect(),
        },
        queries: QuerySet::from_pairs((0..queries).map(pair).collect()),
        valid: Vec::new(),
        known: KnownAnswers::default(),
    }
}

fn teacher(name: &str, rank: usize, data: &Data) -> TrainedTeacher {
    let mut generator = seed::generator(7, name, 0);
    let mut table = |rows: usize| normal(rows, 2 * rank, 1.0, &mut generator);
    let model = Model::complex(table(data.entities()), table(2 * data.relations()));
    TrainedTeacher { modality: name.parse().unwrap(), model }
}

fn teachers(data: &Data) -> Vec<TrainedTeacher> {
    vec![teacher("structural", 3, data), teacher("textual", 5, data)]
}

/// Writes the graph's queries in two parts, with all scores or those of `top` entities a row.
fn write(folder: &Path, data: &Data, teachers: &[TrainedTeacher], top: usize) -> Result<[PathBuf; 2]> {
    let progress = Progress::new("test", data.queries.len() as u64, "queries");
    let cut = data.queries.len() / 3;
    let parts = [(0..cut), (cut..data.queries.len())];
    let files = [folder.join("a.parquet"), folder.join("b.parquet")];
    for (file, rows) in files.iter().zip(parts) {
        write_part(file, data, (teachers, &scorers(teachers)), top, rows, &progress)?;
    }
    Ok(files)
}

fn map(files: &[PathBuf], data: &Data) -> Result<SoftLabels> {
    SoftLabels::map(files, ["structural", "textual"].map(|name| name.parse().unwrap()).to_vec(), data)
}

fn halves(values: &[f32]) -> Vec<f16> {
    values.iter().map(|x| f16::from_f32(*x)).collect()
}

/// Compares the cache's rows with what the teachers say.
fn assert_told(labels: &SoftLabels, data: &Data, teachers: &[TrainedTeacher]) {
    let (mut scores, mut vectors) = (Matrix::zeros(0, 0), Matrix::zeros(0, 0));
    for (index, teacher) in teachers.iter().enumerate() {
        teacher.model.scores(data.queries.queries(), &mut scores);
        teacher.model.queries(data.queries.queries(), &mut vectors);
        let read = labels.vectors(index);
        for query in 0..data.queries.len() {
            assert!(labels.stored(query, index) == halves(scores.row(query)), "scores of query {query}");
            assert!(labels.vector(query, index) == halves(vectors.row(query)), "vector of query {query}");
            assert!(halves(read.row(query)) == labels.vector(query, index), "matrix row {query}");
        }
    }
}

#[test]
fn every_row_is_what_the_teacher_says_however_rows_fall_into_pages() {
    // Few entities: several row groups. Many: several pages. The others: every remainder of the offsets.
    for (entities, queries) in [(3, 9000), (2, 5), (40_000, 70), (7, 100), (16, 101), (63, 64)] {
        let data = graph(entities, queries);
        let teachers = teachers(&data);
        let folder = tempfile::tempdir().unwrap();
        let labels = map(&write(folder.path(), &data, &teachers, 0).unwrap(), &data).unwrap();
        assert_told(&labels, &data, &teachers);
    }
}

#[test]
fn other_readers_of_parquet_see_typed_columns_of_the_same_numbers() {
    let data = graph(40_000, 70);
    let teachers = teachers(&data);
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), &data, &teachers, 0).unwrap();
    let labels = map(&files, &data).unwrap();
    for (index, teacher) in teachers.iter().enumerate() {
        for (name, scores) in
            [(scores_column(&teacher.modality), true), (vector_column(&teacher.modality), false)]
        {
            let mut query = 0;
            for file in &files {
                for_each_batch(file, |batch| {
                    for row in column(batch, &name)?.as_fixed_size_list().iter() {
                        let expected =
                            if scores { labels.stored(query, index) } else { labels.vector(query, index) };
                        assert!(row.unwrap().as_primitive::<Float16Type>().values() == expected);
                        query += 1;
                    }
                    Ok(())
                })
                .unwrap();
            }
            assert_eq!(query, data.queries.len());
        }
    }
}

#[test]
fn numbers_that_half_precision_cannot_hold_are_refused() {
    let data = graph(10, 10);
    for (value, said) in [(f32::NAN, "not numbers"), (1e5, "up to"), (f32::INFINITY, "up to inf")] {
        let mut teachers = teachers(&data);
        teachers[1].model.entity.row_mut(4)[0] = value;
        let folder = tempfile::tempdir().unwrap();
        let error = write(folder.path(), &data, &teachers, 0).err().unwrap();
        assert_eq!(error.kind(), Kind::Diverged);
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(error.hint_text(), Some("retrain teacher textual"));
    }
}

#[test]
fn soft_labels_of_another_graph_are_refused() {
    let data = graph(10, 30);
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), &data, &teachers(&data), 0).unwrap();
    let said = |other: &Data| map(&files, other).err().unwrap().to_string();
    assert!(said(&graph(10, 31)).contains("30 rows, but the graph has 31 training queries"));
    assert!(said(&graph(11, 30)).contains("is not what the graph has at this row"));
    let mut larger = graph(10, 30);
    larger.vocabulary.entities.push(Entity { key: "new".into(), ..Entity::default() });
    assert!(said(&larger).contains("10 scores a row, the graph has 11 entities"));
}

#[test]
fn pages_of_another_writer_are_refused_not_misread() {
    let data = graph(10, 30);
    let (teachers, folder) = (teachers(&data), tempfile::tempdir().unwrap());
    let files = write(folder.path(), &data, &teachers, 0).unwrap();
    let file = &files[0];
    let schema = std::sync::Arc::new(layout(&data, &teachers, 0).schema());
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
    for_each_batch(file, |batch| {
        writer.write(batch).unwrap();
        Ok(())
    })
    .unwrap();
    std::fs::write(file, writer.into_inner().unwrap()).unwrap();
    let error = map(&files, &data).err().unwrap();
    assert!(error.to_string().contains("has pages this program did not write"), "{error}");
    assert_eq!(error.hint_text(), Some("rerun `dsom-soft-labels` with --force"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damage_is_an_error_or_harmless_but_never_a_panic(
        at in 0.0..1.0, byte: u8, keep in 0.0..1.0, top in prop::sample::select(vec![0, 4])
    ) {
        let data = graph(10, 30);
        let folder = tempfile::tempdir().unwrap();
        let mut files = write(folder.path(), &data, &teachers(&data), top).unwrap();
        let bytes = std::fs::read(&files[0]).unwrap();
        let mut damaged = bytes.clone();
        damaged[(at * bytes.len() as f64) as usize] = byte;
        files[0] = folder.path().join("damaged.parquet");
        for damaged in [&damaged[..], &bytes[..(keep * bytes.len() as f64) as usize]] {
            std::fs::write(&files[0], damaged).unwrap();
            if let Ok(labels) = map(&files, &data) {
                (0..30).for_each(|query| labels.fill(query, 1, 2.0, &mut [0.0; 10]));
            }
        }
    }
}
