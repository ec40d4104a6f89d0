//! The name of a modality.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use crate::Error;

/// A source of evidence about entities, by name: `structural` (the graph itself), `visual`, `textual`, or another one
/// that a recipe defines. Names become folders and column names, so they are short lower-case words.
///
/// ```
/// use stage::Modality;
/// assert!("visual".parse::<Modality>().is_ok());
/// assert!("../visual".parse::<Modality>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Modality(String);

impl Modality {
    /// The graph itself: the entity embeddings are a free table.
    pub fn structural() -> Self {
        Modality("structural".into())
    }

    /// Tells whether this is the structural modality, which needs no features.
    pub fn is_structural(&self) -> bool {
        self.0 == "structural"
    }

    /// The name in folders, columns and recipes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Structural first, then the others by name: teachers always have this order.
impl Ord for Modality {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (!self.is_structural(), &self.0).cmp(&(!other.is_structural(), &other.0))
    }
}

impl PartialOrd for Modality {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Modality {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && name.len() <= 40;
        fits.then(|| Modality(name.to_owned())).ok_or_else(|| {
            let error = Error::usage(format!("`{name}` is not a modality name"));
            error.hint("use lower-case letters, digits and `_`, beginning with a letter")
        })
    }
}

impl TryFrom<String> for Modality {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        name.parse()
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
