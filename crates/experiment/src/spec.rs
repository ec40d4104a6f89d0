//! Experiments: datasets, variants, sweeps and seeds, from one TOML file.
//!
//! ```toml
//! title = "Table 4: what the parts do"
//! seeds = [0, 1, 2]
//! baseline = "dsom"
//!
//! [[dataset]]
//! name = "db15k"
//! recipe = ["pipelines/db15k.toml"]
//!
//! [[variant]]
//! name = "dsom"
//! label = "DSoM"
//!
//! [[variant]]
//! name = "all"
//! label = "w/ NDKD"
//! set = { distill.selection.kind = "all" }
//! paper.db15k = { mrr = 41.91, hits_at_1 = 33.69 }
//! ```
//!
//! `set` holds keys of the recipe. `[set]` applies to all cells, a dataset's `set` to its cells, a variant's `set` to
//! its own. A variant's keys decide which stages it shares: with `distill.*`, its student lies beside others in one
//! run; with `soft_labels.*`, it needs its own run with the same teachers, and so on for earlier stages.

use dsom_evaluate::models::STUDENT;
use mkg::Split;
use serde::{Deserialize, Serialize};
use stage::files::read_text;
use stage::{Error, Result};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use toml::Table;

use crate::Metric;

/// An experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The title above the table.
    pub title: String,
    /// The text below the table, such as a caution.
    #[serde(default)]
    pub caption: String,
    /// The seeds; every variant runs with each of them.
    pub seeds: Vec<u64>,
    /// The first stage with the cell's own seed; the stages before it are shared and have the first of the seeds.
    #[serde(default)]
    pub varies_from: Level,
    /// The variant that the others are compared with.
    #[serde(default)]
    pub baseline: Option<String>,
    /// The split that the table shows.
    #[serde(default = "test")]
    pub split: Split,
    /// The table's columns; the first one is used for comparisons.
    #[serde(default = "metrics")]
    pub metrics: Vec<Metric>,
    /// Parameters of intervals and tests.
    #[serde(default)]
    pub statistics: Resampling,
    /// Keys of the recipe for all cells.
    #[serde(default)]
    pub set: Table,
    /// Columns of the table.
    pub dataset: Vec<Dataset>,
    /// Rows of the table.
    #[serde(default)]
    pub variant: Vec<Variant>,
    /// Rows of the table, one for each value of some keys.
    #[serde(default)]
    pub sweep: Vec<Sweep>,
}

fn test() -> Split {
    Split::Test
}

fn metrics() -> Vec<Metric> {
    vec![Metric::Mrr, Metric::HitsAt1, Metric::HitsAt3, Metric::HitsAt10]
}

/// A stage and all stages after it: those that a section of the recipe affects, or whose seed differs between cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All stages; also the choice of triples in a holdout, and random encoders.
    Import,
    /// Random encoders, teachers, students.
    Features,
    /// Teachers and students.
    #[default]
    Teachers,
    /// Soft labels and students. The soft labels draw nothing at random, so seeds cannot vary from this stage.
    #[serde(skip)]
    SoftLabels,
    /// Students and ensembles.
    Distill,
}

/// Parameters of intervals and tests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resampling {
    /// The number of draws of the queries for the intervals.
    pub resamples: usize,
    /// The number of draws of the signs for the test.
    pub rounds: u64,
    /// The share of the draws that an interval covers.
    pub level: f64,
    /// The seed of the intervals and of the test.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Resampling { resamples: 2000, rounds: 10_000, level: 0.95, seed: 0 }
    }
}

/// A dataset.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// A short word, for folders.
    pub name: String,
    /// The label in the table; the name if it is left out.
    #[serde(default)]
    pub title: Option<String>,
    /// The recipes, relative to the folder where the program is called.
    pub recipe: Vec<PathBuf>,
    /// The raw folder, unless `--data` gives it.
    #[serde(default)]
    pub raw: Option<PathBuf>,
    /// Keys of the recipe for this dataset.
    #[serde(default)]
    pub set: Table,
}

/// A row of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// A short word, for folders.
    pub name: String,
    /// The label in the table; the name if it is left out.
    #[serde(default)]
    pub label: Option<String>,
    /// The measured model: the variant's own `student` or `ensemble`, or `average` or a modality, a teacher of its run.
    #[serde(default)]
    pub model: Option<String>,
    /// Keys of the recipe.
    #[serde(default)]
    pub set: Table,
    /// Figures that the paper reports, by dataset.
    #[serde(default)]
    pub paper: BTreeMap<String, BTreeMap<Metric, f64>>,
    /// The variant's place in a sweep.
    #[serde(skip)]
    pub place: Option<Place>,
}

/// A variant for each value of some keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// A short word, for folders.
    pub name: String,
    /// Label of the axis.
    pub label: String,
    /// The keys that get each value.
    pub keys: Vec<String>,
    /// The values.
    pub values: Vec<f64>,
    /// True if the axis is logarithmic.
    #[serde(default)]
    pub logarithmic: bool,
    /// The models that are measured at each value, one line of the chart each; as in [`Variant::model`].
    #[serde(default = "student")]
    pub models: Vec<String>,
    /// Keys of the recipe for all values.
    #[serde(default)]
    pub set: Table,
}

fn student() -> Vec<String> {
    vec![STUDENT.to_owned()]
}

/// The model name of the variant's own ensemble.
const ENSEMBLE: &str = "ensemble";

/// The place of a variant in a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The sweep's name.
    pub sweep: String,
    /// The value.
    pub value: f64,
    /// The model.
    pub model: String,
}

impl Dataset {
    /// Title in the table.
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.name)
    }
}

impl Variant {
    /// Label in the table.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }

    /// The model that is measured.
    pub fn model(&self) -> &str {
        self.model.as_deref().unwrap_or(STUDENT)
    }

    /// The program that makes a model for this variant alone, if there is one.
    pub fn program(&self) -> Option<&'static str> {
        match self.model() {
            STUDENT => Some("dsom-distill"),
            ENSEMBLE => Some("dsom-ensemble"),
            _ => None,
        }
    }
}

impl Spec {
    /// Reads an experiment and makes all checks that do not need its datasets.
    pub(crate) fn read(path: &Path) -> Result<Spec> {
        let text = read_text(path)?;
        let spec: Spec = toml::from_str(&text).map_err(|e| {
            let error = Error::usage(e.message()).at(path).hint("pipelines/experiments has examples");
            error.maybe_line(e.span().map(|span| 1 + text[..span.start].matches('\n').count()))
        })?;
        spec.check().map_err(|e| e.at(path))?;
        Ok(spec)
    }

    /// All rows of the table: the variants, then every sweep's values.
    pub fn variants(&self) -> Vec<Variant> {
        self.variant.iter().cloned().chain(self.sweep.iter().flat_map(Sweep::variants)).collect()
    }

    /// Keeps only the variants and sweeps in `names`; all of them if `names` is empty.
    ///
    /// # Errors
    /// If a name is neither a variant nor a sweep.
    pub(crate) fn keep(&mut self, names: &[String]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let there = || self.variant.iter().map(|v| &v.name).chain(self.sweep.iter().map(|sweep| &sweep.name));
        if let Some(other) = names.iter().find(|name| there().all(|known| known != *name)) {
            let known = there().map(String::as_str).collect::<Vec<_>>().join(", ");
            let error = Error::usage(format!("`{other}` is no variant of this experiment"));
            return Err(error.hint(format!("there are: {known}")));
        }
        self.variant.retain(|variant| names.contains(&variant.name));
        self.sweep.retain(|sweep| names.contains(&sweep.name));
        // Without the baseline's row, nothing is compared with it.
        let kept = self.variants();
        self.baseline.take_if(|baseline| kept.iter().all(|variant| variant.name != *baseline));
        Ok(())
    }

    /// Keeps only the seeds in `seeds`; all of them if `seeds` is empty.
    ///
    /// # Errors
    /// If a seed is not one of the experiment's.
    pub(crate) fn keep_seeds(&mut self, seeds: &[u64]) -> Result<()> {
        if let Some(other) = seeds.iter().find(|seed| !self.seeds.contains(seed)) {
            let error = Error::usage(format!("{other} is no seed of this experiment"));
            return Err(error.hint(format!("there are: {:?}", self.seeds)));
        }
        self.seeds.retain(|seed| seeds.is_empty() || seeds.contains(seed));
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let variants = self.variants();
        unique_words("variant", variants.iter().map(|variant| &variant.name))?;
        unique_words("dataset", self.dataset.iter().map(|dataset| &dataset.name))?;
        let distinct: HashSet<&u64> = self.seeds.iter().collect();
        let Resampling { resamples, rounds, level, .. } = self.statistics;
        for (holds, message) in [
            (!self.seeds.is_empty(), "`seeds` is empty"),
            (!self.metrics.is_empty(), "`metrics` is empty"),
            (!self.dataset.is_empty() && !variants.is_empty(), "needs a dataset and a variant"),
            (distinct.len() == self.seeds.len(), "a seed is given twice"),
            (
                [resamples as u64, rounds].iter().all(|count| (1..=1_000_000).contains(count)),
                "`statistics` needs one to a million resamples and rounds",
            ),
            (level > 0.0 && level < 1.0, "`statistics.level` must lie between 0 and 1"),
        ] {
            require(holds, || message.to_owned())?;
        }
        for Sweep { name, keys, values, models, .. } in &self.sweep {
            let is_whole = !keys.is_empty() && !values.is_empty() && !models.is_empty();
            require(is_whole, || format!("the sweep `{name}` needs keys, values and models"))?;
        }
        if let Some(baseline) = &self.baseline {
            let is_there = variants.iter().any(|variant| variant.name == *baseline);
            require(is_there, || format!("the baseline `{baseline}` is no variant"))?;
        }
        let tables = self.dataset.iter().map(|dataset| &dataset.set).chain(variants.iter().map(|v| &v.set));
        for table in tables.chain([&self.set]) {
            for key in ["seed", "evaluate"] {
                let is_there = table.contains_key(key);
                require(!is_there, || format!("`set` must not have `{key}`: the experiment decides it"))?;
            }
        }
        for (variant, of) in variants.iter().flat_map(|v| v.paper.keys().map(move |of| (&v.name, of))) {
            let is_there = self.dataset.iter().any(|dataset| dataset.name == *of);
            require(is_there, || format!("variant `{variant}` has figures of `{of}`, which is no dataset"))?;
        }
        Ok(())
    }
}

impl Sweep {
    fn variants(&self) -> Vec<Variant> {
        let mut variants = Vec::new();
        for value in &self.values {
            let mut set = self.set.clone();
            self.keys.iter().for_each(|key| assign(&mut set, key, number(*value)));
            for model in &self.models {
                let (name, label) = match model.as_str() {
                    STUDENT => (String::new(), String::new()),
                    model => (format!("-{model}"), format!(", {model}")),
                };
                variants.push(Variant {
                    name: format!("{}-{value}{name}", self.name),
                    label: Some(format!("{} = {value}{label}", self.label)),
                    model: Some(model.clone()),
                    set: set.clone(),
                    paper: BTreeMap::new(),
                    place: Some(Place { sweep: self.name.clone(), value: *value, model: model.clone() }),
                });
            }
        }
        variants
    }
}

/// A number of TOML, an integer if it is whole: counts refuse any other number, and fractions accept both.
fn number(value: f64) -> toml::Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        toml::Value::Integer(value as i64)
    } else {
        toml::Value::Float(value)
    }
}

/// Sets `a.b.c` in nested tables.
fn assign(table: &mut Table, key: &str, value: toml::Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| toml::Value::Table(Table::new()));
            if let toml::Value::Table(inner) = inner {
                assign(inner, rest, value);
            }
        }
    }
}

/// Refuses names that are not plain words or are repeated: names become folders.
fn unique_words<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        require(fits, || format!("`{name}` is no name of a {what}: use letters, digits, - _ ."))?;
        require(seen.insert(name), || format!("two {what}s are called `{name}`"))?;
    }
    Ok(())
}

fn require(holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::usage(message())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "title = \"t\"\nseeds = [0]\n[[dataset]]\nname = \"d\"\nrecipe = []\n";

    fn read(more: &str) -> Result<Spec> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        std::fs::write(&path, format!("{LEAST}{more}")).unwrap();
        Spec::read(&path)
    }

    #[test]
    fn a_sweep_is_a_variant_for_each_value_and_model() {
        let spec = read(
            "[[sweep]]\nname = \"rank\"\nlabel = \"rank\"\nkeys = [\"teachers.rank\", \"distill.rank\"]\n\
             values = [64, 0.5]\nmodels = [\"student\", \"average\"]\nset = { distill.term.tau = 2.0 }\n",
        )
        .unwrap();
        let variants = spec.variants();
        let names: Vec<&str> = variants.iter().map(|variant| variant.name.as_str()).collect();
        assert_eq!(names, ["rank-64", "rank-64-average", "rank-0.5", "rank-0.5-average"]);
        let expected: Table = "teachers.rank = 64\ndistill = { term.tau = 2.0, rank = 64 }".parse().unwrap();
        assert_eq!(variants[0].set, expected);
        assert_eq!(variants[3].label(), "rank = 0.5, average");
        assert_eq!((variants[0].program(), variants[1].program()), (Some("dsom-distill"), None));
    }

    #[test]
    fn only_the_variants_asked_for_are_kept() {
        let spec = |names: &[&str]| {
            let rows = "[[variant]]\nname = \"a\"\n[[variant]]\nname = \"b\"\n[[sweep]]\nname = \"s\"\nlabel = \"s\"\n\
                        keys = [\"distill.term.tau\"]\nvalues = [1, 2]\n";
            let mut spec = read(rows).unwrap();
            spec.baseline = Some("a".to_owned());
            spec.keep(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).map(|()| spec)
        };
        let kept = |names: &[&str]| -> Vec<String> {
            spec(names).unwrap().variants().into_iter().map(|variant| variant.name).collect()
        };
        assert_eq!(kept(&[]), ["a", "b", "s-1", "s-2"]);
        assert_eq!(kept(&["s", "a"]), ["a", "s-1", "s-2"]);
        assert_eq!(spec(&["a"]).unwrap().baseline.as_deref(), Some("a"));
        assert_eq!(spec(&["b"]).unwrap().baseline, None);
        assert!(spec(&["c"]).unwrap_err().to_string().contains("`c`"));
    }

    #[test]
    fn only_the_seeds_asked_for_are_kept() {
        let kept = |seeds: &[u64]| {
            let mut spec = read("[[variant]]\nname = \"a\"\n").unwrap();
            spec.seeds = vec![0, 1, 2];
            spec.keep_seeds(seeds).map(|()| spec.seeds)
        };
        assert_eq!(kept(&[]).unwrap(), [0, 1, 2]);
        assert_eq!(kept(&[2, 0]).unwrap(), [0, 2]);
        assert!(kept(&[3]).unwrap_err().to_string().contains("3 is no seed"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let variant = "[[variant]]\nname = \"a\"\n";
        for (more, words) in [
            ("", "needs a dataset and a variant"),
            ("[[sweep]]\nname = \"s\"\nlabel = \"s\"\nkeys = []\nvalues = [1]\n", "`s` needs keys, values"),
            ("[[variant]]\nname = \"a/b\"\n", "`a/b` is no name of a variant"),
            (&format!("{variant}{variant}"), "two variants are called `a`"),
            (&format!("{variant}set = {{ seed = 1 }}\n"), "must not have `seed`"),
            (&format!("{variant}paper.x = {{ mrr = 1.0 }}\n"), "`x`, which is no dataset"),
            (&format!("{variant}labl = \"x\"\n"), "unknown field `labl`"),
            (&format!("[statistics]\nlevel = 95\n{variant}"), "between 0 and 1"),
        ] {
            let error = read(more).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.kind(), stage::Kind::Usage);
        }
    }
}
