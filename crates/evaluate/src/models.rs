//! The models of a run, by name.

use dsom_ensemble::{TeacherWeights, WeightedTeachers};
use kge::Model;
use mkg::Vocabulary;
use stage::files::folders;
use stage::manifest::{self, Manifest};
use stage::task::Task;
use stage::{Error, Kind, Modality, Result, Run, resources};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use training::{MODEL, open_model};

use crate::once;

/// The student's name, unless a run has several students.
pub const STUDENT: &str = "student";
/// The ensemble's name, unless a run has several ensembles.
const ENSEMBLE: &str = "ensemble";
/// The name of the model whose scores are the mean of the teachers' scores.
pub const AVERAGE: &str = "average";

/// The name of a model, as a person gives it to `--model`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelName {
    /// A student, by its folder: `student`, `student-…`.
    Student(String),
    /// An ensemble, by its folder: `ensemble`, `ensemble-…`.
    Ensemble(String),
    /// `average`: the mean of the soft labels' teachers, or of all teachers.
    Average,
    /// The mean of some teachers: `structural+textual`.
    Mean(Vec<Modality>),
    /// A teacher, by its modality.
    Teacher(Modality),
}

impl FromStr for ModelName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            AVERAGE => ModelName::Average,
            _ if Run::is_one_of(STUDENT, name) => ModelName::Student(name.to_owned()),
            _ if Run::is_one_of(ENSEMBLE, name) => ModelName::Ensemble(name.to_owned()),
            _ if name.contains('+') => {
                let teachers: Vec<Modality> = name.split('+').map(str::parse).collect::<Result<_>>()?;
                if let Some(twice) = teachers.iter().enumerate().find(|(i, one)| teachers[..*i].contains(one))
                {
                    return Err(Error::usage(format!("`{name}` names the teacher `{}` twice", twice.1)));
                }
                ModelName::Mean(teachers)
            }
            _ => ModelName::Teacher(name.parse()?),
        })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            ModelName::Student(folder) | ModelName::Ensemble(folder) => folder.clone(),
            ModelName::Average => AVERAGE.to_owned(),
            ModelName::Mean(teachers) => teachers.iter().map(Modality::as_str).collect::<Vec<_>>().join("+"),
            ModelName::Teacher(modality) => modality.to_string(),
        })
    }
}

/// The models of a run, finished or not.
pub struct Catalogue {
    run: Run,
    /// All models in the order of reports: students, ensembles, the average if there are several teachers, teachers.
    names: Vec<ModelName>,
    /// The teachers that `average` combines: those of the soft labels, or all teachers while there are no soft labels.
    pub(crate) averaged: Vec<Modality>,
}

impl Catalogue {
    /// Lists the models in the run's folders.
    ///
    /// # Errors
    /// If a folder cannot be read, or the soft labels' manifest is damaged.
    pub fn of(run: &Run) -> Result<Catalogue> {
        let mut names: Vec<ModelName> = folders(run.root())?;
        names.retain(|name| matches!(name, ModelName::Student(_) | ModelName::Ensemble(_)));
        names.sort_by_key(|name| matches!(name, ModelName::Ensemble(_)));
        let mut teachers: Vec<Modality> = folders(&run.root().join("teachers"))?;
        teachers.sort();
        let averaged = match teachers_of(&run.soft_labels()) {
            Err(error) if error.kind() == Kind::Missing => teachers.clone(),
            labelled => labelled?,
        };
        names.extend((averaged.len() > 1).then_some(ModelName::Average));
        names.extend(teachers.into_iter().map(ModelName::Teacher));
        Ok(Catalogue { run: run.clone(), names, averaged })
    }

    /// Returns the models in `asked`, without repetition, or all models of the run if `asked` is empty.
    ///
    /// # Errors
    /// If a model is unknown, unfinished or damaged.
    pub fn choose(&self, asked: &[String]) -> Result<Vec<ModelName>> {
        let mut names = once(asked.iter().map(|name| name.parse().map_err(|_| self.unknown(name))))?;
        if asked.is_empty() {
            names = self.names.clone();
        }
        if names.is_empty() {
            let error = Error::missing("no student and no teacher has finished").at(self.run.root());
            return Err(error.hint("run `dsom-teachers` or `dsom-distill` first"));
        }
        for name in &names {
            self.parts(name).map_err(|error| match error.kind() {
                Kind::Missing if asked.is_empty() => {
                    error.hint("finish or remove it, or name other models with --model")
                }
                _ => error,
            })?;
        }
        Ok(names)
    }

    /// The folders of a model's parts: the trained models whose scores it combines.
    ///
    /// # Errors
    /// As [`Catalogue::choose`].
    pub fn parts(&self, name: &ModelName) -> Result<Vec<PathBuf>> {
        let teachers = match name {
            ModelName::Student(folder) => {
                return Ok(vec![self.finished(name, self.run.student(folder), "dsom-distill")?]);
            }
            ModelName::Ensemble(folder) => {
                teachers_of(&self.finished(name, self.run.ensemble(folder), "dsom-ensemble")?)?
            }
            ModelName::Average if self.averaged.is_empty() => {
                return Err(self.unfinished(name, "dsom-teachers"));
            }
            ModelName::Average => self.averaged.clone(),
            ModelName::Mean(teachers) => teachers.clone(),
            ModelName::Teacher(modality) => vec![modality.clone()],
        };
        let folders = teachers.iter().map(|teacher| self.run.teacher(teacher));
        folders.map(|folder| self.finished(name, folder, "dsom-teachers")).collect()
    }

    /// Reads the models called `names` and records their files as inputs of `task`. A model that several names need is
    /// read once.
    pub fn open(&self, names: &[ModelName], task: &mut Task, vocabulary: &Vocabulary) -> Result<Models> {
        let parts = names.iter().map(|name| self.parts(name));
        let parts: Vec<Vec<PathBuf>> = parts.collect::<Result<_>>()?;
        require_memory(&parts)?;
        let (mut loaded, mut weights) = (BTreeMap::new(), Vec::new());
        for folder in parts.iter().flatten() {
            if !loaded.contains_key(folder) {
                loaded.insert(folder.clone(), open_model(task, folder, vocabulary)?);
            }
        }
        for (name, parts) in names.iter().zip(&parts) {
            weights.push(match name {
                ModelName::Ensemble(folder) => {
                    let folder = self.run.ensemble(folder);
                    let models: Vec<&Model<f32>> = parts.iter().map(|part| &loaded[part]).collect();
                    TeacherWeights::open(task, &folder, &teachers_of(&folder)?, &models)?
                }
                _ => TeacherWeights::even(2 * vocabulary.relations.len(), parts.len()),
            });
        }
        Ok(Models { names: names.to_vec(), parts, weights, loaded })
    }

    /// The `folder` of a part, if `program` has finished it.
    fn finished(&self, name: &ModelName, folder: PathBuf, program: &str) -> Result<PathBuf> {
        match Manifest::read(&folder) {
            Ok(manifest) if manifest.program == program => Ok(folder),
            Ok(manifest) => {
                Err(Error::data(format!("written by `{}`, not by `{program}`", manifest.program)).at(folder))
            }
            Err(error) if error.kind() == Kind::Missing && self.is_expected(name, &folder) => {
                Err(self.unfinished(name, program))
            }
            Err(error) if error.kind() == Kind::Missing => Err(self.unknown(&name.to_string())),
            Err(error) => Err(error.hint(format!("rerun `{program}` with --force"))),
        }
    }

    /// Returns whether a missing model is expected: its folder exists, or runs usually have a model of this name.
    fn is_expected(&self, name: &ModelName, folder: &Path) -> bool {
        let has_features =
            |modality: &Modality| modality.is_structural() || self.run.features(modality).is_dir();
        let runs_have_it = match name {
            ModelName::Student(name) => name == STUDENT,
            ModelName::Ensemble(name) => name == ENSEMBLE || self.run.ensemble(name).is_dir(),
            ModelName::Teacher(modality) => has_features(modality),
            // The average combines the teachers of the soft labels.
            ModelName::Average => true,
            ModelName::Mean(teachers) => teachers.iter().all(has_features),
        };
        runs_have_it || folder.is_dir()
    }

    fn unfinished(&self, name: &ModelName, program: &str) -> Error {
        let error = Error::missing(format!("model `{name}` has not finished")).at(self.run.root());
        error.hint(format!("run `{program}` first; {}", self.there()))
    }

    fn unknown(&self, name: &str) -> Error {
        Error::usage(format!("`{name}` is not a model of this run")).hint(self.there())
    }

    fn there(&self) -> String {
        let finished = self.names.iter().filter(|name| match name {
            ModelName::Student(folder) | ModelName::Ensemble(folder) => {
                is_finished(&self.run.student(folder))
            }
            ModelName::Teacher(modality) => is_finished(&self.run.teacher(modality)),
            ModelName::Average | ModelName::Mean(_) => true,
        });
        let names: Vec<String> = finished.map(ModelName::to_string).collect();
        match names.is_empty() {
            true => "no model has finished yet".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        }
    }
}

/// The teachers that a finished stage recorded in its summary.
fn teachers_of(folder: &Path) -> Result<Vec<Modality>> {
    Manifest::read(folder)?.summary_field(folder, "teachers")
}

fn is_finished(folder: &Path) -> bool {
    folder.join(manifest::FILE).is_file()
}

/// Models in memory.
pub struct Models {
    names: Vec<ModelName>,
    /// The folders of the parts of each model, in the order of the names.
    parts: Vec<Vec<PathBuf>>,
    /// The weights of the parts of each model, in the order of the names.
    weights: Vec<TeacherWeights>,
    loaded: BTreeMap<PathBuf, Model<f32>>,
}

impl Models {
    /// The models' names.
    pub fn names(&self) -> &[ModelName] {
        &self.names
    }

    /// The parts of model number `index`, if it averages their scores; none for an ensemble, which weighs them.
    pub(crate) fn averaged(&self, index: usize) -> Option<Vec<&Model<f32>>> {
        (!matches!(self.names[index], ModelName::Ensemble(_))).then(|| self.models(index))
    }

    /// A scorer for model number `index`.
    pub fn scorer(&self, index: usize) -> WeightedTeachers<'_> {
        WeightedTeachers { weights: &self.weights[index], models: self.models(index) }
    }

    /// The parts of model number `index`: the trained models whose scores it combines.
    pub fn models(&self, index: usize) -> Vec<&Model<f32>> {
        self.parts[index].iter().map(|part| &self.loaded[part]).collect()
    }
}

/// Requires memory for all models at once, and for a file's bytes while its matrices are read.
fn require_memory(parts: &[Vec<PathBuf>]) -> Result<()> {
    let folders: BTreeSet<&PathBuf> = parts.iter().flatten().collect();
    let files = folders.iter().map(|folder| folder.join(MODEL));
    let sizes: Vec<u64> = files.map(|path| path.metadata().map_or(0, |file| file.len())).collect();
    let bytes = sizes.iter().sum::<u64>() + sizes.iter().max().unwrap_or(&0);
    resources::require_memory(bytes, "holding the models", "name fewer of them with --model")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let modality = |name: &str| name.parse::<Modality>().unwrap();
        for (text, name) in [
            ("student", ModelName::Student("student".into())),
            ("student-x", ModelName::Student("student-x".into())),
            ("ensemble-2", ModelName::Ensemble("ensemble-2".into())),
            ("average", ModelName::Average),
            ("structural+visual", ModelName::Mean(vec![modality("structural"), modality("visual")])),
            ("visual", ModelName::Teacher(modality("visual"))),
            ("students", ModelName::Teacher(modality("students"))),
        ] {
            assert_eq!(text.parse::<ModelName>().unwrap(), name);
            assert_eq!(name.to_string(), text);
        }
        for wrong in
            ["", "student-../x", "student/x", "structural+", "visual+visual", "Average", "../student"]
        {
            assert!(wrong.parse::<ModelName>().is_err(), "{wrong}");
        }
    }
}
