//! Features as Parquet, for people and tools: columns `id` (u32), `key`, `name` (may be null), `present` (boolean) and
//! `features` (a fixed-size list of f32, zeros where the entity is absent).

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, RecordBatch, StringArray, UInt32Array,
};
use arrow::datatypes::DataType;
use mkg::graph::{Entity, list_item};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use stage::files::write_atomically;
use stage::{Error, Kind, Result};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::FeatureTable;

/// Rows that are copied at a time.
const ROWS: usize = 4096;

/// Writes the features of `entities` to `path`.
pub(crate) fn write(path: &Path, table: &FeatureTable, entities: &[Entity]) -> Result<()> {
    let failed =
        |e: &dyn std::error::Error| Error::new(Kind::Io, format!("cannot write Parquet: {e}")).at(path);
    // Numbers of an encoder hardly ever repeat.
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .build();
    let empty = batch(table, entities, 0..0).map_err(|e| failed(&e))?;
    write_atomically(path, |file| {
        let mut writer =
            ArrowWriter::try_new(file, empty.schema(), Some(properties)).map_err(|e| failed(&e))?;
        for first in (0..entities.len()).step_by(ROWS) {
            let rows = first..entities.len().min(first + ROWS);
            let batch = batch(table, entities, rows).map_err(|e| failed(&e))?;
            writer.write(&batch).map_err(|e| failed(&e))?;
        }
        writer.close().map(|_| ()).map_err(|e| failed(&e))
    })
}

fn batch(table: &FeatureTable, entities: &[Entity], rows: Range<usize>) -> arrow::error::Result<RecordBatch> {
    let (own, width) = (&entities[rows.clone()], table.width);
    let values = Float32Array::from(table.values[rows.start * width..rows.end * width].to_vec());
    let features =
        FixedSizeListArray::try_new(list_item(DataType::Float32), width as i32, Arc::new(values), None)?;
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("id", Arc::new(UInt32Array::from_iter_values(rows.start as u32..rows.end as u32)), false),
        ("key", Arc::new(StringArray::from_iter_values(own.iter().map(|entity| &entity.key))), false),
        ("name", Arc::new(own.iter().map(|entity| entity.name.as_deref()).collect::<StringArray>()), true),
        ("present", Arc::new(BooleanArray::from(table.present[rows].to_vec())), false),
        ("features", Arc::new(features), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Float32Type;

    #[test]
    fn every_row_comes_back_across_batches() {
        let count = ROWS + 3;
        let entities: Vec<Entity> =
            (0..count).map(|i| Entity { key: format!("Q{i}"), ..Entity::default() }).collect();
        let mut table = FeatureTable::absent(count, 2);
        (0..count).filter(|i| i % 3 != 0).for_each(|i| table.set(i, &[i as f32, -0.5]));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        write(&path, &table, &entities).unwrap();
        let mut back = FeatureTable::absent(count, 2);
        let mut keys = Vec::new();
        mkg::graph::for_each_batch(&path, |batch| {
            let column = |name| mkg::graph::column(batch, name).unwrap();
            let values =
                column("features").as_fixed_size_list().values().as_primitive::<Float32Type>().clone();
            for (row, key) in column("key").as_string::<i32>().iter().enumerate() {
                if column("present").as_boolean().value(row) {
                    back.set(keys.len(), &values.values()[row * 2..][..2]);
                }
                keys.push(key.unwrap().to_owned());
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(back, table);
        assert_eq!((keys.len(), keys.last().unwrap().as_str()), (count, format!("Q{}", count - 1).as_str()));
    }
}
