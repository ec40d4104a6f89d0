//! Adagrad and Adam, with the same steps as [`kge::adagrad`] and the policy on the CPU.

use candle_core::{Device, Result, Tensor};
use kge::Matrix;
use kge::adagrad::EPSILON;

use crate::host::{Number, failed, upload};

#[derive(Clone, Debug)]
pub(crate) struct AdagradWeight {
    pub(crate) value: Tensor,
    pub(crate) squares: Tensor,
}

impl AdagradWeight {
    pub(crate) fn new<T: Number>(device: &Device, value: &Matrix<T>) -> stage::Result<Self> {
        let value = upload(device, value).map_err(failed)?;
        Ok(AdagradWeight { squares: value.zeros_like().map_err(failed)?, value })
    }

    /// Computes `s += g²; x -= rate · g / (√s + ε)`.
    pub(crate) fn step(&mut self, rate: f64, gradient: &Tensor) -> Result<()> {
        self.squares = (&self.squares + gradient.sqr()?)?;
        let step = ((gradient * rate)? / (self.squares.sqrt()? + EPSILON)?)?;
        self.value = (&self.value - step)?;
        Ok(())
    }
}

/// The rates of a step of Adam, the same for all parameters.
#[derive(Clone, Copy, Debug)]
pub struct AdamRates {
    /// The shares of the mean and of the mean square that a step keeps.
    pub decays: [f64; 2],
    /// The learning rate divided by the mean's bias correction.
    pub rate: f64,
    /// The mean square's bias correction.
    pub correction: f64,
    /// The number added to the root, so that nothing is divided by 0.
    pub epsilon: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct AdamWeight {
    pub(crate) value: Tensor,
    pub(crate) mean: Tensor,
    pub(crate) square: Tensor,
}

impl AdamWeight {
    pub(crate) fn new<T: Number>(device: &Device, value: &Matrix<T>) -> Result<Self> {
        let value = upload(device, value)?;
        Ok(AdamWeight { mean: value.zeros_like()?, square: value.zeros_like()?, value })
    }

    pub(crate) fn step(&mut self, step: AdamRates, gradient: &Tensor) -> Result<()> {
        let [mean, square] = step.decays;
        self.mean = ((&self.mean * mean)? + (gradient * (1.0 - mean))?)?;
        self.square = ((&self.square * square)? + (gradient.sqr()? * (1.0 - square))?)?;
        let root = ((&self.square * (1.0 / step.correction))?.sqrt()? + step.epsilon)?;
        self.value = (&self.value - ((&self.mean * step.rate)? / root)?)?;
        Ok(())
    }
}
