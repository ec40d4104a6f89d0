//! The real program on a run that the tests build: what comes out, and every way to be wrong with its exit code.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod answers;
mod exports;
mod files;
mod fixture;
mod unseen;
