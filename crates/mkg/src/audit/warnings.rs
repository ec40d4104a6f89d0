//! Findings in words.

use recipe::Validation;

use super::{Audit, Leakage, percent, share};
use crate::Split;
use crate::raw::{Dataset, ValidationReport};

/// The share of a split above which a finding is worth a warning.
const WORTH_SAYING: f64 = 0.01;
/// The share of validation triples also in other splits above which validation measures nothing.
const NO_MEASURE: f64 = 0.05;

/// All findings that a reader must know before trusting a score on this dataset.
pub(super) fn of(audit: &Audit, dataset: &Dataset) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(validation(audit));
    warnings.extend(short_holdout(audit));
    warnings.extend(duplicates(audit));
    warnings.extend(test_overlap(audit));
    warnings.extend(leakage(audit));
    warnings.extend(unseen("test", &audit.leakage));
    if audit.validation.used == Validation::Published {
        let (valid, train) = (dataset.triples(Split::Valid), dataset.triples(Split::Train));
        warnings.extend(unseen("validation", &Leakage::of(valid, train, audit.relations)));
    }
    warnings.extend(dataset.notes.iter().cloned());
    warnings.extend(audit.coverage.sources.iter().flat_map(|source| source.notes.iter().cloned()));
    warnings.extend(audit.coverage.image_folder.iter().flat_map(|folder| folder.notes.iter().cloned()));
    warnings
}

fn validation(audit: &Audit) -> Option<String> {
    let report = &audit.validation;
    match (report.used, report.published_overlap) {
        (Validation::Holdout(fraction), None) => Some(format!(
            "no validation triples are published: {} of train is held out",
            percent(fraction, 0)
        )),
        (Validation::Holdout(fraction), Some(_)) if report.asked == Validation::Auto => Some(format!(
            "{}: {} of train is held out instead, and the published validation split is not used",
            valid_elsewhere(audit),
            percent(fraction, 0),
        )),
        (Validation::Published, Some(overlap)) if overlap > NO_MEASURE => {
            Some(format!("{}: do not choose parameters by it", valid_elsewhere(audit)))
        }
        (Validation::Published, Some(overlap)) if overlap > 0.0 => Some(valid_elsewhere(audit)),
        _ => None,
    }
}

/// Names the splits that also have published validation triples.
fn valid_elsewhere(audit: &Audit) -> String {
    let all = audit.splits.iter().find(|counts| counts.split == Split::Valid);
    let mut said = Vec::new();
    for split in [Split::Train, Split::Test] {
        let count = overlap(audit, Split::Valid, split);
        let share = percent(share(count, all.map_or(1, |counts| counts.triples)), 0);
        // A share alone would hide how small the number is.
        let share = if share.starts_with("under") { format!("{count} ({share})") } else { share };
        let of = if said.is_empty() { " of the published validation triples stand" } else { "" };
        said.extend((count > 0).then(|| format!("{share}{of} in {split}")));
    }
    said.join(" and ")
}

fn overlap(audit: &Audit, of: Split, within: Split) -> usize {
    let overlap = audit.overlaps.iter().find(|overlap| overlap.of == of && overlap.within == Some(within));
    overlap.map_or(0, |overlap| overlap.triples)
}

fn short_holdout(audit: &Audit) -> Option<String> {
    let ValidationReport { valid, wanted, .. } = audit.validation;
    (valid < wanted).then(|| {
        format!(
            "only {valid} of {wanted} triples could be held out: others are the last of an entity or relation"
        )
    })
}

fn duplicates(audit: &Audit) -> impl Iterator<Item = String> {
    audit.splits.iter().filter(|counts| counts.duplicate_lines > 0).map(|counts| {
        let (duplicates, split) = (counts.duplicate_lines, counts.split);
        format!("{duplicates} lines of {split} repeat a triple; each triple is kept once")
    })
}

fn test_overlap(audit: &Audit) -> Option<String> {
    let count = overlap(audit, Split::Test, Split::Train);
    let share = percent(share(count, audit.leakage.test), 0);
    (count > 0).then(|| {
        format!(
            "{count} test triples ({share}) stand in train: scores on them say nothing about what a model infers"
        )
    })
}

fn leakage(audit: &Audit) -> Option<String> {
    let Leakage { any_link, inverse, test, .. } = audit.leakage;
    let linked = share(any_link, test);
    (linked > 10.0 * WORTH_SAYING).then(|| {
        let (linked, inverse) = (percent(linked, 0), percent(share(inverse, test), 0));
        format!(
            "train links head and tail of {linked} of the test triples directly ({inverse} in the other direction)"
        )
    })
}

fn unseen(split: &str, leakage: &Leakage) -> impl Iterator<Item = String> {
    let entity = share(leakage.unseen_entity, leakage.test);
    let entity = (entity > WORTH_SAYING).then(|| {
        let share = percent(entity, 0);
        format!("{share} of the {split} triples have an entity without any training triple: only texts and images tell of it")
    });
    let relation = (leakage.unseen_relation > 0).then(|| {
        format!("{} {split} triples have a relation without any training triple", leakage.unseen_relation)
    });
    entity.into_iter().chain(relation)
}

#[cfg(test)]
mod tests {
    use crate::audit::tests::audited;

    fn chain(from: usize, count: usize) -> String {
        (from..from + count).map(|i| format!("e{i}\tr\te{}\n", i + 1)).collect()
    }

    #[test]
    fn a_few_known_validation_triples_are_counted_not_condemned() {
        let others: String = (0..400).map(|i| format!("e{i}\tr\te{}\n", i + 7)).collect();
        let valid = chain(0, 1) + &others;
        let audit = audited(&[("train", &chain(0, 500)), ("valid", &valid), ("test", "e1\tr\te5\n")]);
        assert_eq!(audit.warnings, ["1 (under 1 %) of the published validation triples stand in train"]);
    }

    #[test]
    fn what_train_knows_of_the_others_and_does_not_is_told() {
        let test = format!("{}e1\tr\te5\n", chain(0, 3));
        let audit = audited(&[("train", &chain(0, 50)), ("valid", "e1\ts\te9\n"), ("test", &test)]);
        for said in [
            "3 test triples (75 %) stand in train",
            "1 validation triples have a relation without any training triple",
        ] {
            assert!(audit.warnings.iter().any(|warning| warning.starts_with(said)), "{:?}", audit.warnings);
        }
    }
}
