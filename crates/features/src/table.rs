//! The features of one modality: a row per entity, and a mark for each entity that has features.
//!
//! On disk, a table is a safetensors file with `features`, f32 `(entity, width)`, and `present`, u8 `(entity)`.

use arrow::array::{ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, StringArray, UInt32Array};
use arrow::datatypes::DataType;
use mkg::graph::{Entity, list_item, write_table};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use stage::files::{read_bytes, write_tensors};
use stage::{Error, Kind, Modality, Result};
use std::path::Path;
use std::sync::Arc;

/// The file's name in a modality's folder.
pub const FILE: &str = "features.safetensors";

/// Feature vectors of all entities.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureTable {
    /// The count of numbers per entity.
    pub width: usize,
    /// `(entity, width)`, row after row; zeros where the entity is absent.
    pub values: Vec<f32>,
    /// `(entity)`: true if the entity has features.
    pub present: Vec<bool>,
}

impl FeatureTable {
    /// A table of `entities` entities that are all absent.
    pub fn absent(entities: usize, width: usize) -> Self {
        FeatureTable { width, values: vec![0.0; entities * width], present: vec![false; entities] }
    }

    /// Sets the features of entity `i`; `row` has as many numbers as the table is wide.
    pub fn set(&mut self, i: usize, row: &[f32]) {
        self.values[i * self.width..(i + 1) * self.width].copy_from_slice(row);
        self.present[i] = true;
    }

    /// Sets the features of several entities; `rows` has their rows one after the other. A wrong count of numbers and
    /// an entity beyond the table are errors.
    pub(crate) fn take(&mut self, entities: &[usize], rows: &[f32]) -> Result<()> {
        if rows.len() != entities.len() * self.width || entities.iter().any(|i| *i >= self.entities()) {
            let message =
                format!("{} numbers for {} entities of width {}", rows.len(), entities.len(), self.width);
            return Err(Error::data(message).hint("written by another version? use --force"));
        }
        let rows = rows.chunks_exact(self.width.max(1));
        entities.iter().zip(rows).for_each(|(i, row)| self.set(*i, row));
        Ok(())
    }

    /// Marks entity `i` as absent.
    pub fn clear(&mut self, i: usize) {
        self.values[i * self.width..(i + 1) * self.width].fill(0.0);
        self.present[i] = false;
    }

    /// The number of entities, present or not.
    pub fn entities(&self) -> usize {
        self.present.len()
    }

    /// The features of entity `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    /// The number of entities that have features.
    pub fn count_present(&self) -> usize {
        self.present.iter().filter(|present| **present).count()
    }

    /// The share of entities that have features, 0 to 1.
    pub fn coverage(&self) -> f64 {
        let [present, all] = [self.count_present(), self.entities().max(1)].map(|count| count as f64);
        present / all
    }

    /// Refuses numbers that are not finite and absent entities whose row is not zero; the error names the row.
    pub fn check(&self) -> Result<()> {
        let rows = self.values.chunks_exact(self.width.max(1));
        for (i, (row, present)) in (0..).zip(rows.zip(&self.present)) {
            if let Some(column) = row.iter().position(|value| !value.is_finite()) {
                let message = format!("column {column} is {}, not a finite number", row[column]);
                return Err(Error::data(message).row(i));
            }
            if !present && row.iter().any(|value| *value != 0.0) {
                return Err(Error::data("marked absent, but not all zeros").row(i));
            }
        }
        Ok(())
    }

    /// Writes the table to `path` atomically; the same table always gives the same bytes.
    pub fn write(&self, path: &Path, modality: &Modality) -> Result<()> {
        self.check().map_err(|e| e.at(path))?;
        let (entities, bytes) = (self.entities(), self.values.len() * 4);
        let header = json!({
            "__metadata__": { "format": "1", "modality": modality },
            "features": { "dtype": "F32", "shape": [entities, self.width], "data_offsets": [0, bytes] },
            "present": { "dtype": "U8", "shape": [entities], "data_offsets": [bytes, bytes + entities] },
        });
        let present: Vec<u8> = self.present.iter().map(|present| u8::from(*present)).collect();
        write_tensors(path, &header, [bytemuck::cast_slice(&self.values), present.as_slice()])
    }

    /// Reads the table of a graph with `entities` entities. A number that is not finite is an error, and so is an
    /// absent entity whose row is not zero.
    pub fn read(path: &Path, entities: usize) -> Result<FeatureTable> {
        let bytes = read_bytes(path)?;
        parse(&bytes, entities).and_then(|table| table.check().map(|()| table)).map_err(|e| e.at(path))
    }

    /// Writes the table to `path` as Parquet, for people and tools: columns `id` (u32), `key`, `name` (may be null),
    /// `present` (boolean) and `features` (a fixed-size list of f32, zeros where the entity is absent).
    pub(crate) fn export(&self, path: &Path, entities: &[Entity]) -> Result<()> {
        let width = i32::try_from(self.width).unwrap_or(i32::MAX);
        let values = Arc::new(Float32Array::from(self.values.clone()));
        let features = FixedSizeListArray::try_new(list_item(DataType::Float32), width, values, None);
        let features = features.map_err(|e| Error::new(Kind::Unexpected, e.to_string()).at(path))?;
        let keys = entities.iter().map(|entity| &entity.key);
        let names = entities.iter().map(|entity| entity.name.as_deref());
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("id", Arc::new(UInt32Array::from_iter_values((0..).take(entities.len()))), false),
            ("key", Arc::new(StringArray::from_iter_values(keys)), false),
            ("name", Arc::new(names.collect::<StringArray>()), true),
            ("present", Arc::new(BooleanArray::from(self.present.clone())), false),
            ("features", Arc::new(features), false),
        ];
        write_table(path, columns)
    }
}

fn parse(bytes: &[u8], entities: usize) -> Result<FeatureTable> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| Error::data("not a whole safetensors file").because(e))?;
    let (features, present) = (tensor(&file, "features", Dtype::F32)?, tensor(&file, "present", Dtype::U8)?);
    let &[rows, width] = features.shape() else {
        return Err(Error::data(format!("tensor `features` has shape {:?}, not 2 axes", features.shape())));
    };
    if rows != entities || present.shape() != [entities] {
        let message = format!(
            "tensors `features` {:?} and `present` {:?}, but the graph has {entities} entities",
            features.shape(),
            present.shape()
        );
        return Err(Error::data(message).hint("were they made for another graph? rerun dsom-features"));
    }
    // The numbers may begin at an odd address, so they are copied, not cast.
    let values = features.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok(FeatureTable { width, values, present: present.data().iter().map(|byte| *byte != 0).collect() })
}

fn tensor<'a>(file: &SafeTensors<'a>, name: &str, dtype: Dtype) -> Result<TensorView<'a>> {
    let tensor = file.tensor(name).map_err(|_| Error::data(format!("no tensor `{name}`")))?;
    match tensor.dtype() {
        found if found == dtype => Ok(tensor),
        found => Err(Error::data(format!("tensor `{name}` is {found}, not {dtype}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Float32Type;
    use mkg::graph::{column, for_each_batch, texts};

    fn table() -> FeatureTable {
        let mut table = FeatureTable::absent(3, 2);
        table.set(0, &[1.0, 2.0]);
        table.set(2, &[-1.5, 0.0]);
        table
    }

    fn written(table: &FeatureTable) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        table.write(&path, &"visual".parse().unwrap()).unwrap();
        (dir, path)
    }

    #[test]
    fn a_table_survives_a_round_trip_and_is_always_the_same_bytes_that_others_read() {
        let (_a, first) = written(&table());
        let (_b, second) = written(&table());
        assert_eq!(FeatureTable::read(&first, 3).unwrap(), table());
        let bytes = std::fs::read(first).unwrap();
        assert_eq!(bytes, std::fs::read(second).unwrap());
        assert!((table().coverage() - 2.0 / 3.0).abs() < 1e-12);
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().as_ref().unwrap();
        assert_eq!((metadata["modality"].as_str(), metadata["format"].as_str()), ("visual", "1"));
        let tensors = candle_core::safetensors::load_buffer(&bytes, &candle_core::Device::Cpu).unwrap();
        assert_eq!(tensors.len(), 2);
        let (_dir, path) = written(&FeatureTable::absent(0, 4));
        let nobody = FeatureTable::read(&path, 0).unwrap();
        assert_eq!((nobody.width, nobody.coverage()), (4, 0.0));
    }

    #[test]
    fn damage_is_named_with_its_row() {
        let graphs = "[3, 2] and `present` [3], but the graph has 4 entities";
        for (at, number, entities, said) in [
            (20, f32::NAN, 3, "features.safetensors: row 2: column 1 is NaN, not a finite number"),
            (8, 1.0, 3, "row 1: marked absent, but not all zeros"),
            (0, 1.0, 4, graphs),
        ] {
            let (_dir, path) = written(&table());
            let mut file = std::fs::read(&path).unwrap();
            let tensors = file.len() - 3 * 2 * 4 - 3;
            file[tensors + at..][..4].copy_from_slice(&number.to_le_bytes());
            std::fs::write(&path, file).unwrap();
            let error = FeatureTable::read(&path, entities).unwrap_err();
            assert!(error.kind() == Kind::Data && error.to_string().ends_with(said), "{error}");
        }
        let mut broken = table();
        broken.values[1] = f32::INFINITY;
        let refused = broken.write(Path::new("x"), &"visual".parse().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("row 0"), "{refused}");
        let (_dir, path) = written(&table());
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert_eq!(FeatureTable::read(&path, 3).unwrap_err().kind(), Kind::Data, "{length} bytes");
        }
    }

    #[test]
    fn every_row_is_exported() {
        let keys: Vec<String> = (0..5003).map(|i| format!("Q{i}")).collect();
        let entities = keys.iter().map(|key| Entity { key: key.clone(), ..Entity::default() });
        let mut table = FeatureTable::absent(keys.len(), 2);
        (0..keys.len()).filter(|i| i % 3 != 0).for_each(|i| table.set(i, &[i as f32, -0.5]));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        table.export(&path, &entities.collect::<Vec<_>>()).unwrap();
        let (mut back, mut named) = (FeatureTable::absent(0, 2), Vec::new());
        for_each_batch(&path, |batch| {
            let features = column(batch, "features")?.as_fixed_size_list().values();
            back.values.extend(features.as_primitive::<Float32Type>().values());
            back.present.extend(column(batch, "present")?.as_boolean().values());
            named.extend(texts(batch, "key")?.iter().map(|key| key.unwrap().to_owned()));
            Ok(())
        })
        .unwrap();
        assert!(back == table && named == keys);
    }
}
