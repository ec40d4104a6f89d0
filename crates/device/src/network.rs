//! The policy's network (Eq. 6) on a device; the policy in `dsom_distill` has the mathematics and the names.
//!
//! Log-probabilities of a batch go to the host, and gradients of the logits come back: the host samples and computes
//! the value of an action (Eq. 9, 10). Products are in full precision, whatever the student's precision, as on the CPU.

use candle_core::{Device, Result, Tensor};
use kge::Matrix;
use mkg::QuerySet;
use recipe::{PolicyState, Precision};

use crate::host::{Number, bytes, failed, list, read_matrix, upload};
use crate::model::product;
use crate::optimiser::{AdamRates, AdamWeight};
use crate::teachers::DeviceTeachers;

/// Rows, each with mean 0 and variance 1; a constant row becomes zeros.
fn standardised(rows: &Tensor) -> Result<Tensor> {
    scaled(&rows.broadcast_sub(&rows.mean_keepdim(1)?)?)
}

/// Rows, each with mean square 1; a row of zeros stays.
fn scaled(rows: &Tensor) -> Result<Tensor> {
    let square = rows.sqr()?.mean_keepdim(1)?;
    let rates = square.gt(0.0)?.where_cond(&square.sqrt()?.recip()?, &square.zeros_like()?)?;
    rows.broadcast_mul(&rates)
}

/// The policy's network with its optimiser's state.
pub struct DeviceNetwork {
    /// One matrix `(width, hidden)` per input, the first bias `(1, hidden)`, the second layer `(hidden, strategy)` and
    /// the second bias `(1, strategy)`.
    layers: Vec<AdamWeight>,
    /// The last batch's standardised inputs and hidden layer.
    seen: Vec<Tensor>,
    hidden: Option<Tensor>,
}

impl DeviceNetwork {
    /// A network with these parameters: a first layer `(width, hidden)` per input, then the first bias, the second
    /// layer and the second bias; biases are rows.
    pub fn new<'a, T: Number>(
        device: &Device,
        layers: impl Iterator<Item = &'a Matrix<T>>,
    ) -> stage::Result<DeviceNetwork> {
        let layers = layers.map(|layer| AdamWeight::new(device, layer)).collect::<Result<_>>();
        Ok(DeviceNetwork { layers: layers.map_err(failed)?, seen: Vec::new(), hidden: None })
    }

    /// Bytes of the device's memory that a network over inputs of these `widths` needs: see [`DeviceNetwork::new`]. A
    /// step of Adam holds eight matrices of a layer's size at once.
    pub fn memory(widths: &[usize], hidden: usize, queries: usize) -> u64 {
        let total: usize = widths.iter().sum();
        let largest = widths.iter().copied().max().unwrap_or(0);
        bytes(&[3 * total + 5 * largest, hidden]) + bytes(&[queries, 2 * total + 4 * hidden])
    }

    /// The `log π (query, strategy)` of a batch, on the host, from the teachers' scores or query vectors.
    pub fn ask<T: Number>(
        &mut self,
        state: PolicyState,
        teachers: &mut DeviceTeachers<'_>,
        queries: &QuerySet,
        batch: &[u32],
    ) -> stage::Result<Matrix<T>> {
        let seen: Result<Vec<Tensor>> = match state {
            PolicyState::Scores => {
                teachers.scores(queries, batch).and_then(|scores| scores.iter().map(standardised).collect())
            }
            PolicyState::Query => {
                teachers.vectors(queries, batch).and_then(|vectors| vectors.iter().map(scaled).collect())
            }
        };
        seen.and_then(|seen| self.forward(seen)).and_then(|said| read_matrix(&said)).map_err(failed)
    }

    /// The `log π (query, strategy)` from each input's rows in `seen`, `(query, width)`.
    fn forward(&mut self, seen: Vec<Tensor>) -> Result<Tensor> {
        self.seen = seen;
        let (first, [first_bias, second, second_bias]) = self.split()?;
        let mut hidden = first_bias.value.clone();
        for (rows, layer) in self.seen.iter().zip(first) {
            hidden = product(Precision::F32, rows, &layer.value)?.broadcast_add(&hidden)?;
        }
        let hidden = hidden.relu()?;
        let logits = product(Precision::F32, &hidden, &second.value)?.broadcast_add(&second_bias.value)?;
        self.hidden = Some(hidden);
        logits.broadcast_sub(&logits.log_sum_exp(1)?.unsqueeze(1)?)
    }

    fn split(&self) -> Result<(&[AdamWeight], &[AdamWeight; 3])> {
        self.layers.split_last_chunk().ok_or_else(|| candle_core::Error::Msg("three more layers".into()))
    }

    /// Takes a step of all parameters, from the gradient of the logits `(row, strategy)` of some `rows` of the last
    /// [`DeviceNetwork::ask`].
    pub fn step<T: Number>(
        &mut self,
        rows: &[u32],
        logits: &Matrix<T>,
        step: AdamRates,
    ) -> stage::Result<()> {
        let gradients = self.gradients(rows, logits).map_err(failed)?;
        let mut layers = self.layers.iter_mut().zip(&gradients);
        layers.try_for_each(|(layer, gradient)| layer.step(step, gradient)).map_err(failed)
    }

    /// The gradients of all layers, in the order of [`DeviceNetwork::new`].
    pub(crate) fn gradients<T: Number>(&self, rows: &[u32], logits: &Matrix<T>) -> Result<Vec<Tensor>> {
        let Some(hidden) = &self.hidden else { candle_core::bail!("a step before anything was asked") };
        if rows.is_empty() {
            // Without rows, the gradient is zero and Adam still steps. Not every device accepts empty lists.
            return self.gradients(&[0], &Matrix::<T>::zeros(1, logits.columns()));
        }
        let (rows, logits) = (list(hidden.device(), rows)?, upload(hidden.device(), logits)?);
        let hidden = hidden.index_select(&rows, 0)?;
        let (_, [_, second, _]) = self.split()?;
        let into_hidden = product(Precision::F32, &logits, &second.value.t()?)?;
        let into_hidden = hidden.gt(0.0)?.where_cond(&into_hidden, &hidden.zeros_like()?)?;
        let of_inputs = self
            .seen
            .iter()
            .map(|seen| product(Precision::F32, &seen.index_select(&rows, 0)?.t()?, &into_hidden));
        let of_second = product(Precision::F32, &hidden.t()?, &logits);
        of_inputs.chain([into_hidden.sum_keepdim(0), of_second, logits.sum_keepdim(0)]).collect()
    }

    /// Copies every layer's parameters, means and squares to the host, in the order of [`DeviceNetwork::new`].
    pub fn read<'a, T: Number>(
        &self,
        into: impl Iterator<Item = [&'a mut Matrix<T>; 3]>,
    ) -> stage::Result<()> {
        for (layer, into) in self.layers.iter().zip(into) {
            for (tensor, into) in [&layer.value, &layer.mean, &layer.square].into_iter().zip(into) {
                *into = read_matrix(tensor).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Replaces every layer's parameters, means and squares, in the order of [`DeviceNetwork::new`].
    pub fn write<'a, T: Number>(
        &mut self,
        from: impl Iterator<Item = [&'a Matrix<T>; 3]>,
    ) -> stage::Result<()> {
        for (layer, from) in self.layers.iter_mut().zip(from) {
            let device = layer.value.device().clone();
            let [value, mean, square] = from.map(|matrix| upload(&device, matrix).map_err(failed));
            *layer = AdamWeight { value: value?, mean: mean?, square: square? };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_close, device, matrix};
    use serde_json::Value;

    const GOLDEN: &str = include_str!("../../../tests/golden/policy.json");

    fn transposed(matrix: &Matrix<f64>) -> Matrix<f64> {
        let (rows, columns) = (matrix.rows(), matrix.columns());
        let values = (0..rows * columns).map(|i| matrix.row(i % rows)[i / rows]).collect();
        Matrix::from_values(columns, rows, values)
    }

    /// The golden file's network and teachers' scores; the file's weights are `(output, input)`, over all teachers.
    fn network(golden: &Value) -> (DeviceNetwork, Vec<Tensor>) {
        let of = |name: &str| transposed(&matrix(&golden[name]));
        let row = |name: &str| matrix(&serde_json::json!([golden[name]]));
        let first = of("W1");
        let (entities, hidden) = (first.rows() / 3, first.columns());
        let parts = first.values().chunks_exact(entities * hidden);
        let parts = parts.map(|values| Matrix::from_values(entities, hidden, values.to_vec()));
        let layers: Vec<_> = parts.chain([row("b1"), of("W2"), row("b2")]).collect();
        let network = DeviceNetwork::new(&device(), layers.iter()).unwrap();
        let teachers = golden["teacher_logits"].as_array().unwrap();
        (network, teachers.iter().map(|scores| upload(&device(), &matrix(scores)).unwrap()).collect())
    }

    #[test]
    fn probabilities_and_gradients_equal_the_golden_values() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let (mut network, teachers) = network(&golden);
        let said: Matrix<f64> = read_matrix(&network.forward(teachers).unwrap()).unwrap();
        assert_close(said.values(), matrix(&golden["log_pi"]).values(), 1e-10, "log π");
        // The gradient of -mean(δ log π_a), by its definition.
        let list = |name: &str| -> Vec<f64> { serde_json::from_value(golden[name].clone()).unwrap() };
        let (rows, actions, rewards, baselines) =
            (list("row"), list("action"), list("reward"), list("baseline"));
        let mut logits = Matrix::<f64>::zeros(said.rows(), said.columns());
        for pair in 0..rows.len() {
            let (row, share) = (rows[pair] as usize, (rewards[pair] - baselines[pair]) / rows.len() as f64);
            for (k, log_p) in said.row(row).iter().enumerate() {
                let is_chosen = f64::from(k == actions[pair] as usize);
                logits.row_mut(row)[k] += share * (log_p.exp() - is_chosen);
            }
        }
        let all: Vec<u32> = (0..said.rows() as u32).collect();
        let gradients = network.gradients(&all, &logits).unwrap();
        let found = |i: usize| read_matrix::<f64>(&gradients[i]).unwrap();
        let first = [0, 1, 2].map(|input| found(input).values().to_vec()).concat();
        assert_close(&first, transposed(&matrix(&golden["grad_W1"])).values(), 1e-10, "W₁");
        assert_close(found(3).values(), &list("grad_b1"), 1e-10, "b₁");
        assert_close(found(4).values(), transposed(&matrix(&golden["grad_W2"])).values(), 1e-10, "W₂");
        assert_close(found(5).values(), &list("grad_b2"), 1e-10, "b₂");
    }

    #[test]
    fn adam_takes_the_steps_worked_out_by_hand() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let (mut network, teachers) = network(&golden);
        let said: Matrix<f64> = read_matrix(&network.forward(teachers).unwrap()).unwrap();
        let mut layers = vec![[0, 1, 2].map(|_| Matrix::<f64>::zeros(0, 0)); 6];
        network.read(layers.iter_mut().map(|layer| layer.each_mut())).unwrap();
        let before = layers[5][0].clone();
        let (mut logits, rates) = (Matrix::<f64>::zeros(1, said.columns()), [0.1 / 0.1, 0.1 / 0.19]);
        logits.row_mut(0)[2] = 2.0;
        let step = |number: i32, rate: f64| AdamRates {
            decays: [0.9, 0.999],
            rate,
            correction: 1.0 - 0.999f64.powi(number),
            epsilon: 1e-8,
        };
        network.step(&[0], &logits, step(1, rates[0])).unwrap();
        // Without a gradient, Adam steps with its mean.
        network.step(&[], &Matrix::<f64>::zeros(0, said.columns()), step(2, rates[1])).unwrap();
        network.read(layers.iter_mut().map(|layer| layer.each_mut())).unwrap();
        let [value, mean, square] = &layers[5];
        let first = 0.1 * 2.0 / (2.0 + 1e-8);
        let second = 0.1 * (0.9 * 0.2 / 0.19) / ((0.999f64 * 0.004 / (1.0 - 0.999f64.powi(2))).sqrt() + 1e-8);
        let expected = [before.values()[2] - first - second, 0.18, 0.999 * 0.004];
        let found = [value.values()[2], mean.values()[2], square.values()[2]];
        assert_close(&found, &expected, 1e-10, "value, mean, square");
        assert_eq!(value.values()[1], before.values()[1]);
        let written = layers.clone();
        network.write(written.iter().map(|layer| layer.each_ref())).unwrap();
        network.read(layers.iter_mut().map(|layer| layer.each_mut())).unwrap();
        assert!(layers == written);
    }

    #[test]
    fn rows_are_standardised_and_constant_ones_are_zeros() {
        let rows = Tensor::new(&[[1.0f64, 3.0], [2.0, 2.0], [0.0, 0.0]], &device()).unwrap();
        let of = |standard: fn(&Tensor) -> Result<Tensor>| {
            crate::host::read::<f64>(&standard(&rows).unwrap()).unwrap()
        };
        assert_eq!(of(standardised), [-1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_close(&of(scaled), &[0.2f64.sqrt(), 1.8f64.sqrt(), 1.0, 1.0, 0.0, 0.0], 1e-12, "square");
    }
}
