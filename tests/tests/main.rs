//! The real programs on the embedded dataset.

mod bad_input;
mod book;
mod device;
mod experiment;
mod kinds;
mod pipeline;
mod report;
