//! Excerpts: what a lossy cache has of rows of scores.
//!
//! Kept are the scores of a query's neighbours and of `top` further entities, the same for all its teachers: those that
//! some teacher ranks highest. So a combination of teachers is exact wherever one of them has a high score. For all
//! other entities, the rest, stand two numbers per teacher ([`Rest`]), from which every temperature has its own.

mod choice;
mod read;
mod rest;
mod write;

pub(crate) use read::{Excerpts, Kept, TeacherExcerpt, ids};
pub(crate) use rest::Rest;
pub(crate) use write::Excerpt;
