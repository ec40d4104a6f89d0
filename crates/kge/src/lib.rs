//! Knowledge graph embeddings: ComplEx and other backbones, the 1-vs-all training step, N3, Adagrad, ranking.
//!
//! The scores of all entities for a query are one product `q · Eᵀ` with every [`backbone`]. A training step is
//! therefore three matrix products and one visit to each row of scores, where an [`Objective`] replaces the row by its
//! gradient in place. The gradients are written by hand: this is the shortest way from the equations to preallocated
//! buffers. Tests compare them with finite differences, golden values and automatic differentiation. Everything is
//! generic over [`Real`]: programs run in `f32`, tests that compare digits run in `f64`.

pub mod adagrad;
pub mod backbone;
pub mod checkpoint;
pub mod complex;
pub mod matrix;
pub mod model;
pub mod rank;
pub mod real;
pub mod row;
pub mod train;
pub mod widest;

pub use backbone::Shape;
pub use complex::N3;
pub use matrix::{Matrix, ProductPrecision};
pub use model::{Model, Scorer};
pub use rank::{Judged, Rank, TieRule, judge_triples, rank_triples};
pub use real::Real;
pub use recipe::Backbone;
pub use train::{CrossEntropy, Embedding, Initial, Objective, StepLoss, Trainer};
