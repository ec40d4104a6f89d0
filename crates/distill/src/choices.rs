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
use arrow::datatypes::{DataType, Field, Schema};
use kge::Matrix;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use stage::files::write_atomically;
use stage::{Error, Kind, Modality, Result, interrupt};
use std::path::Path;
use std::sync::Arc;
use training::Data;

use crate::strategy::Strategy;

/// The file in the student's folder.
pub(crate) const FILE: &str = "strategies.parquet";

/// Asks about all training queries, so many at a time, and writes the answers, atomically: `ask` writes what the policy
/// says of a batch, `log π (query, strategy)`.
pub(crate) fn write(
    path: &Path,
    data: &Data,
    teachers: &[Modality],
    mut ask: impl FnMut(&[u32], &mut Matrix<f32>) -> Result<()>,
    at_once: usize,
) -> Result<()> {
    let schema = schema(teachers);
    let compression = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let failed = |e| Error::new(Kind::Io, "cannot write Parquet").because(e);
    let queries: Vec<u32> = (0..data.queries.len() as u32).collect();
    let mut said = Matrix::zeros(0, 0);
    write_atomically(path, |file| {
        let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(failed)?;
        for queries in queries.chunks(at_once.max(1)) {
            interrupt::check()?;
            ask(queries, &mut said)?;
            let batch = batch(&schema, data, queries, &said)?;
            writer.write(&batch).map_err(failed)?;
        }
        writer.close().map_err(failed)?;
        Ok(())
    })
}

fn schema(teachers: &[Modality]) -> Arc<Schema> {
    let field = |name: String, kind: DataType| Field::new(name, kind, false);
    let known = [
        ("head", DataType::UInt32),
        ("relation", DataType::UInt32),
        ("head_name", DataType::Utf8),
        ("relation_name", DataType::Utf8),
        ("neighbours", DataType::UInt32),
    ];
    let known = known.into_iter().map(|(name, kind)| field(name.to_owned(), kind));
    let strategies = Strategy::every(teachers.len()).into_iter().map(|strategy| strategy.name(teachers));
    let fields = known.chain(strategies.map(|name| field(name, DataType::Float32)));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn batch(
    schema: &Arc<Schema>,
    data: &Data,
    queries: &[u32],
    log_probabilities: &Matrix<f32>,
) -> Result<RecordBatch> {
    let of = |query: &u32| data.queries.query(*query as usize);
    let vocabulary = &data.vocabulary;
    let head_name = |query: &u32| vocabulary.entities[of(query).head.index()].label();
    let relation_name = |query: &u32| vocabulary.relation_label(of(query).relation);
    let neighbours = |query: &u32| data.queries.tails(*query as usize).len() as u32;
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(queries.iter().map(|query| of(query).head.0))),
        Arc::new(UInt32Array::from_iter_values(queries.iter().map(|query| of(query).relation.0))),
        Arc::new(StringArray::from_iter_values(queries.iter().map(head_name))),
        Arc::new(StringArray::from_iter_values(queries.iter().map(relation_name))),
        Arc::new(UInt32Array::from_iter_values(queries.iter().map(neighbours))),
    ];
    for strategy in 0..log_probabilities.columns() {
        let probability = |row: usize| log_probabilities.row(row)[strategy].exp();
        columns.push(Arc::new(Float32Array::from_iter_values((0..queries.len()).map(probability))));
    }
    RecordBatch::try_new(schema.clone(), columns).map_err(|e| Error::data(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let one = |values: Vec<f32>| Matrix::from_values(1, values.len(), values);
        let (zero, slopes) = (one(vec![0.0]), one(vec![0.0, slope, 2.0 * slope]));
        Policy::from_parameters(inputs, vec![one(vec![1.0])], zero, slopes, one(vec![0.0; 3]), 0.1)
    }

    #[test]
    fn the_policy_that_was_kept_is_asked_in_batches() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, path) = (dir.path().join("policy.safetensors"), dir.path().join(FILE));
        policy(2.0f32.ln()).tensors().write(&kept).unwrap();
        // What training left in memory is not what was kept.
        let mut policy = policy(7.0);
        policy.load(&TensorReader::open(&kept).unwrap()).unwrap();
        let teachers = ["structural", "textual"].map(|name| name.parse().unwrap());
        let ask = |queries: &[u32], into: &mut Matrix<f32>| {
            into.clone_from(policy.forward(queries));
            Ok(())
        };
        write(&path, &data(), &teachers, ask, 2).unwrap();
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
