//! `[distill]`: the student, the distillation term and the selection of teachers; `[ensemble]`: the combination of the
//! teachers' answers, without a student.

use serde::{Deserialize, Serialize};

use crate::Training;
use stage::Modality;

/// Stage 5. The symbols are those of the paper.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Distill {
    /// The training of the student.
    #[serde(flatten)]
    pub training: Training,
    /// The comparison of the student with its teachers.
    pub term: Term,
    /// The selection of the teachers.
    pub selection: Selection,
}

/// The distillation term: a divergence between the teachers' softened probabilities and the student's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Term {
    /// A divergence over the neighbours and another over the rest (Eq. 12).
    Ndkd {
        /// The term's weight and temperature.
        #[serde(flatten)]
        softening: Softening,
        /// Weight of the neighbours' part.
        #[serde(default = "one")]
        alpha: f64,
        /// Weight of the rest's part.
        #[serde(default = "one")]
        beta: f64,
        /// The combination of the neighbours' probabilities into `p_N`.
        #[serde(default)]
        neighbours: Neighbours,
    },
    /// Only the neighbours' part of NDKD.
    Nekd {
        /// The term's weight and temperature.
        #[serde(flatten)]
        softening: Softening,
        /// A further weight.
        #[serde(default = "one")]
        alpha: f64,
        /// The combination of the neighbours' probabilities into `p_N`.
        #[serde(default)]
        neighbours: Neighbours,
    },
    /// Only the rest's part of NDKD.
    Nnkd {
        /// The term's weight and temperature.
        #[serde(flatten)]
        softening: Softening,
        /// A further weight.
        #[serde(default = "one")]
        beta: f64,
    },
    /// A divergence over the target and another over all other entities.
    Dkd {
        /// The term's weight and temperature.
        #[serde(flatten)]
        softening: Softening,
        /// Weight of the target's part.
        #[serde(default = "one")]
        alpha: f64,
        /// Weight of the other entities' part.
        #[serde(default = "one")]
        beta: f64,
    },
    /// A divergence over all entities (Eq. 2).
    Kd(Softening),
    /// No distillation: the student learns alone.
    None,
}

fn one() -> f64 {
    1.0
}

impl Default for Term {
    fn default() -> Self {
        let (softening, neighbours) = (Softening::default(), Neighbours::default());
        Term::Ndkd { softening, alpha: 1.0, beta: 1.0, neighbours }
    }
}

impl Term {
    /// The term's weight and temperature; `None` without a distillation term.
    pub fn softening(&self) -> Option<&Softening> {
        match self {
            Term::Ndkd { softening, .. }
            | Term::Nekd { softening, .. }
            | Term::Nnkd { softening, .. }
            | Term::Dkd { softening, .. }
            | Term::Kd(softening) => Some(softening),
            Term::None => None,
        }
    }

    /// `(α, β)`: the weights of the group's part and of the rest's. NEKD and NNKD are NDKD with the other weight 0.
    pub fn parts(&self) -> (f64, f64) {
        match *self {
            Term::Ndkd { alpha, beta, .. } | Term::Dkd { alpha, beta, .. } => (alpha, beta),
            Term::Nekd { alpha, .. } => (alpha, 0.0),
            Term::Nnkd { beta, .. } => (0.0, beta),
            Term::Kd(_) | Term::None => (0.0, 0.0),
        }
    }
}

/// Weight and temperature of a distillation term.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Softening {
    /// Weight.
    pub gamma: f64,
    /// Temperature.
    pub tau: f64,
    /// True to multiply the term by tau squared (Hinton's scaling; the paper's equations leave it out).
    pub tau_squared: bool,
}

impl Default for Softening {
    fn default() -> Self {
        Softening { gamma: 2.0, tau: 4.0, tau_squared: true }
    }
}

impl Softening {
    /// The factor of the term: `γ`, multiplied by `τ²` if `tau_squared` is set.
    pub fn weight(&self) -> f64 {
        if self.tau_squared { self.gamma * self.tau * self.tau } else { self.gamma }
    }
}

/// The combination of the neighbours' probabilities into `p_N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Neighbours {
    /// Their mean, as in the paper.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// The method that selects a query's teachers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Selection {
    /// The policy network, rewarded by the student (Eq. 5 to 10).
    Policy(PolicyKeys),
    /// All teachers, for every query.
    All,
    /// The teachers that improve the others' answers on the validation triples, for every query.
    Useful,
    /// The named teachers, for every query.
    Fixed {
        /// The teachers' modalities.
        teachers: Vec<Modality>,
    },
    /// A strategy drawn at random, all strategies with the same probability: the control.
    Random {
        /// The occasion of each draw.
        #[serde(default)]
        action: Action,
    },
    /// The one teacher whose top entity has the highest probability (Table 2's ConfTeacher).
    Conf,
    /// The one teacher with the lowest cross-entropy on the query's tails.
    BestTeacher,
    /// The strategy with the lowest cross-entropy on the query's tails.
    BestStrategy,
    /// All teachers, weighted by MulDE's Senior (Table 2).
    Mulde,
}

impl Default for Selection {
    fn default() -> Self {
        Selection::Policy(PolicyKeys::default())
    }
}

impl Selection {
    /// The keys of the policy, if the selection uses one.
    pub fn policy(&self) -> Option<&PolicyKeys> {
        match self {
            Selection::Policy(policy) => Some(policy),
            _ => None,
        }
    }

    /// The occasion of drawing an action; the default for a selection without draws.
    pub fn action(&self) -> Action {
        match self {
            Selection::Policy(PolicyKeys { action, .. }) | Selection::Random { action } => *action,
            _ => Action::Query,
        }
    }
}

/// The keys of the policy that chooses a student's teachers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyKeys {
    /// The occasion of drawing an action.
    pub action: Action,
    /// The policy's input for a query.
    pub state: PolicyState,
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// The reward when the chosen teachers' cross-entropy is below the student's (Eq. 8).
    pub reward: f64,
    /// The reward otherwise.
    pub penalty: f64,
}

impl Default for PolicyKeys {
    fn default() -> Self {
        PolicyKeys {
            action: Action::default(),
            state: PolicyState::default(),
            hidden: 1024,
            learning_rate: 1e-4,
            reward: 1.0,
            penalty: -10.0,
        }
    }
}

/// The occasion of drawing an action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Once per query and step: all triples of a query share one combination of teachers.
    #[default]
    Query,
    /// Once per triple and step.
    Triple,
}

/// The policy's input for a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyState {
    /// All teachers' scores of all entities (Eq. 5), scaled to mean 0 and variance 1 for each teacher.
    Scores,
    /// The teachers' query vectors, each scaled to mean square 1. The scores are a linear function of these vectors.
    #[default]
    Query,
}

/// Beside stage 5: the weights of the teachers' scores in the ensemble's sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Ensemble {
    /// Equal weights for all teachers: Table 4's "Teacher Avg.".
    Average,
    /// A weight for each relation and teacher that maximises the likelihood of the validation triples (for MoSE-MI,
    /// Table 4's "w/ ML on val.").
    #[default]
    ByRelation,
    /// A weight for each relation and teacher by boosting, which uses only the order of the scores (MoSE-BI).
    Boosting,
    /// The mean of a strategy that a policy chooses for each query; the policy learns on the validation triples (Table
    /// 4's "w/ RC on val.").
    Policy(EnsemblePolicy),
}

/// The keys of an ensemble's policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnsemblePolicy {
    /// Width of the policy network's hidden layer; the network's input is the teachers' query vectors.
    pub hidden: usize,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// The largest number of passes over the validation queries.
    pub epochs: usize,
    /// Folds of the cross-validation that decides the number of passes and whether the ensemble keeps the policy.
    pub folds: usize,
}

impl Default for EnsemblePolicy {
    fn default() -> Self {
        EnsemblePolicy { hidden: 1024, learning_rate: 1e-4, epochs: 60, folds: 5 }
    }
}
