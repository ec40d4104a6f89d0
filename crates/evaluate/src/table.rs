//! `ranks.parquet`: every rank, for questions that `metrics.json` does not answer.
//!
//! | column | type | |
//! |---|---|---|
//! | `model`, `split`, `direction` | text | direction `head` or `tail`: the predicted place |
//! | `head`, `relation`, `tail` | u32 | ids; never an inverse |
//! | `head_key`, `relation_key`, `tail_key` | text | the dataset's own identifiers |
//! | `rank`, `optimistic`, `pessimistic` | f64 | filtered; `rank` is the realistic one |
//! | `confidence` | f32 | softmax probability of the first candidate that the filter leaves |

use arrow::array::{ArrayRef, Float32Array, Float64Array, RecordBatch, StringArray, UInt32Array};
use kge::{Judged, TieRule};
use mkg::graph::{for_each_batch, numbers, texts, write_batches};
use mkg::{Split, Triple};
use stage::{Error, Result};
use std::path::Path;
use std::sync::Arc;

use crate::Ranked;
use crate::graph::Graph;
use crate::metrics::Direction;

/// The version of the table: 2 has `confidence`, 3 filters the ranks of train and valid without test.
pub(crate) const FORMAT: u32 = 3;

/// Writes all ranks atomically: by model, then by split; a triple's tail comes before its head.
pub(crate) fn write(path: &Path, graph: &Graph, ranked: &[Ranked]) -> Result<()> {
    write_batches(path, ranked.iter().map(|ranked| batch(graph, ranked)))
}

/// A row before it is split into columns.
type TableRow<'a> = (&'a Triple, Direction, Judged);

fn batch(graph: &Graph, ranked: &Ranked) -> Result<RecordBatch> {
    let pairs = graph.triples(ranked.split).iter().zip(&ranked.judged);
    let rows: Vec<TableRow> = pairs
        .flat_map(|(triple, sides)| {
            Direction::BOTH.map(|direction| (triple, direction, direction.of(*sides)))
        })
        .collect();
    let confidences = rows.iter().map(|(.., judged)| judged.confidence);
    let (entities, relations) = (&graph.vocabulary.entities, &graph.vocabulary.relations);
    let columns = [
        ("model", strings(&rows, |_| &ranked.model)),
        ("split", strings(&rows, |_| ranked.split.as_str())),
        ("direction", strings(&rows, |(_, direction, _)| direction.as_str())),
        ("head", ids(&rows, |triple| triple.head.0)),
        ("relation", ids(&rows, |triple| triple.relation.0)),
        ("tail", ids(&rows, |triple| triple.tail.0)),
        ("head_key", strings(&rows, |(triple, ..)| &entities[triple.head.index()].key)),
        ("relation_key", strings(&rows, |(triple, ..)| &relations[triple.relation.index()].key)),
        ("tail_key", strings(&rows, |(triple, ..)| &entities[triple.tail.index()].key)),
        ("rank", ranks(&rows, TieRule::Realistic)),
        ("optimistic", ranks(&rows, TieRule::Optimistic)),
        ("pessimistic", ranks(&rows, TieRule::Pessimistic)),
        ("confidence", Arc::new(Float32Array::from_iter_values(confidences))),
    ];
    let columns = columns.into_iter().map(|(name, values): (&str, ArrayRef)| (name, values, false));
    RecordBatch::try_from_iter_with_nullable(columns).map_err(|e| Error::data(e.to_string()))
}

fn strings<'a>(rows: &'a [TableRow<'a>], get: impl Fn(&TableRow<'a>) -> &'a str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(get)))
}

fn ids(rows: &[TableRow], get: fn(&Triple) -> u32) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(rows.iter().map(|(triple, ..)| get(triple))))
}

fn ranks(rows: &[TableRow], rule: TieRule) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(rows.iter().map(|(.., judged)| judged.rank.by(rule))))
}

/// The ranks of one model on one split, a row per triple and direction.
#[derive(Clone, Debug, PartialEq)]
pub struct RankTable {
    /// The model's name.
    pub model: String,
    /// The split.
    pub split: Split,
    /// The triples, with the place that was predicted.
    pub asked: Vec<(Triple, Direction)>,
    /// Ranks under the realistic rule.
    pub ranks: Vec<f64>,
    /// Ranks under the optimistic rule.
    pub optimistic: Vec<f64>,
    /// Ranks under the pessimistic rule.
    pub pessimistic: Vec<f64>,
    /// The softmax probability of the first candidate; empty if the file is from an earlier version.
    pub confidences: Vec<f32>,
}

/// Reads all of `ranks.parquet` in the order of the file.
pub fn read(path: &Path) -> Result<Vec<RankTable>> {
    let mut tables: Vec<RankTable> = Vec::new();
    for_each_batch(path, |batch| {
        let [models, splits, directions] =
            [texts(batch, "model")?, texts(batch, "split")?, texts(batch, "direction")?];
        let triple: [&UInt32Array; 3] =
            [numbers(batch, "head")?, numbers(batch, "relation")?, numbers(batch, "tail")?];
        let ranks: [&Float64Array; 3] =
            [numbers(batch, "rank")?, numbers(batch, "optimistic")?, numbers(batch, "pessimistic")?];
        let confidences: Option<&Float32Array> = numbers(batch, "confidence").ok();
        for row in 0..batch.num_rows() {
            let [model, split, direction] = [models, splits, directions].map(|column| column.value(row));
            if tables.last().is_none_or(|last| last.model != model || last.split.as_str() != split) {
                tables.push(RankTable::new(model, split.parse()?));
            }
            let last = tables.len() - 1;
            let table = &mut tables[last];
            let found = Direction::BOTH.into_iter().find(|of| of.as_str() == direction);
            let wrong = || Error::data(format!("`{direction}` is no direction")).row(row as u64);
            let [head, relation, tail] = triple.map(|ids| ids.value(row));
            table.asked.push((Triple::new(head, relation, tail), found.ok_or_else(wrong)?));
            let lists = [&mut table.ranks, &mut table.optimistic, &mut table.pessimistic];
            lists.into_iter().zip(ranks).for_each(|(list, ranks)| list.push(ranks.value(row)));
            table.confidences.extend(confidences.map(|column| column.value(row)));
        }
        Ok(())
    })?;
    Ok(tables)
}

impl RankTable {
    fn new(model: &str, split: Split) -> RankTable {
        let (asked, confidences) = (Vec::new(), Vec::new());
        let [ranks, optimistic, pessimistic] = [(); 3].map(|()| Vec::new());
        RankTable { model: model.to_owned(), split, asked, ranks, optimistic, pessimistic, confidences }
    }

    /// The chance that the model's first candidate is the answer, row by row: 1 or 0, or a share among ties.
    pub fn hits_at_first(&self) -> impl Iterator<Item = f64> + '_ {
        let ranks = self.optimistic.iter().zip(&self.pessimistic);
        ranks.map(|(best, worst)| if *best == 1.0 { 1.0 / (worst - best + 1.0) } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kge::Rank;

    #[test]
    fn what_was_written_is_read() {
        let triples = vec![Triple::new(0, 0, 1), Triple::new(2, 0, 1)];
        let graph = Graph::unnamed(3, 1, [triples.clone(), triples.clone(), triples.clone()]);
        let judged = |above, tied, confidence| Judged { rank: Rank { above, tied }, confidence };
        let ranked = |model: &str, split| Ranked {
            model: model.into(),
            split,
            judged: vec![[judged(0, 1, 0.5), judged(2, 0, 0.25)], [judged(0, 0, 1.0), judged(1, 2, 0.125)]],
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ranks.parquet");
        let all = [ranked("a", Split::Valid), ranked("a", Split::Test), ranked("b", Split::Test)];
        write(&path, &graph, &all).unwrap();
        let tables = read(&path).unwrap();
        let names: Vec<(&str, Split)> = tables.iter().map(|t| (t.model.as_str(), t.split)).collect();
        assert_eq!(names, [("a", Split::Valid), ("a", Split::Test), ("b", Split::Test)]);
        assert_eq!(tables[2].ranks, [1.5, 3.0, 1.0, 3.0]);
        assert_eq!(tables[2].asked[3], (triples[1], Direction::Head));
        assert_eq!(tables[2].confidences, [0.5, 0.25, 1.0, 0.125]);
        assert_eq!(tables[2].hits_at_first().collect::<Vec<_>>(), [0.5, 0.0, 1.0, 0.0]);
    }
}
