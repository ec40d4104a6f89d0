//! A file has the teachers' scores, for our reader and for arrow's reader; a lossy file has the kept scores, and a
//! substitute for the rest.

use arrow::array::AsArray;
use arrow::datatypes::{Float16Type, Float32Type, Float64Type, UInt32Type};
use half::f16;
use kge::model::normal;
use kge::{Matrix, Model, Scorer, row};
use mkg::graph::{Entity, Relation, column, for_each_batch};
use mkg::{EntityId, KnownAnswers, Query, QuerySet, RelationId, Vocabulary};
use parquet::arrow::ArrowWriter;
use program::Progress;
use proptest::prelude::*;
use stage::{Kind, Result, seed};
use std::path::PathBuf;
use tempfile::TempDir;
use training::Data;

use crate::SoftLabels;
use crate::schema::{TOP, excerpt_columns, scores_column, vector_column};
use crate::write::{TrainedTeacher, layout, scored, write_part};

/// A graph of `entities` entities with `queries` queries of one tail each.
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

/// Writes the graph's queries in two parts to a new folder, with all scores or those of `top` entities in each row.
fn write(data: &Data, teachers: &[TrainedTeacher], top: usize) -> Result<(TempDir, [PathBuf; 2])> {
    let folder = tempfile::tempdir().unwrap();
    let progress = Progress::new("test", data.queries.len(), "queries");
    let cut = data.queries.len() / 3;
    let parts = [(0..cut), (cut..data.queries.len())];
    let files = ["a.parquet", "b.parquet"].map(|name| folder.path().join(name));
    for (file, rows) in files.iter().zip(parts) {
        write_part(file, data, &scored(teachers), top, rows, &progress)?;
    }
    Ok((folder, files))
}

fn map(files: &[PathBuf], data: &Data) -> Result<SoftLabels> {
    SoftLabels::map(files, ["structural", "textual"].map(|name| name.parse().unwrap()).to_vec(), data)
}

/// The cache of the graph's teachers, with all scores or those of `top` entities in each row.
fn cached(data: &Data, top: usize) -> SoftLabels {
    let (_folder, files) = write(data, &teachers(data), top).unwrap();
    map(&files, data).unwrap()
}

fn halves(values: &[f32]) -> Vec<f16> {
    values.iter().map(|x| f16::from_f32(*x)).collect()
}

#[test]
fn every_row_is_what_the_teacher_says_however_rows_fall_into_pages() {
    let (mut scores, mut vectors) = (Matrix::default(), Matrix::default());
    // Few entities give several row groups, many several pages; other cases give every remainder of offsets.
    for (entities, queries) in [(3, 9000), (2, 5), (40_000, 70), (7, 100), (16, 101), (63, 64)] {
        let data = graph(entities, queries);
        let labels = cached(&data, 0);
        for (index, teacher) in teachers(&data).iter().enumerate() {
            teacher.model.scores(data.queries.queries(), &mut scores);
            teacher.model.queries(data.queries.queries(), &mut vectors);
            let read = labels.vectors(index);
            for query in 0..queries {
                assert!(labels.stored(query, index) == halves(scores.row(query)), "scores of query {query}");
                assert!(labels.vector(query, index) == halves(vectors.row(query)), "vector of query {query}");
                assert!(halves(read.row(query)) == labels.vector(query, index), "matrix row {query}");
            }
        }
    }
}

#[test]
fn other_readers_of_parquet_see_typed_columns_of_the_same_numbers() {
    let data = graph(40_000, 70);
    let teachers = teachers(&data);
    let (_folder, files) = write(&data, &teachers, 0).unwrap();
    let labels = map(&files, &data).unwrap();
    let mut query = 0;
    for file in &files {
        for_each_batch(file, |batch| {
            for row in 0..batch.num_rows() {
                for (index, TrainedTeacher { modality, .. }) in teachers.iter().enumerate() {
                    let found =
                        |name: &str| column(batch, name).map(|lists| lists.as_fixed_size_list().value(row));
                    let (scores, vector) =
                        (found(&scores_column(modality))?, found(&vector_column(modality))?);
                    assert!(scores.as_primitive::<Float16Type>().values() == labels.stored(query, index));
                    assert!(vector.as_primitive::<Float16Type>().values() == labels.vector(query, index));
                }
                query += 1;
            }
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(query, data.queries.len());
}

#[test]
fn numbers_that_half_precision_cannot_hold_are_refused_kept_or_not() {
    let data = graph(10, 10);
    let values = [(f32::NAN, "not numbers"), (1e5, "up to"), (-1e5, "up to"), (f32::INFINITY, "up to inf")];
    for ((value, said), top) in values.into_iter().flat_map(|case| [(case, 0), (case, 1)]) {
        let mut teachers = teachers(&data);
        teachers[1].model.entity.row_mut(4)[0] = value;
        let error = write(&data, &teachers, top).err().unwrap();
        assert_eq!(error.kind(), Kind::Diverged);
        assert!(error.to_string().contains(said), "{value}, {top}: {error}");
        assert_eq!(error.hint_text(), Some("retrain teacher textual"));
    }
}

#[test]
fn query_vectors_that_half_precision_cannot_hold_are_refused_in_memory_too() {
    let data = graph(10, 10);
    let TrainedTeacher { modality, mut model } = teacher("structural", 3, &data);
    // With small entities the scores fit.
    row::scale(model.entity.values_mut(), 1e-3);
    row::scale(model.relation.values_mut(), 1e9);
    let error = SoftLabels::of_models(vec![modality], &[&model], data.queries.queries()).err().unwrap();
    assert!(error.to_string().contains("query vectors up to"), "{error}");
}

#[test]
fn soft_labels_of_another_graph_are_refused() {
    let mut larger = graph(10, 30);
    larger.vocabulary.entities.push(Entity { key: "new".into(), ..Entity::default() });
    let mut smaller = denser(10, 30);
    smaller.vocabulary.entities.truncate(5);
    for (data, top, other, words) in [
        (graph(10, 30), 0, graph(10, 31), ["30 rows, but the graph has 31 training queries", ""]),
        (graph(10, 30), 0, graph(11, 30), ["is not what the graph has at this row", ""]),
        (graph(10, 30), 0, larger, ["10 scores a row, the graph has 11 entities", ""]),
        (denser(10, 30), 8, graph(10, 30), ["a.parquet: row 1: 2 scores of neighbours, the graph has 1", ""]),
        (denser(10, 30), 8, smaller, ["row 0: column `top`: entity", "graph has 5"]),
    ] {
        let (_folder, files) = write(&data, &teachers(&data), top).unwrap();
        let error = map(&files, &other).err().unwrap().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    }
}

#[test]
fn pages_of_another_writer_are_refused_not_misread() {
    let data = graph(10, 30);
    let teachers = teachers(&data);
    let (_folder, files) = write(&data, &teachers, 0).unwrap();
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
        let (folder, mut files) = write(&data, &teachers(&data), top).unwrap();
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

/// A graph whose queries have up to four neighbours.
fn denser(entities: usize, queries: usize) -> Data {
    let mut data = graph(entities, queries);
    let pairs = data.queries.queries().iter().enumerate().flat_map(|(i, query)| {
        (0..=i % 4).map(move |j| (*query, EntityId(((i * 7 + j * 11) % entities) as u32)))
    });
    data.queries = QuerySet::from_pairs(pairs.collect());
    data
}

fn filled(labels: &SoftLabels, query: usize, teacher: usize, tau: f64) -> Vec<f32> {
    let mut row = vec![f32::NAN; labels.entities()];
    labels.fill(query, teacher, tau, &mut row);
    row
}

#[test]
fn a_row_worked_out_by_hand() {
    // One query with head 0. The embeddings of head and relation are 1, so scores are the entities' embeddings.
    let scores = [1.0, 8.0, 0.5, 0.25, 0.25, 4.0f32];
    let mut data = graph(6, 1);
    let neighbours = [5, 2].map(|tail| (data.queries.query(0), EntityId(tail)));
    data.queries = QuerySet::from_pairs(neighbours.to_vec());
    let embeddings = |values: &[f32]| {
        let pairs = values.iter().flat_map(|x| [*x, 0.0]).collect();
        Matrix::from_values(values.len(), 2, pairs)
    };
    let model = Model::complex(embeddings(&scores), embeddings(&[1.0, 1.0]));
    let modality = stage::Modality::structural();
    let teachers = [TrainedTeacher { modality: modality.clone(), model }];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("part.parquet");
    write_part(&file, &data, &scored(&teachers), 2, 0..1, &Progress::new("test", 1, "queries")).unwrap();
    let labels = SoftLabels::map(&[file], vec![modality], &data).unwrap();
    assert!(!labels.is_whole());
    // The row keeps neighbours 2 and 5, and entities 1 and 0; the rest, 3 and 4, have equal scores, so theirs is exact.
    assert_eq!(labels.stored(0, 0), halves(&[1.0, 8.0]));
    for tau in [1.0, 4.0, f64::INFINITY] {
        assert_eq!(filled(&labels, 0, 0, tau), scores);
    }
    assert!((0..6).all(|entity| labels.score(0, 0, EntityId(entity)) == scores[entity as usize]));
}

#[test]
fn a_row_that_keeps_every_entity_is_whole() {
    // Queries with one neighbour and 15 other entities, or with up to four neighbours, which then fill the list.
    for (data, top) in [(graph(16, 50), 15), (denser(16, 50), 15), (denser(16, 50), 16)] {
        let (whole, lossy) = (cached(&data, 0), cached(&data, top));
        for (query, teacher) in (0..50).flat_map(|query| [(query, 0), (query, 1)]) {
            // The neighbours' scores are not rounded.
            let found = halves(&filled(&lossy, query, teacher, 4.0));
            assert_eq!(found, halves(&filled(&whole, query, teacher, 4.0)));
        }
    }
}

#[test]
fn softened_sums_and_neighbours_are_those_of_the_whole_row() {
    let data = denser(300, 500);
    let (whole, lossy) = (cached(&data, 0), cached(&data, 20));
    for (query, teacher) in (0..500).flat_map(|query| [(query, 0), (query, 1)]) {
        let exact = filled(&whole, query, teacher, 1.0);
        let found = filled(&lossy, query, teacher, 1.0);
        for tail in data.queries.tails(query) {
            assert_eq!(f16::from_f32(found[tail.index()]).to_f32(), exact[tail.index()]);
        }
        let same = found.iter().zip(&exact).filter(|(a, b)| a == b).count();
        assert!(same >= 20);
        assert!((0..300).all(|e| lossy.score(query, teacher, EntityId(e)) == found[e as usize]));
        // The numbers of neighbours and rest come from scores before rounding to 11 bits; scores go up to 30.
        let [exact_sum, sum] = [&exact, &found].map(|row| row::log_sum_exp(row, 1.0));
        assert!((exact_sum - sum).abs() < 1e-2, "{sum}, exactly {exact_sum}");
        let mean = |row: &[f32]| row::sum(row) / 300.0;
        let found = filled(&lossy, query, teacher, f64::INFINITY);
        assert!((mean(&found) - mean(&exact)).abs() < 1e-3);
    }
}

#[test]
fn other_readers_of_parquet_see_which_entities_and_what_rest() {
    let (data, top) = (denser(3000, 200), 7);
    let teachers = teachers(&data);
    let (_folder, files) = write(&data, &teachers, top).unwrap();
    let labels = map(&files, &data).unwrap();
    let mut query = 0;
    for file in &files {
        for_each_batch(file, |batch| {
            let ids = column(batch, TOP)?.as_fixed_size_list();
            for row in 0..batch.num_rows() {
                let ids = ids.value(row);
                let ids = ids.as_primitive::<UInt32Type>().values();
                assert!(ids.is_sorted() && ids.iter().all(|id| (*id as usize) < 3000));
                for (index, teacher) in teachers.iter().enumerate() {
                    let [neighbour_scores, rest, rest_mean] = excerpt_columns(&teacher.modality);
                    let scores = filled(&labels, query, index, 1.0);
                    let number = |name: &str| -> Result<f64> {
                        Ok(column(batch, name)?.as_primitive::<Float64Type>().value(row))
                    };
                    let (log_sum, mean) = (number(&rest)?, number(&rest_mean)?);
                    let tails = data.queries.tails(query).iter().map(|tail| tail.index());
                    let known: Vec<usize> = ids.iter().map(|id| *id as usize).chain(tails).collect();
                    let rest = (0..3000).find(|entity| !known.contains(entity)).unwrap();
                    let each = log_sum - ((3000 - known.len()) as f64).ln();
                    assert!((f64::from(scores[rest]) - each).abs() < 1e-6 && each >= mean);
                    let of_neighbours = column(batch, &neighbour_scores)?.as_list::<i32>().value(row);
                    let of_neighbours = of_neighbours.as_primitive::<Float32Type>().values().iter().copied();
                    let expected = data.queries.tails(query).iter().map(|tail| scores[tail.index()]);
                    assert!(expected.eq(of_neighbours));
                }
                query += 1;
            }
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(query, 200);
}

#[test]
fn a_lossy_cache_is_estimated_at_what_it_takes() {
    let data = denser(500, 2000);
    let teachers = teachers(&data);
    for top in [0, 1, 64, 500] {
        let (_folder, files) = write(&data, &teachers, top).unwrap();
        let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        let estimate = layout(&data, &teachers, top).bytes(data.queries.len(), data.queries.pairs());
        // The estimate leaves out names and footers.
        assert!(
            estimate < bytes + 20_000 && bytes < estimate + 120_000,
            "{top}: {bytes}, {estimate} expected"
        );
    }
}
