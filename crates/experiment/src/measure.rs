//! Ranks of the cells, from the evaluations.

use dsom_evaluate::RANKS;
use dsom_evaluate::table::{self, RankTable};
use mkg::Split;
use stage::{Result, Run};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::Metric;
use crate::execute::Outcome;
use crate::grid::{Cell, Grid};
use crate::statistics::mean;

/// The ranks of one cell's model.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub cell: Cell,
    /// Its ranks by split.
    pub ranks: Vec<RankTable>,
}

impl Measured {
    pub(crate) fn figure(&self, split: Split, metric: Metric) -> Option<f64> {
        let figures: Vec<f64> = self.ranks_on(split)?.ranks.iter().map(|rank| metric.of(*rank)).collect();
        Some(mean(&figures))
    }

    pub(crate) fn ranks_on(&self, split: Split) -> Option<&RankTable> {
        self.ranks.iter().find(|ranks| ranks.split == split)
    }
}

/// Reads the ranks of all cells whose evaluation went well and has their model.
pub(crate) fn read(grid: &Grid, outcomes: &[Outcome]) -> Result<Vec<Measured>> {
    let mut tables: HashMap<usize, Vec<RankTable>> = HashMap::new();
    let mut measured = Vec::new();
    for cell in grid.cells.iter().filter(|cell| outcomes[cell.step] == Outcome::Done) {
        let of_run = match tables.entry(cell.run) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                let evaluation = Run::new(&grid.runs[cell.run].root).evaluation();
                place.insert(table::read(&evaluation.join(RANKS))?)
            }
        };
        let ranks: Vec<_> = of_run.iter().filter(|table| table.model == cell.model).cloned().collect();
        if !ranks.is_empty() {
            measured.push(Measured { cell: cell.clone(), ranks });
        }
    }
    Ok(measured)
}

/// The mean of a metric over several models, query by query; nothing unless all were asked the same.
pub(crate) fn by_query(tables: &[&RankTable], metric: Metric) -> Option<Vec<f64>> {
    let first = tables.first()?;
    if tables.iter().any(|table| table.asked != first.asked) {
        return None;
    }
    let sums = (0..first.ranks.len())
        .map(|query| tables.iter().map(|table| metric.of(table.ranks[query])).sum::<f64>());
    Some(sums.map(|sum| sum / tables.len() as f64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsom_evaluate::metrics::Direction;
    use mkg::Triple;

    fn ranks(heads: &[u32], ranks: &[f64]) -> RankTable {
        RankTable {
            model: "m".into(),
            split: Split::Test,
            asked: heads.iter().map(|head| (Triple::new(*head, 0, 1), Direction::Tail)).collect(),
            ranks: ranks.to_vec(),
            optimistic: ranks.to_vec(),
            pessimistic: ranks.to_vec(),
            confidences: Vec::new(),
        }
    }

    #[test]
    fn seeds_are_averaged_query_by_query() {
        let (first, second) = (ranks(&[0, 1], &[1.0, 4.0]), ranks(&[0, 1], &[2.0, 4.0]));
        assert_eq!(by_query(&[&first, &second], Metric::Mrr), Some(vec![75.0, 25.0]));
        assert_eq!(by_query(&[&first, &ranks(&[1, 0], &[1.0, 1.0])], Metric::Mrr), None);
        assert_eq!(by_query(&[], Metric::Mrr), None);
    }
}
