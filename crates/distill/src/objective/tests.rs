use serde_json::Value;

use super::*;

/// The term's value for one triple, and its gradient without cross-entropy.
fn distilled<T: Real>(student: &[f64], teacher: &[f64], group: &[u32], terms: Terms) -> (f64, Vec<f64>) {
    let [mut scores, mut teacher] =
        [student, teacher].map(|xs| xs.iter().map(|x| T::from_f64(*x)).collect::<Vec<T>>());
    let tails: Vec<EntityId> = group.iter().map(|id| EntityId(*id)).collect();
    let mut buffers = RowBuffers::new(student.len());
    let mut pass = Pass::new(&mut scores, &tails, terms, &mut buffers);
    let value = pass.distil(&mut teacher, &[0], 1.0);
    pass.finish(0.0);
    (value, scores.iter().map(|x| x.to_f64()).collect())
}

fn ndkd(mean: bool, tau: f64) -> Terms {
    Terms { term: Divergence::Ndkd, mean, tau, alpha: 1.0, beta: 1.0, weight: 1.0 }
}

fn assert_golden<T: Real>(tolerance: f64) {
    let golden: Value = serde_json::from_str(include_str!("../../../../tests/golden/distil.json")).unwrap();
    let rows = |name: &str| serde_json::from_value::<Vec<Vec<f64>>>(golden[name].clone()).unwrap();
    let (teacher, student) = (rows("teacher"), rows("student"));
    let neighbours: Vec<Vec<u32>> = serde_json::from_value(golden["neighbours"].clone()).unwrap();
    let targets: Vec<u32> = serde_json::from_value(golden["target"].clone()).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        for row in 0..teacher.len() {
            let (target, tails) = (&targets[row..=row], &neighbours[row][..]);
            for (term, mean, group, values, gradient) in [
                (Divergence::Kd, true, target, &["kd"][..], "grad_kd"),
                (Divergence::Dkd, true, target, &["dkd_target", "dkd_nontarget"], "grad_dkd"),
                (Divergence::Ndkd, true, tails, &["nekd_mean", "nnkd"], "grad_ndkd_mean"),
                (Divergence::Ndkd, false, tails, &["nekd_sum", "nnkd"], "grad_ndkd_sum"),
            ] {
                let terms = Terms { term, ..ndkd(mean, case["tau"].as_f64().unwrap()) };
                let (value, found) = distilled::<T>(&student[row], &teacher[row], group, terms);
                let expected: f64 = values.iter().map(|name| case[name][row].as_f64().unwrap()).sum();
                assert!((value - expected).abs() < tolerance, "{values:?}: {value}, expected {expected}");
                let expected: Vec<f64> = serde_json::from_value(case[gradient][row].clone()).unwrap();
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((found - expected).abs() < tolerance, "{gradient}: {found}, expected {expected}");
                }
            }
        }
    }
}

#[test]
fn values_and_gradients_equal_the_reference() {
    assert_golden::<f64>(1e-12);
    assert_golden::<f32>(2e-5);
}

#[test]
fn a_confident_student_keeps_its_digits() {
    // p_G is 1 - 5e-9: in single precision, the difference 1 - p_G would be 0.
    let (mut student, teacher) = (vec![0.0; 50], vec![0.0; 50]);
    student[3] = 23.0;
    let (exact, _) = distilled::<f64>(&student, &teacher, &[3], ndkd(false, 1.0));
    let (single, _) = distilled::<f32>(&student, &teacher, &[3], ndkd(false, 1.0));
    assert!((exact - single).abs() < 1e-5 * exact, "{single}, exactly {exact}");
}

#[test]
fn a_group_of_all_entities_has_no_rest() {
    let (value, gradient) = distilled::<f32>(&[1.0, 2.0], &[2.0, 1.0], &[0, 1], ndkd(true, 4.0));
    assert!(value.abs() < 1e-6 && gradient.iter().all(|g| g.abs() < 1e-6), "{value} {gradient:?}");
}

#[test]
fn a_tail_far_above_all_others_leaves_finite_numbers() {
    let (far, even) = ([0.0, 0.0, 0.0, 2000.0], [0.0; 4]);
    let dkd = Terms { term: Divergence::Dkd, ..ndkd(true, 1.0) };
    // Without the target 0, the certain side has all probability on 3, the other side a third on each entity.
    for (student, teacher, expected) in [
        (far, even, [-0.25, -1.0 / 3.0, -1.0 / 3.0, 1.25 - 1.0 / 3.0]),
        (even, far, [0.25, 0.25, 0.25, -0.75]),
    ] {
        let (value, found) = distilled::<f64>(&student, &teacher, &[0, 3], dkd);
        let near = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9);
        assert!(near && value.is_finite(), "{value}, {found:?}, expected {expected:?}");
    }
}
