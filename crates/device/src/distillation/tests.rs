use candle_core::{DType, Tensor};
use mkg::{EntityId, Query, QuerySet, RelationId};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::*;
use crate::host::{lists, numbers_read};
use crate::teachers::TeacherSource;
use crate::tests::{assert_close, device, matrix};

const DISTIL: &str = include_str!("../../../../tests/golden/distil.json");

fn terms(term: Divergence, mean: bool, tau: f64) -> Terms {
    Terms { term, mean, tau, alpha: 1.0, beta: 1.0, weight: 1.0 }
}

fn tail_lists(tails: &[Vec<u32>]) -> TailLists {
    let tails: Vec<Vec<EntityId>> =
        tails.iter().map(|of| of.iter().copied().map(EntityId).collect()).collect();
    TailLists::new(lists(&device(), tails.iter().map(|of| of.iter())).unwrap()).unwrap()
}

/// One combination for each of the `rows`, for the tails at the positions `targets`.
fn round(lists: &TailLists, rows: &[u32], targets: &[Vec<usize>]) -> Round {
    let rows = list(&device(), rows).unwrap();
    let lists = lists.select(Some(&rows)).unwrap();
    let most = lists.tails.dim(1).unwrap();
    let mut mask = vec![0.0; targets.len() * most];
    for (row, targets) in targets.iter().enumerate() {
        targets.iter().for_each(|target| mask[row * most + target] = 1.0);
    }
    let weights = Tensor::ones((targets.len(), 1), DType::F64, &device()).unwrap();
    let targets = Tensor::from_vec(mask, (targets.len(), most), &device()).unwrap();
    Round { rows: Some(rows), weights, lists, targets }
}

fn tensor(matrix: &Matrix<f64>) -> Tensor {
    upload(&device(), matrix).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    read_numbers(tensor).unwrap()
}

/// Each row's value of the term for its first tail, and the gradient without cross-entropy's part.
fn distilled(teachers: &Tensor, student: &Tensor, tails: &[Vec<u32>], terms: Terms) -> (Vec<f64>, Vec<f64>) {
    let lists = tail_lists(tails);
    let lesson = || BatchLesson::new(terms, &lists, student, 1.0).unwrap();
    let alone = numbers(&lesson().finish(&lists).unwrap().scores);
    let mut lesson = lesson();
    let rows: Vec<u32> = (0..tails.len() as u32).collect();
    lesson.take(&round(&lists, &rows, &vec![vec![0]; tails.len()]), teachers, false).unwrap();
    let values = numbers(&lesson.values);
    let gradient = numbers(&lesson.finish(&lists).unwrap().scores);
    (values, gradient.into_iter().zip(alone).map(|(with, without)| with - without).collect())
}

fn check_golden(kind: DType, tolerance: f64) {
    let golden: Value = serde_json::from_str(DISTIL).unwrap();
    let scores = |name: &str| tensor(&matrix(&golden[name])).to_dtype(kind).unwrap();
    let (teachers, student) = (scores("teacher"), scores("student"));
    let neighbours: Vec<Vec<u32>> = serde_json::from_value(golden["neighbours"].clone()).unwrap();
    let targets: Vec<u32> = serde_json::from_value(golden["target"].clone()).unwrap();
    let targets: Vec<Vec<u32>> = targets.into_iter().map(|target| vec![target]).collect();
    for case in golden["cases"].as_array().unwrap() {
        let tau = case["tau"].as_f64().unwrap();
        let sum = |names: [&str; 2]| -> Vec<f64> {
            let of =
                |name: &str| -> Vec<f64> { serde_json::from_value(case[name].clone()).unwrap_or_default() };
            let (first, second) = (of(names[0]), of(names[1]));
            (0..first.len()).map(|row| first[row] + second.get(row).unwrap_or(&0.0)).collect()
        };
        for (tails, term, mean, values, gradient) in [
            (&targets, Divergence::Kd, true, ["kd", ""], "grad_kd"),
            (&targets, Divergence::Dkd, true, ["dkd_target", "dkd_nontarget"], "grad_dkd"),
            (&neighbours, Divergence::Ndkd, true, ["nekd_mean", "nnkd"], "grad_ndkd_mean"),
            (&neighbours, Divergence::Ndkd, false, ["nekd_sum", "nnkd"], "grad_ndkd_sum"),
        ] {
            let found = distilled(&teachers, &student, tails, terms(term, mean, tau));
            assert_close(&found.0, &sum(values), tolerance, gradient);
            assert_close(&found.1, matrix(&case[gradient]).values(), tolerance, gradient);
        }
    }
}

#[test]
fn every_term_and_its_gradient_equal_the_golden_values() {
    check_golden(DType::F64, 1e-10);
    check_golden(DType::F32, 2e-5);
}

fn random(rows: usize, columns: usize, seed: u64) -> Matrix<f64> {
    kge::model::normal(rows, columns, 2.0, &mut ChaCha8Rng::seed_from_u64(seed))
}

/// The loss of three queries and its gradient; in the last query all entities are tails. One combination is for some
/// tails of each query, and another for the remaining tails.
fn training_loss(student: &Matrix<f64>, terms: Terms) -> (f64, Vec<f64>) {
    let lists = tail_lists(&[vec![1, 2, 4], vec![3], (0..6).collect()]);
    let mut lesson = BatchLesson::new(terms, &lists, &tensor(student), 0.5).unwrap();
    let first = round(&lists, &[0, 1, 2], &[vec![0, 2], vec![0], vec![1, 5]]);
    lesson.take(&first, &tensor(&random(3, 6, 1)), false).unwrap();
    let second = round(&lists, &[0, 2], &[vec![1], vec![0, 2, 3, 4]]);
    lesson.take(&second, &tensor(&random(2, 6, 2)), false).unwrap();
    let ScoreGradient { scores, losses } = lesson.finish(&lists).unwrap();
    (0.5 * numbers(&losses).iter().sum::<f64>(), numbers(&scores))
}

#[test]
fn gradients_of_several_combinations_equal_finite_differences() {
    let student = random(3, 6, 3);
    for (term, mean) in
        [(Divergence::Kd, true), (Divergence::Dkd, true), (Divergence::Ndkd, true), (Divergence::Ndkd, false)]
    {
        for tau in [1.0, 3.0] {
            let terms = Terms { alpha: 0.7, beta: 1.3, weight: 2.5, ..terms(term, mean, tau) };
            let (_, gradient) = training_loss(&student, terms);
            for (i, found) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut student = student.clone();
                    student.values_mut()[i] += by;
                    training_loss(&student, terms).0
                };
                let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((difference - found).abs() < 1e-7, "{term:?} {mean} {i}: {found}, not {difference}");
            }
        }
    }
}

#[test]
fn a_confident_student_keeps_its_digits() {
    // p_G is 1 - 5e-9: in single precision, the difference 1 - p_G would be 0.
    let mut student = Matrix::zeros(1, 50);
    student.row_mut(0)[3] = 23.0;
    let of = |kind: DType| {
        let scores = |matrix: &Matrix<f64>| tensor(matrix).to_dtype(kind).unwrap();
        let (values, _) = distilled(
            &scores(&Matrix::zeros(1, 50)),
            &scores(&student),
            &[vec![3]],
            terms(Divergence::Ndkd, false, 1.0),
        );
        values[0]
    };
    let (exact, single) = (of(DType::F64), of(DType::F32));
    assert!((exact - single).abs() < 1e-5 * exact, "{single}, exactly {exact}");
}

/// Two teachers in a cache, and two queries with three pairs.
struct Cached {
    queries: QuerySet,
    rows: Vec<Vec<half::f16>>,
}

impl Cached {
    fn new() -> Cached {
        let pair =
            |head: u32, tail: u32| (Query { head: EntityId(head), relation: RelationId(0) }, EntityId(tail));
        let row = |seed: u64| random(1, 5, seed).values().iter().map(|x| half::f16::from_f64(*x)).collect();
        Cached {
            queries: QuerySet::from_pairs(vec![pair(0, 1), pair(0, 3), pair(2, 2)]),
            rows: (0..4).map(row).collect(),
        }
    }

    fn teachers(&self) -> DeviceTeachers<'_> {
        let rows = |query: usize, teacher: usize| self.rows[2 * query + teacher].as_slice();
        let source = TeacherSource::Cache { teachers: 2, scores: Box::new(rows), vectors: Box::new(rows) };
        DeviceTeachers::new::<f64>(&device(), recipe::Precision::F32, source)
    }

    fn scores(&self, query: usize, teacher: usize) -> Vec<f64> {
        self.rows[2 * query + teacher].iter().map(|x| x.to_f64()).collect()
    }
}

fn log_sum(scores: &[f64]) -> f64 {
    scores.iter().map(|x| x.exp()).sum::<f64>().ln()
}

#[test]
fn answers_come_back_by_pair_and_nothing_else_does() {
    let cached = Cached::new();
    let mut teachers = cached.teachers();
    let combination =
        |weights: [f32; 2], tails: &[usize]| Combination { weights: weights.to_vec(), tails: tails.to_vec() };
    let guidance = Guidance::Combined {
        combinations: vec![
            vec![combination([1.0, 0.0], &[1]), combination([0.0, 1.0], &[0])],
            vec![combination([0.5, 0.5], &[0])],
        ],
        baseline: Some(Matrix::from_values(2, 2, vec![0.5; 4])),
    };
    let mut objective = BatchDistillation::new(terms(Divergence::Ndkd, true, 2.0), &mut teachers, &guidance);
    let student = random(2, 5, 9);
    let batch = BatchTails::new(&device(), &cached.queries, &[0, 1]).unwrap();
    objective.gradient(&batch, &tensor(&student), 0.3).unwrap();
    let before = numbers_read();
    let taught = objective.left().unwrap();
    assert_eq!(numbers_read() - before, 1 + 2 * 3);
    let is_better = |query: usize, tail: usize, weights: [f64; 2]| {
        let [first, second] = [0, 1].map(|teacher| cached.scores(query, teacher));
        let combined: Vec<f64> =
            first.iter().zip(second).map(|(a, b)| weights[0] * a + weights[1] * b).collect();
        let student = student.row(query);
        log_sum(&combined) - combined[tail] < log_sum(student) - student[tail]
    };
    let answer = |query, tail, weights| Comparison {
        chosen: is_better(query, tail, weights),
        baseline: is_better(query, tail, [0.5, 0.5]),
    };
    let expected = [answer(0, 1, [0.0, 1.0]), answer(0, 3, [1.0, 0.0]), answer(1, 2, [0.5, 0.5])];
    assert_eq!(taught.answers, expected);
}

/// The attention and the gradient that the Senior receives for the given scales.
fn integrated(cached: &Cached, student: &Matrix<f64>, scales: &[f32]) -> [Matrix<f64>; 2] {
    let mut teachers = cached.teachers();
    let scales = Matrix::from_values(2, 2, scales.to_vec());
    let guidance = Guidance::Integrated { scales, temperature: 1.5 };
    let mut objective = BatchDistillation::new(terms(Divergence::Kd, true, 2.0), &mut teachers, &guidance);
    let batch = BatchTails::new(&device(), &cached.queries, &[0, 1]).unwrap();
    objective.gradient(&batch, &tensor(student), 1.0).unwrap();
    objective.left().unwrap().integration.unwrap()
}

#[test]
fn the_senior_is_told_attention_and_gradient_by_their_definitions() {
    let (cached, student) = (Cached::new(), random(2, 5, 9));
    let scales = [0.8f32, 1.3, 1.1, 0.6];
    let [attention, gradient] = integrated(&cached, &student, &scales);
    let softmax = |scores: Vec<f64>| -> Vec<f64> {
        let log_sum = log_sum(&scores);
        scores.into_iter().map(|x| (x - log_sum).exp()).collect()
    };
    for query in 0..2 {
        let scale = |teacher: usize| f64::from(scales[2 * query + teacher]);
        let scaled = |teacher: usize, by: f64| -> Vec<f64> {
            cached.scores(query, teacher).iter().map(|x| x * scale(teacher) * by).collect()
        };
        let of_student = softmax(student.row(query).iter().map(|x| x / 2.0).collect());
        let divergence = |teacher: usize| -> f64 {
            let of_teacher = softmax(scaled(teacher, 0.5));
            of_teacher.iter().zip(&of_student).map(|(p, q)| p * (p / q).ln()).sum()
        };
        let expected = softmax(vec![-divergence(0) / 1.5, -divergence(1) / 1.5]);
        assert_close(attention.row(query), &expected, 1e-10, "attention");
        let mix = |factors: [f64; 2]| -> Vec<f64> {
            let [first, second] = [0, 1].map(|teacher| scaled(teacher, expected[teacher] * factors[teacher]));
            first.iter().zip(second).map(|(a, b)| a + b).collect()
        };
        // ∂L/∂w is ∂L/∂s times s (1 - s / 2); if the scale is multiplied by 1 + h, s changes by h s.
        for teacher in 0..2 {
            let moved = |by: f64| {
                let mut factors = [1.0; 2];
                factors[teacher] += by;
                let combined = mix(factors);
                let tails = cached
                    .queries
                    .tails(query)
                    .iter()
                    .map(|tail| log_sum(&combined) - combined[tail.index()]);
                tails.sum::<f64>()
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5 * (1.0 - scale(teacher) / 2.0);
            let found = gradient.row(query)[teacher];
            assert!((found - difference).abs() < 1e-8, "{query} {teacher}: {found}, not {difference}");
        }
    }
}

#[test]
fn a_tail_far_above_all_others_leaves_finite_numbers() {
    let row = |last: f64| tensor(&Matrix::from_values(1, 4, vec![0.0, 0.0, 0.0, last]));
    // Without the target 0, the certain side has all probability on 3, the other side a third on each entity.
    for (teachers, student, expected) in [
        (0.0, 2000.0, [-0.25, -1.0 / 3.0, -1.0 / 3.0, 1.25 - 1.0 / 3.0]),
        (2000.0, 0.0, [0.25, 0.25, 0.25, -0.75]),
    ] {
        let dkd = terms(Divergence::Dkd, true, 1.0);
        let found = distilled(&row(teachers), &row(student), &[vec![0, 3]], dkd);
        assert!(found.0[0].is_finite(), "{found:?}");
        assert_close(&found.1, &expected, 1e-9, "gradient");
    }
}

#[test]
fn padded_tails_are_counted() {
    let of = |term, most| BatchDistillation::memory(terms(term, true, 1.0), 10, 5, 2, most);
    assert!(of(Divergence::Ndkd, 1000) > of(Divergence::Ndkd, 1) + 15 * 8 * 5 * 999);
    assert!(of(Divergence::Dkd, 1000) > of(Divergence::Ndkd, 1000) + 8 * 1000 * 1000);
}
