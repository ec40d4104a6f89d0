//! A policy that learns beforehand: from what every strategy is worth on triples, before there is a student.
//!
//! REINFORCE samples one action and hears only its reward. Where a reward does not depend on the student, those of all
//! strategies can be had at once, and the gradient of the expected reward is exact ([`Policy::pursue`]). On validation
//! triples it says how well teachers answer what they have not learned; on training triples mostly what they remember.

use kge::{Matrix, row};
use mkg::QuerySet;
use rand::seq::SliceRandom;
use serde::Serialize;
use stage::recipe::Distill;
use stage::{Modality, Result, interrupt, seed};

use crate::policy::Policy;
use crate::strategy::{Strategy, strategies};

/// Queries per step.
const BATCH: usize = 256;
/// One query in so many is held out, to keep the best pass.
const HELD_OUT: usize = 5;

/// Queries to learn from, and those held out.
pub(crate) struct Holdout {
    pub(crate) held_out: Vec<u32>,
    pub(crate) rest: Vec<u32>,
}

impl Holdout {
    /// Draws which of so many queries are held out.
    pub(crate) fn of(queries: usize, seed: u64) -> Holdout {
        let mut rest: Vec<u32> = (0..queries as u32).collect();
        rest.shuffle(&mut seed::generator(seed, "policy/held-out", 0));
        let held_out = rest.split_off(queries - (queries / HELD_OUT).max(1));
        Holdout { held_out, rest }
    }
}

/// Means over the targets of the held-out queries, of what choices are worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Learned {
    /// Passes until the one whose policy was kept.
    pub(crate) passes: usize,
    /// The policy's choices.
    pub(crate) policy: f64,
    /// Always all teachers.
    pub(crate) all: f64,
    /// A strategy drawn evenly.
    pub(crate) random: f64,
    /// The one strategy that is worth most on the queries learned from.
    pub(crate) constant: f64,
    /// Which that is.
    pub(crate) constant_strategy: String,
    /// Every query's best strategy: more is not to be had.
    pub(crate) oracle: f64,
}

/// Queries with what every strategy is worth to each.
struct Lessons<'a> {
    queries: &'a QuerySet,
    /// `(query, strategy)`.
    values: &'a Matrix<f32>,
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

    fn pass(&self, policy: &mut Policy<'_, f32>, queries: &[u32]) -> Result<()> {
        for batch in queries.chunks(BATCH) {
            interrupt::check()?;
            policy.forward(batch);
            let values: Vec<&[f32]> = batch.iter().map(|query| self.values.row(*query as usize)).collect();
            let weights: Vec<f64> = batch.iter().map(|query| self.weight(*query)).collect();
            policy.pursue(&values, &weights);
        }
        Ok(())
    }

    /// What the policy's favourites are worth.
    fn judge(&self, policy: &mut Policy<'_, f32>, queries: &[u32]) -> f64 {
        let favourites = favourites(policy, queries);
        self.mean(queries, |values, i| f64::from(values[favourites[i].index()]))
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

/// Teaches `policy` the `values (query, strategy)` of `queries`, and leaves it as it was after the best pass.
pub(crate) fn learn(
    policy: &mut Policy<'_, f32>,
    queries: &QuerySet,
    values: &Matrix<f32>,
    teachers: &[Modality],
    recipe: &Distill,
    seed: u64,
) -> Result<Learned> {
    let lessons = Lessons { queries, values };
    let Holdout { held_out, rest } = Holdout::of(queries.len(), seed);
    let mut learned = compare(&lessons, &held_out, &rest, teachers);
    let mut best = policy.parameters();
    learned.policy = lessons.judge(policy, &held_out);
    for pass in 1..=recipe.policy_epochs {
        let mut order = rest.clone();
        order.shuffle(&mut seed::generator(seed, "policy/lessons", pass as u64));
        lessons.pass(policy, &order)?;
        let value = lessons.judge(policy, &held_out);
        if value > learned.policy {
            (learned.policy, learned.passes, best) = (value, pass, policy.parameters());
        }
    }
    policy.take_parameters(best);
    Ok(learned)
}

/// What there is to compare a policy with.
fn compare(lessons: &Lessons<'_>, held_out: &[u32], rest: &[u32], teachers: &[Modality]) -> Learned {
    let count = strategies(teachers.len());
    let value_of = |queries: &[u32], k: usize| lessons.mean(queries, |values, _| f64::from(values[k]));
    let on_rest: Vec<f64> = (0..count).map(|k| value_of(rest, k)).collect();
    let constant = row::argmax(&on_rest);
    Learned {
        passes: 0,
        policy: 0.0,
        all: value_of(held_out, Strategy::all(teachers.len()).index()),
        random: (0..count).map(|k| value_of(held_out, k)).sum::<f64>() / count as f64,
        constant: value_of(held_out, constant),
        constant_strategy: Strategy(constant as u16).name(teachers),
        oracle: lessons.mean(held_out, |values, _| f64::from(row::max(values))),
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

    #[test]
    fn a_policy_learns_what_depends_on_the_relation() {
        let queries = queries();
        // The first relation is answered by the first teacher, the second by the second; both together come between.
        let mut values = Matrix::zeros(queries.len(), 3);
        for query in 0..queries.len() {
            let of = if query % 2 == 0 { [0.9, 0.1, 0.6] } else { [0.2, 0.7, 0.6] };
            values.row_mut(query).copy_from_slice(&of);
        }
        let relation = |query: usize, into: &mut [f32]| {
            into.fill(0.0);
            into[query % 2] = 1.0;
        };
        let inputs = vec![Input { name: "relation".into(), block: Box::new(Dense::new(2, relation)) as _ }];
        let mut generator = seed::generator(0, "test", 0);
        let mut policy = Policy::new(inputs, 16, 3, 1e-2, &mut generator);
        let teachers = ["structural", "textual"].map(|name| name.parse().unwrap());
        let recipe = Distill::default();
        let learned = learn(&mut policy, &queries, &values, &teachers, &recipe, 0).unwrap();
        assert!((learned.all - 0.6).abs() < 1e-6 && (learned.constant - 0.6).abs() < 1e-6, "{learned:?}");
        assert_eq!(learned.constant_strategy, "structural+textual");
        assert!((learned.policy - learned.oracle).abs() < 1e-6, "{learned:?}");
        assert_eq!(favourites(&mut policy, &[0, 1, 7]), [Strategy(0), Strategy(1), Strategy(1)]);
    }
}
