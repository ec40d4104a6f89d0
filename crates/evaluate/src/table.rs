//! `ranks.parquet`: every rank, for questions that `metrics.json` does not answer.
//!
//! | column | type | |
//! |---|---|---|
//! | `model`, `split`, `direction` | text | direction `head` or `tail`: what was predicted |
//! | `head`, `relation`, `tail` | u32 | ids; never an inverse |
//! | `head_key`, `relation_key`, `tail_key` | text | the dataset's own identifiers |
//! | `rank`, `optimistic`, `pessimistic` | f64 | filtered; `rank` is the realistic one |
//! | `confidence` | f32 | softmax probability of the first candidate that the filter leaves |

mod read;

pub use read::{RankTable, read};

use arrow::array::{ArrayRef, Float32Array, Float64Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use kge::{Rank, TieRule};
use mkg::{EntityId, Triple};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use stage::files::write_atomically;
use stage::{Error, Kind, Result};
use std::path::Path;
use std::sync::Arc;

use crate::Ranked;
use crate::graph::Graph;
use crate::metrics::Direction;

/// Version of the table: 2 has `confidence`, 3 filters the ranks of train and valid without test.
pub(crate) const FORMAT: u32 = 3;

/// Writes all ranks, atomically: model by model and split by split, a triple's tail before its head.
pub fn write(path: &Path, graph: &Graph, ranked: &[Ranked]) -> Result<()> {
    let schema = schema();
    let compression = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let failed = |e| Error::new(Kind::Io, "cannot write Parquet").because(e);
    write_atomically(path, |file| {
        let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(failed)?;
        for ranked in ranked {
            writer.write(&batch(&schema, graph, ranked)?).map_err(failed)?;
        }
        writer.close().map_err(failed)?;
        Ok(())
    })
}

fn schema() -> Arc<Schema> {
    let columns = [
        (DataType::Utf8, &["model", "split", "direction"][..]),
        (DataType::UInt32, &["head", "relation", "tail"]),
        (DataType::Utf8, &["head_key", "relation_key", "tail_key"]),
        (DataType::Float64, &["rank", "optimistic", "pessimistic"]),
        (DataType::Float32, &["confidence"]),
    ];
    let fields = columns
        .iter()
        .flat_map(|(kind, names)| names.iter().map(|name| Field::new(*name, kind.clone(), false)));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A row before it is spread over columns.
type TableRow<'a> = (&'a Triple, Direction, Rank);

fn batch(schema: &Arc<Schema>, graph: &Graph, ranked: &Ranked) -> Result<RecordBatch> {
    let pairs = graph.triples(ranked.split).iter().zip(&ranked.ranks);
    let rows: Vec<TableRow> = pairs
        .flat_map(|(triple, ranks)| Direction::BOTH.map(|direction| (triple, direction, direction.of(ranks))))
        .collect();
    let entity = |id: EntityId| graph.vocabulary.entities[id.index()].key.as_str();
    let relation = |triple: &Triple| graph.vocabulary.relations[triple.relation.index()].key.as_str();
    let columns = vec![
        texts(&rows, |_| &ranked.model),
        texts(&rows, |_| ranked.split.as_str()),
        texts(&rows, |(_, direction, _)| direction.as_str()),
        ids(&rows, |triple| triple.head.0),
        ids(&rows, |triple| triple.relation.0),
        ids(&rows, |triple| triple.tail.0),
        texts(&rows, |(triple, ..)| entity(triple.head)),
        texts(&rows, |(triple, ..)| relation(triple)),
        texts(&rows, |(triple, ..)| entity(triple.tail)),
        ranks(&rows, TieRule::Realistic),
        ranks(&rows, TieRule::Optimistic),
        ranks(&rows, TieRule::Pessimistic),
        Arc::new(Float32Array::from_iter_values(ranked.confidences.iter().flatten().copied())),
    ];
    RecordBatch::try_new(schema.clone(), columns).map_err(|e| Error::data(e.to_string()))
}

fn texts<'a>(rows: &'a [TableRow<'a>], get: impl Fn(&TableRow<'a>) -> &'a str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(get)))
}

fn ids(rows: &[TableRow], get: fn(&Triple) -> u32) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(rows.iter().map(|(triple, ..)| get(triple))))
}

fn ranks(rows: &[TableRow], rule: TieRule) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(rows.iter().map(|(.., rank)| rank.by(rule))))
}
