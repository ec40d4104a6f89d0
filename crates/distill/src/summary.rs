//! A short description of what the teachers say of a query.
//!
//! Of each teacher: its [`TOP`] highest log-probabilities, its entropy, its margin (the first log-probability over the
//! second), and whether it tells entities apart at all, which it does not where the head lacks its modality. Of each
//! pair of teachers: how many of their [`SHARED`] favourites they share, and whether the first is the same. Everything
//! is scaled to about one.

use dsom_soft_labels::SoftLabels;
use kge::{Matrix, row};
use rayon::prelude::*;

/// Log-probabilities per teacher.
const TOP: usize = 8;
/// Favourites that are compared between teachers.
const SHARED: usize = 10;
/// Numbers per teacher and per pair of teachers.
const OF_TEACHER: usize = TOP + 3;
const OF_PAIR: usize = 2;
/// Log-probabilities and margins are some nats.
const NATS: f32 = 10.0;

/// The summaries of a set of queries.
pub(crate) struct Summary {
    rows: Matrix<f32>,
}

impl Summary {
    /// Numbers per query.
    pub(crate) fn width(teachers: usize) -> usize {
        teachers * OF_TEACHER + teachers * (teachers - 1) / 2 * OF_PAIR
    }

    /// Reads all soft labels once.
    pub(crate) fn of(labels: &SoftLabels, queries: usize) -> Summary {
        let teachers = labels.teachers().len();
        let mut rows = Matrix::zeros(queries, Self::width(teachers));
        let width = rows.columns();
        rows.values_mut().par_chunks_mut(width).enumerate().for_each_init(
            || (vec![0.0; labels.entities()], vec![0.0; labels.entities()]),
            |(scores, buffer), (query, into)| {
                let mut favourites = Vec::with_capacity(teachers);
                for (teacher, into) in into.chunks_mut(OF_TEACHER).take(teachers).enumerate() {
                    labels.fill(query, teacher, 1.0, scores);
                    favourites.push(describe(scores, buffer, into));
                }
                compare(&favourites, &mut into[teachers * OF_TEACHER..]);
            },
        );
        Summary { rows }
    }

    pub(crate) fn row(&self, query: usize) -> &[f32] {
        self.rows.row(query)
    }
}

/// Describes one teacher's scores and returns its favourites, best first.
fn describe(scores: &[f32], buffer: &mut [f32], into: &mut [f32]) -> Vec<u32> {
    let favourites = favourites(scores);
    let shift = row::max(scores);
    row::exp_into(scores, shift, 1.0, buffer);
    let sum = row::sum(buffer);
    let log_sum = shift + sum.ln();
    let log_p = |favourite: usize| match favourites.get(favourite) {
        Some(&entity) => scores[entity as usize] - log_sum,
        None => f32::NEG_INFINITY,
    };
    for (i, into) in into[..TOP].iter_mut().enumerate() {
        // Probabilities below e^-30 are all alike; so is what a smaller graph does not have.
        *into = log_p(i).max(-3.0 * NATS) / NATS;
    }
    let mean_score = row::dot(buffer, scores) / sum;
    into[TOP] = (log_sum - mean_score) / (scores.len() as f32).ln().max(1.0);
    into[TOP + 1] = (log_p(0) - log_p(1)).min(3.0 * NATS) / NATS;
    let apart = scores.iter().any(|score| *score != scores[0]);
    into[TOP + 2] = f32::from(apart);
    favourites
}

/// The entities with the highest scores, best first; of equal ones those with the lower number.
fn favourites(scores: &[f32]) -> Vec<u32> {
    let mut best: Vec<u32> = Vec::with_capacity(SHARED + 1);
    for (entity, score) in scores.iter().enumerate() {
        let is_full = best.len() == SHARED;
        if is_full && best.last().is_some_and(|last| *score <= scores[*last as usize]) {
            continue;
        }
        let at = best.partition_point(|other| scores[*other as usize] >= *score);
        best.insert(at, entity as u32);
        best.truncate(SHARED);
    }
    best
}

fn compare(favourites: &[Vec<u32>], into: &mut [f32]) {
    let pairs = (0..favourites.len()).flat_map(|a| (a + 1..favourites.len()).map(move |b| (a, b)));
    for ((a, b), into) in pairs.zip(into.chunks_mut(OF_PAIR)) {
        let (a, b) = (&favourites[a], &favourites[b]);
        let shared = a.iter().filter(|entity| b.contains(entity)).count();
        into[0] = shared as f32 / SHARED.min(a.len()) as f32;
        into[1] = f32::from(a.first() == b.first());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_worked_out_by_hand() {
        // Probabilities 1/2, 1/4, 1/8, 1/8.
        let scores = [0.25f32, 0.5, 0.125, 0.125].map(f32::ln);
        let (mut buffer, mut into) = ([0.0; 4], [0.0; OF_TEACHER]);
        assert_eq!(describe(&scores, &mut buffer, &mut into), [1, 0, 2, 3]);
        let ln2 = std::f32::consts::LN_2;
        let expected =
            [-ln2, -2.0 * ln2, -3.0 * ln2, -3.0 * ln2, -30.0, -30.0, -30.0, -30.0].map(|x| x / NATS);
        for (found, expected) in into.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{into:?}");
        }
        // Entropy: 1.75 bits of at most 2; ln 4 is above the smallest divisor of 1.
        assert!((into[TOP] - 1.75 / 2.0).abs() < 1e-6, "{into:?}");
        assert!((into[TOP + 1] - ln2 / NATS).abs() < 1e-6);
        assert_eq!(into[TOP + 2], 1.0);
    }

    #[test]
    fn a_teacher_that_knows_nothing_is_seen() {
        let (mut buffer, mut into) = ([0.0; 50], [0.0; OF_TEACHER]);
        let favourites = describe(&[0.0; 50], &mut buffer, &mut into);
        assert_eq!(favourites, (0..SHARED as u32).collect::<Vec<_>>());
        assert!((into[TOP] - 1.0).abs() < 1e-6);
        assert_eq!((into[TOP + 1], into[TOP + 2]), (0.0, 0.0));
    }

    #[test]
    fn favourites_equal_a_sort() {
        let scores: Vec<f32> = (0..500).map(|i| ((i * 7919) % 101) as f32).collect();
        let mut sorted: Vec<u32> = (0..500).collect();
        sorted.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
        assert_eq!(favourites(&scores), sorted[..SHARED]);
    }

    #[test]
    fn agreement_counts_shared_favourites() {
        let mut into = [9.0; 6];
        let lists =
            [(0..10).collect(), (5..15).collect::<Vec<u32>>(), vec![0, 20, 21, 22, 23, 24, 25, 26, 27, 28]];
        compare(&lists, &mut into);
        assert_eq!(into, [0.5, 0.0, 0.1, 1.0, 0.0, 0.0]);
    }
}
