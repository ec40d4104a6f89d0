//! Writing the cache: parts side by side, each in row groups of bounded size.

use arrow::array::{
    ArrayRef, FixedSizeListArray, Float16Array, ListBuilder, RecordBatch, StringArray, UInt32Array,
    UInt32Builder,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Schema};
use half::f16;
use half::slice::HalfFloatSliceExt;
use kge::{ComplEx, Matrix, Scorer};
use mkg::Query;
use mkg::graph::list_item;
use parquet::arrow::ArrowWriter;
use rayon::prelude::*;
use stage::files::write_atomically;
use stage::progress::Progress;
use stage::work::Work;
use stage::{Error, Kind, Modality, Result, interrupt};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use training::Data;

use crate::schema;

/// A trained teacher.
pub struct Teacher {
    /// Its modality.
    pub modality: Modality,
    /// Its model.
    pub model: ComplEx<f32>,
}

/// The name of part `index`.
pub(crate) fn part_name(index: usize) -> String {
    format!("part-{index:05}.parquet")
}

/// Writes all parts of `rows_per_file` queries each. Parts that an interrupted start finished are kept.
pub fn write_labels(work: &Work, data: &Data, teachers: &[Teacher], rows_per_file: usize) -> Result<()> {
    let queries = data.queries.len();
    let progress = Progress::new("soft labels", queries as u64, "queries");
    let parts: Vec<Range<usize>> =
        (0..queries).step_by(rows_per_file).map(|from| from..(from + rows_per_file).min(queries)).collect();
    parts.into_par_iter().enumerate().try_for_each(|(index, rows)| {
        let path = work.path(&part_name(index));
        if work.resumes() && path.is_file() {
            progress.advance(rows.len() as u64);
            return Ok(());
        }
        write_part(&path, data, teachers, rows, &progress)
    })
}

fn write_part(
    path: &Path,
    data: &Data,
    teachers: &[Teacher],
    rows: Range<usize>,
    progress: &Progress,
) -> Result<()> {
    let modalities: Vec<&Modality> = teachers.iter().map(|teacher| &teacher.modality).collect();
    let schema = Arc::new(schema::schema(data.entities(), &modalities));
    let properties = schema::properties(&schema, data.entities());
    let step = schema::rows_per_group(data.entities(), teachers.len());
    write_atomically(path, |file| {
        let parquet = |e| Error::new(Kind::Io, "cannot write Parquet").because(e);
        let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(parquet)?;
        for from in rows.clone().step_by(step) {
            interrupt::check()?;
            let rows = from..(from + step).min(rows.end);
            let count = rows.len() as u64;
            writer.write(&batch(&schema, data, teachers, rows)?).map_err(parquet)?;
            writer.flush().map_err(parquet)?;
            progress.advance(count);
        }
        writer.close().map_err(parquet)?;
        Ok(())
    })
}

fn batch(schema: &Arc<Schema>, data: &Data, teachers: &[Teacher], rows: Range<usize>) -> Result<RecordBatch> {
    let queries = &data.queries.queries()[rows.clone()];
    let mut neighbours = ListBuilder::new(UInt32Builder::new()).with_field(list_item(DataType::UInt32));
    for row in rows {
        data.queries.tails(row).iter().for_each(|tail| neighbours.values().append_value(tail.0));
        neighbours.append(true);
    }
    let head_name = |query: &Query| data.vocabulary.entities[query.head.index()].label();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(queries.iter().map(|query| query.head.0))),
        Arc::new(UInt32Array::from_iter_values(queries.iter().map(|query| query.relation.0))),
        Arc::new(StringArray::from_iter_values(queries.iter().map(head_name))),
        Arc::new(StringArray::from_iter_values(
            queries.iter().map(|q| data.vocabulary.relation_label(q.relation)),
        )),
        Arc::new(neighbours.finish()),
    ];
    let mut scores = Matrix::zeros(0, 0);
    for teacher in teachers {
        teacher.model.scores(queries, &mut scores);
        columns.push(
            half_precision(&scores).map_err(|e| e.hint(format!("retrain teacher {}", teacher.modality)))?,
        );
    }
    RecordBatch::try_new(schema.clone(), columns).map_err(|e| Error::data(e.to_string()))
}

/// Scores as a fixed-size list column of f16.
fn half_precision(scores: &Matrix<f32>) -> Result<ArrayRef> {
    let mut halves = vec![f16::ZERO; scores.values().len()];
    halves.par_chunks_mut(1 << 16).zip(scores.values().par_chunks(1 << 16)).for_each(|(to, from)| {
        to.convert_from_f32_slice(from);
    });
    let largest = scores.values().par_iter().map(|score| score.abs()).reduce(|| 0.0, f32::max);
    if !scores.is_finite() || largest > f32::from(f16::MAX) {
        let message = format!("scores up to {largest} do not fit half precision (at most {})", f16::MAX);
        return Err(Error::new(Kind::Diverged, message));
    }
    let values = Arc::new(Float16Array::new(ScalarBuffer::from(halves), None));
    let list =
        FixedSizeListArray::try_new(list_item(DataType::Float16), scores.columns() as i32, values, None);
    Ok(Arc::new(list.map_err(|e| Error::data(e.to_string()))?))
}
