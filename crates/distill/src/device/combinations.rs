//! What a device is told of a batch's actions, and what of its answers the policy is told.

use cuda::{Groups, Taught};
use mkg::QuerySet;

use crate::policy::Outcome;
use crate::strategy::{Strategy, by_strategy};

/// The combinations of a batch, and where in them each action is.
pub(crate) struct Combinations {
    pub(crate) groups: Groups,
    /// For each query of the batch: its strategies with the number of the group; the last is all teachers together, if
    /// rewards are asked for.
    numbers: Vec<Vec<(Strategy, usize)>>,
}

impl Combinations {
    /// Of the batch's `actions`, each with the tails it is for. `rewarded` asks for what
    /// rewards need.
    pub(crate) fn new(
        teachers: usize,
        queries: &QuerySet,
        (batch, actions): (&[u32], &[Vec<Strategy>]),
        rewarded: bool,
    ) -> Combinations {
        let all = Strategy::all(teachers);
        let mut combinations = Combinations { groups: Groups::new(teachers), numbers: Vec::new() };
        for (&query, actions) in batch.iter().zip(actions) {
            let tails = queries.tails(query as usize).len();
            let mut groups = by_strategy(actions, tails);
            if rewarded && !groups.iter().any(|(strategy, _)| *strategy == all) {
                groups.push((all, Vec::new()));
            }
            let numbers = groups.into_iter().map(|(strategy, targets)| {
                let weight = |teacher| if strategy.has(teacher) { strategy.weight() } else { 0.0 };
                (strategy, combinations.groups.add((0..teachers).map(weight), targets, 1.0))
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
