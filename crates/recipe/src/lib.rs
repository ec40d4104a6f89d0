//! The recipe: one TOML file with everything that decides what the stages compute.
//!
//! `pipelines/default.toml` lists every key with its default and is checked against this module. Every program
//! reads the whole recipe, so a misspelt key of the last stage is refused before the first one starts.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

use stage::{Error, Modality, Result, files};

mod backbone;
mod distill;
mod features;
mod import;
mod teachers;

pub use backbone::Backbone;
pub use distill::{Action, Distill, Neighbours, Objective, PolicyState, Selection};
pub use features::{Features, ImageOutput, Pool, TextField, TextOutput, UnknownKeys};
pub use import::{Import, Join, TextPart, TextSource, TripleFormat, Validation};
pub use teachers::{Absent, Precision, TeacherOverride, Teachers, Training};

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

/// Stage 4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoftLabels {
    /// Which teachers; empty means all that are finished.
    pub teachers: Vec<Modality>,
    /// Queries per Parquet file.
    pub rows_per_file: usize,
    /// How many entities' scores are kept of a row beside its neighbours'; 0 keeps all of them.
    pub top: usize,
}

impl Default for SoftLabels {
    fn default() -> Self {
        SoftLabels { teachers: Vec::new(), rows_per_file: 20_000, top: 0 }
    }
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
        for modality in self.teachers.modality.keys() {
            self.teachers.of(modality).training.check(&format!("teachers.modality.{modality}"))?;
        }
        self.distill.training.check("distill")?;
        let positive = [
            ("distill.tau", self.distill.tau),
            ("teachers.epochs", self.teachers.training.epochs as f64),
            ("distill.epochs", self.distill.training.epochs as f64),
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
        for (key, rate) in self.teachers.missing_rates() {
            require((0.0..=1.0).contains(&rate), &key, "must lie between 0 and 1")?;
        }
        require(
            !self.features.contains_key(&Modality::structural()),
            "features.structural",
            "needs no features: the structural teacher learns its embeddings",
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
        for set in [
            "distill.tau=0",
            "teachers.rank=0",
            "teachers.missing_rate=1.5",
            "teachers.modality.visual.missing_rate=-1",
            "import.validation=holdout:2",
            "distill.objective=x",
            "seed",
        ] {
            assert_eq!(Recipe::load(&[], &[set.to_owned()]).unwrap_err().kind().exit_code(), 2, "{set}");
        }
    }

    #[test]
    fn a_backbone_is_a_word() {
        let sets =
            ["teachers.modality.visual.backbone=distmult", "distill.backbone=transe"].map(str::to_owned);
        let recipe = Recipe::load(&[], &sets).unwrap();
        let backbone = |modality: &str| recipe.teachers.of(&modality.parse().unwrap()).training.backbone;
        assert_eq!((backbone("visual"), backbone("structural")), (Backbone::DistMult, Backbone::ComplEx));
        let error = Recipe::load(&[], &["distill.backbone=rescal".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("`tucker`"), "{error}");
    }

    #[test]
    fn a_teacher_has_its_own_rank() {
        let load = |set: &str| Recipe::load(&[], &[set.to_owned()]);
        let teachers = load("teachers.modality.textual.rank=1000").unwrap().teachers;
        let rank = |modality: &str| teachers.of(&modality.parse().unwrap()).training.rank;
        assert_eq!((rank("textual"), rank("structural")), (1000, 256));
        let error = load("teachers.modality.textual.rank=0").unwrap_err().to_string();
        assert!(error.contains("teachers.modality.textual.rank"), "{error}");
    }

    #[test]
    fn a_modality_is_a_table_of_its_own() {
        let (_dir, path) = written("[features.caption]\nfrom = \"text\"\nfields = [\"caption\"]\n");
        let recipe = Recipe::load(&[path], &[]).unwrap();
        let names: Vec<&str> = recipe.features.keys().map(Modality::as_str).collect();
        assert_eq!(names, ["caption"]);
    }
}
