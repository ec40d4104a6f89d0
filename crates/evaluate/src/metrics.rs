//! Mean ranks and hits of a split and of its interesting parts: relations, relation types, and entities without
//! training triples.

use kge::{Judged, Rank, TieRule};
use mkg::{EntityId, RelationId, Split, Triple};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use crate::graph::Graph;

/// The smallest average at which an argument of a relation counts as many.
const MANY: f64 = 1.5;

/// The place of a triple that is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The tail of `(h, r, ?)`.
    Tail,
    /// The head of `(?, r, t)`.
    Head,
}

impl Direction {
    /// Both directions, in the order of [`kge::rank_triples`].
    pub const BOTH: [Direction; 2] = [Direction::Tail, Direction::Head];

    /// The word `tail` or `head`.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Tail => "tail",
            Direction::Head => "head",
        }
    }

    /// The rank of this direction among the two ranks of a triple.
    pub(crate) fn of(self, [tail, head]: [Judged; 2]) -> Judged {
        match self {
            Direction::Tail => tail,
            Direction::Head => head,
        }
    }
}

/// The figures of a set of ranks; all except the mean rank are fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Mean reciprocal rank.
    pub mrr: f64,
    /// Mean rank.
    pub mr: f64,
    /// The share of ranks of at most 1.
    pub hits_at_1: f64,
    /// The share of ranks of at most 3.
    pub hits_at_3: f64,
    /// The share of ranks of at most 10.
    pub hits_at_10: f64,
}

impl Figures {
    /// The figures of ranks under a tie rule; zeros if there are no ranks.
    fn of(ranks: impl Iterator<Item = Rank>, rule: TieRule) -> Figures {
        let ranks: Vec<f64> = ranks.map(|rank| rank.by(rule)).collect();
        Figures {
            mrr: mean(&ranks, |rank| 1.0 / rank),
            mr: mean(&ranks, |rank| rank),
            hits_at_1: mean(&ranks, |rank| f64::from(rank <= 1.0)),
            hits_at_3: mean(&ranks, |rank| f64::from(rank <= 3.0)),
            hits_at_10: mean(&ranks, |rank| f64::from(rank <= 10.0)),
        }
    }
}

fn mean(ranks: &[f64], value: impl Fn(f64) -> f64) -> f64 {
    ranks.iter().map(|rank| value(*rank)).sum::<f64>() / ranks.len().max(1) as f64
}

/// The figures under all tie rules; the realistic ones stand at the top.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllRules {
    /// Under the realistic rule.
    #[serde(flatten)]
    pub realistic: Figures,
    /// The number of triples that were ranked.
    pub triples: usize,
    /// Under the optimistic rule.
    pub optimistic: Figures,
    /// Under the pessimistic rule.
    pub pessimistic: Figures,
}

impl AllRules {
    /// The figures of triples in some `directions`, pooled.
    pub(crate) fn of(judged: &[[Judged; 2]], directions: &[Direction]) -> AllRules {
        let pooled =
            judged.iter().flat_map(|sides| directions.iter().map(|direction| direction.of(*sides).rank));
        AllRules {
            realistic: Figures::of(pooled.clone(), TieRule::Realistic),
            triples: judged.len(),
            optimistic: Figures::of(pooled.clone(), TieRule::Optimistic),
            pessimistic: Figures::of(pooled, TieRule::Pessimistic),
        }
    }
}

/// The figures of one slice, both directions pooled, under the realistic rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// The number of triples in the slice.
    pub triples: usize,
}

/// All slices of a split; a slice without triples is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slices {
    /// Relations, by key.
    pub relation: BTreeMap<String, Slice>,
    /// Relation types: `1-1`, `1-N`, `N-1`, `N-N`, or `unknown`.
    pub relation_type: BTreeMap<String, Slice>,
    /// `unseen`: head or tail has no training triple. `seen`: both have one.
    pub entity: BTreeMap<String, Slice>,
    /// `repeated`: the triple is also in an earlier split (train before valid before test). `new`: it is in none.
    pub overlap: BTreeMap<String, Slice>,
}

/// The types of relations and the seen entities, both from the training triples.
pub(crate) struct Slicer<'a> {
    graph: &'a Graph,
    relation_types: Vec<&'static str>,
    seen: Vec<bool>,
}

impl<'a> Slicer<'a> {
    pub(crate) fn new(graph: &'a Graph) -> Self {
        let train = graph.triples(Split::Train);
        let mut seen = vec![false; graph.vocabulary.entities.len()];
        train.iter().flat_map(|t| [t.head, t.tail]).for_each(|entity| seen[entity.index()] = true);
        Slicer { graph, relation_types: relation_types(train, graph.relations()), seen }
    }

    /// Groups the triples of `split`, whose ranks are `judged`, into slices.
    pub(crate) fn slices(&self, split: Split, judged: &[[Judged; 2]]) -> Slices {
        let triples = self.graph.triples(split);
        let earlier = Split::ALL.into_iter().take_while(|earlier| *earlier != split);
        let earlier: HashSet<&Triple> = earlier.flat_map(|split| self.graph.triples(split)).collect();
        let relations = &self.graph.vocabulary.relations;
        let seen = |entity: EntityId| self.seen[entity.index()];
        Slices {
            relation: group(triples, judged, |triple| &relations[triple.relation.index()].key),
            relation_type: group(triples, judged, |triple| self.relation_types[triple.relation.index()]),
            entity: group(triples, judged, |t| if seen(t.head) && seen(t.tail) { "seen" } else { "unseen" }),
            overlap: group(triples, judged, |t| if earlier.contains(t) { "repeated" } else { "new" }),
        }
    }
}

fn group<'a>(
    triples: &[Triple],
    judged: &[[Judged; 2]],
    name: impl Fn(&Triple) -> &'a str,
) -> BTreeMap<String, Slice> {
    let mut groups: BTreeMap<&str, Vec<[Judged; 2]>> = BTreeMap::new();
    for (triple, sides) in triples.iter().zip(judged) {
        groups.entry(name(triple)).or_default().push(*sides);
    }
    let slices = groups.into_iter().map(|(name, judged)| {
        let figures = Figures::of(judged.iter().flatten().map(|side| side.rank), TieRule::Realistic);
        (name.to_owned(), Slice { figures, triples: judged.len() })
    });
    slices.collect()
}

/// The type of each relation in the `train` triples; `unknown` for relations that `train` lacks.
///
/// The rule is from Bordes et al. (2013), "Translating Embeddings for Modeling Multi-relational Data", section 4.2: an
/// argument is `N` if the relation has on average at least 1.5 entities there for each entity of the other argument,
/// else `1`. `1-N` has one head per tail and many tails per head.
fn relation_types(train: &[Triple], relations: usize) -> Vec<&'static str> {
    let triples = distinct(train, relations, |t| (t.head, t.tail));
    let (heads, tails) = (distinct(train, relations, |t| t.head), distinct(train, relations, |t| t.tail));
    let types = triples.iter().zip(heads).zip(tails).map(|((triples, heads), tails)| {
        match (*triples, triples / tails >= MANY, triples / heads >= MANY) {
            (0.0, ..) => "unknown",
            (_, false, false) => "1-1",
            (_, false, true) => "1-N",
            (_, true, false) => "N-1",
            (_, true, true) => "N-N",
        }
    });
    types.collect()
}

/// Counts the distinct values of `of` for each relation.
fn distinct<T: Hash + Eq>(train: &[Triple], relations: usize, of: impl Fn(&Triple) -> T) -> Vec<f64> {
    let pairs: HashSet<(RelationId, T)> = train.iter().map(|triple| (triple.relation, of(triple))).collect();
    let mut counts = vec![0.0; relations];
    pairs.iter().for_each(|(relation, _)| counts[relation.index()] += 1.0);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use kge::rank::rank_in_row;
    use serde_json::Value;

    const GOLDEN: &str = include_str!("../../../tests/golden/ranks.json");

    fn field<T: serde::de::DeserializeOwned>(golden: &Value, name: &str) -> T {
        serde_json::from_value(golden[name].clone()).unwrap()
    }

    #[test]
    fn figures_equal_the_reference_under_every_rule() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let rows: Vec<Vec<f32>> = field(&golden, "scores");
        let targets: Vec<usize> = field(&golden, "target");
        let known: Vec<Vec<usize>> = field(&golden, "known");
        let rank = |i: usize| rank_in_row(&rows[i], targets[i], known[i].iter().copied());
        let rules = [
            ("optimistic", TieRule::Optimistic),
            ("realistic", TieRule::Realistic),
            ("pessimistic", TieRule::Pessimistic),
        ];
        for (name, rule) in rules {
            let figures = Figures::of((0..rows.len()).map(rank), rule);
            let found = [figures.mrr, figures.mr, figures.hits_at_1, figures.hits_at_3, figures.hits_at_10];
            for (found, key) in found.into_iter().zip(["MRR", "MR", "H@1", "H@3", "H@10"]) {
                let expected = golden[name][key].as_f64().unwrap();
                assert!((found - expected).abs() < 1e-12, "{name} {key}: {found}, expected {expected}");
            }
        }
    }

    fn judged(above: u32, tied: u32) -> Judged {
        Judged { rank: Rank { above, tied }, confidence: 0.5 }
    }

    #[test]
    fn directions_are_pooled_by_rank_and_counted_by_triple() {
        let of = |directions: &[Direction]| AllRules::of(&[[judged(0, 0), judged(3, 2)]], directions);
        assert_eq!(of(&[Direction::Tail]).realistic.mr, 1.0);
        assert_eq!(of(&[Direction::Head]).realistic.mr, 5.0);
        let both = of(&Direction::BOTH);
        assert_eq!(
            (both.triples, both.realistic.mr, both.optimistic.mr, both.pessimistic.mr),
            (1, 3.0, 2.5, 3.5)
        );
    }

    /// Relation 0: one capital each. 1: a country's cities. 2: a city's country. 3: borders. 4: no training triple.
    fn train() -> Vec<Triple> {
        let pairs = [
            &[(0, 3), (1, 4), (0, 3)][..],
            &[(0, 3), (0, 4), (1, 5)],
            &[(3, 0), (4, 0), (5, 1)],
            &[(0, 1), (0, 2), (1, 2), (1, 1)],
        ];
        let triples =
            (0..).zip(pairs).flat_map(|(r, pairs)| pairs.iter().map(move |(h, t)| Triple::new(*h, r, *t)));
        triples.collect()
    }

    #[test]
    fn relation_types_follow_the_averages() {
        assert_eq!(relation_types(&train(), 5), ["1-1", "1-N", "N-1", "N-N", "unknown"]);
    }

    #[test]
    fn slices_pool_directions_and_leave_out_the_empty() {
        let test = vec![Triple::new(0, 0, 1), Triple::new(1, 0, 2), Triple::new(7, 4, 0)];
        let sides = [[0, 1], [0, 0], [3, 3]].map(|sides| sides.map(|above| judged(above, 0)));
        let graph = Graph::unnamed(8, 5, [train(), vec![test[0]], test]);
        let slices = Slicer::new(&graph).slices(Split::Test, &sides);
        let found = |slices: &BTreeMap<String, Slice>| -> Vec<(String, usize, f64)> {
            slices.iter().map(|(name, slice)| (name.clone(), slice.triples, slice.figures.mr)).collect()
        };
        assert_eq!(found(&slices.relation), [("r0".into(), 2, 1.25), ("r4".into(), 1, 4.0)]);
        assert_eq!(found(&slices.relation_type), [("1-1".into(), 2, 1.25), ("unknown".into(), 1, 4.0)]);
        assert_eq!(found(&slices.entity), [("seen".into(), 2, 1.25), ("unseen".into(), 1, 4.0)]);
        assert_eq!(found(&slices.overlap), [("new".into(), 2, 2.5), ("repeated".into(), 1, 1.5)]);
    }
}
