//! Test triples that train gives away, and those that it says nothing about.

use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

use crate::{EntityId, KnownAnswers, RelationId, Triple};

/// Test triples `(h, r, t)` by what train holds between h and t. All but the last field count test triples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Leakage {
    /// All test triples.
    pub test: usize,
    /// `(t, r', h)` is in train for some r'.
    pub inverse: usize,
    /// `(t, r, h)` is in train: r is symmetric here.
    pub inverse_same_relation: usize,
    /// `(h, r', t)` is in train for some r' other than r.
    pub parallel: usize,
    /// Any of these.
    pub any_link: usize,
    /// Head or tail stands in no training triple.
    pub unseen_entity: usize,
    /// The relation stands in no training triple.
    pub unseen_relation: usize,
    /// The share of test queries (both directions, one per triple and direction) that train has tails for.
    pub queries_seen: f64,
}

/// The relations that train has between two entities.
type Links = HashMap<(EntityId, EntityId), Vec<RelationId>>;

impl Leakage {
    pub(super) fn of(test: &[Triple], train: &[Triple], relations: usize) -> Leakage {
        let mut links = Links::new();
        for triple in train {
            links.entry((triple.head, triple.tail)).or_default().push(triple.relation);
        }
        let seen = super::seen_entities(train);
        let trained: HashSet<RelationId> = train.iter().map(|triple| triple.relation).collect();
        let known = KnownAnswers::new([train], relations);
        let mut leakage = Leakage { test: test.len(), ..Leakage::default() };
        let mut queries_seen = 0;
        for triple in test {
            leakage.count_links(triple, &links);
            let unseen = !seen.contains(&triple.head) || !seen.contains(&triple.tail);
            leakage.unseen_entity += usize::from(unseen);
            leakage.unseen_relation += usize::from(!trained.contains(&triple.relation));
            let queries = [triple.tail_query(), triple.head_query(relations)];
            queries_seen += queries.iter().filter(|query| !known.of(**query).is_empty()).count();
        }
        leakage.queries_seen = queries_seen as f64 / (2 * test.len()).max(1) as f64;
        leakage
    }

    fn count_links(&mut self, triple: &Triple, links: &Links) {
        let between = |a, b| links.get(&(a, b)).map_or(&[][..], Vec::as_slice);
        let back = between(triple.tail, triple.head);
        let parallel = between(triple.head, triple.tail).iter().any(|other| *other != triple.relation);
        self.inverse += usize::from(!back.is_empty());
        self.inverse_same_relation += usize::from(back.contains(&triple.relation));
        self.parallel += usize::from(parallel);
        self.any_link += usize::from(parallel || !back.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_link_worked_by_hand() {
        let train = [
            Triple::new(1, 0, 0), // back, same relation
            Triple::new(2, 1, 0), // back, other relation
            Triple::new(0, 1, 3), // parallel
        ];
        let test = [
            Triple::new(0, 0, 1),
            Triple::new(0, 0, 2),
            Triple::new(0, 0, 3),
            Triple::new(2, 1, 1), // none, but train has a tail for (2, 1, ?)
            Triple::new(4, 2, 0), // unseen entity and relation
        ];
        let expected = Leakage {
            test: 5,
            inverse: 2,
            inverse_same_relation: 1,
            parallel: 1,
            any_link: 3,
            unseen_entity: 1,
            unseen_relation: 1,
            queries_seen: 0.1,
        };
        assert_eq!(Leakage::of(&test, &train, 3), expected);
    }

    #[test]
    fn no_test_triples_are_no_trap() {
        assert_eq!(Leakage::of(&[], &[], 1), Leakage::default());
    }
}
