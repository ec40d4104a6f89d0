//! A finished or half-finished run, read for its report.

mod choices;
mod history;

pub use choices::{Asked, Choices};
pub use history::{Epoch, History};

use dsom_evaluate::examples::Example;
use dsom_evaluate::report::OfModel;
use dsom_evaluate::table::RankTable;
use dsom_evaluate::{EXAMPLES, METRICS, RANKS, report, table};
use mkg::audit::{self, Audit};
use mkg::{Split, Vocabulary};
use stage::files::read_json;
use stage::manifest::{self, Manifest};
use stage::{Error, Result, Run};
use std::path::{Path, PathBuf};

/// The programs in the order of the pipeline.
const PROGRAMS: [&str; 7] = [
    "dsom-import",
    "dsom-features",
    "dsom-teachers",
    "dsom-soft-labels",
    "dsom-distill",
    "dsom-ensemble",
    EVALUATE,
];
/// The program that ranks.
const EVALUATE: &str = "dsom-evaluate";
/// The program of students.
const DISTILL: &str = "dsom-distill";

/// A finished stage.
pub struct Stage {
    /// Its folder, relative to the run.
    pub folder: String,
    /// Its manifest.
    pub manifest: Manifest,
    /// The reason why its inputs are no longer there, if so.
    pub stale: Option<String>,
}

impl Stage {
    /// The finished stage in a folder of the run in `root`.
    pub fn read(root: &Path, folder: &str) -> Result<Stage> {
        let manifest = Manifest::read(&root.join(folder))?;
        let stale = manifest.stale(&Run::new(root));
        Ok(Stage { folder: folder.to_owned(), manifest, stale })
    }

    /// The last part of the folder: a modality, or the student's name.
    pub fn name(&self) -> &str {
        self.folder.rsplit('/').next().unwrap_or(&self.folder)
    }
}

/// Everything a report tells of. What a run lacks is empty.
pub struct RunData {
    /// The directory's name.
    pub name: String,
    /// Entities and relations.
    pub vocabulary: Vocabulary,
    /// The graph's audit.
    pub audit: Option<Audit>,
    /// The finished stages, in the order of the pipeline.
    pub stages: Vec<Stage>,
    /// Every model's figures.
    pub models: Vec<(String, OfModel)>,
    /// Every model's ranks.
    pub ranks: Vec<RankTable>,
    /// Every model's history, epoch by epoch.
    pub histories: Vec<History>,
    /// The choices of the students' policies.
    pub choices: Vec<Choices>,
    /// Predictions by name.
    pub examples: Vec<Example>,
}

impl RunData {
    /// Reads the run in `root`; a graph is the least it must have.
    pub fn read(root: &Path) -> Result<RunData> {
        let run = Run::new(root);
        if !root.is_dir() {
            return Err(Error::missing("no such run")
                .at(root)
                .hint("give the directory of a run with --run"));
        }
        Manifest::read(&run.graph())?;
        let stages = stages(&run)?;
        let audit = run.graph().join(audit::FILE);
        let (mut histories, mut choices) = (Vec::new(), Vec::new());
        for stage in &stages {
            histories.extend(History::read(root, stage)?);
            choices.extend(Choices::read(root, stage)?);
        }
        let evaluated = stages.iter().any(|stage| stage.manifest.program == EVALUATE);
        let result =
            |name: &str| Some(run.evaluation().join(name)).filter(|path| evaluated && path.is_file());
        Ok(RunData {
            name: name_of(root),
            vocabulary: Vocabulary::read(&run.graph())?,
            audit: audit.is_file().then(|| read_json(&audit)).transpose()?,
            models: result(METRICS).map_or(Ok(Vec::new()), |path| report::read(&path))?,
            ranks: result(RANKS).map_or(Ok(Vec::new()), |path| table::read(&path))?,
            examples: result(EXAMPLES).map_or(Ok(Vec::new()), |path| read_json(&path))?,
            stages,
            histories,
            choices,
        })
    }

    /// The dataset's name, as its import has it.
    pub fn dataset(&self) -> &str {
        self.stages.iter().find_map(|stage| stage.manifest.summary["name"].as_str()).unwrap_or(&self.name)
    }

    /// The stages of one program.
    pub fn of_program<'a>(&'a self, program: &'a str) -> impl Iterator<Item = &'a Stage> {
        self.stages.iter().filter(move |stage| stage.manifest.program == program)
    }

    /// The split that results are shown of: test, or the last one that was evaluated.
    pub fn shown(&self) -> Option<Split> {
        let splits = || self.models.iter().flat_map(|(_, splits)| splits.iter().map(|(split, _)| *split));
        splits().find(|split| *split == Split::Test).or_else(|| splits().last())
    }

    /// A model's figures on a split.
    pub fn figures(&self, model: &str, split: Split) -> Option<&dsom_evaluate::report::SplitMetrics> {
        let splits = &self.models.iter().find(|(name, _)| name == model)?.1;
        splits.iter().find(|(of, _)| *of == split).map(|(_, figures)| figures)
    }

    /// The ranks of all models on a split, in the order of reports.
    pub fn ranks_on(&self, split: Split) -> impl Iterator<Item = &RankTable> {
        self.ranks.iter().filter(move |table| table.split == split)
    }

    /// The class of a model's colour, the same in every chart: students, teachers in their order, the average.
    pub fn class(&self, model: &str) -> String {
        const STUDENTS: [usize; 3] = [0, 4, 5];
        let students: Vec<&str> = self.of_program(DISTILL).map(Stage::name).collect();
        let teachers: Vec<&str> = self.of_program("dsom-teachers").map(Stage::name).collect();
        let at = |names: &[&str]| names.iter().position(|name| *name == model);
        crate::chart::series(match (at(&students), at(&teachers)) {
            (Some(i), _) => STUDENTS[i % STUDENTS.len()],
            (_, Some(i)) => crate::strategies::TEACHERS[i % crate::strategies::TEACHERS.len()],
            _ => 7,
        })
    }
}

/// The last part of a path, also of `.`.
fn name_of(root: &Path) -> String {
    let full = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    full.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The finished stages of a run: folders with a manifest in the run or one below.
fn stages(run: &Run) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    for folder in folders(run.root())? {
        let parts = if is_finished(&folder) { vec![folder] } else { folders(&folder)? };
        for folder in parts.into_iter().filter(|folder| is_finished(folder)) {
            let folder = folder.strip_prefix(run.root()).unwrap_or(&folder).to_string_lossy().into_owned();
            stages.push(Stage::read(run.root(), &folder)?);
        }
    }
    let place = |stage: &Stage| PROGRAMS.iter().position(|program| *program == stage.manifest.program);
    let special = |stage: &Stage| !["student", "structural"].contains(&stage.name());
    stages.sort_by_key(|stage| (place(stage), special(stage), stage.folder.clone()));
    Ok(stages)
}

fn is_finished(folder: &Path) -> bool {
    folder.join(manifest::FILE).is_file()
}

/// The folders in a folder.
fn folders(parent: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(parent).map_err(|e| Error::io(parent, e))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}
