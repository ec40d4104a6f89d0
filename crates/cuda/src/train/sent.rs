//! The lists of numbers that a step sends up.

use kge::train::{Batch, Uses};
use mkg::QuerySet;
use stage::Result;

use crate::memory::{List, Lists};

/// The lists of a step.
pub(super) struct Sent {
    pub(super) entities: SentUses,
    pub(super) relations: SentUses,
    pub(super) relation_of: List,
    pub(super) starts: List,
    pub(super) tails: List,
}

impl Sent {
    /// Sends those of a batch, the queries numbered `numbers`.
    pub(super) fn of(lists: &mut Lists, batch: &Batch, queries: &QuerySet, numbers: &[u32]) -> Result<Sent> {
        lists.clear();
        let tails = |number: &u32| queries.tails(*number as usize);
        let relation = |number: &u32| queries.query(*number as usize).relation.0;
        let sent = Sent {
            entities: SentUses::add(lists, &batch.entities),
            relations: SentUses::add(lists, &batch.relations),
            relation_of: lists.add(numbers.iter().map(relation)),
            starts: lists.add_starts(numbers.iter().map(|number| tails(number).len())),
            tails: lists.add(numbers.iter().flat_map(tails).map(|tail| tail.0)),
        };
        lists.send()?;
        Ok(sent)
    }
}

/// [`Uses`] on the device.
pub(super) struct SentUses {
    pub(super) rows: List,
    /// 0, 1, 2, ..: where a row's own embedding is the row of that number.
    pub(super) identity: List,
    pub(super) numbers: List,
    pub(super) starts: List,
    pub(super) positions: List,
    pub(super) pairs: List,
}

impl SentUses {
    fn add(lists: &mut Lists, uses: &Uses) -> SentUses {
        SentUses {
            rows: lists.add(uses.rows().iter().copied()),
            identity: lists.add(0..uses.rows().len() as u32),
            numbers: lists.add(uses.numbers().iter().copied()),
            starts: lists.add(uses.starts().iter().map(|start| *start as u32)),
            positions: lists.add(uses.all_positions().iter().copied()),
            pairs: lists.add(uses.all_pairs().iter().copied()),
        }
    }
}
