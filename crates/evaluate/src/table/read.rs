//! Reading `ranks.parquet` back, model by model and split by split.

use arrow::array::{PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{Float32Type, Float64Type, UInt32Type};
use mkg::graph::{for_each_batch, numbers, texts};
use mkg::{Split, Triple};
use stage::{Error, Result};
use std::path::Path;

use crate::metrics::Direction;

/// The ranks of one model on one split, a row per triple and direction.
#[derive(Clone, Debug, PartialEq)]
pub struct RankTable {
    /// The model's name.
    pub model: String,
    /// The split.
    pub split: Split,
    /// Triples with the place that was asked for.
    pub asked: Vec<(Triple, Direction)>,
    /// Ranks under the realistic rule.
    pub ranks: Vec<f64>,
    /// Ranks under the optimistic rule.
    pub optimistic: Vec<f64>,
    /// Ranks under the pessimistic rule.
    pub pessimistic: Vec<f64>,
    /// The softmax probability of the first candidate; empty if an earlier version wrote the file.
    pub confidences: Vec<f32>,
}

/// Reads all of `ranks.parquet`, in its order.
pub fn read(path: &Path) -> Result<Vec<RankTable>> {
    let mut tables: Vec<RankTable> = Vec::new();
    for_each_batch(path, |batch| {
        let (models, splits) = (texts(batch, "model")?, texts(batch, "split")?);
        let columns = Columns::of(batch)?;
        for row in 0..batch.num_rows() {
            let (model, split) = (models.value(row), splits.value(row));
            match tables.last() {
                Some(last) if last.model == model && last.split.as_str() == split => {}
                _ => tables.push(RankTable::new(model, split.parse()?)),
            }
            if let Some(table) = tables.last_mut() {
                columns.push(row, table)?;
            }
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

    /// The chance that the model's first candidate is the answer, row by row: 1 or 0, and a share among ties.
    pub fn hits_at_first(&self) -> impl Iterator<Item = f64> + '_ {
        let ranks = self.optimistic.iter().zip(&self.pessimistic);
        ranks.map(|(best, worst)| if *best == 1.0 { 1.0 / (worst - best + 1.0) } else { 0.0 })
    }
}

/// The columns of one batch.
struct Columns<'a> {
    directions: &'a StringArray,
    triple: [&'a PrimitiveArray<UInt32Type>; 3],
    ranks: [&'a PrimitiveArray<Float64Type>; 3],
    confidence: Option<&'a PrimitiveArray<Float32Type>>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Columns<'a>> {
        Ok(Columns {
            directions: texts(batch, "direction")?,
            triple: [numbers(batch, "head")?, numbers(batch, "relation")?, numbers(batch, "tail")?],
            ranks: [numbers(batch, "rank")?, numbers(batch, "optimistic")?, numbers(batch, "pessimistic")?],
            confidence: numbers(batch, "confidence").ok(),
        })
    }

    fn push(&self, row: usize, into: &mut RankTable) -> Result<()> {
        let [head, relation, tail] = self.triple.map(|ids| ids.value(row));
        let name = self.directions.value(row);
        let direction = Direction::of_name(name)
            .ok_or_else(|| Error::data(format!("`{name}` is no direction")).row(row as u64))?;
        into.asked.push((Triple::new(head, relation, tail), direction));
        let lists = [&mut into.ranks, &mut into.optimistic, &mut into.pessimistic];
        lists.into_iter().zip(self.ranks).for_each(|(list, ranks)| list.push(ranks.value(row)));
        into.confidences.extend(self.confidence.map(|confidence| confidence.value(row)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ranked;
    use crate::graph::Graph;
    use kge::Rank;
    use mkg::{Entity, Relation, Vocabulary};

    #[test]
    fn what_was_written_is_read() {
        let relations = vec![Relation { key: "r".into(), name: None }];
        let triples = vec![Triple::new(0, 0, 1), Triple::new(2, 0, 1)];
        let vocabulary = Vocabulary { entities: vec![Entity::default(); 3], relations };
        let graph = Graph::new(vocabulary, [triples.clone(), triples.clone(), triples.clone()]);
        let rank = |above, tied| Rank { above, tied };
        let ranked = |model: &str, split| Ranked {
            model: model.into(),
            split,
            ranks: vec![[rank(0, 1), rank(2, 0)], [rank(0, 0), rank(1, 2)]],
            confidences: vec![[0.5, 0.25], [1.0, 0.125]],
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ranks.parquet");
        let all = [ranked("a", Split::Valid), ranked("a", Split::Test), ranked("b", Split::Test)];
        super::super::write(&path, &graph, &all).unwrap();
        let tables = read(&path).unwrap();
        let names: Vec<(&str, Split)> = tables.iter().map(|t| (t.model.as_str(), t.split)).collect();
        assert_eq!(names, [("a", Split::Valid), ("a", Split::Test), ("b", Split::Test)]);
        assert_eq!(tables[2].ranks, [1.5, 3.0, 1.0, 3.0]);
        assert_eq!(tables[2].asked[3], (triples[1], Direction::Head));
        assert_eq!(tables[2].confidences, [0.5, 0.25, 1.0, 0.125]);
        assert_eq!(tables[2].hits_at_first().collect::<Vec<_>>(), [0.5, 0.0, 1.0, 0.0]);
    }
}
