//! Strategies: non-empty sets of teachers.

use stage::{Error, Modality, Result};

/// A non-empty set of teachers, the paper's action `a` (Eq. 6). Number `k` (from 0) holds teacher `m` if bit `m` of `k + 1` is
/// set, with the teachers in their fixed order; the last one holds them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Strategy(pub u16);

impl Strategy {
    /// All `teachers` together: the baseline of the reward.
    pub fn all(teachers: usize) -> Strategy {
        Strategy((strategies(teachers) - 1) as u16)
    }

    /// The set of these teachers, by position.
    ///
    /// # Panics
    /// If there are none.
    pub fn of(teachers: impl IntoIterator<Item = usize>) -> Strategy {
        let bits = teachers.into_iter().fold(0u16, |bits, teacher| bits | 1 << teacher);
        Strategy(bits.checked_sub(1).expect("a strategy holds at least one teacher"))
    }

    /// The same without one of its teachers.
    pub(crate) fn without(self, teacher: usize) -> Strategy {
        Strategy::of(self.members().filter(|member| *member != teacher))
    }

    /// The strategies of a single one of so many `teachers`.
    pub fn singles(teachers: usize) -> Vec<Strategy> {
        (0..teachers).map(|teacher| Strategy::of([teacher])).collect()
    }

    /// All strategies of so many `teachers`.
    pub fn every(teachers: usize) -> Vec<Strategy> {
        (0..strategies(teachers) as u16).map(Strategy).collect()
    }

    /// The set of these `modalities` among the `teachers`.
    ///
    /// # Errors
    /// If one of them is no teacher.
    pub fn named(modalities: &[Modality], teachers: &[Modality]) -> Result<Strategy> {
        let position = |modality: &Modality| {
            teachers.iter().position(|teacher| teacher == modality).ok_or_else(|| {
                let there: Vec<&str> = teachers.iter().map(Modality::as_str).collect();
                let message =
                    format!("`distill.selection.teachers`: `{modality}` is no teacher of the soft labels");
                Error::usage(message).hint(format!("there are: {}", there.join(", ")))
            })
        };
        Ok(Strategy::of(modalities.iter().map(position).collect::<Result<Vec<usize>>>()?))
    }

    /// Index into a table with one column per strategy.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The teachers in it.
    pub fn members(self) -> impl Iterator<Item = usize> {
        (0..16).filter(move |teacher| self.has(*teacher))
    }

    /// Tells whether it holds this teacher.
    pub fn has(self, teacher: usize) -> bool {
        (self.0 + 1) >> teacher & 1 == 1
    }

    /// Number of teachers in it; never 0.
    pub fn size(self) -> usize {
        (self.0 + 1).count_ones() as usize
    }

    /// The factor of a member's scores in the mean.
    pub fn share(self) -> f32 {
        1.0 / self.size() as f32
    }

    /// The names of its teachers, joined by `+`.
    pub fn name(self, teachers: &[Modality]) -> String {
        self.members().map(|teacher| teachers[teacher].as_str()).collect::<Vec<_>>().join("+")
    }
}

/// The positions of a query's tails by the strategy chosen for them: `actions` are one for all, or one for each.
pub(crate) fn by_strategy(actions: &[Strategy], tails: usize) -> Vec<(Strategy, Vec<usize>)> {
    match actions {
        &[strategy] => vec![(strategy, (0..tails).collect())],
        actions => {
            let mut order: Vec<usize> = (0..actions.len()).collect();
            order.sort_by_key(|i| (actions[*i], *i));
            let same = |a: &usize, b: &usize| actions[*a] == actions[*b];
            order.chunk_by(same).map(|group| (actions[group[0]], group.to_vec())).collect()
        }
    }
}

/// Number of strategies of so many teachers: `2^M - 1`.
pub fn strategies(teachers: usize) -> usize {
    (1 << teachers) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_equal_the_reference() {
        let golden = include_str!("../../../tests/golden/policy.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let expected: Vec<Vec<u32>> = serde_json::from_value(golden["strategies"].clone()).unwrap();
        assert_eq!(expected.len(), strategies(3));
        for (k, row) in expected.iter().enumerate() {
            let members: Vec<usize> = (0..3).filter(|m| row[*m] == 1).collect();
            assert_eq!(Strategy(k as u16).members().collect::<Vec<_>>(), members);
            assert_eq!(Strategy(k as u16).size(), members.len());
        }
        assert_eq!(Strategy::all(3), Strategy(6));
        assert_eq!(Strategy::every(2), [Strategy(0), Strategy(1), Strategy(2)]);
        assert_eq!(Strategy::of([2, 0]), Strategy(4));
    }

    #[test]
    fn a_strategy_is_found_by_its_teachers_names() {
        let teachers = ["structural", "caption", "textual"].map(|name| name.parse().unwrap());
        let named = |names: &[&str]| {
            Strategy::named(&names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>(), &teachers)
        };
        assert_eq!(named(&["textual", "structural"]).unwrap(), Strategy::of([0, 2]));
        let error = named(&["structural", "visual"]).unwrap_err();
        assert_eq!(error.kind(), stage::Kind::Usage);
        assert!(error.to_string().contains("`visual`"), "{error}");
    }
}
