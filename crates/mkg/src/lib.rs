//! Multimodal knowledge graphs: ids, triples, queries, published formats, audit. No tensors.
//!
//! There is one direction to reason about: predicting the head of `(?, r, t)` is predicting the tail of
//! `(t, r⁻¹, ?)`, with the inverse relation `r⁻¹ = r + R`. Everything downstream sees [queries](Query) only.

pub mod audit;
#[cfg(test)]
mod fixture;
pub mod graph;
mod ids;
pub mod raw;

pub use graph::{Entity, Relation, Vocabulary};
pub use ids::{EntityId, KnownAnswers, Query, QuerySet, RelationId, Split, Triple};
