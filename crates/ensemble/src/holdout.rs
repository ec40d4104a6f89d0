//! Queries that are held out.

use rand::seq::SliceRandom;
use stage::seed;

/// Queries to learn from, and those held out.
pub(crate) struct Holdout {
    pub(crate) held_out: Vec<usize>,
    pub(crate) rest: Vec<usize>,
}

impl Holdout {
    /// Draws a fifth of so many queries.
    pub(crate) fn fifth(queries: usize, seed: u64) -> Holdout {
        let mut rest = shuffled(queries, seed);
        let held_out = rest.split_off(queries - (queries / 5).max(1));
        Holdout { held_out, rest }
    }

    /// Draws folds: each query is held out once. Where there are fewer queries than `folds`, as many as queries.
    pub(crate) fn folds(queries: usize, folds: usize, seed: u64) -> impl Iterator<Item = Holdout> {
        let order = shuffled(queries, seed);
        let folds = folds.min(queries);
        (0..folds).map(move |fold| {
            let [from, to] = [fold, fold + 1].map(|fold| fold * queries / folds);
            let rest = [&order[..from], &order[to..]].concat();
            Holdout { held_out: order[from..to].to_vec(), rest }
        })
    }
}

fn shuffled(queries: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..queries).collect();
    order.shuffle(&mut seed::generator(seed, "ensemble/held-out", 0));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_held_out_once() {
        for (queries, folds) in [(10, 5), (11, 3), (2, 5)] {
            let mut held_out = Vec::new();
            for fold in Holdout::folds(queries, folds, 7) {
                assert_eq!(fold.held_out.len() + fold.rest.len(), queries);
                assert!(!fold.rest.is_empty() && fold.held_out.iter().all(|held| !fold.rest.contains(held)));
                held_out.extend(fold.held_out);
            }
            held_out.sort_unstable();
            assert_eq!(held_out, (0..queries).collect::<Vec<_>>());
        }
        let Holdout { held_out, rest } = Holdout::fifth(11, 7);
        assert_eq!((held_out.len(), rest.len()), (2, 9));
    }
}
