//! The policy's network on a device: `dsom_distill`'s `policy` has the mathematics and the names.
//!
//! Parameters and moments stay on the device. Of a batch the log-probabilities come down and the gradients of the logits
//! go up: who samples, and what an action is worth, is the host's. What the network sees is on the device already or
//! small: it is standardised input by input into one buffer, for the whole batch going forward, and for the rows that have
//! a gradient going back. Products are `f32` whatever the student's are, as on the CPU.

use kge::Matrix;
use recipe::Precision;
use stage::Result;
use std::marker::PhantomData;
use std::ops::Range;

use crate::Gpu;
use crate::encoder::Activation;
use crate::kernel;
use crate::memory::{DeviceMatrix, List, Lists, View, gather};

/// Rows of a layer whose gradient is computed and used at a time.
const BLOCK: usize = 8192;

/// How a row of an input is standardised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// Not at all.
    None,
    /// To mean 0 and deviation 1; one without deviation to zeros.
    Deviation,
    /// To mean square 1; one without to zeros.
    Square,
}

/// What the network sees of a batch: for each input a matrix `(query, width)` on the device.
pub struct Inputs<'a> {
    matrices: Vec<View>,
    standard: Standard,
    /// They are others'.
    kept: PhantomData<&'a DeviceMatrix>,
}

impl<'a> Inputs<'a> {
    /// These matrices.
    pub fn of(matrices: &'a [DeviceMatrix], standard: Standard) -> Self {
        Inputs::new(matrices.iter().map(DeviceMatrix::view), standard)
    }

    /// Matrices that are kept by whoever is borrowed from.
    pub(crate) fn new(matrices: impl Iterator<Item = View>, standard: Standard) -> Self {
        Inputs { matrices: matrices.collect(), standard, kept: PhantomData }
    }
}

/// What a step of Adam has in common for all parameters.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// What is kept of the means, and of the squares.
    pub decays: (f32, f32),
    /// What is added of a gradient, and of its square.
    pub shares: (f32, f32),
    /// Learning rate over the means' bias correction.
    pub rate: f32,
    /// One over the squares' bias correction.
    pub correction: f32,
    /// Added to roots.
    pub epsilon: f32,
}

/// Parameters with Adam's two moments.
struct Layer {
    parameters: DeviceMatrix,
    mean: DeviceMatrix,
    square: DeviceMatrix,
}

impl Layer {
    fn of(gpu: &Gpu, parameters: &Matrix<f32>) -> Result<Layer> {
        let zeros = || DeviceMatrix::zeros(gpu, parameters.rows(), parameters.columns());
        Ok(Layer { parameters: DeviceMatrix::of(gpu, parameters)?, mean: zeros()?, square: zeros()? })
    }

    /// A step of the rows in `range`, whose gradient is there.
    fn step(&self, gpu: &Gpu, range: Range<usize>, gradient: &DeviceMatrix, step: AdamStep) -> Result<()> {
        let count = range.len() * self.parameters.columns();
        let AdamStep { decays, shares, rate, correction, epsilon } = step;
        let arguments = kernel::Adam {
            parameters: self.parameters.at(range.start),
            means: self.mean.at(range.start),
            squares: self.square.at(range.start),
            gradient: gradient.at(0),
            count: count as u64,
            mean_decay: decays.0,
            mean_share: shares.0,
            square_decay: decays.1,
            square_share: shares.1,
            rate,
            correction,
            epsilon,
        };
        gpu.launch_over(count, &arguments)
    }
}

/// The network with its optimiser and buffers.
pub struct Network {
    gpu: Gpu,
    /// `W₁`, one matrix `(width, hidden)` per input.
    first: Vec<Layer>,
    /// `b₁ (1, hidden)`.
    first_bias: Layer,
    /// `W₂ (hidden, strategy)`.
    second: Layer,
    /// `b₂ (1, strategy)`.
    second_bias: Layer,
    lists: Lists,
    /// An input, standardised `(row, width)`.
    state: DeviceMatrix,
    /// `(query, hidden)`.
    hidden: DeviceMatrix,
    /// Logits, then log-probabilities `(query, strategy)`.
    logits: DeviceMatrix,
    backward: Backward,
}

/// The matrices of a step, for the rows that have a gradient.
struct Backward {
    /// Gradient of the logits `(row, strategy)`.
    logits: DeviceMatrix,
    /// The hidden layer, and its gradient `(row, hidden)`.
    hidden: DeviceMatrix,
    into_hidden: DeviceMatrix,
    /// Of a block of a layer's rows.
    gradient: DeviceMatrix,
    /// `(1, row)`: sums over rows are products with it.
    ones: DeviceMatrix,
}

impl Network {
    /// With these parameters: the first layer's weights `(width, hidden)` for each input; its bias as a row, the second
    /// layer's weights `(hidden, strategy)`, and its bias.
    ///
    /// # Errors
    /// If the device's memory does not hold them.
    pub fn new<'a>(
        gpu: &Gpu,
        first: impl Iterator<Item = &'a Matrix<f32>>,
        others: [&Matrix<f32>; 3],
    ) -> Result<Network> {
        let [first_bias, second, second_bias] = others;
        let new = || DeviceMatrix::new(gpu);
        let backward =
            Backward { logits: new(), hidden: new(), into_hidden: new(), gradient: new(), ones: new() };
        Ok(Network {
            gpu: gpu.clone(),
            first: first.map(|layer| Layer::of(gpu, layer)).collect::<Result<_>>()?,
            first_bias: Layer::of(gpu, first_bias)?,
            second: Layer::of(gpu, second)?,
            second_bias: Layer::of(gpu, second_bias)?,
            lists: Lists::new(gpu),
            state: DeviceMatrix::padded(gpu),
            hidden: new(),
            logits: new(),
            backward,
        })
    }

    /// Bytes of the device's memory that a network over inputs of these widths takes for so many queries at a time; the
    /// inputs are others'.
    pub fn memory(widths: &[usize], hidden: usize, queries: usize) -> u64 {
        let (total, largest) = (widths.iter().sum::<usize>(), widths.iter().copied().max().unwrap_or(0));
        4 * (3 * total * hidden + largest.min(BLOCK) * hidden + queries * (largest + 3 * hidden)) as u64
    }

    /// Has rows of an input standardised in `state`.
    fn standardise(&mut self, inputs: &Inputs<'_>, input: usize, rows: List, count: usize) -> Result<()> {
        let matrix = inputs.matrices[input];
        self.state.resize(count, matrix.columns)?;
        let arguments = kernel::Standardise {
            from: matrix.address,
            rows: self.lists.at(rows, 0),
            into: self.state.at(0),
            width: matrix.columns as u64,
            from_stride: matrix.stride as u64,
            into_stride: self.state.stride() as u64,
            kind: match inputs.standard {
                Standard::None => 0,
                Standard::Deviation => 1,
                Standard::Square => 2,
            },
        };
        self.gpu.launch(count, &arguments)
    }

    fn send_rows(&mut self, rows: impl Iterator<Item = u32>) -> Result<List> {
        self.lists.clear();
        let rows = self.lists.add(rows);
        self.lists.send()?;
        Ok(rows)
    }

    /// `log π (query, strategy)` of a batch, on the host.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If there are other inputs than layers for them.
    pub fn forward(&mut self, inputs: &Inputs<'_>, into: &mut Matrix<f32>) -> Result<()> {
        assert_eq!(inputs.matrices.len(), self.first.len(), "a layer for every input");
        let queries = inputs.matrices.first().map_or(0, |matrix| matrix.rows);
        let rows = self.send_rows(0..queries as u32)?;
        for input in 0..self.first.len() {
            self.standardise(inputs, input, rows, queries)?;
            let weights = self.first[input].parameters.view();
            let (state, keep) = (self.state.view(), input > 0);
            self.gpu.product(Precision::F32, keep, 1.0, state, weights, &mut self.hidden)?;
        }
        let hidden = kernel::Activate {
            xs: self.hidden.at(0),
            bias: self.first_bias.parameters.at(0),
            width: self.hidden.columns() as u64,
            activation: Activation::Relu as u64,
        };
        self.gpu.launch(queries, &hidden)?;
        let weights = self.second.parameters.view();
        self.gpu.product(Precision::F32, false, 1.0, self.hidden.view(), weights, &mut self.logits)?;
        let log_softmax = kernel::LogSoftmax {
            logits: self.logits.at(0),
            bias: self.second_bias.parameters.at(0),
            width: self.logits.columns() as u64,
        };
        self.gpu.launch(queries, &log_softmax)?;
        self.logits.read(into)
    }

    /// A step of all parameters, given the gradient of the logits of some `rows` of the last [`Network::forward`], whose
    /// `inputs` are the same.
    ///
    /// # Errors
    /// If the device fails.
    pub fn step(
        &mut self,
        inputs: &Inputs<'_>,
        rows: &[u32],
        logits: &Matrix<f32>,
        step: AdamStep,
    ) -> Result<()> {
        let sent = self.send_rows(rows.iter().copied())?;
        self.differentiate(sent, rows.len(), logits)?;
        self.step_second(step)?;
        for input in 0..self.first.len() {
            self.standardise(inputs, input, sent, rows.len())?;
            self.step_first(input, step)?;
        }
        Ok(())
    }

    /// The gradient of the hidden layer, from the logits'.
    fn differentiate(&mut self, rows: List, count: usize, logits: &Matrix<f32>) -> Result<()> {
        self.backward.logits.write(logits)?;
        self.backward.ones.write(&Matrix::from_values(1, count, vec![1.0; count]))?;
        let Backward { logits, hidden, into_hidden, .. } = &mut self.backward;
        gather(&self.gpu, &self.hidden, self.lists.at(rows, 0), count, hidden)?;
        let weights = self.second.parameters.transposed();
        self.gpu.product(Precision::F32, false, 1.0, logits.view(), weights, into_hidden)?;
        let values = count * hidden.columns();
        let relu =
            kernel::ReluGradient { gradient: into_hidden.at(0), hidden: hidden.at(0), count: values as u64 };
        self.gpu.launch_over(values, &relu)
    }

    /// A step of all layers but the first's weights.
    fn step_second(&mut self, step: AdamStep) -> Result<()> {
        let Backward { logits, hidden, into_hidden, gradient, ones } = &mut self.backward;
        let factors = [
            (&self.second, hidden.transposed(), logits.view()),
            (&self.second_bias, ones.view(), logits.view()),
            (&self.first_bias, ones.view(), into_hidden.view()),
        ];
        for (layer, a, b) in factors {
            self.gpu.product(Precision::F32, false, 1.0, a, b, gradient)?;
            layer.step(&self.gpu, 0..gradient.rows(), gradient, step)?;
        }
        Ok(())
    }

    /// A step of an input's weights, a block of rows at a time; `state` has the input.
    fn step_first(&mut self, input: usize, step: AdamStep) -> Result<()> {
        let width = self.state.columns();
        for first in (0..width).step_by(BLOCK) {
            let range = first..width.min(first + BLOCK);
            let Backward { into_hidden, gradient, .. } = &mut self.backward;
            let of_block = self.state.columns_at(range.clone()).transposed();
            self.gpu.product(Precision::F32, false, 1.0, of_block, into_hidden.view(), gradient)?;
            self.first[input].step(&self.gpu, range, &self.backward.gradient, step)?;
        }
        Ok(())
    }

    /// Copies every layer's parameters, means and squares to the host, in the order of [`Network::new`].
    ///
    /// # Errors
    /// If the device fails.
    pub fn read<'a>(&self, into: impl Iterator<Item = [&'a mut Matrix<f32>; 3]>) -> Result<()> {
        let others = [&self.first_bias, &self.second, &self.second_bias];
        for (layer, [parameters, mean, square]) in self.first.iter().chain(others).zip(into) {
            layer.parameters.read(parameters)?;
            layer.mean.read(mean)?;
            layer.square.read(square)?;
        }
        Ok(())
    }

    /// Replaces every layer's parameters, means and squares, in the same order.
    ///
    /// # Errors
    /// If the device fails.
    pub fn write<'a>(&mut self, from: impl Iterator<Item = [&'a Matrix<f32>; 3]>) -> Result<()> {
        let others = [&mut self.first_bias, &mut self.second, &mut self.second_bias];
        for (layer, [parameters, mean, square]) in self.first.iter_mut().chain(others).zip(from) {
            layer.parameters.write(parameters)?;
            layer.mean.write(mean)?;
            layer.square.write(square)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
