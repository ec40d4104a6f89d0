//! The reward of an action (Eq. 8), and its advantage over the baseline (the `δ` of Eqs. 9 and 10).

use recipe::PolicyKeys;

use crate::strategy::Strategy;

/// Eq. 8's two values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reward {
    /// Reward if the teachers are better than the student.
    better: f64,
    /// Reward if they are not.
    otherwise: f64,
}

impl From<&PolicyKeys> for Reward {
    fn from(keys: &PolicyKeys) -> Self {
        Reward { better: keys.reward, otherwise: keys.penalty }
    }
}

impl Reward {
    /// The reward of a combination of teachers for a target, given its cross-entropy and the student's (Eq. 8).
    pub(crate) fn of(self, teachers: f64, student: f64) -> f64 {
        self.given(teachers < student)
    }

    /// The same, given whether the combination is better.
    pub(crate) fn given(self, is_better: bool) -> f64 {
        if is_better { self.better } else { self.otherwise }
    }
}

/// One sampled action, rewarded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RewardedAction {
    /// The row of the batch it was sampled for.
    pub(crate) row: usize,
    /// The action.
    pub(crate) strategy: Strategy,
    /// Its reward `R`.
    pub(crate) reward: f64,
    /// The baseline `R̂`: the reward of averaging all teachers.
    pub(crate) baseline: f64,
}

impl RewardedAction {
    /// `δ = R - R̂` of Eq. 10, by which Eq. 9's gradient is multiplied.
    pub(crate) fn advantage(&self) -> f64 {
        self.reward - self.baseline
    }
}
