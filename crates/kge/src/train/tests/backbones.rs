//! Properties of every backbone.

use std::path::Path;

use rand_chacha::ChaCha8Rng;

use super::*;
use crate::Scorer;
use crate::backbone::distance;
use crate::model::even;

const ENTITIES: usize = 5;

fn shape(backbone: Backbone, rank: usize) -> Shape {
    Shape { backbone, rank, relation_width: 2 }
}

fn generator(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Random parameters for so many entities and two relations.
fn initial<T: Real>(shape: Shape, entities: usize, deviation: f64, seed: u64) -> Initial<T> {
    let mut generator = generator(seed);
    let table = normal(entities, shape.embedding(), deviation, &mut generator);
    let relation = match shape.backbone {
        Backbone::RotatE => even(2, shape.relation_columns(), 3.0, &mut generator),
        _ => normal(2, shape.relation_columns(), deviation, &mut generator),
    };
    let core = match shape.core_rows() {
        0 => Matrix::zeros(0, 0),
        rows => normal(rows, shape.embedding(), 0.5, &mut generator),
    };
    Initial { backbone: shape.backbone, embedding: Embedding::Table(table), relation, core }
}

fn table(initial: &Initial<f64>) -> &Matrix<f64> {
    match &initial.embedding {
        Embedding::Table(table) => table,
        Embedding::Projected { .. } => panic!("a projection"),
    }
}

fn few_queries() -> QuerySet {
    QuerySet::from_pairs(vec![pair(0, 0, 1), pair(0, 0, 3), pair(2, 1, 2), pair(4, 1, 0)])
}

/// The score of a triple by its definition.
fn naive(initial: &Initial<f64>, query: Query, tail: usize) -> f64 {
    let (table, relation) = (table(initial), initial.relation.row(query.relation.index()));
    let (h, t) = (table.row(query.head.index()), table.row(tail));
    let (width, k) = (h.len(), h.len() / 2);
    match initial.backbone {
        Backbone::ComplEx => (0..k)
            .map(|i| {
                let (re, im) = (
                    h[i] * relation[i] - h[k + i] * relation[k + i],
                    h[i] * relation[k + i] + h[k + i] * relation[i],
                );
                re * t[i] + im * t[k + i]
            })
            .sum(),
        Backbone::DistMult => (0..width).map(|i| h[i] * relation[i] * t[i]).sum(),
        Backbone::TransE => -(0..width).map(|i| (h[i] + relation[i] - t[i]).powi(2)).sum::<f64>(),
        Backbone::RotatE => -(0..k)
            .map(|i| {
                let (sin, cos) = relation[i].sin_cos();
                let (re, im) = (h[i] * cos - h[k + i] * sin, h[i] * sin + h[k + i] * cos);
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
    for backbone in Backbone::ALL {
        let initial = initial::<f64>(shape(backbone, 3), ENTITIES, 0.7, 5);
        let queries = few_queries();
        let mut trainer = Trainer::new(initial.clone(), 0.1, N3 { weight: 0.0 });
        trainer.score(&Batch::new(&queries, &all(&queries)));
        for (row, query) in queries.queries().iter().enumerate() {
            for tail in 0..ENTITIES {
                let expected = naive(&initial, *query, tail);
                let found = trainer.buffers.scores.row(row)[tail];
                assert!((found - expected).abs() < 1e-12, "{backbone}: {found}, not {expected}");
                let alone = trainer.model().score(*query, EntityId(tail as u32));
                assert!((alone - expected).abs() < 1e-12, "{backbone}: {alone}, not {expected}");
            }
        }
    }
}

#[test]
fn the_gradients_of_all_parameters_equal_finite_differences() {
    let (queries, n3, step) = (few_queries(), N3 { weight: 0.05 }, 1e-6);
    let objective = CrossEntropy { queries: &queries };
    for backbone in Backbone::ALL {
        let at = initial::<f64>(shape(backbone, 3), ENTITIES, 0.7, 5);
        let loss = |initial: Initial<f64>| {
            let (loss, ..) = gradients(&mut Trainer::new(initial, 0.1, n3), &queries, &objective);
            loss.objective + loss.regulariser
        };
        let mut trainer = Trainer::new(at.clone(), 0.1, n3);
        let (_, of_entities, of_relations) = gradients(&mut trainer, &queries, &objective);
        let check = |what: &str,
                     i: usize,
                     found: f64,
                     parameter: fn(&mut Initial<f64>) -> &mut Matrix<f64>| {
            let moved = |by: f64| {
                let mut initial = at.clone();
                parameter(&mut initial).values_mut()[i] += by;
                loss(initial)
            };
            let difference = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((difference - found).abs() < 1e-8, "{backbone}, {what} {i}: {found}, not {difference}");
        };
        let width = shape(backbone, 3).embedding();
        for i in 0..ENTITIES * width {
            let row = of_entities.row(i / width);
            check("entity", i, row[i % width], |initial| match &mut initial.embedding {
                Embedding::Table(table) => table,
                Embedding::Projected { .. } => panic!("a projection"),
            });
            assert!(row[width..].iter().all(|x| *x == 0.0), "what follows from the embedding does not learn");
        }
        for (i, found) in of_relations.values().iter().enumerate() {
            check("relation", i, *found, |initial| &mut initial.relation);
        }
        for (i, found) in trainer.buffers.core_gradient.values().iter().enumerate() {
            check("core", i, *found, |initial| &mut initial.core);
        }
        assert_eq!(trainer.buffers.core_gradient.rows(), shape(backbone, 3).core_rows());
    }
}

#[test]
fn the_gradient_of_a_projection_equals_finite_differences() {
    let (queries, n3) = (few_queries(), N3 { weight: 0.05 });
    let objective = CrossEntropy { queries: &queries };
    let features = normal::<f64>(ENTITIES, 2, 1.0, &mut generator(3));
    for backbone in Backbone::ALL {
        let width = shape(backbone, 2).embedding();
        let projection = normal::<f64>(2, width, 0.5, &mut generator(4));
        let trainer = |projection: Matrix<f64>| {
            let embedding = Embedding::Projected { features: features.clone(), projection, scale: 2.0 };
            Trainer::new(Initial { embedding, ..initial(shape(backbone, 2), ENTITIES, 0.7, 5) }, 1.0, n3)
        };
        let step = |trainer: &mut Trainer<f64>| {
            let (loss, _) = trainer.step(&queries, &all(&queries), &objective).unwrap();
            loss.objective + loss.regulariser
        };
        let mut stepped = trainer(projection.clone());
        step(&mut stepped);
        let Entities::Projected(projected) = &stepped.entities else { panic!("not projected") };
        for i in 0..projection.values().len() {
            let moved = |by: f64| {
                let mut projection = projection.clone();
                projection.values_mut()[i] += by;
                step(&mut trainer(projection))
            };
            let difference = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            let found = projected.gradient.row(i / width)[i % width];
            assert!((difference - found).abs() < 1e-8, "{backbone}, value {i}: {found}, not {difference}");
        }
    }
}

/// Queries for a table of 60 entities.
fn many_queries() -> QuerySet {
    QuerySet::from_pairs((0..90).map(|i| pair(i * 7 % 60, i % 2, i * 11 % 60)).collect())
}

#[test]
fn steps_lower_the_loss_and_keep_norms_beside_embeddings() {
    let queries = many_queries();
    for backbone in Backbone::ALL {
        let mut trainer =
            Trainer::<f32>::new(initial(shape(backbone, 4), 60, 0.1, 6), 0.05, N3 { weight: 0.001 });
        let mut step =
            || trainer.step(&queries, &all(&queries), &CrossEntropy { queries: &queries }).unwrap().0;
        let (first, last) = (step().objective, (0..60).map(|_| step().objective).last().unwrap());
        assert!(last < 0.7 * first, "{backbone}: from {first} to {last}");
        let model = trainer.model();
        let is_closed = |row| distance::is_closed(model.entity.row(row));
        assert!(!backbone.is_distance() || (0..60).all(is_closed), "{backbone}");
    }
}

#[test]
fn steps_do_not_depend_on_the_number_of_threads() {
    let queries = many_queries();
    for backbone in Backbone::ALL {
        let trained = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut trainer =
                    Trainer::<f32>::new(initial(shape(backbone, 16), 60, 0.1, 6), 0.1, N3 { weight: 0.01 });
                for _ in 0..3 {
                    trainer.step(&queries, &all(&queries), &CrossEntropy { queries: &queries }).unwrap();
                }
                let mut scores = Matrix::zeros(0, 0);
                trainer.model().scores(queries.queries(), &mut scores);
                (trainer.model().clone(), scores)
            })
        };
        let one = trained(1);
        assert!(trained(2) == one && trained(3) == one, "{backbone}");
    }
}

#[test]
fn training_resumes_to_the_same_bits_and_only_with_its_own_backbone() {
    let (queries, dir) = (many_queries(), tempfile::tempdir().unwrap());
    let fresh =
        |backbone| Trainer::<f32>::new(initial(shape(backbone, 4), 60, 0.1, 6), 0.1, N3 { weight: 0.01 });
    let step = |trainer: &mut Trainer<f32>| {
        trainer.step(&queries, &all(&queries), &CrossEntropy { queries: &queries }).unwrap();
    };
    for backbone in Backbone::ALL {
        let mut through = fresh(backbone);
        (0..2).for_each(|_| step(&mut through));
        let path = dir.path().join(format!("{backbone}.safetensors"));
        NamedTensors::default().nested("student", through.state()).write(&path).unwrap();
        step(&mut through);
        let mut resumed = fresh(backbone);
        resumed.restore(&TensorReader::open(&path).unwrap(), "student").unwrap();
        step(&mut resumed);
        assert_eq!(resumed.model(), through.model());
    }
    let rotations = TensorReader::open(&dir.path().join("rotate.safetensors")).unwrap();
    assert!(fresh(Backbone::TransE).restore(&rotations, "student").is_err_and(|e| e.kind() == Kind::Data));
}

#[test]
fn steps_in_bf16_are_near_those_in_full_precision() {
    let queries = many_queries();
    for backbone in Backbone::ALL {
        let loss = |precision: ProductPrecision| {
            let initial = initial::<f32>(shape(backbone, 16), 60, 0.1, 6);
            let mut trainer = Trainer::new(initial, 0.1, N3 { weight: 0.01 }).with_precision(precision);
            let mut step =
                || trainer.step(&queries, &all(&queries), &CrossEntropy { queries: &queries }).unwrap();
            (0..5).map(|_| step().0.objective).last().unwrap()
        };
        let full = loss(ProductPrecision::Full);
        for kernel in Kernel::all() {
            let found = loss(ProductPrecision::Bf16(kernel));
            assert!((found - full).abs() < 2e-2 * full, "{backbone}: {found} by {kernel}, {full} in f32");
        }
    }
}

#[test]
fn a_step_takes_no_more_memory_than_is_estimated() {
    let queries = many_queries();
    for backbone in Backbone::ALL {
        let shape = shape(backbone, 16);
        let mut trainer = Trainer::<f32>::new(initial(shape, 60, 0.1, 6), 0.1, N3 { weight: 0.01 });
        trainer.step(&queries, &all(&queries), &CrossEntropy { queries: &queries }).unwrap();
        let Trainer { model, core_optimiser, buffers, .. } = &trainer;
        let held = [
            &model.entity,
            squares(&trainer),
            &model.core,
            core_optimiser.state(),
            &buffers.used,
            &buffers.used_gradient,
            &buffers.relations,
            &buffers.outer,
            &buffers.vectors,
            &buffers.vector_gradient,
            &buffers.scores,
            &buffers.relation_gradient,
            &buffers.core_gradient,
        ];
        let held: usize = held.iter().map(|matrix| 4 * matrix.values().len()).sum();
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
        let mut trainer = Trainer::new(initial(shape(backbone, 4), 9, 0.5, 6), 0.1, N3 { weight: 0.0 });
        let model = trainer.model();
        assert_eq!((model.rank(), model.width()), (4, shape(backbone, 4).columns()));
        assert_eq!(&Model::from_reader(&written(model, &path), 9, 1).unwrap(), model);
        let refused = |model: &Model<f32>, words: &str| {
            let error = Model::from_reader(&written(model, &path), 9, 1).unwrap_err();
            assert!(error.kind() == Kind::Data && error.to_string().contains(words), "{backbone}: {error}");
        };
        let mut broken = model.clone();
        broken.relation = Matrix::zeros(2, 5);
        if backbone != Backbone::TuckER {
            refused(&broken, "`relation` is 2 x 5, but");
        } else {
            refused(&broken, "`core` is 16 x 8, but tucker of rank 4 on this graph has 40 x 8");
        }
        let mut broken = model.clone();
        broken.entity.row_mut(3)[0] = f32::NAN;
        refused(&broken, "not finite");
        if backbone.is_distance() {
            let mut broken = model.clone();
            broken.entity.row_mut(3)[8] -= 1.0;
            refused(&broken, "row 3");
        }
        let mut other = model.clone();
        other.backbone = if backbone == Backbone::RotatE { Backbone::TransE } else { Backbone::RotatE };
        refused(&other, "`");
    }
    let unknown = NamedTensors::default().text("backbone", "rescal");
    unknown.write(&path).unwrap();
    let error = Model::from_reader(&TensorReader::open(&path).unwrap(), 9, 1).unwrap_err();
    assert!(error.to_string().contains("`rescal` is not a backbone"), "{error}");
}
