//! Datasets as their authors published them.
//!
//! No two published copies agree on anything: ids or keys, relation in the middle or last, tabs or spaces, a count
//! line or none, CRLF in one file and LF in the next. So reading has three steps. A [`Plan`] finds the files and
//! says which are missing before anything is read; [`Dataset::read`] reads them into ids, and every
//! complaint names file and line; [`SplitTriples::choose`] decides which triples are validation.

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
