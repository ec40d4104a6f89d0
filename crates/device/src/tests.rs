//! Compares the step on candle's CPU device with the golden values and the hand-written engine.

use kge::checkpoint::{NamedTensors, TensorReader};
use kge::model::{even, normal};
use kge::{Backbone, CrossEntropy, Embedding, Initial, Matrix, N3, Scorer, Shape};
use mkg::{EntityId, KnownAnswers, Query, QuerySet, RelationId, Triple};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use recipe::Precision;
use serde_json::Value;
use stage::Kind;

use super::*;
use crate::host::read;

const GOLDEN: &str = include_str!("../../../tests/golden/complex.json");
const ENTITIES: usize = 60;
const N3_WEIGHT: N3 = N3 { weight: 0.01 };

/// The device that tests run on: candle's CPU device, or the one that `DSOM_TEST_DEVICE` names.
pub(crate) fn device() -> Device {
    let asked = std::env::var("DSOM_TEST_DEVICE").unwrap_or_else(|_| "candle".to_owned());
    choose(asked.parse().unwrap()).unwrap().expect("a device, not `cpu`")
}

pub(crate) fn matrix(value: &Value) -> Matrix<f64> {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
    Matrix::from_values(rows.len(), rows[0].len(), rows.concat())
}

/// Asserts that every number of `found` is within `tolerance` of the expected number.
pub(crate) fn assert_close<T: Number>(found: &[T], expected: &[T], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let (found, expected) = (kge::Real::to_f64(*found), kge::Real::to_f64(*expected));
        assert!((found - expected).abs() < tolerance, "{what}[{i}]: {found}, expected {expected}");
    }
}

fn pair(head: u32, relation: u32, tail: u32) -> (Query, EntityId) {
    (Query { head: EntityId(head), relation: RelationId(relation) }, EntityId(tail))
}

/// Queries on 60 entities and two relations, with one to several tails.
pub(crate) fn queries() -> QuerySet {
    QuerySet::from_pairs((0..90).map(|i| pair(i * 7 % 40, i % 2, (i * i + 3 * i) % 60)).collect())
}

/// Two batches that together have all queries.
fn batches(queries: &QuerySet) -> [Vec<u32>; 2] {
    let all = 0..queries.len() as u32;
    [all.clone().filter(|query| query % 3 > 0).collect(), all.filter(|query| query % 3 == 0).collect()]
}

/// Random parameters: a table if `features` is 0, else a projection of `features` features.
fn initial<T: Number>(backbone: Backbone, features: usize) -> Initial<T> {
    let mut generator = ChaCha8Rng::seed_from_u64(6);
    let shape = Shape { backbone, rank: 4, relation_width: 3 };
    let table = normal(ENTITIES, shape.embedding(), 0.4, &mut generator);
    let relation = match backbone {
        Backbone::RotatE => even(2, shape.relation_columns(), 3.0, &mut generator),
        _ => normal(2, shape.relation_columns(), 0.4, &mut generator),
    };
    let core = match shape.core_rows() {
        0 => Matrix::default(),
        rows => normal(rows, shape.embedding(), 0.4, &mut generator),
    };
    let embedding = match features {
        0 => Embedding::Table(table),
        _ => {
            let mut rows = normal(ENTITIES, features, 1.0, &mut generator);
            // An entity without features has an embedding of zeros, where the root has no derivative.
            rows.row_mut(7).fill(T::ZERO);
            let projection = normal(features, shape.embedding(), 0.3, &mut generator);
            Embedding::Projected { features: rows, projection }
        }
    };
    Initial { backbone, embedding, relation, core }
}

/// Numbers of features: none (a table), few (a step goes through the features), many (it goes through the entities).
const FEATURES: [usize; 3] = [0, 3, 50];

fn on_cpu<T: Number>(backbone: Backbone, features: usize) -> kge::Trainer<T> {
    kge::Trainer::new(initial(backbone, features), 0.05, N3_WEIGHT)
}

fn on_device<T: Number>(backbone: Backbone, features: usize, precision: Precision) -> DeviceTrainer<T> {
    DeviceTrainer::new(&device(), &initial(backbone, features), 0.05, N3_WEIGHT, precision).unwrap()
}

fn assert_same_models<T: Number>(found: &kge::Model<T>, expected: &kge::Model<T>, tolerance: f64) {
    for (name, found, expected) in [
        ("entity", &found.entity, &expected.entity),
        ("relation", &found.relation, &expected.relation),
        ("core", &found.core, &expected.core),
    ] {
        assert_close(found.values(), expected.values(), tolerance, name);
    }
}

/// Asserts that both engines give the same losses, model and projection on the same batches.
fn assert_same<T: Number>(backbone: Backbone, features: usize, tolerance: f64) {
    let queries = queries();
    let (mut cpu, mut device) =
        (on_cpu::<T>(backbone, features), on_device::<T>(backbone, features, Precision::F32));
    for batch in batches(&queries).iter().cycle().take(5) {
        let (expected, _) = cpu.step(&queries, batch, &CrossEntropy { queries: &queries }).unwrap();
        let (found, ()) = device.step(&queries, batch, &mut BatchCrossEntropy).unwrap();
        let [found, expected] = [found, expected].map(|loss| [loss.objective, loss.regulariser]);
        assert_close(&found, &expected, tolerance, &format!("{backbone} {features}: loss"));
    }
    let ((expected, of_cpu), (found, projection)) = (cpu.parts(), device.parts().unwrap());
    assert_same_models(found, expected, tolerance);
    let [projection, of_cpu] = [projection, of_cpu].map(|of| of.map_or(&[][..], Matrix::values));
    assert_close(projection, of_cpu, tolerance, "projection");
    assert_eq!(projection.is_empty(), features == 0);
}

#[test]
fn every_backbone_trains_as_on_the_cpu() {
    for backbone in Backbone::ALL {
        for features in FEATURES {
            assert_same::<f64>(backbone, features, 1e-10);
            assert_same::<f32>(backbone, features, 2e-4);
        }
    }
}

#[test]
fn losses_gradients_and_steps_equal_the_golden_values() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let triples: Vec<[u32; 3]> = serde_json::from_value(golden["triples"].clone()).unwrap();
    let queries = QuerySet::from_pairs(triples.iter().map(|[h, r, t]| pair(*h, *r, *t)).collect());
    let batch: Vec<u32> = (0..queries.len() as u32).collect();
    let trainer = |embedding, rate: f64, weight: f64| {
        let initial = Initial::complex(embedding, matrix(&golden["rel"]));
        DeviceTrainer::new(&device(), &initial, rate, N3 { weight }, Precision::F32).unwrap()
    };
    let rate = golden["adagrad"]["lr"].as_f64().unwrap();
    let squares = |trainer: &DeviceTrainer<f64>| read(&trainer.entities.weight.squares).unwrap();
    let mut table = trainer(Embedding::Table(matrix(&golden["ent"])), rate, golden["reg"].as_f64().unwrap());
    let asked: Vec<Query> = triples.iter().map(|[h, r, _]| pair(*h, *r, 0).0).collect();
    let scores = table.model().unwrap().scores(Precision::F32, &asked).unwrap();
    let expected = matrix(&golden["scores"]);
    assert_close(&read::<f64>(&scores).unwrap(), expected.values(), 1e-12, "scores");
    for step in golden["adagrad"]["steps"].as_array().unwrap() {
        let (loss, ()) = table.step(&queries, &batch, &mut BatchCrossEntropy).unwrap();
        let expected = step["loss_before"].as_f64().unwrap();
        assert_close(&[loss.objective + loss.regulariser], &[expected], 1e-12, "loss");
        assert_close::<f64>(&squares(&table), matrix(&step["ent_sum_sq"]).values(), 1e-12, "squares");
        let model = table.parts().unwrap().0;
        assert_close(model.entity.values(), matrix(&step["ent"]).values(), 1e-12, "entities");
        assert_close(model.relation.values(), matrix(&step["rel"]).values(), 1e-12, "relations");
    }
    let golden = &golden["projected"];
    let (mut features, projection) = (matrix(&golden["feats"]), matrix(&golden["W"]));
    kge::row::scale(features.values_mut(), 1.0 / golden["scale"].as_f64().unwrap());
    let mut projected = trainer(Embedding::Projected { features, projection }, 1.0, 0.0);
    let (loss, ()) = projected.step(&queries, &batch, &mut BatchCrossEntropy).unwrap();
    assert_close(&[loss.objective], &[golden["ce_mean"].as_f64().unwrap()], 1e-12, "cross-entropy");
    let expected: Vec<f64> = matrix(&golden["grad_W"]).values().iter().map(|x| x * x).collect();
    assert_close(&squares(&projected), &expected, 1e-12, "squares of the projection's gradient");
}

#[test]
fn a_run_goes_on_at_the_other_place() {
    let (queries, dir) = (queries(), tempfile::tempdir().unwrap());
    let [first, second] = batches(&queries);
    let objective = CrossEntropy { queries: &queries };
    for (backbone, features) in Backbone::ALL.into_iter().flat_map(|backbone| FEATURES.map(|f| (backbone, f)))
    {
        let path = dir.path().join("state.safetensors");
        let write = |state: NamedTensors<'_>| {
            NamedTensors::default().nested("x", state).write(&path).unwrap();
            TensorReader::open(&path).unwrap()
        };
        let fresh =
            || (on_cpu::<f32>(backbone, features), on_device::<f32>(backbone, features, Precision::F32));
        let (mut cpu, mut device) = fresh();
        cpu.step(&queries, &first, &objective).unwrap();
        device.step(&queries, &first, &mut BatchCrossEntropy).unwrap();
        let (mut to_cpu, mut to_device) = fresh();
        to_cpu.restore(&write(device.state().unwrap()), "x").unwrap();
        let saved = write(cpu.state());
        to_device.restore(&saved, "x").unwrap();
        assert_eq!(to_device.parts().unwrap().1, cpu.parts().1);
        for name in ["parameters", "relation_squares"].map(|name| format!("x.{name}")) {
            let again = write(to_device.state().unwrap()).matrix(&name).unwrap();
            assert_eq!(again, saved.matrix(&name).unwrap(), "{backbone} {name}: the same bits");
        }
        cpu.step(&queries, &second, &objective).unwrap();
        to_cpu.step(&queries, &second, &objective).unwrap();
        to_device.step(&queries, &second, &mut BatchCrossEntropy).unwrap();
        assert_same_models(to_cpu.model(), cpu.model(), 2e-4);
        assert_same_models(to_device.parts().unwrap().0, cpu.model(), 2e-4);
    }
    let rotations = TensorReader::open(&dir.path().join("state.safetensors")).unwrap();
    let error = on_device::<f32>(Backbone::ComplEx, 3, Precision::F32).restore(&rotations, "x").unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
}

#[test]
fn bf16_is_near_full_precision() {
    let queries = queries();
    let losses = |precision| {
        let mut trainer = on_device::<f32>(Backbone::ComplEx, 0, precision);
        let mut step = || trainer.step(&queries, &batches(&queries)[0], &mut BatchCrossEntropy).unwrap().0;
        (0..4).map(|_| step().objective).last().unwrap()
    };
    let (full, rounded) = (losses(Precision::F32), losses(Precision::Bf16));
    assert!(full != rounded && (full - rounded).abs() < 2e-2 * full, "{rounded}, {full} in f32");
    assert!(device().is_cuda() || full == losses(Precision::Tf32));
}

/// Triples, two of which ask the same query, and the filter.
fn triples() -> (Vec<Triple>, KnownAnswers) {
    let triple = |i: u32| Triple::new(i * 7 % 40, 0, (i * i + 3 * i) % 60);
    let triples: Vec<Triple> = (0..40).map(triple).collect();
    let known: Vec<Triple> = (0..90).map(triple).collect();
    (triples, KnownAnswers::new([known.as_slice()], 1))
}

/// The mean of two models' scores.
struct MeanOf<'a>(&'a [kge::Model<f32>; 2]);

impl Scorer for MeanOf<'_> {
    fn entities(&self) -> usize {
        self.0[0].entities()
    }

    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) {
        let mut second = Matrix::zeros(0, 0);
        self.0[0].scores(queries, into);
        self.0[1].scores(queries, &mut second);
        kge::row::add_scaled(into.values_mut(), 1.0, second.values());
        kge::row::scale(into.values_mut(), 0.5);
    }
}

#[test]
fn ranks_and_confidences_are_those_of_the_cpu() {
    let (triples, known) = triples();
    for backbone in Backbone::ALL {
        let (mut cpu, mut trainer) =
            (on_cpu::<f32>(backbone, 0), on_device::<f32>(backbone, 0, Precision::Bf16));
        let expected = kge::rank_triples(cpu.model(), &triples, 1, &known, &mut |_| Ok(())).unwrap();
        let found = rank_triples(&[trainer.model().unwrap()], &triples, 1, &known, |_| Ok(())).unwrap();
        assert_eq!(found, expected, "{backbone}");
        let models = [cpu.model().clone(), on_cpu(backbone, 3).model().clone()];
        let expected = kge::judge_triples(&MeanOf(&models), &triples, 1, &known, &mut |_| Ok(())).unwrap();
        let models = models.map(|model| DeviceModel::new(&device(), &model).unwrap());
        let found = judge_triples(&models, &triples, 1, &known, |_| Ok(())).unwrap();
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert_eq!(found.rank, expected.rank, "{backbone}");
            assert!((found.confidence - expected.confidence).abs() < 1e-5, "{found:?}, {expected:?}");
        }
    }
}

#[test]
fn scores_that_are_not_finite_are_an_error() {
    let (triples, known) = triples();
    let mut model = on_cpu::<f32>(Backbone::DistMult, 0).model().clone();
    model.entity.row_mut(59)[0] = f32::INFINITY;
    let model = DeviceModel::new(&device(), &model).unwrap();
    let error = rank_triples(&[model], &triples, 1, &known, |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), Kind::Diverged);
}

#[test]
fn only_losses_and_ranks_come_back() {
    let (queries, (triples, known)) = (queries(), triples());
    let mut trainer = on_device::<f32>(Backbone::TuckER, 0, Precision::F32);
    let before = numbers_read();
    for batch in &batches(&queries) {
        trainer.step(&queries, batch, &mut BatchCrossEntropy).unwrap();
    }
    assert_eq!(numbers_read() - before, 2 * 2, "the objective's loss and the regulariser's of each step");
    let before = numbers_read();
    rank_triples(&[trainer.model().unwrap()], &triples, 1, &known, |_| Ok(())).unwrap();
    let asked = QuerySet::new(&triples, 1);
    let expected = asked.len() + 5 * asked.pairs();
    assert_eq!(numbers_read() - before, expected, "four counts and a score of each target");
}

#[test]
fn what_training_takes_is_estimated_beyond_what_it_takes_on_the_cpu() {
    for backbone in Backbone::ALL {
        let shape = Shape { backbone, rank: 100, relation_width: 20 };
        for features in FEATURES {
            let of_cpu = kge::Trainer::memory(shape, 1000, 500, 200, features);
            assert!(DeviceTrainer::memory(shape, 1000, 500, 200, features) > of_cpu);
        }
        assert_eq!(DeviceTrainer::memory(shape, usize::MAX, 500, 200, 0), u64::MAX);
    }
}

#[test]
fn teachers_say_what_their_models_or_the_cache_say() {
    let queries = queries();
    let models = [Backbone::ComplEx, Backbone::RotatE].map(|of| on_cpu::<f32>(of, 0).model().clone());
    let mut rows = vec![Vec::new(); 4];
    for (teacher, model) in models.iter().enumerate() {
        let [mut scores, mut vectors] = <[Matrix<f32>; 2]>::default();
        kge::Scorer::scores(model, queries.queries(), &mut scores);
        model.queries(queries.queries(), &mut vectors);
        for (place, matrix) in [(teacher, scores), (2 + teacher, vectors)] {
            let halves = matrix.values().iter().map(|x| half::f16::from_f32(*x)).collect::<Vec<_>>();
            rows[place] = halves.chunks(matrix.columns()).map(<[_]>::to_vec).collect();
        }
    }
    let cache = TeacherSource::Cache {
        teachers: 2,
        scores: Box::new(|query, teacher| &rows[teacher][query]),
        vectors: Box::new(|query, teacher| &rows[2 + teacher][query]),
    };
    let new = |source| DeviceTeachers::new::<f32>(&device(), Precision::F32, source);
    let computed = models.iter().map(|model| DeviceModel::new(&device(), model).unwrap());
    let (mut computed, mut copied) = (new(TeacherSource::Models(computed.collect())), new(cache));
    for batch in [&[0, 5, 9, 20, 3, 7][..], &[1, 2, 3], &[1, 2, 3], &[8]] {
        let [computed, copied] = [&mut computed, &mut copied].map(|teachers| {
            let vectors = teachers.vectors(&queries, batch).unwrap();
            let scores = teachers.scores(&queries, batch).unwrap().to_vec();
            scores.into_iter().chain(vectors).map(|of| read::<f32>(&of).unwrap()).collect::<Vec<_>>()
        });
        for (computed, copied) in computed.iter().zip(&copied) {
            // A cached number has 11 bits.
            assert_close(computed, copied, 5e-3, "scores, then vectors");
        }
    }
}
