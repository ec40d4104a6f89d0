//! A policy that learns from the worth of every strategy on the validation triples (Table 4's "RC on val.").
//!
//! REINFORCE samples one action and sees only its reward. Here no reward depends on a student, so all strategies'
//! rewards are known, and the gradient of the expected reward is exact ([`Policy::pursue`]). A strategy's worth for a
//! query is the mean reciprocal rank of the query's targets under the mean of the strategy's scores (Eq. 7).
//!
//! Validation splits are small, so one held-out part says little. A cross-validation of `K` folds therefore judges
//! every query once, by a policy that has not learned from it. It compares the policy with the constant choice `s`, the
//! strategy with the highest worth in the other folds:
//!
//! ```text
//! gain = Σ_q n_q (v(q, π_p(q)) - v(q, s)) / Σ_q n_q      error² = Σ_q n_q² (d_q - gain)² / (Σ_q n_q)²
//! ```
//!
//! where `v(q, ·)` is the worth of a strategy, `n_q` the number of the query's targets, `d_q` the difference in the
//! brackets and `p` the number of passes with the highest mean worth. If the gain exceeds its standard error, the
//! policy learns `p` passes on all queries; if not, the strategy with the highest worth over all queries is always
//! taken. `p` is chosen on the same queries that measure the gain, so the gain is slightly too high.

use dsom_distill::combine::Sources;
use dsom_distill::likelihood::Triples;
use dsom_distill::policy::Policy;
use dsom_distill::{Strategy, worth};
use kge::rank::rank_in_row;
use kge::{Matrix, TieRule, row};
use mkg::EntityId;
use rand::seq::SliceRandom;
use recipe::EnsemblePolicy;
use serde::Serialize;
use stage::{Modality, Result, interrupt, seed};

use crate::Holdout;
use crate::weights::{TeacherWeights, always, inputs};

/// The number of queries per step.
const BATCH: usize = 256;

/// The course of the learning: the mean worth of choices over the queries' targets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Learned {
    /// True if the policy is kept; otherwise the constant choice is kept.
    pub(crate) kept: bool,
    /// The number of passes of the best policy.
    pub(crate) passes: usize,
    /// The worth of that policy's choices for queries that it did not learn from.
    pub(crate) policy: f64,
    /// The worth of the constant choice: for each query, the best single strategy of the other folds.
    pub(crate) constant: f64,
    /// The standard error of the difference between `policy` and `constant`.
    pub(crate) standard_error: f64,
    /// The strategy with the highest worth over all queries.
    pub(crate) constant_strategy: String,
    /// The worth of always choosing all teachers.
    pub(crate) all: f64,
    /// The worth of every query's best strategy: no choice can reach more.
    pub(crate) oracle: f64,
}

/// Teaches a policy if cross-validation finds it useful; for `relations` relations, inverses included.
pub(crate) fn learn(
    triples: &Triples<'_>,
    keys: &EnsemblePolicy,
    relations: usize,
    seed: u64,
) -> Result<(TeacherWeights, Learned)> {
    let (queries, teachers) = (&triples.queries, triples.labels.teachers());
    let sources = Sources::new(&triples.labels, queries.len());
    let every = Strategy::every(teachers.len());
    let values = worth::table(&sources, queries.len(), &every, |query, of_query, strategy, scratch| {
        of_query.combine(strategy, 1.0, scratch);
        let known = triples.known.of(queries.query(query));
        reciprocal_rank(&scratch.combined, queries.tails(query), known)
    })?;
    let vectors: Vec<Matrix<f32>> = (0..teachers.len()).map(|m| triples.labels.vectors(m)).collect();
    let weights = (0..queries.len()).map(|query| queries.tails(query).len() as f64).collect();
    let lessons = ValuedQueries { vectors: &vectors, values, weights, keys, seed };
    let (learned, constant) = lessons.judge(teachers)?;
    let Learned { policy, constant: best, standard_error, all, oracle, .. } = &learned;
    tracing::info!(
        "policy: its choices for queries it has not seen are worth {policy:.4}, all teachers {all:.4}, the best \
         constant choice {best:.4} (standard error of the difference {standard_error:.4}), the best \
         strategies {oracle:.4}"
    );
    let weights = if learned.kept {
        TeacherWeights::Policy(lessons.taught(learned.passes)?.parameters())
    } else {
        let name = &learned.constant_strategy;
        tracing::warn!("policy: no better than a constant choice: {name} is always taken");
        TeacherWeights::ByRelation(always(constant, relations, teachers.len()))
    };
    Ok((weights, learned))
}

/// The mean reciprocal of the filtered ranks of `targets`; each rank leaves out the other `known` answers.
fn reciprocal_rank(scores: &[f32], targets: &[EntityId], known: &[EntityId]) -> f64 {
    let ranks = targets.iter().map(|target| {
        let known = known.iter().map(|id| id.index());
        rank_in_row(scores, target.index(), known).by(TieRule::Realistic)
    });
    ranks.map(f64::recip).sum::<f64>() / targets.len() as f64
}

/// Queries and the worth of every strategy for them.
struct ValuedQueries<'a> {
    /// Each teacher's query vectors `(query, width)`.
    vectors: &'a [Matrix<f32>],
    /// The worth `(query, strategy)`.
    values: Matrix<f32>,
    /// The number of targets of each query, which is its weight.
    weights: Vec<f64>,
    keys: &'a EnsemblePolicy,
    seed: u64,
}

impl<'a> ValuedQueries<'a> {
    fn untaught(&self) -> Policy<'a, f32> {
        let mut generator = seed::generator(self.seed, "ensemble/initial", 0);
        let (hidden, rate) = (self.keys.hidden, self.keys.learning_rate);
        Policy::new(inputs(self.vectors), hidden, self.values.columns(), rate, &mut generator)
    }

    /// A policy after `passes` passes over all queries.
    fn taught(&self, passes: usize) -> Result<Policy<'a, f32>> {
        let (mut policy, everything) = (self.untaught(), self.everything());
        (1..=passes).try_for_each(|number| self.pass(&mut policy, &everything, number))?;
        Ok(policy)
    }

    fn everything(&self) -> Vec<usize> {
        (0..self.values.rows()).collect()
    }

    /// The mean of `value(query)` over the targets of `queries`.
    fn mean(&self, queries: &[usize], value: impl Fn(usize) -> f64) -> f64 {
        let weighted = queries.iter().map(|query| self.weights[*query] * value(*query));
        weighted.sum::<f64>() / queries.iter().map(|query| self.weights[*query]).sum::<f64>()
    }

    /// Makes pass number `number` over `queries`, in its own random order.
    fn pass(&self, policy: &mut Policy<'_, f32>, queries: &[usize], number: usize) -> Result<()> {
        let mut order = queries.to_vec();
        order.shuffle(&mut seed::generator(self.seed, "ensemble/lessons", number as u64));
        for batch in order.chunks(BATCH) {
            interrupt::check()?;
            policy.forward(batch);
            let values: Vec<&[f32]> = batch.iter().map(|query| self.values.row(*query)).collect();
            let weights: Vec<f64> = batch.iter().map(|query| self.weights[*query]).collect();
            policy.pursue(&values, &weights);
        }
        Ok(())
    }

    /// The worth of choices for queries that they were not learned from: those of the policy after each pass from 0,
    /// `(pass, query)`, and those of the constant strategy.
    fn cross_validate(&self) -> Result<(Matrix<f32>, Vec<f32>)> {
        let (count, passes) = (self.values.rows(), self.keys.epochs);
        let (mut of_policy, mut of_constant) = (Matrix::zeros(passes + 1, count), vec![0.0; count]);
        for Holdout { held_out, rest } in Holdout::folds(count, self.keys.folds, self.seed) {
            let (mut policy, constant) = (self.untaught(), self.best_constant(&rest));
            held_out.iter().for_each(|query| of_constant[*query] = self.values.row(*query)[constant.0]);
            for number in 0..=passes {
                if number > 0 {
                    self.pass(&mut policy, &rest, number)?;
                }
                policy.forward(&held_out);
                for (row, query) in held_out.iter().enumerate() {
                    of_policy.row_mut(number)[*query] = self.values.row(*query)[policy.favourite(row).0];
                }
            }
        }
        Ok((of_policy, of_constant))
    }

    /// The strategy with the highest worth for `queries`; the first of equal ones.
    fn best_constant(&self, queries: &[usize]) -> Strategy {
        let strategies = 0..self.values.columns();
        let values = strategies.map(|k| self.mean(queries, |query| f64::from(self.values.row(query)[k])));
        Strategy(row::argmax(&values.collect::<Vec<_>>()))
    }

    /// Compares the policy with a constant choice, and returns the comparison and the best constant strategy.
    fn judge(&self, teachers: &[Modality]) -> Result<(Learned, Strategy)> {
        let (everything, (of_policy, of_constant)) = (self.everything(), self.cross_validate()?);
        let constant = self.best_constant(&everything);
        let mean = |worth: &[f32]| self.mean(&everything, |query| f64::from(worth[query]));
        let means: Vec<f64> = (0..of_policy.rows()).map(|pass| mean(of_policy.row(pass))).collect();
        let passes = row::argmax(&means);
        let both = of_policy.row(passes).iter().zip(&of_constant);
        let differences = both.map(|(policy, constant)| f64::from(*policy) - f64::from(*constant));
        let differences: Vec<f64> = differences.collect();
        let gain = self.mean(&everything, |query| differences[query]);
        let squares = differences.iter().zip(&self.weights).map(|(x, weight)| (weight * (x - gain)).powi(2));
        let standard_error = squares.sum::<f64>().sqrt() / self.weights.iter().sum::<f64>();
        let last = self.values.columns() - 1;
        let learned = Learned {
            kept: gain > standard_error,
            passes,
            policy: means[passes],
            constant: mean(&of_constant),
            standard_error,
            constant_strategy: constant.name(teachers),
            all: self.mean(&everything, |query| f64::from(self.values.row(query)[last])),
            oracle: self.mean(&everything, |query| f64::from(row::max(self.values.row(query)))),
        };
        Ok((learned, constant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERIES: usize = 400;

    /// Learns the worth `of(query)` of three strategies; query vectors show only whether a query's number is even.
    fn learned(of: impl Fn(usize) -> [f32; 3]) -> (Learned, Vec<Strategy>) {
        let seen = |query: usize| if query.is_multiple_of(2) { [1.0, 0.0] } else { [0.0, 1.0] };
        let vectors = [Matrix::from_values(QUERIES, 2, (0..QUERIES).flat_map(seen).collect())];
        let values = Matrix::from_values(QUERIES, 3, (0..QUERIES).flat_map(of).collect());
        let keys = EnsemblePolicy { hidden: 16, learning_rate: 1e-2, ..EnsemblePolicy::default() };
        let lessons =
            ValuedQueries { vectors: &vectors, values, weights: vec![1.0; QUERIES], keys: &keys, seed: 0 };
        let (learned, _) =
            lessons.judge(&["structural", "textual"].map(|name| name.parse().unwrap())).unwrap();
        let mut policy = lessons.taught(learned.passes).unwrap();
        policy.forward(&[0, 1, 7]);
        (learned, (0..3).map(|row| policy.favourite(row)).collect())
    }

    #[test]
    fn a_policy_learns_what_depends_on_the_query() {
        // The first strategy is best for even queries, the second for odd ones; the third has a middle worth.
        let of = |query: usize| if query.is_multiple_of(2) { [0.9, 0.1, 0.6] } else { [0.2, 0.7, 0.6] };
        let (learned, chosen) = learned(of);
        assert!((learned.all - 0.6).abs() < 1e-6 && (learned.constant - 0.6).abs() < 1e-6, "{learned:?}");
        assert!(learned.kept && learned.constant_strategy == "structural+textual", "{learned:?}");
        assert!((learned.policy - learned.oracle).abs() < 1e-6, "{learned:?}");
        assert_eq!(chosen, [Strategy(0), Strategy(1), Strategy(1)]);
    }

    #[test]
    fn what_is_no_better_than_a_constant_choice_is_not_kept() {
        // Random noise that a policy cannot see, and a strategy that is slightly better on average.
        let noise = |query: usize| (query as u64 * 2_654_435_761 % 1000) as f32 / 1000.0;
        let (learned, _) = learned(|query| [noise(query), noise(query + 400), noise(query + 800) + 0.2]);
        assert!(!learned.kept && learned.constant_strategy == "structural+textual", "{learned:?}");
    }

    #[test]
    fn reciprocal_ranks_worked_out_by_hand() {
        // Entity 2 is a known answer.
        let ids = |ids: &[u32]| ids.iter().copied().map(EntityId).collect::<Vec<_>>();
        let worth = |targets: &[u32]| reciprocal_rank(&[1.0, 4.0, 5.0, 2.0], &ids(targets), &ids(&[1, 2]));
        assert_eq!((worth(&[1]), worth(&[1, 0]), worth(&[3])), (1.0, (1.0 + 1.0 / 2.0) / 2.0, 1.0));
    }
}
