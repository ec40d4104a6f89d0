//! Ids, triples and splits; distinct queries with their tails; and known answers for filtered ranking.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// An entity: its position in the graph's entity table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntityId(pub u32);

/// A relation: its position in the graph's relation table. Ids from `R` on are the inverses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RelationId(pub u32);

impl EntityId {
    /// Index into a table with one row per entity.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl RelationId {
    /// Index into a table with one row per relation and inverse.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The inverse of this relation in a graph of `relations` relations; `inverse(inverse(r)) == r`.
    ///
    /// ```
    /// use mkg::RelationId;
    /// assert_eq!(RelationId(1).inverse(3), RelationId(4));
    /// assert_eq!(RelationId(4).inverse(3), RelationId(1));
    /// ```
    pub fn inverse(self, relations: usize) -> RelationId {
        let relations = relations as u32;
        RelationId(if self.0 < relations { self.0 + relations } else { self.0 - relations })
    }

    /// The relation without inversion, and whether this id is its inverse.
    pub fn base(self, relations: usize) -> (RelationId, bool) {
        if self.index() < relations { (self, false) } else { (self.inverse(relations), true) }
    }
}

/// A fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Triple {
    /// The subject of the statement.
    pub head: EntityId,
    /// The predicate of the statement; never an inverse.
    pub relation: RelationId,
    /// The object of the statement.
    pub tail: EntityId,
}

impl Triple {
    /// A triple from bare ids.
    pub fn new(head: u32, relation: u32, tail: u32) -> Self {
        Triple { head: EntityId(head), relation: RelationId(relation), tail: EntityId(tail) }
    }

    /// `(h, r, ?)`, whose answer is the tail.
    pub fn tail_query(self) -> Query {
        Query { head: self.head, relation: self.relation }
    }

    /// `(t, r⁻¹, ?)`, whose answer is the head.
    pub fn head_query(self, relations: usize) -> Query {
        Query { head: self.tail, relation: self.relation.inverse(relations) }
    }
}

/// `(head, relation, ?)`, where the relation may be an inverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Query {
    /// The known entity.
    pub head: EntityId,
    /// The relation or inverse.
    pub relation: RelationId,
}

/// A part of the triples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Triples that models learn from.
    Train,
    /// Triples on which choices (early stopping, parameters) are based.
    Valid,
    /// Triples that only evaluation opens.
    Test,
}

impl Split {
    /// All splits.
    pub const ALL: [Split; 3] = [Split::Train, Split::Valid, Split::Test];

    /// `train`, `valid` or `test`.
    pub fn as_str(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Valid => "valid",
            Split::Test => "test",
        }
    }

    /// The split's file in the graph's folder.
    pub fn file(self) -> String {
        format!("{self}.parquet")
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Split {
    type Err = stage::Error;

    fn from_str(text: &str) -> Result<Self, stage::Error> {
        Split::ALL.into_iter().find(|split| split.as_str() == text).ok_or_else(|| {
            stage::Error::usage(format!("`{text}` is not a split")).hint("use train, valid or test")
        })
    }
}

/// The distinct queries of a set of triples, in both directions, each with all its tails.
///
/// A model's scores depend only on the query, so a stage computes once per query and weights the result by its tails.
/// Queries are sorted by head, then relation; a query's position is its index everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuerySet {
    queries: Vec<Query>,
    /// Query `i`'s tails are `tails[starts[i]..starts[i + 1]]`, ascending and distinct.
    starts: Vec<usize>,
    tails: Vec<EntityId>,
}

impl QuerySet {
    /// The queries of `triples` in a graph of `relations` relations; a repeated triple counts once.
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

    /// The set of these queries, each with one tail, in any order; a repeated pair counts once.
    pub fn from_pairs(mut pairs: Vec<(Query, EntityId)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup();
        let mut set = QuerySet { tails: Vec::with_capacity(pairs.len()), ..QuerySet::default() };
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

    /// Tells whether there is no query.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// The number of pairs of query and tail: for a set of triples, twice the number of distinct triples.
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

    /// The range of the pairs of the query at `index` when all pairs of query and tail are numbered query by query.
    pub fn pairs_of(&self, index: usize) -> Range<usize> {
        self.starts[index]..self.starts[index + 1]
    }

    /// All queries in order.
    pub fn queries(&self) -> &[Query] {
        &self.queries
    }
}

/// The known answers of queries over several splits, which filtered ranking leaves out.
#[derive(Clone, Debug, Default)]
pub struct KnownAnswers(QuerySet);

impl KnownAnswers {
    /// Collects the queries of all `splits`' triples in both directions.
    pub fn new<'a>(splits: impl IntoIterator<Item = &'a [Triple]>, relations: usize) -> Self {
        let triples: Vec<Triple> = splits.into_iter().flatten().copied().collect();
        KnownAnswers(QuerySet::new(&triples, relations))
    }

    /// The known answers of `query`, ascending; empty for a query in no split.
    pub fn of(&self, query: Query) -> &[EntityId] {
        self.0.queries.binary_search(&query).map_or(&[], |index| self.0.tails(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    }
}
