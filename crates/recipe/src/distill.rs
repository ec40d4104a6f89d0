//! `[distill]`: the student, the distillation term and the selection of teachers; `[ensemble]`: how the teachers answer
//! together, without a student.

use serde::{Deserialize, Serialize};

use crate::Training;
use stage::Modality;

/// Stage 5. The symbols are the paper's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Distill {
    /// The training of the student.
    #[serde(flatten)]
    pub training: Training,
    /// The comparison with its teachers.
    pub term: Term,
    /// The selection of the teachers.
    pub selection: Selection,
}

/// The distillation term: a divergence between the teachers' softened probabilities and the student's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Term {
    /// Over the neighbours and over the rest, apart (Eq. 12).
    Ndkd {
        /// Its weight and temperature.
        #[serde(flatten)]
        softening: Softening,
        /// Weight of the neighbours' part.
        #[serde(default = "one")]
        alpha: f64,
        /// Weight of the rest's part.
        #[serde(default = "one")]
        beta: f64,
        /// The way from the neighbours' probabilities to `p_N`.
        #[serde(default)]
        neighbours: Neighbours,
    },
    /// The neighbours' part of NDKD alone.
    Nekd {
        /// Its weight and temperature.
        #[serde(flatten)]
        softening: Softening,
        /// A further weight.
        #[serde(default = "one")]
        alpha: f64,
        /// The way from the neighbours' probabilities to `p_N`.
        #[serde(default)]
        neighbours: Neighbours,
    },
    /// The rest's part of NDKD alone.
    Nnkd {
        /// Its weight and temperature.
        #[serde(flatten)]
        softening: Softening,
        /// A further weight.
        #[serde(default = "one")]
        beta: f64,
    },
    /// Over the target and over all others, apart.
    Dkd {
        /// Its weight and temperature.
        #[serde(flatten)]
        softening: Softening,
        /// Weight of the target's part.
        #[serde(default = "one")]
        alpha: f64,
        /// Weight of the others' part.
        #[serde(default = "one")]
        beta: f64,
    },
    /// Over all entities (Eq. 2).
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
    /// Weight and temperature; a student alone has none.
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

    /// `(α, β)`: the weights of the group's part and the rest's. NEKD and NNKD are NDKD without the other part.
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
    /// Multiply the term by tau squared (Hinton's scaling; the paper's equations leave it out).
    pub tau_squared: bool,
}

impl Default for Softening {
    fn default() -> Self {
        Softening { gamma: 2.0, tau: 4.0, tau_squared: true }
    }
}

impl Softening {
    /// The factor of the term: `γ`, times `τ²` if asked for.
    pub fn weight(&self) -> f64 {
        if self.tau_squared { self.gamma * self.tau * self.tau } else { self.gamma }
    }
}

/// The way from the neighbours' probabilities to `p_N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Neighbours {
    /// Their mean, as the paper has it.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// The selector of a query's teachers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Selection {
    /// The policy network, rewarded by the student (Eq. 5 to 10).
    Policy(PolicyKeys),
    /// All teachers, always.
    All,
    /// The teachers that add something to the others on the validation triples, always.
    Useful,
    /// The named teachers, always.
    Fixed {
        /// Their modalities.
        teachers: Vec<Modality>,
    },
    /// A strategy drawn by chance, each as likely as any other: the control.
    Random {
        /// The occasion on which a strategy is drawn.
        #[serde(default)]
        action: Action,
    },
    /// The one teacher whose first entity has the highest probability (Table 2's ConfTeacher).
    Conf,
    /// The one teacher with the lowest cross-entropy of the query's tails.
    BestTeacher,
    /// The strategy with the lowest cross-entropy of the query's tails.
    BestStrategy,
    /// All teachers, weighed by MulDE's Senior (Table 2).
    Mulde,
}

impl Default for Selection {
    fn default() -> Self {
        Selection::Policy(PolicyKeys::default())
    }
}

impl Selection {
    /// The keys of the policy, if one chooses.
    pub fn policy(&self) -> Option<&PolicyKeys> {
        match self {
            Selection::Policy(policy) => Some(policy),
            _ => None,
        }
    }

    /// The occasion on which an action is drawn, where any is.
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
    /// The occasion on which an action is sampled.
    pub action: Action,
    /// The part of a query that the policy sees.
    pub state: PolicyState,
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Reward when the chosen teachers' cross-entropy is below the student's (Eq. 8).
    pub reward: f64,
    /// Reward otherwise.
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

/// The occasion on which an action is sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Once per query and step: one combination of teachers for all its triples.
    #[default]
    Query,
    /// Once per triple and step.
    Triple,
}

/// The part of a query that a policy sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyState {
    /// All teachers' scores of all entities (Eq. 5), each teacher's with mean 0 and variance 1.
    Scores,
    /// The teachers' query vectors, of which those scores are a linear image, each with mean square 1.
    #[default]
    Query,
}

/// Beside stage 5: the weights of the teachers' scores in their sum.
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
