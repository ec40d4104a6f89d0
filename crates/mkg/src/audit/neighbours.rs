//! Queries of train and how many tails they have.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::raw::PublishedSplit;
use crate::{KnownAnswers, QuerySet, Split, Triple};

/// Distinct queries (both directions) and `N`, the number of a query's known tails in train.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NeighbourCounts {
    /// Distinct queries.
    pub queries: usize,
    /// Twice the training triples: what would be computed without grouping by query.
    pub directed_triples: usize,
    /// Queries by directed triples.
    pub ratio: f64,
    /// The largest N.
    pub max: usize,
    /// The largest N of a query whose relation is no inverse.
    pub forward_max: usize,
    /// The mean N.
    pub mean: f64,
    /// The mean N over triples: each query counts once for each of its tails.
    pub mean_per_triple: f64,
    /// The median N (of an even number, the lower of the middle two).
    pub median: usize,
    /// The share of queries with N = 1.
    pub single: f64,
}

impl NeighbourCounts {
    pub(super) fn of(train: &[Triple], relations: usize) -> NeighbourCounts {
        let set = QuerySet::new(train, relations);
        if set.is_empty() {
            return NeighbourCounts::default();
        }
        let mut sizes: Vec<usize> = (0..set.len()).map(|index| set.tails(index).len()).collect();
        let forward = (0..set.len()).filter(|index| set.query(*index).relation.index() < relations);
        let forward_max = forward.map(|index| sizes[index]).max().unwrap_or(0);
        sizes.sort_unstable();
        let (queries, pairs) = (set.len() as f64, set.pairs() as f64);
        NeighbourCounts {
            queries: set.len(),
            directed_triples: set.pairs(),
            ratio: queries / pairs,
            max: sizes[sizes.len() - 1],
            forward_max,
            mean: pairs / queries,
            mean_per_triple: sizes.iter().map(|n| n * n).sum::<usize>() as f64 / pairs,
            median: sizes[(sizes.len() - 1) / 2],
            single: sizes.iter().filter(|n| **n == 1).count() as f64 / queries,
        }
    }
}

/// The largest number of known answers of a query over all splits.
pub(super) fn known_answers_max(published: &BTreeMap<Split, PublishedSplit>, relations: usize) -> usize {
    KnownAnswers::new(published.values().map(|split| split.triples.as_slice()), relations).largest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_worked_by_hand() {
        // 0 has three tails; each tail has one head: sizes 3, 1, 1, 1.
        let star = [Triple::new(0, 0, 1), Triple::new(0, 0, 2), Triple::new(0, 0, 3)];
        let expected = NeighbourCounts {
            queries: 4,
            directed_triples: 6,
            ratio: 4.0 / 6.0,
            max: 3,
            forward_max: 3,
            mean: 1.5,
            mean_per_triple: 2.0,
            median: 1,
            single: 0.75,
        };
        assert_eq!(NeighbourCounts::of(&star, 1), expected);
    }
}
