//! Backbones: maps from head and relation to a query vector whose product with an entity's row is the score.
//!
//! `h` and `t` are the embeddings of head and tail, `2k` reals each; `r` is the embedding of the relation:
//!
//! | backbone | relation | query vector | entity's row | score |
//! |---|---|---|---|---|
//! | ComplEx | `2k` | `h ∘ r`, complex | `t` | `Re⟨h, r, t̄⟩` |
//! | DistMult | `2k` | `h ∘ r` | `t` | `⟨h, r, t⟩` |
//! | TransE | `2k` | `q = h + r`, widened | `t`, widened | `-‖h + r - t‖²` |
//! | RotatE | `k` phases | `q = h ∘ e^{ir}`, complex, widened | `t`, widened | `-‖h ∘ e^{ir} - t‖²` |
//! | TuckER | `d` | `W ×₁ r ×₂ h` | `t` | `W ×₁ r ×₂ h ×₃ t` |
//!
//! A squared distance is also a product, of widened rows, which have two more columns (see [`distance`]). So code that
//! reads query vectors and entity tables needs only products. The published TransE and RotatE use the distance itself,
//! with a margin against sampled negatives; a softmax over all entities needs no margin. The published TuckER has
//! dropout and batch normalisation; this TuckER has neither.
//!
//! The TuckER core `W (d, 2k, 2k)` is stored as a matrix `(d · 2k, 2k)`. The query vectors of a batch are one product
//! of the rows `r ⊗ h` with the core. Gradients are products too: `∂(r ⊗ h) = ∂q Wᵀ`, `∂W = (r ⊗ h)ᵀ ∂q`.

use rayon::prelude::*;
use recipe::Backbone;

use crate::matrix::index;
use crate::{Matrix, Model, Real, complex, row, widest};

pub mod distance;

/// The shape of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The backbone, which defines the score.
    pub backbone: Backbone,
    /// Complex rank `k`.
    pub rank: usize,
    /// Number of reals in a relation's embedding; only TuckER uses it.
    pub relation_width: usize,
}

impl Shape {
    pub(crate) fn of<T: Real>(model: &Model<T>) -> Shape {
        let (rank, relation_width) = (model.rank(), model.relation.columns());
        Shape { backbone: model.backbone, rank, relation_width }
    }

    /// Number of reals in an entity's embedding: `2k`.
    pub fn embedding(self) -> usize {
        2 * self.rank
    }

    /// Number of columns of query vectors and of the entity table, including the further columns of a distance.
    pub fn columns(self) -> usize {
        self.embedding() + further_columns(self.backbone)
    }

    /// Number of columns of the relation table.
    pub fn relation_columns(self) -> usize {
        match self.backbone {
            Backbone::ComplEx | Backbone::DistMult | Backbone::TransE => self.embedding(),
            Backbone::RotatE => self.rank,
            Backbone::TuckER => self.relation_width,
        }
    }

    /// Number of rows of the core `(d · 2k, 2k)`; 0 for every backbone but TuckER.
    pub fn core_rows(self) -> usize {
        match self.backbone {
            Backbone::TuckER => self.relation_width.saturating_mul(self.embedding()),
            _ => 0,
        }
    }
}

/// Number of columns of an entity's row behind its embedding.
pub fn further_columns(backbone: Backbone) -> usize {
    if backbone.is_distance() { distance::COLUMNS } else { 0 }
}

/// Composes a query vector into each row of `vectors`. At a position, `head` gives the head's row, which begins with
/// the embedding, and `relation` a row of [`gather_relations`]. `outer` buffers TuckER's `r ⊗ h (query, d · 2k)`.
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

/// Writes a query vector, or `r ⊗ h` for TuckER.
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

/// Gathers the relations numbered `rows` for composition: RotatE's phases become `[cos | sin]`, other rows are copied.
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
