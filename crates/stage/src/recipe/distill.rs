//! `[distill]`: the student, the policy and the distillation term.

use serde::{Deserialize, Serialize};

use super::Training;

/// Stage 5. The symbols are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distill {
    /// How the student is trained.
    #[serde(flatten)]
    pub training: Training,
    /// The distillation term; `none` trains the student alone.
    pub objective: Objective,
    /// Who chooses the teachers of a query.
    pub selection: Selection,
    /// Whether one action is sampled for a query or one for each of its triples.
    pub action: Action,
    /// Weight of the distillation term.
    pub gamma: f64,
    /// Temperature of the distillation term.
    pub tau: f64,
    /// Multiply the distillation term by tau squared (Hinton's scaling; the paper's equations leave it out).
    pub tau_squared: bool,
    /// NDKD: weight of the neighbours' part. DKD: of the target's.
    pub alpha: f64,
    /// NDKD: weight of the non-neighbours' part. DKD: of the non-targets'.
    pub beta: f64,
    /// NDKD: whether `p_N` is the mean (the paper) or the sum of the neighbours' probabilities.
    pub neighbours: Neighbours,
    /// What the policy sees of a query.
    pub policy_state: PolicyState,
    /// Width of the policy's hidden layer.
    pub policy_hidden: usize,
    /// Adam's learning rate for the policy.
    pub policy_learning_rate: f64,
    /// Give the policy each teacher's scores with mean 0 and variance 1, or its query vectors with mean square 1.
    pub standardise: bool,
    /// Reward when the chosen teachers' cross-entropy is below the student's.
    pub reward: f64,
    /// Reward otherwise.
    pub penalty: f64,
}

impl Default for Distill {
    fn default() -> Self {
        Distill {
            training: Training::default(),
            objective: Objective::Ndkd,
            selection: Selection::Policy,
            action: Action::Query,
            gamma: 2.0,
            tau: 4.0,
            tau_squared: true,
            alpha: 1.0,
            beta: 1.0,
            neighbours: Neighbours::Mean,
            policy_state: PolicyState::Query,
            policy_hidden: 1024,
            policy_learning_rate: 1e-4,
            standardise: true,
            reward: 1.0,
            penalty: -10.0,
        }
    }
}

/// The distillation term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// No distillation: the student alone.
    None,
    /// KL divergence over all entities (Eq. 2).
    Kd,
    /// Target and the rest decoupled.
    Dkd,
    /// Neighbours and the rest decoupled (Eq. 12).
    #[default]
    Ndkd,
}

/// Who chooses the teachers of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// The policy network, trained by REINFORCE.
    #[default]
    Policy,
    /// Always all teachers.
    All,
    /// A strategy drawn evenly, every time anew: the control.
    Random,
}

/// What the policy sees of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyState {
    /// All teachers' scores of all entities (Eq. 5).
    Scores,
    /// The teachers' query vectors, of which those scores are a linear image.
    #[default]
    Query,
    /// Each teacher's highest probabilities, entropy and margin, the teachers' agreement, and the relation.
    Summary,
}

/// How often an action is sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Once per query and step: one combination of teachers for all its triples.
    #[default]
    Query,
    /// Once per triple and step.
    Triple,
}

/// How the neighbours' probabilities become `p_N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Neighbours {
    /// Their mean, as the paper has it.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}
