//! Distinct queries with their tails, and the filter of known answers.

use std::collections::HashMap;
use std::ops::Range;

use crate::{EntityId, Query, Triple};

/// The distinct queries of a set of triples, both directions, each with all its tails.
///
/// A model's scores depend on the query alone, so work is done once per query and weighted by its tails.
/// Queries are sorted by head, then relation; a query's position is its index everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySet {
    queries: Vec<Query>,
    /// Query `i`'s tails are `tails[starts[i]..starts[i + 1]]`, ascending and distinct.
    starts: Vec<usize>,
    tails: Vec<EntityId>,
}

impl QuerySet {
    /// The queries of `triples` in a graph of `relations` relations; a triple given twice counts once.
    ///
    /// ```
    /// use mkg::{EntityId, QuerySet, Triple};
    /// let queries = QuerySet::new(&[Triple::new(0, 0, 2), Triple::new(0, 0, 1)], 1);
    /// assert_eq!(queries.len(), 3); // (0, r, ?), (1, r⁻¹, ?), (2, r⁻¹, ?)
    /// assert_eq!(queries.tails(0), [EntityId(1), EntityId(2)]);
    /// ```
    pub fn new(triples: &[Triple], relations: usize) -> Self {
        let pairs =
            triples.iter().flat_map(|t| [(t.tail_query(), t.tail), (t.head_query(relations), t.head)]);
        QuerySet::from_pairs(pairs.collect())
    }

    /// The set of given queries with a tail each, in any order; a pair given twice counts once.
    pub fn from_pairs(mut pairs: Vec<(Query, EntityId)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup();
        let mut set =
            QuerySet { queries: Vec::new(), starts: Vec::new(), tails: Vec::with_capacity(pairs.len()) };
        for (query, tail) in pairs {
            if set.queries.last() != Some(&query) {
                set.queries.push(query);
                set.starts.push(set.tails.len());
            }
            set.tails.push(tail);
        }
        set.starts.push(set.tails.len());
        set
    }

    /// The number of distinct queries.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// The number of pairs of query and tail: twice the number of distinct triples.
    pub fn pairs(&self) -> usize {
        self.tails.len()
    }

    /// The query at `index`.
    pub fn query(&self, index: usize) -> Query {
        self.queries[index]
    }

    /// The tails of the query at `index`, ascending.
    pub fn tails(&self, index: usize) -> &[EntityId] {
        &self.tails[self.pairs_of(index)]
    }

    /// The pairs of the query at `index`, of all pairs of query and tail counted query by query.
    pub fn pairs_of(&self, index: usize) -> Range<usize> {
        self.starts[index]..self.starts[index + 1]
    }

    /// All queries in order.
    pub fn queries(&self) -> &[Query] {
        &self.queries
    }
}

/// The known answers of queries over several splits: what filtered ranking leaves out.
#[derive(Clone, Debug, Default)]
pub struct KnownAnswers {
    answers: HashMap<Query, Vec<EntityId>>,
}

impl KnownAnswers {
    /// Collects both directions of all `splits`' triples.
    pub fn new<'a>(splits: impl IntoIterator<Item = &'a [Triple]>, relations: usize) -> Self {
        let mut answers: HashMap<Query, Vec<EntityId>> = HashMap::new();
        for triple in splits.into_iter().flatten() {
            answers.entry(triple.tail_query()).or_default().push(triple.tail);
            answers.entry(triple.head_query(relations)).or_default().push(triple.head);
        }
        for known in answers.values_mut() {
            known.sort_unstable();
            known.dedup();
        }
        KnownAnswers { answers }
    }

    /// The known answers of `query`, ascending; none for a query never seen.
    pub fn of(&self, query: Query) -> &[EntityId] {
        self.answers.get(&query).map_or(&[], Vec::as_slice)
    }

    /// The largest number of known answers any query has.
    pub fn largest(&self) -> usize {
        self.answers.values().map(Vec::len).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RelationId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_triple_is_found_from_both_ends(raw in prop::collection::vec((0u32..20, 0u32..3, 0u32..20), 0..80)) {
            let triples: Vec<Triple> = raw.into_iter().map(|(h, r, t)| Triple::new(h, r, t)).collect();
            let set = QuerySet::new(&triples, 3);
            let known = KnownAnswers::new([triples.as_slice()], 3);
            let find = |query: Query, tail| {
                let index = set.queries().binary_search(&query).unwrap();
                set.tails(index).binary_search(&tail).is_ok() && known.of(query) == set.tails(index)
            };
            for triple in &triples {
                prop_assert!(find(triple.tail_query(), triple.tail));
                prop_assert!(find(triple.head_query(3), triple.head));
            }
            let distinct: std::collections::HashSet<_> = triples.iter().collect();
            prop_assert_eq!(set.pairs(), 2 * distinct.len());
        }

        #[test]
        fn an_inverse_of_an_inverse_is_the_relation(r in 0u32..10) {
            prop_assert_eq!(RelationId(r).inverse(5).inverse(5), RelationId(r));
        }
    }
}
