//! `[import]`: the raw dataset.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Stage 1: the parts of the raw dataset and the way to join them. Paths are relative to the raw folder; import detects
/// parts that are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Import {
    /// The name in tables and reports; by default the raw folder's name.
    pub name: Option<String>,
    /// Format of the triple files.
    pub format: TripleFormat,
    /// Id map of the entities, or a table with a `key` column.
    pub entities: Option<PathBuf>,
    /// Id map of the relations.
    pub relations: Option<PathBuf>,
    /// Training triples.
    pub train: Option<PathBuf>,
    /// Validation triples.
    pub valid: Option<PathBuf>,
    /// Test triples.
    pub test: Option<PathBuf>,
    /// Entity names; the first file with a name for the entity wins.
    pub names: Vec<TextSource>,
    /// Entity descriptions; the first file with a description of the entity wins.
    pub descriptions: Vec<TextSource>,
    /// Sentences that a vision-language model wrote from an entity's images.
    pub captions: Vec<TextSource>,
    /// Relation names.
    pub relation_names: Vec<TextSource>,
    /// True to take missing names from keys: `http://dbpedia.org/resource/Mountain_View` becomes `Mountain View`.
    pub names_from_keys: bool,
    /// Folder with one image or one subfolder of images per entity.
    pub images: Option<PathBuf>,
    /// The source of validation triples.
    pub validation: Validation,
    /// `validation = "auto"` holds out part of train if more than this share of the published validation triples are
    /// also in train or test.
    pub overlap_threshold: f64,
    /// The share of train that `auto` then holds out.
    pub holdout_fraction: f64,
}

impl Default for Import {
    fn default() -> Self {
        Import {
            name: None,
            format: TripleFormat::Auto,
            entities: None,
            relations: None,
            train: None,
            valid: None,
            test: None,
            names: Vec::new(),
            descriptions: Vec::new(),
            captions: Vec::new(),
            relation_names: Vec::new(),
            names_from_keys: false,
            images: None,
            validation: Validation::Auto,
            overlap_threshold: 0.05,
            holdout_fraction: 0.1,
        }
    }
}

/// The format of a triple file's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TripleFormat {
    /// Detected from all files and their key lists: a count line means `openke`, three ids of the maps `ids`, keys
    /// `named`; import refuses a file that fits two formats.
    #[default]
    Auto,
    /// A count line, then `head tail relation` ids.
    Openke,
    /// `head relation tail` ids.
    Ids,
    /// `head relation tail` keys, with or without a trailing ` .`.
    Named,
}

/// The source of validation triples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Validation {
    /// The published split, unless it overlaps train or test by more than `overlap_threshold`.
    #[default]
    Auto,
    /// The published split, whatever its overlap.
    Published,
    /// This share of train, drawn with the run's seed; the published split is not used.
    Holdout(f64),
}

impl TryFrom<String> for Validation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let share = text.strip_prefix("holdout:").and_then(|share| share.parse().ok());
        match (text.as_str(), share) {
            ("auto", _) => Ok(Validation::Auto),
            ("published", _) => Ok(Validation::Published),
            (_, Some(share)) if share > 0.0 && share < 1.0 => Ok(Validation::Holdout(share)),
            _ => {
                Err(format!("`{text}` is not a validation: use auto, published or holdout:FRACTION (0 to 1)"))
            }
        }
    }
}

impl From<Validation> for String {
    fn from(validation: Validation) -> String {
        match validation {
            Validation::Auto => "auto".into(),
            Validation::Published => "published".into(),
            Validation::Holdout(fraction) => format!("holdout:{fraction}"),
        }
    }
}

/// A file with texts of entities or relations, and the way to match its lines to them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TextSource {
    /// Two columns (`key<TAB>text`, perhaps after a count line), or a JSON object by key; relative to the raw folder.
    pub file: PathBuf,
    /// The meaning of the file's keys.
    #[serde(default)]
    pub join: Join,
    /// JSON: the field of each entry that holds the text.
    pub field: Option<String>,
    /// JSON: the field of each entry that replaces its key.
    pub key_field: Option<String>,
    /// The text to remove from the front of the file's keys (`https://en.wikipedia.org/wiki/`). Keys without this
    /// prefix match nothing, and `%2C` in the rest becomes a comma.
    pub key_prefix: Option<String>,
    /// The id map of another dataset: the file's keys are ids in it, and import translates them to the map's keys.
    pub ids: Option<PathBuf>,
    /// A file of links `other-key <SameAs> key .` that translates the file's keys to the dataset's.
    pub via: Option<PathBuf>,
    /// The part to take from a text that holds name and description as `name, description`.
    pub part: Option<TextPart>,
    /// JSON: the entries are lists of token ids; this file has one token per line, in id order (BERT's `vocab.txt`).
    pub vocabulary: Option<PathBuf>,
}

/// The meaning of the keys of a text file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Join {
    /// The entity's key, or another spelling or the id if that matches far more entities.
    #[default]
    Auto,
    /// The entity's id.
    Id,
    /// The entity's key.
    Key,
    /// The part after the last `/` or `#` of the entity's key, without a closing `>`.
    LastSegment,
    /// The entity's key without its first letter (WordNet's `n00004475` and `00004475`).
    WithoutFirstLetter,
}

/// A part of a text that holds `name, description`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextPart {
    /// The part before the first comma.
    BeforeComma,
    /// The part after the first comma.
    AfterComma,
}
