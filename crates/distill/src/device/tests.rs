//! A student on a device beside one on the CPU: the same batches, teachers, actions and rewards.

use kge::checkpoint::{Reader, Tensors};
use kge::model::normal;
use kge::{Embedding, Initial, Model};
use mkg::{Entity, KnownAnswers, Relation, Triple, Vocabulary};
use serde_json::Value;
use stage::recipe::{Action, Calibrate, Distill, Selection, Training};
use stage::seed;
use training::{Data, Learner, Place};

use super::*;
use crate::{Models, Student, Teaching};

const ENTITIES: u32 = 90;

/// Between single precision here and there after a few steps of Adagrad, on parameters of order 1.
const TOLERANCE: f32 = 1e-3;

fn data() -> Data {
    let triple = |i: u32| Triple::new(i * 7 % 40, i % 2, (i * i + 3 * i) % ENTITIES);
    let (train, valid): (Vec<Triple>, Vec<Triple>) =
        ((0..150).map(triple).collect(), (200..220).map(triple).collect());
    let relations = ["r", "s"].map(|key| Relation { key: key.into(), name: None });
    Data {
        queries: QuerySet::new(&train, 2),
        known: KnownAnswers::new([train.as_slice(), valid.as_slice()], 2),
        valid,
        vocabulary: Vocabulary {
            entities: vec![Entity::default(); ENTITIES as usize],
            relations: relations.to_vec(),
        },
    }
}

fn model(rank: usize, name: &str) -> Model<f32> {
    let mut generator = seed::generator(3, name, 0);
    let entity = normal(ENTITIES as usize, 2 * rank, 0.8, &mut generator);
    Model::complex(entity, normal(4, 2 * rank, 0.8, &mut generator))
}

/// As the tests of `cuda`: the emulator, or what `DSOM_TEST_DEVICE` names.
fn gpu() -> cuda::Gpu {
    static OPENED: std::sync::OnceLock<cuda::Gpu> = std::sync::OnceLock::new();
    let open = || {
        let asked = std::env::var("DSOM_TEST_DEVICE").unwrap_or_else(|_| "emulated".to_owned());
        let found = cuda::choose(asked.parse().unwrap(), None).unwrap();
        found.expect("DSOM_TEST_DEVICE is a device other than the CPU")
    };
    OPENED.get_or_init(open).clone()
}

struct Fixture {
    data: Data,
    teachers: Vec<Model<f32>>,
    labels: SoftLabels,
}

impl Fixture {
    fn new() -> Fixture {
        let (data, teachers) = (data(), vec![model(3, "a"), model(5, "b"), model(2, "c")]);
        let names = ["structural", "textual", "visual"].map(|name| name.parse().unwrap());
        let models: Vec<_> = teachers.iter().collect();
        let labels = SoftLabels::of_models(names.to_vec(), &models, data.queries.queries()).unwrap();
        Fixture { data, teachers, labels }
    }

    fn student<'a>(
        &'a self,
        recipe: &'a Distill,
        place: &Place,
        sources: Option<Sources<'a>>,
    ) -> Student<'a> {
        let asked = match recipe.calibrate {
            Calibrate::None => Vec::new(),
            _ => self.teachers.clone(),
        };
        let models = Models { factored: vec![None, None, None], asked };
        let teaching = match recipe.objective {
            Objective::None => None,
            _ => Some(Teaching::new(&self.data, &self.labels, models, recipe, 1).unwrap()),
        };
        let start = model(4, "student");
        let engine = place
            .engine(Initial::complex(Embedding::Table(start.entity), start.relation), &recipe.training)
            .unwrap();
        let objective = place.gpu().map(|gpu| objective(gpu, recipe, sources));
        Student::new(&self.data, teaching, engine, recipe, 1).with_device(objective)
    }

    /// An epoch of a few batches: the model, and figures.
    fn train(&self, mut student: Student<'_>) -> (Model<f32>, Vec<f64>, Value) {
        student.begin_epoch(1);
        let order: Vec<u32> = (0..self.data.queries.len() as u32).collect();
        let losses = order.chunks(60).map(|batch| {
            let loss = student.step(batch).unwrap();
            loss.objective + loss.regulariser
        });
        let losses = losses.collect();
        let figures = Value::Object(student.end_epoch());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.safetensors");
        let state: Tensors<'_> = student.state().unwrap();
        state.write(&path).unwrap();
        let reader = Reader::open(&path).unwrap();
        let matrix = |name: &str| reader.matrix(name).unwrap();
        let trained = Model::complex(matrix("student.parameters"), matrix("student.relation"));
        (trained, losses, figures)
    }

    fn assert_same(&self, recipe: &Distill, recompute: bool, tolerance: f32) {
        let cpu = Place::Cpu(kge::Precision::Full);
        let gpu = gpu();
        let sources = match (recipe.objective, recompute) {
            (Objective::None, _) => None,
            (_, false) => Some(cached(&self.labels)),
            (_, true) => {
                let models = self.teachers.iter().map(|model| cuda::Model::new(&gpu, model).unwrap());
                Some(Sources::Models(models.collect()))
            }
        };
        let (expected, their_losses, their_figures) = self.train(self.student(recipe, &cpu, None));
        let device = Place::Device(gpu, recipe.training.precision);
        let (found, losses, figures) = self.train(self.student(recipe, &device, sources));
        for (loss, expected) in losses.iter().zip(&their_losses) {
            assert!((loss - expected).abs() < f64::from(tolerance), "{losses:?}, {their_losses:?}");
        }
        for (a, b) in [(&found.entity, &expected.entity), (&found.relation, &expected.relation)] {
            for (i, (a, b)) in a.values().iter().zip(b.values()).enumerate() {
                assert!((a - b).abs() < tolerance, "{recipe:?}: parameter {i} is {a}, expected {b}");
            }
        }
        assert_close(&figures, &their_figures, f64::from(tolerance));
    }
}

/// Every number of `found` is near that of `expected`.
fn assert_close(found: &Value, expected: &Value, tolerance: f64) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            assert!(found.keys().eq(expected.keys()), "{found:?}, {expected:?}");
            found.iter().for_each(|(key, value)| assert_close(value, &expected[key], tolerance));
        }
        _ => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!((found - expected).abs() < tolerance, "{found}, expected {expected}");
        }
    }
}

fn recipe() -> Distill {
    let training = Training { rank: 4, learning_rate: 0.05, ..Training::default() };
    Distill { training, policy_hidden: 16, selection: Selection::All, ..Distill::default() }
}

#[test]
fn every_term_on_a_device_is_that_of_the_cpu() {
    let fixture = Fixture::new();
    for objective in [Objective::None, Objective::Ndkd, Objective::Nekd, Objective::Nnkd, Objective::Kd] {
        for (neighbours, tau) in [(Neighbours::Mean, 4.0), (Neighbours::Sum, 3.0)] {
            let recipe = Distill { objective, neighbours, tau, ..recipe() };
            fixture.assert_same(&recipe, false, TOLERANCE);
        }
    }
}

#[test]
fn every_choice_of_teachers_on_a_device_is_that_of_the_cpu() {
    let fixture = Fixture::new();
    let fixed = Selection::Fixed(vec!["textual".parse().unwrap(), "visual".parse().unwrap()]);
    for selection in [Selection::Random, fixed, Selection::Conf, Selection::BestStrategy, Selection::Policy] {
        for action in [Action::Query, Action::Triple] {
            let recipe = Distill { selection: selection.clone(), action, ..recipe() };
            fixture.assert_same(&recipe, false, TOLERANCE);
        }
    }
    let recipe = Distill { calibrate: Calibrate::Relation, ..recipe() };
    fixture.assert_same(&recipe, false, TOLERANCE);
}

#[test]
fn teachers_computed_anew_differ_from_the_cache_by_its_rounding() {
    let fixture = Fixture::new();
    // A score has 11 bits in the cache, and Adagrad's first steps do not depend on a gradient's size.
    fixture.assert_same(&recipe(), true, 2e-2);
}

#[test]
fn what_no_device_does_is_named() {
    assert!(lacking(&recipe()).is_none());
    let dkd = Distill { objective: Objective::Dkd, ..recipe() };
    assert!(lacking(&dkd).unwrap().contains("distill.objective"));
    let mulde = Distill { selection: Selection::Mulde, ..recipe() };
    assert!(lacking(&mulde).unwrap().contains("distill.selection"));
    let training = Training { backbone: stage::recipe::Backbone::RotatE, ..recipe().training };
    assert!(lacking(&Distill { training, ..recipe() }).unwrap().contains("distill.backbone"));
}
