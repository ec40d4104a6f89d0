//! Features as Parquet, for people and tools: columns `id` (u32), `key`, `name` (may be null), `present` (boolean) and
//! `features` (a fixed-size list of f32, zeros where the entity is absent).

use arrow::array::{ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, StringArray, UInt32Array};
use arrow::datatypes::DataType;
use mkg::graph::{Entity, list_item, write_table};
use stage::{Error, Kind, Result};
use std::path::Path;
use std::sync::Arc;

use crate::FeatureTable;

/// Writes the features of `entities` to `path`.
pub(crate) fn write(path: &Path, table: &FeatureTable, entities: &[Entity]) -> Result<()> {
    let width = i32::try_from(table.width).unwrap_or(i32::MAX);
    let values = Arc::new(Float32Array::from(table.values.clone()));
    let features = FixedSizeListArray::try_new(list_item(DataType::Float32), width, values, None);
    let features = features.map_err(|e| Error::new(Kind::Unexpected, e.to_string()).at(path))?;
    let names = entities.iter().map(|entity| entity.name.as_deref());
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("id", Arc::new(UInt32Array::from_iter_values((0..).take(entities.len()))), false),
        ("key", Arc::new(StringArray::from_iter_values(entities.iter().map(|entity| &entity.key))), false),
        ("name", Arc::new(names.collect::<StringArray>()), true),
        ("present", Arc::new(BooleanArray::from(table.present.clone())), false),
        ("features", Arc::new(features), false),
    ];
    write_table(path, columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Float32Type;

    #[test]
    fn every_row_comes_back() {
        let count = 5003;
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
