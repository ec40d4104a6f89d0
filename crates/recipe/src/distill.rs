//! `[distill]`: the student, the policy and the distillation term.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use super::Training;
use stage::{Error, Modality};

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
    /// NDKD, NEKD: weight of the neighbours' part. DKD: of the target's.
    pub alpha: f64,
    /// NDKD, NNKD: weight of the non-neighbours' part. DKD: of the non-targets'.
    pub beta: f64,
    /// NDKD: whether `p_N` is the mean (the paper) or the sum of the neighbours' probabilities.
    pub neighbours: Neighbours,
    /// What the policy sees of a query.
    pub policy_state: PolicyState,
    /// Width of the policy's hidden layer.
    pub policy_hidden: usize,
    /// Adam's learning rate for the policy.
    pub policy_learning_rate: f64,
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
    /// Only the neighbours' part of that.
    Nekd,
    /// Only the non-neighbours' part of it.
    Nnkd,
}

/// Who chooses the teachers of a query. In a recipe a word, or modalities joined by `+`: `"structural+textual"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Selection {
    /// The policy network.
    #[default]
    Policy,
    /// Always all teachers.
    All,
    /// A strategy drawn evenly, every time anew: the control.
    Random,
    /// The one teacher whose first entity has the highest probability (Table 2's ConfTeacher).
    Conf,
    /// The one teacher with the lowest cross-entropy of the query's tails.
    BestTeacher,
    /// The strategy with the lowest cross-entropy of the query's tails.
    BestStrategy,
    /// Always those that add something to the others on the validation triples.
    Useful,
    /// Nobody: all teachers, weighed by MulDE's Senior (Table 2).
    Mulde,
    /// Always these.
    Fixed(Vec<Modality>),
}

impl Selection {
    /// The selections that are words.
    const WORDS: [(&'static str, Selection); 8] = [
        ("policy", Selection::Policy),
        ("all", Selection::All),
        ("random", Selection::Random),
        ("conf", Selection::Conf),
        ("best-teacher", Selection::BestTeacher),
        ("best-strategy", Selection::BestStrategy),
        ("useful", Selection::Useful),
        ("mulde", Selection::Mulde),
    ];
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selection::Fixed(modalities) => {
                let names: Vec<&str> = modalities.iter().map(Modality::as_str).collect();
                f.write_str(&names.join("+"))
            }
            word => {
                let known = Selection::WORDS.iter().find(|(_, selection)| selection == word);
                f.write_str(known.map_or("", |(word, _)| word))
            }
        }
    }
}

impl FromStr for Selection {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some((_, selection)) = Selection::WORDS.into_iter().find(|(word, _)| *word == text) {
            return Ok(selection);
        }
        let mut modalities = text.split('+').map(str::parse).collect::<Result<Vec<Modality>, Error>>()?;
        modalities.sort();
        modalities.dedup();
        Ok(Selection::Fixed(modalities))
    }
}

impl TryFrom<String> for Selection {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let words = || Selection::WORDS.map(|(word, _)| format!("`{word}`")).join(", ");
        text.parse()
            .map_err(|_| format!("`{text}` is no selection: {}, or modalities joined by `+`", words()))
    }
}

impl From<Selection> for String {
    fn from(selection: Selection) -> String {
        selection.to_string()
    }
}

/// What the policy sees of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyState {
    /// All teachers' scores of all entities (Eq. 5), each teacher's with mean 0 and variance 1.
    Scores,
    /// The teachers' query vectors, of which those scores are a linear image, each with mean square 1.
    #[default]
    Query,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_a_word_or_modalities() {
        for (word, selection) in Selection::WORDS {
            assert_eq!(word.parse::<Selection>().unwrap(), selection);
            assert_eq!(selection.to_string(), word);
        }
        let fixed: Selection = "textual+structural+textual".parse().unwrap();
        assert_eq!(fixed.to_string(), "structural+textual");
        for wrong in ["", "Policy", "structural+", "structural textual"] {
            assert!(wrong.parse::<Selection>().is_err(), "{wrong}");
        }
        let refused = toml::from_str::<Distill>("selection = \"best teacher\"").unwrap_err().to_string();
        assert!(refused.contains("`best-teacher`"), "{refused}");
    }
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
