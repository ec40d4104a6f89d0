//! The content of the published splits, and what they share.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

use crate::raw::PublishedSplit;
use crate::{Split, Triple};

/// One published split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCounts {
    /// The split.
    pub split: Split,
    /// Lines of its file, without a count line.
    pub lines: usize,
    /// Distinct triples.
    pub triples: usize,
    /// Lines whose triple an earlier line holds; later stages do not see them.
    pub duplicate_lines: usize,
    /// Triples whose head is their tail.
    pub self_loops: usize,
}

/// The triples that a published split shares with others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// Whose triples are counted.
    pub of: Split,
    /// The split in which they also stand; with none, those that stand in no other split.
    pub within: Option<Split>,
    /// Lines of `of`.
    pub lines: usize,
    /// Distinct triples of `of`.
    pub triples: usize,
}

impl SplitCounts {
    pub(super) fn of(split: Split, published: &PublishedSplit) -> SplitCounts {
        let (lines, triples) = (published.lines.len(), published.triples.len());
        let self_loops = published.triples.iter().filter(|triple| triple.head == triple.tail).count();
        SplitCounts { split, lines, triples, duplicate_lines: lines - triples, self_loops }
    }
}

/// Valid and test with each split before them; valid with test too, and with neither.
pub(super) fn overlaps(published: &BTreeMap<Split, PublishedSplit>) -> Vec<Overlap> {
    let sets: Vec<(Split, HashSet<Triple>)> =
        published.iter().map(|(split, p)| (*split, p.triples.iter().copied().collect())).collect();
    let mut overlaps = Vec::new();
    for (of, split) in published.iter().filter(|(split, _)| **split != Split::Train) {
        let others: Vec<_> = sets.iter().filter(|(other, _)| other != of).collect();
        for (other, triples) in &others {
            // Test within valid is the same fact as valid within test.
            if (*of, *other) != (Split::Test, Split::Valid) {
                overlaps.push(overlap(*of, Some(*other), split, |triple| triples.contains(triple)));
            }
        }
        if *of == Split::Valid {
            let alone = |triple: &Triple| others.iter().all(|(_, triples)| !triples.contains(triple));
            overlaps.push(overlap(*of, None, split, alone));
        }
    }
    overlaps
}

fn overlap(
    of: Split,
    within: Option<Split>,
    split: &PublishedSplit,
    counts: impl Fn(&Triple) -> bool,
) -> Overlap {
    let count = |triples: &[Triple]| triples.iter().filter(|triple| counts(triple)).count();
    Overlap { of, within, lines: count(&split.lines), triples: count(&split.triples) }
}
