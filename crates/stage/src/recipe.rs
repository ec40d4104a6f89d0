//! The recipe: one TOML file with everything that decides what the stages compute.
//!
//! `pipelines/default.toml` lists every key with its default and is checked against this module. Every program
//! reads the whole recipe, so a misspelt key of the last stage is refused before the first one starts.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

use crate::{Error, Modality, Result, files};

/// All stages' parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Seed of everything random in the run.
    pub seed: u64,
    /// Stage 1.
    pub import: Import,
    /// Stage 2: one table per modality; the name is free.
    pub features: BTreeMap<Modality, Features>,
    /// Stage 3.
    pub teachers: Teachers,
    /// Stage 4.
    pub soft_labels: SoftLabels,
    /// Stage 5.
    pub distill: Distill,
    /// Stage 6.
    pub evaluate: Evaluate,
}

/// Stage 1: where the raw dataset's parts lie and how they are joined. Paths are relative to the raw folder;
/// what is left out is detected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Import {
    /// Name for tables and reports; the raw folder's name by default.
    pub name: Option<String>,
    /// Format of the triple files.
    pub format: TripleFormat,
    /// Id map of the entities (or a table with a `key` column).
    pub entities: Option<PathBuf>,
    /// Id map of the relations.
    pub relations: Option<PathBuf>,
    /// Training triples.
    pub train: Option<PathBuf>,
    /// Validation triples.
    pub valid: Option<PathBuf>,
    /// Test triples.
    pub test: Option<PathBuf>,
    /// Entity names; the first file that has one wins.
    pub names: Vec<TextSource>,
    /// Entity descriptions; the first file that has one wins.
    pub descriptions: Vec<TextSource>,
    /// Sentences that a vision-language model wrote from an entity's images.
    pub captions: Vec<TextSource>,
    /// Relation names.
    pub relation_names: Vec<TextSource>,
    /// What no source names is called by its key: `http://dbpedia.org/resource/Mountain_View` is `Mountain View`.
    pub names_from_keys: bool,
    /// Folder with one sub-folder of images per entity.
    pub images: Option<PathBuf>,
    /// Flags to draw, as `key<TAB>description` (the embedded demo's visual modality).
    pub flags: Option<PathBuf>,
    /// Where validation triples come from.
    pub validation: Validation,
    /// `validation = "auto"` holds out part of train when more than this share of the published validation
    /// triples also stand in train or test.
    pub overlap_threshold: f64,
    /// The share of train that `auto` holds out then.
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
            flags: None,
            validation: Validation::Auto,
            overlap_threshold: 0.05,
            holdout_fraction: 0.1,
        }
    }
}

/// How lines of a triple file read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TripleFormat {
    /// Decided from the file: a count line means `openke`, three integers `ids`, anything else `named`.
    #[default]
    Auto,
    /// A count line, then `head tail relation` ids.
    Openke,
    /// `head relation tail` ids.
    Ids,
    /// `head relation tail` keys, with or without a trailing ` .`.
    Named,
}

/// Where validation triples come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Validation {
    /// Published, unless it overlaps train or test by more than `overlap_threshold`.
    #[default]
    Auto,
    /// As published, whatever it overlaps with.
    Published,
    /// This share of train, drawn with the run's seed; the published split is not used.
    Holdout(f64),
}

impl TryFrom<String> for Validation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fraction = |text: &str| text.parse().ok().filter(|fraction| *fraction > 0.0 && *fraction < 1.0);
        match text.split_once(':') {
            None if text == "auto" => Ok(Validation::Auto),
            None if text == "published" => Ok(Validation::Published),
            Some(("holdout", share)) if fraction(share).is_some() => {
                Ok(Validation::Holdout(fraction(share).unwrap_or_default()))
            }
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

/// A file with texts of entities or relations, and how its lines find theirs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSource {
    /// Two columns (`key<TAB>text`, perhaps after a count line), or a JSON object by key; relative to the raw folder.
    pub file: PathBuf,
    /// What the file's keys are.
    #[serde(default)]
    pub join: Join,
    /// JSON: the field of each entry that holds the text.
    #[serde(default)]
    pub field: Option<String>,
    /// JSON: the field of each entry that stands in the place of its key.
    #[serde(default)]
    pub key_field: Option<String>,
    /// What to cut off the front of the file's keys (`https://en.wikipedia.org/wiki/`); keys without it find
    /// nothing, and `%2C` in the rest reads as a comma.
    #[serde(default)]
    pub key_prefix: Option<String>,
    /// The id map of another dataset: the file's keys are its ids, and are translated to its keys.
    #[serde(default)]
    pub ids: Option<PathBuf>,
    /// A file of links `other-key <SameAs> key .` that translates the file's keys to the dataset's.
    #[serde(default)]
    pub via: Option<PathBuf>,
    /// The text holds name and description as `name, description`; take this part.
    #[serde(default)]
    pub part: Option<TextPart>,
}

/// What the keys of a text file are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Join {
    /// Whichever of the others finds most entities.
    #[default]
    Auto,
    /// The entity's id.
    Id,
    /// The entity's key.
    Key,
    /// What follows the last `/` or `#` of the entity's key, without a closing `>`.
    LastSegment,
    /// The entity's key without its first letter (WordNet's `n00004475` and `00004475`).
    WithoutFirstLetter,
}

/// A part of a text that holds `name, description`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextPart {
    /// What stands before the first comma.
    BeforeComma,
    /// What stands after the first comma.
    AfterComma,
}

/// Stage 2: where one modality's feature vectors come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase", deny_unknown_fields)]
pub enum Features {
    /// A BERT-architecture encoder over texts, mean over tokens.
    Text {
        /// Which texts, joined by `. `: `name`, `description`, `caption`.
        #[serde(default = "default_fields")]
        fields: Vec<TextField>,
        /// Checkpoint directory, or `random` for a small encoder with seeded random weights;
        /// `--text-model` where it is left out.
        #[serde(default)]
        encoder: Option<PathBuf>,
        /// Longer texts are cut after this many tokens.
        #[serde(default = "default_tokens")]
        max_tokens: usize,
        /// Texts per batch.
        #[serde(default = "default_batch")]
        batch: usize,
    },
    /// A ViT-architecture encoder over images, the CLS token after the final norm, mean over an entity's images.
    Images {
        /// `random`: a small encoder with seeded random weights.
        #[serde(default)]
        encoder: Option<PathBuf>,
        /// Images per batch.
        #[serde(default = "default_batch")]
        batch: usize,
    },
    /// Given features: `.npy` (rows in the order of entity ids, or of `keys`) or `.safetensors`.
    File {
        /// The matrix, `(entity, width)`.
        file: PathBuf,
        /// `.safetensors`: which tensor; the only one by default.
        #[serde(default)]
        tensor: Option<String>,
        /// One entity key per line, naming the rows; without it row i is entity i.
        #[serde(default)]
        keys: Option<PathBuf>,
        /// An all-zero row means that the entity has no features.
        #[serde(default = "default_true")]
        zero_is_absent: bool,
    },
}

/// A text of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextField {
    /// Its name.
    Name,
    /// Its description.
    Description,
    /// The caption of its images.
    Caption,
}

fn default_fields() -> Vec<TextField> {
    vec![TextField::Name, TextField::Description]
}

fn default_tokens() -> usize {
    128
}

fn default_batch() -> usize {
    32
}

fn default_true() -> bool {
    true
}

/// How a ComplEx model is trained: teachers and student alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Complex rank k: an embedding is 2k reals.
    pub rank: usize,
    /// Passes over the training queries, at most.
    pub epochs: usize,
    /// Triples per step (a query brings all its triples).
    pub batch: usize,
    /// Adagrad's learning rate.
    pub learning_rate: f64,
    /// Weight of the N3 regulariser.
    pub n3: f64,
    /// Standard deviation of the initial embeddings.
    pub init_scale: f64,
    /// Epochs between validations.
    pub validate_every: usize,
    /// Validations without a better MRR after which training stops.
    pub patience: usize,
}

impl Default for Training {
    fn default() -> Self {
        Training {
            rank: 256,
            epochs: 60,
            batch: 1000,
            learning_rate: 0.1,
            n3: 0.01,
            init_scale: 1e-3,
            validate_every: 3,
            patience: 4,
        }
    }
}

/// What one modality's teacher does differently; what is left out is as in [`Teachers`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TeacherOverride {
    /// See [`Training::epochs`].
    pub epochs: Option<usize>,
    /// See [`Training::learning_rate`].
    pub learning_rate: Option<f64>,
    /// See [`Training::n3`].
    pub n3: Option<f64>,
    /// See [`Training::patience`].
    pub patience: Option<usize>,
}

/// Stage 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Teachers {
    /// How each teacher is trained.
    #[serde(flatten)]
    pub training: Training,
    /// Divide every feature row by its Euclidean norm.
    pub unit_norm: bool,
    /// Divide the projected embeddings by this (MoSE: 20, with raw features).
    pub feature_scale: f64,
    /// Differences by modality.
    pub modality: BTreeMap<Modality, TeacherOverride>,
}

impl Default for Teachers {
    fn default() -> Self {
        Teachers {
            training: Training::default(),
            unit_norm: true,
            feature_scale: 1.0,
            modality: BTreeMap::new(),
        }
    }
}

impl Teachers {
    /// How the teacher of `modality` is trained.
    pub fn training_of(&self, modality: &Modality) -> Training {
        let mut training = self.training.clone();
        if let Some(own) = self.modality.get(modality) {
            training.epochs = own.epochs.unwrap_or(training.epochs);
            training.learning_rate = own.learning_rate.unwrap_or(training.learning_rate);
            training.n3 = own.n3.unwrap_or(training.n3);
            training.patience = own.patience.unwrap_or(training.patience);
        }
        training
    }
}

/// Stage 4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoftLabels {
    /// Which teachers; empty means all that are finished.
    pub teachers: Vec<Modality>,
    /// Queries per Parquet file.
    pub rows_per_file: usize,
}

impl Default for SoftLabels {
    fn default() -> Self {
        SoftLabels { teachers: Vec::new(), rows_per_file: 20_000 }
    }
}

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
    /// Width of the policy's hidden layer.
    pub policy_hidden: usize,
    /// Adam's learning rate for the policy.
    pub policy_learning_rate: f64,
    /// Give the policy each teacher's scores with mean 0 and variance 1.
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

/// Stage 6.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Evaluate {
    /// Which models: `student` (or another student's folder), a teacher's modality, `average` for the mean of all
    /// teachers' scores. The first is the one whose figures stand at the top. Empty means all there are.
    pub models: Vec<String>,
    /// Which splits.
    pub splits: Vec<String>,
    /// Predictions to print by name, drawn from the last split's queries.
    pub examples: usize,
}

impl Default for Evaluate {
    fn default() -> Self {
        Evaluate { models: Vec::new(), splits: vec!["valid".into(), "test".into()], examples: 0 }
    }
}

impl Recipe {
    /// Reads recipe files, later ones over earlier ones, then `KEY=VALUE` overrides.
    pub fn load(paths: &[PathBuf], sets: &[String]) -> Result<Recipe> {
        let mut merged = Table::new();
        for path in paths {
            let text = files::read_text(path)?;
            // Checked alone first: only then does an error know its line.
            toml::from_str::<Recipe>(&text).map_err(|e| in_file(path, &text, &e))?;
            let table: Table = text.parse().map_err(|e| in_file(path, &text, &e))?;
            merge(&mut merged, table);
        }
        for set in sets {
            merge(&mut merged, assignment(set)?);
        }
        let recipe: Recipe = merged.try_into().map_err(|e: toml::de::Error| {
            let hint = "pipelines/default.toml lists every key";
            Error::usage(format!("recipe with overrides: {}", e.message())).hint(hint)
        })?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Refuses values that no stage could work with.
    fn check(&self) -> Result<()> {
        self.teachers.training.check("teachers")?;
        self.distill.training.check("distill")?;
        let positive = [
            ("distill.tau", self.distill.tau),
            ("teachers.feature_scale", self.teachers.feature_scale),
            ("soft_labels.rows_per_file", self.soft_labels.rows_per_file as f64),
            ("distill.policy_hidden", self.distill.policy_hidden as f64),
        ];
        for (key, value) in positive {
            require(value > 0.0, key, "must be above zero")?;
        }
        require(
            self.import.holdout_fraction > 0.0 && self.import.holdout_fraction < 1.0,
            "import.holdout_fraction",
            "must lie between 0 and 1",
        )?;
        require(
            !self.features.contains_key(&Modality::structural()),
            "features.structural",
            "needs no features: the structural teacher learns its embeddings",
        )
    }
}

impl Training {
    fn check(&self, section: &str) -> Result<()> {
        let counts = [
            ("rank", self.rank),
            ("epochs", self.epochs),
            ("batch", self.batch),
            ("validate_every", self.validate_every),
            ("patience", self.patience),
        ];
        for (key, count) in counts {
            require(count > 0, &format!("{section}.{key}"), "must be above zero")?;
        }
        require(self.learning_rate > 0.0, &format!("{section}.learning_rate"), "must be above zero")?;
        require(
            self.n3 >= 0.0 && self.init_scale >= 0.0,
            &format!("{section}.n3, init_scale"),
            "must not be negative",
        )
    }
}

fn require(holds: bool, key: &str, message: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::usage(format!("recipe: `{key}` {message}"))) }
}

fn in_file(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let message = Error::usage(error.message()).at(path).hint("pipelines/default.toml lists every key");
    match error.span() {
        Some(span) => message.line(line_of(text, span.start, error.message())),
        None => message,
    }
}

/// The line of an error at byte `start`. For a field of a flattened table that is only the table's header, so
/// the field that the message names is looked for below it.
fn line_of(text: &str, start: usize, message: &str) -> u64 {
    let header = 1 + text[..start].matches('\n').count();
    let field = message.split('`').nth(1).unwrap_or_default();
    let assigns = |line: &str| line.split_once('=').is_some_and(|(key, _)| key.trim() == field);
    let below = text.lines().enumerate().skip(header - 1);
    below.into_iter().find(|(_, line)| assigns(line)).map_or(header, |(i, _)| i + 1) as u64
}

/// `a.b=1` as `{ a: { b: 1 } }`; what is no TOML value is taken as a string.
fn assignment(text: &str) -> Result<Table> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Error::usage(format!("`--set {text}`: expected KEY=VALUE")).hint("for example --set distill.gamma=4")
    })?;
    let value = format!("v = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
    let value = value.unwrap_or_else(|| Value::String(text[key.len() + 1..].to_owned()));
    let mut names = key.rsplit('.');
    let innermost = Table::from_iter([(names.next().unwrap_or_default().to_owned(), value)]);
    Ok(names.fold(innermost, |table, name| Table::from_iter([(name.to_owned(), Value::Table(table))])))
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recipe.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn the_manual_lists_every_key_with_its_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/default.toml");
        let manual = Recipe::load(std::slice::from_ref(&path), &[]).unwrap();
        assert_eq!(manual, Recipe::default());
        let listed: Table = files::read_text(&path).unwrap().parse().unwrap();
        let complete = Table::try_from(Recipe::default()).unwrap();
        for (section, table) in complete.iter().filter_map(|(name, value)| Some((name, value.as_table()?))) {
            for key in table.keys() {
                assert!(listed[section].get(key).is_some(), "pipelines/default.toml lacks {section}.{key}");
            }
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let (_dir, path) = written("seed = 1\n[distill]\ngama = 2\n");
        let error = Recipe::load(&[path], &[]).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("line 3") && message.contains("unknown field `gama`"), "{message}");
        assert_eq!(error.kind().exit_code(), 2);
    }

    #[test]
    fn later_recipes_and_overrides_win() {
        let (_a, first) = written("[distill]\ngamma = 3.0\nrank = 8\n[teachers]\nrank = 8\n");
        let (_b, second) = written("[distill]\ngamma = 5.0\n");
        let sets = ["distill.rank=16".to_owned(), "import.validation=holdout:0.2".to_owned()];
        let recipe = Recipe::load(&[first, second], &sets).unwrap();
        assert_eq!((recipe.distill.gamma, recipe.distill.training.rank), (5.0, 16));
        assert_eq!(recipe.teachers.training.rank, 8);
        assert_eq!(recipe.import.validation, Validation::Holdout(0.2));
    }

    #[test]
    fn senseless_values_are_refused() {
        for set in
            ["distill.tau=0", "teachers.rank=0", "import.validation=holdout:2", "distill.objective=x", "seed"]
        {
            assert_eq!(Recipe::load(&[], &[set.to_owned()]).unwrap_err().kind().exit_code(), 2, "{set}");
        }
    }

    #[test]
    fn a_modality_is_a_table_of_its_own() {
        let (_dir, path) = written("[features.caption]\nfrom = \"text\"\nfields = [\"caption\"]\n");
        let recipe = Recipe::load(&[path], &[]).unwrap();
        let names: Vec<&str> = recipe.features.keys().map(Modality::as_str).collect();
        assert_eq!(names, ["caption"]);
    }
}
