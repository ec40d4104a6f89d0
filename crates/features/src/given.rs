//! Given features: rows of a matrix find their entities.

use mkg::graph::Entity;
use stage::files::read_text;
use stage::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

use crate::FeatureTable;
use crate::matrix::Matrix;

/// Gives entities the rows of `matrix`, which was read from `file`.
///
/// Without `keys`, row i is entity i. With it, line i of that file is the key of row i's entity, and entities
/// that it does not name are absent. With `zero_is_absent`, so are entities whose row is all zeros.
///
/// # Errors
/// [`stage::Kind::Data`] where the numbers of rows differ, a key is unknown or twice there, a number is not finite,
/// or no entity has features.
pub fn join(
    matrix: &Matrix,
    file: &Path,
    keys: Option<&Path>,
    zero_is_absent: bool,
    entities: &[Entity],
) -> Result<FeatureTable> {
    check_finite(matrix).map_err(|e| e.at(file))?;
    let owners = match keys {
        Some(keys) => owners(keys, entities)?,
        None => (0..entities.len()).collect(),
    };
    if owners.len() != matrix.rows {
        let whose = match keys {
            Some(keys) => format!("{} names {} entities", keys.display(), owners.len()),
            None => format!("the graph has {} entities", owners.len()),
        };
        let message = format!("{} rows, but {whose}", matrix.rows);
        return Err(Error::data(message).at(file).hint("name the rows' entities with `keys` in the recipe"));
    }
    let mut table = FeatureTable::absent(entities.len(), matrix.width);
    for (entity, row) in owners.into_iter().zip(matrix.values.chunks_exact(matrix.width)) {
        if !(zero_is_absent && row.iter().all(|value| *value == 0.0)) {
            table.set(entity, row);
        }
    }
    if table.count_present() == 0 {
        return Err(Error::data("no entity has features: every row is zero").at(file));
    }
    Ok(table)
}

fn check_finite(matrix: &Matrix) -> Result<()> {
    let Some(i) = matrix.values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let (row, column) = (i / matrix.width, i % matrix.width);
    let message = format!("column {column} is {}, not a finite 32-bit number", matrix.values[i]);
    Err(Error::data(message).row(row as u64))
}

/// The entity that each line of `keys` names.
fn owners(keys: &Path, entities: &[Entity]) -> Result<Vec<usize>> {
    let ids: HashMap<&str, usize> =
        entities.iter().enumerate().map(|(id, entity)| (entity.key.as_str(), id)).collect();
    let text = read_text(keys)?;
    let mut first_line = vec![None; entities.len()];
    let place = |(line, key): (u64, &str)| {
        let wrong = |message: String| Error::data(message).at(keys).line(line);
        let id = *ids.get(key).ok_or_else(|| wrong(format!("no entity has the key `{key}`")))?;
        match first_line[id].replace(line) {
            Some(first) => Err(wrong(format!("key `{key}` already stands in line {first}"))),
            None => Ok(id),
        }
    };
    (1..).zip(text.lines()).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entities() -> Vec<Entity> {
        ["Q1", "Q2", "Q3"].map(|key| Entity { key: key.into(), ..Entity::default() }).to_vec()
    }

    fn matrix(values: &[f32]) -> Matrix {
        Matrix { rows: values.len() / 2, width: 2, values: values.to_vec() }
    }

    fn with_keys(text: &str, values: &[f32]) -> Result<FeatureTable> {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys.txt");
        std::fs::write(&keys, text).unwrap();
        join(&matrix(values), Path::new("x.npy"), Some(&keys), true, &entities())
    }

    #[test]
    fn rows_are_in_the_order_of_ids() {
        let rows = matrix(&[1.0, 2.0, 0.0, 0.0, 3.0, 4.0]);
        let table = join(&rows, Path::new("x.npy"), None, true, &entities()).unwrap();
        assert_eq!(
            (table.row(2), table.present.as_slice()),
            ([3.0, 4.0].as_slice(), &[true, false, true][..])
        );
        let table = join(&rows, Path::new("x.npy"), None, false, &entities()).unwrap();
        assert_eq!(table.coverage(), 1.0);
    }

    #[test]
    fn rows_are_named_by_keys() {
        let table = with_keys("Q3\r\nQ1\r\n", &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!((table.row(0), table.row(2)), ([3.0, 4.0].as_slice(), [1.0, 2.0].as_slice()));
        assert_eq!(table.present, [true, false, true]);
    }

    #[test]
    fn unknown_and_repeated_keys_are_named_with_their_line() {
        let message = with_keys("Q1\nQ9\n", &[1.0; 4]).unwrap_err().to_string();
        assert!(message.ends_with("keys.txt: line 2: no entity has the key `Q9`"), "{message}");
        let message = with_keys("Q1\nQ2\nQ1\n", &[1.0; 6]).unwrap_err().to_string();
        assert!(message.ends_with("keys.txt: line 3: key `Q1` already stands in line 1"), "{message}");
    }

    #[test]
    fn differing_numbers_of_rows_are_both_named() {
        let message = with_keys("Q1\n", &[1.0; 4]).unwrap_err().to_string();
        assert!(
            message.starts_with("x.npy: 2 rows, but ") && message.ends_with(" names 1 entities"),
            "{message}"
        );
        let error = join(&matrix(&[1.0; 4]), Path::new("x.npy"), None, true, &entities()).unwrap_err();
        assert_eq!(error.to_string(), "x.npy: 2 rows, but the graph has 3 entities");
    }

    #[test]
    fn a_number_that_is_not_finite_is_named_with_its_row() {
        let rows = matrix(&[1.0, 2.0, 0.0, f32::NAN, 3.0, 4.0]);
        let error = join(&rows, Path::new("x.npy"), None, true, &entities()).unwrap_err();
        assert_eq!(error.to_string(), "x.npy: row 1: column 1 is NaN, not a finite 32-bit number");
    }

    #[test]
    fn nothing_but_zeros_is_refused() {
        let error = join(&matrix(&[0.0; 6]), Path::new("x.npy"), None, true, &entities()).unwrap_err();
        assert!(error.to_string().contains("every row is zero"));
    }
}
