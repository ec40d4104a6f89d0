//! Filtered ranks on a device: see [`kge::rank`]. For a block of queries only ranks return to the host, and for each
//! query whether its scores are finite, and the numbers behind its confidence.

use candle_core::{DType, Result, Tensor};
use kge::matrix::index;
use kge::rank::{BLOCK, RankedQuery, confidence, measure_blocks, require_finite};
use kge::{Judged, Rank, Real};
use mkg::{EntityId, KnownAnswers, Query, Triple};
use recipe::Precision;

use crate::host::{NOWHERE, failed, list, lists, read, read_numbers};
use crate::model::DeviceModel;

/// The ranks of the tail and the head of each triple by the mean of the models' scores: see [`kge::rank_triples`].
pub fn rank_triples(
    models: &[DeviceModel],
    triples: &[Triple],
    relations: usize,
    known: &KnownAnswers,
    progress: impl FnMut(usize) -> stage::Result<()>,
) -> stage::Result<Vec<[Rank; 2]>> {
    measure_blocks(triples, relations, known, progress, |asked| {
        Ok(RankedBlock::of(models, asked)?.targets.into_iter().map(|target| target.rank).collect())
    })
}

/// Ranks like [`rank_triples`], with the confidence in each query's first candidate: see [`kge::judge_triples`].
pub fn judge_triples(
    models: &[DeviceModel],
    triples: &[Triple],
    relations: usize,
    known: &KnownAnswers,
    progress: impl FnMut(usize) -> stage::Result<()>,
) -> stage::Result<Vec<[Judged; 2]>> {
    measure_blocks(triples, relations, known, progress, |asked| {
        let ranked = RankedBlock::of(models, asked)?;
        let rest = ranked.rest(asked).map_err(failed)?;
        let judged = ranked.targets.into_iter().map(|RankedTarget { query, entity, rank, score }| {
            let is_known = asked[query].known.binary_search(&entity).is_ok();
            Judged { rank, confidence: confidence(rest[query], is_known.then_some(score)) }
        });
        Ok(judged.collect())
    })
}

/// A block of queries with the ranks of their targets, query by query.
struct RankedBlock {
    /// The scores `(query, entity)`.
    scores: Tensor,
    targets: Vec<RankedTarget>,
}

struct RankedTarget {
    /// The position of the target's query in the block.
    query: usize,
    entity: EntityId,
    rank: Rank,
    score: f64,
}

impl RankedBlock {
    fn of(models: &[DeviceModel], asked: &[RankedQuery<'_>]) -> stage::Result<RankedBlock> {
        let queries: Vec<Query> = asked.iter().map(|asked| asked.query).collect();
        let scores = mean_scores(models, &queries).map_err(failed)?;
        // x · 0 is 0 for finite x and NaN otherwise.
        let finite = (&scores * 0.0).and_then(|zeros| read_numbers(&zeros.sum(1)?)).map_err(failed)?;
        queries.iter().zip(finite).try_for_each(|(query, zero)| require_finite(zero == 0.0, *query))?;
        let mut ranked = RankedBlock { scores, targets: Vec::new() };
        let rows: Vec<u32> =
            (0..).zip(asked).flat_map(|(row, of)| of.targets.iter().map(move |_| row)).collect();
        for rows in rows.chunks(BLOCK) {
            ranked.count(asked, rows).map_err(failed)?;
        }
        Ok(ranked)
    }

    /// Ranks the next targets, which belong to the queries at `rows`.
    fn count(&mut self, asked: &[RankedQuery<'_>], rows: &[u32]) -> Result<()> {
        let device = self.scores.device();
        let all = asked.iter().flat_map(|of| &of.targets);
        let targets: Vec<_> = all.skip(self.targets.len()).take(rows.len()).copied().collect();
        let ids: Vec<u32> = targets.iter().map(|target| target.0).collect();
        let scores = self.scores.index_select(&list(device, rows)?, 0)?;
        let of_targets = scores.gather(&list(device, &ids)?.unsqueeze(1)?, 1)?;
        let known = rows
            .iter()
            .zip(&targets)
            .map(|(row, target)| asked[index(*row)].known.iter().filter(move |known| *known != target));
        let known = lists(device, known)?;
        let is_known = known.ne(NOWHERE)?;
        let known = scores.gather(&known, 1)?;
        let counts = [
            scores.broadcast_gt(&of_targets)?,
            scores.broadcast_eq(&of_targets)?,
            (known.broadcast_gt(&of_targets)? * &is_known)?,
            (known.broadcast_eq(&of_targets)? * is_known)?,
        ];
        let counts = counts.iter().map(|which| which.to_dtype(DType::U32)?.sum_keepdim(1));
        let counts = read::<u32>(&Tensor::cat(&counts.collect::<Result<Vec<_>>>()?, 1)?)?;
        let scores = read_numbers(&of_targets)?;
        let found = counts.chunks_exact(4).zip(scores);
        for ((&row, entity), (counts, score)) in rows.iter().zip(targets).zip(found) {
            // The target equals itself.
            let rank = Rank { above: counts[0] - counts[2], tied: counts[1] - 1 - counts[3] };
            self.targets.push(RankedTarget { query: index(row), entity, rank, score });
        }
        Ok(())
    }

    /// The highest score that the filter leaves each query, and the sum of all exponentials relative to this score.
    fn rest(&self, asked: &[RankedQuery<'_>]) -> Result<Vec<[f64; 2]>> {
        let known = lists(self.scores.device(), asked.iter().map(|of| of.known.iter()))?;
        let masked = masked(&self.scores, &known)?;
        let highest = masked.max_keepdim(1)?;
        let sums = masked.broadcast_sub(&highest)?.exp()?.sum_keepdim(1)?;
        let pairs = read_numbers(&Tensor::cat(&[highest, sums], 1)?)?;
        Ok(pairs.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect())
    }
}

/// Rows of scores with the listed entities of each row masked: a masked score adds nothing to sums of exponentials.
pub(crate) fn masked(scores: &Tensor, entities: &Tensor) -> Result<Tensor> {
    let mask =
        Tensor::full(<f32 as Real>::MASKED, entities.dims(), scores.device())?.to_dtype(scores.dtype())?;
    scores.scatter(entities, &mask.contiguous()?, 1)
}

fn mean_scores(models: &[DeviceModel], queries: &[Query]) -> Result<Tensor> {
    let mut sum = models[0].scores(Precision::F32, queries)?;
    for model in &models[1..] {
        sum = (sum + model.scores(Precision::F32, queries)?)?;
    }
    if models.len() == 1 { Ok(sum) } else { sum / models.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::device;
    use kge::TieRule;
    use mkg::RelationId;
    use serde_json::Value;

    #[test]
    fn ranks_equal_the_golden_values() {
        let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/ranks.json")).unwrap();
        let scores: Vec<Vec<f32>> = serde_json::from_value(golden["scores"].clone()).unwrap();
        let targets: Vec<u32> = serde_json::from_value(golden["target"].clone()).unwrap();
        let known: Vec<Vec<u32>> = serde_json::from_value(golden["known"].clone()).unwrap();
        let known: Vec<Vec<EntityId>> =
            known.into_iter().map(|of| of.into_iter().map(EntityId).collect()).collect();
        let query = Query { head: EntityId(0), relation: RelationId(0) };
        let asked = targets.iter().zip(&known);
        let asked =
            asked.map(|(target, known)| RankedQuery { query, targets: vec![EntityId(*target)], known });
        let asked: Vec<RankedQuery<'_>> = asked.collect();
        let scores = Tensor::new(scores, &device()).unwrap();
        let mut ranked = RankedBlock { scores, targets: Vec::new() };
        // Counts a few at a time, as in a block with many targets.
        let rows: Vec<u32> = (0..asked.len() as u32).collect();
        rows.chunks(2).for_each(|rows| ranked.count(&asked, rows).unwrap());
        for (name, rule) in [("optimistic", TieRule::Optimistic), ("pessimistic", TieRule::Pessimistic)] {
            let expected: Vec<f64> = serde_json::from_value(golden[name]["ranks"].clone()).unwrap();
            assert!(ranked.targets.iter().map(|target| target.rank.by(rule)).eq(expected), "{name}");
        }
    }
}
