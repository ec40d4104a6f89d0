//! The network on a device.

use device::{Device, DeviceNetwork, DeviceTeachers};
use mkg::QuerySet;
use recipe::PolicyState;
use stage::Result;

use super::{Adam, AdamStep, Policy, RewardedAction};

/// The network of a policy on a device. The policy on the host has what it said last, and from its log-probabilities the
/// loss and the gradient of the logits; its layers are what was last read.
pub(crate) struct RemotePolicy {
    network: DeviceNetwork,
    state: PolicyState,
    /// True if the host has the layers as they stand.
    is_fresh: bool,
}

impl RemotePolicy {
    /// A copy of the policy's, which sees that part of a query.
    pub(crate) fn new(device: &Device, policy: &Policy<'_, f32>, state: PolicyState) -> Result<RemotePolicy> {
        let first = policy.first.iter().map(|layer| &layer.parameters);
        let others = [&policy.first_bias, &policy.second, &policy.second_bias];
        let network = DeviceNetwork::new(device, first, others.map(|layer| &layer.parameters))?;
        Ok(RemotePolicy { network, state, is_fresh: true })
    }

    /// Does as [`Policy::forward`], with what the teachers say of a batch.
    pub(crate) fn ask(
        &mut self,
        policy: &mut Policy<'_, f32>,
        teachers: &mut DeviceTeachers<'_>,
        queries: &QuerySet,
        batch: &[u32],
    ) -> Result<()> {
        policy.said = self.network.ask(self.state, teachers, queries, batch)?;
        Ok(())
    }

    /// Does as [`Policy::reinforce`], on the outcomes of the last [`RemotePolicy::ask`].
    pub(crate) fn reinforce(
        &mut self,
        policy: &mut Policy<'_, f32>,
        outcomes: &[RewardedAction],
    ) -> Result<f64> {
        let (loss, rows, logits) = policy.of_logits(outcomes);
        let rows: Vec<u32> = rows.into_iter().map(|row| row as u32).collect();
        policy.steps += 1;
        self.is_fresh = false;
        let step = AdamStep::new(policy.learning_rate, policy.steps);
        self.network.step(&rows, &logits, step.into())?;
        Ok(loss)
    }

    /// Brings the policy's layers up to date.
    pub(crate) fn read(&mut self, policy: &mut Policy<'_, f32>) -> Result<()> {
        if !self.is_fresh {
            let layers = policy.layers_mut();
            self.network.read(layers.map(|Adam { parameters, mean, square }| [parameters, mean, square]))?;
            self.is_fresh = true;
        }
        Ok(())
    }

    /// Copies the policy's layers to the device.
    pub(crate) fn write(&mut self, policy: &Policy<'_, f32>) -> Result<()> {
        let layers = policy.layers();
        self.is_fresh = true;
        self.network.write(layers.map(|(_, Adam { parameters, mean, square })| [parameters, mean, square]))
    }
}
