//! Rows of an embedding table that a batch uses, and the use of each row.

use crate::matrix::index;

/// Distinct rows in ascending order, with the positions at which they are composed into queries.
#[derive(Debug, Default)]
pub struct Uses {
    /// The rows' indices in the table.
    pub rows: Vec<u32>,
    /// Number of pairs of query and tail with this row; a pair whose head and tail are this row counts twice.
    pub pairs: Vec<u32>,
    /// The positions of row number `i` are `positions[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
    positions: Vec<usize>,
    /// The number of the row that is composed at each position of the batch.
    pub numbers: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    row: u32,
    /// Position in the batch at which the row is composed into a query; `None` for a tail.
    position: Option<usize>,
    pairs: u32,
}

impl Uses {
    /// The uses of the rows in `composed` and in `tails`. `composed` has a row and its number of pairs for each
    /// position of the batch.
    pub fn new(composed: impl Iterator<Item = (u32, u32)>, tails: impl Iterator<Item = u32>) -> Uses {
        let composed = composed.enumerate().map(|(i, (row, pairs))| Use { row, position: Some(i), pairs });
        let mut uses: Vec<Use> = composed.collect();
        let mut found = Uses { numbers: vec![0; uses.len()], ..Uses::default() };
        uses.extend(tails.map(|row| Use { row, position: None, pairs: 1 }));
        uses.sort_unstable();
        for (number, same) in (0..).zip(uses.chunk_by(|a, b| a.row == b.row)) {
            found.starts.push(found.positions.len());
            for position in same.iter().filter_map(|of| of.position) {
                found.numbers[position] = number;
                found.positions.push(position);
            }
            found.rows.push(same[0].row);
            found.pairs.push(same.iter().map(|of| of.pairs).sum());
        }
        found.starts.push(found.positions.len());
        found
    }

    /// Positions in the batch at which row number `number` is composed into a query.
    pub fn positions(&self, number: usize) -> &[usize] {
        &self.positions[self.starts[number]..self.starts[number + 1]]
    }

    /// The number of the row that is composed at a position of the batch.
    pub fn number(&self, position: usize) -> usize {
        index(self.numbers[position])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_tails_are_found_once_each() {
        // Queries with heads 7, 3, 7 and 2, 1, 1 tails: (3, 9), (7), (1).
        let uses = Uses::new([(7, 2), (3, 1), (7, 1)].into_iter(), [3, 9, 7, 1].into_iter());
        assert_eq!((uses.rows.as_slice(), uses.pairs.as_slice()), (&[1, 3, 7, 9][..], &[1, 2, 4, 1][..]));
        assert_eq!([0, 1, 2, 3].map(|i| uses.positions(i).to_vec()), [vec![], vec![1], vec![0, 2], vec![]]);
        assert_eq!(uses.numbers, [2, 1, 2]);
    }
}
