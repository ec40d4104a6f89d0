//! The three products of a training step (scores, gradient of the query vectors, gradient of the entities), in `f32`
//! and in bf16 by every kernel of this machine, against what the machine can do with operands that are in registers.
//!
//! ```text
//! cargo bench -p dsom-benches --profile dev --bench products -- [QUERIES [ENTITIES [WIDTH ...]]]
//! ```
//!
//! Everything takes turns with everything else, and medians are printed: of GFLOP/s; of GFLOP in a second that a core
//! works on it, its share of a core's peak, measured in the same round, and its ratio to `f32`. Other programs that
//! the machine runs meanwhile slow the first, not the others; a core that waits for another shows in the first alone.

use dsom_benches::{median, numbers};
use kge::matrix::bf16::Kernel;
use kge::model::normal;
use kge::{Matrix, ProductPrecision};
use program::print_line;
use rand::SeedableRng;

use peak::Clock;

mod peak;

const ROUNDS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers = numbers();
    let queries = numbers.first().copied().unwrap_or(530);
    let entities = numbers.get(1).copied().unwrap_or(15_000);
    let widths = if numbers.len() > 2 { &numbers[2..] } else { &[256, 512, 4000] };
    let mut methods = vec![ProductPrecision::Full];
    methods.extend(Kernel::all().into_iter().map(ProductPrecision::Bf16));
    print_line(&format!("{queries} queries, {entities} entities, {ROUNDS} rounds"));
    print_line("threads width  product    by            GFLOP/s  of a core  of peak  times f32");
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        for &width in widths {
            for line in pool.install(|| Step::new(queries, entities, width).compare(&methods)) {
                print_line(&format!("{threads:7} {width:5}  {line}"));
            }
        }
    }
    Ok(())
}

/// The operands and results of a step's products.
struct Step {
    vectors: Matrix<f32>,
    entity: Matrix<f32>,
    scores: Matrix<f32>,
    vector_gradient: Matrix<f32>,
    entity_gradient: Matrix<f32>,
}

impl Step {
    fn new(queries: usize, entities: usize, width: usize) -> Self {
        let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        Step {
            vectors: normal(queries, width, 1e-1, &mut generator),
            entity: normal(entities, width, 1e-1, &mut generator),
            scores: normal(queries, entities, 1e-1, &mut generator),
            vector_gradient: Matrix::zeros(queries, width),
            entity_gradient: Matrix::zeros(entities, width),
        }
    }

    /// One line for each product and method.
    fn compare(&mut self, methods: &[ProductPrecision]) -> Vec<String> {
        let (queries, width) = (self.vectors.rows() as f64, self.vectors.columns() as f64);
        let work = 2e-9 * queries * width * self.entity.rows() as f64;
        let mut lines = Vec::new();
        for (name, multiply) in PRODUCTS {
            let mut measured = vec![[const { Vec::new() }; 4]; methods.len()];
            for round in 0..=ROUNDS {
                let mut single = 0.0;
                for (&method, medians) in methods.iter().zip(&mut measured) {
                    let peak = peak::rate(method);
                    let started = Clock::now();
                    multiply(self, method);
                    let (all, core) = started.elapsed();
                    let rate = work / core;
                    single = if method == ProductPrecision::Full { rate } else { single };
                    // The first round warms up.
                    if round > 0 {
                        let values = [work / all, rate, rate / peak, rate / single];
                        medians.iter_mut().zip(values).for_each(|(median, value)| median.push(value));
                    }
                }
            }
            for (method, measured) in methods.iter().zip(measured) {
                let [all, core, share, ratio] = measured.map(median);
                let (method, percent) = (peak::name(*method), 100.0 * share);
                lines
                    .push(format!("{name:9}  {method:11} {all:9.0} {core:10.0} {percent:7.0}% {ratio:10.2}"));
            }
        }
        lines
    }
}

type Multiply = fn(&mut Step, ProductPrecision);

const PRODUCTS: [(&str, Multiply); 3] = [
    ("scores", |step, precision| {
        let Step { vectors, entity, scores, .. } = step;
        scores.product_in(precision, false, 1.0, vectors.view(), entity.transposed());
    }),
    ("queries'", |step, precision| {
        let Step { vector_gradient, entity, scores, .. } = step;
        vector_gradient.product_in(precision, false, 1.0, scores.view(), entity.view());
    }),
    ("entities'", |step, precision| {
        let Step { vectors, entity_gradient, scores, .. } = step;
        entity_gradient.product_in(precision, false, 1.0, scores.transposed(), vectors.view());
    }),
];
