//! A trained model, and the trait of everything that scores.

use mkg::{EntityId, Query};
use rand::{Rng, RngExt};
use stage::{Error, Kind, Result};
use std::ops::Deref;

use crate::backbone::{compose, distance, further_columns, gather_relations};
use crate::checkpoint::{NamedTensors, TensorReader, require_finite};
use crate::{Backbone, Matrix, Real, Shape};

/// Anything that scores all entities for queries.
pub trait Scorer: Sync {
    /// Number of entities in a row of scores.
    fn entities(&self) -> usize;

    /// Writes the scores `(query, entity)` of all entities for each query to `into`, and resizes `into`.
    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>);
}

impl<S: Deref<Target: Scorer> + Sync> Scorer for S {
    fn entities(&self) -> usize {
        (**self).entities()
    }

    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) {
        (**self).scores(queries, into);
    }
}

/// A model: a backbone and its tables of parameters. The product of a query vector and a row of `entity` is a score;
/// see [`crate::backbone`].
#[derive(Clone, Debug, PartialEq)]
pub struct Model<T> {
    /// The backbone, which defines the score.
    pub backbone: Backbone,
    /// Entity table `(entity, 2k)`: `[re | im]` where embeddings are complex; a distance has two more columns.
    pub entity: Matrix<T>,
    /// Relation table `(relation and inverse, 2k)`; `(…, k)` for RotatE's phases, `(…, d)` for TuckER.
    pub relation: Matrix<T>,
    /// TuckER's core `(d · 2k, 2k)`: row `a · 2k + i` belongs to coordinate `a` of a relation and coordinate `i` of a
    /// head. Empty for other backbones.
    pub core: Matrix<T>,
}

/// Number of queries composed at a time; bounded because TuckER needs `d · 2k` numbers for each query.
const BLOCK: usize = 512;

impl<T: Real> Model<T> {
    /// A ComplEx model.
    pub fn complex(entity: Matrix<T>, relation: Matrix<T>) -> Self {
        Model { backbone: Backbone::ComplEx, entity, relation, core: Matrix::default() }
    }

    /// Complex rank `k`.
    pub fn rank(&self) -> usize {
        (self.width() - further_columns(self.backbone)) / 2
    }

    /// Columns of a query vector.
    pub fn width(&self) -> usize {
        self.entity.columns()
    }

    /// An entity's embedding `(2k)`: its row without the further columns of a distance.
    pub fn embedding(&self, entity: EntityId) -> &[T] {
        &self.entity.row(entity.index())[..2 * self.rank()]
    }

    /// Writes the query vectors `(query, width)` to `into`, and resizes `into`.
    pub fn queries(&self, queries: &[Query], into: &mut Matrix<T>) {
        let width = self.width();
        into.resize(queries.len(), width);
        let [mut relations, mut outer, mut vectors] = <[Matrix<T>; 3]>::default();
        let into = into.values_mut().chunks_mut(BLOCK * width.max(1));
        for (queries, into) in queries.chunks(BLOCK).zip(into) {
            let numbers: Vec<u32> = queries.iter().map(|query| query.relation.0).collect();
            gather_relations(self.backbone, &self.relation, &numbers, &mut relations);
            vectors.resize(queries.len(), width);
            compose(
                self.backbone,
                &self.core,
                |position| self.entity.row(queries[position].head.index()),
                |position| relations.row(position),
                &mut outer,
                &mut vectors,
            );
            into.copy_from_slice(vectors.values());
        }
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

/// Uniformly distributed values within `±bound`.
pub fn even<T: Real>(rows: usize, columns: usize, bound: f64, generator: &mut impl Rng) -> Matrix<T> {
    let values = (0..rows * columns).map(|_| T::from_f64(generator.random_range(-bound..bound)));
    Matrix::from_values(rows, columns, values.collect())
}

impl Model<f32> {
    /// The tensors to save: `entity`, `relation` and TuckER's `core`, with the backbone's name in the header.
    pub fn tensors(&self) -> NamedTensors<'_> {
        let tensors = NamedTensors::default().text(BACKBONE, self.backbone.word());
        let tensors = tensors.matrix("entity", &self.entity).matrix("relation", &self.relation);
        match self.backbone {
            Backbone::TuckER => tensors.matrix("core", &self.core),
            _ => tensors,
        }
    }

    /// Reads a model and checks it against a graph with this many entities and relations: the backbone must be known,
    /// the tensors must have its shapes, and all values must be finite.
    pub fn from_reader(reader: &TensorReader, entities: usize, relations: usize) -> Result<Self> {
        let word = reader.text(BACKBONE)?;
        let backbone = Backbone::of_word(&word).ok_or_else(|| {
            let error = Error::data(format!("`{word}` is not a backbone")).at(reader.path());
            error.hint("written by a newer version? rerun its stage with this one")
        })?;
        let (entity, relation) = (reader.matrix("entity")?, reader.matrix("relation")?);
        let core = match backbone {
            Backbone::TuckER => reader.matrix("core")?,
            _ => Matrix::default(),
        };
        let model = Model { backbone, entity, relation, core };
        model.check(entities, relations).map_err(|e| e.at(reader.path()))?;
        Ok(model)
    }

    /// Refuses parameters that are no longer finite.
    pub fn require_finite(&self) -> Result<()> {
        let tables = [("entity", &self.entity), ("relation", &self.relation), ("core", &self.core)];
        tables.into_iter().try_for_each(|(name, table)| require_finite(name, table))
    }

    fn check(&self, entities: usize, relations: usize) -> Result<()> {
        let further = further_columns(self.backbone);
        if self.width() < further || !(self.width() - further).is_multiple_of(2) {
            let message =
                format!("`entity` has {} columns, which no {} model has", self.width(), self.backbone);
            return Err(Error::data(message).hint("rerun its stage with --force"));
        }
        let shape = Shape::of(self);
        let core_columns = if shape.core_rows() > 0 { shape.embedding() } else { 0 };
        let tables = [
            ("entity", &self.entity, entities, shape.columns()),
            ("relation", &self.relation, 2 * relations, shape.relation_columns()),
            ("core", &self.core, shape.core_rows(), core_columns),
        ];
        for (name, table, rows, columns) in tables {
            if (table.rows(), table.columns()) != (rows, columns) {
                let found = format!("`{name}` is {} x {}", table.rows(), table.columns());
                let wanted =
                    format!("{} of rank {} on this graph has {rows} x {columns}", shape.backbone, shape.rank);
                let hint = "it was trained on another graph, or is of another backbone: rerun its stage with --force";
                return Err(Error::data(format!("{found}, but {wanted}")).hint(hint));
            }
            if !table.is_finite() {
                return Err(Error::new(Kind::Data, format!("`{name}` holds values that are not finite")));
            }
        }
        if further > 0
            && let Some(row) = (0..entities).find(|row| !distance::is_closed(self.entity.row(*row)))
        {
            let message = "the last columns of `entity` are not minus its square norm, and 1";
            return Err(Error::data(message).row(row as u64).hint("rerun its stage with --force"));
        }
        Ok(())
    }
}

const BACKBONE: &str = "backbone";

impl Scorer for Model<f32> {
    fn entities(&self) -> usize {
        self.entity.rows()
    }

    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) {
        let mut vectors = Matrix::default();
        self.queries(queries, &mut vectors);
        into.resize(queries.len(), self.entity.rows());
        into.product(false, vectors.view(), self.entity.transposed());
    }
}
