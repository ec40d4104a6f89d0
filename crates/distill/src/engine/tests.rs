//! Compares students on candle's CPU device and in the hand-written engine: same batches, teachers, actions, rewards.

use device::{Device, numbers_read};
use kge::checkpoint::TensorReader;
use kge::model::normal;
use kge::{Backbone, Embedding, Matrix};
use mkg::{Entity, Relation, Triple, Vocabulary};
use recipe::{Action, Neighbours, PolicyKeys, PolicyState, Precision, Softening, Term, Training};
use serde_json::{Value, json};
use stage::seed;
use training::{Learner, shape};

use super::*;
use crate::fixture::names;
use crate::{Student, Teaching};

const ENTITIES: u32 = 90;

/// The allowed difference of the engines in single precision after a few Adagrad steps, for parameters of order 1.
const TOLERANCE: f64 = 1e-3;

fn data() -> Data {
    let triple = |i: u32| Triple::new(i * 7 % 40, i % 2, (i * i + 3 * i) % ENTITIES);
    let (train, valid): (Vec<Triple>, Vec<Triple>) =
        ((0..150).map(triple).collect(), (200..220).map(triple).collect());
    let relations = ["r", "s"].map(|key| Relation { key: key.into(), name: None });
    let entities = vec![Entity::default(); ENTITIES as usize];
    Data::new(Vocabulary { entities, relations: relations.to_vec() }, &train, valid)
}

fn model(rank: usize, name: &str) -> Model<f32> {
    let mut generator = seed::generator(3, name, 0);
    let entity = normal(ENTITIES as usize, 2 * rank, 0.8, &mut generator);
    Model::complex(entity, normal(4, 2 * rank, 0.8, &mut generator))
}

const CPU: Place = Place::Cpu(kge::ProductPrecision::Full);
const CANDLE: Place = Place::Device(Device::Cpu, Precision::F32);

/// Initial parameters of a student with the training's backbone.
fn initial(training: &Training) -> Initial<f32> {
    let (shape, mut generator) = (shape(training), seed::generator(3, "student", 0));
    let table = normal(ENTITIES as usize, shape.embedding(), 0.4, &mut generator);
    let relation = normal(4, shape.relation_columns(), 0.4, &mut generator);
    let core = match shape.core_rows() {
        0 => Matrix::default(),
        rows => normal(rows, shape.embedding(), 0.2, &mut generator),
    };
    Initial { backbone: training.backbone, embedding: Embedding::Table(table), relation, core }
}

struct Fixture {
    data: Data,
    teachers: Vec<Model<f32>>,
    labels: SoftLabels,
}

impl Fixture {
    fn new() -> Fixture {
        let (data, teachers) = (data(), vec![model(3, "a"), model(5, "b"), model(2, "c")]);
        let models: Vec<_> = teachers.iter().collect();
        let labels = SoftLabels::of_models(names(3), &models, data.queries.queries()).unwrap();
        Fixture { data, teachers, labels }
    }

    /// A student that learns from the cache, or, on a device, from scores computed anew.
    fn student<'a>(&'a self, recipe: &'a Distill, place: &Place, recompute: bool) -> Student<'a> {
        let labels = (recipe.term != Term::None).then_some(&self.labels);
        let teaching = labels.map(|labels| Teaching::new(&self.data, labels, Vec::new(), recipe, 1).unwrap());
        let teachers = recompute.then_some(self.teachers.as_slice());
        Student::new(place, initial(&recipe.training), &self.data, teaching, teachers, recipe).unwrap()
    }

    /// Runs an epoch of a few batches; returns their losses and the epoch's figures.
    fn epoch(&self, student: &mut Student<'_>, number: usize) -> Value {
        student.begin_epoch(number);
        let step = |batch: &[u32]| {
            let loss = student.step(batch).unwrap();
            loss.objective + loss.regulariser
        };
        let losses: Vec<f64> = self.data.numbers().chunks(60).map(step).collect();
        json!({ "losses": losses, "figures": student.end_epoch() })
    }

    /// Asserts that the figures and parameters after an epoch equal those on the CPU.
    fn assert_same(&self, recipe: &Distill, recompute: bool, tolerance: f64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.safetensors");
        let [expected, found] = [(&CPU, false), (&CANDLE, recompute)].map(|(place, recompute)| {
            let mut student = self.student(recipe, place, recompute);
            let mut figures = self.epoch(&mut student, 1);
            student.state().unwrap().write(&path).unwrap();
            let reader = TensorReader::open(&path).unwrap();
            for name in ["student.parameters", "student.relation"] {
                figures[name] = json!(reader.matrix(name).unwrap().values());
            }
            figures
        });
        assert_close(&found, &expected, tolerance, &format!("{recipe:?}"));
    }
}

/// Asserts that every number of `found` is near the same number of `expected`.
fn assert_close(found: &Value, expected: &Value, tolerance: f64, what: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            assert!(found.keys().eq(expected.keys()), "{what}: {found:?}, {expected:?}");
            found.iter().for_each(|(key, value)| assert_close(value, &expected[key], tolerance, what));
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{what}");
            found.iter().zip(expected).for_each(|(x, y)| assert_close(x, y, tolerance, what));
        }
        _ => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!((found - expected).abs() < tolerance, "{what}: {found}, expected {expected}");
        }
    }
}

fn recipe() -> Distill {
    let training = Training { rank: 4, learning_rate: 0.05, ..Training::default() };
    Distill { training, selection: Selection::All, ..Distill::default() }
}

#[test]
fn a_student_on_a_device_learns_as_on_the_cpu() {
    let fixture = Fixture::new();
    let both = [Action::Query, Action::Triple];
    let mut recipes = Vec::new();
    for (neighbours, tau) in [(Neighbours::Mean, 4.0), (Neighbours::Sum, 3.0)] {
        let softening = Softening { tau, ..Softening::default() };
        let dkd = Term::Dkd { softening, alpha: 1.0, beta: 1.0 };
        for term in [
            Term::None,
            Term::Ndkd { softening, alpha: 1.0, beta: 1.0, neighbours },
            Term::Nekd { softening, alpha: 1.0, neighbours },
            Term::Nnkd { softening, beta: 1.0 },
            Term::Kd(softening),
            dkd,
        ] {
            recipes.push(Distill { term, ..recipe() });
        }
        let drawn = both.map(|action| Selection::Random { action });
        recipes.extend(drawn.map(|selection| Distill { term: dkd, selection, ..recipe() }));
    }
    let fixed = Selection::Fixed { teachers: vec!["textual".parse().unwrap(), "visual".parse().unwrap()] };
    let mut selections = vec![fixed, Selection::Conf, Selection::BestStrategy, Selection::Mulde];
    selections.extend(both.map(|action| Selection::Random { action }));
    selections.extend(both.map(|action| policy(PolicyState::Query, action).selection));
    recipes.extend(selections.into_iter().map(|selection| Distill { selection, ..recipe() }));
    for backbone in Backbone::ALL {
        recipes.push(Distill { training: Training { backbone, ..recipe().training }, ..recipe() });
    }
    recipes.iter().for_each(|recipe| fixture.assert_same(recipe, false, TOLERANCE));
    // Scores computed anew: a cached score has 11 bits, and Adagrad's first steps do not depend on a gradient's size.
    fixture.assert_same(&recipe(), true, 2e-2);
}

/// The recipe of a policy with this state; its rewards often differ from the baseline's reward.
fn policy(state: PolicyState, action: Action) -> Distill {
    let keys = PolicyKeys { state, action, hidden: 16, learning_rate: 1e-3, ..PolicyKeys::default() };
    Distill { selection: Selection::Policy(keys), ..recipe() }
}

const STATES: [PolicyState; 2] = [PolicyState::Scores, PolicyState::Query];

fn layers(student: &mut Student<'_>) -> Vec<Matrix<f32>> {
    student.state().unwrap();
    student.teaching.as_ref().and_then(|teaching| teaching.policy.as_ref()).unwrap().parameters()
}

/// Asserts that layers are near. Adam's first steps have the learning rate's size, even where a gradient is nearly zero
/// and rounding decides, up to 1e-3 a step. Such parameters are few: the root mean square has a tighter limit.
fn assert_near(found: &[Matrix<f32>], expected: &[Matrix<f32>]) {
    assert_eq!(found.len(), expected.len());
    for (layer, (found, expected)) in found.iter().zip(expected).enumerate() {
        let differences = || found.values().iter().zip(expected.values()).map(|(a, b)| f64::from(a - b));
        let farthest = differences().map(f64::abs).fold(0.0, f64::max);
        let square = differences().map(|d| d * d).sum::<f64>() / found.values().len() as f64;
        assert!(farthest < 2e-3 && square.sqrt() < 5e-5, "layer {layer}: {farthest}, {}", square.sqrt());
    }
}

#[test]
fn a_policy_on_a_device_learns_as_on_the_cpu() {
    let fixture = Fixture::new();
    for state in STATES {
        for action in [Action::Query, Action::Triple] {
            let recipe = policy(state, action);
            let mut ours = fixture.student(&recipe, &CANDLE, false);
            let mut theirs = fixture.student(&recipe, &CPU, false);
            let before = layers(&mut ours);
            for epoch in 1..3 {
                let (found, expected) = (fixture.epoch(&mut ours, epoch), fixture.epoch(&mut theirs, epoch));
                assert_close(&found, &expected, TOLERANCE, &format!("{state:?}"));
            }
            let after = layers(&mut ours);
            assert_near(&after, &layers(&mut theirs));
            assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{state:?}: all move");
        }
    }
}

#[test]
fn a_policy_goes_on_with_the_other_device() {
    let fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    for state in STATES {
        let recipe = policy(state, Action::Query);
        let new = |on_device: bool| fixture.student(&recipe, if on_device { &CANDLE } else { &CPU }, false);
        let mut expected = new(false);
        (1..3).for_each(|epoch| drop(fixture.epoch(&mut expected, epoch)));
        for on_device in [true, false] {
            let (mut first, mut second) = (new(on_device), new(!on_device));
            fixture.epoch(&mut first, 1);
            first.state().unwrap().write(&path).unwrap();
            second.restore(&TensorReader::open(&path).unwrap()).unwrap();
            fixture.epoch(&mut second, 2);
            assert_near(&layers(&mut second), &layers(&mut expected));
        }
    }
}

#[test]
fn a_policy_on_a_device_says_what_it_says_on_the_cpu() {
    let fixture = Fixture::new();
    // Cached vectors and scores have 11 bits.
    for (recompute, tolerance) in [(false, 1e-5), (true, 5e-3)] {
        for state in STATES {
            let recipe = policy(state, Action::Query);
            let mut teaching = Teaching::new(&fixture.data, &fixture.labels, Vec::new(), &recipe, 1).unwrap();
            let policy = teaching.policy.as_mut().unwrap();
            let (labels, teachers) =
                (Some(&fixture.labels), recompute.then_some(fixture.teachers.as_slice()));
            let (data, start) = (&fixture.data, initial(&recipe.training));
            let mut engine =
                student_engine(&CANDLE, start, data, &recipe, labels, teachers, Some(policy)).unwrap();
            // Asks about several batches: one of them twice, and a smaller one.
            for batch in [&[0, 5, 9, 20, 3, 7][..], &[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6], &[8]] {
                let before = numbers_read();
                engine.ask(policy, batch).unwrap();
                assert_eq!(numbers_read() - before, 7 * batch.len(), "log-probabilities and nothing else");
                let found = policy.said.clone();
                let expected = policy.forward(&batch.iter().map(|query| *query as usize).collect::<Vec<_>>());
                assert_eq!((found.rows(), found.columns()), (batch.len(), 7));
                for (a, b) in found.values().iter().zip(expected.values()) {
                    assert!((a - b).abs() < tolerance, "{state:?}: {a}, expected {b}");
                }
            }
        }
    }
}

#[test]
fn no_matrix_of_queries_and_entities_comes_back() {
    let fixture = Fixture::new();
    let pairs = fixture.data.queries.pairs();
    for selection in [policy(PolicyState::Scores, Action::Triple).selection, Selection::Mulde] {
        let recipe = Distill { selection, ..recipe() };
        let mut student = fixture.student(&recipe, &CANDLE, false);
        let before = numbers_read();
        fixture.epoch(&mut student, 1);
        // Three numbers per step, two per pair, and per query seven log-probabilities or the Senior's six numbers.
        let queries = fixture.data.queries.len();
        let most = 3 * queries.div_ceil(60) + 2 * pairs + 7 * queries;
        assert!(numbers_read() - before <= most, "{} numbers, at most {most}", numbers_read() - before);
    }
}
