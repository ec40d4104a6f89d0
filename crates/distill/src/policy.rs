//! The agent: a network that sees teachers' scores or query vectors and chooses a strategy (Eqs. 5, 6, 9, 10).
//!
//! `log π = log softmax(relu(state · W₁ + b₁) · W₂ + b₂)`. The state is a concatenation of [`Input`]s. `W₁` is stored
//! as one matrix per input, so no state is assembled: the hidden layer is a sum of one product per input. A triple
//! whose reward equals its baseline has no gradient, so the backward pass reads only the rows with a gradient.

use kge::checkpoint::{NamedTensors, TensorReader, require_finite};
use kge::model::even;
use kge::{Matrix, ProductPrecision, Real, row};
use rand::Rng;
use rayon::prelude::*;
use stage::{Modality, Result};
use std::ops::Range;

use crate::adam::{Adam, rates};
use crate::strategy::Strategy;
use crate::supervision::RewardedAction;

/// An input, a block of the state: a row of numbers for every training query.
pub trait Input<T>: Send + Sync {
    /// Number of values per query.
    fn width(&self) -> usize;

    /// Adds the input's part `state · W` to the hidden layer `(query, hidden)`; `weights` is `(width, hidden)`.
    fn forward(&mut self, queries: &[usize], weights: &Matrix<T>, hidden: &mut Matrix<T>);

    /// Prepares the gradient of the weights, `stateᵀ · upstream` with `upstream (query, hidden)`, for
    /// [`Input::gradient`].
    fn backward(&mut self, queries: &[usize], upstream: &Matrix<T>);

    /// Writes some rows of the prepared gradient.
    fn gradient(&self, rows: Range<usize>, upstream: &Matrix<T>, into: &mut Matrix<T>);
}

/// An input whose rows are stored; `fill` writes the row of a query.
pub struct Dense<T, F> {
    width: usize,
    fill: F,
    state: Matrix<T>,
}

impl<T: Real, F: Fn(usize, &mut [T]) + Sync> Dense<T, F> {
    /// An input of `width` numbers per query.
    pub fn new(width: usize, fill: F) -> Self {
        Dense { width, fill, state: Matrix::default() }
    }
}

impl<T: Real, F: Fn(usize, &mut [T]) + Sync + Send> Input<T> for Dense<T, F> {
    fn width(&self) -> usize {
        self.width
    }

    fn forward(&mut self, queries: &[usize], weights: &Matrix<T>, hidden: &mut Matrix<T>) {
        fill_rows(&mut self.state, self.width, queries, &self.fill);
        hidden.product(true, self.state.view(), weights.view());
    }

    fn backward(&mut self, queries: &[usize], _upstream: &Matrix<T>) {
        fill_rows(&mut self.state, self.width, queries, &self.fill);
    }

    fn gradient(&self, rows: Range<usize>, upstream: &Matrix<T>, into: &mut Matrix<T>) {
        let state = self.state.view().columns(rows).transposed();
        into.product_here(ProductPrecision::Full, state, upstream.view());
    }
}

/// Fills `state` with one row of `width` numbers for each query, written by `fill`.
pub(crate) fn fill_rows<T: Real>(
    state: &mut Matrix<T>,
    width: usize,
    queries: &[usize],
    fill: impl Fn(usize, &mut [T]) + Sync,
) {
    state.resize(queries.len(), width);
    let rows = state.values_mut().par_chunks_mut(width.max(1));
    rows.zip(queries).for_each(|(into, query)| fill(*query, into));
}

/// Writes the column sums of a matrix as one row.
pub(crate) fn sum_rows<T: Real>(matrix: &Matrix<T>, into: &mut Matrix<T>) {
    into.resize(1, matrix.columns());
    into.clear();
    for row in 0..matrix.rows() {
        row::add_scaled(into.row_mut(0), T::ONE, matrix.row(row));
    }
}

/// The policy network with its optimiser and buffers.
pub struct Policy<'a, T> {
    inputs: Vec<Box<dyn Input<T> + 'a>>,
    /// `W₁`, one matrix `(width, hidden)` per input.
    first: Vec<Adam<T>>,
    /// `b₁ (1, hidden)`.
    first_bias: Adam<T>,
    /// `W₂ (hidden, strategy)`.
    second: Adam<T>,
    /// `b₂ (1, strategy)`.
    second_bias: Adam<T>,
    pub(crate) learning_rate: f64,
    pub(crate) steps: u64,
    /// The batch of the last forward pass.
    queries: Vec<usize>,
    hidden: Matrix<T>,
    /// `log π (query, strategy)` of the last forward pass.
    pub(crate) said: Matrix<T>,
}

impl<'a, T: Real> Policy<'a, T> {
    /// A network that chooses among `strategies` strategies, with uniform initial values within `±1/√inputs`.
    pub fn new(
        inputs: Vec<Box<dyn Input<T> + 'a>>,
        hidden: usize,
        strategies: usize,
        learning_rate: f64,
        generator: &mut impl Rng,
    ) -> Self {
        let widths: Vec<usize> = inputs.iter().map(|input| input.width()).collect();
        let [first, second] =
            [widths.iter().sum(), hidden].map(|inputs: usize| (inputs as f64).sqrt().recip());
        let mut layers: Vec<_> =
            widths.into_iter().map(|width| even(width, hidden, first, generator)).collect();
        layers.push(even(1, hidden, first, generator));
        layers.push(even(hidden, strategies, second, generator));
        layers.push(even(1, strategies, second, generator));
        Policy::of(inputs, layers, learning_rate)
    }

    /// A network with the layers of [`Policy::parameters`].
    ///
    /// # Panics
    /// Panics unless `layers` has one layer for each input and three more.
    pub fn of(inputs: Vec<Box<dyn Input<T> + 'a>>, layers: Vec<Matrix<T>>, learning_rate: f64) -> Self {
        let mut first: Vec<_> = layers.into_iter().map(Adam::new).collect();
        let others = first.split_off(inputs.len()).try_into().expect("every layer");
        let [first_bias, second, second_bias]: [Adam<T>; 3] = others;
        let (hidden, said) = (Matrix::default(), Matrix::default());
        let (steps, queries) = (0, Vec::new());
        Policy { inputs, first, first_bias, second, second_bias, learning_rate, steps, queries, hidden, said }
    }

    /// Computes `log π (query, strategy)` of a batch of queries (Eq. 6).
    pub fn forward(&mut self, queries: &[usize]) -> &Matrix<T> {
        self.queries = queries.to_vec();
        self.hidden.resize(queries.len(), self.first_bias.parameters.columns());
        self.hidden.clear();
        for (input, layer) in self.inputs.iter_mut().zip(&self.first) {
            input.forward(queries, &layer.parameters, &mut self.hidden);
        }
        let bias = &self.first_bias.parameters;
        self.hidden.values_mut().par_chunks_mut(bias.columns()).for_each(|row| {
            for (x, &bias) in row.iter_mut().zip(bias.values()) {
                *x = (*x + bias).larger(T::ZERO);
            }
        });
        let weights = &self.second.parameters;
        self.said.resize(queries.len(), weights.columns());
        self.said.product(false, self.hidden.view(), weights.view());
        for row in 0..queries.len() {
            let logits = self.said.row_mut(row);
            row::add_scaled(logits, T::ONE, self.second_bias.parameters.values());
            let log_sum = T::from_f64(row::log_sum_exp(logits, T::ONE));
            logits.iter_mut().for_each(|x| *x -= log_sum);
        }
        &self.said
    }

    /// The strategy of `row` in the last [`Policy::forward`], drawn with a uniform `draw` in `0..1` (Eq. 6).
    pub(crate) fn sample(&self, row: usize, draw: f64) -> Strategy {
        let mut sum = 0.0;
        let drawn = self.said.row(row).iter().position(|x| {
            sum += x.to_f64().exp();
            draw < sum
        });
        // Rounding may leave the sum a little under 1.
        Strategy(drawn.unwrap_or(self.said.columns() - 1))
    }

    /// The most probable strategy of `row` in the last [`Policy::forward`]; the first of equal strategies.
    pub fn favourite(&self, row: usize) -> Strategy {
        Strategy(row::argmax(self.said.row(row)))
    }

    /// Takes one REINFORCE step (Eq. 10) on the outcomes of the last [`Policy::forward`]. Returns the policy loss,
    /// `-mean(δ log π(a))`.
    pub(crate) fn reinforce(&mut self, outcomes: &[RewardedAction]) -> f64 {
        let (loss, rows, logits) = self.of_logits(outcomes);
        self.step(&self.through_layers(&rows, logits));
        loss
    }

    /// Takes one step towards strategies of higher worth: the average of REINFORCE over all actions, for when the worth
    /// of every action is known. `values (strategy)` and a weight belong to each row of the last [`Policy::forward`];
    /// the loss is minus the weighted mean of the expected values.
    pub fn pursue(&mut self, values: &[&[f32]], weights: &[f64]) {
        let rows: Vec<usize> = (0..values.len()).collect();
        self.step(&self.through_layers(&rows, self.towards(values, weights)));
    }

    /// The gradient of the logits `(row, strategy)` for [`Policy::pursue`].
    fn towards(&self, values: &[&[f32]], weights: &[f64]) -> Matrix<T> {
        let total: f64 = weights.iter().sum();
        let mut logits = Matrix::zeros(values.len(), self.said.columns());
        for (row, (values, weight)) in values.iter().zip(weights).enumerate() {
            let said = self.said.row(row);
            let expected: f64 = said.iter().zip(*values).map(|(x, v)| x.to_f64().exp() * f64::from(*v)).sum();
            // ∂(-Σ π_j v_j)/∂logit_k = -π_k (v_k - Σ π_j v_j).
            for ((gradient, log_p), v) in logits.row_mut(row).iter_mut().zip(said).zip(*values) {
                *gradient = T::from_f64(-weight / total * log_p.to_f64().exp() * (f64::from(*v) - expected));
            }
        }
        logits
    }

    /// Takes a step of Adam against the gradients (Eq. 9).
    fn step(&mut self, gradients: &Gradients<T>) {
        self.steps += 1;
        let step = rates(self.learning_rate, self.steps);
        let Gradients { queries, logits, hidden, into_hidden } = gradients;
        self.second.step(step, |rows, into| {
            let hidden = hidden.view().columns(rows).transposed();
            into.product_here(ProductPrecision::Full, hidden, logits.view());
        });
        self.second_bias.step(step, |_, into| sum_rows(logits, into));
        self.first_bias.step(step, |_, into| sum_rows(into_hidden, into));
        for (input, layer) in self.inputs.iter_mut().zip(&mut self.first) {
            input.backward(queries, into_hidden);
            layer.step(step, |rows, into| input.gradient(rows, into_hidden, into));
        }
    }

    /// The policy loss, the rows with a gradient, and the gradient of their logits `(row, strategy)`.
    pub(crate) fn of_logits(&self, outcomes: &[RewardedAction]) -> (f64, Vec<usize>, Matrix<T>) {
        let share = 1.0 / outcomes.len().max(1) as f64;
        let moving: Vec<_> = outcomes.iter().filter(|outcome| outcome.advantage() != 0.0).collect();
        let mut rows: Vec<usize> = moving.iter().map(|outcome| outcome.row).collect();
        rows.sort_unstable();
        rows.dedup();
        let mut logits = Matrix::zeros(rows.len(), self.said.columns());
        let mut loss = 0.0;
        for outcome in moving {
            let (said, action, advantage) =
                (self.said.row(outcome.row), outcome.strategy.0, outcome.advantage());
            loss -= share * advantage * said[action].to_f64();
            // ∂(-δ log π_a)/∂logit_k = δ (π_k - [k = a]).
            let gradient = logits.row_mut(rows.partition_point(|other| *other < outcome.row));
            for (gradient, log_p) in gradient.iter_mut().zip(said) {
                *gradient += T::from_f64(share * advantage * log_p.to_f64().exp());
            }
            gradient[action] -= T::from_f64(share * advantage);
        }
        (loss, rows, logits)
    }

    /// Turns the gradient of the logits of some `rows` into the gradient of the hidden layer.
    fn through_layers(&self, rows: &[usize], logits: Matrix<T>) -> Gradients<T> {
        let mut hidden = Matrix::zeros(rows.len(), self.hidden.columns());
        for (i, row) in rows.iter().enumerate() {
            hidden.row_mut(i).copy_from_slice(self.hidden.row(*row));
        }
        let mut into_hidden = Matrix::zeros(rows.len(), hidden.columns());
        into_hidden.product(false, logits.view(), self.second.parameters.transposed());
        for (gradient, &hidden) in into_hidden.values_mut().iter_mut().zip(hidden.values()) {
            if hidden <= T::ZERO {
                *gradient = T::ZERO;
            }
        }
        let queries = rows.iter().map(|row| self.queries[*row]).collect();
        Gradients { queries, logits, hidden, into_hidden }
    }
}

/// The gradients of both layers' outputs, for the rows of the batch with a gradient.
struct Gradients<T> {
    queries: Vec<usize>,
    /// The gradient of the logits `(row, strategy)`.
    logits: Matrix<T>,
    /// The hidden layer and its gradient `(row, hidden)`.
    hidden: Matrix<T>,
    into_hidden: Matrix<T>,
}

impl Policy<'_, f32> {
    /// Bytes of a network over inputs of these `widths`: weights, two moments, and every input's state.
    pub(crate) fn memory(widths: &[usize], hidden: usize, queries: usize) -> u64 {
        let total = widths.iter().sum::<usize>();
        4 * (3 * total * hidden + queries * (total + 3 * hidden)) as u64
    }

    pub(crate) fn layers(&self) -> impl Iterator<Item = &Adam<f32>> {
        self.first.iter().chain([&self.first_bias, &self.second, &self.second_bias])
    }

    pub(crate) fn layers_mut(&mut self) -> impl Iterator<Item = &mut Adam<f32>> {
        self.first.iter_mut().chain([&mut self.first_bias, &mut self.second, &mut self.second_bias])
    }

    /// Copies of layers: `W₁ (width, hidden)` per input, `b₁ (1, hidden)`, `W₂ (hidden, strategy)`, `b₂ (1, strategy)`.
    pub fn parameters(&self) -> Vec<Matrix<f32>> {
        self.layers().map(|layer| layer.parameters.clone()).collect()
    }

    /// The network alone: `first.<teacher> (width, hidden)`, `second (hidden, strategy)`, and biases as rows.
    pub(crate) fn tensors(&self, teachers: &[Modality]) -> NamedTensors<'_> {
        let layers = layer_names(teachers).into_iter().zip(self.layers());
        layers.fold(NamedTensors::default(), |tensors, (name, layer)| tensors.matrix(name, &layer.parameters))
    }

    /// Everything needed to resume training.
    pub(crate) fn state(&self, teachers: &[Modality]) -> NamedTensors<'_> {
        let layers = layer_names(teachers).into_iter().zip(self.layers());
        let steps = NamedTensors::default().text("steps", self.steps.to_string());
        layers.fold(steps, |tensors, (name, layer)| {
            tensors
                .matrix(name.clone(), &layer.parameters)
                .matrix(format!("{name}_mean"), &layer.mean)
                .matrix(format!("{name}_square"), &layer.square)
        })
    }

    /// Restores a state saved under `prefix.`.
    pub(crate) fn restore(
        &mut self,
        teachers: &[Modality],
        reader: &TensorReader,
        prefix: &str,
    ) -> Result<()> {
        self.steps = reader.number(&format!("{prefix}.steps"))?;
        for (name, layer) in layer_names(teachers).iter().zip(self.layers_mut()) {
            reader.load(&format!("{prefix}.{name}"), &mut layer.parameters)?;
            reader.load(&format!("{prefix}.{name}_mean"), &mut layer.mean)?;
            reader.load(&format!("{prefix}.{name}_square"), &mut layer.square)?;
        }
        Ok(())
    }

    /// Loads the network of [`Policy::tensors`], which has no optimiser: it can be asked but not trained further.
    pub(crate) fn load(&mut self, teachers: &[Modality], reader: &TensorReader) -> Result<()> {
        let names = layer_names(teachers);
        let mut layers = names.iter().zip(self.layers_mut());
        layers.try_for_each(|(name, layer)| reader.load(name, &mut layer.parameters))
    }

    pub(crate) fn require_finite(&self, teachers: &[Modality]) -> Result<()> {
        let mut layers = layer_names(teachers).into_iter().zip(self.layers());
        layers.try_for_each(|(name, layer)| require_finite(&format!("policy {name}"), &layer.parameters))
    }
}

/// The names in files of the layers of a policy, whose inputs belong to these teachers.
pub fn layer_names(teachers: &[Modality]) -> Vec<String> {
    let others = ["first_bias", "second", "second_bias"].map(str::to_owned);
    teachers.iter().map(|teacher| format!("first.{teacher}")).chain(others).collect()
}

/// Scales a query vector to mean square 1. A head without the modality has a vector of zeros, which stays.
pub fn scale_to_one(vector: &mut [f32]) {
    let square = row::sum_squares(vector, 0.0) / vector.len() as f32;
    row::scale(vector, if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 });
}

#[cfg(test)]
mod tests;
