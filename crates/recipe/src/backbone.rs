//! Scorers of triples.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The scorer of a model; its equations are in the crate `kge`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backbone {
    /// Trouillon et al. (2016).
    #[default]
    ComplEx,
    /// Yang et al. (2015).
    DistMult,
    /// Bordes et al. (2013), by squared distance.
    TransE,
    /// Sun et al. (2019), by squared distance.
    RotatE,
    /// Balažević et al. (2019).
    TuckER,
}

impl Backbone {
    /// All there are.
    pub const ALL: [Backbone; 5] =
        [Backbone::ComplEx, Backbone::DistMult, Backbone::TransE, Backbone::RotatE, Backbone::TuckER];

    /// Its word in recipes and in files of models.
    pub fn word(self) -> &'static str {
        match self {
            Backbone::ComplEx => "complex",
            Backbone::DistMult => "distmult",
            Backbone::TransE => "transe",
            Backbone::RotatE => "rotate",
            Backbone::TuckER => "tucker",
        }
    }

    /// The backbone of a word.
    pub fn of_word(word: &str) -> Option<Backbone> {
        Backbone::ALL.into_iter().find(|backbone| backbone.word() == word)
    }

    /// Returns whether it scores by a distance, so that no embedding scores nothing.
    pub fn is_distance(self) -> bool {
        matches!(self, Backbone::TransE | Backbone::RotatE)
    }
}

impl fmt::Display for Backbone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
