//! The network on a device.

use cuda::{Gpu, Inputs, Network};
use stage::Result;

use super::{Adam, AdamStep, Outcome, Policy};

/// The network of a policy on a device. The policy on the host has what it said last, and from its log-probabilities the
/// loss and the gradient of the logits; its layers are what was last read.
pub(crate) struct Remote {
    network: Network,
    /// Whether the host has the layers as they stand.
    fresh: bool,
}

impl Remote {
    /// A copy of the policy's.
    ///
    /// # Errors
    /// If the device's memory does not hold it.
    pub(crate) fn new(gpu: &Gpu, policy: &Policy<'_, f32>) -> Result<Remote> {
        let first = policy.first.iter().map(|layer| &layer.parameters);
        let others = [&policy.first_bias, &policy.second, &policy.second_bias];
        Ok(Remote { network: Network::new(gpu, first, others.map(|layer| &layer.parameters))?, fresh: true })
    }

    /// As [`Policy::forward`], of a batch of which the network sees `inputs`.
    pub(crate) fn forward(
        &mut self,
        policy: &mut Policy<'_, f32>,
        inputs: &Inputs<'_>,
        queries: &[u32],
    ) -> Result<()> {
        policy.queries = queries.to_vec();
        self.network.forward(inputs, &mut policy.log_probabilities)
    }

    /// As [`Policy::reinforce`], on the outcomes of the last [`Remote::forward`], whose `inputs` are the same.
    pub(crate) fn reinforce(
        &mut self,
        policy: &mut Policy<'_, f32>,
        inputs: &Inputs<'_>,
        outcomes: &[Outcome],
    ) -> Result<f64> {
        let (loss, rows, logits) = policy.of_logits(outcomes);
        policy.steps += 1;
        self.fresh = false;
        let step = AdamStep::new(policy.learning_rate, policy.steps);
        self.network.step(inputs, &rows, &logits, step.into())?;
        Ok(loss)
    }

    /// Brings the policy's layers up to date.
    pub(crate) fn read(&mut self, policy: &mut Policy<'_, f32>) -> Result<()> {
        if !self.fresh {
            let layers = policy.layers_mut();
            self.network.read(layers.map(|Adam { parameters, mean, square }| [parameters, mean, square]))?;
            self.fresh = true;
        }
        Ok(())
    }

    /// Takes the policy's layers.
    pub(crate) fn write(&mut self, policy: &mut Policy<'_, f32>) -> Result<()> {
        let layers = policy.layers_mut();
        self.network
            .write(layers.map(|Adam { parameters, mean, square }| [&*parameters, &*mean, &*square]))?;
        self.fresh = true;
        Ok(())
    }
}
