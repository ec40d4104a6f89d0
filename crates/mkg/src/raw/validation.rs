//! The choice of validation triples: the published ones, or a part of train.

use rand::Rng;
use recipe::{Import, Validation};
use serde::{Deserialize, Serialize};
use stage::{Error, Result};
use std::collections::HashSet;

use super::dataset::Dataset;
use crate::audit::{part, percent, share};
use crate::{Split, Triple, Vocabulary};

/// The triples that later stages see, each once per split.
#[derive(Clone, Debug)]
pub struct SplitTriples {
    /// Triples that models learn from.
    pub train: Vec<Triple>,
    /// Triples on which choices are based.
    pub valid: Vec<Triple>,
    /// Triples that only evaluation opens, as published.
    pub test: Vec<Triple>,
    /// The source of the validation triples.
    pub validation: ValidationReport,
}

/// The validation that is used, and the reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationReport {
    /// The validation that the recipe requests.
    pub asked: Validation,
    /// The validation that is used: `published` or `holdout:FRACTION`.
    pub used: Validation,
    /// The reason for this validation.
    pub reason: String,
    /// The share of the published validation triples that are also in train or test.
    pub published_overlap: Option<f64>,
    /// Number of remaining training triples.
    pub train: usize,
    /// Number of validation triples in use.
    pub valid: usize,
    /// Number of validation triples that were wanted.
    pub wanted: usize,
}

impl SplitTriples {
    /// Chooses the validation triples that `import` requests. A holdout draws with the run's seed and never takes the
    /// last training triple of an entity or relation. With a holdout, the published split is not used.
    pub fn choose(dataset: &Dataset, import: &Import, seed: u64) -> Result<SplitTriples> {
        let overlap = published_overlap(dataset);
        let (used, reason) = decide(import, overlap)?;
        let (train, valid, wanted) = match used {
            Validation::Holdout(fraction) => hold_out(dataset, fraction, seed)?,
            Validation::Published | Validation::Auto => {
                let valid = dataset.triples(Split::Valid);
                (dataset.triples(Split::Train).to_vec(), valid.to_vec(), valid.len())
            }
        };
        let validation = ValidationReport {
            asked: import.validation,
            used,
            reason,
            published_overlap: overlap,
            train: train.len(),
            valid: valid.len(),
            wanted,
        };
        Ok(SplitTriples { train, valid, test: dataset.triples(Split::Test).to_vec(), validation })
    }
}

/// The share of the published validation triples that are also in train or test.
fn published_overlap(dataset: &Dataset) -> Option<f64> {
    let valid = &dataset.splits.get(&Split::Valid)?.triples;
    let others = [Split::Train, Split::Test].map(|split| dataset.triples(split));
    let others: HashSet<&Triple> = others.into_iter().flatten().collect();
    let shared = valid.iter().filter(|triple| others.contains(triple)).count();
    Some(share(shared, valid.len()))
}

fn decide(import: &Import, overlap: Option<f64>) -> Result<(Validation, String)> {
    let holdout = Validation::Holdout(import.holdout_fraction);
    match (import.validation, overlap) {
        (Validation::Published, None) => Err(Error::missing("no validation triples are published here")
            .hint("set `import.valid`, or --validation holdout:0.1")),
        (asked @ (Validation::Published | Validation::Holdout(_)), _) => {
            Ok((asked, "the recipe asks for it".to_owned()))
        }
        (Validation::Auto, None) => Ok((holdout, "no validation triples are published".to_owned())),
        (Validation::Auto, Some(overlap)) if overlap > import.overlap_threshold => {
            let (share, most) = (percent(overlap, 1), percent(import.overlap_threshold, 1));
            let reason = format!("{share} of the published triples stand in train or test, more than {most}");
            Ok((holdout, reason))
        }
        (Validation::Auto, Some(overlap)) => {
            let share = if overlap > 0.0 { percent(overlap, 1) } else { "none".to_owned() };
            let reason = format!("{share} of the published triples stand in train or test");
            Ok((Validation::Published, reason))
        }
    }
}

/// The remaining triples of train, the held-out ones, both in train's order, and the number to hold out.
fn hold_out(dataset: &Dataset, fraction: f64, seed: u64) -> Result<(Vec<Triple>, Vec<Triple>, usize)> {
    let (train, Vocabulary { entities, relations }) = (dataset.triples(Split::Train), &dataset.vocabulary);
    let wanted = part(fraction, train.len()).max(1);
    let mut uses = vec![0_u32; entities.len() + relations.len()];
    train.iter().flat_map(|triple| places(*triple, entities.len())).for_each(|place| uses[place] += 1);
    let mut held_out = HashSet::new();
    for triple in shuffled(train.len(), seed).map(|index| train[index]) {
        let mut places_of = places(triple, entities.len());
        if held_out.len() < wanted && places_of.all(|place| uses[place] > 1) {
            places(triple, entities.len()).for_each(|place| uses[place] -= 1);
            held_out.insert(triple);
        }
    }
    if held_out.is_empty() {
        let message = "no training triple can be held out: each is the only one of an entity or relation";
        return Err(Error::data(message).hint("use --validation published"));
    }
    let (valid, rest) = train.iter().partition(|triple| held_out.contains(triple));
    Ok((rest, valid, wanted))
}

/// All indices, in an order that depends only on the seed's stream.
fn shuffled(count: usize, seed: u64) -> impl Iterator<Item = usize> {
    let mut generator = stage::seed::generator(seed, "import/holdout", 0);
    let mut drawn: Vec<(u64, usize)> = (0..count).map(|index| (generator.next_u64(), index)).collect();
    drawn.sort_unstable();
    drawn.into_iter().map(|(_, index)| index)
}

/// Positions of head, tail and relation in a table of `entities` entities, then relations; a self-loop's entity once.
fn places(triple: Triple, entities: usize) -> impl Iterator<Item = usize> {
    let tail = Some(triple.tail.index()).filter(|_| triple.tail != triple.head);
    let relation = entities + triple.relation.index();
    [Some(triple.head.index()), tail, Some(relation)].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::super::dataset::PublishedSplit;
    use super::*;
    use crate::{Entity, Relation};
    use proptest::prelude::*;

    fn dataset(train: Vec<Triple>, valid: Option<Vec<Triple>>) -> Dataset {
        let test = vec![Triple::new(0, 0, 9)];
        let splits = [(Split::Train, Some(train)), (Split::Valid, valid), (Split::Test, Some(test))];
        let published = |(split, lines): (_, Option<_>)| Some((split, PublishedSplit::new(lines?)));
        let (entities, relations) = (vec![Entity::default(); 20], vec![Relation::default(); 3]);
        Dataset {
            vocabulary: Vocabulary { entities, relations },
            splits: splits.into_iter().filter_map(published).collect(),
            ..Dataset::default()
        }
    }

    fn choose(dataset: &Dataset, validation: Validation, seed: u64) -> Result<SplitTriples> {
        SplitTriples::choose(dataset, &Import { validation, ..Import::default() }, seed)
    }

    /// All pairs of ten entities, in both relations.
    fn dense() -> Vec<Triple> {
        let pairs = (0..10).flat_map(|head| (0..10).map(move |tail| (head, tail)));
        pairs.flat_map(|(head, tail)| [Triple::new(head, 0, tail), Triple::new(head, 1, tail)]).collect()
    }

    #[test]
    fn a_clean_published_split_is_used_without_its_repetitions() {
        let valid = Triple::new(11, 0, 0);
        let parts = choose(&dataset(dense(), Some(vec![valid, valid])), Validation::Auto, 0).unwrap();
        assert_eq!((parts.valid, parts.train.len()), (vec![valid], 200));
        assert_eq!(parts.validation.used, Validation::Published);
    }

    #[test]
    fn a_split_copied_from_train_is_not() {
        let copied = dataset(dense(), Some(dense()[..50].to_vec()));
        let parts = choose(&copied, Validation::Auto, 0).unwrap();
        assert_eq!((parts.valid.len(), parts.train.len()), (20, 180));
        assert_eq!(parts.validation.used, Validation::Holdout(0.1));
        assert_eq!(parts.validation.published_overlap, Some(1.0));
        let asked = choose(&copied, Validation::Published, 0).unwrap();
        assert_eq!((asked.valid.len(), asked.train.len()), (50, 200));
    }

    #[test]
    fn without_a_published_split_the_seed_alone_decides() {
        let whole = dataset(dense(), None);
        let drawn = [3, 3, 4, 0].map(|seed| choose(&whole, Validation::Auto, seed).unwrap().valid);
        assert_eq!(drawn[0].len(), 20);
        assert!(drawn[0] == drawn[1] && drawn[0] != drawn[2]);
        // The stream is fixed by its specification: a new version of a library must not change it.
        assert_eq!(drawn[3][..2], [Triple::new(0, 0, 5), Triple::new(0, 0, 9)]);
        let error = choose(&whole, Validation::Published, 0).unwrap_err();
        assert_eq!(error.kind(), stage::Kind::Missing);
    }

    #[test]
    fn separate_pairs_have_nothing_to_spare() {
        let pairs = vec![Triple::new(0, 0, 1), Triple::new(2, 0, 3), Triple::new(4, 1, 5)];
        let error = choose(&dataset(pairs, None), Validation::Holdout(0.5), 0).unwrap_err();
        assert_eq!(error.kind(), stage::Kind::Data);
    }

    proptest! {
        #[test]
        fn nothing_loses_its_last_triple(
            raw in prop::collection::hash_set((0u32..20, 0u32..3, 0u32..20), 2..120),
            fraction in 0.05f64..0.9,
            seed: u64,
        ) {
            let train: Vec<Triple> = raw.into_iter().map(|(h, r, t)| Triple::new(h, r, t)).collect();
            let whole = dataset(train.clone(), None);
            let Ok(parts) = choose(&whole, Validation::Holdout(fraction), seed) else { return Ok(()) };
            let [left, used] = [&parts.train, &train].map(|triples| {
                triples.iter().flat_map(|triple| places(*triple, 20)).collect::<HashSet<_>>()
            });
            prop_assert_eq!(left, used);
            prop_assert!(parts.valid.len() <= parts.validation.wanted);
            let mut together: Vec<Triple> = parts.train.iter().chain(&parts.valid).copied().collect();
            let mut before = train;
            together.sort();
            before.sort();
            prop_assert_eq!(together, before);
        }
    }
}
