//! Strategies: non-empty sets of teachers.

use stage::Modality;

/// A non-empty set of teachers, the paper's action. Number `k` (from 0) holds teacher `m` if bit `m` of `k + 1` is
/// set, with the teachers in their fixed order; the last one holds them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Strategy(pub u16);

impl Strategy {
    /// All `teachers` together: the baseline of the reward.
    pub fn all(teachers: usize) -> Strategy {
        Strategy((strategies(teachers) - 1) as u16)
    }

    /// As an index into a table with one column per strategy.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The teachers in it.
    pub fn members(self) -> impl Iterator<Item = usize> {
        let bits = self.0 + 1;
        (0..16).filter(move |teacher| bits >> teacher & 1 == 1)
    }

    /// How many teachers are in it; never none.
    pub fn size(self) -> usize {
        (self.0 + 1).count_ones() as usize
    }

    /// The names of its teachers, joined by `+`.
    pub fn name(self, teachers: &[Modality]) -> String {
        self.members().map(|teacher| teachers[teacher].as_str()).collect::<Vec<_>>().join("+")
    }
}

/// How many strategies so many teachers have: `2^M - 1`.
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
    }
}
