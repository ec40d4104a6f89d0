//! `[ensemble]`: how the teachers answer together, without a student.

use serde::{Deserialize, Serialize};

/// Beside stage 5: what weighs the teachers' scores in their sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Ensemble {
    /// All teachers count alike: Table 4's "Teacher Avg.".
    Average,
    /// A weight for each relation and teacher, of the greatest likelihood on the validation triples (for MoSE-MI, Table 4's
    /// "w/ ML on val.").
    #[default]
    ByRelation,
    /// A weight for each relation and teacher by boosting, which looks at the order of scores alone (MoSE-BI).
    Boosting,
    /// The mean of a strategy that a policy chooses for each query, learned on the validation triples (Table 4's "w/ RC on
    /// val.").
    Policy(EnsemblePolicy),
}

/// The keys of an ensemble's policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnsemblePolicy {
    /// Width of the hidden layer of its network, which sees the teachers' query vectors.
    pub hidden: usize,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Passes over the validation queries, at most.
    pub epochs: usize,
    /// Folds of the cross-validation that decides how many passes it learns, and whether it is kept.
    pub folds: usize,
}

impl Default for EnsemblePolicy {
    fn default() -> Self {
        EnsemblePolicy { hidden: 1024, learning_rate: 1e-4, epochs: 60, folds: 5 }
    }
}
