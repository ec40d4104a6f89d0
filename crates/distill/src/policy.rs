//! The agent: a network that looks at what the teachers say of a query and chooses a strategy (Eqs. 5, 6, 9, 10).
//!
//! `log π = log softmax(relu(state · W₁ + b₁) · W₂ + b₂)`. The state is a concatenation of [`Block`]s and `W₁` is kept
//! as one matrix per block, so a state is never assembled: the hidden layer is a sum of one product per block. Where
//! reward and baseline agree, a triple has no gradient, so the backward pass reads only the rows that have one.

mod remote;
mod state;

pub(crate) use remote::RemotePolicy;
pub use state::{Block, Dense};
pub(crate) use state::{Factored, Scored, Statistics};

use kge::checkpoint::{NamedTensors, TensorReader, require_finite};
use kge::{Matrix, ProductPrecision, Real};
use rand::{Rng, RngExt};
use rayon::prelude::*;
use stage::Result;

use crate::adam::{Adam, AdamStep};
use crate::reward::RewardedAction;
use crate::strategy::Strategy;
use state::sum_rows;

/// A named part of the state.
pub struct Input<'a, T> {
    /// Names of its weights in files.
    pub name: String,
    /// Its numbers.
    pub block: Box<dyn Block<T> + 'a>,
}

/// The policy network with its optimiser and buffers.
pub struct Policy<'a, T> {
    inputs: Vec<Input<'a, T>>,
    /// `W₁`, one matrix `(width, hidden)` per input.
    first: Vec<Adam<T>>,
    /// `b₁ (1, hidden)`.
    first_bias: Adam<T>,
    /// `W₂ (hidden, strategy)`.
    second: Adam<T>,
    /// `b₂ (1, strategy)`.
    second_bias: Adam<T>,
    learning_rate: f64,
    /// Steps taken so far.
    steps: u64,
    /// The batch of the last forward pass.
    queries: Vec<u32>,
    hidden: Matrix<T>,
    log_probabilities: Matrix<T>,
}

impl<'a, T: Real> Policy<'a, T> {
    /// A network that chooses among so many `strategies`, initialised evenly within `±1/√inputs`.
    pub fn new(
        inputs: Vec<Input<'a, T>>,
        hidden: usize,
        strategies: usize,
        learning_rate: f64,
        generator: &mut impl Rng,
    ) -> Self {
        let mut layer = |rows: usize, columns: usize, inputs: usize| {
            let bound = 1.0 / (inputs as f64).sqrt();
            let values = (0..rows * columns).map(|_| T::from_f64(generator.random_range(-bound..bound)));
            Matrix::from_values(rows, columns, values.collect())
        };
        let width: usize = inputs.iter().map(|input| input.block.width()).sum();
        let first = inputs.iter().map(|input| layer(input.block.width(), hidden, width)).collect();
        let first_bias = layer(1, hidden, width);
        let second = layer(hidden, strategies, hidden);
        let second_bias = layer(1, strategies, hidden);
        Policy::from_parameters(inputs, first, first_bias, second, second_bias, learning_rate)
    }

    /// A network with given parameters (see the fields for their shapes).
    pub fn from_parameters(
        inputs: Vec<Input<'a, T>>,
        first: Vec<Matrix<T>>,
        first_bias: Matrix<T>,
        second: Matrix<T>,
        second_bias: Matrix<T>,
        learning_rate: f64,
    ) -> Self {
        Policy {
            inputs,
            first: first.into_iter().map(Adam::new).collect(),
            first_bias: Adam::new(first_bias),
            second: Adam::new(second),
            second_bias: Adam::new(second_bias),
            learning_rate,
            steps: 0,
            queries: Vec::new(),
            hidden: Matrix::zeros(0, 0),
            log_probabilities: Matrix::zeros(0, 0),
        }
    }

    /// A network with the layers that [`Policy::parameters`] gave.
    ///
    /// # Panics
    /// If there are not as many as the inputs and the other layers.
    pub fn of(inputs: Vec<Input<'a, T>>, mut layers: Vec<Matrix<T>>, learning_rate: f64) -> Self {
        let others: [Matrix<T>; 3] = layers.split_off(inputs.len()).try_into().expect("every layer");
        let [first_bias, second, second_bias] = others;
        Policy::from_parameters(inputs, layers, first_bias, second, second_bias, learning_rate)
    }

    /// `log π (query, strategy)` of a batch of queries (Eq. 6).
    pub fn forward(&mut self, queries: &[u32]) -> &Matrix<T> {
        self.queries = queries.to_vec();
        self.hidden.resize(queries.len(), self.first_bias.parameters.columns());
        self.hidden.clear();
        for (input, layer) in self.inputs.iter_mut().zip(&self.first) {
            input.block.forward(queries, &layer.parameters, &mut self.hidden);
        }
        let bias = &self.first_bias.parameters;
        self.hidden.values_mut().par_chunks_mut(bias.columns()).for_each(|row| {
            for (x, &bias) in row.iter_mut().zip(bias.values()) {
                *x = (*x + bias).larger(T::ZERO);
            }
        });
        let weights = &self.second.parameters;
        self.log_probabilities.resize(queries.len(), weights.columns());
        self.log_probabilities.product(false, T::ONE, self.hidden.view(), weights.view());
        for row in 0..queries.len() {
            let logits = self.log_probabilities.row_mut(row);
            logits.iter_mut().zip(self.second_bias.parameters.values()).for_each(|(x, &bias)| *x += bias);
            let log_sum = T::from_f64(kge::row::log_sum_exp(logits, T::ONE));
            logits.iter_mut().for_each(|x| *x -= log_sum);
        }
        &self.log_probabilities
    }

    /// Result of the last [`Policy::forward`].
    pub(crate) fn said(&self) -> &Matrix<T> {
        &self.log_probabilities
    }

    /// The last [`Policy::forward`]'s strategy of `row`, drawn with a uniform `draw` in `0..1` (Eq. 6).
    pub(crate) fn sample(&self, row: usize, draw: f64) -> Strategy {
        let probabilities = self.log_probabilities.row(row).iter().map(|x| x.to_f64().exp());
        let mut cumulative = probabilities.scan(0.0, |sum, p| {
            *sum += p;
            Some(*sum)
        });
        let last = self.log_probabilities.columns() - 1;
        // Rounding may leave the sum a little under 1.
        Strategy(cumulative.position(|sum| draw < sum).unwrap_or(last) as u16)
    }

    /// The last [`Policy::forward`]'s most probable strategy of `row`; of equal ones the first.
    pub fn favourite(&self, row: usize) -> Strategy {
        Strategy(kge::row::argmax(self.log_probabilities.row(row)) as u16)
    }

    /// One REINFORCE step (Eq. 10) on the outcomes of the last [`Policy::forward`]. Returns the policy loss,
    /// `-mean(δ log π(a))`.
    pub(crate) fn reinforce(&mut self, outcomes: &[RewardedAction]) -> f64 {
        let gradients = self.backward(outcomes);
        self.step(&gradients);
        gradients.loss
    }

    /// One step towards the strategies that are worth more: what REINFORCE does on average over all actions, where the worth
    /// of every one is known. `values (strategy)` and a weight belong to each row of the last [`Policy::forward`]. Returns
    /// the loss, minus the weighted mean of the expected values.
    pub fn pursue(&mut self, values: &[&[f32]], weights: &[f64]) -> f64 {
        let gradients = self.towards(values, weights);
        self.step(&gradients);
        gradients.loss
    }

    fn towards(&self, values: &[&[f32]], weights: &[f64]) -> Gradients<T> {
        let total: f64 = weights.iter().sum();
        let mut logits = Matrix::zeros(values.len(), self.log_probabilities.columns());
        let mut loss = 0.0;
        for (row, (values, weight)) in values.iter().zip(weights).enumerate() {
            let pairs = || self.log_probabilities.row(row).iter().zip(values.iter());
            let expected: f64 = pairs().map(|(log_p, v)| log_p.to_f64().exp() * f64::from(*v)).sum();
            loss -= weight / total * expected;
            // ∂(-Σ π_j v_j)/∂logit_k = -π_k (v_k - Σ π_j v_j).
            for (gradient, (log_p, v)) in logits.row_mut(row).iter_mut().zip(pairs()) {
                *gradient = T::from_f64(-weight / total * log_p.to_f64().exp() * (f64::from(*v) - expected));
            }
        }
        let rows: Vec<u32> = (0..values.len() as u32).collect();
        self.through_layers(loss, &rows, logits)
    }

    /// A step against the gradients (Eq. 9), by Adam.
    fn step(&mut self, gradients: &Gradients<T>) {
        self.steps += 1;
        let step = AdamStep::new(self.learning_rate, self.steps);
        let Gradients { logits, hidden, into_hidden, .. } = gradients;
        self.second.step(step, |rows, into| {
            into.product_here(
                ProductPrecision::Full,
                hidden.view().columns(rows).transposed(),
                logits.view(),
            );
        });
        self.second_bias.step(step, |_, into| sum_rows(logits, into));
        self.first_bias.step(step, |_, into| sum_rows(into_hidden, into));
        for (input, layer) in self.inputs.iter_mut().zip(&mut self.first) {
            input.block.backward(&gradients.queries, into_hidden);
            layer.step(step, |rows, into| input.block.gradient(rows, into_hidden, into));
        }
    }

    /// The policy loss, and the gradients of both layers' outputs for the rows that have one.
    fn backward(&self, outcomes: &[RewardedAction]) -> Gradients<T> {
        let (loss, rows, logits) = self.of_logits(outcomes);
        self.through_layers(loss, &rows, logits)
    }

    /// The policy loss, the rows that have a gradient, and that of their logits `(row, strategy)`.
    fn of_logits(&self, outcomes: &[RewardedAction]) -> (f64, Vec<u32>, Matrix<T>) {
        let mean = 1.0 / outcomes.len().max(1) as f64;
        let with_gradient = || outcomes.iter().filter(|outcome| outcome.advantage() != 0.0);
        let mut rows: Vec<u32> = with_gradient().map(|outcome| outcome.row as u32).collect();
        rows.sort_unstable();
        rows.dedup();
        let mut logits = Matrix::zeros(rows.len(), self.log_probabilities.columns());
        let mut loss = 0.0;
        for outcome in with_gradient() {
            let log_probabilities = self.log_probabilities.row(outcome.row);
            loss -= mean * outcome.advantage() * log_probabilities[outcome.strategy.index()].to_f64();
            // ∂(-δ log π_a)/∂logit_k = δ (π_k - [k = a]).
            let row = outcome.row as u32;
            let gradient = logits.row_mut(rows.partition_point(|other| *other < row));
            for (gradient, &log_p) in gradient.iter_mut().zip(log_probabilities) {
                *gradient += T::from_f64(mean * outcome.advantage() * log_p.to_f64().exp());
            }
            gradient[outcome.strategy.index()] -= T::from_f64(mean * outcome.advantage());
        }
        (loss, rows, logits)
    }

    /// Turns the gradient of the logits of some `rows` into that of the hidden layer.
    fn through_layers(&self, loss: f64, rows: &[u32], logits: Matrix<T>) -> Gradients<T> {
        let mut hidden = Matrix::zeros(0, 0);
        hidden.gather(&self.hidden, rows);
        let mut into_hidden = Matrix::zeros(rows.len(), hidden.columns());
        into_hidden.product(false, T::ONE, logits.view(), self.second.parameters.transposed());
        for (gradient, &hidden) in into_hidden.values_mut().iter_mut().zip(hidden.values()) {
            if hidden <= T::ZERO {
                *gradient = T::ZERO;
            }
        }
        let queries = rows.iter().map(|row| self.queries[*row as usize]).collect();
        Gradients { loss, queries, logits, hidden, into_hidden }
    }
}

/// Gradients that [`Policy::backward`] finds, for the rows of the batch that have one.
struct Gradients<T> {
    loss: f64,
    queries: Vec<u32>,
    /// Gradient of the logits `(row, strategy)`.
    logits: Matrix<T>,
    /// The hidden layer and its gradient `(row, hidden)`.
    hidden: Matrix<T>,
    into_hidden: Matrix<T>,
}

impl Policy<'_, f32> {
    /// Bytes that a network over inputs of these widths takes: weights, two moments, and the largest input's state.
    pub(crate) fn memory(widths: &[usize], hidden: usize, queries: usize) -> u64 {
        let (total, largest) = (widths.iter().sum::<usize>(), widths.iter().copied().max().unwrap_or(0));
        4 * (3 * total * hidden + queries * (largest + 3 * hidden)) as u64
    }

    fn layers(&self) -> impl Iterator<Item = (String, &Adam<f32>)> {
        let others = [&self.first_bias, &self.second, &self.second_bias];
        let names = layer_names(self.inputs.iter().map(|input| input.name.as_str()));
        names.into_iter().zip(self.first.iter().chain(others))
    }

    fn layers_mut(&mut self) -> impl Iterator<Item = &mut Adam<f32>> {
        let others = [&mut self.first_bias, &mut self.second, &mut self.second_bias];
        self.first.iter_mut().chain(others)
    }

    /// A copy of the layers: `W₁ (width, hidden)` of every input, `b₁ (1, hidden)`, `W₂ (hidden, strategy)`, `b₂ (1, strategy)`.
    pub fn parameters(&self) -> Vec<Matrix<f32>> {
        self.layers().map(|(_, layer)| layer.parameters.clone()).collect()
    }

    /// The network alone: `first.<input> (width, hidden)`, biases as rows, `second (hidden, strategy)`.
    pub(crate) fn tensors(&self) -> NamedTensors<'_> {
        self.layers()
            .fold(NamedTensors::default(), |tensors, (name, layer)| tensors.matrix(name, &layer.parameters))
    }

    /// Everything needed to go on, but the number of steps.
    pub(crate) fn state(&self) -> NamedTensors<'_> {
        self.layers().fold(NamedTensors::default(), |tensors, (name, layer)| {
            tensors
                .matrix(name.clone(), &layer.parameters)
                .matrix(format!("{name}_mean"), &layer.mean)
                .matrix(format!("{name}_square"), &layer.square)
        })
    }

    /// Takes up a state saved under `prefix.`, after so many `steps`.
    pub(crate) fn restore(&mut self, reader: &TensorReader, prefix: &str, steps: u64) -> Result<()> {
        self.steps = steps;
        let names: Vec<String> = self.layers().map(|(name, _)| name).collect();
        for (name, layer) in names.iter().zip(self.layers_mut()) {
            reader.load(&format!("{prefix}.{name}"), &mut layer.parameters)?;
            reader.load(&format!("{prefix}.{name}_mean"), &mut layer.mean)?;
            reader.load(&format!("{prefix}.{name}_square"), &mut layer.square)?;
        }
        Ok(())
    }

    /// Takes up the network alone, as [`Policy::tensors`] has it: to be asked, not to go on.
    pub(crate) fn load(&mut self, reader: &TensorReader) -> Result<()> {
        let names: Vec<String> = self.layers().map(|(name, _)| name).collect();
        let mut layers = names.iter().zip(self.layers_mut());
        layers.try_for_each(|(name, layer)| reader.load(name, &mut layer.parameters))
    }

    /// Steps taken so far.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Refuses parameters that are no longer finite.
    pub(crate) fn require_finite(&self) -> Result<()> {
        self.layers()
            .try_for_each(|(name, layer)| require_finite(&format!("policy {name}"), &layer.parameters))
    }
}

/// The layers of a policy as files call them, given the names of its inputs.
pub fn layer_names<'a>(inputs: impl Iterator<Item = &'a str>) -> Vec<String> {
    let others = ["first_bias", "second", "second_bias"].map(str::to_owned);
    inputs.map(|input| format!("first.{input}")).chain(others).collect()
}

/// Scales a query vector to mean square 1. A head without a modality has a vector of zeros, and keeps it.
pub fn scale_to_one(vector: &mut [f32]) {
    let square = kge::row::sum_squares(vector, 0.0) / vector.len() as f32;
    kge::row::scale(vector, if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 });
}

#[cfg(test)]
mod tests;
