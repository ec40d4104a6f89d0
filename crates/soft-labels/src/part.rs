//! One part on the disk: it is mapped, its ids are checked against the graph, and its rows are found.

use arrow::array::{Array, AsArray, Float64Array, ListArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Float32Type, SchemaRef};
use bytes::Bytes;
use memmap2::Mmap;
use mkg::graph::{column, for_each_batch_of, numbers};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Encoding;
use parquet::column::page::Page;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use stage::{Error, Modality, Result};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use training::Data;

use crate::excerpt::{Rest, TeacherExcerpt, ids};
use crate::pages::{Stored, levels};
use crate::schema::{TOP, excerpt_columns};

pub(crate) struct CacheFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Bytes,
    metadata: Arc<ParquetMetaData>,
    schema: SchemaRef,
}

impl CacheFile {
    pub(crate) fn open(path: &Path) -> Result<CacheFile> {
        let bytes = Bytes::from_owner(map(path)?);
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone());
        let builder = builder.map_err(|e| unreadable(e).at(path))?;
        let (metadata, schema) = (builder.metadata().clone(), builder.schema().clone());
        let part = CacheFile { path: path.to_owned(), bytes, metadata, schema };
        // The parquet crate panics if a chunk's place is impossible in any file.
        for chunk in part.metadata.row_groups().iter().flat_map(RowGroupMetaData::columns) {
            let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
            if start < 0 || chunk.compressed_size() < 0 {
                return Err(part.unexpected("its footer is damaged"));
            }
        }
        Ok(part)
    }

    /// Number of rows; a damaged footer can give any number.
    pub(crate) fn rows(&self) -> usize {
        usize::try_from(self.metadata.file_metadata().num_rows()).unwrap_or(usize::MAX)
    }

    /// Checks that the rows are the graph's queries from `first` on.
    pub(crate) fn check_queries(&self, data: &Data, first: usize) -> Result<()> {
        let mut rows = first..;
        for_each_batch_of(self.bytes.clone(), &self.path, Some(&["head", "relation"]), |batch| {
            let heads: &UInt32Array = numbers(batch, "head")?;
            let relations: &UInt32Array = numbers(batch, "relation")?;
            for ((head, relation), row) in heads.values().iter().zip(relations.values()).zip(&mut rows) {
                let query = data.queries.queries().get(row);
                if query.is_none_or(|query| (query.head.0, query.relation.0) != (*head, *relation)) {
                    let message = format!("query ({head}, {relation}) is not what the graph has at this row");
                    return Err(Error::data(message).row(row).hint("rerun `dsom-soft-labels`"));
                }
            }
            Ok(())
        })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.schema.field_with_name(name).is_ok()
    }

    /// Number of values in a row of the list column `name`.
    pub(crate) fn width<S: Stored>(&self, name: &str) -> Result<usize> {
        let field = self.schema.field_with_name(name);
        let field = field.map_err(|_| self.unexpected(format!("no column `{name}`")))?;
        match field.data_type() {
            DataType::FixedSizeList(item, width) if item.data_type() == &S::TYPE && *width > 0 => {
                Ok(*width as usize)
            }
            other => {
                Err(self.unexpected(format!("column `{name}` is {other}, no fixed-size list of {}", S::TYPE)))
            }
        }
    }

    /// Offsets in the file of all rows of the list column `name`.
    pub(crate) fn places<S: Stored>(&self, name: &str) -> Result<Vec<usize>> {
        let width = self.width::<S>(name)?;
        let columns = self.metadata.file_metadata().schema_descr().columns();
        let column = columns.iter().position(|column| column.path().parts()[0] == name);
        let column = column.ok_or_else(|| self.unexpected(format!("no column `{name}`")))?;
        let mut places = Vec::with_capacity(self.rows());
        for group in self.metadata.row_groups() {
            let bytes = Arc::new(self.bytes.clone());
            let rows = group.num_rows() as usize;
            let pages = SerializedPageReader::new(bytes, group.column(column), rows, None);
            for page in pages.map_err(|e| unreadable(e).at(&self.path))? {
                let page = page.map_err(|e| unreadable(e).at(&self.path))?;
                let values = self.values(&page, width, size_of::<S>()).ok_or_else(|| {
                    self.unexpected(format!("column `{name}` has pages this program did not write"))
                })?;
                places.extend(values.step_by(size_of::<S>() * width));
            }
        }
        self.require_rows(name, places.len())?;
        Ok(places)
    }

    fn require_rows(&self, name: &str, rows: usize) -> Result<()> {
        if rows == self.rows() {
            return Ok(());
        }
        Err(self.unexpected(format!("column `{name}` has {rows} rows")))
    }

    /// The byte range of a page's values, of `size` bytes each, if [`crate::pages`] writes such pages.
    fn values(&self, page: &Page, width: usize, size: usize) -> Option<Range<usize>> {
        let Page::DataPage { buf, num_values, encoding: Encoding::PLAIN, .. } = page else { return None };
        let values = *num_values as usize;
        let length = size * values;
        let before = buf.len().checked_sub(length)?;
        let rows = values / width;
        let are_ours = [false, true].iter().any(|wide| buf[..before] == levels(rows, width, *wide));
        // An uncompressed page is a piece of the file, not a copy.
        let offset = buf.as_ptr().addr().checked_sub(self.bytes.as_ptr().addr())? + before;
        let is_within = offset.is_multiple_of(2) && offset + length <= self.bytes.len();
        (values.is_multiple_of(width) && are_ours && is_within).then_some(offset..offset + length)
    }

    /// Checks that the ids, `width` at each of `places`, belong to entities; the first row has number `first`.
    pub(crate) fn check_top(
        &self,
        places: impl Iterator<Item = usize>,
        width: usize,
        entities: usize,
        first: usize,
    ) -> Result<()> {
        for (from, row) in places.zip(first..) {
            let bytes = &self.bytes[from..from + size_of::<u32>() * width];
            if let Some(other) = ids(bytes).find(|entity| entity.index() >= entities) {
                let message = format!("column `{TOP}`: entity {}, but the graph has {entities}", other.0);
                return Err(self.unexpected(message).row(row));
            }
        }
        Ok(())
    }

    /// A teacher's excerpts; the rows are the graph's queries from `first` on.
    pub(crate) fn excerpts(&self, modality: &Modality, data: &Data, first: usize) -> Result<TeacherExcerpt> {
        let names = excerpt_columns(modality);
        let [scores, log_sum, mean] = names.each_ref().map(String::as_str);
        let mut excerpts = TeacherExcerpt::default();
        for_each_batch_of(self.bytes.clone(), &self.path, Some(&[scores, log_sum, mean]), |batch| {
            let scores = lists(batch, scores)?;
            let [log_sums, means]: [&Float64Array; 2] = [numbers(batch, log_sum)?, numbers(batch, mean)?];
            for row in 0..batch.num_rows() {
                let query = first + excerpts.rests.len();
                let rest = Rest { log_sum: log_sums.value(row), mean: means.value(row) };
                if rest.log_sum.is_nan() || !rest.mean.is_finite() {
                    let message = format!("column `{log_sum}` or `{mean}` is no number");
                    return Err(self.unexpected(message).row(query));
                }
                let (scores, neighbours) = (scores.value(row), data.queries.tails(query).len());
                if scores.len() != neighbours {
                    let found = scores.len();
                    let message = format!("{found} scores of neighbours, the graph has {neighbours}");
                    return Err(self.unexpected(message).row(query));
                }
                excerpts.neighbours.extend(scores.as_primitive::<Float32Type>().values());
                excerpts.rests.push(rest);
            }
            Ok(())
        })?;
        self.require_rows(log_sum, excerpts.rests.len())?;
        Ok(excerpts)
    }

    fn unexpected(&self, message: impl Into<String>) -> Error {
        Error::data(message).at(&self.path).hint("rerun `dsom-soft-labels` with --force")
    }
}

fn lists<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ListArray> {
    let lists = column(batch, name)?.as_list_opt::<i32>();
    let lists = lists.filter(|lists| lists.value_type() == DataType::Float32);
    lists.ok_or_else(|| Error::data(format!("column `{name}` is no list of Float32")))
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::data("not a readable Parquet file").because(error)
}

#[expect(unsafe_code, reason = "mapping a file is unsafe: another process could change it")]
fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the parts of a finished stage are renamed into place whole. Later they are replaced or removed by name,
    // never written to, and a process that has a part mapped keeps its content.
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))
}
