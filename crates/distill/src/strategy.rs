//! Strategies: non-empty sets of teachers.

use stage::{Error, Modality, Result};
use std::collections::BTreeMap;

/// A non-empty set of teachers, the paper's action `a` (Eq. 6). Number `k` (from 0) has teacher `m` if `k + 1` has bit
/// `m`; teachers have a fixed order, and the last set holds all. Tables have a column per strategy, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Strategy(pub usize);

impl Strategy {
    /// The strategy of all `teachers`: the baseline of the reward.
    pub fn all(teachers: usize) -> Strategy {
        Strategy(strategies(teachers) - 1)
    }

    /// The strategy of these teachers, by position.
    ///
    /// # Panics
    /// Panics if there are no teachers.
    pub fn of(teachers: impl IntoIterator<Item = usize>) -> Strategy {
        let bits = teachers.into_iter().fold(0usize, |bits, teacher| bits | 1 << teacher);
        Strategy(bits.checked_sub(1).expect("a strategy holds at least one teacher"))
    }

    /// The strategy without one of its teachers.
    pub(crate) fn without(self, teacher: usize) -> Strategy {
        Strategy::of(self.members().filter(|member| *member != teacher))
    }

    /// The strategies with only one of the `teachers`.
    pub fn singles(teachers: usize) -> Vec<Strategy> {
        (0..teachers).map(|teacher| Strategy::of([teacher])).collect()
    }

    /// All strategies of this number of `teachers`.
    pub fn every(teachers: usize) -> Vec<Strategy> {
        (0..strategies(teachers)).map(Strategy).collect()
    }

    /// The strategy of these `modalities` among the `teachers`; an error if a modality has no teacher.
    pub fn named(modalities: &[Modality], teachers: &[Modality]) -> Result<Strategy> {
        let mut members = Vec::new();
        for modality in modalities {
            let Some(member) = teachers.iter().position(|teacher| teacher == modality) else {
                let there: Vec<&str> = teachers.iter().map(Modality::as_str).collect();
                let message =
                    format!("`distill.selection.teachers`: `{modality}` is no teacher of the soft labels");
                return Err(Error::usage(message).hint(format!("there are: {}", there.join(", "))));
            };
            members.push(member);
        }
        Ok(Strategy::of(members))
    }

    /// The teachers in the strategy.
    pub fn members(self) -> impl Iterator<Item = usize> {
        (0..16).filter(move |teacher| self.has(*teacher))
    }

    /// Tells whether the strategy holds this teacher.
    pub fn has(self, teacher: usize) -> bool {
        (self.0 + 1) >> teacher & 1 == 1
    }

    /// Number of teachers in the strategy; never 0.
    pub fn size(self) -> usize {
        self.members().count()
    }

    /// The factor of a member's scores in the mean.
    pub fn share(self) -> f32 {
        1.0 / self.size() as f32
    }

    /// The factors of all `teachers`' scores in the mean: 0 for teachers outside the strategy.
    pub fn weights(self, teachers: usize) -> Vec<f32> {
        (0..teachers).map(|teacher| if self.has(teacher) { self.share() } else { 0.0 }).collect()
    }

    /// The names of the strategy's teachers, joined by `+`.
    pub fn name(self, teachers: &[Modality]) -> String {
        self.members().map(|teacher| teachers[teacher].as_str()).collect::<Vec<_>>().join("+")
    }
}

/// The positions of a query's tails, by their strategy: `actions` has one strategy for all tails, or one for each.
pub(crate) fn by_strategy(actions: &[Strategy], tails: usize) -> BTreeMap<Strategy, Vec<usize>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for (position, strategy) in actions.iter().cycle().take(tails).enumerate() {
        groups.entry(*strategy).or_default().push(position);
    }
    groups
}

/// Number of strategies of `teachers` teachers: `2^M - 1`.
pub fn strategies(teachers: usize) -> usize {
    (1 << teachers) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{golden, names};

    #[test]
    fn strategies_equal_the_reference() {
        let expected: Vec<Vec<u32>> = golden("strategies");
        assert_eq!(expected.len(), strategies(3));
        for (k, row) in expected.iter().enumerate() {
            let members: Vec<usize> = (0..3).filter(|m| row[*m] == 1).collect();
            assert_eq!(Strategy(k).members().collect::<Vec<_>>(), members);
            assert_eq!(Strategy(k).size(), members.len());
        }
        assert_eq!(Strategy::all(3), Strategy(6));
        assert_eq!(Strategy::every(2), [Strategy(0), Strategy(1), Strategy(2)]);
        assert_eq!(Strategy::of([2, 0]), Strategy(4));
    }

    #[test]
    fn a_strategy_is_found_by_its_teachers_names() {
        let named = |asked: [&str; 2]| Strategy::named(&asked.map(|name| name.parse().unwrap()), &names(3));
        assert_eq!(named(["visual", "structural"]).unwrap(), Strategy::of([0, 2]));
        let error = named(["structural", "caption"]).unwrap_err();
        assert_eq!(error.kind(), stage::Kind::Usage);
        assert!(error.to_string().contains("`caption`"), "{error}");
    }
}
