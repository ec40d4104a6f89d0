use dsom_tests::assert_close;
use mkg::{EntityId, Query, QuerySet, RelationId};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use stage::Kind;
use std::path::Path;

use super::*;
use crate::Scorer;
use crate::matrix::bf16::Kernel;
use crate::model::{even, normal};

const GOLDEN: &str = include_str!("../../../../tests/golden/complex.json");
const WEAK: N3 = N3 { weight: 0.01 };

fn matrix(value: &Value) -> Matrix<f64> {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
    Matrix::from_values(rows.len(), rows[0].len(), rows.concat())
}

fn pair(head: u32, relation: u32, tail: u32) -> (Query, EntityId) {
    (Query { head: EntityId(head), relation: RelationId(relation) }, EntityId(tail))
}

/// The queries of the golden file, whose triples are already pairs of query and tail.
fn golden_queries(golden: &Value) -> QuerySet {
    let triples: Vec<[u32; 3]> = serde_json::from_value(golden["triples"].clone()).unwrap();
    QuerySet::from_pairs(triples.into_iter().map(|[h, r, t]| pair(h, r, t)).collect())
}

/// Queries on five entities and two relations; one query has two tails.
fn few_queries() -> QuerySet {
    QuerySet::from_pairs(vec![pair(0, 0, 1), pair(0, 0, 3), pair(2, 1, 2), pair(4, 1, 0)])
}

fn queries_of(entities: u32) -> QuerySet {
    let pairs = (0..entities * 3 / 2).map(|i| pair(i * 7 % entities, i % 2, i * 11 % entities));
    QuerySet::from_pairs(pairs.collect())
}

fn all(queries: &QuerySet) -> Vec<u32> {
    (0..queries.len() as u32).collect()
}

fn shape(backbone: Backbone, rank: usize) -> Shape {
    Shape { backbone, rank, relation_width: 2 }
}

/// Random parameters for two relations and `entities` entities: a table if `features` is 0, else a projection.
fn initial<T: Real>(shape: Shape, entities: usize, features: usize, deviation: f64) -> Initial<T> {
    let mut generator = ChaCha8Rng::seed_from_u64(5);
    let embedding = match features {
        0 => Embedding::Table(normal(entities, shape.embedding(), deviation, &mut generator)),
        _ => Embedding::Projected {
            features: normal(entities, features, 1.0, &mut generator),
            projection: normal(features, shape.embedding(), deviation, &mut generator),
        },
    };
    let relation = match shape.backbone {
        Backbone::RotatE => even(2, shape.relation_columns(), 3.0, &mut generator),
        _ => normal(2, shape.relation_columns(), deviation, &mut generator),
    };
    let core = match shape.core_rows() {
        0 => Matrix::default(),
        rows => normal(rows, shape.embedding(), 0.5, &mut generator),
    };
    Initial { backbone: shape.backbone, embedding, relation, core }
}

fn table(initial: &mut Initial<f64>) -> &mut Matrix<f64> {
    match &mut initial.embedding {
        Embedding::Table(table) => table,
        Embedding::Projected { .. } => panic!("a projection"),
    }
}

/// The loss, and the gradients of entities and relations as a step would use them.
fn gradients(trainer: &mut Trainer<f64>, queries: &QuerySet) -> (f64, Matrix<f64>, Matrix<f64>) {
    let uses = Batch::new(queries, &all(queries));
    let (loss, _) = trainer.differentiate(&uses, &all(queries), &CrossEntropy { queries }).unwrap();
    let StepMatrices { scores, vectors, used_gradient, relation_gradient, .. } = &trainer.buffers;
    let mut entities = Matrix::default();
    let precision = ProductPrecision::Full;
    let is_distance = trainer.model.backbone.is_distance();
    EntityGradients { precision, scores, vectors, uses: &uses.entities, used: used_gradient, is_distance }
        .of_all(&trainer.model.entity, &mut entities);
    let mut relations = Matrix::zeros(trainer.model.relation.rows(), trainer.model.relation.columns());
    for (number, &row) in uses.relations.rows.iter().enumerate() {
        relations.row_mut(row as usize).copy_from_slice(relation_gradient.row(number));
    }
    (loss.objective + loss.regulariser, entities, relations)
}

fn step<T: Real>(trainer: &mut Trainer<T>, queries: &QuerySet) -> StepLoss {
    trainer.step(queries, &all(queries), &CrossEntropy { queries }).unwrap().0
}

/// Compares the gradient `found` with the difference of the losses on both sides of the parameter.
fn assert_slope(found: f64, what: &str, loss: impl Fn(f64) -> f64) {
    let difference = (loss(1e-6) - loss(-1e-6)) / 2e-6;
    assert!((difference - found).abs() < 1e-8, "{what}: {found}, not {difference}");
}

fn squares<T>(trainer: &Trainer<T>) -> &Matrix<T> {
    match &trainer.entities {
        Entities::Free(optimiser) => &optimiser.squares,
        Entities::Projected(projected) => &projected.optimiser.squares,
    }
}

#[test]
fn scores_losses_gradients_and_steps_equal_the_reference() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let queries = golden_queries(&golden);
    let n3 = N3 { weight: golden["reg"].as_f64().unwrap() };
    let initial = Initial::complex(Embedding::Table(matrix(&golden["ent"])), matrix(&golden["rel"]));
    let mut trainer = Trainer::new(initial, golden["adagrad"]["lr"].as_f64().unwrap(), n3);
    trainer.score(&Batch::new(&queries, &all(&queries)));
    let scores = matrix(&golden["scores"]);
    for (triple, expected) in golden["triples"].as_array().unwrap().iter().zip(0..) {
        let ids: [u32; 3] = serde_json::from_value(triple.clone()).unwrap();
        let index = queries.queries().binary_search(&pair(ids[0], ids[1], 0).0).unwrap();
        assert_close(trainer.buffers.scores.row(index), scores.row(expected), "scores");
    }
    let (loss, entities, relations) = gradients(&mut trainer, &queries);
    let expected = golden["ce_mean"].as_f64().unwrap() + 0.01 * golden["n3"].as_f64().unwrap();
    assert_close(&[loss], &[expected], "cross-entropy and N3");
    assert_close(entities.values(), matrix(&golden["grad_ent"]).values(), "entity gradient");
    assert_close(relations.values(), matrix(&golden["grad_rel"]).values(), "relation gradient");
    for expected in golden["adagrad"]["steps"].as_array().unwrap() {
        let loss = step(&mut trainer, &queries);
        let before = expected["loss_before"].as_f64().unwrap();
        assert_close(&[loss.objective + loss.regulariser], &[before], "loss");
        assert_close(trainer.model.entity.values(), matrix(&expected["ent"]).values(), "entities");
        assert_close(trainer.model.relation.values(), matrix(&expected["rel"]).values(), "relations");
        assert_close(squares(&trainer).values(), matrix(&expected["ent_sum_sq"]).values(), "squares");
    }
}

#[test]
fn the_projected_teacher_equals_the_reference() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let expected = &golden["projected"];
    let (mut features, projection) = (matrix(&expected["feats"]), matrix(&expected["W"]));
    row::scale(features.values_mut(), 1.0 / expected["scale"].as_f64().unwrap());
    let embedding = Embedding::Projected { features, projection };
    let initial = Initial::complex(embedding, matrix(&golden["rel"]));
    let mut trainer = Trainer::new(initial, 1.0, N3 { weight: 0.0 });
    let loss = step(&mut trainer, &golden_queries(&golden));
    assert_close(&[loss.objective], &[expected["ce_mean"].as_f64().unwrap()], "cross-entropy");
    let Entities::Projected(projected) = &trainer.entities else { panic!("not projected") };
    assert_close(projected.gradient.values(), matrix(&expected["grad_W"]).values(), "projection gradient");
}

/// The score of a triple, computed by its definition.
fn naive(initial: &mut Initial<f64>, query: Query, tail: usize) -> f64 {
    let table = table(initial).clone();
    let relation = initial.relation.row(query.relation.index());
    let (h, t) = (table.row(query.head.index()), table.row(tail));
    let (width, k) = (h.len(), h.len() / 2);
    // Coordinate `i` of the complex product `h ∘ r`.
    let product = |i: usize, re: f64, im: f64| (h[i] * re - h[k + i] * im, h[i] * im + h[k + i] * re);
    match initial.backbone {
        Backbone::ComplEx => (0..k)
            .map(|i| {
                let (re, im) = product(i, relation[i], relation[k + i]);
                re * t[i] + im * t[k + i]
            })
            .sum(),
        Backbone::DistMult => (0..width).map(|i| h[i] * relation[i] * t[i]).sum(),
        Backbone::TransE => -(0..width).map(|i| (h[i] + relation[i] - t[i]).powi(2)).sum::<f64>(),
        Backbone::RotatE => -(0..k)
            .map(|i| {
                let (re, im) = product(i, relation[i].cos(), relation[i].sin());
                (re - t[i]).powi(2) + (im - t[k + i]).powi(2)
            })
            .sum::<f64>(),
        Backbone::TuckER => {
            let mut sum = 0.0;
            for (a, r) in relation.iter().enumerate() {
                for (i, h) in h.iter().enumerate() {
                    for (core, t) in initial.core.row(a * width + i).iter().zip(t) {
                        sum += r * h * core * t;
                    }
                }
            }
            sum
        }
    }
}

#[test]
fn scores_are_those_of_the_definitions() {
    let (queries, mut of_model) = (few_queries(), Matrix::default());
    for backbone in Backbone::ALL {
        let mut at = initial::<f64>(shape(backbone, 3), 5, 0, 0.7);
        let mut trainer = Trainer::new(at.clone(), 0.1, WEAK);
        trainer.score(&Batch::new(&queries, &all(&queries)));
        let mut single = Trainer::<f32>::new(initial(shape(backbone, 3), 5, 0, 0.7), 0.1, WEAK);
        single.model().scores(queries.queries(), &mut of_model);
        for (row, query) in queries.queries().iter().enumerate() {
            for tail in 0..5 {
                let expected = naive(&mut at, *query, tail);
                let found = trainer.buffers.scores.row(row)[tail];
                assert!((found - expected).abs() < 1e-12, "{backbone}: {found}, not {expected}");
                let found = of_model.row(row)[tail];
                assert!((f64::from(found) - expected).abs() < 1e-5, "{backbone}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn the_gradients_of_all_parameters_equal_finite_differences() {
    let (queries, n3) = (few_queries(), N3 { weight: 0.05 });
    for backbone in Backbone::ALL {
        let shape = shape(backbone, 3);
        let at = initial::<f64>(shape, 5, 0, 0.7);
        let mut trainer = Trainer::new(at.clone(), 0.1, n3);
        let (_, of_entities, of_relations) = gradients(&mut trainer, &queries);
        let check = |parameter: fn(&mut Initial<f64>) -> &mut Matrix<f64>, gradient: &Matrix<f64>| {
            let (rows, columns) = (gradient.rows(), parameter(&mut at.clone()).columns());
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let what = format!("{backbone}, {rows} x {columns}, row {row}, column {column}");
                assert_slope(gradient.row(row)[column], &what, |by| {
                    let mut moved = at.clone();
                    parameter(&mut moved).row_mut(row)[column] += by;
                    gradients(&mut Trainer::new(moved, 0.1, n3), &queries).0
                });
            }
        };
        check(table, &of_entities);
        check(|initial| &mut initial.relation, &of_relations);
        check(|initial| &mut initial.core, &trainer.buffers.core_gradient);
        assert_eq!(trainer.buffers.core_gradient.rows(), shape.core_rows());
        let further = (0..5).flat_map(|row| &of_entities.row(row)[shape.embedding()..]);
        assert!(further.eq([&0.0].repeat(5 * further_columns(backbone))), "what follows does not learn");
    }
}

#[test]
fn both_ways_of_a_projection_equal_finite_differences_and_its_table_follows_it() {
    let (queries, n3) = (queries_of(30), N3 { weight: 0.05 });
    for backbone in Backbone::ALL {
        for (features, rank, way) in [(3, 8, Way::Features), (20, 2, Way::Entities)] {
            let at = initial::<f64>(shape(backbone, rank), 30, features, 0.3);
            let Embedding::Projected { features, projection } = &at.embedding else { panic!("a table") };
            let product = |projection: &Matrix<f64>| {
                let mut table = Matrix::zeros(30, projection.columns());
                table.product(false, features.view(), projection.view());
                table
            };
            let loss = |projection: &Matrix<f64>| {
                let free = Initial { embedding: Embedding::Table(product(projection)), ..at.clone() };
                gradients(&mut Trainer::new(free, 1.0, n3), &queries).0
            };
            let mut trainer = Trainer::new(at.clone(), 1.0, n3);
            let found = step(&mut trainer, &queries);
            assert!((found.objective + found.regulariser - loss(projection)).abs() < 1e-11, "{backbone}");
            let Entities::Projected(projected) = &trainer.entities else { panic!("not projected") };
            assert_eq!(projected.way, if backbone.is_distance() { Way::Entities } else { way });
            for (i, column) in (0..projection.rows()).flat_map(|i| (0..2 * rank).map(move |c| (i, c))) {
                let what = format!("{backbone} of rank {rank}, row {i}, column {column}");
                assert_slope(projected.gradient.row(i)[column], &what, |by| {
                    let mut moved = projection.clone();
                    moved.row_mut(i)[column] += by;
                    loss(&moved)
                });
            }
            let (model, projection) = trainer.parts();
            let expected = product(projection.unwrap());
            for entity in 0..30 {
                let embedding = model.embedding(EntityId(entity));
                assert_eq!(embedding, &expected.row(entity as usize)[..2 * rank], "{backbone}");
            }
        }
    }
}

#[test]
fn steps_lower_the_loss_and_keep_norms_beside_embeddings() {
    let queries = queries_of(60);
    for backbone in Backbone::ALL {
        let initial = initial(shape(backbone, 4), 60, 0, 0.1);
        let mut trainer = Trainer::<f32>::new(initial, 0.05, N3 { weight: 0.001 });
        let losses: Vec<f64> = (0..61).map(|_| step(&mut trainer, &queries).objective).collect();
        assert!(losses[60] < 0.7 * losses[0], "{backbone}: from {} to {}", losses[0], losses[60]);
        let model = trainer.model();
        let is_closed = |row| distance::is_closed(model.entity.row(row));
        assert!(!backbone.is_distance() || (0..60).all(is_closed), "{backbone}");
    }
}

/// The loss, the model and its scores after three steps on `threads` threads, from a table or from features.
fn trained(
    backbone: Backbone,
    features: usize,
    precision: ProductPrecision,
    threads: usize,
) -> (f64, Model<f32>, Matrix<f32>) {
    let (queries, mut scores) = (queries_of(500), Matrix::default());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let initial = initial(shape(backbone, 32), 500, features, 0.1);
        let mut trainer = Trainer::new(initial, 0.1, WEAK).with_precision(precision);
        let loss = (0..3).map(|_| step(&mut trainer, &queries).objective).last().unwrap();
        trainer.model().scores(queries.queries(), &mut scores);
        (loss, trainer.model().clone(), scores)
    })
}

#[test]
fn steps_do_not_depend_on_the_number_of_threads_and_bf16_is_near_full_precision() {
    let bf16: Vec<_> = Kernel::all().into_iter().map(ProductPrecision::Bf16).collect();
    for (backbone, features) in Backbone::ALL.into_iter().flat_map(|of| [(of, 0), (of, 20)]) {
        let full = trained(backbone, features, ProductPrecision::Full, 1);
        for &precision in [ProductPrecision::Full].iter().chain(&bf16) {
            let one = trained(backbone, features, precision, 1);
            for threads in [2, 3] {
                let several = trained(backbone, features, precision, threads);
                assert!(several == one, "{backbone} of {features} features, {precision}, {threads} threads");
            }
            let near = (one.0 - full.0).abs() < 2e-2 * full.0;
            assert!(near, "{backbone}: {} by {precision}, {} in f32", one.0, full.0);
            assert_eq!(one == full, precision == ProductPrecision::Full, "{precision} was used");
        }
    }
}

#[test]
fn training_resumes_to_the_same_bits_and_only_with_its_own_backbone_from_a_whole_file() {
    let (queries, dir) = (queries_of(60), tempfile::tempdir().unwrap());
    let path = dir.path().join("state.safetensors");
    let fresh =
        |backbone, features| Trainer::<f32>::new(initial(shape(backbone, 4), 60, features, 0.1), 0.1, WEAK);
    for (backbone, features) in Backbone::ALL.into_iter().flat_map(|of| [(of, 5), (of, 0)]) {
        let mut through = fresh(backbone, features);
        (0..2).for_each(|_| _ = step(&mut through, &queries));
        NamedTensors::default().nested("student", through.state()).write(&path).unwrap();
        step(&mut through, &queries);
        let mut resumed = fresh(backbone, features);
        resumed.restore(&TensorReader::open(&path).unwrap(), "student").unwrap();
        let other = if backbone == Backbone::TransE { Backbone::RotatE } else { Backbone::TransE };
        let refused = fresh(other, features).restore(&TensorReader::open(&path).unwrap(), "student");
        assert!(refused.is_err_and(|e| e.kind() == Kind::Data), "{other} from {backbone}");
        step(&mut resumed, &queries);
        assert_eq!(resumed.model(), through.model());
    }
    std::fs::write(&path, &std::fs::read(&path).unwrap()[..100]).unwrap();
    assert!(TensorReader::open(&path).is_err_and(|e| e.kind() == Kind::Data));
}

#[test]
fn a_step_takes_no_more_memory_than_is_estimated() {
    let queries = queries_of(60);
    for backbone in Backbone::ALL {
        let shape = shape(backbone, 16);
        let mut trainer = Trainer::<f32>::new(initial(shape, 60, 0, 0.1), 0.1, WEAK);
        step(&mut trainer, &queries);
        // The scores of validation, besides those of the step.
        let mut ranked = Matrix::default();
        trainer.model().scores(&[queries.query(0); rank::BLOCK], &mut ranked);
        let Trainer { model, core_optimiser, buffers, .. } = &trainer;
        let StepMatrices { used, relations, outer, vectors, scores, .. } = buffers;
        let gradients = [&buffers.used_gradient, &buffers.vector_gradient, &buffers.relation_gradient];
        let of_core = [&model.core, &core_optimiser.squares, &buffers.core_gradient];
        let others = [&model.entity, squares(&trainer), used, relations, outer, vectors, scores, &ranked];
        let held = gradients.into_iter().chain(of_core).chain(others);
        let held: usize = held.map(|matrix| 4 * matrix.values().len()).sum();
        let estimate = Trainer::memory(shape, 60, queries.pairs(), queries.len(), 0) as usize;
        assert!(held <= estimate && estimate < 2 * held, "{backbone}: {held}, estimated {estimate}");
    }
}

fn written(model: &Model<f32>, path: &Path) -> TensorReader {
    model.tensors().write(path).unwrap();
    TensorReader::open(path).unwrap()
}

#[test]
fn models_come_back_as_they_were_and_broken_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    for backbone in Backbone::ALL {
        let mut trainer = Trainer::new(initial(shape(backbone, 4), 9, 0, 0.5), 0.1, WEAK);
        let model = trainer.model();
        assert_eq!((model.rank(), model.width()), (4, shape(backbone, 4).columns()));
        assert_eq!(&Model::from_reader(&written(model, &path), 9, 1).unwrap(), model);
        let refused = |words: &str, spoil: &dyn Fn(&mut Model<f32>)| {
            let mut broken = model.clone();
            spoil(&mut broken);
            let error = Model::from_reader(&written(&broken, &path), 9, 1).unwrap_err();
            assert!(error.kind() == Kind::Data && error.to_string().contains(words), "{backbone}: {error}");
        };
        let of_shape = match backbone {
            Backbone::TuckER => "`core` is 16 x 8, but tucker of rank 4 on this graph has 40 x 8",
            _ => "`relation` is 2 x 5, but",
        };
        refused(of_shape, &|model| model.relation = Matrix::zeros(2, 5));
        refused("not finite", &|model| model.entity.row_mut(3)[0] = f32::NAN);
        if backbone.is_distance() {
            refused("row 3", &|model| model.entity.row_mut(3)[8] -= 1.0);
        }
        let other = if backbone == Backbone::RotatE { Backbone::TransE } else { Backbone::RotatE };
        refused("`", &|model| model.backbone = other);
    }
    NamedTensors::default().text("backbone", "rescal").write(&path).unwrap();
    let error = Model::from_reader(&TensorReader::open(&path).unwrap(), 9, 1).unwrap_err();
    assert!(error.to_string().contains("`rescal` is not a backbone"), "{error}");
}
