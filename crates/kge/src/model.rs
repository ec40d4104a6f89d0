//! A trained model and what can score with it.

use mkg::{EntityId, Query};
use rand::{Rng, RngExt};
use stage::{Error, Kind, Result};

use crate::checkpoint::{Reader, Tensors};
use crate::{Matrix, Real, complex};

/// Anything that scores all entities for queries.
pub trait Scorer: Sync {
    /// How many entities a row of scores has.
    fn entities(&self) -> usize;

    /// Scores `(query, entity)` of all entities for each query, into a matrix it resizes.
    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>);
}

impl<S: Scorer + ?Sized> Scorer for Box<S> {
    fn entities(&self) -> usize {
        (**self).entities()
    }

    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) {
        (**self).scores(queries, into);
    }
}

/// A ComplEx model: two tables of embeddings, `[re | im]` in each row.
#[derive(Clone, Debug, PartialEq)]
pub struct ComplEx<T> {
    /// `(entity, 2k)`.
    pub entity: Matrix<T>,
    /// `(relation and inverse, 2k)`.
    pub relation: Matrix<T>,
}

impl<T: Real> ComplEx<T> {
    /// Complex rank `k`.
    pub fn rank(&self) -> usize {
        self.entity.columns() / 2
    }

    /// Query vectors `(query, 2k)`, into a matrix it resizes.
    pub fn queries(&self, queries: &[Query], into: &mut Matrix<T>) {
        into.resize(queries.len(), self.entity.columns());
        for (row, query) in queries.iter().enumerate() {
            let (head, relation) =
                (self.entity.row(query.head.index()), self.relation.row(query.relation.index()));
            complex::compose(head, relation, into.row_mut(row));
        }
    }

    /// The score of one candidate.
    pub fn score(&self, query: Query, candidate: EntityId) -> T {
        let mut vector = Matrix::zeros(0, 0);
        self.queries(&[query], &mut vector);
        vector.row(0).iter().zip(self.entity.row(candidate.index())).map(|(&q, &e)| q * e).sum()
    }
}

/// Normally distributed values of mean 0 by Marsaglia's polar method.
pub fn normal<T: Real>(rows: usize, columns: usize, deviation: f64, generator: &mut impl Rng) -> Matrix<T> {
    let mut values = Vec::with_capacity(rows * columns + 1);
    while values.len() < rows * columns {
        let (x, y): (f64, f64) = (generator.random_range(-1.0..1.0), generator.random_range(-1.0..1.0));
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            let factor = deviation * (-2.0 * square.ln() / square).sqrt();
            values.extend([T::from_f64(x * factor), T::from_f64(y * factor)]);
        }
    }
    values.truncate(rows * columns);
    Matrix::from_values(rows, columns, values)
}

impl ComplEx<f32> {
    /// The tensors that are saved: `entity` and `relation`.
    pub fn tensors(&self) -> Tensors<'_> {
        Tensors::default().matrix("entity", &self.entity).matrix("relation", &self.relation)
    }

    /// Reads a model back and checks that it fits a graph of so many entities and relations.
    pub fn from_reader(reader: &Reader, entities: usize, relations: usize) -> Result<Self> {
        let (entity, relation) = (reader.matrix("entity")?, reader.matrix("relation")?);
        let shapes = [("entity", &entity, entities), ("relation", &relation, 2 * relations)];
        for (name, table, rows) in shapes {
            if table.rows() != rows || table.columns() != entity.columns() || table.columns() % 2 != 0 {
                let found = format!("`{name}` is {} x {}", table.rows(), table.columns());
                let message = format!("{found}, but the graph needs {rows} rows of an even width");
                return Err(Error::data(message).at(reader.path()).hint("it was trained on another graph"));
            }
            if !table.is_finite() {
                return Err(Error::new(Kind::Data, format!("`{name}` holds values that are not finite"))
                    .at(reader.path()));
            }
        }
        Ok(ComplEx { entity, relation })
    }
}

impl Scorer for ComplEx<f32> {
    fn entities(&self) -> usize {
        self.entity.rows()
    }

    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) {
        let mut vectors = Matrix::zeros(0, 0);
        self.queries(queries, &mut vectors);
        into.resize(queries.len(), self.entity.rows());
        into.product(false, 1.0, vectors.view(), self.entity.transposed());
    }
}

/// The mean of several models' scores (Eq. 7 with all teachers).
#[derive(Clone, Debug)]
pub struct Average<'a>(pub Vec<&'a ComplEx<f32>>);

impl Scorer for Average<'_> {
    fn entities(&self) -> usize {
        self.0.first().map_or(0, |model| model.entity.rows())
    }

    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) {
        into.resize(queries.len(), self.entities());
        let weight = 1.0 / self.0.len() as f32;
        let mut vectors = Matrix::zeros(0, 0);
        for (i, model) in self.0.iter().enumerate() {
            model.queries(queries, &mut vectors);
            into.product(i > 0, weight, vectors.view(), model.entity.transposed());
        }
    }
}
