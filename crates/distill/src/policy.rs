//! The agent: a network that looks at all teachers' scores of a query and chooses a strategy (Eq. 5, 6, 10).
//!
//! `log π = log softmax(W₂ relu(W₁ state + b₁) + b₂)`, where the state is the concatenation of the teachers' score
//! rows. `W₁` is kept as one matrix per teacher, so a state is never assembled: the hidden layer is a sum of one
//! product per teacher. Where reward and baseline agree, a triple has no gradient, so the backward pass reads only
//! the rows that have one.

use kge::checkpoint::{Reader, Tensors, require_finite};
use kge::{Matrix, Real};
use rand::{Rng, RngExt};
use rayon::prelude::*;
use stage::{Modality, Result};

use crate::strategy::{Strategy, strategies};

/// What became of one sampled action.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The row of the batch it was sampled for.
    pub row: usize,
    /// The action.
    pub strategy: Strategy,
    /// Its reward (Eq. 8).
    pub reward: f64,
    /// The reward of averaging all teachers.
    pub baseline: f64,
}

impl Outcome {
    /// `δ = R - R̂`.
    pub fn advantage(&self) -> f64 {
        self.reward - self.baseline
    }
}

/// The policy network with its optimiser and buffers.
#[derive(Debug)]
pub struct Policy<T> {
    /// `W₁`, one matrix `(hidden, entity)` per teacher.
    first: Vec<Adam<T>>,
    /// `b₁ (1, hidden)`.
    first_bias: Adam<T>,
    /// `W₂ (strategy, hidden)`.
    second: Adam<T>,
    /// `b₂ (1, strategy)`.
    second_bias: Adam<T>,
    learning_rate: f64,
    /// Steps taken so far.
    steps: u64,
    state: Matrix<T>,
    hidden: Matrix<T>,
    log_probabilities: Matrix<T>,
}

/// Writes the scores that `teacher` gives for the query of a batch's `row`, as the policy is to see them.
pub trait State<T>: Fn(usize, usize, &mut [T]) + Sync {}

impl<T, F: Fn(usize, usize, &mut [T]) + Sync> State<T> for F {}

impl<T: Real> Policy<T> {
    /// A network for so many `entities` and `teachers`, initialised evenly within `±1/√inputs`.
    pub fn new(
        entities: usize,
        teachers: usize,
        hidden: usize,
        learning_rate: f64,
        generator: &mut impl Rng,
    ) -> Self {
        let mut layer = |rows: usize, columns: usize, inputs: usize| {
            let bound = 1.0 / (inputs as f64).sqrt();
            let values = (0..rows * columns).map(|_| T::from_f64(generator.random_range(-bound..bound)));
            Matrix::from_values(rows, columns, values.collect())
        };
        let inputs = teachers * entities;
        let first = (0..teachers).map(|_| layer(hidden, entities, inputs)).collect();
        let first_bias = layer(1, hidden, inputs);
        let second = layer(strategies(teachers), hidden, hidden);
        let second_bias = layer(1, strategies(teachers), hidden);
        Policy::from_parameters(first, first_bias, second, second_bias, learning_rate)
    }

    /// A network with given parameters (see the fields for their shapes).
    pub fn from_parameters(
        first: Vec<Matrix<T>>,
        first_bias: Matrix<T>,
        second: Matrix<T>,
        second_bias: Matrix<T>,
        learning_rate: f64,
    ) -> Self {
        let empty = || Matrix::zeros(0, 0);
        Policy {
            first: first.into_iter().map(Adam::new).collect(),
            first_bias: Adam::new(first_bias),
            second: Adam::new(second),
            second_bias: Adam::new(second_bias),
            learning_rate,
            steps: 0,
            state: empty(),
            hidden: empty(),
            log_probabilities: empty(),
        }
    }

    fn entities(&self) -> usize {
        self.first[0].parameters.columns()
    }

    /// `log π (row, strategy)` of a batch of `rows` queries.
    pub fn forward(&mut self, rows: usize, state: &impl State<T>) -> &Matrix<T> {
        self.hidden.resize(rows, self.first_bias.parameters.columns());
        for teacher in 0..self.first.len() {
            self.read_state(teacher, &(0..rows).collect::<Vec<_>>(), state);
            let weights = self.first[teacher].parameters.transposed();
            self.hidden.product(teacher > 0, T::ONE, self.state.view(), weights);
        }
        let bias = &self.first_bias.parameters;
        self.hidden.values_mut().par_chunks_mut(bias.columns()).for_each(|row| {
            for (x, &bias) in row.iter_mut().zip(bias.values()) {
                *x = (*x + bias).larger(T::ZERO);
            }
        });
        let outputs = self.second.parameters.rows();
        self.log_probabilities.resize(rows, outputs);
        self.log_probabilities.product(
            false,
            T::ONE,
            self.hidden.view(),
            self.second.parameters.transposed(),
        );
        for row in 0..rows {
            let logits = self.log_probabilities.row_mut(row);
            logits.iter_mut().zip(self.second_bias.parameters.values()).for_each(|(x, &bias)| *x += bias);
            let log_sum = T::from_f64(kge::row::log_sum_exp(logits, T::ONE));
            logits.iter_mut().for_each(|x| *x -= log_sum);
        }
        &self.log_probabilities
    }

    /// The last [`Policy::forward`]'s strategy of `row`, drawn with a uniform `draw` in `0..1`.
    pub fn sample(&self, row: usize, draw: f64) -> Strategy {
        let probabilities = self.log_probabilities.row(row).iter().map(|x| x.to_f64().exp());
        let mut cumulative = probabilities.scan(0.0, |sum, p| {
            *sum += p;
            Some(*sum)
        });
        let last = self.log_probabilities.columns() - 1;
        // Rounding may leave the sum a little under 1.
        Strategy(cumulative.position(|sum| draw < sum).unwrap_or(last) as u16)
    }

    /// One REINFORCE step (Eq. 10) after [`Policy::forward`] of the same `state`. Returns the policy loss,
    /// `-mean(δ log π(a))` over the outcomes.
    pub fn reinforce(&mut self, outcomes: &[Outcome], state: &impl State<T>) -> f64 {
        let (loss, rows, upstream) = self.loss(outcomes);
        self.steps += 1;
        let adam = AdamStep::new(self.learning_rate, self.steps);
        // Gradients of the second layer, then through the ReLU, then of the first.
        let mut hidden = Matrix::zeros(rows.len(), self.hidden.columns());
        for (i, &row) in rows.iter().enumerate() {
            hidden.row_mut(i).copy_from_slice(self.hidden.row(row));
        }
        let mut into_hidden = Matrix::zeros(rows.len(), hidden.columns());
        into_hidden.product(false, T::ONE, upstream.view(), self.second.parameters.view());
        for (gradient, &hidden) in into_hidden.values_mut().iter_mut().zip(hidden.values()) {
            if hidden <= T::ZERO {
                *gradient = T::ZERO;
            }
        }
        self.second
            .step(adam, |gradient| gradient.product(false, T::ONE, upstream.transposed(), hidden.view()));
        self.second_bias.step(adam, |gradient| sum_rows(&upstream, gradient));
        self.first_bias.step(adam, |gradient| sum_rows(&into_hidden, gradient));
        for teacher in 0..self.first.len() {
            self.read_state(teacher, &rows, state);
            let read = self.state.view();
            self.first[teacher].step(adam, |gradient| {
                gradient.product(false, T::ONE, into_hidden.transposed(), read);
            });
        }
        loss
    }

    /// The policy loss, the rows with a gradient, and the gradient of their logits `(row, strategy)`.
    fn loss(&self, outcomes: &[Outcome]) -> (f64, Vec<usize>, Matrix<T>) {
        let mean = 1.0 / outcomes.len().max(1) as f64;
        let mut rows: Vec<usize> =
            outcomes.iter().filter(|outcome| outcome.advantage() != 0.0).map(|outcome| outcome.row).collect();
        rows.sort_unstable();
        rows.dedup();
        let mut upstream = Matrix::zeros(rows.len(), self.log_probabilities.columns());
        let mut loss = 0.0;
        for outcome in outcomes.iter().filter(|outcome| outcome.advantage() != 0.0) {
            let log_probabilities = self.log_probabilities.row(outcome.row);
            loss -= mean * outcome.advantage() * log_probabilities[outcome.strategy.index()].to_f64();
            // ∂(-δ log π_a)/∂logit_k = δ (π_k - [k = a]).
            let position = rows.binary_search(&outcome.row).expect("rows hold every outcome with a gradient");
            let gradient = upstream.row_mut(position);
            for (gradient, &log_p) in gradient.iter_mut().zip(log_probabilities) {
                *gradient += T::from_f64(mean * outcome.advantage() * log_p.to_f64().exp());
            }
            gradient[outcome.strategy.index()] -= T::from_f64(mean * outcome.advantage());
        }
        (loss, rows, upstream)
    }

    fn read_state(&mut self, teacher: usize, rows: &[usize], state: &impl State<T>) {
        let entities = self.entities();
        self.state.resize(rows.len(), entities);
        let values = self.state.values_mut().par_chunks_mut(entities);
        values.zip(rows).for_each(|(into, &row)| state(teacher, row, into));
    }
}

/// Column sums, as the gradient of a bias.
fn sum_rows<T: Real>(matrix: &Matrix<T>, into: &mut Matrix<T>) {
    into.clear();
    for row in 0..matrix.rows() {
        kge::row::add_scaled(into.row_mut(0), T::ONE, matrix.row(row));
    }
}

impl Policy<f32> {
    /// Bytes that it takes: weights, two moments and a gradient each, and one teacher's state.
    pub fn memory(entities: usize, teachers: usize, hidden: usize, batch: usize) -> u64 {
        4 * (4 * teachers * entities * hidden + batch * (entities + hidden)) as u64
    }

    /// The network alone: `first.<modality> (hidden, entity)`, biases as rows, `second (strategy, hidden)`.
    pub fn tensors(&self, teachers: &[Modality]) -> Tensors<'_> {
        let first = teachers.iter().zip(&self.first);
        first
            .fold(Tensors::default(), |tensors, (modality, layer)| {
                tensors.matrix(format!("first.{modality}"), &layer.parameters)
            })
            .matrix("first_bias", &self.first_bias.parameters)
            .matrix("second", &self.second.parameters)
            .matrix("second_bias", &self.second_bias.parameters)
    }

    fn layers(&self) -> impl Iterator<Item = (String, &Adam<f32>)> {
        let first = self.first.iter().enumerate().map(|(i, layer)| (format!("first{i}"), layer));
        let names = ["first_bias", "second", "second_bias"].map(str::to_owned);
        first.chain(names.into_iter().zip([&self.first_bias, &self.second, &self.second_bias]))
    }

    /// Everything needed to go on, but the number of steps.
    pub fn state(&self) -> Tensors<'_> {
        self.layers().fold(Tensors::default(), |tensors, (name, layer)| {
            tensors
                .matrix(name.clone(), &layer.parameters)
                .matrix(format!("{name}_mean"), &layer.mean)
                .matrix(format!("{name}_square"), &layer.square)
        })
    }

    /// Takes up a state saved under `prefix.`, after so many `steps`.
    pub fn restore(&mut self, reader: &Reader, prefix: &str, steps: u64) -> Result<()> {
        self.steps = steps;
        let first = self.first.iter_mut().enumerate().map(|(i, layer)| (format!("first{i}"), layer));
        let names = ["first_bias", "second", "second_bias"].map(str::to_owned);
        let others = [&mut self.first_bias, &mut self.second, &mut self.second_bias];
        for (name, layer) in first.chain(names.into_iter().zip(others)) {
            reader.load(&format!("{prefix}.{name}"), &mut layer.parameters)?;
            reader.load(&format!("{prefix}.{name}_mean"), &mut layer.mean)?;
            reader.load(&format!("{prefix}.{name}_square"), &mut layer.square)?;
        }
        Ok(())
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Refuses parameters that are no longer finite.
    pub fn require_finite(&self) -> Result<()> {
        self.layers()
            .try_for_each(|(name, layer)| require_finite(&format!("policy {name}"), &layer.parameters))
    }
}

/// Parameters with Adam's moments (Kingma and Ba, 2015).
#[derive(Debug)]
struct Adam<T> {
    parameters: Matrix<T>,
    mean: Matrix<T>,
    square: Matrix<T>,
    gradient: Matrix<T>,
}

/// What one step has in common for all parameters.
#[derive(Clone, Copy)]
struct AdamStep {
    /// Learning rate over the mean's bias correction.
    rate: f64,
    /// The square's bias correction.
    correction: f64,
}

impl AdamStep {
    const BETAS: (f64, f64) = (0.9, 0.999);
    const EPSILON: f64 = 1e-8;

    fn new(learning_rate: f64, steps: u64) -> Self {
        let power = |beta: f64| 1.0 - beta.powf(steps as f64);
        AdamStep { rate: learning_rate / power(Self::BETAS.0), correction: power(Self::BETAS.1) }
    }
}

impl<T: Real> Adam<T> {
    fn new(parameters: Matrix<T>) -> Self {
        let zeros = || Matrix::zeros(parameters.rows(), parameters.columns());
        Adam { mean: zeros(), square: zeros(), gradient: zeros(), parameters }
    }

    /// Lets `fill` compute the gradient, then takes the step.
    fn step(&mut self, step: AdamStep, fill: impl FnOnce(&mut Matrix<T>)) {
        const CHUNK: usize = 1 << 14;
        fill(&mut self.gradient);
        let beta = (T::from_f64(AdamStep::BETAS.0), T::from_f64(AdamStep::BETAS.1));
        let rest = (T::from_f64(1.0 - AdamStep::BETAS.0), T::from_f64(1.0 - AdamStep::BETAS.1));
        let (rate, correction) = (T::from_f64(step.rate), T::from_f64(1.0 / step.correction));
        let epsilon = T::from_f64(AdamStep::EPSILON);
        let moments =
            self.mean.values_mut().par_chunks_mut(CHUNK).zip(self.square.values_mut().par_chunks_mut(CHUNK));
        let chunks =
            self.parameters.values_mut().par_chunks_mut(CHUNK).zip(self.gradient.values().par_chunks(CHUNK));
        chunks.zip(moments).for_each(|((parameters, gradients), (means, squares))| {
            pulp::Arch::new().dispatch(
                #[inline(always)]
                || {
                    let rows =
                        parameters.iter_mut().zip(gradients).zip(means.iter_mut().zip(squares.iter_mut()));
                    for ((x, &g), (mean, square)) in rows {
                        *mean = beta.0 * *mean + rest.0 * g;
                        *square = beta.1 * *square + rest.1 * g * g;
                        *x -= rate * *mean / ((*square * correction).sqrt() + epsilon);
                    }
                },
            );
        });
    }
}

#[cfg(test)]
mod tests;
