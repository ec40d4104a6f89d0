//! The models of a run, by name.

use dsom_ensemble::{TeacherWeights, WeightedTeachers};
use kge::Model;
use mkg::Vocabulary;
use stage::manifest::{self, Manifest};
use stage::task::Task;
use stage::{Error, Kind, Modality, Result, Run, resources};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use training::{MODEL, open_model};

/// The student, unless a run has several.
pub const STUDENT: &str = "student";
/// The ensemble, unless a run has several.
const ENSEMBLE: &str = "ensemble";
/// The mean of the teachers' scores.
pub const AVERAGE: &str = "average";

/// The name of a model, as one gives it to `--model`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelName {
    /// A student, by its folder: `student`, `student-…`.
    Student(String),
    /// An ensemble, by its folder: `ensemble`, `ensemble-…`.
    Ensemble(String),
    /// `average`: the mean of the soft labels' teachers, or of all.
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
                ModelName::Mean(name.split('+').map(str::parse).collect::<Result<_>>()?)
            }
            _ => ModelName::Teacher(name.parse()?),
        })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelName::Student(folder) | ModelName::Ensemble(folder) => f.write_str(folder),
            ModelName::Average => f.write_str(AVERAGE),
            ModelName::Mean(teachers) => {
                f.write_str(&teachers.iter().map(Modality::as_str).collect::<Vec<_>>().join("+"))
            }
            ModelName::Teacher(modality) => f.write_str(modality.as_str()),
        }
    }
}

/// The models of a run, whether they are finished or not.
pub struct Catalogue {
    run: Run,
    students: Vec<String>,
    ensembles: Vec<String>,
    teachers: Vec<Modality>,
    averaged: Vec<Modality>,
}

impl Catalogue {
    /// Looks through the run's folders.
    ///
    /// # Errors
    /// If a folder cannot be read, or the soft labels' manifest is damaged.
    pub fn of(run: &Run) -> Result<Catalogue> {
        let (mut students, mut ensembles) = (Vec::new(), Vec::new());
        for folder in folders(run.root())? {
            match folder.parse() {
                Ok(ModelName::Student(folder)) => students.push(folder),
                Ok(ModelName::Ensemble(folder)) => ensembles.push(folder),
                _ => {}
            }
        }
        let teachers = folders(&run.root().join("teachers"))?;
        let mut teachers: Vec<Modality> = teachers.iter().filter_map(|folder| folder.parse().ok()).collect();
        teachers.sort();
        let averaged = teachers_of_soft_labels(run)?.unwrap_or_else(|| teachers.clone());
        Ok(Catalogue { run: run.clone(), students, ensembles, teachers, averaged })
    }

    /// The teachers whose mean `average` is: those of the soft labels, or all while there are none.
    pub fn averaged(&self) -> &[Modality] {
        &self.averaged
    }

    /// All models in the order of reports: students, ensembles, the average if it is one of several, teachers.
    pub fn names(&self) -> Vec<ModelName> {
        let average = (self.averaged.len() > 1).then_some(ModelName::Average);
        let students = self.students.iter().cloned().map(ModelName::Student);
        let ensembles = self.ensembles.iter().cloned().map(ModelName::Ensemble);
        let teachers = self.teachers.iter().cloned().map(ModelName::Teacher);
        students.chain(ensembles).chain(average).chain(teachers).collect()
    }

    /// The models `asked` for, each once, or all there are if none is named.
    ///
    /// # Errors
    /// If one has not finished, or is damaged, or there is no such model.
    pub fn choose(&self, asked: &[String]) -> Result<Vec<ModelName>> {
        let mut names = Vec::new();
        for name in asked {
            let name = name.parse().map_err(|_| self.unknown(name))?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if asked.is_empty() {
            names = self.names();
        }
        if names.is_empty() {
            let error = Error::missing("no student and no teacher has finished").at(self.run.root());
            return Err(error.hint("run `dsom-teachers` or `dsom-distill` first"));
        }
        for name in &names {
            self.parts(name).map_err(|error| {
                if asked.is_empty() && error.kind() == Kind::Missing {
                    error.hint("finish or remove it, or name other models with --model")
                } else {
                    error
                }
            })?;
        }
        Ok(names)
    }

    /// The finished folders of a model's parts, of whose scores its own are made.
    ///
    /// # Errors
    /// As [`Catalogue::choose`].
    pub fn parts(&self, name: &ModelName) -> Result<Vec<PathBuf>> {
        let of = |teachers: &[Modality]| {
            teachers
                .iter()
                .map(|teacher| self.finished(name, self.run.teacher(teacher), "dsom-teachers"))
                .collect()
        };
        match name {
            ModelName::Student(folder) => {
                Ok(vec![self.finished(name, self.run.student(folder), "dsom-distill")?])
            }
            ModelName::Ensemble(folder) => {
                let folder = self.finished(name, self.run.ensemble(folder), "dsom-ensemble")?;
                of(&Manifest::read(&folder)?.summary_field::<Vec<Modality>>(&folder, "teachers")?)
            }
            ModelName::Average if self.averaged.is_empty() => Err(self.unfinished(name, "dsom-teachers")),
            ModelName::Average => of(&self.averaged),
            ModelName::Mean(teachers) => of(teachers),
            ModelName::Teacher(modality) => of(std::slice::from_ref(modality)),
        }
    }

    /// A part's `folder`, if `program` has finished it.
    fn finished(&self, name: &ModelName, folder: PathBuf, program: &str) -> Result<PathBuf> {
        match Manifest::read(&folder) {
            Ok(manifest) if manifest.program == program => Ok(folder),
            Ok(manifest) => {
                Err(Error::data(format!("written by `{}`, not by `{program}`", manifest.program)).at(folder))
            }
            Err(error) if error.kind() == Kind::Missing => Err(if self.is_expected(name, &folder) {
                self.unfinished(name, program)
            } else {
                self.unknown(&name.to_string())
            }),
            Err(error) => Err(error.hint(format!("rerun `{program}` with --force"))),
        }
    }

    /// Tells whether a model that is not there could be: its folder was begun, or it is one that runs have.
    fn is_expected(&self, name: &ModelName, folder: &Path) -> bool {
        match name {
            ModelName::Student(name) => name == STUDENT || folder.is_dir(),
            ModelName::Ensemble(name) => name == ENSEMBLE || folder.is_dir(),
            ModelName::Teacher(modality) => {
                modality.is_structural() || folder.is_dir() || self.run.features(modality).is_dir()
            }
            ModelName::Average | ModelName::Mean(_) => folder.is_dir(),
        }
    }

    fn unfinished(&self, name: &ModelName, program: &str) -> Error {
        let error = Error::missing(format!("model `{name}` has not finished")).at(self.run.root());
        error.hint(format!("run `{program}` first; {}", self.there()))
    }

    fn unknown(&self, name: &str) -> Error {
        Error::usage(format!("`{name}` is not a model of this run")).hint(self.there())
    }

    fn there(&self) -> String {
        let is_finished = |name: &ModelName| match name {
            ModelName::Student(folder) | ModelName::Ensemble(folder) => {
                is_finished(&self.run.root().join(folder))
            }
            ModelName::Teacher(modality) => is_finished(&self.run.teacher(modality)),
            ModelName::Average | ModelName::Mean(_) => true,
        };
        let finished = self.names().into_iter().filter(is_finished).map(|name| name.to_string());
        match finished.collect::<Vec<_>>() {
            names if names.is_empty() => "no model has finished yet".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        }
    }
}

fn is_finished(folder: &Path) -> bool {
    folder.join(manifest::FILE).is_file()
}

/// The names of the folders in `parent`, in order; of none where it does not exist.
fn folders(parent: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| Error::io(parent, e))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(parent, e))?;
        names.extend(entry.path().is_dir().then(|| entry.file_name().into_string().ok()).flatten());
    }
    names.sort();
    Ok(names)
}

/// The teachers the soft labels were made of, if there are soft labels.
fn teachers_of_soft_labels(run: &Run) -> Result<Option<Vec<Modality>>> {
    let folder = run.soft_labels();
    let manifest = match Manifest::read(&folder) {
        Err(error) if error.kind() == Kind::Missing => return Ok(None),
        manifest => manifest?,
    };
    manifest.summary_field(&folder, "teachers").map(Some)
}

/// Models in memory.
pub struct Models {
    names: Vec<ModelName>,
    /// For each name, the positions of its parts in `loaded`.
    parts: Vec<Vec<usize>>,
    /// For each name, the weights of the parts.
    weights: Vec<TeacherWeights>,
    loaded: Vec<Model<f32>>,
}

impl Models {
    /// Reads the models called `names` and records their files as inputs of `task`. A model that several names need is
    /// read once.
    pub fn open(
        catalogue: &Catalogue,
        names: &[ModelName],
        task: &mut Task,
        vocabulary: &Vocabulary,
    ) -> Result<Models> {
        let (mut folders, mut parts) = (Vec::new(), Vec::new());
        for name in names {
            let of_name = catalogue.parts(name)?.into_iter().map(|folder| position(&mut folders, folder));
            parts.push(of_name.collect::<Vec<_>>());
        }
        require_memory(&folders)?;
        let loaded: Vec<Model<f32>> =
            folders.iter().map(|folder| open_model(task, folder, vocabulary)).collect::<Result<_>>()?;
        let mut weights = Vec::new();
        for (name, parts) in names.iter().zip(&parts) {
            let models: Vec<&Model<f32>> = parts.iter().map(|part| &loaded[*part]).collect();
            weights.push(match name {
                ModelName::Ensemble(folder) => open_weights(&catalogue.run.ensemble(folder), task, &models)?,
                _ => TeacherWeights::even(2 * vocabulary.relations.len(), parts.len()),
            });
        }
        Ok(Models { names: names.to_vec(), parts, weights, loaded })
    }

    /// The models' names.
    pub fn names(&self) -> &[ModelName] {
        &self.names
    }

    /// The models whose mean scores are those of model number `index`; none of an ensemble, which weighs them.
    pub fn averaged(&self, index: usize) -> Option<Vec<&Model<f32>>> {
        (!matches!(self.names[index], ModelName::Ensemble(_))).then(|| self.models(index))
    }

    /// A scorer for model number `index`.
    pub fn scorer(&self, index: usize) -> WeightedTeachers<'_> {
        WeightedTeachers { weights: &self.weights[index], models: self.models(index) }
    }

    /// The models of whose scores those of model number `index` are made.
    pub fn models(&self, index: usize) -> Vec<&Model<f32>> {
        self.parts[index].iter().map(|part| &self.loaded[*part]).collect()
    }
}

fn open_weights(folder: &Path, task: &mut Task, models: &[&Model<f32>]) -> Result<TeacherWeights> {
    let teachers: Vec<Modality> = Manifest::read(folder)?.summary_field(folder, "teachers")?;
    TeacherWeights::open(task, folder, &teachers, models)
}

/// The position of `folder` in `folders`, at the end if it was not there.
fn position(folders: &mut Vec<PathBuf>, folder: PathBuf) -> usize {
    folders.iter().position(|there| *there == folder).unwrap_or_else(|| {
        folders.push(folder);
        folders.len() - 1
    })
}

/// All models are held at once, and a file's bytes beside its matrices while it is read.
fn require_memory(folders: &[PathBuf]) -> Result<()> {
    let size = |folder: &PathBuf| std::fs::metadata(folder.join(MODEL)).map_or(0, |file| file.len());
    let sizes: Vec<u64> = folders.iter().map(size).collect();
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
        for wrong in ["", "student-../x", "student/x", "structural+", "Average", "../student"] {
            assert!(wrong.parse::<ModelName>().is_err(), "{wrong}");
        }
    }
}
