//! Filtered ranks.
//!
//! A filtered rank is the rank of a target among all entities that are not other known answers. The target's score
//! comes from the ranked row itself. A score that is not finite is an error, never a rank.

use mkg::{EntityId, KnownAnswers, Query, Triple};
use rayon::prelude::*;
use stage::{Error, Kind, Result};

use crate::{Matrix, Real, Scorer, row};

/// Number of queries scored at a time: few enough to bound the memory, and enough for a fast product.
pub const BLOCK: usize = 512;

/// Rule for candidates whose score equals the target's score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TieRule {
    /// The target ranks before all candidates with the same score.
    Optimistic,
    /// The mean of the other two rules, which is the average over random orders.
    Realistic,
    /// The target ranks behind all candidates with the same score.
    Pessimistic,
}

/// A filtered rank, for every tie rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rank {
    /// Number of candidates with a higher score.
    pub above: u32,
    /// Number of other candidates with the same score.
    pub tied: u32,
}

impl Rank {
    /// The rank, counted from 1; halves occur under the realistic rule.
    ///
    /// ```
    /// use kge::{Rank, TieRule};
    /// let rank = Rank { above: 2, tied: 1 };
    /// assert_eq!([TieRule::Optimistic, TieRule::Realistic, TieRule::Pessimistic].map(|rule| rank.by(rule)), [3.0, 3.5, 4.0]);
    /// ```
    pub fn by(self, rule: TieRule) -> f64 {
        let best = f64::from(self.above) + 1.0;
        match rule {
            TieRule::Optimistic => best,
            TieRule::Realistic => best + f64::from(self.tied) / 2.0,
            TieRule::Pessimistic => best + f64::from(self.tied),
        }
    }
}

/// A rank, and the model's confidence in its first candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Judged {
    /// The target's rank.
    pub rank: Rank,
    /// The softmax probability of the first candidate, over all candidates that the filter leaves.
    pub confidence: f32,
}

/// The rank of `target` in one row of scores, without the other `known` answers.
pub fn rank_in_row(scores: &[f32], target: usize, known: impl Iterator<Item = usize>) -> Rank {
    let score = scores[target];
    let (above, equal) = row::count_above_and_equal(scores, score);
    let mut rank = Rank { above, tied: equal - 1 };
    for other in known.filter(|other| *other != target) {
        rank.above -= u32::from(scores[other] > score);
        rank.tied -= u32::from(scores[other] == score);
    }
    rank
}

/// The ranks of the tail and the head of each triple, in a graph of `relations` relations.
///
/// Each distinct query is scored once. `progress` receives the number of queries of each block. The function is not
/// generic, so that a crate with a lower optimisation level does not compile the loops again.
pub fn rank_triples(
    scorer: &dyn Scorer,
    triples: &[Triple],
    relations: usize,
    known: &KnownAnswers,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<[Rank; 2]>> {
    measure_rows(scorer, triples, relations, known, progress, ranks)
}

/// Ranks like [`rank_triples`], and computes the model's confidence in each query's first candidate in one more pass
/// over each row.
pub fn judge_triples(
    scorer: &dyn Scorer,
    triples: &[Triple],
    relations: usize,
    known: &KnownAnswers,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<[Judged; 2]>> {
    measure_rows(scorer, triples, relations, known, progress, judge)
}

/// Results of `measure`, which returns one result for each target of a query from the query's scores.
fn measure_rows<T: Copy + Default + Send>(
    scorer: &dyn Scorer,
    triples: &[Triple],
    relations: usize,
    known: &KnownAnswers,
    progress: &mut dyn FnMut(usize) -> Result<()>,
    measure: impl Fn(&[f32], &RankedQuery<'_>) -> Vec<T> + Sync,
) -> Result<Vec<[T; 2]>> {
    let mut scores = Matrix::default();
    measure_blocks(triples, relations, known, progress, |asked| {
        scorer.scores(&asked.iter().map(|asked| asked.query).collect::<Vec<_>>(), &mut scores);
        let measured = asked.par_iter().enumerate().map(|(i, asked)| {
            require_finite(row::all_finite(scores.row(i)), asked.query)?;
            Ok(measure(scores.row(i), asked))
        });
        Ok(measured.collect::<Result<Vec<_>>>()?.concat())
    })
}

/// A query with targets to rank.
#[derive(Debug)]
pub struct RankedQuery<'a> {
    /// The query.
    pub query: Query,
    /// The targets.
    pub targets: Vec<EntityId>,
    /// Known answers in ascending order; the filter leaves out all of them but the target itself.
    pub known: &'a [EntityId],
}

/// Results of `measure` for the tail and the head of each triple. `measure` receives at most [`BLOCK`] queries at a
/// time and returns a result for each of their targets, query by query.
pub fn measure_blocks<T: Copy + Default>(
    triples: &[Triple],
    relations: usize,
    known: &KnownAnswers,
    mut progress: impl FnMut(usize) -> Result<()>,
    mut measure: impl FnMut(&[RankedQuery<'_>]) -> Result<Vec<T>>,
) -> Result<Vec<[T; 2]>> {
    let sides = triples.iter().enumerate().flat_map(|(i, triple)| {
        let head = (triple.head_query(relations), i, 1, triple.head);
        [(triple.tail_query(), i, 0, triple.tail), head]
    });
    let mut sides: Vec<(Query, usize, usize, EntityId)> = sides.collect();
    // Puts the targets of each query together, always in the same order.
    sides.sort_unstable();
    let asked = sides.chunk_by(|a, b| a.0 == b.0).map(|same| {
        let query = same[0].0;
        RankedQuery { query, targets: same.iter().map(|side| side.3).collect(), known: known.of(query) }
    });
    let asked: Vec<_> = asked.collect();
    let (mut measures, mut sides) = (vec![[T::default(); 2]; triples.len()], sides.iter());
    for block in asked.chunks(BLOCK) {
        for (measured, &(_, triple, side, _)) in measure(block)?.into_iter().zip(&mut sides) {
            measures[triple][side] = measured;
        }
        progress(block.len())?;
    }
    Ok(measures)
}

/// Returns an error unless all scores of the query are `finite`.
pub fn require_finite(finite: bool, query: Query) -> Result<()> {
    if finite {
        return Ok(());
    }
    let message = format!("scores of query ({}, {}) are not finite", query.head.0, query.relation.0);
    Err(Error::new(Kind::Diverged, message))
}

fn ranks(scores: &[f32], asked: &RankedQuery<'_>) -> Vec<Rank> {
    let known = asked.known.iter().map(|id| id.index());
    asked.targets.iter().map(|target| rank_in_row(scores, target.index(), known.clone())).collect()
}

fn judge(scores: &[f32], asked: &RankedQuery<'_>) -> Vec<Judged> {
    let mut rest = scores.to_vec();
    asked.known.iter().for_each(|id| rest[id.index()] = f32::MASKED);
    let highest = row::max(&rest);
    let rest = [f64::from(highest), f64::from(row::sum_exp(&rest, highest, 1.0))];
    let judged = ranks(scores, asked).into_iter().zip(&asked.targets).map(|(rank, target)| {
        let is_known = asked.known.binary_search(target).is_ok();
        let score = is_known.then(|| f64::from(scores[target.index()]));
        Judged { rank, confidence: confidence(rest, score) }
    });
    judged.collect()
}

/// The softmax probability of the first candidate. `highest` is the best score that the filter leaves, `sum` the sum of
/// exponentials relative to it. `target` is the target's score if the filter left out the target.
pub fn confidence([highest, sum]: [f64; 2], target: Option<f64>) -> f32 {
    let sum = target.map_or(sum, |score| {
        let top = highest.max(score);
        sum * (highest - top).exp() + (score - top).exp()
    });
    (1.0 / sum) as f32
}

/// Mean reciprocal rank over both sides, under the realistic rule; early stopping watches this number.
pub fn mean_reciprocal_rank(ranks: &[[Rank; 2]]) -> f64 {
    let sum: f64 = ranks.iter().flatten().map(|rank| 1.0 / rank.by(TieRule::Realistic)).sum();
    sum / (2 * ranks.len()).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use mkg::RelationId;
    use proptest::prelude::*;
    use serde_json::Value;

    const GOLDEN: &str = include_str!("../../../tests/golden/ranks.json");

    #[test]
    fn ranks_equal_the_reference() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let rows: Vec<Vec<f32>> = serde_json::from_value(golden["scores"].clone()).unwrap();
        let targets: Vec<usize> = serde_json::from_value(golden["target"].clone()).unwrap();
        let known: Vec<Vec<usize>> = serde_json::from_value(golden["known"].clone()).unwrap();
        for (name, rule) in [
            ("optimistic", TieRule::Optimistic),
            ("realistic", TieRule::Realistic),
            ("pessimistic", TieRule::Pessimistic),
        ] {
            let expected: Vec<f64> = serde_json::from_value(golden[name]["ranks"].clone()).unwrap();
            for (i, expected) in expected.into_iter().enumerate() {
                let rank = rank_in_row(&rows[i], targets[i], known[i].iter().copied());
                assert_eq!(rank.by(rule), expected, "{name}, row {i}");
            }
        }
    }

    struct Fixed(Matrix<f32>);

    impl Scorer for Fixed {
        fn entities(&self) -> usize {
            self.0.columns()
        }

        fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) {
            into.resize(queries.len(), self.0.columns());
            for (i, query) in queries.iter().enumerate() {
                into.row_mut(i).copy_from_slice(self.0.row(query.head.index()));
            }
        }
    }

    proptest! {
        /// Compares ranks with the definition: the place of the target among the sorted candidates.
        #[test]
        fn ranks_equal_a_sort(
            scores in prop::collection::vec(-3i8..3, 49),
            triples in prop::collection::vec((0u32..7, 0u32..7), 1..20),
        ) {
            let scorer = Fixed(Matrix::from_values(7, 7, scores.iter().map(|s| f32::from(*s)).collect()));
            let triples: Vec<Triple> = triples.into_iter().map(|(h, t)| Triple::new(h, 0, t)).collect();
            let known = KnownAnswers::new([triples.as_slice()], 1);
            let ranks = rank_triples(&scorer, &triples, 1, &known, &mut |_| Ok(())).unwrap();
            for (triple, ranks) in triples.iter().zip(&ranks) {
                let sides = [(triple.tail_query(), triple.tail), (triple.head_query(1), triple.head)];
                for ((query, target), rank) in sides.into_iter().zip(ranks) {
                    let row = scorer.0.row(query.head.index());
                    let score = row[target.index()];
                    let left = (0..7).filter(|e| *e == target.index() || known.of(query).iter().all(|k| k.index() != *e));
                    let left: Vec<f32> = left.map(|e| row[e]).collect();
                    let above = left.iter().filter(|s| **s > score).count() as f64;
                    let from_above = left.iter().filter(|s| **s >= score).count() as f64;
                    prop_assert_eq!(rank.by(TieRule::Optimistic), above + 1.0);
                    prop_assert_eq!(rank.by(TieRule::Pessimistic), from_above);
                }
            }
        }
    }

    #[test]
    fn confidence_is_of_the_candidates_that_the_filter_leaves() {
        // Entities 1 and 2 are known; weights 1, 4, 5, 2, 2.
        let scores = [1.0f32, 4.0, 5.0, 2.0, 2.0].map(f32::ln);
        let known = [EntityId(1), EntityId(2)];
        let confidence = |target: EntityId, known: &[EntityId]| {
            let query = Query { head: target, relation: RelationId(0) };
            let asked = RankedQuery { query, targets: vec![target], known };
            judge(&scores, &asked)[0].confidence
        };
        for (target, expected) in [(1, 4.0 / 9.0), (2, 0.5), (3, 0.4)] {
            let found = confidence(EntityId(target), &known);
            assert!((found - expected).abs() < 1e-6, "entity {target}: {found}");
        }
        // If all other entities are known answers, the target has probability 1.
        let all: Vec<EntityId> = (0..5).map(EntityId).collect();
        assert_eq!(confidence(EntityId(0), &all), 1.0);
    }

    #[test]
    fn a_score_that_is_not_finite_is_an_error() {
        let scorer = Fixed(Matrix::from_values(2, 2, vec![0.0, f32::NAN, 0.0, 0.0]));
        let triples = [Triple::new(0, 0, 0)];
        let result = rank_triples(&scorer, &triples, 1, &KnownAnswers::default(), &mut |_| Ok(()));
        assert_eq!(result.unwrap_err().kind(), Kind::Diverged);
    }
}
