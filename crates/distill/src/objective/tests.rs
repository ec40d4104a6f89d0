use proptest::prelude::*;
use serde_json::Value;

use super::*;
use recipe::Softening;

const GOLDEN: &str = include_str!("../../../../tests/golden/distil.json");

fn terms(division: Division, neighbours: Neighbours, tau: f64) -> Distillation {
    Distillation { division, tau, alpha: 1.0, beta: 1.0, neighbours, weight: 1.0 }
}

fn ids(raw: &[u32]) -> Vec<EntityId> {
    raw.iter().map(|id| EntityId(*id)).collect()
}

/// The term's value for one triple and its gradient, without cross-entropy.
fn distilled<T: Real>(
    student: &[f64],
    teacher: &[f64],
    group: &[u32],
    terms: Distillation,
) -> (f64, Vec<f64>) {
    let cast = |xs: &[f64]| xs.iter().map(|x| T::from_f64(*x)).collect::<Vec<T>>();
    let (mut scores, mut teacher, mut buffers) =
        (cast(student), cast(teacher), RowBuffers::new(student.len()));
    let tails = ids(group);
    let mut pass = Pass::new(&mut scores, &tails, terms, &mut buffers);
    let value = pass.distil(&mut teacher, &[0], 1.0);
    pass.finish(0.0);
    (value, scores.iter().map(|x| x.to_f64()).collect())
}

fn each_golden_row(check: impl Fn(&Value, usize, &[f64], &[f64], &[u32], u32)) {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let rows = |name: &str| serde_json::from_value::<Vec<Vec<f64>>>(golden[name].clone()).unwrap();
    let (teacher, student) = (rows("teacher"), rows("student"));
    let neighbours: Vec<Vec<u32>> = serde_json::from_value(golden["neighbours"].clone()).unwrap();
    let targets: Vec<u32> = serde_json::from_value(golden["target"].clone()).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        for row in 0..teacher.len() {
            check(case, row, &teacher[row], &student[row], &neighbours[row], targets[row]);
        }
    }
}

fn assert_equals(found: (f64, Vec<f64>), value: f64, gradient: &Value, tolerance: f64) {
    assert!((found.0 - value).abs() < tolerance, "value {}, expected {value}", found.0);
    let expected: Vec<f64> = serde_json::from_value(gradient.clone()).unwrap();
    for (i, (found, expected)) in found.1.iter().zip(&expected).enumerate() {
        assert!((found - expected).abs() < tolerance, "gradient {i}: {found}, expected {expected}");
    }
}

fn check_all<T: Real>(tolerance: f64) {
    each_golden_row(|case, row, teacher, student, neighbours, target| {
        let tau = case["tau"].as_f64().unwrap();
        let number = |name: &str| case[name][row].as_f64().unwrap();
        let kd = terms(Division::Whole, Neighbours::Mean, tau);
        let found = distilled::<T>(student, teacher, &[target], kd);
        assert_equals(found, number("kd"), &case["grad_kd"][row], tolerance);
        let dkd = terms(Division::Target, Neighbours::Mean, tau);
        let value = number("dkd_target") + number("dkd_nontarget");
        let found = distilled::<T>(student, teacher, &[target], dkd);
        assert_equals(found, value, &case["grad_dkd"][row], tolerance);
        let variants = [("mean", Neighbours::Mean), ("sum", Neighbours::Sum)];
        for (name, rule) in variants {
            let ndkd = terms(Division::Neighbours, rule, tau);
            let value = number(&format!("nekd_{name}")) + number("nnkd");
            let found = distilled::<T>(student, teacher, neighbours, ndkd);
            assert_equals(found, value, &case[format!("grad_ndkd_{name}")][row], tolerance);
        }
    });
}

#[test]
fn values_and_gradients_equal_the_reference() {
    check_all::<f64>(1e-12);
}

#[test]
fn single_precision_is_close_to_the_reference() {
    check_all::<f32>(2e-5);
}

/// Cross-entropy of all tails plus the weighted term over two combinations, as training uses it.
fn training_loss(
    student: &[f64],
    teachers: &[Vec<f64>; 2],
    tails: &[u32],
    terms: Distillation,
) -> (f64, Vec<f64>) {
    let (mut scores, mut buffers) = (student.to_vec(), RowBuffers::new(student.len()));
    let tails = ids(tails);
    let mut pass = Pass::new(&mut scores, &tails, terms, &mut buffers);
    let (first, second): (Vec<usize>, Vec<usize>) = (0..tails.len()).partition(|i| i % 2 == 0);
    let mut value = pass.distil(&mut teachers[0].clone(), &first, 0.5);
    if !second.is_empty() {
        value += pass.distil(&mut teachers[1].clone(), &second, 0.5);
    }
    let cross_entropy = pass.finish(0.5);
    (0.5 * (cross_entropy + terms.weight * value), scores)
}

proptest! {
    #[test]
    fn gradients_equal_finite_differences(
        student in prop::collection::vec(-6f64..6.0, 9),
        first in prop::collection::vec(-6f64..6.0, 9),
        second in prop::collection::vec(-6f64..6.0, 9),
        tails in prop::collection::btree_set(0u32..9, 1..9),
        which in 0usize..4,
        parts in 0usize..3,
        tau in 0.5f64..5.0,
    ) {
        let (division, rule) = [
            (Division::Whole, Neighbours::Mean),
            (Division::Target, Neighbours::Mean),
            (Division::Neighbours, Neighbours::Mean),
            (Division::Neighbours, Neighbours::Sum),
        ][which];
        let mut terms = terms(division, rule, tau);
        (terms.alpha, terms.beta) = [(0.7, 1.3), (0.7, 0.0), (0.0, 1.3)][parts];
        terms.weight = 3.0;
        let (teachers, tails) = ([first, second], tails.into_iter().collect::<Vec<u32>>());
        let (_, gradient) = training_loss(&student, &teachers, &tails, terms);
        for i in 0..student.len() {
            let loss = |by: f64| {
                let mut moved = student.clone();
                moved[i] += by;
                training_loss(&moved, &teachers, &tails, terms).0
            };
            let difference = (loss(1e-5) - loss(-1e-5)) / 2e-5;
            prop_assert!((difference - gradient[i]).abs() < 1e-6, "{}: {} {}", i, difference, gradient[i]);
        }
    }
}

#[test]
fn the_parts_of_ndkd_add_up_to_it() {
    let (student, teacher) = ([0.5, -1.0, 2.0, 0.0, 1.5], [1.0, 0.5, -0.5, 2.0, 0.0]);
    let (softening, neighbours) =
        (Softening { gamma: 2.0, tau: 2.0, tau_squared: true }, Neighbours::default());
    let [whole, group, rest] = [
        Term::Ndkd { softening, alpha: 0.7, beta: 1.3, neighbours },
        Term::Nekd { softening, alpha: 0.7, neighbours },
        Term::Nnkd { softening, beta: 1.3 },
    ]
    .map(|term| distilled::<f64>(&student, &teacher, &[1, 3], Distillation::from(&term)));
    assert!(group.0 > 0.0 && rest.0 > 0.0);
    assert!((group.0 + rest.0 - whole.0).abs() < 1e-12);
    for i in 0..student.len() {
        assert!((group.1[i] + rest.1[i] - whole.1[i]).abs() < 1e-12);
    }
}

#[test]
fn a_confident_student_keeps_its_digits() {
    // p_G is 1 - 5e-9: in single precision its complement, taken as a difference, would be 0.
    let (mut student, teacher) = (vec![0.0; 50], vec![0.0; 50]);
    student[3] = 23.0;
    let terms = terms(Division::Neighbours, Neighbours::Sum, 1.0);
    let (exact, _) = distilled::<f64>(&student, &teacher, &[3], terms);
    let (single, _) = distilled::<f32>(&student, &teacher, &[3], terms);
    assert!((exact - single).abs() < 1e-5 * exact, "{single}, exactly {exact}");
}

#[test]
fn a_group_of_all_entities_has_no_rest() {
    let terms = terms(Division::Neighbours, Neighbours::Mean, 4.0);
    let (value, gradient) = distilled::<f32>(&[1.0, 2.0], &[2.0, 1.0], &[0, 1], terms);
    assert!(value.abs() < 1e-6 && gradient.iter().all(|g| g.abs() < 1e-6), "{value} {gradient:?}");
}
