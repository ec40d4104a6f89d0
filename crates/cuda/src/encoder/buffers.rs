//! What batch after batch is computed in, and where each head's parts of it lie.

use stage::Result;

use super::Design;
use crate::Gpu;
use crate::memory::{Array, DeviceMatrix, Lists};

/// The matrices of a batch.
pub(super) struct Buffers {
    pub(super) lists: Lists,
    /// Patches before and after their product.
    pub(super) patches: DeviceMatrix,
    pub(super) projected: DeviceMatrix,
    pub(super) states: DeviceMatrix,
    /// The states after a norm, where parts are not added to these.
    pub(super) normalised: DeviceMatrix,
    /// Queries, keys and values.
    pub(super) inputs: DeviceMatrix,
    pub(super) attended: DeviceMatrix,
    pub(super) up: DeviceMatrix,
    /// Of one layer's heads, sequence after sequence, `(token, token)` each.
    pub(super) scores: Array<f32>,
    /// Where each head's queries, keys, values, scores and results lie: five lists.
    pub(super) places: Array<u64>,
    pub(super) rows: DeviceMatrix,
}

/// Sequences of one length that follow each other.
pub(super) struct Group {
    pub(super) length: usize,
    /// The first of the batch's heads that is its.
    pub(super) first: usize,
    /// How many heads.
    pub(super) count: usize,
    /// The first of its scores.
    pub(super) scores: usize,
}

impl Buffers {
    pub(super) fn new(gpu: &Gpu) -> Buffers {
        let matrix = || DeviceMatrix::new(gpu);
        Buffers {
            lists: Lists::new(gpu),
            patches: matrix(),
            projected: matrix(),
            states: matrix(),
            normalised: matrix(),
            inputs: matrix(),
            attended: matrix(),
            up: matrix(),
            scores: Array::new(gpu),
            places: Array::new(gpu),
            rows: matrix(),
        }
    }

    /// Makes room for a batch of sequences of these `lengths`, and finds what lies where.
    pub(super) fn resize(&mut self, design: &Design, hidden: usize, lengths: &[usize]) -> Result<Vec<Group>> {
        let (heads, tokens) = (design.heads, lengths.iter().sum());
        self.states.resize(tokens, hidden)?;
        if !design.adds_to_normalised {
            self.normalised.resize(tokens, hidden)?;
        }
        self.inputs.resize(tokens, 3 * hidden)?;
        self.attended.resize(tokens, hidden)?;
        self.scores.resize(lengths.iter().map(|length| heads * length * length).sum())?;
        let (groups, places) = self.places(lengths, heads);
        self.places.write(&places.concat())?;
        Ok(groups)
    }

    /// Sequences of one length, and where each head's parts lie.
    fn places(&self, lengths: &[usize], heads: usize) -> (Vec<Group>, [Vec<u64>; 5]) {
        let width = self.states.columns() / heads;
        let (mut groups, mut places) = (Vec::<Group>::new(), [const { Vec::new() }; 5]);
        let (mut token, mut score) = (0, 0);
        for &length in lengths {
            match groups.last_mut().filter(|group| group.length == length) {
                Some(group) => group.count += heads,
                None => {
                    groups.push(Group { length, first: places[0].len(), count: heads, scores: score });
                }
            }
            for head in 0..heads {
                let input = |part: usize| self.inputs.place(token, (part * heads + head) * width);
                let found = [
                    input(0),
                    input(1),
                    input(2),
                    self.scores.at(score),
                    self.attended.place(token, head * width),
                ];
                places.iter_mut().zip(found).for_each(|(list, address)| list.push(address.0));
                score += length * length;
            }
            token += length;
        }
        (groups, places)
    }
}
