//! Excerpts as training reads them.

use half::f16;
use half::slice::HalfFloatSliceExt;
use mkg::{EntityId, QuerySet};

use super::Rest;

/// Numbers of all rows of a lossy cache beside the scores of the entities it keeps.
pub(crate) struct Excerpts {
    entities: usize,
    /// Queries whose tails are the neighbours.
    queries: QuerySet,
    teachers: Vec<TeacherExcerpt>,
}

/// One teacher's part of it.
#[derive(Default)]
pub(crate) struct TeacherExcerpt {
    /// The scores of all queries' neighbours, one query after another.
    pub(crate) neighbours: Vec<f32>,
    /// The rest of each query.
    pub(crate) rests: Vec<Rest>,
}

/// The scores of the entities that a query's row keeps.
#[derive(Clone, Copy)]
pub(crate) struct Kept<'a> {
    pub(crate) query: usize,
    /// Ids of four bytes.
    pub(crate) top: &'a [u8],
    pub(crate) scores: &'a [f16],
}

impl TeacherExcerpt {
    /// Appends what belongs to the queries that follow.
    pub(crate) fn append(&mut self, following: TeacherExcerpt) {
        self.neighbours.extend(following.neighbours);
        self.rests.extend(following.rests);
    }
}

impl Excerpts {
    /// Excerpts by `teachers` for a graph of so many entities.
    pub(crate) fn new(entities: usize, queries: QuerySet, teachers: Vec<TeacherExcerpt>) -> Self {
        Excerpts { entities, queries, teachers }
    }

    /// A teacher's scores of all entities, for temperature `tau`.
    pub(crate) fn fill(&self, kept: Kept<'_>, teacher: usize, tau: f64, into: &mut [f32]) {
        into.fill(self.rest(kept, teacher, tau));
        scatter(kept.scores, ids(kept.top), into);
        for (entity, score) in self.queries.tails(kept.query).iter().zip(self.neighbours(kept, teacher)) {
            into[entity.index()] = *score;
        }
    }

    /// The same of one entity, at temperature 1.
    pub(crate) fn score(&self, kept: Kept<'_>, teacher: usize, entity: EntityId) -> f32 {
        if let Ok(position) = self.queries.tails(kept.query).binary_search(&entity) {
            return self.neighbours(kept, teacher)[position];
        }
        match ids(kept.top).position(|other| other == entity.index()) {
            Some(position) => kept.scores[position].to_f32(),
            None => self.rest(kept, teacher, 1.0),
        }
    }

    fn neighbours(&self, kept: Kept<'_>, teacher: usize) -> &[f32] {
        &self.teachers[teacher].neighbours[self.queries.pairs_of(kept.query)]
    }

    /// Score that stands for each entity that is not kept.
    fn rest(&self, kept: Kept<'_>, teacher: usize, tau: f64) -> f32 {
        // Neighbours are among the entities kept only where no others are left.
        let known = kept.scores.len() + self.queries.tails(kept.query).len();
        self.teachers[teacher].rests[kept.query].score(self.entities.saturating_sub(known), tau)
    }
}

/// Ids, which lie at any offset of a file.
pub(crate) fn ids(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes) as usize)
}

/// Puts each score where its entity has its place.
fn scatter(scores: &[f16], mut entities: impl Iterator<Item = usize>, into: &mut [f32]) {
    // Some at once, for the instructions that convert so many.
    let mut numbers = [0.0; 64];
    for scores in scores.chunks(numbers.len()) {
        scores.convert_to_f32_slice(&mut numbers[..scores.len()]);
        for (score, entity) in numbers[..scores.len()].iter().zip(&mut entities) {
            into[entity] = *score;
        }
    }
}
