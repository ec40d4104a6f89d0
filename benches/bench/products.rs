//! Cost of the step's matrix products alone, and of the best that the machine could do.

use kge::Matrix;
use serde_json::{Value, json};
use std::time::Instant;

use crate::workload::even;

const ROUNDS: usize = 5;
/// Sides of the square product that stands for the machine's peak.
const SQUARE: usize = 2048;

/// Times `S = Q Eᵀ`, `G E` and `Gᵀ Q`, and a large square product.
pub(crate) fn run(queries: usize, entities: usize, width: usize) -> Value {
    let (q, e) = (even(queries, width, 1.0, 1), even(entities, width, 1.0, 2));
    let mut scores = Matrix::zeros(queries, entities);
    let (mut into_q, mut into_e) = (Matrix::zeros(queries, width), Matrix::zeros(entities, width));
    let forward = best(|| scores.product(false, 1.0, q.view(), e.transposed()));
    let backward_queries = best(|| into_q.product(false, 1.0, scores.view(), e.view()));
    let backward_entities = best(|| into_e.product(false, 1.0, scores.transposed(), q.view()));
    let each = 2e-9 * (queries * entities * width) as f64;
    let square = even(SQUARE, SQUARE, 1.0, 3);
    let mut into = Matrix::zeros(SQUARE, SQUARE);
    let peak = best(|| into.product(false, 1.0, square.view(), square.view()));
    json!({
        "seconds": forward + backward_queries + backward_entities,
        "gflops": 3.0 * each / (forward + backward_queries + backward_entities),
        "gflops_scores": each / forward,
        "gflops_query_gradient": each / backward_queries,
        "gflops_entity_gradient": each / backward_entities,
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
