//! The content of a graph, and what is odd about it.
//!
//! All figures are of the splits as published; [`Audit::validation`] says what became of them. Most oddities of
//! benchmark graphs (a validation split copied from train, test triples that are inverses of training triples,
//! test entities never trained) do not show in any score, so they are counted here once and put into words.

mod leakage;
mod neighbours;
mod splits;
mod warnings;

use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;

pub use leakage::Leakage;
pub use neighbours::NeighbourCounts;
pub use splits::{Overlap, SplitCounts};

use crate::graph::Entity;
use crate::raw::{Dataset, ImageReport, SplitTriples, TextReport, ValidationReport};
use crate::{Split, Triple};

/// The file of the audit in the graph's folder.
pub const FILE: &str = "audit.json";
/// A relation with fewer training triples is rare.
pub const RARE: usize = 5;

/// Counts and findings about a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// The dataset's name.
    pub name: String,
    /// Entities.
    pub entities: usize,
    /// Relations, without inverses.
    pub relations: usize,
    /// The published splits, in the order train, valid, test.
    pub splits: Vec<SplitCounts>,
    /// Triples that stand in two published splits, and validation triples that stand in no other.
    pub overlaps: Vec<Overlap>,
    /// The content of train.
    pub train: Train,
    /// Queries and their known tails in train, both directions.
    pub neighbours: NeighbourCounts,
    /// The largest number of known answers of a query over all published splits.
    pub known_answers_max: usize,
    /// The part of the test split that train gives away, or knows nothing about.
    pub leakage: Leakage,
    /// Texts and images.
    pub coverage: Coverage,
    /// The validation that is used, and the reason.
    pub validation: ValidationReport,
    /// Everything to know before trusting a score, in words.
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
    /// Images, counted once per entity they belong to.
    pub images: usize,
    /// The fate of every text source.
    pub sources: Vec<TextReport>,
    /// The rest of the image folder.
    pub image_folder: Option<ImageReport>,
}

impl Audit {
    /// Audits the published splits of `dataset`, whose triples were divided into `parts`.
    pub fn new(dataset: &Dataset, parts: &SplitTriples) -> Audit {
        let (entities, relations) = (dataset.vocabulary.entities.len(), dataset.vocabulary.relations.len());
        let (train, published) = (dataset.triples(Split::Train), &dataset.splits);
        let mut audit = Audit {
            name: dataset.name.clone(),
            entities,
            relations,
            splits: published.iter().map(|(split, published)| SplitCounts::of(*split, published)).collect(),
            overlaps: splits::overlaps(published),
            train: Train::of(train, relations),
            neighbours: NeighbourCounts::of(train, relations),
            known_answers_max: neighbours::known_answers_max(published, relations),
            leakage: Leakage::of(dataset.triples(Split::Test), train, relations),
            coverage: Coverage::of(dataset),
            validation: parts.validation.clone(),
            warnings: Vec::new(),
        };
        audit.warnings = warnings::of(&audit, dataset);
        audit
    }

    /// Writes `audit.json` into `folder`.
    pub fn write(&self, folder: &Path) -> stage::Result<()> {
        stage::files::write_json(&folder.join(FILE), self)
    }
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

/// A share in percent with so many digits; what is not nothing, and not all, does not read as if it were.
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

fn seen_entities(triples: &[Triple]) -> HashSet<crate::EntityId> {
    triples.iter().flat_map(|triple| [triple.head, triple.tail]).collect()
}

impl Coverage {
    fn of(dataset: &Dataset) -> Coverage {
        let entities = &dataset.vocabulary.entities;
        let count = |has: fn(&Entity) -> bool| entities.iter().filter(|entity| has(entity)).count();
        Coverage {
            names: count(|entity| entity.name.is_some()),
            descriptions: count(|entity| entity.description.is_some()),
            captions: count(|entity| entity.caption.is_some()),
            relation_names: dataset.vocabulary.relations.iter().filter(|r| r.name.is_some()).count(),
            entities_with_images: count(|entity| !entity.images.is_empty()),
            images: entities.iter().map(|entity| entity.images.len()).sum(),
            sources: dataset.texts.clone(),
            image_folder: dataset.images.clone(),
        }
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
        let lines: Vec<usize> = audit.splits.iter().map(|counts| counts.lines).collect();
        let triples: Vec<usize> = audit.splits.iter().map(|counts| counts.triples).collect();
        assert_eq!((lines, triples), (vec![6, 4, 2], vec![5, 3, 2]));
        assert_eq!(audit.splits[0].self_loops, 1);
        assert_eq!((audit.overlaps[0].lines, audit.overlaps[0].triples), (3, 2));
        assert_eq!(audit.train, Train { entities: 3, relations: 1, rare_relations: 1 });
        assert_eq!((audit.leakage.inverse, audit.leakage.unseen_entity), (1, 1));
        let first = "67 % of the published validation triples stand in train: 10 % of train is held out instead, \
                     and the published validation split is not used";
        assert_eq!(audit.warnings[0], first);
        assert!(
            audit.warnings.contains(&"1 lines of train repeat a triple; each triple is kept once".to_owned())
        );
        assert!(
            audit.warnings.iter().any(|warning| warning.contains("relation without any training triple"))
        );
    }

    #[test]
    fn the_file_is_readable_json() {
        let audit = audited(&[("train", TRAIN), ("valid", "c\tr\tb\n"), ("test", "b\tr\ta\n")]);
        let dir = tempfile::tempdir().unwrap();
        audit.write(dir.path()).unwrap();
        assert_eq!(stage::files::read_json::<Audit>(&dir.path().join(FILE)).unwrap(), audit);
        let value: serde_json::Value = stage::files::read_json(&dir.path().join(FILE)).unwrap();
        assert_eq!(value["validation"]["used"], "published");
        assert_eq!(value["overlaps"][1]["within"], "test");
        assert_eq!(value["neighbours"]["directed_triples"], 10);
    }
}
