//! Backbones: maps from head and relation to a query vector whose product with an entity's row is the score.
//!
//! With `h`, `t` the embeddings of head and tail, `2k` reals each, and `r` the relation's:
//!
//! | backbone | relation | query vector | entity's row | score |
//! |---|---|---|---|---|
//! | ComplEx | `2k` | `h ∘ r`, complex | `t` | `Re⟨h, r, t̄⟩` |
//! | DistMult | `2k` | `h ∘ r` | `t` | `⟨h, r, t⟩` |
//! | TransE | `2k` | of `q = h + r` | of `t` | `-‖h + r - t‖²` |
//! | RotatE | `k` phases | of `q = h ∘ e^{ir}`, complex | of `t` | `-‖h ∘ e^{ir} - t‖²` |
//! | TuckER | `d` | `W ×₁ r ×₂ h` | `t` | `W ×₁ r ×₂ h ×₃ t` |
//!
//! A squared distance is a product, too, of rows that are two columns wider (see [`distance`]), so whatever reads query
//! vectors and entity tables knows products alone. TransE and RotatE as published take the distance itself, with a
//! margin against sampled negatives: a softmax over all entities needs no margin. TuckER as published has dropout and
//! batch normalisation, which this one has not.
//!
//! TuckER's core `W (d, 2k, 2k)` is kept as a matrix `(d · 2k, 2k)`, so that the query vectors of a batch are one product with the
//! rows `r ⊗ h`, and so are their gradients: `∂(r ⊗ h) = ∂q Wᵀ`, `∂W = (r ⊗ h)ᵀ ∂q`.

use rayon::prelude::*;
use recipe::Backbone;

use crate::matrix::index;
use crate::{Matrix, Model, Real, complex, row, widest};

pub mod distance;

/// The shape of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The backbone, which scores.
    pub backbone: Backbone,
    /// Complex rank `k`.
    pub rank: usize,
    /// Reals of a relation's embedding, of TuckER.
    pub relation_width: usize,
}

impl Shape {
    pub(crate) fn of<T: Real>(model: &Model<T>) -> Shape {
        let (rank, relation_width) = (model.rank(), model.relation.columns());
        Shape { backbone: model.backbone, rank, relation_width }
    }

    /// Reals of an entity's embedding: `2k`.
    pub fn embedding(self) -> usize {
        2 * self.rank
    }

    /// Columns of the entity table as it scores, and of query vectors.
    pub fn columns(self) -> usize {
        self.embedding() + further_columns(self.backbone)
    }

    /// Columns of the relation table.
    pub fn relation_columns(self) -> usize {
        match self.backbone {
            Backbone::ComplEx | Backbone::DistMult | Backbone::TransE => self.embedding(),
            Backbone::RotatE => self.rank,
            Backbone::TuckER => self.relation_width,
        }
    }

    /// Rows of the core `(d · 2k, 2k)`; none but of TuckER.
    pub fn core_rows(self) -> usize {
        match self.backbone {
            Backbone::TuckER => self.relation_width.saturating_mul(self.embedding()),
            _ => 0,
        }
    }
}

/// Columns of an entity's row that are not its embedding.
pub fn further_columns(backbone: Backbone) -> usize {
    if backbone.is_distance() { distance::COLUMNS } else { 0 }
}

/// Composes query vectors, as many as `vectors` has rows, of the head's row at each position of a batch, which begins with its
/// embedding, and of its relation, as [`gather_relations`] has it. `outer` is a buffer: TuckER leaves `r ⊗ h (query, d · 2k)` there.
pub(crate) fn compose<'a, T: Real>(
    backbone: Backbone,
    core: &Matrix<T>,
    head: impl Fn(usize) -> &'a [T] + Sync,
    relation: impl Fn(usize) -> &'a [T] + Sync,
    outer: &mut Matrix<T>,
    vectors: &mut Matrix<T>,
) {
    outer.resize(vectors.rows(), core.rows());
    let rows = if backbone == Backbone::TuckER { &mut *outer } else { &mut *vectors };
    rows.par_rows_mut().enumerate().for_each(|(position, row)| {
        compose_row(backbone, head(position), relation(position), row);
    });
    if backbone == Backbone::TuckER {
        vectors.product(false, outer.view(), core.view());
    }
}

/// Writes a query vector, but of TuckER `r ⊗ h`.
fn compose_row<T: Real>(backbone: Backbone, head: &[T], relation: &[T], query: &mut [T]) {
    let width = relation.len();
    match backbone {
        Backbone::ComplEx => complex::compose(head, relation, query),
        Backbone::DistMult => widest!({
            for ((query, &head), &relation) in query.iter_mut().zip(head).zip(relation) {
                *query = head * relation;
            }
        }),
        Backbone::TransE => {
            query[..width].copy_from_slice(relation);
            row::add_scaled(&mut query[..width], T::ONE, &head[..width]);
            distance::close_query(query);
        }
        Backbone::RotatE => {
            complex::compose(&head[..width], relation, &mut query[..width]);
            distance::close_query(query);
        }
        Backbone::TuckER => {
            for (part, &r) in query.chunks_exact_mut(head.len()).zip(relation) {
                part.copy_from_slice(head);
                row::scale(part, r);
            }
        }
    }
}

/// The relations numbered `rows` as they are composed with heads: as they are, but phases as `[cos | sin]`.
pub(crate) fn gather_relations<T: Real>(
    backbone: Backbone,
    table: &Matrix<T>,
    rows: &[u32],
    into: &mut Matrix<T>,
) {
    if backbone != Backbone::RotatE {
        return into.gather(table, rows);
    }
    let rank = table.columns();
    into.resize(rows.len(), 2 * rank);
    into.par_rows_mut().zip(rows).for_each(|(rotation, &relation)| {
        let (re, im) = rotation.split_at_mut(rank);
        for ((re, im), phase) in re.iter_mut().zip(im).zip(table.row(index(relation))) {
            (*im, *re) = phase.sin_cos();
        }
    });
}
