//! One part as it lies on the disk: mapped, its ids checked against the graph, its rows found.

use arrow::array::{Array, AsArray, Float64Array, ListArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Float32Type, SchemaRef};
use bytes::Bytes;
use memmap2::Mmap;
use mkg::graph::{column, numbers};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use stage::{Error, Modality, Result, caught};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use training::Data;

use crate::excerpt::{Rest, TeacherExcerpt, ids};
use crate::pages::{Stored, levels};
use crate::schema::{TOP, neighbour_scores_column, rest_column, rest_mean_column};

/// A mapped file of the cache.
pub(crate) struct CacheFile {
    path: PathBuf,
    bytes: Bytes,
    metadata: Arc<ParquetMetaData>,
    schema: SchemaRef,
}

impl CacheFile {
    /// Maps a file and reads its footer.
    pub(crate) fn open(path: &Path) -> Result<CacheFile> {
        let bytes = Bytes::from_owner(map(path)?);
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|e| unreadable(path, e))?;
        let (metadata, schema) = (builder.metadata().clone(), builder.schema().clone());
        let part = CacheFile { path: path.to_owned(), bytes, metadata, schema };
        if part.metadata.row_groups().iter().flat_map(RowGroupMetaData::columns).all(is_somewhere) {
            Ok(part)
        } else {
            Err(part.unexpected("its footer is damaged".to_owned()))
        }
    }

    /// Path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Number of its rows; a damaged footer may say anything.
    pub(crate) fn rows(&self) -> usize {
        usize::try_from(self.metadata.file_metadata().num_rows()).unwrap_or(usize::MAX)
    }

    /// Checks that the rows are the graph's queries from `first` on.
    pub(crate) fn check_queries(&self, data: &Data, first: usize) -> Result<()> {
        let queries = data.queries.queries().get(first..).unwrap_or_default();
        let ids = self.ids().map_err(|e| e.at(&self.path))?;
        for (row, &(head, relation)) in ids.iter().enumerate() {
            if queries.get(row).map(|query| (query.head.0, query.relation.0)) != Some((head, relation)) {
                let message = format!("query ({head}, {relation}) is not what the graph has at this row");
                let error = Error::data(message).at(&self.path).row((first + row) as u64);
                return Err(error.hint("rerun `dsom-soft-labels`"));
            }
        }
        Ok(())
    }

    /// Head and relation of each row.
    fn ids(&self) -> Result<Vec<(u32, u32)>> {
        let mut ids = Vec::with_capacity(self.rows());
        self.for_each_batch(&["head", "relation"], |batch| {
            let heads: &UInt32Array = numbers(batch, "head")?;
            let relations: &UInt32Array = numbers(batch, "relation")?;
            ids.extend(heads.values().iter().copied().zip(relations.values().iter().copied()));
            Ok(())
        })?;
        Ok(ids)
    }

    /// Visits batches of rows of some columns.
    fn for_each_batch(&self, names: &[&str], mut each: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let visit = || -> Result<()> {
            let builder = ParquetRecordBatchReaderBuilder::try_new(self.bytes.clone())
                .map_err(|e| unreadable(&self.path, e))?;
            let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
            for batch in builder.with_projection(mask).build().map_err(|e| unreadable(&self.path, e))? {
                each(&batch.map_err(|e| unreadable(&self.path, e))?)?;
            }
            Ok(())
        };
        // Pages can be damaged such that their decoder panics.
        caught(visit).unwrap_or_else(|| Err(self.unexpected("its pages are damaged".to_owned())))
    }

    /// Tells whether there is a column `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.schema.field_with_name(name).is_ok()
    }

    /// Number of numbers in a row of the list column `name`.
    pub(crate) fn width<S: Stored>(&self, name: &str) -> Result<usize> {
        let field = self.schema.field_with_name(name);
        let field = field.map_err(|_| self.unexpected(format!("no column `{name}`")))?;
        match field.data_type() {
            DataType::FixedSizeList(item, width) if item.data_type() == &S::TYPE && *width > 0 => {
                Ok(*width as usize)
            }
            other => {
                let message = format!("column `{name}` is {other}, no fixed-size list of {}", S::TYPE);
                Err(self.unexpected(message))
            }
        }
    }

    /// Offset in the file of each row of the list column `name`.
    pub(crate) fn places<S: Stored>(&self, name: &str) -> Result<Vec<u64>> {
        let width = self.width::<S>(name)?;
        let columns = self.metadata.file_metadata().schema_descr().columns();
        let column = columns.iter().position(|column| column.path().parts()[0] == name);
        let column = column.ok_or_else(|| self.unexpected(format!("no column `{name}`")))?;
        let mut places = Vec::with_capacity(self.rows());
        for group in self.metadata.row_groups() {
            let unreadable = |e| unreadable(&self.path, e);
            let bytes = Arc::new(self.bytes.clone());
            let rows = group.num_rows() as usize;
            let mut pages =
                SerializedPageReader::new(bytes, group.column(column), rows, None).map_err(unreadable)?;
            while let Some(page) = pages.get_next_page().map_err(unreadable)? {
                let values = self.values(&page, width, size_of::<S>()).ok_or_else(|| {
                    self.unexpected(format!("column `{name}` has pages this program did not write"))
                })?;
                places.extend(values.step_by(size_of::<S>() * width));
            }
        }
        if places.len() == self.rows() {
            Ok(places)
        } else {
            Err(self.unexpected(format!("column `{name}` has {} rows", places.len())))
        }
    }

    /// The bytes of a page's values, of `size` bytes each, if it is one as [`crate::pages`] writes them.
    fn values(&self, page: &Page, width: usize, size: usize) -> Option<std::ops::Range<u64>> {
        let Page::DataPage { buf, num_values, encoding: Encoding::PLAIN, .. } = page else { return None };
        let values = *num_values as usize;
        let length = size * values;
        let before = buf.len().checked_sub(length)?;
        let rows = values / width;
        let ours = |wide| buf[..before] == levels(rows, width, wide);
        if !values.is_multiple_of(width) || !(ours(false) || ours(true)) {
            return None;
        }
        // An uncompressed page is a piece of the file, not a copy.
        let offset = (buf.as_ptr() as usize).checked_sub(self.bytes.as_ptr() as usize)? + before;
        let within = offset.is_multiple_of(2) && offset + length <= self.bytes.len();
        within.then_some(offset as u64..(offset + length) as u64)
    }

    /// Checks that the ids at `places`, so many in each, are of entities; the first row is number `first`.
    pub(crate) fn check_top(
        &self,
        places: impl Iterator<Item = u64>,
        width: usize,
        entities: usize,
        first: usize,
    ) -> Result<()> {
        for (row, place) in places.enumerate() {
            let from = place as usize;
            let bytes = &self.bytes[from..from + size_of::<u32>() * width];
            if let Some(other) = ids(bytes).find(|entity| *entity >= entities) {
                let message = format!("column `{TOP}`: entity {other}, but the graph has {entities}");
                return Err(self.unexpected(message).row((first + row) as u64));
            }
        }
        Ok(())
    }

    /// A teacher's excerpts, of rows that are the graph's queries from `first` on.
    pub(crate) fn excerpts(&self, modality: &Modality, data: &Data, first: usize) -> Result<TeacherExcerpt> {
        let names = [neighbour_scores_column(modality), rest_column(modality), rest_mean_column(modality)];
        let [scores, log_sum, mean] = names.each_ref().map(String::as_str);
        let mut excerpts = TeacherExcerpt::default();
        self.for_each_batch(&[scores, log_sum, mean], |batch| {
            let scores = lists(batch, scores)?;
            let [log_sums, means]: [&Float64Array; 2] = [numbers(batch, log_sum)?, numbers(batch, mean)?];
            for row in 0..batch.num_rows() {
                let query = first + excerpts.rests.len();
                let rest = Rest { log_sum: log_sums.value(row), mean: means.value(row) };
                let wrong = |message: String| self.unexpected(message).row(query as u64);
                if rest.log_sum.is_nan() || !rest.mean.is_finite() {
                    return Err(wrong(format!("column `{log_sum}` or `{mean}` is no number")));
                }
                let (scores, neighbours) = (scores.value(row), data.queries.tails(query).len());
                if scores.len() != neighbours {
                    let found = scores.len();
                    return Err(wrong(format!("{found} scores of neighbours, the graph has {neighbours}")));
                }
                excerpts.neighbours.extend(scores.as_primitive::<Float32Type>().values());
                excerpts.rests.push(rest);
            }
            Ok(())
        })
        .map_err(|e| e.at(&self.path))?;
        if excerpts.rests.len() == self.rows() {
            Ok(excerpts)
        } else {
            Err(self.unexpected(format!("column `{log_sum}` has {} rows", excerpts.rests.len())))
        }
    }

    fn unexpected(&self, message: String) -> Error {
        Error::data(message).at(&self.path).hint("rerun `dsom-soft-labels` with --force")
    }
}

/// Tells whether a chunk could be in a file at all: parquet panics where it could not.
fn is_somewhere(chunk: &ColumnChunkMetaData) -> bool {
    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    start >= 0 && chunk.compressed_size() >= 0
}

/// A column of lists of f32.
fn lists<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ListArray> {
    let lists = column(batch, name)?.as_list_opt::<i32>();
    let lists = lists.filter(|lists| lists.value_type() == DataType::Float32);
    lists.ok_or_else(|| Error::data(format!("column `{name}` is no list of Float32")))
}

fn unreadable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::data("not a readable Parquet file").at(path).because(error)
}

#[expect(unsafe_code, reason = "mapping a file is unsafe: another process could change it")]
fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the parts of a finished stage are renamed into place whole, and later replaced or removed by name,
    // never written to; who has one mapped keeps it.
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))
}
