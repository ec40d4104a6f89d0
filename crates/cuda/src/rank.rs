//! Ranks on a device: scores stay there, ranks come down.

use kge::rank::{Asked, measure_blocks, require_finite};
use kge::{Judged, Rank};
use mkg::{KnownAnswers, Query, Triple};
use stage::Result;

use crate::Gpu;
use crate::kernel;
use crate::memory::{Array, DeviceMatrix, Lists};
use crate::model::Model;

/// What ranking needs beside scores, kept from block to block.
pub(crate) struct Ranker {
    gpu: Gpu,
    lists: Lists,
    of_targets: Array<f32>,
    confidence: Array<f32>,
    /// Above, then tied, of each target; then whether each query's scores are finite.
    counts: Array<u32>,
}

impl Ranker {
    pub(crate) fn new(gpu: &Gpu) -> Ranker {
        Ranker {
            gpu: gpu.clone(),
            lists: Lists::new(gpu),
            of_targets: Array::new(gpu),
            confidence: Array::new(gpu),
            counts: Array::new(gpu),
        }
    }

    /// Ranks the targets of a block in its `scores (query, entity)`, which it overwrites.
    pub(crate) fn judge(&mut self, asked: &[Asked<'_>], scores: &DeviceMatrix) -> Result<Vec<Vec<Judged>>> {
        let Ranker { gpu, lists, of_targets, confidence, counts } = self;
        lists.clear();
        let count = asked.iter().map(|asked| asked.targets.len()).sum();
        let target_starts = lists.add_starts(asked.iter().map(|asked| asked.targets.len()));
        let targets = lists.add(asked.iter().flat_map(|asked| asked.targets.iter().map(|id| id.0)));
        let known_starts = lists.add_starts(asked.iter().map(|asked| asked.known.len()));
        let known = lists.add(asked.iter().flat_map(|asked| asked.known.iter().map(|id| id.0)));
        lists.send()?;
        of_targets.resize(count)?;
        confidence.resize(count)?;
        counts.resize(2 * count + asked.len())?;
        let ranks = kernel::Ranks {
            scores: scores.at(0),
            target_starts: lists.at(target_starts, 0),
            targets: lists.at(targets, 0),
            known_starts: lists.at(known_starts, 0),
            known: lists.at(known, 0),
            of_targets: of_targets.at(0),
            above: counts.at(0),
            tied: counts.at(count),
            confidence: confidence.at(0),
            finite: counts.at(2 * count),
            entities: scores.columns() as u64,
            stride: scores.stride() as u64,
        };
        gpu.launch(asked.len(), &ranks)?;
        let (counts, confidence) = (counts.to_vec()?, confidence.to_vec()?);
        let mut next = 0;
        let mut judged = Vec::with_capacity(asked.len());
        for (query, asked) in asked.iter().enumerate() {
            require_finite(counts[2 * count + query] == 1, asked.query)?;
            let of_query = (next..next + asked.targets.len()).map(|target| Judged {
                rank: Rank { above: counts[target], tied: counts[count + target] },
                confidence: confidence[target],
            });
            judged.push(of_query.collect());
            next += asked.targets.len();
        }
        Ok(judged)
    }
}

/// The ranks of tail and head of each triple by the mean of the models' scores, with its confidence, as
/// [`kge::judge_triples`] has them.
pub fn judge_triples(
    gpu: &Gpu,
    models: &[&Model],
    triples: &[Triple],
    relations: usize,
    known: &KnownAnswers,
    progress: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<[Judged; 2]>> {
    let (mut ranker, mut scores) = (Ranker::new(gpu), DeviceMatrix::padded(gpu));
    let weight = 1.0 / models.len() as f32;
    measure_blocks(triples, relations, known, progress, |asked| {
        let queries: Vec<Query> = asked.iter().map(|asked| asked.query).collect();
        for (i, model) in models.iter().enumerate() {
            model.add_scores(&queries, (i > 0, weight), &mut scores)?;
        }
        ranker.judge(asked, &scores)
    })
}
