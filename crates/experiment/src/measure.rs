//! Ranks of the cells, from the evaluations.

use dsom_evaluate::RANKS;
use dsom_evaluate::table::{self, RankTable};
use mkg::Split;
use stage::{Result, Run};
use std::collections::HashMap;

use crate::Metric;
use crate::execute::Outcome;
use crate::grid::{Cell, EVALUATE, Grid};
use crate::statistics::mean;

/// The ranks of one cell's model.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub cell: Cell,
    /// The model's ranks by split.
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

/// Reads the ranks of all cells whose evaluation succeeded and has their model.
pub(crate) fn read(grid: &Grid, outcomes: &[Outcome]) -> Result<Vec<Measured>> {
    let mut tables: HashMap<usize, Vec<RankTable>> = HashMap::new();
    for (step, outcome) in grid.steps.iter().zip(outcomes) {
        if step.program == EVALUATE && *outcome == Outcome::Done {
            let evaluation = Run::new(&grid.runs[step.run].root).evaluation();
            tables.insert(step.run, table::read(&evaluation.join(RANKS))?);
        }
    }
    let mut measured = Vec::new();
    for cell in &grid.cells {
        let of_run = tables.get(&cell.run).into_iter().flatten();
        let ranks: Vec<_> = of_run.filter(|table| table.model == cell.model).cloned().collect();
        if !ranks.is_empty() {
            measured.push(Measured { cell: cell.clone(), ranks });
        }
    }
    Ok(measured)
}

/// The mean of a metric over several models that answered the same queries, query by query.
pub(crate) fn by_query(tables: &[&RankTable], metric: Metric) -> Vec<f64> {
    let sums = (0..tables[0].ranks.len())
        .map(|query| tables.iter().map(|table| metric.of(table.ranks[query])).sum::<f64>());
    sums.map(|sum| sum / tables.len() as f64).collect()
}
