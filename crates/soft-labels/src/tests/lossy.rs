//! Tests of what a lossy cache keeps, and what stands for the rest.

use arrow::datatypes::{Float32Type, Float64Type, UInt32Type};
use kge::row;

use super::*;
use crate::schema::TOP;

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

/// A graph's cache with all scores, and its lossy one.
fn both(data: &Data, top: usize) -> (SoftLabels, SoftLabels) {
    let teachers = teachers(data);
    let of = |top: usize| {
        let folder = tempfile::tempdir().unwrap();
        map(&write(folder.path(), data, &teachers, top).unwrap(), data).unwrap()
    };
    (of(0), of(top))
}

#[test]
fn a_row_worked_out_by_hand() {
    // One query of entity 0, whose embedding is 1 as its relation's is: scores are the entities' embeddings.
    let scores = [1.0, 8.0, 0.5, 0.25, 0.25, 4.0f32];
    let mut data = graph(6, 1);
    let neighbours = [5, 2].map(|tail| (data.queries.query(0), EntityId(tail)));
    data.queries = QuerySet::from_pairs(neighbours.to_vec());
    let embeddings = |values: &[f32]| {
        let pairs = values.iter().flat_map(|x| [*x, 0.0]).collect();
        Matrix::from_values(values.len(), 2, pairs)
    };
    let model = Model::complex(embeddings(&scores), embeddings(&[1.0, 1.0]));
    let modality = "structural".parse::<stage::Modality>().unwrap();
    let teachers = [TrainedTeacher { modality: modality.clone(), model }];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("part.parquet");
    write_part(&file, &data, (&teachers, &scorers(&teachers)), 2, 0..1, &Progress::new("test", 1, "queries"))
        .unwrap();
    let labels = SoftLabels::map(&[file], vec![modality], &data).unwrap();
    assert!(!labels.is_whole());
    // Beside the neighbours 2 and 5, entities 1 and 0; the rest, 3 and 4, have one score, so their place is exact.
    assert_eq!(labels.stored(0, 0), halves(&[1.0, 8.0]));
    for tau in [1.0, 4.0, f64::INFINITY] {
        assert_eq!(filled(&labels, 0, 0, tau), scores);
    }
    assert!((0..6).all(|entity| labels.score(0, 0, EntityId(entity)) == scores[entity as usize]));
}

#[test]
fn a_row_that_keeps_every_entity_is_whole() {
    // Queries with one neighbour and 15 others; with up to four, which then fill the list.
    for (data, top) in [(graph(16, 50), 15), (denser(16, 50), 15), (denser(16, 50), 16)] {
        let (whole, lossy) = both(&data, top);
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
    let (whole, lossy) = both(&data, 20);
    for (query, teacher) in (0..500).flat_map(|query| [(query, 0), (query, 1)]) {
        let exact = filled(&whole, query, teacher, 1.0);
        let found = filled(&lossy, query, teacher, 1.0);
        for tail in data.queries.tails(query) {
            assert_eq!(f16::from_f32(found[tail.index()]).to_f32(), exact[tail.index()]);
        }
        let same = found.iter().zip(&exact).filter(|(a, b)| a == b).count();
        assert!(same >= 20);
        assert!((0..300).all(|e| lossy.score(query, teacher, EntityId(e)) == found[e as usize]));
        // Neighbours and rest are summed before scores, which go up to 30, are rounded to 11 bits.
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
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), &data, &teachers, top).unwrap();
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
                    let name = |kind: &str| format!("{kind}_{}", teacher.modality);
                    let scores = filled(&labels, query, index, 1.0);
                    let number = |kind: &str| -> Result<f64> {
                        Ok(column(batch, &name(kind))?.as_primitive::<Float64Type>().value(row))
                    };
                    let (log_sum, mean) = (number("rest")?, number("rest_mean")?);
                    let known: Vec<usize> = ids
                        .iter()
                        .map(|id| *id as usize)
                        .chain(data.queries.tails(query).iter().map(|tail| tail.index()))
                        .collect();
                    let rest = (0..3000).find(|entity| !known.contains(entity)).unwrap();
                    let each = log_sum - ((3000 - known.len()) as f64).ln();
                    assert!((f64::from(scores[rest]) - each).abs() < 1e-6 && each >= mean);
                    let of_neighbours = column(batch, &name("neighbour_scores"))?.as_list::<i32>().value(row);
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
fn excerpts_of_another_graph_are_refused() {
    let (data, folder) = (denser(10, 30), tempfile::tempdir().unwrap());
    let files = write(folder.path(), &data, &teachers(&data), 8).unwrap();
    let said = |other: &Data| map(&files, other).err().unwrap().to_string();
    let error = said(&graph(10, 30));
    assert!(error.contains("a.parquet: row 1: 2 scores of neighbours, the graph has 1"), "{error}");
    let mut smaller = denser(10, 30);
    smaller.vocabulary.entities.truncate(5);
    let error = said(&smaller);
    assert!(error.contains("row 0: column `top`: entity") && error.contains("graph has 5"), "{error}");
}

#[test]
fn numbers_left_out_are_checked_as_those_kept_are() {
    let data = graph(10, 10);
    for (value, said) in [(f32::NAN, "not numbers"), (-1e5, "up to")] {
        let mut teachers = teachers(&data);
        teachers[1].model.entity.row_mut(4)[0] = value;
        let folder = tempfile::tempdir().unwrap();
        let error = write(folder.path(), &data, &teachers, 1).err().unwrap();
        assert_eq!(error.kind(), Kind::Diverged);
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_lossy_cache_is_estimated_at_what_it_takes() {
    let data = denser(500, 2000);
    let teachers = teachers(&data);
    for top in [0, 1, 64, 500] {
        let folder = tempfile::tempdir().unwrap();
        let files = write(folder.path(), &data, &teachers, top).unwrap();
        let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        let estimate = layout(&data, &teachers, top).bytes(data.queries.len(), data.queries.pairs());
        // Names and footers are not in it.
        assert!(
            estimate < bytes + 20_000 && bytes < estimate + 120_000,
            "{top}: {bytes}, {estimate} expected"
        );
    }
}
