use dsom_tests::assert_close;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::fixture::golden;

/// A matrix of the golden file, transposed, because the file's weights are `(output, input)`.
fn transposed(name: &str) -> Matrix<f64> {
    let rows: Vec<Vec<f64>> = golden(name);
    let values = (0..rows[0].len()).flat_map(|column| rows.iter().map(move |row| row[column])).collect();
    Matrix::from_values(rows[0].len(), rows.len(), values)
}

/// The rows of `W1` or of its gradient that belong to one of the three teachers, `(entity, hidden)`.
fn of_teacher(name: &str, teacher: usize) -> Matrix<f64> {
    let weights = transposed(name);
    let (rows, hidden) = (weights.rows() / 3, weights.columns());
    Matrix::from_values(rows, hidden, weights.values()[teacher * rows * hidden..][..rows * hidden].to_vec())
}

/// The golden policy after a forward pass over all golden queries.
fn policy() -> Policy<'static, f64> {
    let (mut inputs, mut layers) = (Vec::new(), Vec::new());
    for (teacher, scores) in golden::<Vec<Vec<Vec<f64>>>>("teacher_logits").into_iter().enumerate() {
        let width = scores[0].len();
        let fill = move |query: usize, into: &mut [f64]| into.copy_from_slice(&scores[query]);
        inputs.push(Box::new(Dense::new(width, fill)) as _);
        layers.push(of_teacher("W1", teacher));
    }
    let [first_bias, second_bias] = ["b1", "b2"].map(golden::<Vec<f64>>);
    layers.push(Matrix::from_values(1, first_bias.len(), first_bias));
    layers.push(transposed("W2"));
    layers.push(Matrix::from_values(1, second_bias.len(), second_bias));
    let mut policy = Policy::of(inputs, layers, 1e-3);
    policy.forward(&[0, 1, 2, 3]);
    policy
}

fn outcomes() -> Vec<RewardedAction> {
    let (rows, actions) = (golden::<Vec<usize>>("row"), golden::<Vec<usize>>("action"));
    let (rewards, baselines) = (golden::<Vec<f64>>("reward"), golden::<Vec<f64>>("baseline"));
    let outcome = |i: usize| RewardedAction {
        row: rows[i],
        strategy: Strategy(actions[i]),
        reward: rewards[i],
        baseline: baselines[i],
    };
    (0..rows.len()).map(outcome).collect()
}

/// The gradient of the first layer's weights for one input.
fn first_gradient(policy: &mut Policy<'_, f64>, input: usize, gradients: &Gradients<f64>) -> Matrix<f64> {
    let input = &mut policy.inputs[input];
    let mut found = Matrix::zeros(input.width(), gradients.into_hidden.columns());
    input.backward(&gradients.queries, &gradients.into_hidden);
    input.gradient(0..input.width(), &gradients.into_hidden, &mut found);
    found
}

#[test]
fn probabilities_loss_gradients_and_step_equal_the_reference() {
    let mut policy = policy();
    assert_close(policy.said.values(), &golden::<Vec<Vec<f64>>>("log_pi").concat(), "log π");
    let (loss, rows, logits) = policy.of_logits(&outcomes());
    assert_close(&[loss], &[golden("loss")], "loss");
    let gradients = policy.through_layers(&rows, logits);
    for teacher in 0..3 {
        let found = first_gradient(&mut policy, teacher, &gradients);
        assert_close(found.values(), of_teacher("grad_W1", teacher).values(), "W₁");
    }
    let Gradients { logits, hidden, into_hidden, .. } = &gradients;
    let mut sums = Matrix::default();
    sum_rows(into_hidden, &mut sums);
    assert_close(sums.values(), &golden::<Vec<f64>>("grad_b1"), "b₁");
    sum_rows(logits, &mut sums);
    assert_close(sums.values(), &golden::<Vec<f64>>("grad_b2"), "b₂");
    let mut second = Matrix::zeros(hidden.columns(), logits.columns());
    second.product(false, hidden.transposed(), logits.view());
    assert_close(second.values(), transposed("grad_W2").values(), "W₂");

    assert_eq!(policy.reinforce(&outcomes()), loss);
    // Adam's first step is the learning rate, against the sign of the gradient.
    let (before, gradient) = (of_teacher("W1", 1), of_teacher("grad_W1", 1));
    let moved = policy.first[1].parameters.values().iter().zip(before.values());
    for ((after, before), gradient) in moved.zip(gradient.values()) {
        let expected = -1e-3 * gradient / (gradient.abs() + 1e-8);
        assert!((after - before - expected).abs() < 1e-9, "{after} {before} {gradient}");
    }
}

#[test]
fn gradients_of_expected_values_equal_finite_differences() {
    let rows: Vec<[f32; 7]> =
        (0..4).map(|row| std::array::from_fn(|k| ((row * 7 + k) as f32).sin())).collect();
    let values: Vec<&[f32]> = rows.iter().map(|row| &row[..]).collect();
    let weights = [1.0, 2.0, 3.0, 4.0];
    let loss_moved = |at: usize, by: f64| {
        let mut policy = policy();
        policy.first[1].parameters.values_mut()[at] += by;
        let said = policy.forward(&[0, 1, 2, 3]);
        let worth = |row: usize| said.row(row).iter().zip(values[row]).map(|(p, v)| p.exp() * f64::from(*v));
        -(0..4).map(|row| weights[row] * worth(row).sum::<f64>()).sum::<f64>() / 10.0
    };
    let mut policy = policy();
    let gradients = policy.through_layers(&[0, 1, 2, 3], policy.towards(&values, &weights));
    for (at, gradient) in first_gradient(&mut policy, 1, &gradients).values().iter().enumerate() {
        let difference = (loss_moved(at, 1e-5) - loss_moved(at, -1e-5)) / 2e-5;
        assert!((difference - gradient).abs() < 1e-8, "{at}: {difference}, {gradient}");
    }
}

#[test]
fn it_learns_which_strategy_is_rewarded() {
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut policy = Policy { learning_rate: 1e-2, ..policy() };
    for _ in 0..600 {
        let mut outcomes = Vec::new();
        for row in 0..4 {
            let strategy = policy.sample(row, generator.random());
            let reward = if strategy == Strategy(row % 2) { 1.0 } else { -10.0 };
            outcomes.push(RewardedAction { row, strategy, reward, baseline: -10.0 });
        }
        policy.reinforce(&outcomes);
        policy.forward(&[0, 1, 2, 3]);
    }
    for row in 0..4 {
        assert!(policy.said.row(row)[row % 2] > 0.9f64.ln(), "{:?}", policy.said.row(row));
        assert_eq!(policy.favourite(row), Strategy(row % 2));
    }
}

#[test]
fn sampling_follows_the_probabilities() {
    let policy = policy();
    let mut counts = [0.0; 7];
    for i in 0..10_000 {
        counts[policy.sample(0, f64::from(i) / 1e4).0] += 1e-4;
    }
    for (count, log_p) in counts.iter().zip(policy.said.row(0)) {
        assert!((count - log_p.exp()).abs() < 2e-4);
    }
    assert_eq!(policy.sample(0, 1.0), Strategy(6));
}

#[test]
fn every_input_is_counted_with_its_state() {
    let [one, two] = [1, 2].map(|inputs| Policy::memory(&vec![50; inputs], 1, 100));
    assert!(two - one > 4 * 50 * 100, "{one}, {two}");
}
