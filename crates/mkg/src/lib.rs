//! Multimodal knowledge graphs: ids, triples, queries, published formats, audit. The crate has no tensors.
//!
//! All code predicts in one direction: predicting the head of `(?, r, t)` is the same as predicting the tail of
//! `(t, r⁻¹, ?)`, with the inverse relation `r⁻¹ = r + R`. Later stages see only [queries](Query).

pub mod audit;
#[cfg(test)]
mod fixture;
pub mod graph;
mod ids;
pub mod raw;

pub use graph::{Entity, Relation, Vocabulary};
pub use ids::{EntityId, KnownAnswers, Query, QuerySet, RelationId, Split, Triple};
