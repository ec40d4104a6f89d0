//! A finished or half-finished run, read for its report.

use arrow::array::PrimitiveArray;
use arrow::datatypes::{DataType, Float32Type, UInt32Type};
use dsom_evaluate::examples::Example;
use dsom_evaluate::report::{OfModel, SplitMetrics};
use dsom_evaluate::table::RankTable;
use dsom_evaluate::{EXAMPLES, METRICS, RANKS, report, table};
use mkg::audit::{self, Audit};
use mkg::graph::{for_each_batch, numbers, texts};
use mkg::{Split, Vocabulary};
use serde_json::{Map, Value};
use stage::files::{read_json, read_text};
use stage::manifest::{self, Manifest};
use stage::{Error, Result, Run};
use std::path::{Path, PathBuf};

use crate::chart::series;
use crate::strategies::{ALL, TEACHERS};

/// The programs in the order of the pipeline.
const PROGRAMS: [&str; 7] = [
    "dsom-import",
    "dsom-features",
    "dsom-teachers",
    "dsom-soft-labels",
    "dsom-distill",
    "dsom-ensemble",
    "dsom-evaluate",
];

pub(crate) struct Stage {
    /// The stage's folder, relative to the run.
    pub(crate) folder: String,
    path: PathBuf,
    pub(crate) manifest: Manifest,
    /// The reason why the stage is stale, if its inputs are missing or its outputs are no longer complete.
    pub(crate) stale: Option<String>,
}

impl Stage {
    pub(crate) fn read(root: &Path, folder: &str) -> Result<Stage> {
        let path = root.join(folder);
        let manifest = Manifest::read(&path)?;
        let stale = manifest.stale(&Run::new(root)).or_else(|| manifest.damages(&path).next());
        Ok(Stage { folder: folder.to_owned(), path, manifest, stale })
    }

    /// The last part of the folder: a modality, or the student's name.
    pub(crate) fn name(&self) -> &str {
        self.folder.rsplit('/').next().unwrap_or(&self.folder)
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.path.join(name)).filter(|path| path.is_file())
    }
}

/// All data of a report. Data that the run lacks are empty.
pub(crate) struct RunData {
    /// The directory's name.
    pub(crate) name: String,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) audit: Option<Audit>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) models: Vec<(String, OfModel)>,
    ranks: Vec<RankTable>,
    pub(crate) histories: Vec<History>,
    pub(crate) choices: Vec<Choices>,
    pub(crate) examples: Vec<Example>,
}

impl RunData {
    /// Reads the run in `root`, which must have at least a graph.
    pub(crate) fn read(root: &Path) -> Result<RunData> {
        let run = Run::new(root);
        if !root.is_dir() {
            let error = Error::missing("no such run").at(root);
            return Err(error.hint("give the directory of a run with --run"));
        }
        Manifest::read(&run.graph())?;
        let stages = stages(&run)?;
        let (mut histories, mut choices) = (Vec::new(), Vec::new());
        for stage in &stages {
            histories.extend(History::read(stage)?);
            choices.extend(Choices::read(stage)?);
        }
        // The last part of the path; the path may be `.`.
        let full = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let audit = run.graph().join(audit::FILE);
        Ok(RunData {
            name: full.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            vocabulary: Vocabulary::read(&run.graph())?,
            audit: audit.is_file().then(|| read_json(&audit)).transpose()?,
            models: evaluated(&stages, METRICS, report::read)?,
            ranks: evaluated(&stages, RANKS, table::read)?,
            examples: evaluated(&stages, EXAMPLES, read_json)?,
            stages,
            histories,
            choices,
        })
    }

    /// The dataset's name from its import.
    pub(crate) fn dataset(&self) -> &str {
        self.stages.iter().find_map(|stage| stage.manifest.summary["name"].as_str()).unwrap_or(&self.name)
    }

    pub(crate) fn of_program<'a>(&'a self, program: &'a str) -> impl Iterator<Item = &'a Stage> {
        self.stages.iter().filter(move |stage| stage.manifest.program == program)
    }

    /// The split that results are shown for: test, or the last evaluated split.
    pub(crate) fn shown(&self) -> Option<Split> {
        let splits = self.splits();
        splits.clone().find(|split| *split == Split::Test).or(splits.last())
    }

    /// The evaluated splits, which are the same for all models.
    pub(crate) fn splits(&self) -> impl Iterator<Item = Split> + Clone {
        self.models.first().into_iter().flat_map(|(_, splits)| splits).map(|(split, _)| *split)
    }

    /// The models that have figures on a split, with their figures.
    pub(crate) fn figures_on(&self, split: Split) -> Vec<(&str, &SplitMetrics)> {
        let all = self.models.iter().flat_map(|(model, splits)| splits.iter().map(move |of| (model, of)));
        let on_split = all.filter(|(_, (of, _))| *of == split);
        on_split.map(|(model, (_, figures))| (model.as_str(), figures)).collect()
    }

    pub(crate) fn ranks_on(&self, split: Split) -> impl Iterator<Item = &RankTable> {
        self.ranks.iter().filter(move |table| table.split == split)
    }

    /// The class of a model's colour in every chart: of a student, of a teacher by its order, or of the average.
    pub(crate) fn class(&self, model: &str) -> &'static str {
        for (program, colours) in [("dsom-distill", &[0, 4, 5][..]), ("dsom-teachers", &TEACHERS)] {
            if let Some(i) = self.of_program(program).position(|stage| stage.name() == model) {
                return series(colours[i % colours.len()]);
            }
        }
        series(ALL)
    }
}

/// The content of a file of the evaluation; empty if the evaluation has not finished.
fn evaluated<T: Default>(stages: &[Stage], name: &str, read: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let evaluation = stages.iter().find(|stage| stage.manifest.program == "dsom-evaluate");
    evaluation.and_then(|stage| stage.file(name)).map_or(Ok(T::default()), |path| read(&path))
}

/// The finished stages of a run: folders with a manifest, directly in the run or one level below.
fn stages(run: &Run) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    for folder in folders(run.root())? {
        let parts = if is_finished(&folder) { vec![folder] } else { folders(&folder)? };
        for folder in parts.into_iter().filter(|folder| is_finished(folder)) {
            let folder = folder.strip_prefix(run.root()).unwrap_or(&folder).to_string_lossy().into_owned();
            stages.push(Stage::read(run.root(), &folder)?);
        }
    }
    stages.sort_by_key(|stage| {
        let place = PROGRAMS.iter().position(|program| *program == stage.manifest.program);
        (place, !["student", "structural"].contains(&stage.name()), stage.folder.clone())
    });
    Ok(stages)
}

fn is_finished(folder: &Path) -> bool {
    folder.join(manifest::FILE).is_file()
}

fn folders(parent: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(parent, e);
    let entries = std::fs::read_dir(parent).map_err(failed)?;
    let paths = entries.map(|entry| Ok(entry.map_err(failed)?.path()));
    paths.filter(|path| path.as_ref().map_or(true, |path| path.is_dir())).collect()
}

/// The probabilities of every strategy for every training query, from a student's `strategies.parquet`.
pub(crate) struct Choices {
    pub(crate) student: String,
    /// The strategies, in the file's order; the last one is all teachers.
    pub(crate) strategies: Vec<String>,
    pub(crate) queries: Vec<Asked>,
}

pub(crate) struct Asked {
    pub(crate) head: String,
    /// The relation's name; the name of an inverse ends in `⁻¹`.
    pub(crate) relation: String,
    /// The number of training triples that ask the query.
    triples: f64,
    pub(crate) probabilities: Vec<f64>,
}

/// The share of each strategy among some training triples, and the number of these triples.
pub(crate) type Shares = (Vec<f64>, f64);

impl Choices {
    /// The file of a stage, if it is a student with a policy.
    pub(crate) fn read(stage: &Stage) -> Result<Option<Choices>> {
        let Some(path) = stage.file("strategies.parquet") else { return Ok(None) };
        let (mut strategies, mut queries) = (Vec::new(), Vec::new());
        for_each_batch(&path, |batch| {
            let schema = batch.schema();
            let shares = schema.fields().iter().filter(|field| *field.data_type() == DataType::Float32);
            strategies = shares.map(|field| field.name().clone()).collect();
            let (heads, relations) = (texts(batch, "head_name")?, texts(batch, "relation_name")?);
            let triples = numbers::<UInt32Type>(batch, "neighbours")?;
            let columns = strategies.iter().map(|name| numbers(batch, name));
            let columns: Vec<&PrimitiveArray<Float32Type>> = columns.collect::<Result<_>>()?;
            queries.extend((0..batch.num_rows()).map(|row| Asked {
                head: heads.value(row).to_owned(),
                relation: relations.value(row).to_owned(),
                triples: triples.value(row).into(),
                probabilities: columns.iter().map(|column| column.value(row).into()).collect(),
            }));
            Ok(())
        })?;
        let student = stage.name().to_owned();
        Ok((!strategies.is_empty()).then_some(Choices { student, strategies, queries }))
    }

    /// The expected shares of strategies among the training triples that ask some queries.
    pub(crate) fn shares<'a>(&self, queries: impl IntoIterator<Item = &'a Asked>) -> Shares {
        let (mut shares, mut triples) = (vec![0.0; self.strategies.len()], 0.0);
        for asked in queries {
            triples += asked.triples;
            shares.iter_mut().zip(&asked.probabilities).for_each(|(sum, p)| *sum += asked.triples * p);
        }
        shares.iter_mut().for_each(|share| *share /= f64::max(triples, 1.0));
        (shares, triples)
    }
}

/// A model's history by epoch, from its `events.jsonl`.
pub(crate) struct History {
    pub(crate) model: String,
    /// The time at which its stage finished.
    pub(crate) finished: String,
    /// The number of the epoch whose model was kept.
    pub(crate) best_epoch: Option<f64>,
    pub(crate) epochs: Vec<Epoch>,
}

/// One line of the log.
pub(crate) struct Epoch {
    /// The number of the epoch, from 1.
    pub(crate) number: f64,
    figures: Map<String, Value>,
}

impl History {
    /// The log of a stage's model, if the stage has one.
    pub(crate) fn read(stage: &Stage) -> Result<Option<History>> {
        let Some(path) = stage.file("events.jsonl") else { return Ok(None) };
        let mut epochs = Vec::new();
        for (number, line) in (1..).zip(read_text(&path)?.lines()) {
            let epoch = Epoch::parse(line).map_err(|reason| Error::data(reason).at(&path).line(number))?;
            epochs.push(epoch);
        }
        let best_epoch = stage.manifest.summary["best_epoch"].as_f64();
        let finished = stage.manifest.finished.clone();
        Ok(Some(History { model: stage.name().to_owned(), finished, best_epoch, epochs }))
    }

    pub(crate) fn curve(&self, figure: &str) -> Vec<(f64, f64)> {
        self.epochs.iter().filter_map(|epoch| Some((epoch.number, epoch.figure(figure)?))).collect()
    }

    /// The names of all figures that are numbers.
    pub(crate) fn figures(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, value) in self.epochs.iter().flat_map(|epoch| &epoch.figures) {
            if value.is_number() && name != "epoch" && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    pub(crate) fn strategies(&self) -> Vec<String> {
        let first = self.epochs.first().and_then(|epoch| epoch.figures.get("strategies")?.as_object());
        first.into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }
}

impl Epoch {
    fn parse(line: &str) -> Result<Epoch, String> {
        let figures: Map<String, Value> = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let number = figures.get("epoch").and_then(Value::as_f64).ok_or("no `epoch`")?;
        Ok(Epoch { number, figures })
    }

    pub(crate) fn figure(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure)?.as_f64()
    }

    /// The share of a strategy among this epoch's actions.
    pub(crate) fn share(&self, strategy: &str) -> f64 {
        self.figures.get("strategies").and_then(|shares| shares[strategy].as_f64()).unwrap_or_default()
    }
}
