//! The columns, and the number of rows in pages and row groups.

use arrow::datatypes::{DataType, Field, Schema};
use half::f16;
use mkg::graph::list_item;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use stage::Modality;

pub(crate) const FORMAT: u32 = 2;
/// Approximate bytes of all lists in a row group; bounds the memory of writing.
const GROUP_BYTES: usize = 64 << 20;
/// Approximate bytes of a page, the least that a reader of Parquet decodes.
const PAGE_BYTES: usize = 1 << 20;

pub(crate) fn scores_column(modality: &Modality) -> String {
    format!("scores_{modality}")
}

pub(crate) fn vector_column(modality: &Modality) -> String {
    format!("vector_{modality}")
}

/// The column of the entities whose scores a lossy cache keeps.
pub(crate) const TOP: &str = "top";

/// Columns of a teacher in a lossy cache, besides the kept scores: the scores of the query's neighbours, and the
/// log-sum-exp and the mean of the left-out scores.
pub(crate) fn excerpt_columns(modality: &Modality) -> [String; 3] {
    ["neighbour_scores", "rest", "rest_mean"].map(|kind| format!("{kind}_{modality}"))
}

/// Number of rows in a page, for rows of `bytes` bytes.
pub(crate) fn rows_per_page(bytes: usize) -> usize {
    (PAGE_BYTES / bytes.max(1)).max(1)
}

/// The shape of the cache.
pub(crate) struct Layout<'a> {
    pub(crate) entities: usize,
    /// Number of entities whose scores a row keeps besides its neighbours' scores; 0 for all.
    pub(crate) top: usize,
    /// Each teacher with the width of its query vectors.
    pub(crate) teachers: Vec<(&'a Modality, usize)>,
}

impl Layout<'_> {
    /// Number of scores in a list.
    fn scores(&self) -> usize {
        if self.top == 0 { self.entities } else { self.top }
    }

    /// Bytes of a row's lists, with `scores` scores in each list of scores.
    fn row_bytes(&self, scores: usize) -> usize {
        // The ids of the kept entities, and the numbers of all teachers.
        size_of::<u32>() * self.top
            + self.teachers.iter().map(|(_, vector)| size_of::<f16>() * (vector + scores)).sum::<usize>()
    }

    /// Bytes of the lists of `queries` queries with `neighbours` neighbours in total.
    pub(crate) fn bytes(&self, queries: usize, neighbours: usize) -> u64 {
        let lists = queries * self.row_bytes(self.scores());
        let excerpts = self.teachers.len() * (size_of::<f32>() * neighbours + 2 * size_of::<f64>() * queries);
        (if self.top == 0 { lists } else { lists + excerpts }) as u64
    }

    /// Number of rows in a row group; their scores are in memory at once.
    pub(crate) fn rows_per_group(&self) -> usize {
        (GROUP_BYTES / self.row_bytes(self.entities).max(1)).clamp(16, 4096)
    }

    /// Bytes for writing `parts` parts at once. Each needs one teacher's scores of a row group as f32 and as pages, or
    /// all teachers' scores as f32 and their kept part as numbers and as pages.
    pub(crate) fn memory(&self, parts: usize, rows_per_file: usize) -> u64 {
        let rows = self.rows_per_group().min(rows_per_file);
        let widest = self.teachers.iter().map(|(_, vector)| *vector).fold(self.scores(), usize::max);
        let a_row = match self.top {
            0 => widest * (4 + 2),
            top => self.teachers.len() * (self.entities + 2 * top) * 4 + 2 * 4 * top + widest * (4 + 2),
        };
        (parts * rows * a_row) as u64
    }

    pub(crate) fn schema(&self) -> Schema {
        let mut fields = vec![
            Field::new("head", DataType::UInt32, false),
            Field::new("relation", DataType::UInt32, false),
            Field::new("head_name", DataType::Utf8, false),
            Field::new("relation_name", DataType::Utf8, false),
            Field::new_list("neighbours", list_item(DataType::UInt32), false),
        ];
        let modalities = || self.teachers.iter().map(|(modality, _)| *modality);
        if self.top > 0 {
            for [neighbours, log_sum, mean] in modalities().map(excerpt_columns) {
                fields.push(Field::new_list(neighbours, list_item(DataType::Float32), false));
                fields.extend([log_sum, mean].map(|name| Field::new(name, DataType::Float64, false)));
            }
        }
        let vectors = self.teachers.iter().map(|(modality, width)| (vector_column(modality), *width));
        fields.extend(vectors.map(|(name, width)| list(&name, DataType::Float16, width)));
        if self.top > 0 {
            fields.push(list(TOP, DataType::UInt32, self.top));
        }
        let scores = modalities().map(scores_column);
        fields.extend(scores.map(|name| list(&name, DataType::Float16, self.scores())));
        Schema::new(fields)
    }

    /// Writer properties of the columns without a fixed width, and the metadata of the file.
    pub(crate) fn properties(&self) -> WriterProperties {
        let mut facts = vec![
            KeyValue::new("dsom.format".into(), FORMAT.to_string()),
            KeyValue::new("dsom.entities".into(), self.entities.to_string()),
        ];
        facts.extend((self.top > 0).then(|| KeyValue::new("dsom.top".into(), self.top.to_string())));
        WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(facts))
            .build()
    }
}

fn list(name: &str, item: DataType, width: usize) -> Field {
    Field::new_fixed_size_list(name, list_item(item), width as i32, false)
}
