//! `strategies.parquet`: what the policy that was kept thinks of every strategy, for every training query.
//!
//! | column | type | |
//! |---|---|---|
//! | `head`, `relation` | u32 | ids; a relation from `R` on is an inverse |
//! | `head_name`, `relation_name` | text | names, or keys where there are none; inverses end in `⁻¹` |
//! | `neighbours` | u32 | how many train tails the query has |
//! | one per strategy, such as `structural+textual` | f32 | its probability `π`; a row's sum is 1 |
//!
//! The rows are in the order of the graph's queries, as those of the soft labels are.

use arrow::array::{ArrayRef, Float32Array, RecordBatch, StringArray, UInt32Array};
use kge::Matrix;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use stage::files::write_atomically;
use stage::{Error, Kind, Modality, Result, interrupt};
use std::path::Path;
use std::sync::Arc;
use training::Data;

use crate::strategy::Strategy;

pub(crate) const FILE: &str = "strategies.parquet";

/// Asks about all training queries, so many at a time, and writes the answers, atomically: `ask` has what the policy says of a
/// batch, `log π (query, strategy)`.
pub(crate) fn write(
    path: &Path,
    data: &Data,
    teachers: &[Modality],
    at_once: usize,
    mut ask: impl FnMut(&[u32]) -> Result<Matrix<f32>>,
) -> Result<()> {
    let schema = batch(data, teachers, &[], &Matrix::zeros(0, 0))?.schema();
    let compression = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(compression).build();
    write_atomically(path, |file| {
        let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(failed)?;
        for queries in data.numbers().chunks(at_once.max(1)) {
            interrupt::check()?;
            writer.write(&batch(data, teachers, queries, &ask(queries)?)?).map_err(failed)?;
        }
        writer.close().map_err(failed)?;
        Ok(())
    })
}

fn failed(error: ParquetError) -> Error {
    Error::new(Kind::Io, "cannot write Parquet").because(error)
}

fn batch(data: &Data, teachers: &[Modality], queries: &[u32], said: &Matrix<f32>) -> Result<RecordBatch> {
    let (mut heads, mut relations, mut neighbours) = (Vec::new(), Vec::new(), Vec::new());
    let (mut head_names, mut relation_names) = (Vec::new(), Vec::new());
    for number in queries {
        let query = data.query(*number);
        heads.push(query.head.0);
        relations.push(query.relation.0);
        head_names.push(data.vocabulary.entities[query.head.index()].label());
        relation_names.push(data.vocabulary.relation_label(query.relation));
        neighbours.push(data.tails(*number).len() as u32);
    }
    let mut columns: Vec<(String, ArrayRef, bool)> = vec![
        ("head".to_owned(), Arc::new(UInt32Array::from(heads)), false),
        ("relation".to_owned(), Arc::new(UInt32Array::from(relations)), false),
        ("head_name".to_owned(), Arc::new(StringArray::from(head_names)), false),
        ("relation_name".to_owned(), Arc::new(StringArray::from(relation_names)), false),
        ("neighbours".to_owned(), Arc::new(UInt32Array::from(neighbours)), false),
    ];
    for strategy in Strategy::every(teachers.len()) {
        let probabilities = (0..queries.len()).map(|row| said.row(row)[strategy.index()].exp());
        let probabilities = Arc::new(Float32Array::from_iter_values(probabilities));
        columns.push((strategy.name(teachers), probabilities, false));
    }
    RecordBatch::try_from_iter_with_nullable(columns).map_err(|e| Error::data(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::names;
    use crate::policy::{Dense, Input, Policy};
    use arrow::array::AsArray;
    use arrow::datatypes::{Float32Type, UInt32Type};
    use kge::checkpoint::TensorReader;
    use mkg::graph::{column, for_each_batch};
    use mkg::{Entity, KnownAnswers, QuerySet, Relation, Triple, Vocabulary};

    /// Three queries: (0, r, ?) with two tails, and its two inverses.
    fn data() -> Data {
        let entity = |name: &str| Entity { key: name.into(), ..Entity::default() };
        let relations = vec![Relation { key: "r".into(), name: None }];
        Data {
            queries: QuerySet::new(&[Triple::new(0, 0, 1), Triple::new(0, 0, 2)], 1),
            valid: vec![],
            known: KnownAnswers::default(),
            vocabulary: Vocabulary { entities: ["a", "b", "c"].map(entity).to_vec(), relations },
        }
    }

    /// Sees the query's number; its logits are that number times (0, 1, 2) · `slope`.
    fn policy<'a>(slope: f32) -> Policy<'a, f32> {
        let number = |query: usize, into: &mut [f32]| into[0] = query as f32;
        let inputs = vec![Input { name: "number".into(), block: Box::new(Dense::new(1, number)) as _ }];
        let layers = [vec![1.0], vec![0.0], vec![0.0, slope, 2.0 * slope], vec![0.0; 3]];
        Policy::of(inputs, layers.map(|row| Matrix::from_values(1, row.len(), row)).into(), 0.1)
    }

    #[test]
    fn the_policy_that_was_kept_is_asked_in_batches() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, path) = (dir.path().join("policy.safetensors"), dir.path().join(FILE));
        policy(2.0f32.ln()).tensors().write(&kept).unwrap();
        // What training left in memory is not what was kept.
        let mut policy = policy(7.0);
        policy.load(&TensorReader::open(&kept).unwrap()).unwrap();
        let ask = |queries: &[u32]| {
            Ok(policy.forward(&queries.iter().map(|query| *query as usize).collect::<Vec<_>>()).clone())
        };
        write(&path, &data(), &names(2), 2, ask).unwrap();
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
