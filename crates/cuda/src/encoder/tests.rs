use super::*;
use crate::backend::{Backend, Lane, Product};
use crate::emulator::Emulator;
use crate::kernel::Kernel;
use crate::test_device::gpu;
use kge::model::normal;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const HIDDEN: usize = 12;
const HEADS: usize = 3;
const EPSILON: f64 = 1e-5;

/// Weights and biases on the host, `(in, out)` and of a norm `(1, width)`.
type Pair = (Matrix<f32>, Matrix<f32>);

/// A transformer on the host, which double precision computes.
struct Host {
    /// The table of words, or the patches' product.
    embedding: Matrix<f32>,
    positions: Matrix<f32>,
    first: Pair,
    /// Inputs, output, norm, up, down, norm.
    layers: Vec<[Pair; 6]>,
}

type Rows = Vec<Vec<f64>>;

impl Host {
    fn random(embedding: usize, layers: usize, generator: &mut ChaCha8Rng) -> Host {
        let mut random = |rows, columns, deviation| normal::<f32>(rows, columns, deviation, generator);
        let mut pair =
            |inputs: usize, outputs: usize| (random(inputs, outputs, 0.4), random(1, outputs, 0.4));
        let layers = (0..layers).map(|_| {
            let (inputs, output, up) =
                (pair(HIDDEN, 3 * HIDDEN), pair(HIDDEN, HIDDEN), pair(HIDDEN, 2 * HIDDEN));
            [inputs, output, pair(1, HIDDEN), up, pair(2 * HIDDEN, HIDDEN), pair(1, HIDDEN)]
        });
        let (layers, first) = (layers.collect(), pair(1, HIDDEN));
        Host { embedding: random(embedding, HIDDEN, 1.0), positions: random(9, HIDDEN, 0.5), first, layers }
    }

    fn on(&self, gpu: &Gpu, design: Design, words: bool) -> Encoder {
        let linear = |(weight, bias): &Pair| Linear::new(gpu, weight, bias.values()).unwrap();
        let norm = |(weight, bias): &Pair| Norm::new(gpu, weight.values(), bias.values()).unwrap();
        let layer = |[inputs, output, after_attention, up, down, after_feed_forward]: &[Pair; 6]| Layer {
            inputs: linear(inputs),
            output: linear(output),
            after_attention: norm(after_attention),
            up: linear(up),
            down: linear(down),
            after_feed_forward: norm(after_feed_forward),
        };
        let embedding = DeviceMatrix::of(gpu, &self.embedding).unwrap();
        let embedding = if words { Embedding::Words(embedding) } else { Embedding::Patches(embedding) };
        let layers = self.layers.iter().map(layer).collect();
        Encoder::new(gpu, design, embedding, &self.positions, norm(&self.first), layers).unwrap()
    }

    /// One sequence's row; `content` is what each token is, beside its position.
    fn row(&self, design: Design, content: Rows) -> Vec<f64> {
        let add = |a: Rows, b: &Rows| -> Rows {
            a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
        };
        let positions: Rows = (0..content.len()).map(|i| doubles(self.positions.row(i))).collect();
        let mut states = add(content, &positions);
        let mut normalised = normalise(&states, &self.first);
        for [inputs, output, after_attention, up, down, after_feed_forward] in &self.layers {
            let mut part = |of: &dyn Fn(Rows) -> Rows, norm: &Pair| {
                let base = if design.adds_to_normalised { &normalised } else { &states };
                states = add(of(normalised.clone()), base);
                normalised = normalise(&states, norm);
            };
            part(&|xs| linear(&attention(&linear(&xs, inputs)), output), after_attention);
            let fed = |xs: Rows| {
                let mut inner = linear(&xs, up);
                inner.iter_mut().flatten().for_each(|x| *x = activated(design.activation, *x));
                linear(&inner, down)
            };
            part(&fed, after_feed_forward);
        }
        let taken = match design.taken {
            Taken::First => 0..1,
            Taken::From(first) => first..normalised.len(),
        };
        let mean = |i| taken.clone().map(|row| normalised[row][i]).sum::<f64>() / taken.len() as f64;
        (0..HIDDEN).map(mean).collect()
    }

    /// The rows of sequences of words.
    fn of_words(&self, design: Design, words: &[u32], lengths: &[usize]) -> Vec<f64> {
        let mut words = words.iter();
        let row = |length: &usize| {
            let content =
                words.by_ref().take(*length).map(|word| doubles(self.embedding.row(*word as usize)));
            self.row(design, content.collect())
        };
        lengths.iter().flat_map(row).collect()
    }
}

fn doubles(row: &[f32]) -> Vec<f64> {
    row.iter().map(|x| f64::from(*x)).collect()
}

fn linear(xs: &Rows, (weight, bias): &Pair) -> Rows {
    let output = |x: &Vec<f64>, j: usize| {
        let terms = x.iter().enumerate().map(|(i, x)| x * f64::from(weight.row(i)[j]));
        terms.sum::<f64>() + f64::from(bias.row(0)[j])
    };
    xs.iter().map(|x| (0..weight.columns()).map(|j| output(x, j)).collect()).collect()
}

fn normalise(xs: &Rows, (weight, bias): &Pair) -> Rows {
    let of_row = |x: &Vec<f64>| {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let scale = weight.row(0).iter().zip(bias.row(0)).map(|(w, b)| (f64::from(*w), f64::from(*b)));
        x.iter().zip(scale).map(|(x, (w, b))| (x - mean) / (variance + EPSILON).sqrt() * w + b).collect()
    };
    xs.iter().map(of_row).collect()
}

/// What heads give, from queries, keys and values side by side.
fn attention(inputs: &Rows) -> Rows {
    let width = HIDDEN / HEADS;
    let part = |row: &Vec<f64>, part: usize, head: usize| -> Vec<f64> {
        let from = (part * HEADS + head) * width;
        row[from..from + width].to_vec()
    };
    let of = |row: &Vec<f64>, head: usize| -> Vec<f64> {
        let query = part(row, 0, head);
        let score = |other| query.iter().zip(part(other, 1, head)).map(|(q, k)| q * k).sum::<f64>();
        let mut scores: Vec<f64> = inputs.iter().map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        scores.iter_mut().for_each(|score| *score = (*score - most).exp());
        let sum: f64 = scores.iter().sum();
        let value = |i: usize| {
            inputs.iter().zip(&scores).map(|(other, score)| score / sum * part(other, 2, head)[i]).sum()
        };
        (0..width).map(value).collect()
    };
    inputs.iter().map(|row| (0..HEADS).flat_map(|head| of(row, head)).collect()).collect()
}

fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        // By the integral of the density: good enough for six digits.
        Activation::Gelu => {
            let (steps, density) = (2000, |t: f64| (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt());
            let step = x / f64::from(steps);
            let area: f64 = (0..steps).map(|i| density((f64::from(i) + 0.5) * step) * step).sum();
            x * (0.5 + area)
        }
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
    }
}

fn design(activation: Activation, adds_to_normalised: bool, taken: Taken) -> Design {
    let precision = Precision::F32;
    Design { heads: HEADS, activation, epsilon: EPSILON, adds_to_normalised, taken, precision }
}

fn assert_near(found: &Matrix<f32>, expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.values().len(), expected.len(), "{what}");
    for (found, expected) in found.values().iter().zip(expected) {
        let error = (f64::from(*found) - expected).abs();
        assert!(error < tolerance, "{what}: {found}, not {expected}");
    }
}

/// Equal lengths beside each other and apart, one token, and as many as there are positions.
const LENGTHS: [usize; 7] = [5, 5, 9, 1, 1, 3, 5];

fn words() -> Vec<u32> {
    (0..LENGTHS.iter().sum::<usize>() as u32).map(|i| i * 7 % 11).collect()
}

#[test]
fn texts_are_what_double_precision_makes_of_them() {
    let host = Host::random(11, 3, &mut ChaCha8Rng::seed_from_u64(3));
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu] {
        for adds_to_normalised in [true, false] {
            for taken in [Taken::First, Taken::From(0)] {
                let design = design(activation, adds_to_normalised, taken);
                let expected = host.of_words(design, &words(), &LENGTHS);
                // The rounding of factors, which three layers carry on.
                for (precision, tolerance) in
                    [(Precision::F32, 1e-4), (Precision::Tf32, 5e-2), (Precision::Bf16, 4e-1)]
                {
                    let encoder = host.on(&gpu(), Design { precision, ..design }, true);
                    let found = encoder.encode(Tokens::Words(&words()), &LENGTHS).unwrap();
                    assert_near(&found, &expected, tolerance, &format!("{design:?}"));
                }
            }
        }
    }
}

#[test]
fn images_are_what_double_precision_makes_of_them() {
    let mut generator = ChaCha8Rng::seed_from_u64(4);
    for layers in [0, 2] {
        let host = Host::random(6, layers, &mut generator);
        let (images, length) = (3, 9);
        let patches = normal::<f32>(images * (length - 1), 6, 0.7, &mut generator);
        let none = (host.embedding.clone(), Matrix::zeros(1, HIDDEN));
        for taken in [Taken::First, Taken::From(1)] {
            let design = design(Activation::Gelu, false, taken);
            let row = |image: usize| {
                let own = (0..length - 1).map(|i| doubles(patches.row(image * (length - 1) + i)));
                let projected = linear(&own.collect(), &none);
                host.row(design, [vec![vec![0.0; HIDDEN]], projected].concat())
            };
            let expected: Vec<f64> = (0..images).flat_map(row).collect();
            let found = host.on(&gpu(), design, false).encode(Tokens::Patches(&patches), &[length; 3]);
            assert_near(&found.unwrap(), &expected, 1e-4, &format!("{layers} layers, {taken:?}"));
        }
    }
}

#[test]
fn a_sequence_does_not_depend_on_its_batch() {
    let host = Host::random(11, 2, &mut ChaCha8Rng::seed_from_u64(5));
    let encoder = host.on(&gpu(), design(Activation::Gelu, true, Taken::From(0)), true);
    let (words, mut next) = (words(), 0);
    let together = encoder.encode(Tokens::Words(&words), &LENGTHS).unwrap();
    for (sequence, length) in LENGTHS.into_iter().enumerate() {
        let own = Tokens::Words(&words[next..next + length]);
        let alone = encoder.encode(own, &[length]).unwrap();
        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
        assert!(alone.values().iter().zip(together.row(sequence)).all(close), "sequence {sequence}");
        next += length;
    }
    let again = encoder.encode(Tokens::Words(&words), &LENGTHS).unwrap();
    assert_eq!(again.values(), together.values());
    let nothing = encoder.encode(Tokens::Words(&[]), &[]).unwrap();
    assert_eq!((nothing.rows(), nothing.columns()), (0, HIDDEN));
}

/// Scores whose exponentials overflow, and states that are all the same.
#[test]
fn large_scores_and_constant_states_are_finite() {
    let mut host = Host::random(11, 1, &mut ChaCha8Rng::seed_from_u64(6));
    host.layers[0][0].0.values_mut().iter_mut().for_each(|x| *x *= 100.0);
    host.positions.values_mut().fill(1.0);
    host.embedding.row_mut(0).fill(2.0);
    let design = design(Activation::Gelu, true, Taken::From(0));
    let encoder = host.on(&gpu(), design, true);
    let (words, lengths) = ([3, 5, 7, 0, 0], [3, 2]);
    let found = encoder.encode(Tokens::Words(&words), &lengths).unwrap();
    // Where one score is far above the others, rounding decides which.
    assert!(found.is_finite());
    assert_near(
        &Matrix::from_values(1, HIDDEN, found.row(1).to_vec()),
        &host.of_words(design, &[0, 0], &[2]),
        1e-4,
        "",
    );
}

#[test]
fn the_estimate_of_memory_covers_what_is_taken_and_hardly_more() {
    let host = Host::random(11, 2, &mut ChaCha8Rng::seed_from_u64(7));
    for adds_to_normalised in [true, false] {
        let gpu = Gpu::emulated_with(1 << 30);
        let design = design(Activation::Gelu, adds_to_normalised, Taken::First);
        let encoder = host.on(&gpu, design, true);
        let before = gpu.backend().free().unwrap();
        encoder.encode(Tokens::Words(&[1; 36]), &[9; 4]).unwrap();
        let (taken, estimate) = (before - gpu.backend().free().unwrap(), encoder.memory(4, 9));
        assert!(taken <= estimate && estimate < taken + taken / 4, "{taken} of {estimate} bytes");
        let advice = |fits: Option<usize>| format!("{fits:?}");
        let gpu = Gpu::emulated_with(encoder.memory(2, 9));
        let error = gpu.require_memory_or(|batch| encoder.memory(batch, 9), 4, "x", advice).unwrap_err();
        assert_eq!((error.kind(), error.hint_text()), (stage::Kind::Resource, Some("Some(2)")));
    }
}

/// The emulator, and how often it was called.
struct Counting(Emulator, AtomicUsize);

#[expect(unsafe_code, reason = "kernels take addresses")]
impl Backend for Counting {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn free(&self) -> Result<u64> {
        self.0.free()
    }
    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.0.allocate(bytes)
    }
    fn release(&self, at: Address, bytes: usize) {
        self.0.release(at, bytes);
    }
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.0.upload(to, bytes)
    }
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.0.download(from, bytes)
    }
    fn clear(&self, at: Address, bytes: usize) -> Result<()> {
        self.0.clear(at, bytes)
    }
    unsafe fn launch(&self, kernel: Kernel, blocks: usize, arguments: *const c_void) -> Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { self.0.launch(kernel, blocks, arguments) }
    }
    fn multiply(&self, product: &Product) -> Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.multiply(product)
    }
    fn multiply_many(&self, products: &Products) -> Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.multiply_many(products)
    }
    fn lane(&self) -> Result<Box<dyn Lane>> {
        self.0.lane()
    }
    fn products(&self, precision: Precision) -> String {
        self.0.products(precision)
    }
}

#[test]
fn calls_grow_with_layers_and_different_lengths_alone() {
    for layers in [0, 2] {
        let counting = Arc::new(Counting(Emulator::new(None), AtomicUsize::new(0)));
        let host = Host::random(11, layers, &mut ChaCha8Rng::seed_from_u64(8));
        let design = design(Activation::Gelu, true, Taken::First);
        let encoder = host.on(&Gpu::of(counting.clone()), design, true);
        for (lengths, groups) in [(vec![5; 7], 1), (vec![5; 70], 1), (vec![9, 9, 9, 4, 4, 1], 3)] {
            counting.1.store(0, Ordering::Relaxed);
            encoder.encode(Tokens::Words(&vec![1; lengths.iter().sum()]), &lengths).unwrap();
            assert_eq!(counting.1.load(Ordering::Relaxed), 3 + layers * (8 + 3 * groups));
        }
    }
}
