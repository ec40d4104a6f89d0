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

use rayon::prelude::*;
use recipe::Backbone;

use crate::{Matrix, N3, Real, complex, row, widest};

pub mod distance;
mod tucker;

pub(crate) use tucker::{add_head_gradient, add_relation_gradient};

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
pub(crate) fn further_columns(backbone: Backbone) -> usize {
    if backbone.is_distance() { distance::COLUMNS } else { 0 }
}

/// Heads and relations of which a batch's query vectors are composed.
pub(crate) struct Factors<'a, T, H, R> {
    pub(crate) backbone: Backbone,
    /// TuckER's core.
    pub(crate) core: &'a Matrix<T>,
    /// The head's row at a position of the batch; its embedding stands first.
    pub(crate) head: H,
    /// The relation at a position, as [`gather_relations`] has it.
    pub(crate) relation: R,
}

impl<'a, T, H, R> Factors<'a, T, H, R>
where
    T: Real,
    H: Fn(usize) -> &'a [T] + Sync,
    R: Fn(usize) -> &'a [T] + Sync,
{
    /// Writes the query vectors, as many as `vectors` has rows. `outer` is a buffer: TuckER leaves `r ⊗ h` of each
    /// query there.
    pub(crate) fn compose(&self, outer: &mut Matrix<T>, vectors: &mut Matrix<T>) {
        match self.backbone {
            Backbone::ComplEx => self.compose_rows(vectors, complex::compose),
            Backbone::DistMult => self.compose_rows(vectors, multiply),
            Backbone::TransE => self.compose_rows(vectors, |head, relation, query| {
                let (inner, _) = query.split_at_mut(relation.len());
                inner.copy_from_slice(relation);
                row::add_scaled(inner, T::ONE, &head[..relation.len()]);
                distance::close_query(query);
            }),
            Backbone::RotatE => self.compose_rows(vectors, |head, rotation, query| {
                let width = rotation.len();
                complex::compose(&head[..width], rotation, &mut query[..width]);
                distance::close_query(query);
            }),
            Backbone::TuckER => tucker::compose(self.core, &self.head, &self.relation, outer, vectors),
        }
    }

    fn compose_rows(&self, vectors: &mut Matrix<T>, compose: impl Fn(&[T], &[T], &mut [T]) + Sync) {
        let width = vectors.columns().max(1);
        let rows = vectors.values_mut().par_chunks_mut(width).enumerate();
        rows.for_each(|(position, query)| compose((self.head)(position), (self.relation)(position), query));
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
    into.values_mut().par_chunks_mut((2 * rank).max(1)).zip(rows).for_each(|(rotation, &relation)| {
        let (re, im) = rotation.split_at_mut(rank);
        for ((re, im), phase) in re.iter_mut().zip(im).zip(table.row(relation as usize)) {
            (*im, *re) = phase.sin_cos();
        }
    });
}

/// `query = head ∘ relation`, by coordinates.
fn multiply<T: Real>(head: &[T], relation: &[T], query: &mut [T]) {
    widest!({
        for ((query, &head), &relation) in query.iter_mut().zip(head).zip(relation) {
            *query = head * relation;
        }
    });
}

/// Adds to `onto` the gradient of [`multiply`] for one factor.
pub(crate) fn add_multiply_gradient<T: Real>(gradient: &[T], other: &[T], onto: &mut [T]) {
    widest!({
        for ((onto, &gradient), &other) in onto.iter_mut().zip(gradient).zip(other) {
            *onto += gradient * other;
        }
    });
}

/// Adds to `onto (k)` the gradient of a rotation's phases: `∂q/∂r = i q`, of which `vector` begins with `2q`.
pub(crate) fn add_phase_gradient<T: Real>(gradient: &[T], vector: &[T], onto: &mut [T]) {
    let rank = onto.len();
    let ((g_re, g_im), (v_re, v_im)) = (gradient.split_at(rank), vector.split_at(rank));
    let half = T::from_f64(0.5);
    widest!({
        for i in 0..rank {
            onto[i] += half * (v_re[i] * g_im[i] - v_im[i] * g_re[i]);
        }
    });
}

/// [`N3`] of an entity's embedding: on the moduli of complex numbers, on the absolute values of reals.
pub(crate) fn regularise_entity<T: Real>(
    backbone: Backbone,
    n3: N3,
    embedding: &[T],
    factor: f64,
    onto: &mut [T],
) -> f64 {
    match backbone {
        Backbone::ComplEx | Backbone::RotatE => n3.add(embedding, factor, onto),
        Backbone::DistMult | Backbone::TransE | Backbone::TuckER => n3.add_reals(embedding, factor, onto),
    }
}

/// [`N3`] of a relation's embedding likewise; a rotation's moduli are 1 whatever its phases.
pub(crate) fn regularise_relation<T: Real>(
    backbone: Backbone,
    n3: N3,
    relation: &[T],
    factor: f64,
    onto: &mut [T],
) -> f64 {
    match backbone {
        Backbone::RotatE => 0.0,
        other => regularise_entity(other, n3, relation, factor, onto),
    }
}
