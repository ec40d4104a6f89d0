use dsom_tests::assert_close;
use mkg::{EntityId, Query, QuerySet, RelationId};
use rand::SeedableRng;
use serde_json::Value;

use super::*;
use crate::matrix::bf16::Kernel;
use crate::model::normal;

mod backbones;

const GOLDEN: &str = include_str!("../../../../tests/golden/complex.json");

fn matrix(value: &Value) -> Matrix<f64> {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
    Matrix::from_values(rows.len(), rows[0].len(), rows.concat())
}

fn pair(head: u32, relation: u32, tail: u32) -> (Query, EntityId) {
    (Query { head: EntityId(head), relation: RelationId(relation) }, EntityId(tail))
}

/// The golden file's triples are pairs of query and tail already.
fn golden_queries(golden: &Value) -> QuerySet {
    let triples: Vec<[u32; 3]> = serde_json::from_value(golden["triples"].clone()).unwrap();
    QuerySet::from_pairs(triples.into_iter().map(|[h, r, t]| pair(h, r, t)).collect())
}

fn all(queries: &QuerySet) -> Vec<u32> {
    (0..queries.len() as u32).collect()
}

fn golden_trainer(golden: &Value) -> Trainer<f64> {
    let n3 = N3 { weight: golden["reg"].as_f64().unwrap() };
    let learning_rate = golden["adagrad"]["lr"].as_f64().unwrap();
    let embedding = Embedding::Table(matrix(&golden["ent"]));
    Trainer::new(Initial::complex(embedding, matrix(&golden["rel"])), learning_rate, n3)
}

/// Gradients of all parameters as a step would use them: scores' loss, entities or projection, relations.
fn gradients(
    trainer: &mut Trainer<f64>,
    queries: &QuerySet,
    objective: &CrossEntropy<'_>,
) -> (StepLoss, Matrix<f64>, Matrix<f64>) {
    let uses = Batch::new(queries, &all(queries));
    let (loss, _) = trainer.differentiate(&uses, &all(queries), objective).unwrap();
    let StepMatrices { scores, vectors, used_gradient, relation_gradient, .. } = &trainer.buffers;
    let mut entities = Matrix::zeros(0, 0);
    let precision = ProductPrecision::Full;
    let is_distance = trainer.model.backbone.is_distance();
    EntityGradients { precision, scores, vectors, uses: &uses.entities, used: used_gradient, is_distance }
        .of_all(&trainer.model.entity, &mut entities);
    let mut relations = Matrix::zeros(trainer.model.relation.rows(), trainer.model.relation.columns());
    for (number, &row) in uses.relations.rows().iter().enumerate() {
        relations.row_mut(row as usize).copy_from_slice(relation_gradient.row(number));
    }
    (loss, entities, relations)
}

fn squares<T>(trainer: &Trainer<T>) -> &Matrix<T>
where
    T: Real,
{
    match &trainer.entities {
        Entities::Free(optimiser) => optimiser.state(),
        Entities::Projected(projected) => projected.optimiser.state(),
    }
}

#[test]
fn scores_losses_gradients_and_steps_equal_the_reference() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let queries = golden_queries(&golden);
    let mut trainer = golden_trainer(&golden);
    trainer.score(&Batch::new(&queries, &all(&queries)));
    let scores = matrix(&golden["scores"]);
    for (triple, expected) in golden["triples"].as_array().unwrap().iter().zip(0..) {
        let ids: [u32; 3] = serde_json::from_value(triple.clone()).unwrap();
        let index = queries.queries().binary_search(&pair(ids[0], ids[1], 0).0).unwrap();
        assert_close(trainer.buffers.scores.row(index), scores.row(expected), "scores");
    }
    let objective = CrossEntropy { queries: &queries };
    let (loss, entities, relations) = gradients(&mut trainer, &queries, &objective);
    assert_close(&[loss.objective], &[golden["ce_mean"].as_f64().unwrap()], "cross-entropy");
    assert_close(&[loss.regulariser], &[0.01 * golden["n3"].as_f64().unwrap()], "N3");
    assert_close(entities.values(), matrix(&golden["grad_ent"]).values(), "entity gradient");
    assert_close(relations.values(), matrix(&golden["grad_rel"]).values(), "relation gradient");
    for step in golden["adagrad"]["steps"].as_array().unwrap() {
        let (loss, _) = trainer.step(&queries, &all(&queries), &objective).unwrap();
        assert_close(&[loss.objective + loss.regulariser], &[step["loss_before"].as_f64().unwrap()], "loss");
        assert_close(trainer.model.entity.values(), matrix(&step["ent"]).values(), "entities");
        assert_close(trainer.model.relation.values(), matrix(&step["rel"]).values(), "relations");
        assert_close(squares(&trainer).values(), matrix(&step["ent_sum_sq"]).values(), "squares");
    }
}

#[test]
fn the_projected_teacher_equals_the_reference() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let expected = &golden["projected"];
    let queries = golden_queries(&golden);
    let embedding = Embedding::Projected {
        features: matrix(&expected["feats"]),
        projection: matrix(&expected["W"]),
        scale: expected["scale"].as_f64().unwrap(),
    };
    let mut trainer =
        Trainer::new(Initial::complex(embedding, matrix(&golden["rel"])), 1.0, N3 { weight: 0.0 });
    let objective = CrossEntropy { queries: &queries };
    let (loss, _) = trainer.step(&queries, &all(&queries), &objective).unwrap();
    assert_close(&[loss.objective], &[expected["ce_mean"].as_f64().unwrap()], "cross-entropy");
    let Entities::Projected(projected) = &trainer.entities else { panic!("not projected") };
    assert_close(projected.gradient.values(), matrix(&expected["grad_W"]).values(), "projection gradient");
}

/// One step with a learning rate of 1 on `entities` with features of so many columns: the way it went, and the
/// projection's gradient, which must equal the change of a free table's loss.
fn projection_gradient_by_differences(features: usize, rank: usize) -> Way {
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let entities = 30;
    let queries = QuerySet::from_pairs((0..9).map(|i| pair(i * 7 % 30, i % 4, i * 11 % 30)).collect());
    let objective = CrossEntropy { queries: &queries };
    let features = normal::<f64>(entities, features, 1.0, &mut generator);
    let projection = normal::<f64>(features.columns(), 2 * rank, 0.3, &mut generator);
    let relation = normal::<f64>(4, 2 * rank, 0.7, &mut generator);
    let (scale, n3) = (2.0, N3 { weight: 0.05 });
    let loss_at = |projection: &Matrix<f64>| {
        let mut table = Matrix::zeros(entities, 2 * rank);
        table.product(false, 1.0 / scale, features.view(), projection.view());
        let mut trainer = Trainer::new(Initial::complex(Embedding::Table(table), relation.clone()), 1.0, n3);
        let (loss, ..) = gradients(&mut trainer, &queries, &objective);
        loss.objective + loss.regulariser
    };
    let embedding =
        Embedding::Projected { features: features.clone(), projection: projection.clone(), scale };
    let mut trainer = Trainer::new(Initial::complex(embedding, relation.clone()), 1.0, n3);
    let (loss, _) = trainer.step(&queries, &all(&queries), &objective).unwrap();
    assert!((loss.objective + loss.regulariser - loss_at(&projection)).abs() < 1e-12);
    let Entities::Projected(projected) = &trainer.entities else { panic!("not projected") };
    for i in 0..projection.values().len() {
        let moved = |by: f64| {
            let mut projection = projection.clone();
            projection.values_mut()[i] += by;
            loss_at(&projection)
        };
        let difference = (moved(1e-6) - moved(-1e-6)) / 2e-6;
        assert!((difference - projected.gradient.values()[i]).abs() < 1e-8, "projection value {i}");
    }
    projected.way
}

#[test]
fn both_ways_of_a_projection_equal_finite_differences() {
    assert_eq!(projection_gradient_by_differences(3, 8), Way::Features);
    assert_eq!(projection_gradient_by_differences(20, 2), Way::Entities);
}

#[test]
fn the_table_of_a_projection_follows_it() {
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(12);
    let queries = QuerySet::from_pairs(vec![pair(0, 0, 1), pair(2, 1, 0)]);
    let features = normal::<f64>(3, 2, 1.0, &mut generator);
    let embedding = Embedding::Projected {
        features: features.clone(),
        projection: normal(2, 4, 1.0, &mut generator),
        scale: 1.0,
    };
    let mut trainer =
        Trainer::new(Initial::complex(embedding, normal(2, 4, 1.0, &mut generator)), 0.1, N3 { weight: 0.0 });
    for _ in 0..2 {
        trainer.step(&queries, &all(&queries), &CrossEntropy { queries: &queries }).unwrap();
        let (model, projection) = trainer.parts();
        let mut expected = Matrix::zeros(3, 4);
        expected.product(false, 1.0, features.view(), projection.unwrap().view());
        assert_eq!(model.entity, expected);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let queries = QuerySet::from_pairs(vec![pair(0, 0, 1), pair(0, 0, 3), pair(2, 1, 2), pair(4, 1, 0)]);
    let (entity, relation) = (normal(5, 6, 0.7, &mut generator), normal(2, 6, 0.7, &mut generator));
    let objective = CrossEntropy { queries: &queries };
    let trainer_at = |entity: &Matrix<f64>, relation: &Matrix<f64>| {
        Trainer::new(
            Initial::complex(Embedding::Table(entity.clone()), relation.clone()),
            0.1,
            N3 { weight: 0.05 },
        )
    };
    let loss_at = |entity: &Matrix<f64>, relation: &Matrix<f64>| {
        let (loss, ..) = gradients(&mut trainer_at(entity, relation), &queries, &objective);
        loss.objective + loss.regulariser
    };
    let mut trainer = trainer_at(&entity, &relation);
    let (_, of_entities, of_relations) = gradients(&mut trainer, &queries, &objective);
    let step = 1e-6;
    let moved = |matrix: &Matrix<f64>, at: usize, by: f64| {
        let mut matrix = matrix.clone();
        matrix.values_mut()[at] += by;
        matrix
    };
    for i in 0..entity.values().len() {
        let loss = |by| loss_at(&moved(&entity, i, by), &relation);
        let difference = (loss(step) - loss(-step)) / (2.0 * step);
        assert!((difference - of_entities.values()[i]).abs() < 1e-8, "entity value {i}");
    }
    for i in 0..relation.values().len() {
        let loss = |by| loss_at(&entity, &moved(&relation, i, by));
        let difference = (loss(step) - loss(-step)) / (2.0 * step);
        assert!((difference - of_relations.values()[i]).abs() < 1e-8, "relation value {i}");
    }
}

#[test]
fn gradients_equal_automatic_differentiation() {
    use candle_core::{D, Device, Tensor, Var};
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(6);
    let (entity, relation) =
        (normal::<f64>(40, 8, 0.5, &mut generator), normal::<f64>(4, 8, 0.5, &mut generator));
    let pairs: Vec<_> = (0..30).map(|i| pair(i * 7 % 40, i % 4, i * 11 % 40)).collect();
    let queries = QuerySet::from_pairs(pairs.clone());
    let mut trainer = Trainer::new(
        Initial::complex(Embedding::Table(entity.clone()), relation.clone()),
        0.1,
        N3 { weight: 0.0 },
    );
    let (_, of_entities, of_relations) =
        gradients(&mut trainer, &queries, &CrossEntropy { queries: &queries });

    let var = |m: &Matrix<f64>| {
        Var::from_tensor(&Tensor::from_slice(m.values(), (m.rows(), m.columns()), &Device::Cpu).unwrap())
            .unwrap()
    };
    let (entity, relation) = (var(&entity), var(&relation));
    let column = |get: fn(&(Query, EntityId)) -> u32| {
        Tensor::from_vec(pairs.iter().map(get).collect::<Vec<u32>>(), pairs.len(), &Device::Cpu).unwrap()
    };
    let half = |t: &Tensor, which: usize| t.narrow(1, which * 4, 4).unwrap();
    let h = entity.index_select(&column(|p| p.0.head.0), 0).unwrap();
    let r = relation.index_select(&column(|p| p.0.relation.0), 0).unwrap();
    let re = ((half(&h, 0) * half(&r, 0)).unwrap() - (half(&h, 1) * half(&r, 1)).unwrap()).unwrap();
    let im = ((half(&h, 0) * half(&r, 1)).unwrap() + (half(&h, 1) * half(&r, 0)).unwrap()).unwrap();
    let scores = Tensor::cat(&[re, im], 1).unwrap().matmul(&entity.t().unwrap()).unwrap();
    let tails = column(|p| p.1.0).unsqueeze(1).unwrap();
    let of_tails = scores.gather(&tails, 1).unwrap().squeeze(1).unwrap();
    let loss = (scores.log_sum_exp(D::Minus1).unwrap() - of_tails).unwrap().mean_all().unwrap();
    let gradients = loss.backward().unwrap();
    for (var, ours) in [(&entity, &of_entities), (&relation, &of_relations)] {
        let theirs = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_close(ours.values(), &theirs, "gradient");
    }
}

#[test]
fn single_scores_equal_rows_of_scores() {
    use crate::Scorer;
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let (entity, relation) = (normal(9, 6, 1.0, &mut generator), normal(4, 6, 1.0, &mut generator));
    let model = Model::<f32>::complex(entity, relation);
    let queries: Vec<Query> = (0..9).flat_map(|h| (0..4).map(move |r| pair(h, r, 0).0)).collect();
    let mut scores = Matrix::zeros(0, 0);
    model.scores(&queries, &mut scores);
    for (row, query) in queries.iter().enumerate() {
        for candidate in 0..9 {
            let alone = model.score(*query, EntityId(candidate));
            assert!((alone - scores.row(row)[candidate as usize]).abs() < 1e-5);
        }
    }
}

/// Three steps on a table, and on features that are scored through, on so many threads: losses and models.
fn trained(precision: ProductPrecision, threads: usize) -> Vec<(f64, Model<f32>)> {
    let queries = QuerySet::from_pairs((0..300).map(|i| pair(i * 7 % 500, i % 4, i * 11 % 500)).collect());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(8);
    let table = Embedding::Table(normal(500, 64, 0.1, &mut generator));
    let (features, projection) = (normal(500, 20, 0.3, &mut generator), normal(20, 64, 0.1, &mut generator));
    let projected = Embedding::Projected { features, projection, scale: 1.0 };
    let relation = normal(4, 64, 0.1, &mut generator);
    let train = |embedding| {
        let trainer = Trainer::new(Initial::complex(embedding, relation.clone()), 0.1, N3 { weight: 0.01 });
        let mut trainer = trainer.with_precision(precision);
        let mut step =
            || trainer.step(&queries, &all(&queries), &CrossEntropy { queries: &queries }).unwrap();
        let loss = (0..3).map(|_| step().0.objective).last().unwrap();
        (loss, trainer.model().clone())
    };
    pool.install(|| vec![train(table), train(projected)])
}

#[test]
fn a_step_does_not_depend_on_the_number_of_threads() {
    let bf16 = Kernel::all().into_iter().map(ProductPrecision::Bf16);
    for precision in std::iter::once(ProductPrecision::Full).chain(bf16) {
        let one = trained(precision, 1);
        assert!(trained(precision, 2) == one && trained(precision, 3) == one, "{precision}");
    }
}

#[test]
fn steps_in_bf16_are_near_those_in_full_precision() {
    let full = trained(ProductPrecision::Full, 1);
    for kernel in Kernel::all() {
        for ((loss, model), (full_loss, full)) in trained(ProductPrecision::Bf16(kernel), 1).iter().zip(&full)
        {
            assert!(model != full, "{kernel} was not used");
            assert!((loss - full_loss).abs() < 1e-2 * full_loss, "{loss} by {kernel}, {full_loss} in f32");
        }
    }
}

#[test]
fn training_resumes_to_the_same_bits() {
    let queries = QuerySet::from_pairs((0..60).map(|i| pair(i * 7 % 50, i % 4, i * 11 % 50)).collect());
    let objective = CrossEntropy { queries: &queries };
    let fresh = || {
        let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(9);
        let embedding = Embedding::Projected {
            features: normal(50, 5, 1.0, &mut generator),
            projection: normal(5, 8, 0.1, &mut generator),
            scale: 2.0,
        };
        let relation = normal(4, 8, 0.1, &mut generator);
        Trainer::<f32>::new(Initial::complex(embedding, relation), 0.1, N3 { weight: 0.01 })
    };
    let mut through = fresh();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    for i in 0..6 {
        if i == 3 {
            NamedTensors::default().nested("student", through.state()).write(&path).unwrap();
        }
        through.step(&queries, &all(&queries), &objective).unwrap();
    }
    let mut resumed = fresh();
    resumed.restore(&TensorReader::open(&path).unwrap(), "student").unwrap();
    for _ in 3..6 {
        resumed.step(&queries, &all(&queries), &objective).unwrap();
    }
    assert_eq!(resumed.model(), through.model());
    std::fs::write(&path, &std::fs::read(&path).unwrap()[..100]).unwrap();
    assert!(TensorReader::open(&path).is_err_and(|e| e.kind() == Kind::Data));
}
