//! Objectives of a batch's scores, and the simplest one, cross-entropy.

use candle_core::{Device, Result, Tensor};
use kge::matrix::index;
use mkg::QuerySet;

use crate::host::{NOWHERE, list, lists, select, wide};

/// The queries of a batch and their tails.
pub struct BatchTails<'a> {
    /// All training queries.
    pub queries: &'a QuerySet,
    /// Numbers of the batch's queries.
    pub numbers: &'a [u32],
    pub(crate) lists: TailLists,
}

/// The tails of some queries, on the device.
#[derive(Clone, Debug)]
pub(crate) struct TailLists {
    /// The tails `(query, most)`, with [`NOWHERE`] behind shorter lists.
    pub(crate) tails: Tensor,
    /// 1 for a tail, 0 for padding: `(query, most)`.
    pub(crate) is_tail: Tensor,
    /// Number of tails of each query: `(query, 1)`.
    pub(crate) counts: Tensor,
}

impl<'a> BatchTails<'a> {
    pub(crate) fn new(device: &Device, queries: &'a QuerySet, numbers: &'a [u32]) -> Result<Self> {
        let tails = numbers.iter().map(|number| queries.tails(index(*number)).iter());
        Ok(BatchTails { queries, numbers, lists: TailLists::new(lists(device, tails)?)? })
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = usize> {
        self.numbers.iter().map(|number| self.queries.tails(index(*number)).len())
    }

    /// Indices of the tails in the padded lists, row by row: one index for each pair of query and tail.
    pub(crate) fn places(&self) -> Result<Tensor> {
        let rows = (0u32..).step_by(self.lists.tails.dim(1)?);
        let places: Vec<u32> = rows.zip(self.counts()).flat_map(|(row, count)| (row..).take(count)).collect();
        list(self.lists.tails.device(), &places)
    }
}

impl TailLists {
    pub(crate) fn new(tails: Tensor) -> Result<TailLists> {
        let is_tail = tails.ne(NOWHERE)?.to_dtype(wide(tails.device()))?;
        Ok(TailLists { counts: is_tail.sum_keepdim(1)?, tails, is_tail })
    }

    pub(crate) fn select(&self, rows: Option<&Tensor>) -> Result<TailLists> {
        Ok(TailLists {
            tails: select(&self.tails, rows)?,
            is_tail: select(&self.is_tail, rows)?,
            counts: select(&self.counts, rows)?,
        })
    }
}

/// The gradient of a batch's scores, and its losses.
#[derive(Debug)]
pub struct ScoreGradient {
    /// The scale times the gradient of each query's loss, summed over its tails: `(query, entity)`.
    pub scores: Tensor,
    /// The unscaled losses: `(query, 1)`.
    pub losses: Tensor,
}

/// An objective of a batch's scores.
pub trait BatchObjective {
    /// Figures of a step for the caller.
    type Left;

    /// The gradient with respect to the `scores (query, entity)` of `batch`.
    fn gradient(&mut self, batch: &BatchTails<'_>, scores: &Tensor, scale: f64) -> Result<ScoreGradient>;

    /// Reads the figures of the last [`BatchObjective::gradient`], once the whole step has been given to the device.
    fn left(&mut self) -> Result<Self::Left>;
}

/// Softmax cross-entropy over all entities (Eq. 1), summed over a query's tails.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchCrossEntropy;

impl BatchObjective for BatchCrossEntropy {
    type Left = ();

    fn gradient(&mut self, batch: &BatchTails<'_>, scores: &Tensor, scale: f64) -> Result<ScoreGradient> {
        let TailLists { tails, counts, .. } = &batch.lists;
        let (kind, wide) = (scores.dtype(), counts.dtype());
        let highest = scores.max_keepdim(1)?;
        let weights = scores.broadcast_sub(&highest)?.exp()?;
        let sum = weights.sum_keepdim(1)?.to_dtype(wide)?;
        let share = ((counts / &sum)? * scale)?.to_dtype(kind)?;
        let of_tails = (tails.zeros_like()?.to_dtype(kind)? - scale)?;
        let gradient = weights.broadcast_mul(&share)?;
        gradient.scatter_add_set(tails, &of_tails, 1)?;
        let log_sum = (highest.to_dtype(wide)? + sum.log()?)?;
        let of_tails = scores.gather(tails, 1)?.to_dtype(wide)?.sum_keepdim(1)?;
        Ok(ScoreGradient { scores: gradient, losses: ((counts * log_sum)? - of_tails)? })
    }

    fn left(&mut self) -> Result<()> {
        Ok(())
    }
}
