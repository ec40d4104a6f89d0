//! The features of one modality: a row per entity, and whether the entity has any.
//!
//! On disk it is a safetensors file with `features`, f32 `(entity, width)`, and `present`, u8 `(entity)`.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use stage::files::{read_bytes, write_tensors};
use stage::{Error, Modality, Result};
use std::path::Path;

/// The file's name in a modality's folder.
pub const FILE: &str = "features.safetensors";
/// Version of the file's layout.
const FORMAT: &str = "1";

/// Feature vectors of all entities.
///
/// ```
/// use dsom_features::FeatureTable;
/// let mut table = FeatureTable::absent(3, 2);
/// table.set(1, &[0.5, -0.5]);
/// assert_eq!(table.row(1), [0.5, -0.5]);
/// assert_eq!(table.row(2), [0.0, 0.0]);
/// assert_eq!(table.present, [false, true, false]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureTable {
    /// Numbers per entity.
    pub width: usize,
    /// `(entity, width)`, row after row; zeros where the entity is absent.
    pub values: Vec<f32>,
    /// `(entity)`: whether the entity has features.
    pub present: Vec<bool>,
}

impl FeatureTable {
    /// A table in which every one of so many `entities` is absent.
    pub fn absent(entities: usize, width: usize) -> Self {
        FeatureTable { width, values: vec![0.0; entities * width], present: vec![false; entities] }
    }

    /// Gives entity `i` its features; `row` has as many numbers as the table is wide.
    pub fn set(&mut self, i: usize, row: &[f32]) {
        self.values[i * self.width..(i + 1) * self.width].copy_from_slice(row);
        self.present[i] = true;
    }

    /// Gives entities their features, `rows` one after the other.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where there are too few or too many numbers, or an entity is beyond the table.
    pub fn take(&mut self, entities: &[usize], rows: &[f32]) -> Result<()> {
        if rows.len() != entities.len() * self.width || entities.iter().any(|i| *i >= self.entities()) {
            let message =
                format!("{} numbers for {} entities of width {}", rows.len(), entities.len(), self.width);
            return Err(Error::data(message).hint("written by another version? use --force"));
        }
        let rows = rows.chunks_exact(self.width.max(1));
        entities.iter().zip(rows).for_each(|(i, row)| self.set(*i, row));
        Ok(())
    }

    /// Takes entity `i` its features.
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
        self.count_present() as f64 / self.entities().max(1) as f64
    }

    /// Refuses numbers that are not finite and absent entities whose row is not zero, naming the row.
    pub fn check(&self) -> Result<()> {
        for (i, present) in self.present.iter().enumerate() {
            let row = self.row(i);
            if let Some(column) = row.iter().position(|value| !value.is_finite()) {
                let message = format!("column {column} is {}, not a finite number", row[column]);
                return Err(Error::data(message).row(i as u64));
            }
            if !present && row.iter().any(|value| *value != 0.0) {
                return Err(Error::data("marked absent, but not all zeros").row(i as u64));
            }
        }
        Ok(())
    }

    /// Writes the table to `path`, atomically; the same table gives the same bytes.
    pub fn write(&self, path: &Path, modality: &Modality) -> Result<()> {
        self.check().map_err(|e| e.at(path))?;
        let (entities, bytes) = (self.entities(), self.values.len() * 4);
        let header = json!({
            "__metadata__": { "format": FORMAT, "modality": modality },
            "features": { "dtype": "F32", "shape": [entities, self.width], "data_offsets": [0, bytes] },
            "present": { "dtype": "U8", "shape": [entities], "data_offsets": [bytes, bytes + entities] },
        });
        let present: Vec<u8> = self.present.iter().map(|present| u8::from(*present)).collect();
        write_tensors(path, &header, [bytemuck::cast_slice(&self.values), present.as_slice()])
    }

    /// Reads the table of a graph with so many `entities`.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where the file is no such table, has another number of entities, holds a number
    /// that is not finite, or an absent entity's row is not zero.
    pub fn read(path: &Path, entities: usize) -> Result<FeatureTable> {
        let bytes = read_bytes(path)?;
        let table = parse(&bytes, entities).map_err(|e| e.at(path))?;
        table.check().map_err(|e| e.at(path))?;
        Ok(table)
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
    // The numbers may lie at an odd address, so they are copied, not cast.
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
    use stage::Kind;

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

    /// Replaces four bytes of the tensors, counted from their first.
    fn patch(path: &Path, at: usize, bytes: &[u8]) {
        let mut file = std::fs::read(path).unwrap();
        let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        file[8 + header + at..][..bytes.len()].copy_from_slice(bytes);
        std::fs::write(path, file).unwrap();
    }

    #[test]
    fn a_table_survives_a_round_trip_and_is_always_the_same_bytes() {
        let (_a, first) = written(&table());
        let (_b, second) = written(&table());
        assert_eq!(FeatureTable::read(&first, 3).unwrap(), table());
        assert_eq!(std::fs::read(first).unwrap(), std::fs::read(second).unwrap());
        assert!((table().coverage() - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn other_programs_can_open_it() {
        let (_dir, path) = written(&table());
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().as_ref().unwrap();
        assert_eq!((metadata["modality"].as_str(), metadata["format"].as_str()), ("visual", "1"));
        let tensors = candle_core::safetensors::load_buffer(&bytes, &candle_core::Device::Cpu).unwrap();
        assert_eq!(tensors.len(), 2);
    }

    #[test]
    fn damage_is_named_with_its_row() {
        let error = |at: usize, number: f32, entities: usize| {
            let (_dir, path) = written(&table());
            patch(&path, at, &number.to_le_bytes());
            let error = FeatureTable::read(&path, entities).unwrap_err();
            assert_eq!(error.kind(), Kind::Data);
            error.to_string()
        };
        let not_finite = error(20, f32::NAN, 3);
        assert!(not_finite.ends_with("features.safetensors: row 2: column 1 is NaN, not a finite number"));
        assert!(error(8, 1.0, 3).ends_with("row 1: marked absent, but not all zeros"));
        let another_graph = error(0, 1.0, 4);
        assert!(another_graph.contains("[3, 2]") && another_graph.contains("4 entities"), "{another_graph}");
        let mut broken = table();
        broken.values[1] = f32::INFINITY;
        let refused = broken.write(Path::new("x"), &"visual".parse().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("row 0"), "{refused}");
    }

    #[test]
    fn a_truncated_file_is_an_error_not_a_panic() {
        let (_dir, path) = written(&table());
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert_eq!(FeatureTable::read(&path, 3).unwrap_err().kind(), Kind::Data, "{length} bytes");
        }
    }

    #[test]
    fn a_graph_without_entities_has_a_table_too() {
        let (_dir, path) = written(&FeatureTable::absent(0, 4));
        let table = FeatureTable::read(&path, 0).unwrap();
        assert_eq!((table.width, table.coverage()), (4, 0.0));
    }
}
