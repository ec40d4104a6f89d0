//! Findings in words.

use recipe::Validation;

use super::{Audit, Overlap};
use crate::Split;
use crate::raw::TextReport;

/// Shares of the test split above which a finding is worth a warning.
const WORTH_SAYING: f64 = 0.01;

/// Everything worth knowing before trusting a score on this dataset.
pub(super) fn of(audit: &Audit) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(validation(audit));
    warnings.extend(short_holdout(audit));
    warnings.extend(duplicates(audit));
    warnings.extend(test_overlap(audit));
    warnings.extend(leakage(audit));
    warnings.extend(unseen(audit));
    warnings.extend(audit.coverage.sources.iter().filter_map(lost_source));
    warnings.extend(images(audit));
    warnings
}

fn validation(audit: &Audit) -> Option<String> {
    let report = &audit.validation;
    match (report.used, report.published_overlap) {
        (Validation::Holdout(fraction), None) => {
            Some(format!("no validation triples are published: {} of train is held out", percent(fraction)))
        }
        (Validation::Holdout(fraction), Some(_)) if report.asked == Validation::Auto => Some(format!(
            "{}: {} of train is held out instead, and the published validation split is not used",
            valid_elsewhere(audit),
            percent(fraction),
        )),
        (Validation::Published, Some(overlap)) if overlap > 0.0 => {
            Some(format!("{}: do not choose parameters by it", valid_elsewhere(audit)))
        }
        _ => None,
    }
}

/// Where published validation triples also stand; both shares are of lines, as the files have them.
fn valid_elsewhere(audit: &Audit) -> String {
    let lines =
        audit.splits.iter().find(|counts| counts.split == Split::Valid).map_or(1, |counts| counts.lines);
    let within = |split| find(audit, Split::Valid, split).map_or(0, |overlap| overlap.lines);
    let share = |split| percent(within(split) as f64 / lines as f64);
    match (within(Split::Train), within(Split::Test)) {
        (_, 0) => format!("{} of the published validation triples stand in train", share(Split::Train)),
        (0, _) => format!("{} of the published validation triples stand in test", share(Split::Test)),
        _ => format!(
            "{} of the published validation triples stand in train and {} in test",
            share(Split::Train),
            share(Split::Test)
        ),
    }
}

fn find(audit: &Audit, of: Split, within: Split) -> Option<&Overlap> {
    audit.overlaps.iter().find(|overlap| overlap.of == of && overlap.within == Some(within))
}

fn short_holdout(audit: &Audit) -> Option<String> {
    let report = &audit.validation;
    (report.valid < report.wanted).then(|| {
        let (valid, wanted) = (report.valid, report.wanted);
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
    let overlap = find(audit, Split::Test, Split::Train).filter(|overlap| overlap.triples > 0)?;
    Some(format!("{} test triples stand in train: scores on them say nothing", overlap.triples))
}

fn leakage(audit: &Audit) -> Option<String> {
    let leakage = &audit.leakage;
    let share = share(leakage.any_link, leakage.test);
    (share > 10.0 * WORTH_SAYING).then(|| {
        format!(
            "train links head and tail of {} of the test triples directly ({} in the other direction)",
            percent(share),
            percent(self::share(leakage.inverse, leakage.test))
        )
    })
}

fn unseen(audit: &Audit) -> impl Iterator<Item = String> {
    let leakage = &audit.leakage;
    let entity = share(leakage.unseen_entity, leakage.test);
    let entity = (entity > WORTH_SAYING).then(|| {
        let share = percent(entity);
        format!("{share} of the test triples have an entity without any training triple: only texts and images tell of it")
    });
    let relation = (leakage.unseen_relation > 0).then(|| {
        format!("{} test triples have a relation without any training triple", leakage.unseen_relation)
    });
    entity.into_iter().chain(relation)
}

fn lost_source(source: &TextReport) -> Option<String> {
    (source.found == 0)
        .then(|| format!("{}: none of its {} texts belongs to this graph", source.file, source.rows))
}

fn images(audit: &Audit) -> Option<String> {
    let report = audit.coverage.image_folder.as_ref()?;
    let unknown = report.unknown;
    (unknown > 0).then(|| format!("{unknown} images or their folders are named like no entity of this graph"))
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}
