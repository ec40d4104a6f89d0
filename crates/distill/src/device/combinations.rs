//! What a device is told of a batch's actions, and what of its answers the policy is told.

use cuda::{Groups, Taught};
use mkg::QuerySet;

use crate::reward::{Outcome, Reward};
use crate::strategy::{Strategy, by_strategy};
use crate::supervision::Supervision;

/// The combinations of a batch, and where in them each action is.
pub(crate) struct Combinations<'a> {
    pub(crate) groups: Groups,
    actions: &'a [Vec<Strategy>],
    reward: Option<Reward>,
    /// For each query of the batch: its strategies with the number of the group; the last is all teachers together, if
    /// rewards are asked for.
    numbers: Vec<Vec<(Strategy, usize)>>,
}

impl<'a> Combinations<'a> {
    /// Of the batch's actions, each with the tails it is for; none where there are no strategies.
    pub(crate) fn new(supervision: Supervision<'a>, queries: &QuerySet, batch: &[u32]) -> Option<Self> {
        let Supervision::Strategies { teachers, actions, reward } = supervision else { return None };
        let teachers = teachers.labels.teachers().len();
        let all = Strategy::all(teachers);
        let mut combinations =
            Combinations { groups: Groups::new(teachers), actions, reward, numbers: Vec::new() };
        for (&query, actions) in batch.iter().zip(actions) {
            let mut groups = by_strategy(actions, queries.tails(query as usize).len());
            if reward.is_some() && !groups.iter().any(|(strategy, _)| *strategy == all) {
                groups.push((all, Vec::new()));
            }
            let numbers = groups.into_iter().map(|(strategy, targets)| {
                let weight = |teacher| if strategy.has(teacher) { strategy.share() } else { 0.0 };
                (strategy, combinations.groups.add((0..teachers).map(weight), targets, 1.0))
            });
            let numbers = numbers.collect();
            combinations.numbers.push(numbers);
            combinations.groups.end_query();
        }
        Some(combinations)
    }

    /// The reward of each tail's action and of the baseline, given what the device found.
    pub(crate) fn outcomes(&self, queries: &QuerySet, batch: &[u32], taught: &Taught) -> Vec<Outcome> {
        let Some(rewarded) = self.reward else { return Vec::new() };
        let mut outcomes = Vec::with_capacity(taught.cross_entropies.len());
        let mut pair = 0;
        for (row, (&query, actions)) in batch.iter().zip(self.actions).enumerate() {
            let tails = queries.tails(query as usize).len();
            let all = Strategy::all(self.groups.teachers());
            for i in 0..tails {
                let reward = |strategy: Strategy| {
                    let found = self.numbers[row].iter().find(|(of, _)| *of == strategy);
                    let (_, group) = found.expect("every action of the batch has a group");
                    let score = taught.scores[taught.starts[*group] + i];
                    rewarded.of(taught.log_sums[*group] - score, taught.cross_entropies[pair + i])
                };
                let strategy = actions[i % actions.len()];
                outcomes.push(Outcome { row, strategy, reward: reward(strategy), baseline: reward(all) });
            }
            pair += tails;
        }
        outcomes
    }
}
