//! Filtered ranks on a device: see [`kge::rank`] for what they are. Of a block of queries only ranks come back, and of each
//! query whether its scores are finite and what its confidence is made of.

use candle_core::{DType, Result, Tensor};
use kge::rank::{BLOCK, RankedQuery, confidence, measure_blocks, require_finite};
use kge::{Judged, Rank, Real};
use mkg::{KnownAnswers, Query, Triple};
use recipe::Precision;

use crate::host::{NOWHERE, failed, list, lists, read, read_numbers};
use crate::model::DeviceModel;

/// The ranks of tail and head of each triple by the mean of the models' scores: see [`kge::rank_triples`].
///
/// # Errors
/// If a score is not finite, the device fails, or `progress` says so.
pub fn rank_triples(
    models: &[DeviceModel],
    triples: &[Triple],
    relations: usize,
    known: &KnownAnswers,
    progress: impl FnMut(usize) -> stage::Result<()>,
) -> stage::Result<Vec<[Rank; 2]>> {
    measure_blocks(triples, relations, known, progress, |asked| {
        let ranked = RankedBlock::of(models, asked)?;
        Ok(ranked.by_query(asked, |_, target| target.rank))
    })
}

/// The same with the confidence in each query's first candidate: see [`kge::judge_triples`].
///
/// # Errors
/// As [`rank_triples`].
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
        Ok(ranked.by_query(asked, |query, target| {
            let is_known = asked[query].known.binary_search(&target.entity).is_ok();
            let confidence = confidence(rest[query], is_known.then_some(target.score));
            Judged { rank: target.rank, confidence: confidence as f32 }
        }))
    })
}

/// A block of queries with their scores, and what became of their targets, query by query.
struct RankedBlock {
    /// `(query, entity)`.
    scores: Tensor,
    targets: Vec<RankedTarget>,
}

struct RankedTarget {
    entity: mkg::EntityId,
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

    /// Ranks the next targets, which are of the queries at `rows`.
    fn count(&mut self, asked: &[RankedQuery<'_>], rows: &[u32]) -> Result<()> {
        let device = self.scores.device();
        let all = asked.iter().flat_map(|of| &of.targets);
        let targets: Vec<_> = all.skip(self.targets.len()).take(rows.len()).copied().collect();
        let ids: Vec<u32> = targets.iter().map(|target| target.0).collect();
        let scores = self.scores.index_select(&list(device, rows)?, 0)?;
        let of_targets = scores.gather(&list(device, &ids)?.unsqueeze(1)?, 1)?;
        let known = rows.iter().zip(&targets).map(|(row, target)| {
            let known = asked[*row as usize].known.iter().filter(|known| *known != target);
            known.map(|known| known.0).collect::<Vec<u32>>()
        });
        let known: Vec<Vec<u32>> = known.collect();
        let known = lists(device, known.iter().map(Vec::as_slice))?;
        let is_known = known.ne(NOWHERE)?;
        let known = scores.gather(&known, 1)?;
        let above = scores.broadcast_gt(&of_targets)?;
        let tied = scores.broadcast_eq(&of_targets)?;
        let known_above = (known.broadcast_gt(&of_targets)? * &is_known)?;
        let known_tied = (known.broadcast_eq(&of_targets)? * is_known)?;
        let counts = [above, tied, known_above, known_tied];
        let counts = counts.map(|which| read::<u32>(&which.to_dtype(DType::U32)?.sum(1)?));
        let [above, tied, known_above, known_tied] = counts;
        let (above, tied, known_above, known_tied) = (above?, tied?, known_above?, known_tied?);
        let scores = read_numbers(&of_targets)?;
        self.targets.extend(targets.into_iter().enumerate().map(|(i, entity)| {
            // The target equals itself.
            let rank = Rank { above: above[i] - known_above[i], tied: tied[i] - 1 - known_tied[i] };
            RankedTarget { entity, rank, score: scores[i] }
        }));
        Ok(())
    }

    /// Each query's highest score that the filter leaves, and the sum of all exponentials relative to it.
    fn rest(&self, asked: &[RankedQuery<'_>]) -> Result<Vec<[f64; 2]>> {
        let known: Vec<Vec<u32>> =
            asked.iter().map(|of| of.known.iter().map(|known| known.0).collect()).collect();
        let known = lists(self.scores.device(), known.iter().map(Vec::as_slice))?;
        let masked = masked(&self.scores, &known)?;
        let highest = masked.max_keepdim(1)?;
        let sums = masked.broadcast_sub(&highest)?.exp()?.sum_keepdim(1)?;
        let pairs = read_numbers(&Tensor::cat(&[highest, sums], 1)?)?;
        Ok(pairs.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect())
    }

    /// Applies `of` to each target, given its query's place in the block.
    fn by_query<M>(&self, asked: &[RankedQuery<'_>], of: impl Fn(usize, &RankedTarget) -> M) -> Vec<Vec<M>> {
        let mut targets = self.targets.iter();
        let of_query = |(query, asked): (usize, &RankedQuery<'_>)| {
            targets.by_ref().take(asked.targets.len()).map(|target| of(query, target)).collect()
        };
        asked.iter().enumerate().map(of_query).collect()
    }
}

/// Rows of scores without the entities listed for each: a masked one adds nothing to any sum of exponentials.
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
    use mkg::{EntityId, RelationId};
    use serde_json::Value;

    #[test]
    fn ranks_equal_the_golden_values() {
        let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/ranks.json")).unwrap();
        let scores: Vec<Vec<f32>> = serde_json::from_value(golden["scores"].clone()).unwrap();
        let targets: Vec<u32> = serde_json::from_value(golden["target"].clone()).unwrap();
        let known: Vec<Vec<u32>> = serde_json::from_value(golden["known"].clone()).unwrap();
        let known: Vec<Vec<EntityId>> =
            known.into_iter().map(|of| of.into_iter().map(EntityId).collect()).collect();
        let asked: Vec<RankedQuery<'_>> = (0..scores.len())
            .map(|row| RankedQuery {
                query: Query { head: EntityId(row as u32), relation: RelationId(0) },
                targets: vec![EntityId(targets[row])],
                known: &known[row],
            })
            .collect();
        let scores = Tensor::new(scores, &device()).unwrap();
        let mut ranked = RankedBlock { scores, targets: Vec::new() };
        // A few at a time, as where a block has many targets.
        let rows: Vec<u32> = (0..asked.len() as u32).collect();
        rows.chunks(2).for_each(|rows| ranked.count(&asked, rows).unwrap());
        let rules = [("optimistic", TieRule::Optimistic), ("pessimistic", TieRule::Pessimistic)];
        for (name, rule) in rules {
            let expected: Vec<f64> = serde_json::from_value(golden[name]["ranks"].clone()).unwrap();
            assert_eq!(
                ranked.targets.iter().map(|target| target.rank.by(rule)).collect::<Vec<_>>(),
                expected
            );
        }
    }
}
