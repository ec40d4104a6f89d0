//! The strategies that a chart names, and their colours.

use crate::chart::{Named, series};

/// The colours of the teachers, in their order, in every chart.
pub(crate) const TEACHERS: [usize; 4] = [1, 2, 3, 6];
/// The colours of strategies with several teachers.
const MIXED: [usize; 4] = [5, 6, 4, 0];
/// The colour of all teachers together, as for their average.
pub(crate) const ALL: usize = 7;
/// The largest number of strategies that a chart distinguishes; the rarest others form one group.
const MOST: usize = 8;

/// The strategies that a chart distinguishes.
pub(crate) struct Shown {
    /// The names for people and the colour classes of the strategies.
    pub(crate) names: Vec<Named>,
    /// The position in `names` for each strategy.
    places: Vec<usize>,
}

impl Shown {
    /// Chooses among `strategies`, which are in the order of their numbers; the rarest have the smallest `weights`.
    pub(crate) fn of(strategies: &[String], weights: &[f64]) -> Shown {
        let mut order: Vec<usize> = (0..strategies.len()).collect();
        if strategies.len() > MOST {
            order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
            order.truncate(MOST - 1);
            order.sort_unstable();
        }
        let (mut names, mut places, mut mixed) = (Vec::new(), vec![order.len(); strategies.len()], 0);
        for (place, &strategy) in order.iter().enumerate() {
            // Counted from 1, a strategy's number has the bits of its teachers.
            let number = strategy + 1;
            let last = number == strategies.len();
            let colour = if number.is_power_of_two() {
                TEACHERS[number.trailing_zeros() as usize % TEACHERS.len()]
            } else if last {
                ALL
            } else {
                mixed += 1;
                MIXED[(mixed - 1) % MIXED.len()]
            };
            names.push((readable(&strategies[strategy], last), series(colour)));
            places[strategy] = place;
        }
        if order.len() < strategies.len() {
            names.push(("other strategies".to_owned(), series(MIXED[3])));
        }
        Shown { names, places }
    }

    pub(crate) fn pool(&self, shares: &[f64]) -> Vec<f64> {
        let mut pooled = vec![0.0; self.names.len()];
        self.places.iter().zip(shares).for_each(|(place, share)| pooled[*place] += share);
        pooled
    }
}

/// A name for people: `structural+textual` becomes `structural + textual`.
pub(crate) fn readable(strategy: &str, all: bool) -> String {
    if all && strategy.contains('+') { "all teachers".to_owned() } else { strategy.replace('+', " + ") }
}

/// The strategy with the largest share, the first of equal ones.
pub(crate) fn favourite(shares: &[f64]) -> usize {
    (0..shares.len()).max_by(|a, b| shares[*a].total_cmp(&shares[*b]).then(b.cmp(a))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teachers_and_all_of_them_keep_their_colours() {
        let shown = Shown::of(&["s", "t", "s+t", "v", "s+v", "t+v", "s+t+v"].map(str::to_owned), &[0.0; 7]);
        let classes: Vec<&str> = shown.names.iter().map(|(_, class)| *class).collect();
        assert_eq!(classes, ["s1", "s2", "s5", "s3", "s6", "s4", "s7"]);
        assert_eq!((shown.names[2].0.as_str(), shown.names[6].0.as_str()), ("s + t", "all teachers"));
        assert_eq!(shown.pool(&[0.1; 7]), [0.1; 7]);
        assert_eq!(Shown::of(&["structural".to_owned()], &[1.0]).names[0].0, "structural");
    }

    #[test]
    fn the_rarest_of_many_are_one() {
        let names: Vec<String> = (0..15).map(|i| format!("n{i}")).collect();
        let weights: Vec<f64> = (0..15).map(f64::from).collect();
        let shown = Shown::of(&names, &weights);
        assert_eq!(shown.names.len(), 8);
        assert_eq!(shown.names[0].0, "n8");
        let pooled = shown.pool(&[1.0; 15]);
        assert_eq!((pooled[0], pooled[7]), (1.0, 8.0));
    }
}
