//! `results.parquet`: every figure of every cell, for questions that the table does not answer.
//!
//! | column | type | |
//! |---|---|---|
//! | `dataset`, `variant` | text | by name |
//! | `seed` | u64 | |
//! | `split`, `metric` | text | both directions, ties realistic |
//! | `value` | f64 | in percent, but for the mean rank |

use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use mkg::Split;
use mkg::graph::{for_each_batch, numbers, texts, write_table};
use stage::Result;
use std::path::Path;
use std::sync::Arc;

use crate::Metric;
use crate::measure::Measured;

/// The file in the experiment's directory.
pub const FILE: &str = "results.parquet";

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The dataset's name.
    pub dataset: String,
    /// The variant's name.
    pub variant: String,
    /// The seed.
    pub seed: u64,
    /// The split.
    pub split: String,
    /// The metric's name.
    pub metric: String,
    /// The figure.
    pub value: f64,
}

pub(crate) fn values(measured: &[Measured]) -> Vec<Value> {
    let mut values = Vec::new();
    for of_cell @ Measured { cell, .. } in measured {
        for split in Split::ALL {
            for metric in Metric::ALL {
                values.extend(of_cell.figure(split, metric).map(|value| Value {
                    dataset: cell.dataset.clone(),
                    variant: cell.variant.clone(),
                    seed: cell.seed,
                    split: split.to_string(),
                    metric: metric.as_str().to_owned(),
                    value,
                }));
            }
        }
    }
    values
}

pub(crate) fn write(path: &Path, values: &[Value]) -> Result<()> {
    let texts = |get: fn(&Value) -> &String| Arc::new(StringArray::from_iter_values(values.iter().map(get)));
    let seeds = UInt64Array::from_iter_values(values.iter().map(|value| value.seed));
    let figures = Float64Array::from_iter_values(values.iter().map(|value| value.value));
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("dataset", texts(|value| &value.dataset), false),
        ("variant", texts(|value| &value.variant), false),
        ("seed", Arc::new(seeds), false),
        ("split", texts(|value| &value.split), false),
        ("metric", texts(|value| &value.metric), false),
        ("value", Arc::new(figures), false),
    ];
    write_table(path, columns)
}

/// Reads the rows.
pub fn read(path: &Path) -> Result<Vec<Value>> {
    let mut values = Vec::new();
    for_each_batch(path, |batch| {
        let (datasets, variants) = (texts(batch, "dataset")?, texts(batch, "variant")?);
        let (splits, metrics) = (texts(batch, "split")?, texts(batch, "metric")?);
        let seeds: &UInt64Array = numbers(batch, "seed")?;
        let figures: &Float64Array = numbers(batch, "value")?;
        values.extend((0..seeds.len()).map(|row| Value {
            dataset: datasets.value(row).to_owned(),
            variant: variants.value(row).to_owned(),
            seed: seeds.value(row),
            split: splits.value(row).to_owned(),
            metric: metrics.value(row).to_owned(),
            value: figures.value(row),
        }));
        Ok(())
    })?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_a_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let value = |seed| Value {
            dataset: "d".into(),
            variant: "v".into(),
            seed,
            split: "test".into(),
            metric: "mrr".into(),
            value: 12.5,
        };
        let (path, values) = (dir.path().join(FILE), vec![value(0), value(u64::MAX)]);
        write(&path, &values).unwrap();
        assert_eq!(read(&path).unwrap(), values);
    }
}
