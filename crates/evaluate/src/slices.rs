//! Parts of a split that are worth looking at alone: relations, relation types, entities never trained on.

use kge::{Rank, TieRule};
use mkg::{EntityId, RelationId, Split, Triple};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

use crate::graph::Graph;
use crate::metrics::{Direction, Figures};

/// Average from which on an argument of a relation counts as many.
const MANY: f64 = 1.5;

/// The type of each relation by what the `train` triples show; `unknown` for relations they lack.
///
/// By the rule of Bordes et al. (2013), "Translating Embeddings for Modeling Multi-relational Data", section 4.2:
/// an argument is `N` if the relation has on average at least 1.5 of it for each of the other argument, else `1`.
/// `1-N` has one head per tail and many tails per head.
///
/// ```
/// use dsom_evaluate::slices::relation_types;
/// use mkg::Triple;
/// assert_eq!(relation_types(&[Triple::new(0, 0, 1), Triple::new(0, 0, 2)], 2), ["1-N", "unknown"]);
/// ```
pub fn relation_types(train: &[Triple], relations: usize) -> Vec<&'static str> {
    let triples = distinct(relations, train.iter().map(|t| (t.relation, (t.head, t.tail))));
    let heads = distinct(relations, train.iter().map(|t| (t.relation, t.head)));
    let tails = distinct(relations, train.iter().map(|t| (t.relation, t.tail)));
    let kind = |relation: usize| {
        let heads_per_tail = triples[relation] as f64 / tails[relation] as f64;
        let tails_per_head = triples[relation] as f64 / heads[relation] as f64;
        match (triples[relation], heads_per_tail >= MANY, tails_per_head >= MANY) {
            (0, ..) => "unknown",
            (_, false, false) => "1-1",
            (_, false, true) => "1-N",
            (_, true, false) => "N-1",
            (_, true, true) => "N-N",
        }
    };
    (0..relations).map(kind).collect()
}

/// Counts the different things that each relation comes with.
fn distinct<T: std::hash::Hash + Eq>(
    relations: usize,
    pairs: impl Iterator<Item = (RelationId, T)>,
) -> Vec<usize> {
    let mut counts = vec![0; relations];
    let pairs: HashSet<(RelationId, T)> = pairs.collect();
    pairs.iter().for_each(|(relation, _)| counts[relation.index()] += 1);
    counts
}

/// The figures of one slice, both directions pooled, under the realistic rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Number of triples in the slice.
    pub triples: usize,
}

impl Slice {
    fn of(ranks: &[[Rank; 2]]) -> Slice {
        let pooled = ranks.iter().flat_map(|ranks| Direction::BOTH.map(|direction| direction.of(ranks)));
        Slice { figures: Figures::of(pooled, TieRule::Realistic), triples: ranks.len() }
    }
}

/// All slices of a split; a slice without triples is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slices {
    /// Relations, by key.
    pub relation: BTreeMap<String, Slice>,
    /// Relation types, as [`relation_types`] names them.
    pub relation_type: BTreeMap<String, Slice>,
    /// `unseen`: head or tail has no training triple. `seen`: both have one.
    pub entity: BTreeMap<String, Slice>,
    /// `repeated`: the triple stands in an earlier split, too (train before valid before test). `new`: in none.
    pub overlap: BTreeMap<String, Slice>,
}

/// Types of relations and entities seen, from the training triples.
pub struct Slicer<'a> {
    graph: &'a Graph,
    relation_types: Vec<&'static str>,
    seen: Vec<bool>,
}

impl<'a> Slicer<'a> {
    /// Looks through the training triples.
    pub fn new(graph: &'a Graph) -> Self {
        let train = graph.triples(Split::Train);
        let mut seen = vec![false; graph.entities()];
        train.iter().flat_map(|t| [t.head, t.tail]).for_each(|entity| seen[entity.index()] = true);
        Slicer { graph, relation_types: relation_types(train, graph.relations()), seen }
    }

    /// Groups the triples of `split` by what they are, with their `ranks`.
    pub fn slices(&self, split: Split, ranks: &[[Rank; 2]]) -> Slices {
        let triples = self.graph.triples(split);
        let earlier: HashSet<&Triple> = self.graph.before(split).collect();
        let relations = &self.graph.vocabulary.relations;
        let seen = |entity: EntityId| self.seen[entity.index()];
        Slices {
            relation: group(triples, ranks, |triple| &relations[triple.relation.index()].key),
            relation_type: group(triples, ranks, |triple| self.relation_types[triple.relation.index()]),
            entity: group(triples, ranks, |t| if seen(t.head) && seen(t.tail) { "seen" } else { "unseen" }),
            overlap: group(triples, ranks, |t| if earlier.contains(t) { "repeated" } else { "new" }),
        }
    }
}

fn group<'a>(
    triples: &[Triple],
    ranks: &[[Rank; 2]],
    name: impl Fn(&Triple) -> &'a str,
) -> BTreeMap<String, Slice> {
    let mut groups: BTreeMap<&str, Vec<[Rank; 2]>> = BTreeMap::new();
    for (triple, ranks) in triples.iter().zip(ranks) {
        groups.entry(name(triple)).or_default().push(*ranks);
    }
    groups.into_iter().map(|(name, ranks)| (name.to_owned(), Slice::of(&ranks))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mkg::{Entity, Relation, Vocabulary};

    /// Relation 0: one capital each. 1: a country's cities. 2: a city's country. 3: borders. 4: never trained.
    fn train() -> Vec<Triple> {
        let triples = [
            (0, 0, 3),
            (1, 0, 4),
            (0, 0, 3),
            (0, 1, 3),
            (0, 1, 4),
            (1, 1, 5),
            (3, 2, 0),
            (4, 2, 0),
            (5, 2, 1),
            (0, 3, 1),
            (0, 3, 2),
            (1, 3, 2),
            (1, 3, 1),
        ];
        triples.map(|(h, r, t)| Triple::new(h, r, t)).to_vec()
    }

    #[test]
    fn relation_types_follow_the_averages() {
        assert_eq!(relation_types(&train(), 5), ["1-1", "1-N", "N-1", "N-N", "unknown"]);
    }

    #[test]
    fn slices_pool_directions_and_leave_out_the_empty() {
        let entity = |i: u32| Entity { key: format!("e{i}"), ..Entity::default() };
        let relation = |i: u32| Relation { key: format!("r{i}"), name: None };
        let vocabulary =
            Vocabulary { entities: (0..8).map(entity).collect(), relations: (0..5).map(relation).collect() };
        let test = vec![Triple::new(0, 0, 1), Triple::new(1, 0, 2), Triple::new(7, 4, 0)];
        let rank = |above: u32| Rank { above, tied: 0 };
        let ranks = [[rank(0), rank(1)], [rank(0), rank(0)], [rank(3), rank(3)]];
        let graph = Graph::new(vocabulary, [train(), vec![test[0]], test.clone()]);
        let slices = Slicer::new(&graph).slices(Split::Test, &ranks);
        let found = |slices: &BTreeMap<String, Slice>| -> Vec<(String, usize, f64)> {
            slices.iter().map(|(name, slice)| (name.clone(), slice.triples, slice.figures.mr)).collect()
        };
        assert_eq!(found(&slices.relation), [("r0".into(), 2, 1.25), ("r4".into(), 1, 4.0)]);
        assert_eq!(found(&slices.relation_type), [("1-1".into(), 2, 1.25), ("unknown".into(), 1, 4.0)]);
        assert_eq!(found(&slices.entity), [("seen".into(), 2, 1.25), ("unseen".into(), 1, 4.0)]);
        assert_eq!(found(&slices.overlap), [("new".into(), 2, 2.5), ("repeated".into(), 1, 1.5)]);
    }
}
