use kge::model::normal;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::test_device::gpu;

/// Single precision here, double precision there, on numbers of order 1.
const TOLERANCE: f64 = 2e-5;

const QUERIES: usize = 6;
const WIDTHS: [usize; 2] = [5, 3];
const HIDDEN: usize = 4;
const STRATEGIES: usize = 3;

/// The parameters, in the order of [`Network::new`], and what the network sees `(query, width)`.
fn fixture() -> (Vec<Matrix<f32>>, Vec<Matrix<f32>>) {
    let mut generator = ChaCha8Rng::seed_from_u64(5);
    let shapes = [
        (WIDTHS[0], HIDDEN),
        (WIDTHS[1], HIDDEN),
        (1, HIDDEN),
        (HIDDEN, STRATEGIES),
        (1, STRATEGIES),
        (QUERIES, WIDTHS[0]),
        (QUERIES, WIDTHS[1]),
    ];
    let mut matrices: Vec<Matrix<f32>> =
        shapes.iter().map(|&(rows, columns)| normal(rows, columns, 1.0, &mut generator)).collect();
    let seen = matrices.split_off(WIDTHS.len() + 3);
    (matrices, seen)
}

fn network(gpu: &Gpu, parameters: &[Matrix<f32>]) -> Network {
    let (first, others) = parameters.split_at(parameters.len() - 3);
    Network::new(gpu, first.iter(), [&others[0], &others[1], &others[2]]).unwrap()
}

fn on_device(gpu: &Gpu, matrices: &[Matrix<f32>]) -> Vec<DeviceMatrix> {
    matrices.iter().map(|matrix| DeviceMatrix::of(gpu, matrix).unwrap()).collect()
}

fn doubles(matrices: &[Matrix<f32>]) -> Vec<Vec<f64>> {
    matrices.iter().map(|matrix| matrix.values().iter().map(|x| f64::from(*x)).collect()).collect()
}

/// `log π` of a row in double precision.
fn log_pi(parameters: &[Vec<f64>], seen: &[Vec<f64>], row: usize) -> Vec<f64> {
    let hidden = |h: usize| {
        let of_input = |input: usize| {
            let width = WIDTHS[input];
            (0..width).map(move |i| seen[input][row * width + i] * parameters[input][i * HIDDEN + h])
        };
        ((0..2).flat_map(of_input).sum::<f64>() + parameters[2][h]).max(0.0)
    };
    let logit = |k: usize| {
        (0..HIDDEN).map(|h| hidden(h) * parameters[3][h * STRATEGIES + k]).sum::<f64>() + parameters[4][k]
    };
    let logits: Vec<f64> = (0..STRATEGIES).map(logit).collect();
    let log_sum = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
    logits.iter().map(|x| x - log_sum).collect()
}

#[test]
fn log_probabilities_are_those_of_the_network() {
    let (gpu, (parameters, seen)) = (gpu(), fixture());
    let (inputs, mut found) = (on_device(&gpu, &seen), Matrix::zeros(0, 0));
    network(&gpu, &parameters).forward(&Inputs::of(&inputs, Standard::None), &mut found).unwrap();
    assert_eq!((found.rows(), found.columns()), (QUERIES, STRATEGIES));
    for row in 0..QUERIES {
        let expected = log_pi(&doubles(&parameters), &doubles(&seen), row);
        for (found, expected) in found.row(row).iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < TOLERANCE, "{row}: {found}, {expected}");
        }
    }
}

/// A step whose change of parameters is minus the gradient: nothing is kept, nothing divided.
const PLAIN: AdamStep =
    AdamStep { decays: (0.0, 0.0), shares: (1.0, 0.0), rate: 1.0, correction: 1.0, epsilon: 1.0 };

#[test]
fn gradients_equal_finite_differences() {
    let (gpu, (parameters, seen)) = (gpu(), fixture());
    // The loss is minus the sum of these times log π of some rows, one of them last and none first.
    let (rows, advantages) = ([1u32, 3, 5], [[0.5, 0.0, -1.0], [0.0, 2.0, 0.0], [1.0, 1.0, -0.5]]);
    let loss = |parameters: &[Vec<f64>]| {
        let of_row = |(row, advantages): (&u32, &[f64; 3])| {
            let log_pi = log_pi(parameters, &doubles(&seen), *row as usize);
            -log_pi.iter().zip(advantages).map(|(log_p, advantage)| log_p * advantage).sum::<f64>()
        };
        rows.iter().zip(&advantages).map(of_row).sum::<f64>()
    };
    let exact = doubles(&parameters);
    let of_logits = rows.iter().zip(&advantages).flat_map(|(row, advantages)| {
        let (log_pi, total) =
            (log_pi(&exact, &doubles(&seen), *row as usize), advantages.iter().sum::<f64>());
        log_pi.into_iter().zip(advantages).map(move |(log_p, advantage)| total * log_p.exp() - advantage)
    });
    let of_logits =
        Matrix::from_values(rows.len(), STRATEGIES, of_logits.map(|gradient| gradient as f32).collect());
    let (inputs, mut network) = (on_device(&gpu, &seen), network(&gpu, &parameters));
    let (inputs, mut ignored) = (Inputs::of(&inputs, Standard::None), Matrix::zeros(0, 0));
    network.forward(&inputs, &mut ignored).unwrap();
    network.step(&inputs, &rows, &of_logits, PLAIN).unwrap();
    for (layer, after) in parameters_of(&network).iter().enumerate() {
        for (i, after) in after.values().iter().enumerate() {
            let moved = |by: f64| {
                let mut moved = exact.clone();
                moved[layer][i] += by;
                loss(&moved)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let found = f64::from(parameters[layer].values()[i] - after);
            assert!((found - expected).abs() < TOLERANCE, "layer {layer}, {i}: {found}, {expected}");
        }
    }
}

fn parameters_of(network: &Network) -> Vec<Matrix<f32>> {
    let mut read: Vec<[Matrix<f32>; 3]> =
        (0..network.first.len() + 3).map(|_| std::array::from_fn(|_| Matrix::zeros(0, 0))).collect();
    network.read(read.iter_mut().map(|matrices| matrices.each_mut())).unwrap();
    read.into_iter().map(|[parameters, ..]| parameters).collect()
}

#[test]
fn inputs_of_several_blocks_take_their_gradients() {
    let (gpu, mut generator) = (gpu(), ChaCha8Rng::seed_from_u64(6));
    let width = BLOCK + 10;
    let parameters = [(width, 2), (1, 2), (2, STRATEGIES), (1, STRATEGIES)]
        .map(|(rows, columns)| normal::<f32>(rows, columns, 0.01, &mut generator));
    let seen = [normal::<f32>(3, width, 1.0, &mut generator)];
    let mut network = network(&gpu, &parameters);
    let (inputs, mut log_pi) = (on_device(&gpu, &seen), Matrix::zeros(0, 0));
    let inputs = Inputs::of(&inputs, Standard::None);
    network.forward(&inputs, &mut log_pi).unwrap();
    let of_logits = Matrix::from_values(1, STRATEGIES, vec![1.0, -1.0, 0.0]);
    network.step(&inputs, &[2], &of_logits, PLAIN).unwrap();
    let after = parameters_of(&network);
    // The gradient of the weights is the input times that of the bias.
    let change = |layer: usize, i: usize| parameters[layer].values()[i] - after[layer].values()[i];
    assert!((0..2).any(|h| change(1, h) != 0.0));
    for i in [0, 17, BLOCK - 1, BLOCK, width - 1] {
        for h in 0..2 {
            let expected = seen[0].row(2)[i] * change(1, h);
            assert!((change(0, 2 * i + h) - expected).abs() < 1e-6, "{i}, {h}");
        }
    }
}

#[test]
fn the_estimate_of_memory_holds() {
    let (mut generator, widths, hidden, queries) = (ChaCha8Rng::seed_from_u64(7), [3000, 700], 64, 40);
    let mut random = |rows, columns| normal::<f32>(rows, columns, 0.01, &mut generator);
    let parameters = [(widths[0], hidden), (widths[1], hidden), (1, hidden), (hidden, 7), (1, 7)]
        .map(|(rows, columns)| random(rows, columns));
    let seen = widths.map(|width| random(queries, width));
    let of_inputs: usize = seen.iter().map(|matrix| 4 * matrix.values().len()).sum();
    let needed = Network::memory(&widths, hidden, queries) + of_inputs as u64;
    // Biases and what has a column for each strategy are small change: a percent and 64 KiB.
    let gpu = Gpu::emulated_with(needed + needed / 100 + (1 << 16));
    let (inputs, mut network) = (on_device(&gpu, &seen), network(&gpu, &parameters));
    let (inputs, mut log_pi) = (Inputs::of(&inputs, Standard::Deviation), Matrix::zeros(0, 0));
    network.forward(&inputs, &mut log_pi).unwrap();
    let rows: Vec<u32> = (0..queries as u32).collect();
    network.step(&inputs, &rows, &log_pi, PLAIN).unwrap();
    // And not by far too much.
    let tight = Gpu::emulated_with(needed - needed / 10);
    let inputs = on_device(&tight, &seen);
    let (inputs, mut network) = (Inputs::of(&inputs, Standard::None), self::network(&tight, &parameters));
    let taken = network.forward(&inputs, &mut log_pi);
    assert!(taken.and_then(|()| network.step(&inputs, &rows, &log_pi, PLAIN)).is_err());
}

#[test]
fn rows_are_standardised_as_asked() {
    let gpu = gpu();
    let seen =
        [Matrix::from_values(3, 4, vec![1.0, 3.0, 1.0, 3.0, 0.0, 0.0, 0.0, 0.0, -2.0, 4.0, -4.0, 2.0])];
    let on_device = on_device(&gpu, &seen);
    let mut network = network(&gpu, &[(4, 1), (1, 1), (1, 1), (1, 1)].map(|(r, c)| Matrix::zeros(r, c)));
    let mut standardised = |standard, rows: &[u32]| {
        let inputs = Inputs::of(&on_device, standard);
        let sent = network.send_rows(rows.iter().copied()).unwrap();
        network.standardise(&inputs, 0, sent, rows.len()).unwrap();
        let mut found = Matrix::zeros(0, 0);
        network.state.read(&mut found).unwrap();
        found.values().to_vec()
    };
    assert_eq!(standardised(Standard::None, &[2]), [-2.0, 4.0, -4.0, 2.0]);
    assert_eq!(standardised(Standard::Deviation, &[0, 1]), [-1.0, 1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    let found = standardised(Standard::Square, &[1, 0]);
    let root = 5.0f32.sqrt();
    for (found, expected) in found.iter().zip([0.0, 0.0, 0.0, 0.0, 1.0, 3.0, 1.0, 3.0]) {
        assert!((found - expected / root).abs() < 1e-6, "{found}");
    }
}
