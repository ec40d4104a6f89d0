//! The real programs on the embedded dataset.

mod backbones;
mod bad_input;
mod book;
mod corpus;
mod device;
mod ensemble;
mod experiment;
mod own_data;
mod pipeline;
mod report;
mod selection;
