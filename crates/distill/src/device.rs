//! The student's steps on a device.
//!
//! Scores, combinations and gradients stay there (`cuda::Distil`), and so does the network of a policy that learns from the
//! student (`cuda::Network`): of a batch its log-probabilities come down before the step, and its gradients go up after
//! it. Actions are drawn on the host, by the same random numbers. One that
//! sees scores sees those that the student is taught: where they are computed anew, all of them, whatever a cache keeps.

mod combinations;

pub(crate) use combinations::Combinations;

use cuda::{Cache, Distil, Inputs, Sources, Standard, Terms};
use dsom_soft_labels::SoftLabels;
use half::slice::HalfFloatSliceExt;
use mkg::QuerySet;
use recipe::{Neighbours, PolicyState, Selection, Term};
use stage::Result;

use crate::objective::{Distillation, Division};
use crate::policy::{Policy, Remote};
use crate::reward::Outcome;

/// What of a recipe no device does.
pub(crate) fn lacking(recipe: &recipe::Distill) -> Option<String> {
    if recipe.term != Term::None && recipe.selection == Selection::Mulde {
        return Some("`distill.selection.kind = \"mulde\"`".to_owned());
    }
    training::lacking(&recipe.training, "distill")
}

/// The objective of a student on a device.
pub fn objective<'a>(gpu: &cuda::Gpu, recipe: &recipe::Distill, sources: Option<Sources<'a>>) -> Distil<'a> {
    Distil::new(gpu, terms(recipe), sources, recipe.training.precision)
}

fn terms(recipe: &recipe::Distill) -> Terms {
    let Distillation { division, tau, alpha, beta, neighbours, weight } = Distillation::from(&recipe.term);
    let term = match division {
        Division::None => cuda::Term::None,
        Division::Whole => cuda::Term::Kd,
        Division::Neighbours => cuda::Term::Ndkd,
        Division::Target => cuda::Term::Dkd,
    };
    Terms { term, mean: neighbours == Neighbours::Mean, tau, alpha, beta, weight }
}

/// What a cache has, as bits of half-precision numbers.
pub fn cached(labels: &SoftLabels) -> Sources<'_> {
    Sources::Cache(Cache {
        teachers: labels.teachers().len(),
        scores: Box::new(|query, teacher| labels.stored(query, teacher).reinterpret_cast()),
        vectors: Box::new(|query, teacher| labels.vector(query, teacher).reinterpret_cast()),
    })
}

/// What of a student is on a device beside its model.
pub(crate) struct OnDevice<'a> {
    pub(crate) objective: Distil<'a>,
    agent: Option<Agent>,
}

/// The network of a policy that learns from the student, and what it sees.
struct Agent {
    network: Remote,
    state: PolicyState,
}

impl<'a> OnDevice<'a> {
    /// With the network of `policy`, if there is one.
    pub(crate) fn new(
        objective: Distil<'a>,
        policy: Option<&Policy<'_, f32>>,
        recipe: &recipe::Distill,
    ) -> Result<Self> {
        let gpu = objective.gpu();
        let agent = match (policy, recipe.selection.policy()) {
            (Some(policy), Some(keys)) => {
                Some(Agent { network: Remote::new(gpu, policy)?, state: keys.state })
            }
            _ => None,
        };
        Ok(OnDevice { objective, agent })
    }

    /// What `policy` says of a batch, where its network is here; says whether it is.
    pub(crate) fn ask(
        &mut self,
        policy: &mut Policy<'_, f32>,
        queries: &QuerySet,
        batch: &[u32],
    ) -> Result<bool> {
        let Some(agent) = &mut self.agent else { return Ok(false) };
        let (inputs, network) = agent.sees(&mut self.objective, queries, batch)?;
        network.forward(policy, &inputs, batch)?;
        Ok(true)
    }

    /// One REINFORCE step on the outcomes of the batch that was asked about last; its loss, if the network is here.
    pub(crate) fn reinforce(
        &mut self,
        policy: &mut Policy<'_, f32>,
        queries: &QuerySet,
        batch: &[u32],
        outcomes: &[Outcome],
    ) -> Result<Option<f64>> {
        let Some(agent) = &mut self.agent else { return Ok(None) };
        let (inputs, network) = agent.sees(&mut self.objective, queries, batch)?;
        network.reinforce(policy, &inputs, outcomes).map(Some)
    }

    /// Brings the policy on the host up to date.
    pub(crate) fn read(&mut self, policy: &mut Policy<'_, f32>) -> Result<()> {
        self.agent.as_mut().map_or(Ok(()), |agent| agent.network.read(policy))
    }

    /// Takes the parameters of the policy on the host.
    pub(crate) fn write(&mut self, policy: &mut Policy<'_, f32>) -> Result<()> {
        self.agent.as_mut().map_or(Ok(()), |agent| agent.network.write(policy))
    }
}

impl Agent {
    /// What it sees of a batch, beside its network.
    fn sees<'b>(
        &'b mut self,
        objective: &'b mut Distil<'_>,
        queries: &QuerySet,
        batch: &[u32],
    ) -> Result<(Inputs<'b>, &'b mut Remote)> {
        let inputs = match self.state {
            PolicyState::Scores => objective.scores(queries, batch, Standard::Deviation)?,
            PolicyState::Query => objective.vectors(queries, batch, Standard::Square)?,
        };
        Ok((inputs, &mut self.network))
    }
}

#[cfg(test)]
mod tests;
