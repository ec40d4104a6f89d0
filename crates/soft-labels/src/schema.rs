//! The columns, and how Parquet is told to store them.

use arrow::datatypes::{DataType, Field, Schema};
use mkg::graph::list_item;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use stage::Modality;

/// Version of the layout.
pub(crate) const FORMAT: &str = "1";
/// Score bytes per row group, about: bounds the memory of writing and reading.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// The column of a teacher's scores.
pub(crate) fn scores_column(modality: &Modality) -> String {
    format!("scores_{modality}")
}

/// What a row group of so many entities and teachers holds.
pub(crate) fn rows_per_group(entities: usize, teachers: usize) -> usize {
    (ROW_GROUP_BYTES / (2 * entities * teachers).max(1)).clamp(16, 4096)
}

/// Bytes that all scores take.
pub(crate) fn scores_bytes(queries: usize, entities: usize, teachers: usize) -> u64 {
    2 * (queries * entities * teachers) as u64
}

pub(crate) fn schema(entities: usize, teachers: &[&Modality]) -> Schema {
    let scores = DataType::FixedSizeList(list_item(DataType::Float16), entities as i32);
    let mut fields = vec![
        Field::new("head", DataType::UInt32, false),
        Field::new("relation", DataType::UInt32, false),
        Field::new("head_name", DataType::Utf8, false),
        Field::new("relation_name", DataType::Utf8, false),
        Field::new("neighbours", DataType::List(list_item(DataType::UInt32)), false),
    ];
    fields.extend(teachers.iter().map(|modality| Field::new(scores_column(modality), scores.clone(), false)));
    Schema::new(fields)
}

pub(crate) fn properties(schema: &Schema, entities: usize) -> WriterProperties {
    let teachers = schema.fields().iter().filter(|field| field.name().starts_with("scores_")).count();
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(rows_per_group(entities, teachers)))
        .set_key_value_metadata(Some(vec![
            KeyValue::new("dsom.format".into(), FORMAT.to_owned()),
            KeyValue::new("dsom.entities".into(), entities.to_string()),
        ]));
    for field in schema.fields().iter().filter(|field| field.name().starts_with("scores_")) {
        let column = ColumnPath::new(vec![field.name().clone(), "list".into(), "item".into()]);
        builder = builder
            .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
            .set_column_encoding(column.clone(), Encoding::PLAIN)
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    builder.build()
}
