//! Which models a run has, by name, and opening them.
//!
//! A name is a student's folder, a teacher's modality, `average`, or modalities joined by `+` for the mean of these. A model
//! that several names need is read once.

use kge::{Average, Model, Scorer};
use mkg::Vocabulary;
use serde_json::Value;
use stage::files::read_json;
use stage::manifest::{self, Manifest};
use stage::task::Task;
use stage::{Error, Kind, Modality, Result, Run, resources};
use std::path::{Path, PathBuf};
use training::{MODEL, open_model};

/// The student, unless a run has several.
pub const STUDENT: &str = "student";
/// The mean of the teachers' scores.
pub const AVERAGE: &str = "average";
/// The program that trains students.
const DISTILL: &str = "dsom-distill";

/// The finished models of a run.
pub struct Catalogue {
    run: Run,
    students: Vec<String>,
    teachers: Vec<Modality>,
    averaged: Vec<Modality>,
}

impl Catalogue {
    /// Looks through the run's folders.
    pub fn of(run: &Run) -> Result<Catalogue> {
        let teachers = run.finished("teachers");
        let averaged = teachers_of_soft_labels(run)?.unwrap_or_else(|| teachers.clone());
        Ok(Catalogue { run: run.clone(), students: students(run), teachers, averaged })
    }

    /// The teachers whose mean `average` is: those of the soft labels, or all while there are none.
    pub fn averaged(&self) -> &[Modality] {
        &self.averaged
    }

    /// All models in the order of reports: students, the average if it is one of several, teachers.
    pub fn names(&self) -> Vec<String> {
        let average = (self.averaged.len() > 1).then(|| AVERAGE.to_owned());
        let teachers = self.teachers.iter().map(|teacher| teacher.as_str().to_owned());
        self.students.iter().cloned().chain(average).chain(teachers).collect()
    }

    /// The models `asked` for, each once, or all there are if none is named.
    pub fn choose(&self, asked: &[String]) -> Result<Vec<String>> {
        let mut names = if asked.is_empty() { self.names() } else { Vec::new() };
        for name in asked {
            self.folders(name)?;
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        if names.is_empty() {
            let error = Error::missing("no student and no teacher has finished").at(self.run.root());
            return Err(error.hint("run `dsom-teachers` or `dsom-distill` first"));
        }
        Ok(names)
    }

    /// The folders of a model's parts, of whose scores its own are made.
    fn folders(&self, name: &str) -> Result<Vec<PathBuf>> {
        let of = |teachers: &[Modality]| teachers.iter().map(|teacher| self.run.teacher(teacher)).collect();
        let several =
            name.split('+').map(|part| self.teachers.iter().find(|there| there.as_str() == part).cloned());
        if let (true, Some(teachers)) = (name.contains('+'), several.collect::<Option<Vec<_>>>()) {
            return Ok(of(&teachers));
        }
        if name == AVERAGE && !self.averaged.is_empty() {
            return Ok(of(&self.averaged));
        }
        if self.students.iter().any(|student| student == name) {
            return Ok(vec![self.run.student(name)]);
        }
        match self.teachers.iter().find(|teacher| teacher.as_str() == name) {
            Some(teacher) => Ok(vec![self.run.teacher(teacher)]),
            None => Err(self.absent(name)),
        }
    }

    /// Either a model that could be there, whose stage has not finished, or a name that nothing has.
    fn absent(&self, name: &str) -> Error {
        let there = match self.names() {
            names if names.is_empty() => "no model has finished yet".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        match self.program_of(name) {
            Some(program) => Error::missing(format!("model `{name}` has not finished"))
                .at(self.run.root())
                .hint(format!("run `{program}` first; {there}")),
            None => Error::usage(format!("`{name}` is not a model of this run")).hint(there),
        }
    }

    /// The program that would make a model of this name, if any would.
    fn program_of(&self, name: &str) -> Option<&'static str> {
        if name == STUDENT || begun_by(&self.run.root().join(name)).as_deref() == Some(DISTILL) {
            return Some(DISTILL);
        }
        let modality = name.parse::<Modality>().ok()?;
        let expected = name == AVERAGE
            || modality.is_structural()
            || self.run.teacher(&modality).is_dir()
            || self.run.features(&modality).is_dir();
        expected.then_some("dsom-teachers")
    }
}

/// The program that was cut short in `folder`.
fn begun_by(folder: &Path) -> Option<String> {
    let identity: Value = read_json(&folder.join(manifest::INCOMPLETE)).ok()?;
    Some(identity["program"].as_str()?.to_owned())
}

/// The finished students' folders, `student` first.
fn students(run: &Run) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(run.root()) else { return Vec::new() };
    let is_student = |folder: &Path| Manifest::read(folder).is_ok_and(|manifest| manifest.program == DISTILL);
    let finished = entries.flatten().filter(|entry| is_student(&entry.path()));
    let mut names: Vec<String> = finished.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_by(|a, b| (a != STUDENT, a).cmp(&(b != STUDENT, b)));
    names
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
    names: Vec<String>,
    /// For each name, the positions of its parts in `loaded`.
    parts: Vec<Vec<usize>>,
    loaded: Vec<Model<f32>>,
}

impl Models {
    /// Reads the models called `names` and records their files as inputs of `task`.
    pub fn open(
        catalogue: &Catalogue,
        names: &[String],
        task: &mut Task,
        vocabulary: &Vocabulary,
    ) -> Result<Models> {
        let (mut folders, mut parts) = (Vec::new(), Vec::new());
        for name in names {
            let of_name = catalogue.folders(name)?.into_iter().map(|folder| position(&mut folders, folder));
            parts.push(of_name.collect::<Vec<_>>());
        }
        require_memory(&folders)?;
        let loaded =
            folders.iter().map(|folder| open_model(task, folder, vocabulary)).collect::<Result<_>>()?;
        Ok(Models { names: names.to_vec(), parts, loaded })
    }

    /// The models' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The models whose mean scores are those of model number `index`.
    pub fn averaged(&self, index: usize) -> Vec<&Model<f32>> {
        self.parts[index].iter().map(|part| &self.loaded[*part]).collect()
    }

    /// What scores as model number `index`.
    pub fn scorer(&self, index: usize) -> impl Scorer + '_ {
        Average(self.averaged(index))
    }
}

/// Where `folder` stands in `folders`, at the end if it was not there.
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
