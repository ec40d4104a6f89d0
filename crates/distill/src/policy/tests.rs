use dsom_tests::assert_close;
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

    /// A matrix of the file; its weights are `(output, input)`.
    fn matrix(&self, name: &str) -> Matrix<f64> {
        let rows: Vec<Vec<f64>> = serde_json::from_value(self.json[name].clone()).unwrap();
        Matrix::from_values(rows.len(), rows[0].len(), rows.concat())
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        serde_json::from_value(self.json[name].clone()).unwrap()
    }

    fn entities(&self) -> usize {
        self.teachers[0][0].len()
    }

    fn queries(&self) -> Vec<u32> {
        (0..self.teachers[0].len() as u32).collect()
    }

    /// The columns of `W1` or its gradient that belong to one teacher, `(entity, hidden)`.
    fn of_teacher(&self, name: &str, teacher: usize) -> Matrix<f64> {
        let (weights, entities) = (self.matrix(name), self.entities());
        let columns = teacher * entities..(teacher + 1) * entities;
        transposed(&Matrix::from_values(
            weights.rows(),
            entities,
            (0..weights.rows()).flat_map(|row| weights.row(row)[columns.clone()].to_vec()).collect(),
        ))
    }

    fn policy(&self) -> Policy<'_, f64> {
        let fill = |teacher: usize| {
            move |query: usize, into: &mut [f64]| into.copy_from_slice(&self.teachers[teacher][query])
        };
        let input = |teacher: usize| Input {
            name: teacher.to_string(),
            block: Box::new(Dense::new(self.entities(), fill(teacher))),
        };
        let first = (0..3).map(|teacher| self.of_teacher("W1", teacher)).collect();
        let bias = |name: &str| Matrix::from_values(1, self.numbers(name).len(), self.numbers(name));
        let second = transposed(&self.matrix("W2"));
        Policy::from_parameters((0..3).map(input).collect(), first, bias("b1"), second, bias("b2"), 1e-3)
    }

    fn outcomes(&self) -> Vec<RewardedAction> {
        let (rewards, baselines) = (self.numbers("reward"), self.numbers("baseline"));
        let outcome = |i: usize| RewardedAction {
            row: self.rows[i],
            strategy: Strategy(self.actions[i] as u16),
            reward: rewards[i],
            baseline: baselines[i],
        };
        (0..self.rows.len()).map(outcome).collect()
    }
}

fn transposed(matrix: &Matrix<f64>) -> Matrix<f64> {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let values = (0..rows * columns).map(|i| matrix.row(i % rows)[i / rows]).collect();
    Matrix::from_values(columns, rows, values)
}

/// The gradient of the first layer's weights for one input.
fn first_gradient(policy: &mut Policy<'_, f64>, input: usize, gradients: &Gradients<f64>) -> Matrix<f64> {
    let block = &mut policy.inputs[input].block;
    let mut found = Matrix::zeros(block.width(), gradients.into_hidden.columns());
    block.backward(&gradients.queries, &gradients.into_hidden);
    block.gradient(0..block.width(), &gradients.into_hidden, &mut found);
    found
}

#[test]
fn probabilities_loss_and_gradients_equal_the_reference() {
    let golden = Golden::read();
    let mut policy = golden.policy();
    let log_pi = policy.forward(&golden.queries());
    assert_close(log_pi.values(), golden.matrix("log_pi").values(), "log π");
    let gradients = policy.backward(&golden.outcomes());
    assert_close(&[gradients.loss], &[golden.json["loss"].as_f64().unwrap()], "loss");
    for teacher in 0..3 {
        let found = first_gradient(&mut policy, teacher, &gradients);
        assert_close(found.values(), golden.of_teacher("grad_W1", teacher).values(), "W₁");
    }
    let Gradients { logits, hidden, into_hidden, .. } = &gradients;
    let mut sums = Matrix::zeros(0, 0);
    sum_rows(into_hidden, &mut sums);
    assert_close(sums.values(), &golden.numbers("grad_b1"), "b₁");
    sum_rows(logits, &mut sums);
    assert_close(sums.values(), &golden.numbers("grad_b2"), "b₂");
    let mut second = Matrix::zeros(hidden.columns(), logits.columns());
    second.product(false, 1.0, hidden.transposed(), logits.view());
    assert_close(second.values(), transposed(&golden.matrix("grad_W2")).values(), "W₂");
}

#[test]
fn a_step_moves_every_parameter_against_its_gradient() {
    let golden = Golden::read();
    let (mut policy, before) = (golden.policy(), golden.policy());
    policy.forward(&golden.queries());
    policy.reinforce(&golden.outcomes());
    // Adam's first step is the learning rate against the gradient's sign.
    let gradient = golden.of_teacher("grad_W1", 1);
    let moved = policy.first[1].parameters.values().iter().zip(before.first[1].parameters.values());
    for ((after, before), gradient) in moved.zip(gradient.values()) {
        let expected = -1e-3 * gradient / (gradient.abs() + 1e-8);
        assert!((after - before - expected).abs() < 1e-9, "{after} {before} {gradient}");
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let golden = Golden::read();
    let loss_moved = |at: usize, by: f64| {
        let mut policy = golden.policy();
        policy.first[1].parameters.values_mut()[at] += by;
        policy.forward(&golden.queries());
        policy.backward(&golden.outcomes()).loss
    };
    let mut policy = golden.policy();
    policy.forward(&golden.queries());
    let gradients = policy.backward(&golden.outcomes());
    for (at, gradient) in first_gradient(&mut policy, 1, &gradients).values().iter().enumerate() {
        let difference = (loss_moved(at, 1e-5) - loss_moved(at, -1e-5)) / 2e-5;
        assert!((difference - gradient).abs() < 1e-7, "{at}: {difference}, {gradient}");
    }
}

#[test]
fn gradients_of_expected_values_equal_finite_differences() {
    let golden = Golden::read();
    let rows: Vec<Vec<f32>> = (0..golden.queries().len())
        .map(|row| (0..7).map(|k| ((row * 7 + k) as f32).sin()).collect())
        .collect();
    let values: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let weights: Vec<f64> = (0..rows.len()).map(|row| 1.0 + row as f64).collect();
    let loss_moved = |at: usize, by: f64| {
        let mut policy = golden.policy();
        policy.first[1].parameters.values_mut()[at] += by;
        let log_pi = policy.forward(&golden.queries());
        let worth =
            |row: usize| log_pi.row(row).iter().zip(values[row]).map(|(p, v)| p.exp() * f64::from(*v));
        let sum: f64 = (0..values.len()).map(|row| weights[row] * worth(row).sum::<f64>()).sum();
        -sum / weights.iter().sum::<f64>()
    };
    let mut policy = golden.policy();
    policy.forward(&golden.queries());
    let gradients = policy.towards(&values, &weights);
    assert!((gradients.loss - loss_moved(0, 0.0)).abs() < 1e-12);
    for (at, gradient) in first_gradient(&mut policy, 1, &gradients).values().iter().enumerate() {
        let difference = (loss_moved(at, 1e-5) - loss_moved(at, -1e-5)) / 2e-5;
        assert!((difference - gradient).abs() < 1e-8, "{at}: {difference}, {gradient}");
    }
}

/// Scores and query vectors in memory.
struct Known<'a> {
    scores: &'a Matrix<f64>,
    vectors: &'a Matrix<f64>,
}

impl Scored<f64> for Known<'_> {
    fn scores(&self, query: usize, into: &mut [f64]) {
        into.copy_from_slice(self.scores.row(query));
        self.statistics(query).apply(into);
    }

    fn vector(&self, query: usize, into: &mut [f64]) {
        into.copy_from_slice(self.vectors.row(query));
    }

    fn statistics(&self, query: usize) -> Statistics<f64> {
        Statistics::of(self.scores.row(query))
    }
}

#[test]
fn factored_scores_equal_the_scores() {
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let (entity, vectors) = (
        kge::model::normal::<f64>(40, 6, 1.0, &mut generator),
        kge::model::normal::<f64>(30, 6, 1.0, &mut generator),
    );
    let mut scores = Matrix::zeros(30, 40);
    scores.product(false, 1.0, vectors.view(), entity.transposed());
    let known = || Known { scores: &scores, vectors: &vectors };
    let mut dense = Dense::new(40, |query, into: &mut [f64]| known().scores(query, into));
    let mut factored = Factored::new(entity.clone(), known());
    let weights = kge::model::normal::<f64>(40, 5, 1.0, &mut generator);
    // Nine queries are more than the six columns, and go by factors; three do not.
    for queries in [vec![3, 1, 4, 15, 9, 2, 6, 5, 29], vec![3, 5, 8]] {
        let upstream = kge::model::normal::<f64>(queries.len(), 5, 1.0, &mut generator);
        let mut outputs = [Matrix::zeros(queries.len(), 5), Matrix::zeros(queries.len(), 5)];
        let mut gradients = [Matrix::zeros(13, 5), Matrix::zeros(13, 5)];
        let blocks: [&mut dyn Block<f64>; 2] = [&mut dense, &mut factored];
        for ((block, output), gradient) in blocks.into_iter().zip(&mut outputs).zip(&mut gradients) {
            block.forward(&queries, &weights, output);
            block.backward(&queries, &upstream);
            block.gradient(20..33, &upstream, gradient);
        }
        assert_close(outputs[0].values(), outputs[1].values(), "hidden layer");
        assert_close(gradients[0].values(), gradients[1].values(), "gradient");
        assert_eq!(factored.by_factors(), queries.len() > 6);
    }
}

#[test]
fn it_learns_which_strategy_is_rewarded() {
    // Two kinds of query, told apart by one teacher's scores; each has one rewarded strategy.
    let fill = |teacher: usize| {
        move |query: usize, into: &mut [f32]| {
            let wave = |i: usize| ((i + teacher + 3 * (query % 2)) as f32).sin();
            into.iter_mut().enumerate().for_each(|(i, x)| *x = wave(i));
        }
    };
    let input = |teacher: usize| Input {
        name: teacher.to_string(),
        block: Box::new(Dense::new(12, fill(teacher))) as Box<dyn Block<f32>>,
    };
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut policy = Policy::<f32>::new((0..2).map(input).collect(), 16, 3, 1e-2, &mut generator);
    let rewarded = |row: usize| Strategy((row % 2) as u16);
    let queries: Vec<u32> = (0..8).collect();
    for _ in 0..300 {
        policy.forward(&queries);
        let outcome = |row: usize| {
            let strategy = policy.sample(row, generator.random());
            RewardedAction {
                row,
                strategy,
                reward: if strategy == rewarded(row) { 1.0 } else { -10.0 },
                baseline: -10.0,
            }
        };
        let outcomes: Vec<RewardedAction> = (0..8).map(outcome).collect();
        policy.reinforce(&outcomes);
    }
    let log_pi = policy.forward(&queries);
    for row in 0..8 {
        assert!(log_pi.row(row)[rewarded(row).index()] > 0.9f32.ln(), "{:?}", log_pi.row(row));
    }
}

#[test]
fn sampling_follows_the_probabilities() {
    let golden = Golden::read();
    let mut policy = golden.policy();
    policy.forward(&golden.queries());
    let mut counts = [0.0; 7];
    for i in 0..10_000 {
        counts[policy.sample(0, f64::from(i) / 1e4).index()] += 1e-4;
    }
    for (count, log_p) in counts.iter().zip(policy.log_probabilities.row(0)) {
        assert!((count - log_p.exp()).abs() < 2e-4);
    }
    assert_eq!(policy.sample(0, 1.0), Strategy(6));
}
