//! The cost of only a step's matrix products, compared with the machine's peak.

use kge::Matrix;
use serde_json::{Value, json};
use std::time::Instant;

use crate::workload::even;

const ROUNDS: usize = 5;
/// The size of the square matrices whose product measures the machine's peak.
const SQUARE: usize = 2048;

/// Times `S = Q Eᵀ`, `G E` and `Gᵀ Q`, and a large square product.
pub(crate) fn run(queries: usize, entities: usize, width: usize) -> Value {
    let (q, e) = (even(queries, width, 1.0, 1), even(entities, width, 1.0, 2));
    let mut scores = Matrix::zeros(queries, entities);
    let (mut into_q, mut into_e) = (Matrix::zeros(queries, width), Matrix::zeros(entities, width));
    let seconds = best(|| scores.product(false, q.view(), e.transposed()))
        + best(|| into_q.product(false, scores.view(), e.view()))
        + best(|| into_e.product(false, scores.transposed(), q.view()));
    let square = even(SQUARE, SQUARE, 1.0, 3);
    let mut into = Matrix::zeros(SQUARE, SQUARE);
    let peak = best(|| into.product(false, square.view(), square.view()));
    json!({
        "seconds": seconds,
        "gflops": 6e-9 * (queries * entities * width) as f64 / seconds,
        "gflops_square": 2e-9 * (SQUARE as f64).powi(3) / peak,
    })
}

fn best(mut work: impl FnMut()) -> f64 {
    (0..=ROUNDS)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}
