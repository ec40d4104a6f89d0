//! `strategies.parquet`: the kept policy's probability of every strategy, for every training query.
//!
//! | column | type | |
//! |---|---|---|
//! | `head`, `relation` | u32 | ids; a relation from `R` on is an inverse |
//! | `head_name`, `relation_name` | text | names, or keys where there are none; inverses end in `⁻¹` |
//! | `neighbours` | u32 | the number of train tails of the query |
//! | one per strategy, such as `structural+textual` | f32 | the strategy's probability `π`; a row's sum is 1 |
//!
//! The rows are in the order of the graph's queries, like the rows of the soft labels.

use arrow::array::{ArrayRef, Float32Array, UInt32Array};
use dsom_soft_labels::query_columns;
use mkg::graph::write_table;
use stage::{Modality, Result};
use std::path::Path;
use std::sync::Arc;
use training::Data;

use crate::strategy::Strategy;

pub(crate) const FILE: &str = "strategies.parquet";

/// Writes the policy's probabilities for all training queries: `said` has `log π (query, strategy)`, row after row.
pub(crate) fn write(path: &Path, data: &Data, teachers: &[Modality], said: &[f32]) -> Result<()> {
    let queries = 0..data.queries.len();
    let mut columns: Vec<(&str, ArrayRef)> = query_columns(data, queries.clone()).into();
    let neighbours = queries.map(|query| data.queries.tails(query).len() as u32);
    columns.push(("neighbours", Arc::new(UInt32Array::from_iter_values(neighbours))));
    let strategies = Strategy::every(teachers.len());
    let names: Vec<String> = strategies.iter().map(|strategy| strategy.name(teachers)).collect();
    for (strategy, name) in strategies.iter().zip(&names) {
        let probabilities = said.iter().skip(strategy.0).step_by(strategies.len()).map(|x| x.exp());
        columns.push((name, Arc::new(Float32Array::from_iter_values(probabilities))));
    }
    write_table(path, columns.into_iter().map(|(name, values)| (name, values, false)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::names;
    use crate::policy::{Dense, Policy};
    use arrow::array::AsArray;
    use arrow::datatypes::{Float32Type, UInt32Type};
    use kge::Matrix;
    use kge::checkpoint::TensorReader;
    use mkg::graph::{column, for_each_batch};
    use mkg::{Entity, Relation, Triple, Vocabulary};

    /// Three queries: (0, r, ?) with two tails, and its two inverses.
    fn data() -> Data {
        let entity = |name: &str| Entity { key: name.into(), ..Entity::default() };
        let relations = vec![Relation { key: "r".into(), name: None }];
        let vocabulary = Vocabulary { entities: ["a", "b", "c"].map(entity).to_vec(), relations };
        Data::new(vocabulary, &[Triple::new(0, 0, 1), Triple::new(0, 0, 2)], vec![])
    }

    /// A policy that sees the query's number; its logits are this number times (0, 1, 2) · `slope`.
    fn policy<'a>(slope: f32) -> Policy<'a, f32> {
        let number = |query: usize, into: &mut [f32]| into[0] = query as f32;
        let inputs = vec![Box::new(Dense::new(1, number)) as _];
        let layers = [vec![1.0], vec![0.0], vec![0.0, slope, 2.0 * slope], vec![0.0; 3]];
        Policy::of(inputs, layers.map(|row| Matrix::from_values(1, row.len(), row)).into(), 0.1)
    }

    #[test]
    fn the_file_has_what_the_policy_that_was_kept_says() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, path) = (dir.path().join("policy.safetensors"), dir.path().join(FILE));
        policy(2.0f32.ln()).tensors(&names(1)).write(&kept).unwrap();
        // The policy in memory after training is not the kept policy.
        let mut policy = policy(7.0);
        policy.load(&names(1), &TensorReader::open(&kept).unwrap()).unwrap();
        let said = [&[0, 1][..], &[2]].map(|batch| policy.forward(batch).values().to_vec());
        write(&path, &data(), &names(2), &said.concat()).unwrap();
        let (mut rows, mut relations, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for_each_batch(&path, |batch| {
            let texts = column(batch, "relation_name")?.as_string::<i32>();
            relations.extend(texts.iter().map(|text| text.unwrap().to_owned()));
            counts.extend_from_slice(column(batch, "neighbours")?.as_primitive::<UInt32Type>().values());
            for row in 0..batch.num_rows() {
                let of = |name| Ok(column(batch, name)?.as_primitive::<Float32Type>().value(row));
                rows.push([of("structural")?, of("textual")?, of("structural+textual")?]);
            }
            Ok(())
        })
        .unwrap();
        assert_eq!((relations, counts), (vec!["r".into(), "r⁻¹".to_owned(), "r⁻¹".into()], vec![2, 1, 1]));
        // Weights (1, 1, 1), (1, 2, 4) and (1, 4, 16).
        let expected =
            [[1.0 / 3.0; 3], [1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0], [1.0 / 21.0, 4.0 / 21.0, 16.0 / 21.0]];
        for (found, expected) in rows.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-6, "{rows:?}");
        }
    }
}
