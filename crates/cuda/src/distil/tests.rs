use mkg::{EntityId, Query, QuerySet, RelationId};
use serde_json::Value;

use super::*;
use crate::test_device::gpu;

const GOLDEN: &str = include_str!("../../../../tests/golden/distil.json");

/// As the CPU's, in single precision, is held to the same values.
const TOLERANCE: f64 = 2e-5;

/// The bits of numbers in half precision, to the nearest of those a test needs: whole numbers of 1/64 below 32.
fn half_bits(x: f64) -> u16 {
    let sixtyfourths = (x.abs() * 64.0).round() as u32;
    let sign = if x < 0.0 { 0x8000 } else { 0 };
    match sixtyfourths.checked_ilog2() {
        None => sign,
        Some(top) => sign | ((top + 9) << 10) as u16 | ((sixtyfourths << (10 - top)) & 0x3ff) as u16,
    }
}

/// One row each of a student and a teacher, with these tails: the term's value and gradient, without cross-entropy's.
fn distilled(student: &[f64], teacher: &[f64], tails: &[u32], terms: Terms) -> (f64, Vec<f64>, Taught) {
    let gpu = gpu();
    let query = Query { head: EntityId(0), relation: RelationId(0) };
    let queries = QuerySet::from_pairs(tails.iter().map(|tail| (query, EntityId(*tail))).collect());
    let sorted: Vec<u32> = queries.tails(0).iter().map(|tail| tail.0).collect();
    let mut lists = Lists::new(&gpu);
    let starts = lists.add([0, tails.len() as u32]);
    let tail_list = lists.add(sorted);
    lists.send().unwrap();
    let visit = Visit {
        gpu: &gpu,
        queries: &queries,
        numbers: &[0],
        pairs: tails.len(),
        starts: lists.at(starts, 0),
        tails: lists.at(tail_list, 0),
    };
    let row = kge::Matrix::from_values(1, student.len(), student.iter().map(|x| *x as f32).collect());
    let mut scores = DeviceMatrix::of(&gpu, &row).unwrap();
    // A teacher whose only entity vector is its scores: the query vector is (1, 0), and entities are (score, 0).
    let entity = teacher.iter().flat_map(|x| [*x as f32, 0.0]).collect();
    let mut model = kge::Model::complex(
        kge::Matrix::from_values(teacher.len(), 2, entity),
        kge::Matrix::from_values(1, 2, vec![0.0, 0.0]),
    );
    let head = f64::from(model.entity.row(0)[0]);
    model.relation.row_mut(0)[0] = (1.0 / head) as f32;
    let models = Sources::Models(vec![Model::new(&gpu, &model).unwrap()]);
    let mut distil = Distil::new(&gpu, terms, Some(models), Precision::F32);
    let mut groups = Groups::new(1);
    groups.add([1.0], [0], 1.0);
    groups.end_query();
    distil.set_groups(groups);
    // Cross-entropy's part is taken out by the difference to a weight of nothing.
    distil.gradient(&visit, &mut scores, 1.0).unwrap();
    let (_, taught) = distil.results().unwrap();
    let mut with = kge::Matrix::zeros(0, 0);
    scores.read(&mut with).unwrap();
    let mut scores = DeviceMatrix::of(&gpu, &row).unwrap();
    distil.terms.weight = 0.0;
    distil.gradient(&visit, &mut scores, 1.0).unwrap();
    distil.results().unwrap();
    let mut without = kge::Matrix::zeros(0, 0);
    scores.read(&mut without).unwrap();
    let difference = with.values().iter().zip(without.values()).map(|(a, b)| f64::from(a - b));
    (taught.distillation, difference.collect(), taught)
}

fn terms(term: Term, mean: bool, tau: f64) -> Terms {
    Terms { term, mean, tau, alpha: 1.0, beta: 1.0, weight: 1.0 }
}

fn assert_equals(found: (f64, Vec<f64>, Taught), value: f64, gradient: &Value) {
    assert!((found.0 - value).abs() < TOLERANCE, "value {}, expected {value}", found.0);
    let expected: Vec<f64> = serde_json::from_value(gradient.clone()).unwrap();
    for (i, (found, expected)) in found.1.iter().zip(&expected).enumerate() {
        assert!((found - expected).abs() < TOLERANCE, "gradient {i}: {found}, expected {expected}");
    }
}

#[test]
fn values_and_gradients_equal_the_reference() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let rows = |name: &str| serde_json::from_value::<Vec<Vec<f64>>>(golden[name].clone()).unwrap();
    let (teacher, student) = (rows("teacher"), rows("student"));
    let neighbours: Vec<Vec<u32>> = serde_json::from_value(golden["neighbours"].clone()).unwrap();
    let targets: Vec<u32> = serde_json::from_value(golden["target"].clone()).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let tau = case["tau"].as_f64().unwrap();
        for row in 0..teacher.len() {
            let number = |name: &str| case[name][row].as_f64().unwrap();
            let (student, teacher, of) = (&student[row], &teacher[row], &neighbours[row]);
            let kd = distilled(student, teacher, &[targets[row]], terms(Term::Kd, true, tau));
            assert_equals(kd, number("kd"), &case["grad_kd"][row]);
            let dkd = distilled(student, teacher, &[targets[row]], terms(Term::Dkd, true, tau));
            assert_equals(dkd, number("dkd_target") + number("dkd_nontarget"), &case["grad_dkd"][row]);
            for (name, mean) in [("mean", true), ("sum", false)] {
                let value = number(&format!("nekd_{name}")) + number("nnkd");
                let found = distilled(student, teacher, of, terms(Term::Ndkd, mean, tau));
                assert_equals(found, value, &case[format!("grad_ndkd_{name}")][row]);
            }
        }
    }
}

#[test]
fn log_sums_and_cross_entropies_are_those_of_the_rows() {
    let (student, teacher) = ([0.5, -1.0, 2.0, 0.0], [1.0, 3.0, -2.0, 0.25]);
    let log_sum = |xs: &[f64]| xs.iter().map(|x| x.exp()).sum::<f64>().ln();
    let (_, _, taught) = distilled(&student, &teacher, &[3, 1], terms(Term::Ndkd, true, 2.0));
    assert!((taught.log_sums[0] - log_sum(&teacher)).abs() < TOLERANCE, "{taught:?}");
    for (i, tail) in [1, 3].into_iter().enumerate() {
        assert!((taught.cross_entropies[i] - (log_sum(&student) - student[tail])).abs() < TOLERANCE);
        assert!((taught.scores[taught.starts[0] + i] - teacher[tail]).abs() < TOLERANCE);
    }
}

#[test]
fn halves_are_widened_exactly() {
    let gpu = gpu();
    let halves = [0.0, 1.0, -1.0, 0.5, 31.984375, -2.015625, 0.015625].map(|x| (half_bits(x), x as f32));
    // The smallest subnormal, the largest of them, the largest number.
    let extremes = [(1, 2f32.powi(-24)), (0x3ff, 1023.0 * 2f32.powi(-24)), (0x7bff, 65504.0), (0x8000, -0.0)];
    let (bits, expected): (Vec<u16>, Vec<f32>) = halves.into_iter().chain(extremes).unzip();
    let from = Array::of(&gpu, &bits).unwrap();
    let mut into = DeviceMatrix::new(&gpu);
    into.resize(1, bits.len()).unwrap();
    let (width, stride) = (bits.len() as u64, bits.len() as u64);
    gpu.launch(1, &kernel::Widen { from: from.at(0), into: into.at(0), width, stride }).unwrap();
    let mut found = kge::Matrix::zeros(0, 0);
    into.read(&mut found).unwrap();
    assert_eq!(found.values(), expected);
}
