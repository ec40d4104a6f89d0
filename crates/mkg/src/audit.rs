//! The content of a graph, and its oddities.
//!
//! All figures describe the splits as published; [`Audit::validation`] describes the validation that is used. Most
//! oddities of benchmark graphs (a validation split copied from train, test triples that are inverses of training
//! triples, test entities never trained) do not show in any score, so the audit counts them and puts them into words.

mod warnings;

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

use crate::raw::{Dataset, ImageReport, PublishedSplit, SplitTriples, TextReport, ValidationReport};
use crate::{EntityId, Query, QuerySet, RelationId, Split, Triple, Vocabulary};

/// The file of the audit in the graph's folder.
pub const FILE: &str = "audit.json";
/// The number of training triples below which a relation is rare.
const RARE: usize = 5;

/// Counts and findings about a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// The dataset's name.
    pub name: String,
    /// Number of entities.
    pub entities: usize,
    /// Number of relations, without inverses.
    pub relations: usize,
    /// The published splits, in the order train, valid, test.
    pub splits: Vec<SplitCounts>,
    /// Triples that are in two published splits, and validation triples that are in no other split.
    pub overlaps: Vec<Overlap>,
    /// The content of train.
    pub train: Train,
    /// Queries and their known tails in train, both directions.
    pub neighbours: NeighbourCounts,
    /// The largest number of known answers of a query over all published splits.
    pub known_answers_max: usize,
    /// The part of the test split that train gives away, and the part that train does not cover.
    pub leakage: Leakage,
    /// Coverage by texts and images.
    pub coverage: Coverage,
    /// The validation that is used, and the reason.
    pub validation: ValidationReport,
    /// Everything that a reader must know before trusting a score, in words.
    pub warnings: Vec<String>,
}

/// The content of train.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Train {
    /// Entities with a training triple.
    pub entities: usize,
    /// Relations with a training triple.
    pub relations: usize,
    /// Relations with fewer than five training triples, including those with none.
    pub rare_relations: usize,
}

/// One published split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCounts {
    /// The split.
    pub split: Split,
    /// Lines of the split's file, without a count line.
    pub lines: usize,
    /// Distinct triples.
    pub triples: usize,
    /// Lines that repeat the triple of an earlier line; later stages do not see them.
    pub duplicate_lines: usize,
    /// Triples whose head is also their tail.
    pub self_loops: usize,
}

/// The triples that a published split shares with others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// The split whose triples are counted.
    pub of: Split,
    /// The other split that also has these triples; without one, the triples are in no other split.
    pub within: Option<Split>,
    /// Such lines of `of`.
    pub lines: usize,
    /// Such distinct triples of `of`.
    pub triples: usize,
}

/// Distinct queries (both directions) and `N`, the number of a query's known tails in train.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NeighbourCounts {
    /// Distinct queries.
    pub queries: usize,
    /// Twice the training triples: the number of computations without grouping by query.
    pub directed_triples: usize,
    /// Queries divided by directed triples.
    pub ratio: f64,
    /// The largest N.
    pub max: usize,
    /// The largest N of a query whose relation is not an inverse.
    pub forward_max: usize,
    /// The mean N.
    pub mean: f64,
    /// The mean N over triples: each query counts once for each of its tails.
    pub mean_per_triple: f64,
    /// The median N (for an even number of queries, the lower of the two middle values).
    pub median: usize,
    /// The share of queries with N = 1.
    pub single: f64,
}

/// Test triples `(h, r, t)` by the triples of train between h and t. All fields except the last count test triples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Leakage {
    /// All test triples.
    pub test: usize,
    /// Triples with `(t, r', h)` in train for some r'.
    pub inverse: usize,
    /// Triples with `(t, r, h)` in train: r is symmetric here.
    pub inverse_same_relation: usize,
    /// Triples with `(h, r', t)` in train for some r' other than r.
    pub parallel: usize,
    /// Triples with any of these links.
    pub any_link: usize,
    /// Triples whose head or tail is in no training triple.
    pub unseen_entity: usize,
    /// Triples whose relation is in no training triple.
    pub unseen_relation: usize,
    /// The share of test queries (both directions, one per triple and direction) with at least one tail in train.
    pub queries_seen: f64,
}

/// Numbers of entities with texts and images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Entities with a name.
    pub names: usize,
    /// Entities with a description.
    pub descriptions: usize,
    /// Entities with a caption.
    pub captions: usize,
    /// Relations with a name.
    pub relation_names: usize,
    /// Entities with at least one image.
    pub entities_with_images: usize,
    /// Images, counted once for each entity that has them.
    pub images: usize,
    /// The results of every text source.
    pub sources: Vec<TextReport>,
    /// The content of the image folder other than the entities' images.
    pub image_folder: Option<ImageReport>,
}

impl Audit {
    /// Audits the published splits of `dataset`; `parts` are the triples of each split in use.
    pub fn new(dataset: &Dataset, parts: &SplitTriples) -> Audit {
        let (entities, relations) = (dataset.vocabulary.entities.len(), dataset.vocabulary.relations.len());
        let (train, published) = (dataset.triples(Split::Train), &dataset.splits);
        let all: Vec<Triple> = published.values().flat_map(|split| &split.triples).copied().collect();
        let mut audit = Audit {
            name: dataset.name.clone(),
            entities,
            relations,
            splits: published.iter().map(SplitCounts::of).collect(),
            overlaps: overlaps(published),
            train: Train::of(train, relations),
            neighbours: NeighbourCounts::of(train, relations),
            known_answers_max: NeighbourCounts::of(&all, relations).max,
            leakage: Leakage::of(dataset.triples(Split::Test), train, relations),
            coverage: Coverage::of(dataset),
            validation: parts.validation.clone(),
            warnings: Vec::new(),
        };
        audit.warnings = warnings::of(&audit, dataset);
        audit
    }
}

impl SplitCounts {
    fn of((split, published): (&Split, &PublishedSplit)) -> SplitCounts {
        let (lines, triples) = (published.lines.len(), published.triples.len());
        let self_loops = published.triples.iter().filter(|triple| triple.head == triple.tail).count();
        SplitCounts { split: *split, lines, triples, duplicate_lines: lines - triples, self_loops }
    }
}

/// The overlaps of valid with train, with test and with neither, and of test with train.
fn overlaps(published: &BTreeMap<Split, PublishedSplit>) -> Vec<Overlap> {
    use Split::{Test, Train, Valid};
    let sets: BTreeMap<Split, HashSet<&Triple>> =
        published.iter().map(|(split, published)| (*split, published.triples.iter().collect())).collect();
    let stands = |triple: &Triple, split| sets.get(&split).is_some_and(|set| set.contains(triple));
    let overlap = |(of, within): (Split, Option<Split>)| {
        let counts = |triple: &&Triple| match within {
            Some(other) => stands(triple, other),
            None => !stands(triple, Train) && !stands(triple, Test),
        };
        let PublishedSplit { lines, triples } = published.get(&of)?;
        let [lines, triples] = [lines, triples].map(|triples| triples.iter().filter(counts).count());
        Some(Overlap { of, within, lines, triples })
    };
    let pairs = [(Valid, Some(Train)), (Valid, Some(Test)), (Valid, None), (Test, Some(Train))];
    pairs.into_iter().filter_map(overlap).collect()
}

impl Train {
    fn of(train: &[Triple], relations: usize) -> Train {
        let mut uses = vec![0; relations];
        train.iter().for_each(|triple| uses[triple.relation.index()] += 1);
        Train {
            entities: seen_entities(train).len(),
            relations: uses.iter().filter(|uses| **uses > 0).count(),
            rare_relations: uses.iter().filter(|uses| **uses < RARE).count(),
        }
    }
}

impl NeighbourCounts {
    fn of(train: &[Triple], relations: usize) -> NeighbourCounts {
        let set = QuerySet::new(train, relations);
        let (queries, pairs) = (set.len(), set.pairs());
        let mut sizes: Vec<usize> = (0..queries).map(|index| set.tails(index).len()).collect();
        let forward = (0..queries).filter(|index| set.query(*index).relation.index() < relations);
        let forward_max = forward.map(|index| sizes[index]).max().unwrap_or(0);
        sizes.sort_unstable();
        NeighbourCounts {
            queries,
            directed_triples: pairs,
            ratio: share(queries, pairs),
            max: sizes.last().copied().unwrap_or(0),
            forward_max,
            mean: share(pairs, queries),
            mean_per_triple: share(sizes.iter().map(|n| n * n).sum(), pairs),
            median: sizes.get(queries.saturating_sub(1) / 2).copied().unwrap_or(0),
            single: share(sizes.iter().filter(|n| **n == 1).count(), queries),
        }
    }
}

impl Leakage {
    fn of(test: &[Triple], train: &[Triple], relations: usize) -> Leakage {
        let mut links: HashMap<(EntityId, EntityId), Vec<RelationId>> = HashMap::new();
        for triple in train {
            links.entry((triple.head, triple.tail)).or_default().push(triple.relation);
        }
        let between = |head, tail| links.get(&(head, tail)).map_or(&[][..], Vec::as_slice);
        let back = |t: &Triple| between(t.tail, t.head);
        let is_parallel = |t: &Triple| between(t.head, t.tail).iter().any(|other| *other != t.relation);
        let entities = seen_entities(train);
        let trained: HashSet<RelationId> = train.iter().map(|triple| triple.relation).collect();
        let queries_of = |triple: &Triple| [triple.tail_query(), triple.head_query(relations)];
        let queries: HashSet<Query> = train.iter().flat_map(queries_of).collect();
        let queries_seen = test.iter().flat_map(queries_of).filter(|query| queries.contains(query)).count();
        let count = |holds: &dyn Fn(&&Triple) -> bool| test.iter().filter(holds).count();
        Leakage {
            test: test.len(),
            inverse: count(&|t| !back(t).is_empty()),
            inverse_same_relation: count(&|t| back(t).contains(&t.relation)),
            parallel: count(&|t| is_parallel(t)),
            any_link: count(&|t| is_parallel(t) || !back(t).is_empty()),
            unseen_entity: count(&|t| !entities.contains(&t.head) || !entities.contains(&t.tail)),
            unseen_relation: count(&|t| !trained.contains(&t.relation)),
            queries_seen: share(queries_seen, 2 * test.len()),
        }
    }
}

impl Coverage {
    fn of(dataset: &Dataset) -> Coverage {
        let Vocabulary { entities, relations } = &dataset.vocabulary;
        Coverage {
            names: entities.iter().filter(|entity| entity.name.is_some()).count(),
            descriptions: entities.iter().filter(|entity| entity.description.is_some()).count(),
            captions: entities.iter().filter(|entity| entity.caption.is_some()).count(),
            relation_names: relations.iter().filter(|relation| relation.name.is_some()).count(),
            entities_with_images: entities.iter().filter(|entity| !entity.images.is_empty()).count(),
            images: entities.iter().map(|entity| entity.images.len()).sum(),
            sources: dataset.texts.clone(),
            image_folder: dataset.images.clone(),
        }
    }
}

fn seen_entities(triples: &[Triple]) -> HashSet<EntityId> {
    triples.iter().flat_map(|triple| [triple.head, triple.tail]).collect()
}

/// The share of a part in the whole; 0 if the whole is 0.
pub fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// The count whose share of the whole is nearest to `share`.
pub fn part(share: f64, whole: usize) -> usize {
    (share * whole as f64).round() as usize
}

/// A share in percent with `digits` decimals; only an exact 0 reads `0 %`, and only an exact 1 reads `100 %`.
///
/// ```
/// use mkg::audit::percent;
/// assert_eq!([0.876, 0.0013, 0.0, 0.9999, 1.0].map(|share| percent(share, 0)), ["88 %", "under 1 %", "0 %", "over 99 %", "100 %"]);
/// assert_eq!(percent(0.0013, 1), "0.1 %");
/// ```
pub fn percent(share: f64, digits: usize) -> String {
    let least = 0.1f64.powi(digits as i32);
    match 100.0 * share {
        percent if percent > 0.0 && percent < least / 2.0 => format!("under {least:.digits$} %"),
        percent if percent < 100.0 && percent > 100.0 - least / 2.0 => {
            format!("over {:.digits$} %", 100.0 - least)
        }
        percent => format!("{percent:.digits$} %"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::raw::Plan;
    use recipe::Import;

    pub(crate) fn audited(files: &[(&str, &str)]) -> Audit {
        let dir = crate::fixture::folder(files);
        let import = Import::default();
        let dataset = Dataset::read(&Plan::resolve(dir.path(), &import).unwrap()).unwrap();
        Audit::new(&dataset, &SplitTriples::choose(&dataset, &import, 0).unwrap())
    }

    const TRAIN: &str = "a\tr\tb\nb\tr\tc\nc\tr\ta\na\tr\tc\na\tr\ta\na\tr\ta\n";

    #[test]
    fn a_copied_validation_split_is_told_in_words() {
        let valid = "a\tr\tb\nb\tr\tc\nb\tr\tc\nc\tr\tb\n";
        let audit = audited(&[("train", TRAIN), ("valid", valid), ("test", "b\tr\ta\nd\ts\ta\n")]);
        let counts = audit.splits.iter().map(|counts| (counts.lines, counts.triples));
        assert!(counts.eq([(6, 5), (4, 3), (2, 2)]));
        assert_eq!(audit.splits[0].self_loops, 1);
        assert_eq!((audit.overlaps[0].lines, audit.overlaps[0].triples), (3, 2));
        assert_eq!(audit.train, Train { entities: 3, relations: 1, rare_relations: 1 });
        assert_eq!((audit.leakage.inverse, audit.leakage.unseen_entity), (1, 1));
        let first = "67 % of the published validation triples stand in train: 10 % of train is held out instead, \
                     and the published validation split is not used";
        assert_eq!(audit.warnings[0], first);
        for said in [
            "1 lines of train repeat a triple; each triple is kept once",
            "a relation without any training triple",
        ] {
            assert!(audit.warnings.iter().any(|warning| warning.contains(said)), "{said}");
        }
    }

    #[test]
    fn the_file_is_readable_json() {
        let audit = audited(&[("train", TRAIN), ("valid", "c\tr\tb\n"), ("test", "b\tr\ta\n")]);
        let value = serde_json::to_value(&audit).unwrap();
        assert_eq!(value["validation"]["used"], "published");
        assert_eq!(value["overlaps"][1]["within"], "test");
        assert_eq!(value["neighbours"]["directed_triples"], 10);
        assert_eq!(serde_json::from_value::<Audit>(value).unwrap(), audit);
    }

    #[test]
    fn a_star_worked_by_hand() {
        // Entity 0 has three tails and each tail has one head: sizes 3, 1, 1, 1.
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
        assert_eq!(Leakage::of(&[], &[], 1), Leakage::default());
    }
}
