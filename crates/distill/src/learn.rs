//! A policy that learns beforehand: from what every strategy is worth on triples, before there is a student.
//!
//! REINFORCE samples one action and hears only its reward. Where a reward does not depend on the student, those of all
//! strategies can be had at once, and the gradient of the expected reward is exact ([`Policy::pursue`]). On validation
//! triples it says how well teachers answer what they have not learned; on training triples mostly what they remember.
//!
//! Validation splits are small, so one part of them held out says little. Every query is judged once by a policy that has
//! not learned from it, in a cross-validation of `K` folds, and so is the constant choice `s` that is worth most in the
//! other folds:
//!
//! ```text
//! gain = Σ_q n_q (v(q, π_p(q)) - v(q, s)) / Σ_q n_q      error² = Σ_q n_q² (d_q - gain)² / (Σ_q n_q)²
//! ```
//!
//! with `v(q, ·)` the worth of a strategy, `n_q` the query's targets, `d_q` the difference in the brackets and `p` the
//! number of passes whose mean worth is the highest. If the gain exceeds its standard error, the policy learns `p` passes on
//! all queries; if not, it always takes the strategy that is worth most over all of them. `p` is chosen on the same
//! queries as the gain is measured, so the gain is a little flattered.

use kge::{Matrix, row};
use mkg::QuerySet;
use rand::seq::SliceRandom;
use recipe::Distill;
use serde::Serialize;
use stage::{Modality, Result, interrupt, seed};
use std::collections::BTreeMap;

use crate::policy::Policy;
use crate::strategy::Strategy;

/// Queries per step.
const BATCH: usize = 256;
/// One query in so many is held out where one part is enough.
const HELD_OUT: usize = 5;

/// Queries to learn from, and those held out.
pub(crate) struct Holdout {
    pub(crate) held_out: Vec<u32>,
    pub(crate) rest: Vec<u32>,
}

impl Holdout {
    /// Draws which of so many queries are held out.
    pub(crate) fn of(queries: usize, seed: u64) -> Holdout {
        let mut rest = shuffled(queries, seed);
        let held_out = rest.split_off(queries - (queries / HELD_OUT).max(1));
        Holdout { held_out, rest }
    }

    /// Draws folds: each query is held out once. Where there are fewer queries than `folds`, as many as queries.
    fn folds(queries: usize, folds: usize, seed: u64) -> impl Iterator<Item = Holdout> {
        let order = shuffled(queries, seed);
        let folds = folds.min(queries);
        (0..folds).map(move |fold| {
            let bounds = [fold, fold + 1].map(|fold| fold * queries / folds);
            let rest = [&order[..bounds[0]], &order[bounds[1]..]].concat();
            Holdout { held_out: order[bounds[0]..bounds[1]].to_vec(), rest }
        })
    }
}

fn shuffled(queries: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..queries as u32).collect();
    order.shuffle(&mut seed::generator(seed, "policy/held-out", 0));
    order
}

/// How learning beforehand went: means over the queries' targets of what choices are worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Learned {
    /// What is kept.
    pub(crate) taken: Taken,
    /// Passes of the policy that did best.
    pub(crate) passes: usize,
    /// That policy's choices for queries that it did not learn from.
    pub(crate) policy: f64,
    /// The one strategy that is worth most on other queries.
    pub(crate) constant: f64,
    /// Standard error of the difference between these two.
    pub(crate) standard_error: f64,
    /// The strategy that is worth most on all.
    pub(crate) constant_strategy: String,
    /// Always all teachers.
    pub(crate) all: f64,
    /// A strategy drawn evenly.
    pub(crate) random: f64,
    /// Every query's best strategy: more is not to be had.
    pub(crate) oracle: f64,
    /// Every strategy.
    pub(crate) strategies: BTreeMap<String, f64>,
}

/// What is kept of a policy that learned beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Taken {
    /// What it learned.
    Policy,
    /// The constant choice, which it did not beat.
    Constant,
}

impl Learned {
    /// Says in the log what was found and what is made of it.
    pub(crate) fn tell(&self) {
        let Learned { policy, constant, standard_error, constant_strategy, all, oracle, .. } = self;
        tracing::info!(
            "policy: its choices for queries it has not seen are worth {policy:.4}, all teachers {all:.4}, the best \
             constant choice {constant:.4} (standard error of the difference {standard_error:.4}), the best \
             strategies {oracle:.4}"
        );
        if self.taken == Taken::Constant {
            tracing::warn!("policy: no better than a constant choice: it always takes {constant_strategy}");
        }
    }
}

/// Queries with what every strategy is worth to each.
struct Lessons<'a> {
    queries: &'a QuerySet,
    /// `(query, strategy)`.
    values: &'a Matrix<f32>,
    seed: u64,
}

impl Lessons<'_> {
    /// A query counts as often as it has targets.
    fn weight(&self, query: u32) -> f64 {
        self.queries.tails(query as usize).len() as f64
    }

    fn mean(&self, queries: &[u32], value: impl Fn(&[f32], usize) -> f64) -> f64 {
        let weighted = queries
            .iter()
            .enumerate()
            .map(|(i, &query)| self.weight(query) * value(self.values.row(query as usize), i));
        weighted.sum::<f64>() / queries.iter().map(|query| self.weight(*query)).sum::<f64>()
    }

    /// Pass number `number` over `queries`, in an order of its own.
    fn pass(&self, policy: &mut Policy<'_, f32>, queries: &[u32], number: usize) -> Result<()> {
        let mut order = queries.to_vec();
        order.shuffle(&mut seed::generator(self.seed, "policy/lessons", number as u64));
        for batch in order.chunks(BATCH) {
            interrupt::check()?;
            policy.forward(batch);
            let values: Vec<&[f32]> = batch.iter().map(|query| self.values.row(*query as usize)).collect();
            let weights: Vec<f64> = batch.iter().map(|query| self.weight(*query)).collect();
            policy.pursue(&values, &weights);
        }
        Ok(())
    }
}

/// What the policy holds best for each of `queries`.
pub(crate) fn favourites(policy: &mut Policy<'_, f32>, queries: &[u32]) -> Vec<Strategy> {
    let of_batch = |batch: &[u32]| {
        policy.forward(batch);
        (0..batch.len()).map(|row| policy.favourite(row)).collect::<Vec<_>>()
    };
    queries.chunks(BATCH).flat_map(of_batch).collect()
}

/// Teaches `policy` the `values (query, strategy)` of `queries`, as far as cross-validation finds that worth while.
pub(crate) fn learn(
    policy: &mut Policy<'_, f32>,
    queries: &QuerySet,
    values: &Matrix<f32>,
    teachers: &[Modality],
    recipe: &Distill,
    seed: u64,
) -> Result<Learned> {
    let lessons = Lessons { queries, values, seed };
    let everything: Vec<u32> = (0..queries.len() as u32).collect();
    let initial = policy.parameters();
    let found = lessons.cross_validate(policy, recipe)?;
    let (learned, constant) = lessons.compare(&found, &everything, teachers);
    policy.begin_again(&initial);
    match learned.taken {
        Taken::Constant => policy.settle(constant),
        Taken::Policy => {
            (1..=learned.passes).try_for_each(|number| lessons.pass(policy, &everything, number))?;
        }
    }
    Ok(learned)
}

/// What choices are worth for queries that they were not learned from.
struct OutOfFold {
    /// `(pass from 0, query)`: the policy's choice.
    policy: Matrix<f32>,
    /// `(query)`: the constant one.
    constant: Vec<f32>,
}

impl Lessons<'_> {
    /// Learns once without each fold, and judges there.
    fn cross_validate(&self, policy: &mut Policy<'_, f32>, recipe: &Distill) -> Result<OutOfFold> {
        let count = self.queries.len();
        let (initial, passes) = (policy.parameters(), recipe.policy_epochs);
        let mut found = OutOfFold { policy: Matrix::zeros(passes + 1, count), constant: vec![0.0; count] };
        for Holdout { held_out, rest } in Holdout::folds(count, recipe.policy_folds, self.seed) {
            policy.begin_again(&initial);
            let constant = self.best_constant(&rest);
            for &query in &held_out {
                found.constant[query as usize] = self.values.row(query as usize)[constant.index()];
            }
            for number in 0..=passes {
                if number > 0 {
                    self.pass(policy, &rest, number)?;
                }
                for (query, strategy) in held_out.iter().zip(favourites(policy, &held_out)) {
                    let value = self.values.row(*query as usize)[strategy.index()];
                    found.policy.row_mut(number)[*query as usize] = value;
                }
            }
        }
        Ok(found)
    }

    /// The strategy that is worth most to `queries`; of equal ones the first.
    fn best_constant(&self, queries: &[u32]) -> Strategy {
        let count = self.values.columns();
        let values: Vec<f64> = (0..count).map(|k| self.mean(queries, |row, _| f64::from(row[k]))).collect();
        Strategy(row::argmax(&values) as u16)
    }

    /// Whether the policy is better than a constant choice, with what else there is to compare it with; and that choice.
    fn compare(&self, found: &OutOfFold, everything: &[u32], teachers: &[Modality]) -> (Learned, Strategy) {
        let of_pass = |pass: usize| self.mean(everything, |_, i| f64::from(found.policy.row(pass)[i]));
        let means: Vec<f64> = (0..found.policy.rows()).map(of_pass).collect();
        let (passes, constant) = (row::argmax(&means), self.best_constant(everything));
        let difference = |i: usize| f64::from(found.policy.row(passes)[i]) - f64::from(found.constant[i]);
        let gain = self.mean(everything, |_, i| difference(i));
        let standard_error = self.standard_error(everything, gain, difference);
        let value_of = |k: usize| self.mean(everything, |values, _| f64::from(values[k]));
        let every = Strategy::every(teachers.len());
        let strategies = every.iter().map(|strategy| (strategy.name(teachers), value_of(strategy.index())));
        let learned = Learned {
            taken: if gain > standard_error { Taken::Policy } else { Taken::Constant },
            passes,
            policy: means[passes],
            constant: self.mean(everything, |_, i| f64::from(found.constant[i])),
            standard_error,
            constant_strategy: constant.name(teachers),
            all: value_of(Strategy::all(teachers.len()).index()),
            random: every.iter().map(|strategy| value_of(strategy.index())).sum::<f64>() / every.len() as f64,
            oracle: self.mean(everything, |values, _| f64::from(row::max(values))),
            strategies: strategies.collect(),
        };
        (learned, constant)
    }

    /// Of the weighted mean of `of(i)`, for the `i`-th of `queries`.
    fn standard_error(&self, queries: &[u32], mean: f64, of: impl Fn(usize) -> f64) -> f64 {
        let weights = || queries.iter().map(|query| self.weight(*query));
        let squares = weights().enumerate().map(|(i, weight)| (weight * (of(i) - mean)).powi(2));
        squares.sum::<f64>().sqrt() / weights().sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Dense, Input};
    use mkg::{EntityId, Query, RelationId};

    /// Queries of two relations, each of whose heads is an entity of its own.
    fn queries() -> QuerySet {
        let pair = |i: u32| (Query { head: EntityId(i), relation: RelationId(i % 2) }, EntityId(0));
        QuerySet::from_pairs((0..400).map(pair).collect())
    }

    /// A policy that sees the relation alone.
    fn policy() -> Policy<'static, f32> {
        let relation = |query: usize, into: &mut [f32]| {
            into.fill(0.0);
            into[query % 2] = 1.0;
        };
        let inputs = vec![Input { name: "relation".into(), block: Box::new(Dense::new(2, relation)) as _ }];
        Policy::new(inputs, 16, 3, 1e-2, &mut seed::generator(0, "test", 0))
    }

    /// Learns what `of(query)` says that strategies are worth.
    fn learned(policy: &mut Policy<'_, f32>, of: impl Fn(usize) -> [f32; 3]) -> Learned {
        let queries = queries();
        let values = (0..queries.len()).flat_map(of).collect();
        let values = Matrix::from_values(queries.len(), 3, values);
        let teachers = ["structural", "textual"].map(|name| name.parse().unwrap());
        learn(policy, &queries, &values, &teachers, &Distill::default(), 0).unwrap()
    }

    #[test]
    fn a_policy_learns_what_depends_on_the_relation() {
        // The first relation is answered by the first teacher, the second by the second; both together come between.
        let of = |query: usize| if query.is_multiple_of(2) { [0.9, 0.1, 0.6] } else { [0.2, 0.7, 0.6] };
        let mut policy = policy();
        let learned = learned(&mut policy, of);
        assert!((learned.all - 0.6).abs() < 1e-6 && (learned.constant - 0.6).abs() < 1e-6, "{learned:?}");
        assert_eq!(
            (learned.constant_strategy.as_str(), learned.taken),
            ("structural+textual", Taken::Policy)
        );
        assert!((learned.policy - learned.oracle).abs() < 1e-6, "{learned:?}");
        assert!((learned.strategies["structural"] - 0.55).abs() < 1e-6, "{learned:?}");
        assert_eq!(favourites(&mut policy, &[0, 1, 7]), [Strategy(0), Strategy(1), Strategy(1)]);
    }

    #[test]
    fn what_is_no_better_than_a_constant_choice_is_not_kept() {
        // Noise that a policy cannot see, and a strategy that is a little better on the whole.
        let noise = |query: usize| (query as u64 * 2_654_435_761 % 1000) as f32 / 1000.0;
        let of = |query: usize| [noise(query), noise(query + 400), noise(query + 800) + 0.2];
        let mut policy = policy();
        let learned = learned(&mut policy, of);
        assert_eq!(
            (learned.constant_strategy.as_str(), learned.taken),
            ("structural+textual", Taken::Constant)
        );
        assert_eq!(favourites(&mut policy, &[0, 1]), [Strategy(2); 2]);
        assert!(policy.forward(&[3]).row(0)[2] > -1e-6);
    }

    #[test]
    fn every_query_is_held_out_once() {
        for (queries, folds) in [(10, 5), (11, 3), (2, 5)] {
            let mut held_out = Vec::new();
            for fold in Holdout::folds(queries, folds, 7) {
                assert_eq!(fold.held_out.len() + fold.rest.len(), queries);
                assert!(
                    !fold.rest.is_empty() && fold.held_out.iter().all(|query| !fold.rest.contains(query))
                );
                held_out.extend(fold.held_out);
            }
            held_out.sort_unstable();
            assert_eq!(held_out, (0..queries as u32).collect::<Vec<_>>());
        }
    }
}
