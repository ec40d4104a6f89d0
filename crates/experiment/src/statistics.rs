//! Deviations over seeds, intervals over queries, paired tests. All random draws have a seed.
//!
//! A figure of a test split is a mean over queries, so its uncertainty has two sources: another seed trains another
//! model, and another test split asks other queries. The standard deviation over seeds measures the first, a bootstrap
//! over queries the second. All models answer the same queries, so they are compared query by query.

use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use stage::seed;

/// The interval in which a figure plausibly lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The arithmetic mean; 0 if there are no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The standard deviation of a sample (`n - 1`); none for a single value.
///
/// ```
/// use dsom_experiment::statistics::deviation;
/// assert_eq!(deviation(&[1.0, 3.0]), Some(2.0f64.sqrt()));
/// assert_eq!(deviation(&[1.0]), None);
/// ```
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// The quantile of ascending values, interpolated between neighbours (Hyndman and Fan's type 7).
fn quantile(ascending: &[f64], share: f64) -> f64 {
    let last = ascending.len() - 1;
    let place = share * last as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let value = |i: usize| ascending[i.min(last)];
    value(below) + part * (value(below + 1) - value(below))
}

/// The interval of the middle share `level` of some values.
fn middle(mut values: Vec<f64>, level: f64) -> Interval {
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Interval { low: quantile(&values, tail), high: quantile(&values, 1.0 - tail) }
}

/// Means of several columns over queries drawn with replacement, the same queries for all columns (Efron, 1979).
pub struct Bootstrap {
    /// `means[b][c]`: resample b, column c.
    means: Vec<Vec<f64>>,
}

impl Bootstrap {
    /// Draws as many queries as there are, `resamples` times. `columns[c][q]` is the value of column c for query q; all
    /// columns have the same length.
    pub fn draw(columns: &[impl AsRef<[f64]> + Sync], resamples: usize, seed: u64) -> Bootstrap {
        let queries = columns.first().map_or(0, |column| column.as_ref().len());
        // The values are stored by query, so that a draw reads one place in memory.
        let row = |query| columns.iter().map(move |column| column.as_ref()[query]);
        let rows: Vec<f64> = (0..queries).flat_map(row).collect();
        let means = (0..resamples as u64).into_par_iter();
        let means = means.map(|b| resampled_means(&rows, columns.len(), queries, seed, b));
        Bootstrap { means: means.collect() }
    }

    /// The percentile interval of a column's mean.
    pub fn interval(&self, column: usize, level: f64) -> Interval {
        middle(self.means.iter().map(|means| means[column]).collect(), level)
    }
}

fn resampled_means(rows: &[f64], columns: usize, queries: usize, seed: u64, b: u64) -> Vec<f64> {
    let mut generator = seed::generator(seed, "bootstrap", b);
    let mut sums = vec![0.0; columns];
    for _ in 0..queries {
        let query = generator.random_range(0..queries as u32) as usize;
        let row = &rows[query * columns..(query + 1) * columns];
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().map(|sum| sum / queries.max(1) as f64).collect()
}

/// The two-sided p-value of paired differences by approximate randomisation (Noreen, 1989): the share of draws in which
/// random signs of the differences give a mean as far from 0. At least `1 / (rounds + 1)`.
pub fn randomisation(differences: &[f64], rounds: u64, seed: u64) -> f64 {
    let apart: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    let observed = apart.iter().sum::<f64>().abs();
    // Equal sums of the same numbers with other signs may differ by rounding.
    let tolerance = 1e-12 * apart.iter().map(|difference| difference.abs()).sum::<f64>();
    let reached = (0..rounds).into_par_iter().filter(|round| {
        let mut generator = seed::generator(seed, "randomisation", *round);
        flipped_sum(&apart, &mut generator).abs() >= observed - tolerance
    });
    (reached.count() + 1) as f64 / (rounds + 1) as f64
}

/// The sum of the numbers, each with a random sign.
fn flipped_sum(numbers: &[f64], generator: &mut impl Rng) -> f64 {
    let mut sum = 0.0;
    for numbers in numbers.chunks(64) {
        let signs = generator.next_u64();
        for (i, number) in numbers.iter().enumerate() {
            sum += if signs >> i & 1 == 1 { *number } else { -*number };
        }
    }
    sum
}

/// The p-values of several comparisons, adjusted so that any false alarm among them is as rare as it would be in a
/// single comparison (Holm, 1979).
///
/// ```
/// use dsom_experiment::statistics::holm;
/// assert_eq!(holm(&[0.03, 0.01, 0.5]), [0.06, 0.03, 0.5]);
/// ```
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let (mut adjusted, mut largest) = (vec![0.0; p_values.len()], 0.0f64);
    for (place, i) in order.into_iter().enumerate() {
        largest = largest.max(p_values[i] * (p_values.len() - place) as f64);
        adjusted[i] = largest.min(1.0);
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated() {
        let values = [1.0, 2.0, 4.0, 8.0, 16.0];
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|share| quantile(&values, share)), [1.0, 2.0, 4.0, 16.0]);
        assert_eq!(quantile(&values, 0.125), 1.5);
        let Interval { low, high } = middle(vec![8.0, 1.0, 16.0, 4.0, 2.0], 0.5);
        assert_eq!((low, high), (2.0, 8.0));
    }

    #[test]
    fn a_bootstrap_of_a_coin_has_the_binomial_interval() {
        // 100 queries, half of them hits: the mean's standard error is 0.05.
        let hits: Vec<f64> = (0..100).map(|i| f64::from(i % 2)).collect();
        let Interval { low, high } = Bootstrap::draw(&[&hits], 4000, 1).interval(0, 0.95);
        assert!((low - 0.402).abs() < 0.012 && (high - 0.598).abs() < 0.012, "{low} {high}");
    }

    #[test]
    fn columns_are_resampled_together() {
        // The two columns always differ by one, and so do the ends of their intervals, though each mean is uncertain.
        let first: Vec<f64> = (0..50).map(f64::from).collect();
        let second: Vec<f64> = first.iter().map(|x| x + 1.0).collect();
        let bootstrap = Bootstrap::draw(&[&first, &second], 200, 3);
        let [first, second] = [0, 1].map(|column| bootstrap.interval(column, 0.95));
        assert!(
            (second.low - first.low - 1.0).abs() < 1e-12 && (second.high - first.high - 1.0).abs() < 1e-12
        );
        assert!(first.high - first.low > 1.0);
    }

    #[test]
    fn draws_depend_on_the_seed_alone() {
        let column: Vec<f64> = (0..50).map(f64::from).collect();
        let interval = |seed| Bootstrap::draw(&[&column], 99, seed).interval(0, 0.9);
        assert_eq!(interval(5), interval(5));
        assert_ne!(interval(5), interval(6));
    }

    #[test]
    fn randomisation_of_a_few_equal_differences_worked_by_hand() {
        // Only two of the 2^n choices of signs reach the observed sum: all plus or all minus.
        for (n, expected) in [(1, 1.0), (2, 0.5), (4, 0.125), (6, 0.03125)] {
            let p = randomisation(&vec![0.3; n], 20_000, 7);
            assert!((p - expected).abs() < 0.01, "{n}: {p}, expected {expected}");
        }
        assert_eq!(randomisation(&[0.0; 10], 100, 1), 1.0);
        assert_eq!(randomisation(&[1.0; 60], 999, 1), 0.001);
        // The differences have opposite signs: every sum reaches 0.
        assert_eq!(randomisation(&[0.5, -0.5], 100, 1), 1.0);
    }
}
