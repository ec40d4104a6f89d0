//! One part as it lies on the disk: mapped, its ids checked against the graph, its rows found.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, SchemaRef, UInt32Type};
use bytes::Bytes;
use memmap2::Mmap;
use mkg::graph::column;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use stage::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use training::Data;

use crate::pages::levels;

/// A mapped file of the cache.
pub(crate) struct Part {
    path: PathBuf,
    bytes: Bytes,
    metadata: Arc<ParquetMetaData>,
    schema: SchemaRef,
}

impl Part {
    /// Maps a file and reads its footer.
    pub(crate) fn open(path: &Path) -> Result<Part> {
        let bytes = Bytes::from_owner(map(path)?);
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|e| unreadable(path, e))?;
        let (metadata, schema) = (builder.metadata().clone(), builder.schema().clone());
        Ok(Part { path: path.to_owned(), bytes, metadata, schema })
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many rows it has.
    pub(crate) fn rows(&self) -> usize {
        self.metadata.file_metadata().num_rows() as usize
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
        let builder = ParquetRecordBatchReaderBuilder::try_new(self.bytes.clone())
            .map_err(|e| unreadable(&self.path, e))?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["head", "relation"]);
        let batches = builder.with_projection(mask).build().map_err(|e| unreadable(&self.path, e))?;
        let mut ids = Vec::with_capacity(self.rows());
        for batch in batches {
            let batch = batch.map_err(|e| unreadable(&self.path, e))?;
            let column = |name: &str| {
                let ids = column(&batch, name)?.as_primitive_opt::<UInt32Type>();
                ids.ok_or_else(|| Error::data(format!("column `{name}` is not UInt32")))
            };
            let (heads, relations) = (column("head")?, column("relation")?);
            ids.extend(heads.values().iter().copied().zip(relations.values().iter().copied()));
        }
        Ok(ids)
    }

    /// How many numbers a row of the list column `name` has.
    pub(crate) fn width(&self, name: &str) -> Result<usize> {
        let field = self.schema.field_with_name(name);
        let field = field.map_err(|_| self.unexpected(format!("no column `{name}`")))?;
        match field.data_type() {
            DataType::FixedSizeList(item, width) if item.data_type() == &DataType::Float16 && *width > 0 => {
                Ok(*width as usize)
            }
            other => {
                Err(self.unexpected(format!("column `{name}` is {other}, no fixed-size list of Float16")))
            }
        }
    }

    /// Where in the file each row of the list column `name` begins.
    pub(crate) fn places(&self, name: &str) -> Result<Vec<u64>> {
        let width = self.width(name)?;
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
                let values = self.values(&page, width).ok_or_else(|| {
                    self.unexpected(format!("column `{name}` has pages this program did not write"))
                })?;
                places.extend(values.step_by(2 * width));
            }
        }
        match places.len() == self.rows() {
            true => Ok(places),
            false => Err(self.unexpected(format!("column `{name}` has {} rows", places.len()))),
        }
    }

    /// The bytes of a page's values, if it is one as [`crate::pages`] writes them.
    fn values(&self, page: &Page, width: usize) -> Option<std::ops::Range<u64>> {
        let Page::DataPage { buf, num_values, encoding: Encoding::PLAIN, .. } = page else { return None };
        let values = *num_values as usize;
        let length = 2 * values;
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

    fn unexpected(&self, message: String) -> Error {
        Error::data(message).at(&self.path).hint("rerun `dsom-soft-labels` with --force")
    }
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
