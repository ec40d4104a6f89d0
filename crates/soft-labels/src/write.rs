//! Writer of the cache: parts in parallel, each in row groups of bounded size.

use arrow::array::{ArrayRef, StringArray, UInt32Array};
use half::f16;
use kge::{Matrix, Model, Scorer};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, compute_leaves};
use parquet::errors::ParquetError;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnDescPtr;
use program::Progress;
use rayon::prelude::*;
use stage::files::write_atomically;
use stage::work::Work;
use stage::{Error, Kind, Modality, Result, interrupt};
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use training::Data;

use crate::excerpt::{Excerpt, neighbour_lists};
use crate::pages::{Encoder, PIECE, Stored, fits_half};
use crate::schema::Layout;

/// A trained teacher.
pub struct TrainedTeacher {
    /// The teacher's modality.
    pub modality: Modality,
    /// The teacher's model.
    pub model: Model<f32>,
}

/// A teacher, and the scorer for its scores: its model, or a copy of the model on a device.
type ScoredTeacher<'a> = (&'a TrainedTeacher, &'a dyn Scorer);

/// The teachers, with their own models as scorers.
pub fn scored(teachers: &[TrainedTeacher]) -> Vec<ScoredTeacher<'_>> {
    teachers.iter().map(|teacher| (teacher, &teacher.model as _)).collect()
}

pub(crate) fn layout<'a>(
    data: &Data,
    teachers: impl IntoIterator<Item = &'a TrainedTeacher>,
    top: usize,
) -> Layout<'a> {
    let widths = teachers.into_iter().map(|teacher| (&teacher.modality, teacher.model.width()));
    Layout { entities: data.entities(), top, teachers: widths.collect() }
}

/// One file of the cache.
pub(crate) struct Part {
    /// The file's number, from 0.
    pub number: usize,
    /// The queries in the file's rows.
    pub rows: Range<usize>,
}

pub(crate) fn parts(queries: usize, rows_per_file: usize) -> Vec<Part> {
    let begins = (0..queries).step_by(rows_per_file).enumerate();
    begins.map(|(number, from)| Part { number, rows: from..(from + rows_per_file).min(queries) }).collect()
}

/// Writes parts with [`write_part`]. Keeps the parts that an interrupted run finished.
pub(crate) fn write_labels(
    work: &Work,
    data: &Data,
    teachers: &[ScoredTeacher<'_>],
    top: usize,
    parts: &[Part],
) -> Result<()> {
    let queries: usize = parts.iter().map(|part| part.rows.len()).sum();
    let progress = Progress::new("soft labels", queries, "queries");
    parts.par_iter().try_for_each(|part| {
        let name = format!("part-{:05}.parquet", part.number);
        if work.keeps(&name) {
            progress.advance(part.rows.len());
            return Ok(());
        }
        write_part(&work.path(&name), data, teachers, top, part.rows.clone(), &progress)?;
        work.keep(&name)
    })
}

/// Writes the queries `rows` as one file, whole or not at all, with all scores or excerpts with `top` entities.
pub fn write_part(
    path: &Path,
    data: &Data,
    teachers: &[ScoredTeacher<'_>],
    top: usize,
    rows: Range<usize>,
    progress: &Progress,
) -> Result<()> {
    let layout = layout(data, teachers.iter().map(|(teacher, _)| *teacher), top);
    let schema = Arc::new(layout.schema());
    // Reused for all row groups: fresh memory costs more than the work.
    let (mut encoder, mut of_one) = (Encoder::default(), Matrix::default());
    let mut of_all = vec![Matrix::default(); teachers.len()];
    write_atomically(path, |file| {
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(layout.properties()));
        let (mut writer, factory) = writer.and_then(ArrowWriter::into_serialized_writer).map_err(parquet)?;
        for (index, from) in rows.clone().step_by(layout.rows_per_group()).enumerate() {
            interrupt::check()?;
            let rows = from..(from + layout.rows_per_group()).min(rows.end);
            let queries = &data.queries.queries()[rows.clone()];
            let tails = rows.clone().flat_map(|row| data.queries.tails(row)).map(|tail| tail.0);
            let tails = Arc::new(UInt32Array::from_iter_values(tails));
            let mut facts = query_columns(data, rows.clone()).map(|(_, values)| values).to_vec();
            facts.push(neighbour_lists(&data.queries, &rows, tails));
            let excerpt = match top {
                0 => None,
                top => {
                    for ((teacher, scorer), scores) in teachers.iter().zip(&mut of_all) {
                        scorer.scores(queries, scores);
                        require_half(scores, "scores", &teacher.modality)?;
                    }
                    Some(Excerpt::of(&of_all, &data.queries, rows.clone(), top))
                }
            };
            facts.extend(excerpt.iter().flat_map(|excerpt| excerpt.columns(&data.queries, &rows)));
            let columns = factory.create_column_writers(index).map_err(parquet)?.into_iter();
            let facts = columns.zip(schema.fields()).zip(&facts).map(|((mut column, field), values)| {
                compute_leaves(field, values)?.iter().try_for_each(|leaf| column.write(leaf))?;
                column.close()
            });
            let facts = facts.collect::<Result<_, _>>().map_err(parquet)?;
            let mut group = Group::begin(&mut writer, facts, &mut encoder).map_err(parquet)?;
            for (TrainedTeacher { modality, model }, _) in teachers {
                model.queries(queries, &mut of_one);
                group.append_all(&of_one, "query vectors", modality)?;
            }
            match excerpt {
                None => {
                    for (teacher, scorer) in teachers {
                        scorer.scores(queries, &mut of_one);
                        group.append_all(&of_one, "scores", &teacher.modality)?;
                    }
                }
                Some(excerpt) => group.append_excerpt(&excerpt, top).map_err(parquet)?,
            }
            group.writer.close().map_err(parquet)?;
            progress.advance(rows.len());
        }
        writer.close().map_err(parquet)?;
        Ok(())
    })
}

fn parquet(error: ParquetError) -> Error {
    Error::new(Kind::Io, "cannot write Parquet").because(error)
}

/// Columns of the training queries `rows`, by name: ids and names of heads and relations.
pub fn query_columns(data: &Data, rows: Range<usize>) -> [(&'static str, ArrayRef); 4] {
    let (queries, vocabulary) = (&data.queries.queries()[rows], &data.vocabulary);
    let (heads, relations) = (queries.iter().map(|q| q.head), queries.iter().map(|q| q.relation));
    let head_names = heads.clone().map(|head| vocabulary.entities[head.index()].label());
    let relation_names = relations.clone().map(|relation| vocabulary.relation_label(relation));
    [
        ("head", Arc::new(UInt32Array::from_iter_values(heads.map(|head| head.0)))),
        ("relation", Arc::new(UInt32Array::from_iter_values(relations.map(|relation| relation.0)))),
        ("head_name", Arc::new(StringArray::from_iter_values(head_names))),
        ("relation_name", Arc::new(StringArray::from_iter_values(relation_names))),
    ]
}

/// A row group that knows its position in the file and its next column.
struct Group<'a, W: Write> {
    writer: SerializedRowGroupWriter<'a, W>,
    columns: std::vec::IntoIter<ColumnDescPtr>,
    offset: usize,
    encoder: &'a mut Encoder,
}

impl<'a, W: Write + Send> Group<'a, W> {
    fn begin(
        file: &'a mut SerializedFileWriter<W>,
        facts: Vec<ArrowColumnChunk>,
        encoder: &'a mut Encoder,
    ) -> Result<Self, ParquetError> {
        let columns = Vec::from(&file.schema_descr().columns()[facts.len()..]).into_iter();
        let mut offset = file.bytes_written();
        let mut writer = file.next_row_group()?;
        for chunk in facts {
            offset += chunk.close().bytes_written as usize;
            chunk.append_to_row_group(&mut writer)?;
        }
        Ok(Group { writer, columns, offset, encoder })
    }

    /// Appends rows of `width` numbers as the next list column; `false` if a number does not fit its stored type.
    fn append<S: Stored>(&mut self, numbers: &[S::Number], width: usize) -> Result<bool, ParquetError> {
        let column = self.columns.next().ok_or_else(|| ParquetError::General("no column is left".into()))?;
        let chunk = self.encoder.encode::<S>(&column, numbers, width, self.offset)?;
        let Some((bytes, close)) = chunk else { return Ok(false) };
        self.offset += bytes.0.len();
        self.writer.append_column(&bytes, close)?;
        Ok(true)
    }

    /// Appends a teacher's `rows`; `what` names them in an error.
    fn append_all(&mut self, rows: &Matrix<f32>, what: &str, modality: &Modality) -> Result<()> {
        let fit = self.append::<f16>(rows.values(), rows.columns()).map_err(parquet)?;
        if fit { Ok(()) } else { Err(beyond_half(rows, what, modality)) }
    }

    fn append_excerpt(&mut self, excerpt: &Excerpt, top: usize) -> Result<(), ParquetError> {
        self.append::<u32>(&excerpt.top, top)?;
        // The scores fit, since all scores have been checked.
        excerpt.scores.iter().try_for_each(|scores| self.append::<f16>(scores, top).map(drop))
    }
}

/// Refuses a teacher's `rows` that do not fit half precision; `what` names them in the error.
pub(crate) fn require_half(rows: &Matrix<f32>, what: &str, modality: &Modality) -> Result<()> {
    if rows.values().par_chunks(PIECE).all(fits_half) {
        return Ok(());
    }
    Err(beyond_half(rows, what, modality))
}

fn beyond_half(rows: &Matrix<f32>, what: &str, modality: &Modality) -> Error {
    let most = f32::from(f16::MAX);
    let largest = rows.values().iter().map(|x| x.abs()).fold(0.0, f32::max);
    let message = if largest <= most {
        format!("{what} are not numbers")
    } else {
        format!("{what} up to {largest} do not fit half precision (at most {most})")
    };
    Error::new(Kind::Diverged, message).hint(format!("retrain teacher {modality}"))
}
