//! The strategies that a chart names, and their colours.

use crate::chart::series;

/// Colours of the teachers in their order, wherever one is drawn.
pub(crate) const TEACHERS: [usize; 4] = [1, 2, 3, 6];
/// Colours of strategies of several teachers.
const MIXED: [usize; 4] = [5, 6, 4, 0];
/// The colour of all teachers together, as of their average.
const ALL: usize = 7;
/// The most strategies that are told apart; of more, the rarest are one.
const MOST: usize = 8;
/// Name of the rarest together.
const OTHERS: &str = "other strategies";

/// The strategies that are told apart.
pub(crate) struct Shown {
    /// Their names for people and the classes of their colours.
    pub(crate) names: Vec<(String, String)>,
    /// For each strategy, its position in `names`.
    places: Vec<usize>,
}

impl Shown {
    /// Those of `strategies`, which stand in the order of their numbers; `weights` says which are rare.
    pub(crate) fn of<S: AsRef<str>>(strategies: &[S], weights: &[f64]) -> Shown {
        let mut order: Vec<usize> = (0..strategies.len()).collect();
        if strategies.len() > MOST {
            order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b)));
            order.truncate(MOST - 1);
            order.sort_unstable();
        }
        let mut names: Vec<(String, String)> = Vec::new();
        let mut mixed = 0;
        for &strategy in &order {
            let last = strategy + 1 == strategies.len();
            let colour = colour(strategy, last, &mut mixed);
            names.push((readable(strategies[strategy].as_ref(), last), series(colour)));
        }
        let place = |strategy| order.iter().position(|shown| *shown == strategy).unwrap_or(order.len());
        let places = (0..strategies.len()).map(place).collect();
        if order.len() < strategies.len() {
            names.push((OTHERS.to_owned(), series(MIXED[3])));
        }
        Shown { names, places }
    }

    /// Shares by strategy as shares by name.
    pub(crate) fn pool(&self, shares: &[f64]) -> Vec<f64> {
        let mut pooled = vec![0.0; self.names.len()];
        self.places.iter().zip(shares).for_each(|(place, share)| pooled[*place] += share);
        pooled
    }
}

fn colour(strategy: usize, last: bool, mixed: &mut usize) -> usize {
    // Strategy number k holds the teachers whose bits are set in k + 1.
    let bits = strategy + 1;
    if bits.is_power_of_two() {
        return TEACHERS[bits.trailing_zeros() as usize % TEACHERS.len()];
    }
    if last {
        return ALL;
    }
    *mixed += 1;
    MIXED[(*mixed - 1) % MIXED.len()]
}

/// `structural+textual` as `structural + textual`.
pub(crate) fn readable(strategy: &str, all: bool) -> String {
    if all && strategy.contains('+') { "all teachers".to_owned() } else { strategy.replace('+', " + ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teachers_and_all_of_them_keep_their_colours() {
        let shown = Shown::of(&["s", "t", "s+t", "v", "s+v", "t+v", "s+t+v"], &[0.0; 7]);
        let classes: Vec<&str> = shown.names.iter().map(|(_, class)| class.as_str()).collect();
        assert_eq!(classes, ["s1", "s2", "s5", "s3", "s6", "s4", "s7"]);
        assert_eq!((shown.names[2].0.as_str(), shown.names[6].0.as_str()), ("s + t", "all teachers"));
        assert_eq!(shown.pool(&[0.1; 7]), [0.1; 7]);
        assert_eq!(Shown::of(&["structural"], &[1.0]).names[0].0, "structural");
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
