//! Rows of a table of embeddings that a batch uses itself, and what for.

/// The rows, ascending, each once; with the queries composed from it and its share of the regulariser.
#[derive(Debug, Default)]
pub struct Uses {
    rows: Vec<u32>,
    /// Number of pairs of query and tail in which each row takes part; twice where it is both head and tail.
    pairs: Vec<u32>,
    /// The positions of row number `i` are `positions[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
    positions: Vec<u32>,
    /// For each position of the batch, the number of its row.
    numbers: Vec<u32>,
}

/// One reason why a row is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    row: u32,
    /// Position in the batch at which it is composed into a query; none for a tail.
    position: Option<u32>,
    pairs: u32,
}

impl Uses {
    /// The uses of the rows `composed` at each position of the batch, each with its number of pairs, and of the rows
    /// of `tails`.
    pub fn new(composed: impl Iterator<Item = (u32, u32)>, tails: impl Iterator<Item = u32>) -> Uses {
        let composed = (0..).zip(composed).map(|(i, (row, pairs))| Use { row, position: Some(i), pairs });
        let tails = tails.map(|row| Use { row, position: None, pairs: 1 });
        let mut uses: Vec<Use> = composed.chain(tails).collect();
        uses.sort_unstable();
        let positions = uses.iter().filter(|of| of.position.is_some()).count();
        let mut found = Uses { numbers: vec![0; positions], ..Uses::default() };
        for same in uses.chunk_by(|a, b| a.row == b.row) {
            found.starts.push(found.positions.len());
            for position in same.iter().filter_map(|of| of.position) {
                found.numbers[position as usize] = found.rows.len() as u32;
                found.positions.push(position);
            }
            found.rows.push(same[0].row);
            found.pairs.push(same.iter().map(|of| of.pairs).sum());
        }
        found.starts.push(found.positions.len());
        found
    }

    /// The rows' indices in the table.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Number of pairs in which each row takes part.
    pub fn all_pairs(&self) -> &[u32] {
        &self.pairs
    }

    /// The positions of row number `i` are those of [`Uses::all_positions`] from `starts()[i]` to `starts()[i + 1]`.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// All positions, row by row.
    pub fn all_positions(&self) -> &[u32] {
        &self.positions
    }

    /// For each position of the batch, the number of its row.
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// Number of pairs in which row number `number` takes part.
    pub fn pairs(&self, number: usize) -> u32 {
        self.pairs[number]
    }

    /// Positions in the batch at which row number `number` is composed into a query.
    pub fn positions(&self, number: usize) -> &[u32] {
        &self.positions[self.starts[number]..self.starts[number + 1]]
    }

    /// The number of the row that is composed at a position of the batch.
    pub fn number(&self, position: usize) -> usize {
        self.numbers[position] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_tails_are_found_once_each() {
        // Queries with heads 7, 3, 7 and 2, 1, 1 tails: (3, 9), (7), (1).
        let uses = Uses::new([(7, 2), (3, 1), (7, 1)].into_iter(), [3, 9, 7, 1].into_iter());
        assert_eq!(uses.rows(), [1, 3, 7, 9]);
        assert_eq!([0, 1, 2, 3].map(|i| uses.pairs(i)), [1, 2, 4, 1]);
        assert_eq!([0, 1, 2, 3].map(|i| uses.positions(i).to_vec()), [vec![], vec![1], vec![0, 2], vec![]]);
        assert_eq!([0, 1, 2].map(|i| uses.number(i)), [2, 1, 2]);
    }
}
