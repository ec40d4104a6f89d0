//! The columns, and how many rows lie together.

use arrow::datatypes::{DataType, Field, Schema};
use mkg::graph::list_item;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use stage::Modality;

/// Version of the layout.
pub(crate) const FORMAT: u32 = 2;
/// Bytes of all lists per row group, about: bounds the memory of writing.
const GROUP_BYTES: usize = 64 << 20;
/// Bytes per page, about: what a reader of Parquet decodes at least.
const PAGE_BYTES: usize = 1 << 20;

/// The column of a teacher's scores.
pub(crate) fn scores_column(modality: &Modality) -> String {
    format!("scores_{modality}")
}

/// The column of a teacher's query vectors.
pub(crate) fn vector_column(modality: &Modality) -> String {
    format!("vector_{modality}")
}

/// Rows of lists of `width` that make a page.
pub(crate) fn rows_per_page(width: usize) -> usize {
    (PAGE_BYTES / (2 * width).max(1)).max(1)
}

/// The shape of the cache: how many scores a list has, and each teacher's width of a query vector.
pub(crate) struct Layout<'a> {
    pub(crate) entities: usize,
    pub(crate) teachers: Vec<(&'a Modality, usize)>,
}

impl Layout<'_> {
    /// Bytes of a row's lists.
    fn row_bytes(&self) -> usize {
        self.teachers.iter().map(|(_, vector)| 2 * (vector + self.entities)).sum()
    }

    /// Bytes that the lists of so many queries take.
    pub(crate) fn bytes(&self, queries: usize) -> u64 {
        queries as u64 * self.row_bytes() as u64
    }

    /// Rows of a row group.
    pub(crate) fn rows_per_group(&self) -> usize {
        (GROUP_BYTES / self.row_bytes().max(1)).clamp(16, 4096)
    }

    /// Bytes that writing one part takes: one teacher's scores of a row group as f32 and as pages.
    pub(crate) fn memory(&self, rows_per_file: usize) -> u64 {
        let widest = self.teachers.iter().map(|(_, vector)| *vector).fold(self.entities, usize::max);
        (self.rows_per_group().min(rows_per_file) * widest) as u64 * (4 + 2)
    }

    pub(crate) fn schema(&self) -> Schema {
        let list = |name: String, width: usize| {
            Field::new(name, DataType::FixedSizeList(list_item(DataType::Float16), width as i32), false)
        };
        let mut fields = vec![
            Field::new("head", DataType::UInt32, false),
            Field::new("relation", DataType::UInt32, false),
            Field::new("head_name", DataType::Utf8, false),
            Field::new("relation_name", DataType::Utf8, false),
            Field::new("neighbours", DataType::List(list_item(DataType::UInt32)), false),
        ];
        fields.extend(self.teachers.iter().map(|(modality, width)| list(vector_column(modality), *width)));
        fields.extend(self.teachers.iter().map(|(modality, _)| list(scores_column(modality), self.entities)));
        Schema::new(fields)
    }

    /// How the columns that are no lists of numbers are written, and what the file says of itself.
    pub(crate) fn properties(&self) -> WriterProperties {
        WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(vec![
                KeyValue::new("dsom.format".into(), FORMAT.to_string()),
                KeyValue::new("dsom.entities".into(), self.entities.to_string()),
            ]))
            .build()
    }
}
