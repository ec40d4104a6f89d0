use kge::checkpoint::{Reader, Tensors};
use kge::model::normal;
use mkg::{EntityId, RelationId};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::*;
use crate::test_device::gpu;

const GOLDEN: &str = include_str!("../../../../tests/golden/complex.json");

/// Between single precision here and there, on numbers of order 1: sums in another order, fused multiplications.
const TOLERANCE: f64 = 1e-4;
/// Adagrad's first step is `lr · g / |g|`: where a gradient is all but zero, its rounding is a share of the learning rate
/// of 0.1. Such parameters are few, so the root of the mean square is held tighter.
const FARTHEST: f64 = 1e-2;
const ROOT_MEAN_SQUARE: f64 = 3e-5;

fn pair(head: u32, relation: u32, tail: u32) -> (Query, EntityId) {
    (Query { head: EntityId(head), relation: RelationId(relation) }, EntityId(tail))
}

fn all(queries: &QuerySet) -> Vec<u32> {
    (0..queries.len() as u32).collect()
}

fn matrix(value: &Value) -> Matrix<f32> {
    let rows: Vec<Vec<f32>> = serde_json::from_value(value.clone()).unwrap();
    Matrix::from_values(rows.len(), rows[0].len(), rows.concat())
}

fn assert_close(found: &Matrix<f32>, expected: &Matrix<f32>, what: &str) {
    assert_eq!((found.rows(), found.columns()), (expected.rows(), expected.columns()), "{what}");
    for (i, (a, b)) in found.values().iter().zip(expected.values()).enumerate() {
        assert!(f64::from((a - b).abs()) < TOLERANCE, "{what}[{i}]: {a}, expected {b}");
    }
}

fn assert_near(found: &Matrix<f32>, expected: &Matrix<f32>, what: &str) {
    assert_eq!((found.rows(), found.columns()), (expected.rows(), expected.columns()), "{what}");
    let differences = || found.values().iter().zip(expected.values()).map(|(a, b)| f64::from(a - b));
    let farthest = differences().map(f64::abs).fold(0.0, f64::max);
    let square = differences().map(|d| d * d).sum::<f64>() / found.values().len() as f64;
    assert!(farthest < FARTHEST && square.sqrt() < ROOT_MEAN_SQUARE, "{what}: {farthest}, {}", square.sqrt());
}

#[test]
fn steps_equal_the_reference() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let triples: Vec<[u32; 3]> = serde_json::from_value(golden["triples"].clone()).unwrap();
    let queries = QuerySet::from_pairs(triples.into_iter().map(|[h, r, t]| pair(h, r, t)).collect());
    let n3 = N3 { weight: golden["reg"].as_f64().unwrap() };
    let rate = golden["adagrad"]["lr"].as_f64().unwrap();
    let (gpu, table) = (gpu(), Embedding::Table(matrix(&golden["ent"])));
    let mut trainer =
        Trainer::new(&gpu, Initial::complex(table, matrix(&golden["rel"])), rate, n3, Precision::F32)
            .unwrap();
    for step in golden["adagrad"]["steps"].as_array().unwrap() {
        let mut objective = CrossEntropy::new(&gpu);
        let (loss, ()) = trainer.step(&queries, &all(&queries), &mut objective).unwrap();
        let expected = step["loss_before"].as_f64().unwrap();
        assert!((loss.objective + loss.regulariser - expected).abs() < TOLERANCE, "{loss:?}, {expected}");
        let (model, _) = trainer.parts().unwrap();
        assert_close(&model.entity, &matrix(&step["ent"]), "entities");
        assert_close(&model.relation, &matrix(&step["rel"]), "relations");
        assert_close(&trainer.mirror.squares, &matrix(&step["ent_sum_sq"]), "squares");
    }
}

/// Queries of 500 entities and 4 relations, some with several tails, and heads that are tails.
fn queries() -> QuerySet {
    let pairs = (0..400).map(|i| pair(i * 7 % 130, i % 4, i * 11 % 500));
    QuerySet::from_pairs(pairs.collect())
}

/// Initial parameters: a table, and features of so many columns.
fn initial(features: Option<usize>) -> (Embedding<f32>, Matrix<f32>) {
    let mut generator = ChaCha8Rng::seed_from_u64(8);
    let embedding = match features {
        None => Embedding::Table(normal(500, 64, 0.3, &mut generator)),
        Some(columns) => Embedding::Projected {
            features: normal(500, columns, 0.3, &mut generator),
            projection: normal(columns, 64, 0.3, &mut generator),
            scale: 2.0,
        },
    };
    (embedding, normal(4, 64, 0.3, &mut generator))
}

const WEIGHT: N3 = N3 { weight: 0.01 };

/// Three steps, each on another batch, beside the CPU's.
fn assert_trains_as_the_cpu_does(features: Option<usize>) {
    let (queries, gpu) = (queries(), gpu());
    let (embedding, relation) = initial(features);
    let mut ours = Trainer::new(
        &gpu,
        Initial::complex(embedding.clone(), relation.clone()),
        0.1,
        WEIGHT,
        Precision::F32,
    )
    .unwrap();
    let mut theirs = kge::Trainer::new(Initial::complex(embedding, relation), 0.1, WEIGHT);
    let mut objective = CrossEntropy::new(&gpu);
    let order = all(&queries);
    for batch in [&order[..100], &order[50..200], &order[..]] {
        let (found, ()) = ours.step(&queries, batch, &mut objective).unwrap();
        let cross_entropy = kge::CrossEntropy { queries: &queries };
        let (expected, _) = theirs.step(&queries, batch, &cross_entropy).unwrap();
        assert_eq!(found.pairs, expected.pairs);
        assert!((found.objective - expected.objective).abs() < TOLERANCE, "{found:?} {expected:?}");
        assert!((found.regulariser - expected.regulariser).abs() < TOLERANCE, "{found:?} {expected:?}");
        let ((model, projection), (their_model, their_projection)) = (ours.parts().unwrap(), theirs.parts());
        assert_near(&model.entity, &their_model.entity, "entities");
        assert_near(&model.relation, &their_model.relation, "relations");
        assert_eq!(projection.is_some(), their_projection.is_some());
        if let (Some(projection), Some(expected)) = (projection, their_projection) {
            assert_near(projection, expected, "projection");
        }
    }
}

#[test]
fn a_free_table_trains_as_on_the_cpu() {
    assert_trains_as_the_cpu_does(None);
}

#[test]
fn a_projection_trains_as_on_the_cpu_both_ways() {
    let used = 500;
    assert_eq!(Way::cheaper(500, 20, 64, 100, used), Way::Features);
    assert_trains_as_the_cpu_does(Some(20));
    assert_eq!(Way::cheaper(500, 300, 64, 100, 150), Way::Entities);
    assert_trains_as_the_cpu_does(Some(300));
}

#[test]
fn a_table_of_several_blocks_trains_as_on_the_cpu() {
    let entities = BLOCK as u32 + 10;
    let queries =
        QuerySet::from_pairs((0..20).map(|i| pair(i * 411 % entities, 0, entities - 1 - i)).collect());
    let (gpu, mut generator) = (gpu(), ChaCha8Rng::seed_from_u64(9));
    let table = Embedding::Table(normal(entities as usize, 4, 0.5, &mut generator));
    let relation = normal(1, 4, 0.5, &mut generator);
    let mut ours =
        Trainer::new(&gpu, Initial::complex(table.clone(), relation.clone()), 0.1, WEIGHT, Precision::F32)
            .unwrap();
    ours.step(&queries, &all(&queries), &mut CrossEntropy::new(&gpu)).unwrap();
    let mut theirs = kge::Trainer::new(Initial::complex(table, relation), 0.1, WEIGHT);
    theirs.step(&queries, &all(&queries), &kge::CrossEntropy { queries: &queries }).unwrap();
    assert_near(&ours.parts().unwrap().0.entity, &theirs.model().entity, "entities");
}

#[test]
fn training_goes_on_with_the_other_device() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    let (queries, gpu) = (queries(), gpu());
    for features in [None, Some(20)] {
        let ours = || {
            let (embedding, relation) = initial(features);
            Trainer::new(&gpu, Initial::complex(embedding, relation), 0.1, WEIGHT, Precision::F32).unwrap()
        };
        let theirs = || {
            let (embedding, relation) = initial(features);
            kge::Trainer::new(Initial::complex(embedding, relation), 0.1, WEIGHT)
        };
        let on_gpu = |trainer: &mut Trainer| {
            trainer.step(&queries, &all(&queries), &mut CrossEntropy::new(&gpu)).unwrap();
        };
        let on_cpu = |trainer: &mut kge::Trainer<f32>| {
            trainer.step(&queries, &all(&queries), &kge::CrossEntropy { queries: &queries }).unwrap();
        };
        let mut expected = theirs();
        (0..2).for_each(|_| on_cpu(&mut expected));

        let (mut first, mut second) = (ours(), theirs());
        on_gpu(&mut first);
        Tensors::default().nested("x", first.state().unwrap()).write(&path).unwrap();
        second.restore(&Reader::open(&path).unwrap(), "x").unwrap();
        on_cpu(&mut second);
        assert_near(&second.model().entity, &expected.model().entity, "from the device to the CPU");

        let (mut first, mut second) = (theirs(), ours());
        on_cpu(&mut first);
        Tensors::default().nested("x", first.state()).write(&path).unwrap();
        second.restore(&Reader::open(&path).unwrap(), "x").unwrap();
        on_gpu(&mut second);
        assert_near(
            &second.parts().unwrap().0.entity,
            &expected.model().entity,
            "from the CPU to the device",
        );
    }
}

#[test]
fn a_device_gives_the_same_bits_every_time() {
    let (queries, gpu) = (queries(), gpu());
    let trained = || {
        let (embedding, relation) = initial(Some(20));
        let mut trainer =
            Trainer::new(&gpu, Initial::complex(embedding, relation), 0.1, WEIGHT, Precision::F32).unwrap();
        for _ in 0..3 {
            trainer.step(&queries, &all(&queries), &mut CrossEntropy::new(&gpu)).unwrap();
        }
        trainer.parts().unwrap().0.clone()
    };
    assert_eq!(trained(), trained());
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let (queries, gpu) = (queries(), gpu());
    let (_, relation) = initial(None);
    let mut table = Matrix::zeros(500, 64);
    table.row_mut(3)[5] = f32::NAN;
    let table = Embedding::Table(table);
    let mut trainer =
        Trainer::new(&gpu, Initial::complex(table, relation), 0.1, WEIGHT, Precision::F32).unwrap();
    let error = trainer.require_finite().unwrap_err();
    assert_eq!(error.kind(), Kind::Diverged);
    let ranks = trainer.rank_triples(&[Triple::new(0, 0, 1)], 2, &KnownAnswers::default(), |_| Ok(()));
    assert_eq!(ranks.unwrap_err().kind(), Kind::Diverged);
    let error = trainer.step(&queries, &all(&queries), &mut CrossEntropy::new(&gpu)).unwrap_err();
    assert_eq!(error.kind(), Kind::Diverged);
}

#[test]
fn the_estimate_of_memory_holds() {
    let queries = queries();
    let pairs = queries.pairs();
    for features in [None, Some(20), Some(300)] {
        let needed = Trainer::memory(500, 64, pairs, queries.len(), features.unwrap_or(0));
        // Lists and the relations' rows are small change: a percent and a megabyte.
        let gpu = Gpu::emulated_with(needed + needed / 100 + (1 << 20));
        let (embedding, relation) = initial(features);
        let mut trainer =
            Trainer::new(&gpu, Initial::complex(embedding, relation), 0.1, WEIGHT, Precision::F32).unwrap();
        trainer.step(&queries, &all(&queries), &mut CrossEntropy::new(&gpu)).unwrap();
        trainer.rank_triples(&[Triple::new(0, 0, 1)], 2, &KnownAnswers::default(), |_| Ok(())).unwrap();
    }
}

#[test]
fn memory_that_runs_out_is_an_error_and_is_foreseen() {
    let gpu = Gpu::emulated_with(300_000);
    let (embedding, relation) = initial(None);
    let mut trainer =
        Trainer::new(&gpu, Initial::complex(embedding, relation), 0.1, WEIGHT, Precision::F32).unwrap();
    let queries = queries();
    let error = trainer.step(&queries, &all(&queries), &mut CrossEntropy::new(&gpu)).unwrap_err();
    assert_eq!(error.kind(), Kind::Resource);
    // What was trained is still there to be saved.
    trainer.parts().unwrap();

    let gpu = Gpu::emulated_with(5000);
    let bytes = |batch: usize| 10 * batch as u64;
    gpu.require_memory(bytes, 500, "training", "teachers.batch").unwrap();
    let error = gpu.require_memory(bytes, 1000, "training", "teachers.batch").unwrap_err();
    assert_eq!(error.kind(), Kind::Resource);
    assert!(error.hint_text().unwrap().contains("teachers.batch=500"), "{:?}", error.hint_text());
    let error = gpu.require_memory(|_| 6000, 1000, "training", "teachers.batch").unwrap_err();
    assert!(error.hint_text().unwrap().contains("lower the rank"));
}
