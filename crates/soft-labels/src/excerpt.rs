//! Excerpts: the part of the scores that a lossy cache keeps.
//!
//! A lossy cache keeps the scores of a query's neighbours and of `top` other entities that some teacher ranks highest,
//! the same for all teachers. So a combination of teachers is exact where one of them has a high score. Two numbers per
//! teacher ([`Rest`]) replace all other scores, the rest, and give one score per temperature.

use arrow::array::{ArrayRef, Float32Array, Float64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use half::f16;
use half::slice::HalfFloatSliceExt;
use kge::{Matrix, Real, row};
use mkg::graph::list_item;
use mkg::{EntityId, QuerySet};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// The rows of some queries in the form of a lossy cache.
pub(crate) struct Excerpt {
    /// The kept entities, `(query, top)`.
    pub(crate) top: Vec<u32>,
    /// Each teacher's scores of the kept entities, `(query, top)`.
    pub(crate) scores: Vec<Vec<f32>>,
    teachers: Vec<TeacherExcerpt>,
}

/// A teacher's scores in a lossy cache, besides those of the entities in `top`.
#[derive(Clone, Default)]
pub(crate) struct TeacherExcerpt {
    /// The scores of all queries' neighbours, one query after another.
    pub(crate) neighbours: Vec<f32>,
    /// The summary of each query's rest.
    pub(crate) rests: Vec<Rest>,
}

impl Excerpt {
    /// The excerpt of all teachers' `scores (query, entity)` for the queries `rows`, with `top` entities in each row.
    pub(crate) fn of(scores: &[Matrix<f32>], queries: &QuerySet, rows: Range<usize>, top: usize) -> Excerpt {
        let of_query = |(choice, buffer): &mut (Choice, Vec<f32>), query: usize| {
            let scores: Vec<&[f32]> = scores.iter().map(|all| all.row(query - rows.start)).collect();
            let neighbours = queries.tails(query);
            let chosen = choice.of(&scores, neighbours, top);
            let kept = chosen.iter().chain(neighbours);
            buffer.resize(scores[0].len(), 0.0);
            let count = left_out(buffer.len(), chosen.len(), neighbours.len());
            let rests = scores.iter().map(|scores| Rest::of(scores, kept.clone(), count, buffer));
            let rests: Vec<Rest> = rests.collect();
            (chosen, rests)
        };
        let of_queries: Vec<_> = rows.clone().into_par_iter().map_init(<_>::default, of_query).collect();
        let (top, teachers) = (Vec::with_capacity(rows.len() * top), scores.len());
        let mut whole =
            Excerpt { top, scores: vec![Vec::new(); teachers], teachers: vec![<_>::default(); teachers] };
        for (query, (chosen, rests)) in rows.clone().zip(of_queries) {
            whole.top.extend(chosen.iter().map(|entity| entity.0));
            for (teacher, rest) in rests.into_iter().enumerate() {
                let row = scores[teacher].row(query - rows.start);
                let score = |entity: &EntityId| row[entity.index()];
                whole.scores[teacher].extend(chosen.iter().map(score));
                whole.teachers[teacher].neighbours.extend(queries.tails(query).iter().map(score));
                whole.teachers[teacher].rests.push(rest);
            }
        }
        whole
    }

    /// Each teacher's columns without a fixed width, for the queries `rows`.
    pub(crate) fn columns(&self, queries: &QuerySet, rows: &Range<usize>) -> Vec<ArrayRef> {
        let columns = self.teachers.iter().flat_map(|teacher| -> [ArrayRef; 3] {
            let neighbours = Arc::new(Float32Array::from(teacher.neighbours.clone()));
            let (log_sums, means): (Vec<f64>, Vec<f64>) =
                teacher.rests.iter().map(|rest| (rest.log_sum, rest.mean)).unzip();
            [
                neighbour_lists(queries, rows, neighbours),
                Arc::new(Float64Array::from(log_sums)),
                Arc::new(Float64Array::from(means)),
            ]
        });
        columns.collect()
    }
}

/// A column with a value for each neighbour of the queries `rows`.
pub(crate) fn neighbour_lists(queries: &QuerySet, rows: &Range<usize>, values: ArrayRef) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(rows.clone().map(|row| queries.tails(row).len()));
    Arc::new(ListArray::new(list_item(values.data_type().clone()), offsets, values, None))
}

/// Number of entities in the rest: `top` contains neighbours only if no other entities are left.
fn left_out(entities: usize, top: usize, neighbours: usize) -> usize {
    entities.saturating_sub(top + neighbours)
}

/// Chooses entities, row after row, in the same buffers.
#[derive(Default)]
struct Choice {
    /// One teacher's order of entities; see [`key`].
    keys: Vec<u64>,
    /// Each teacher's highest entities, best first, one teacher after another.
    best: Vec<EntityId>,
    /// True if an entity is a neighbour or chosen.
    taken: Vec<bool>,
}

impl Choice {
    /// The `top` entities outside the `neighbours` that rank highest with any teacher; `rows` are teachers' scores of
    /// all entities. Takes each teacher's first, then each one's second, and so on, in the order of teachers. Of equal
    /// scores the lower id ranks higher. If too few entities are left, neighbours fill the places. Ids ascend.
    fn of(&mut self, rows: &[&[f32]], neighbours: &[EntityId], top: usize) -> Vec<EntityId> {
        let entities = rows[0].len();
        let wanted = top.min(entities - neighbours.len());
        self.taken.clear();
        self.taken.resize(entities, false);
        neighbours.iter().for_each(|neighbour| self.taken[neighbour.index()] = true);
        self.best.clear();
        rows.iter().for_each(|scores| self.rank(scores, neighbours, wanted));
        let mut chosen = Vec::with_capacity(top);
        for place in 0..wanted {
            for teacher in 0..rows.len() {
                let entity = self.best[teacher * wanted + place];
                if chosen.len() < wanted && !std::mem::replace(&mut self.taken[entity.index()], true) {
                    chosen.push(entity);
                }
            }
        }
        chosen.extend(&neighbours[..top - wanted]);
        chosen.sort_unstable();
        chosen
    }

    /// Appends the `wanted` highest-ranked entities outside the neighbours.
    fn rank(&mut self, scores: &[f32], neighbours: &[EntityId], wanted: usize) {
        if wanted == 0 {
            return;
        }
        self.keys.clear();
        self.keys.extend(scores.iter().zip(0..).map(|(score, entity)| key(*score, entity)));
        neighbours.iter().for_each(|neighbour| self.keys[neighbour.index()] = u64::MAX);
        self.keys.select_nth_unstable(wanted - 1);
        let best = &mut self.keys[..wanted];
        best.sort_unstable();
        self.best.extend(best.iter().map(|key| EntityId(*key as u32)));
    }
}

/// A sort key: lower for a higher score and, of equal scores, for a lower id.
fn key(score: f32, entity: u32) -> u64 {
    // Adding zero makes -0 equal to 0.
    let bits = (score + 0.0).to_bits();
    // Without the sign, the bits of floats have the order of their magnitudes.
    let descending = if bits >> 31 == 0 { !bits & (u32::MAX >> 1) } else { bits };
    u64::from(descending) << 32 | u64::from(entity)
}

/// A summary, in two numbers, of the scores that are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rest {
    /// `ln Σ exp(score)`; minus infinity if no score is left out.
    pub(crate) log_sum: f64,
    /// The mean score; 0 if no score is left out.
    pub(crate) mean: f64,
}

impl Rest {
    /// The summary of the `count` scores outside the entities `kept`; `buffer` has the length of `scores`.
    fn of<'a>(
        scores: &[f32],
        kept: impl Iterator<Item = &'a EntityId> + Clone,
        count: usize,
        buffer: &mut [f32],
    ) -> Rest {
        if count == 0 {
            return Rest { log_sum: f64::NEG_INFINITY, mean: 0.0 };
        }
        buffer.copy_from_slice(scores);
        kept.clone().for_each(|entity| buffer[entity.index()] = f32::MASKED);
        let log_sum = row::log_sum_exp(buffer, 1.0);
        kept.for_each(|entity| buffer[entity.index()] = 0.0);
        Rest { log_sum, mean: f64::from(row::sum(buffer)) / count as f64 }
    }

    /// The score that replaces each of `count` left-out scores at temperature `tau`.
    ///
    /// Its `count` softened copies have the sum of the softened scores: exactly at τ = 1, up to the second cumulant at
    /// any other, `τ ln (Σ exp(s / τ) / n) = μ + σ² / 2τ + …`. For an infinite τ, it is the mean of the scores.
    fn score(self, count: usize, tau: f64) -> f32 {
        let at_one = self.log_sum - (count as f64).ln();
        (self.mean + (at_one - self.mean) / tau) as f32
    }
}

/// The numbers of all rows of a lossy cache, besides the scores of the entities in `top`.
pub(crate) struct Excerpts {
    pub(crate) entities: usize,
    /// The queries; their tails are the neighbours.
    pub(crate) queries: QuerySet,
    pub(crate) teachers: Vec<TeacherExcerpt>,
}

/// One teacher's scores of the entities that a query's row keeps.
#[derive(Clone, Copy)]
pub(crate) struct Kept<'a> {
    pub(crate) query: usize,
    /// The entities' ids, four bytes each.
    pub(crate) top: &'a [u8],
    pub(crate) scores: &'a [f16],
}

impl Excerpts {
    /// A teacher's scores of all entities, for temperature `tau`.
    pub(crate) fn fill(&self, kept: Kept<'_>, teacher: usize, tau: f64, into: &mut [f32]) {
        into.fill(self.rest(kept, teacher, tau));
        scatter(kept.scores, ids(kept.top), into);
        for (entity, score) in self.queries.tails(kept.query).iter().zip(self.neighbours(kept, teacher)) {
            into[entity.index()] = *score;
        }
    }

    /// A teacher's score of one entity, at temperature 1.
    pub(crate) fn score(&self, kept: Kept<'_>, teacher: usize, entity: EntityId) -> f32 {
        if let Ok(position) = self.queries.tails(kept.query).binary_search(&entity) {
            return self.neighbours(kept, teacher)[position];
        }
        match ids(kept.top).position(|other| other == entity) {
            Some(position) => kept.scores[position].to_f32(),
            None => self.rest(kept, teacher, 1.0),
        }
    }

    fn neighbours(&self, kept: Kept<'_>, teacher: usize) -> &[f32] {
        &self.teachers[teacher].neighbours[self.queries.pairs_of(kept.query)]
    }

    /// The score that replaces the score of each entity that is not kept.
    fn rest(&self, kept: Kept<'_>, teacher: usize, tau: f64) -> f32 {
        let count = left_out(self.entities, kept.scores.len(), self.queries.tails(kept.query).len());
        self.teachers[teacher].rests[kept.query].score(count, tau)
    }
}

/// Reads ids, which can begin at any offset of a file.
pub(crate) fn ids(bytes: &[u8]) -> impl Iterator<Item = EntityId> {
    bytes.as_chunks().0.iter().map(|bytes| EntityId(u32::from_le_bytes(*bytes)))
}

/// Writes each score to the place of its entity.
fn scatter(scores: &[f16], mut entities: impl Iterator<Item = EntityId>, into: &mut [f32]) {
    // Converts many numbers at once, for the instructions that do so.
    let mut numbers = [0.0; 64];
    for scores in scores.chunks(numbers.len()) {
        scores.convert_to_f32_slice(&mut numbers[..scores.len()]);
        for (score, entity) in numbers[..scores.len()].iter().zip(&mut entities) {
            into[entity.index()] = *score;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entities(ids: &[u32]) -> Vec<EntityId> {
        ids.iter().map(|id| EntityId(*id)).collect()
    }

    #[test]
    fn a_choice_worked_out_by_hand() {
        let first = [0.0, 9.0, 5.0, -1.0, 5.0, 7.0f32];
        let second = [8.0, 1.0, -2.0, 3.0, 1.0, 0.0f32];
        // Without entity 1, the first teacher's order is 5 2 4 0 3, the second teacher's 0 3 4 5 2. There is no sixth
        // entity, so the neighbour takes the last place.
        for (neighbours, chosen) in [
            (&[1][..], &[5][..]),
            (&[1], &[0, 2, 5]),
            (&[1], &[0, 2, 3, 5]),
            (&[1], &[0, 2, 3, 4, 5]),
            (&[1], &[0, 1, 2, 3, 4, 5]),
            (&[0, 1, 2, 3, 4, 5], &[0, 1]),
        ] {
            let found = Choice::default().of(&[&first, &second], &entities(neighbours), chosen.len());
            assert_eq!(found, entities(chosen), "beside {neighbours:?}");
        }
    }

    proptest! {
        #[test]
        fn a_teachers_choice_equals_a_sort(
            scores in prop::collection::vec(prop::sample::select(vec![-3.0f32, -0.5, -0.0, 0.0, 1e-30, 2.0, 7.5]), 1..60),
            neighbours in prop::collection::btree_set(0u32..60, 0..20),
            top in 1usize..60,
        ) {
            let neighbours: Vec<u32> = neighbours.into_iter().filter(|id| (*id as usize) < scores.len()).collect();
            let top = top.min(scores.len());
            let mut order: Vec<u32> =
                (0..scores.len() as u32).filter(|id| !neighbours.contains(id)).collect();
            // The sort is stable, so of equal scores the lower id comes first; -0 and 0 are equal.
            order.sort_by(|a, b| scores[*b as usize].partial_cmp(&scores[*a as usize]).unwrap());
            order.extend(&neighbours);
            let mut expected = order[..top].to_vec();
            expected.sort_unstable();
            prop_assert_eq!(Choice::default().of(&[&scores], &entities(&neighbours), top), entities(&expected));
        }
    }

    #[test]
    fn a_rest_worked_out_by_hand() {
        // Without the second and the last score: probabilities 1/2, 1/4, 1/4, with a sum of exponentials of 8.
        let scores = [4.0f32, 1000.0, 2.0, 2.0, -3.0].map(|x| if x > 0.0 { x.ln() } else { x });
        let rest = Rest::of(&scores, entities(&[1, 4]).iter(), 3, &mut [0.0; 5]);
        let ln2 = std::f64::consts::LN_2;
        assert!((rest.log_sum - 3.0 * ln2).abs() < 1e-6, "{rest:?}");
        assert!((rest.mean - 4.0 / 3.0 * ln2).abs() < 1e-6, "{rest:?}");
        let (at_one, mean) = (3.0 * ln2 - 3f64.ln(), 4.0 / 3.0 * ln2);
        for (tau, expected) in [(1.0, at_one), (4.0, mean + (at_one - mean) / 4.0), (f64::INFINITY, mean)] {
            assert!((f64::from(rest.score(3, tau)) - expected).abs() < 1e-6, "{tau}");
        }
    }

    #[test]
    fn softened_sums_are_close_at_any_temperature() {
        let scores: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let rest = Rest::of(&scores, [].iter(), 1000, &mut [0.0; 1000]);
        for tau in [1.0, 2.0, 4.0, 8.0] {
            let exact = row::log_sum_exp(&scores, 1.0 / tau as f32);
            let found = f64::from(rest.score(1000, tau)) / tau + 1000f64.ln();
            assert!((exact - found).abs() < 1e-3, "{tau}: {found}, exactly {exact}");
        }
    }

    #[test]
    fn entities_of_one_score_have_that_score_and_none_have_no_sum() {
        assert_eq!(Rest::of(&[0.0; 50], entities(&[3]).iter(), 49, &mut [0.0; 50]).score(49, 4.0), 0.0);
        let none = Rest::of(&[1.0, 2.0], entities(&[0, 1]).iter(), 0, &mut [0.0; 2]);
        assert_eq!((none.log_sum, none.mean), (f64::NEG_INFINITY, 0.0));
    }
}
