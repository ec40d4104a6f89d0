use rand::SeedableRng;
use serde_json::Value;

use super::*;

const GOLDEN: &str = include_str!("../../../../tests/golden/policy.json");

struct Golden {
    json: Value,
    teachers: Vec<Vec<Vec<f64>>>,
    rows: Vec<usize>,
    actions: Vec<usize>,
}

impl Golden {
    fn read() -> Golden {
        let json: Value = serde_json::from_str(GOLDEN).unwrap();
        let get = |name: &str| json[name].clone();
        Golden {
            teachers: serde_json::from_value(get("teacher_logits")).unwrap(),
            rows: serde_json::from_value(get("row")).unwrap(),
            actions: serde_json::from_value(get("action")).unwrap(),
            json,
        }
    }

    fn matrix(&self, name: &str) -> Vec<Vec<f64>> {
        serde_json::from_value(self.json[name].clone()).unwrap()
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        serde_json::from_value(self.json[name].clone()).unwrap()
    }

    fn policy(&self) -> Policy<f64> {
        let entities = self.teachers[0][0].len();
        let w1 = self.matrix("W1");
        let first = (0..3).map(|teacher| {
            let columns = teacher * entities..(teacher + 1) * entities;
            let values: Vec<f64> = w1.iter().flat_map(|row| row[columns.clone()].to_vec()).collect();
            Matrix::from_values(w1.len(), entities, values)
        });
        let bias = |name: &str| Matrix::from_values(1, self.numbers(name).len(), self.numbers(name));
        let w2 = self.matrix("W2");
        let second = Matrix::from_values(w2.len(), w2[0].len(), w2.concat());
        Policy::from_parameters(first.collect(), bias("b1"), second, bias("b2"), 1e-3)
    }

    fn outcomes(&self) -> Vec<Outcome> {
        let (rewards, baselines) = (self.numbers("reward"), self.numbers("baseline"));
        let outcome = |i: usize| Outcome {
            row: self.rows[i],
            strategy: Strategy(self.actions[i] as u16),
            reward: rewards[i],
            baseline: baselines[i],
        };
        (0..self.rows.len()).map(outcome).collect()
    }
}

fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-12, "{what}[{i}]: {found}, expected {expected}");
    }
}

#[test]
fn probabilities_loss_and_gradients_equal_the_reference() {
    let golden = Golden::read();
    let state =
        |teacher: usize, row: usize, into: &mut [f64]| into.copy_from_slice(&golden.teachers[teacher][row]);
    let mut policy = golden.policy();
    let log_pi = policy.forward(golden.teachers[0].len(), &state);
    assert_close(log_pi.values(), &golden.matrix("log_pi").concat(), "log π");
    let loss = policy.reinforce(&golden.outcomes(), &state);
    assert_close(&[loss], &[golden.json["loss"].as_f64().unwrap()], "loss");
    let w1 = golden.matrix("grad_W1");
    for (teacher, layer) in policy.first.iter().enumerate() {
        let columns = teacher * 6..(teacher + 1) * 6;
        let expected: Vec<f64> = w1.iter().flat_map(|row| row[columns.clone()].to_vec()).collect();
        assert_close(layer.gradient.values(), &expected, "W₁");
    }
    assert_close(policy.first_bias.gradient.values(), &golden.numbers("grad_b1"), "b₁");
    assert_close(policy.second.gradient.values(), &golden.matrix("grad_W2").concat(), "W₂");
    assert_close(policy.second_bias.gradient.values(), &golden.numbers("grad_b2"), "b₂");
}

#[test]
fn gradients_equal_finite_differences() {
    let golden = Golden::read();
    let state =
        |teacher: usize, row: usize, into: &mut [f64]| into.copy_from_slice(&golden.teachers[teacher][row]);
    let loss_moved = |at: usize, by: f64| {
        let mut policy = golden.policy();
        policy.first[1].parameters.values_mut()[at] += by;
        policy.forward(4, &state);
        policy.loss(&golden.outcomes()).0
    };
    let mut policy = golden.policy();
    policy.forward(4, &state);
    policy.reinforce(&golden.outcomes(), &state);
    for (at, gradient) in policy.first[1].gradient.values().iter().enumerate() {
        let difference = (loss_moved(at, 1e-5) - loss_moved(at, -1e-5)) / 2e-5;
        assert!((difference - gradient).abs() < 1e-7, "{at}: {difference}, {gradient}");
    }
}

#[test]
fn adam_takes_the_steps_worked_out_by_hand() {
    let mut adam = Adam::new(Matrix::from_values(1, 1, vec![1.0f64]));
    adam.step(AdamStep::new(0.1, 1), |gradient| gradient.values_mut()[0] = 2.0);
    // The first step is lr · g / (|g| + ε).
    assert!((adam.parameters.values()[0] - (1.0 - 0.1 * 2.0 / (2.0 + 1e-8))).abs() < 1e-12);
    adam.step(AdamStep::new(0.1, 2), |gradient| gradient.values_mut()[0] = -1.0);
    let (mean, square) = (0.9 * 0.2 - 0.1, 0.999 * 0.004 + 0.001);
    let step = 0.1 * (mean / 0.19) / ((square / (1.0 - 0.999f64.powi(2))).sqrt() + 1e-8);
    assert!((adam.parameters.values()[0] - (0.9 - step)).abs() < 1e-7);
}

#[test]
fn it_learns_which_strategy_is_rewarded() {
    // Two kinds of query, told apart by one teacher's scores; each has one rewarded strategy.
    let state = |teacher: usize, row: usize, into: &mut [f32]| {
        into.iter_mut().enumerate().for_each(|(i, x)| *x = ((i + teacher + 3 * (row % 2)) as f32).sin());
    };
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut policy = Policy::<f32>::new(12, 2, 16, 1e-2, &mut generator);
    let rewarded = |row: usize| Strategy((row % 2) as u16);
    for _ in 0..300 {
        policy.forward(8, &state);
        let outcome = |row: usize| {
            let strategy = policy.sample(row, generator.random());
            Outcome {
                row,
                strategy,
                reward: if strategy == rewarded(row) { 1.0 } else { -10.0 },
                baseline: -10.0,
            }
        };
        let outcomes: Vec<Outcome> = (0..8).map(outcome).collect();
        policy.reinforce(&outcomes, &state);
    }
    let log_pi = policy.forward(8, &state);
    for row in 0..8 {
        assert!(log_pi.row(row)[rewarded(row).index()] > 0.9f32.ln(), "{:?}", log_pi.row(row));
    }
}

#[test]
fn sampling_follows_the_probabilities() {
    let golden = Golden::read();
    let state =
        |teacher: usize, row: usize, into: &mut [f64]| into.copy_from_slice(&golden.teachers[teacher][row]);
    let mut policy = golden.policy();
    policy.forward(4, &state);
    let mut counts = [0.0; 7];
    for i in 0..10_000 {
        counts[policy.sample(0, f64::from(i) / 1e4).index()] += 1e-4;
    }
    for (count, log_p) in counts.iter().zip(policy.log_probabilities.row(0)) {
        assert!((count - log_p.exp()).abs() < 2e-4);
    }
    assert_eq!(policy.sample(0, 1.0), Strategy(6));
}
