//! Datasets as their authors published them.
//!
//! Published copies differ in everything: ids or keys, relation in the middle or last, tabs or spaces, a count line or
//! none, CRLF in one file and LF in the next. So reading has three steps. A [`Plan`] finds the files and reports
//! missing ones before any file is read. [`Dataset::read`] reads the files into ids; its errors name file and line.
//! [`SplitTriples::choose`] decides which triples are validation.

mod columns;
mod dataset;
mod images;
mod join;
mod keys;
mod lines;
mod plan;
mod texts;
mod triples;
mod validation;

pub use dataset::{Dataset, PublishedSplit};
pub use images::{ImageFile, ImageReport};
pub use join::{TextKind, TextReport};
pub use keys::unlike;
pub use lines::{Lines, trimmed};
pub use plan::Plan;
pub use validation::{SplitTriples, ValidationReport};
