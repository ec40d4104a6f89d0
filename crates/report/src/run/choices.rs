//! A policy's probabilities of every strategy, for every training query: a student's `strategies.parquet`.

use arrow::array::{PrimitiveArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, UInt32Type};
use mkg::graph::{for_each_batch, numbers, texts};
use stage::Result;
use std::path::Path;

use super::Stage;

/// The file in a student's folder.
const FILE: &str = "strategies.parquet";

/// The choices of a student's policy.
pub struct Choices {
    /// The student's name.
    pub student: String,
    /// The strategies, in the file's order; the last one is all teachers.
    pub strategies: Vec<String>,
    /// The training queries.
    pub queries: Vec<Asked>,
}

/// A query with the policy's opinion.
pub struct Asked {
    /// The known entity's name.
    pub head: String,
    /// The relation's name; an inverse's ends in `⁻¹`.
    pub relation: String,
    /// Number of training triples that ask it.
    pub triples: usize,
    /// The probability of each strategy.
    pub probabilities: Vec<f32>,
}

impl Choices {
    /// The file of a stage, if it is a student with a policy.
    pub fn read(root: &Path, stage: &Stage) -> Result<Option<Choices>> {
        let path = root.join(&stage.folder).join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let mut choices =
            Choices { student: stage.name().to_owned(), strategies: Vec::new(), queries: Vec::new() };
        for_each_batch(&path, |batch| choices.take(batch))?;
        Ok(Some(choices))
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.strategies.is_empty() {
            let schema = batch.schema();
            let shares = schema.fields().iter().filter(|field| *field.data_type() == DataType::Float32);
            self.strategies = shares.map(|field| field.name().clone()).collect();
        }
        let (heads, relations) = (texts(batch, "head_name")?, texts(batch, "relation_name")?);
        let triples: &PrimitiveArray<UInt32Type> = numbers(batch, "neighbours")?;
        let columns: Vec<&PrimitiveArray<Float32Type>> =
            self.strategies.iter().map(|name| numbers(batch, name)).collect::<Result<_>>()?;
        self.queries.extend((0..batch.num_rows()).map(|row| Asked {
            head: heads.value(row).to_owned(),
            relation: relations.value(row).to_owned(),
            triples: triples.value(row) as usize,
            probabilities: columns.iter().map(|column| column.value(row)).collect(),
        }));
        Ok(())
    }

    /// The expected share of each strategy among the training triples that `chosen` takes, and how many those are.
    pub fn shares(&self, chosen: impl Fn(&Asked) -> bool) -> (Vec<f64>, usize) {
        let (mut shares, mut triples) = (vec![0.0; self.strategies.len()], 0);
        for asked in self.queries.iter().filter(|asked| chosen(asked)) {
            triples += asked.triples;
            let weight = asked.triples as f64;
            shares.iter_mut().zip(&asked.probabilities).for_each(|(sum, p)| *sum += weight * f64::from(*p));
        }
        shares.iter_mut().for_each(|share| *share /= triples.max(1) as f64);
        (shares, triples)
    }
}
