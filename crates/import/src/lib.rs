//! Stage 1: a published dataset becomes a graph.
//!
//! Reads a raw folder in whatever format it was published ([`mkg::raw`]), decides which triples are validation,
//! [audits](mkg::audit) what is odd about it, and writes `graph/`: Parquet tables of entities, relations and
//! triples, and `audit.json`.

pub mod command;
mod import;
pub mod report;
