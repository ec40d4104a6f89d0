//! The student's steps on a device: what it is told of a batch, and what of its answers the policy is told.
//!
//! Scores, combinations and gradients stay there (`cuda::Distil`). The policy's network is on the CPU, whatever it sees:
//! it is asked before a step and rewarded after it.

use cuda::{Distil, Groups, Sources, Taught, Term, Terms};
use dsom_soft_labels::SoftLabels;
use mkg::QuerySet;
use stage::recipe::{self, Neighbours, Objective, QueryWeight, Selection};

use crate::combine;
use crate::objective::Distillation;
use crate::policy::Outcome;
use crate::strategy::Strategy;

/// What of a recipe no device does.
pub(crate) fn lacking(recipe: &recipe::Distill) -> Option<String> {
    let taught = recipe.objective != Objective::None;
    if recipe.objective == Objective::Dkd {
        return Some("`distill.objective = \"dkd\"`".to_owned());
    }
    if taught && recipe.selection == Selection::Mulde {
        return Some("`distill.selection = \"mulde\"`".to_owned());
    }
    if taught && recipe.query_weight != QueryWeight::Equal {
        return Some("a `distill.query_weight` other than \"equal\"".to_owned());
    }
    training::lacking(&recipe.training, "distill")
}

/// The objective of a student on a device.
pub fn objective<'a>(gpu: &cuda::Gpu, recipe: &recipe::Distill, sources: Option<Sources<'a>>) -> Distil<'a> {
    Distil::new(gpu, terms(recipe), sources, recipe.training.precision)
}

fn terms(recipe: &recipe::Distill) -> Terms {
    let terms = Distillation::from(recipe);
    let (alpha, beta) = terms.parts();
    let term = match terms.objective {
        Objective::None => Term::None,
        Objective::Kd => Term::Kd,
        Objective::Ndkd | Objective::Nekd | Objective::Nnkd => Term::Ndkd,
        // Refused before: see `lacking`.
        Objective::Dkd => Term::None,
    };
    let mean = terms.neighbours == Neighbours::Mean;
    Terms { term, mean, tau: terms.tau, alpha, beta, weight: terms.weight }
}

/// The scores of a cache, as bits of half-precision numbers.
pub fn cached(labels: &SoftLabels) -> Sources<'_> {
    Sources::Cache(Box::new(|query, teacher| {
        let scores = labels.stored(query, teacher);
        half::slice::HalfFloatSliceExt::reinterpret_cast(scores)
    }))
}

/// The combinations of a batch, and where in them each action is.
pub(crate) struct Combinations {
    pub(crate) groups: Groups,
    /// For each query of the batch: its strategies with the number of the group; the last is all teachers together, if
    /// rewards are asked for.
    numbers: Vec<Vec<(Strategy, usize)>>,
}

impl Combinations {
    /// Of the batch's `actions`, each with how many tails it is for. `rewarded` asks for what rewards need.
    pub(crate) fn new(
        sources: combine::Sources<'_>,
        queries: &QuerySet,
        (batch, actions): (&[u32], &[Vec<Strategy>]),
        rewarded: bool,
    ) -> Combinations {
        let teachers = sources.labels.teachers().len();
        let all = Strategy::all(teachers);
        let mut combinations = Combinations { groups: Groups::new(teachers), numbers: Vec::new() };
        for (&query, actions) in batch.iter().zip(actions) {
            let tails = queries.tails(query as usize).len();
            let of_query = sources.of(queries, query as usize);
            let mut counts = counted(actions, tails);
            if rewarded && !counts.iter().any(|(strategy, _)| *strategy == all) {
                counts.push((all, 0));
            }
            let numbers = counts.into_iter().map(|(strategy, count)| {
                let weight = |teacher| match strategy.has(teacher) {
                    true => of_query.weight(strategy, teacher),
                    false => 0.0,
                };
                (strategy, combinations.groups.add((0..teachers).map(weight), count))
            });
            let numbers = numbers.collect();
            combinations.numbers.push(numbers);
            combinations.groups.end_query();
        }
        combinations
    }

    /// The reward of each tail's action and of the baseline (Eq. 8), given what the device found.
    pub(crate) fn outcomes(
        &self,
        queries: &QuerySet,
        (batch, actions): (&[u32], &[Vec<Strategy>]),
        taught: &Taught,
        recipe: &recipe::Distill,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(taught.cross_entropies.len());
        let mut pair = 0;
        for (row, (&query, actions)) in batch.iter().zip(actions).enumerate() {
            let tails = queries.tails(query as usize).len();
            let all = Strategy::all(self.groups.teachers());
            for i in 0..tails {
                let reward = |strategy: Strategy| {
                    let found = self.numbers[row].iter().find(|(of, _)| *of == strategy);
                    let (_, group) = found.expect("every action of the batch has a group");
                    let score = taught.scores[taught.starts[*group] + i];
                    let better = taught.log_sums[*group] - score < taught.cross_entropies[pair + i];
                    if better { recipe.reward } else { recipe.penalty }
                };
                let strategy = actions[i % actions.len()];
                outcomes.push(Outcome { row, strategy, reward: reward(strategy), baseline: reward(all) });
            }
            pair += tails;
        }
        outcomes
    }
}

/// Each strategy among the `actions`, with how many of the tails it is for.
fn counted(actions: &[Strategy], tails: usize) -> Vec<(Strategy, usize)> {
    match actions {
        &[strategy] => vec![(strategy, tails)],
        _ => {
            let mut sorted = actions.to_vec();
            sorted.sort_unstable();
            sorted.chunk_by(|a, b| a == b).map(|same| (same[0], same.len())).collect()
        }
    }
}

#[cfg(test)]
mod tests;
