//! Reading one part, with every row checked against the graph.

use arrow::array::{AsArray, Float16Array, RecordBatch};
use arrow::datatypes::{Float16Type, UInt32Type};
use half::f16;
use mkg::graph::{column, for_each_batch};
use stage::{Error, Modality, Result};
use std::path::Path;
use training::Data;

use crate::schema::scores_column;

/// Checks the ids and neighbours of a part whose first row is query `first`; returns how many rows it has.
pub(crate) fn check(path: &Path, data: &Data, first: usize) -> Result<usize> {
    let mut rows = 0;
    for_each_batch(path, |batch| {
        check_queries(batch, data, first + rows)?;
        rows += batch.num_rows();
        Ok(())
    })?;
    Ok(rows)
}

/// Hands each row's scores to `each` as `(query, teacher, scores)`; returns how many rows there are.
pub(crate) fn for_each_scores(
    path: &Path,
    data: &Data,
    first: usize,
    teachers: &[Modality],
    mut each: impl FnMut(usize, usize, &[f16]),
) -> Result<usize> {
    let mut rows = 0;
    for_each_batch(path, |batch| {
        check_queries(batch, data, first + rows)?;
        for (teacher, modality) in teachers.iter().enumerate() {
            let values = scores(batch, &scores_column(modality), data.entities())?;
            for (row, scores) in values.values().chunks_exact(data.entities()).enumerate() {
                each(first + rows + row, teacher, scores);
            }
        }
        rows += batch.num_rows();
        Ok(())
    })?;
    Ok(rows)
}

fn scores<'a>(batch: &'a RecordBatch, name: &str, entities: usize) -> Result<&'a Float16Array> {
    let list = column(batch, name)?.as_fixed_size_list_opt();
    let list = list.ok_or_else(|| Error::data(format!("column `{name}` is no fixed-size list")))?;
    if list.value_length() as usize != entities {
        let message =
            format!("`{name}` has {} scores a row, the graph has {entities} entities", list.value_length());
        return Err(Error::data(message).hint("rerun `dsom-soft-labels`"));
    }
    let values = list.values().as_primitive_opt::<Float16Type>();
    values.ok_or_else(|| Error::data(format!("column `{name}` is not Float16")))
}

fn check_queries(batch: &RecordBatch, data: &Data, first: usize) -> Result<()> {
    let ids = |name: &str| {
        let ids = column(batch, name)?.as_primitive_opt::<UInt32Type>();
        ids.ok_or_else(|| Error::data(format!("column `{name}` is not UInt32")))
    };
    let (heads, relations) = (ids("head")?, ids("relation")?);
    for row in 0..batch.num_rows() {
        let expected = data.queries.queries().get(first + row);
        let found = (heads.value(row), relations.value(row));
        if expected.map(|query| (query.head.0, query.relation.0)) != Some(found) {
            let message = format!("query {found:?} is not what the graph has at this row");
            return Err(Error::data(message).row((first + row) as u64).hint("rerun `dsom-soft-labels`"));
        }
    }
    Ok(())
}
