//! MoSE's boosting inference (Zhao et al., 2022; RankBoost, Freund et al., 2003): weights from the scores' order only.
//!
//! For each relation, a validation target and another candidate are a pair. A teacher has the pair right (`+1`) if it
//! scores the target higher, else wrong (`-1`). Pairs have weights `D`, at first equal over each target's candidates.
//! In each round, the best teacher that has no weight yet gets
//!
//! ```text
//! α_m = ½ ln(Σ D of right pairs / Σ D of wrong pairs)        D ← D · exp(-α_m · (±1)), normalised
//! ```
//!
//! so the next teacher is judged by the pairs that earlier ones have wrong. As in MoSE, a relation with fewer than
//! [`FEWEST`] targets keeps the average. Unlike MoSE, pairs with filtered candidates do not count, a teacher that is
//! wrong more often than right gets no weight instead of a negative one, and the weights have sum 1, so that scores
//! keep their size. A pair's `D` depends on the set of teachers that have it right, so it is kept for `2^M` sets.

use dsom_distill::likelihood::Triples;
use kge::{Matrix, Real, row};
use mkg::EntityId;
use stage::Result;

/// The number of targets that a relation needs for its own weights.
const FEWEST: usize = 10;
/// The number that is added to both sums, as in MoSE, so that a teacher without a mistake has a finite weight.
const EPSILON: f64 = 1e-10;

/// Learns weights `(relation, teacher)` for `relations` relations, inverses included, from these queries.
pub(crate) fn learn(triples: &Triples<'_>, relations: usize, queries: &[usize]) -> Result<Matrix<f32>> {
    let teachers = triples.labels.teachers().len();
    let of_queries = triples.visit(queries, |query, scores, _| {
        let mut tally = Tally::new(teachers);
        let known = triples.known.of(triples.queries.query(query));
        triples.queries.tails(query).iter().for_each(|target| tally.count(scores, *target, known));
        tally
    })?;
    let mut tallies = vec![Tally::new(teachers); relations];
    for (query, tally) in queries.iter().zip(&of_queries) {
        let sum = &mut tallies[triples.queries.query(*query).relation.index()];
        sum.targets += tally.targets;
        row::add_scaled(&mut sum.pairs, 1.0, &tally.pairs);
    }
    let weights = tallies.iter().flat_map(|tally| tally.weights(teachers)).map(f32::from_f64);
    Ok(Matrix::from_values(relations, teachers, weights.collect()))
}

/// The pairs of targets and candidates, counted by the set of teachers that have them right.
#[derive(Clone, Debug, PartialEq)]
struct Tally {
    targets: usize,
    /// The initial `D` of the pairs that exactly a set of teachers has right; bit `m` of its index is teacher `m`.
    pairs: Vec<f64>,
}

impl Tally {
    fn new(teachers: usize) -> Tally {
        Tally { targets: 0, pairs: vec![0.0; 1 << teachers] }
    }

    /// Adds a target's pairs from the teachers' `scores (teacher, entity)`; the sum of their `D` is 1.
    fn count(&mut self, scores: &Matrix<f32>, target: EntityId, known: &[EntityId]) {
        let mut counts = vec![0u32; self.pairs.len()];
        for entity in 0..scores.columns() {
            counts[right(scores, target.index(), entity)] += 1;
        }
        // The target forms no pair with itself or with another answer.
        for answer in known.iter().filter(|answer| **answer != target).chain([&target]) {
            counts[right(scores, target.index(), answer.index())] -= 1;
        }
        let total: u32 = counts.iter().sum();
        self.targets += 1;
        for (pairs, count) in self.pairs.iter_mut().zip(counts) {
            *pairs += f64::from(count) / f64::from(total.max(1));
        }
    }

    /// The weights of the teachers, with sum 1.
    fn weights(&self, teachers: usize) -> Vec<f64> {
        let even = vec![1.0 / teachers as f64; teachers];
        if self.targets < FEWEST {
            return even;
        }
        let (mut pairs, mut alphas) = (self.pairs.clone(), vec![None; teachers]);
        while let Some((best, alpha)) = (0..teachers)
            .filter(|m| alphas[*m].is_none())
            .map(|m| (m, alpha(&pairs, m)))
            .reduce(|a, b| if b.1 > a.1 { b } else { a })
        {
            alphas[best] = Some(alpha.max(0.0));
            for (set, pairs) in pairs.iter_mut().enumerate() {
                *pairs *= if set >> best & 1 == 1 { (-alpha).exp() } else { alpha.exp() };
            }
            let total: f64 = pairs.iter().sum();
            pairs.iter_mut().for_each(|pairs| *pairs /= total);
        }
        let alphas: Vec<f64> = alphas.into_iter().map(Option::unwrap_or_default).collect();
        let total: f64 = alphas.iter().sum();
        if total > 0.0 { alphas.iter().map(|alpha| alpha / total).collect() } else { even }
    }
}

/// The set of teachers that score the target higher than another entity.
fn right(scores: &Matrix<f32>, target: usize, entity: usize) -> usize {
    (0..scores.rows()).fold(0, |set, m| set | usize::from(scores.row(m)[target] > scores.row(m)[entity]) << m)
}

/// The `α` of a teacher under the current `D` of the pairs.
fn alpha(pairs: &[f64], teacher: usize) -> f64 {
    let (mut right, mut wrong) = (EPSILON, EPSILON);
    for (set, pairs) in pairs.iter().enumerate() {
        *(if set >> teacher & 1 == 1 { &mut right } else { &mut wrong }) += pairs;
    }
    0.5 * (right / wrong).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(targets: usize, pairs: [f64; 4]) -> Tally {
        Tally { targets, pairs: pairs.to_vec() }
    }

    #[test]
    fn pairs_are_counted_by_who_has_them_right() {
        // Entity 1 is the target and 3 another answer. Both teachers are right against 0, only the second against 2.
        let scores = Matrix::from_values(2, 4, vec![0.0, 1.0, 2.0, 9.0, 0.0, 3.0, 1.0, 9.0]);
        let mut found = Tally::new(2);
        found.count(&scores, EntityId(1), &[EntityId(1), EntityId(3)]);
        assert_eq!(found, tally(1, [0.0, 0.0, 0.5, 0.5]));
        // A tie does not count as right.
        let mut found = Tally::new(2);
        found.count(&Matrix::zeros(2, 3), EntityId(0), &[EntityId(0)]);
        assert_eq!(found, tally(1, [1.0, 0.0, 0.0, 0.0]));
    }

    #[test]
    fn weights_worked_out_by_hand() {
        // Of 10 pairs, no teacher has 1 right, only the first has 4, only the second has 1, and both have 4.
        let weights = tally(20, [1.0, 4.0, 1.0, 4.0]).weights(2);
        // First: 8 right, 2 wrong. Then pairs are 1, 4, 1, 4 times 2, 1/2, 2, 1/2: second: 4 right, 4 wrong.
        assert!((weights[0] - 1.0).abs() < 1e-9 && weights[1].abs() < 1e-9, "{weights:?}");
        // If the second makes different mistakes, it gets a weight: its pairs weigh more after the first round.
        let weights = tally(20, [1.0, 4.0, 3.0, 4.0]).weights(2);
        let first = 0.5 * (8.0f64 / 4.0).ln();
        let (down, up) = ((-first).exp(), first.exp());
        let second = 0.5 * ((3.0 * up + 4.0 * down) / (up + 4.0 * down)).ln();
        assert!((weights[0] - first / (first + second)).abs() < 1e-6, "{weights:?}");
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn who_is_wrong_is_not_heard_and_few_targets_say_nothing() {
        assert_eq!(tally(20, [0.0, 9.0, 0.5, 0.0]).weights(2), [1.0, 0.0]);
        assert_eq!(tally(9, [0.0, 9.0, 1.0, 0.0]).weights(2), [0.5, 0.5]);
        // Both teachers are wrong more often than right.
        assert_eq!(tally(20, [9.0, 1.0, 1.0, 0.0]).weights(2), [0.5, 0.5]);
    }
}
