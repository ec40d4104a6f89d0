//! The plan of an experiment: cells, runs, and the stages that several cells share.
//!
//! A run is one directory, laid out as in every pipeline, for one dataset, one seed of its shared stages and one set of
//! keys up to the soft labels. The students of all variants that agree on these lie in it side by side. If two runs
//! agree only on the first stages, the second has symbolic links to the first one's folders. Stages find each other by
//! digests, relative to the run, so a linked folder works like a real one, and nothing is computed or stored twice.

use clap::Args;
use dsom_evaluate::models::{AVERAGE, STUDENT};
use recipe::{Recipe, Term};
use stage::{Error, Kind, Modality, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::overrides::Overrides;
use crate::spec::{Dataset, Level, Spec, Variant};

/// Sources and targets of files, and the part of the experiment to run.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Places {
    /// Directory for the runs and results [default: runs/experiments/ and the name of the file]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Raw folder of a dataset; replaces the one in the experiment (repeatable)
    #[arg(long, value_name = "NAME=DIR", value_parser = pair)]
    pub data: Vec<(String, PathBuf)>,
    /// Only this dataset (repeatable) [default: all]
    #[arg(long, value_name = "NAME")]
    pub dataset: Vec<String>,
    /// Only this variant or sweep (repeatable) [default: all]
    #[arg(long, value_name = "NAME")]
    pub variant: Vec<String>,
    /// Only this seed (repeatable) [default: all]
    #[arg(long, value_name = "N")]
    pub seed: Vec<u64>,
    /// Text encoder for recipes that name none: see dsom-features
    #[arg(long, value_name = "MODEL", env = "DSOM_TEXT_MODEL")]
    pub text_model: Option<PathBuf>,
    /// Image encoder for recipes that name none: see dsom-features
    #[arg(long, value_name = "MODEL", env = "DSOM_IMAGE_MODEL")]
    pub image_model: Option<PathBuf>,
    /// Worker threads of every stage [default: all cores]; the results do not depend on their number
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

fn pair(text: &str) -> Result<(String, PathBuf), String> {
    let (name, folder) = text.split_once('=').ok_or("expected NAME=DIR")?;
    Ok((name.to_owned(), folder.into()))
}

impl Places {
    pub(crate) fn out(&self) -> &Path {
        self.out.as_deref().unwrap_or(Path::new(""))
    }

    /// The command-line arguments that name the experiment in `file` and these places.
    pub(crate) fn arguments(&self, file: &Path) -> Vec<String> {
        let data = self.data.iter().map(|(name, raw)| format!("{name}={}", raw.display()));
        let words = [
            vec![file.display().to_string()],
            options("--out", [shown(self.out())]),
            options("--data", data),
            self.encoders(),
            options("--dataset", self.dataset.clone()),
            options("--variant", self.variant.clone()),
            options("--seed", self.seed.iter().map(u64::to_string)),
            options("--threads", self.threads.iter().map(usize::to_string)),
        ];
        words.concat()
    }

    fn encoders(&self) -> Vec<String> {
        let [texts, images] = [&self.text_model, &self.image_model].map(|model| model.iter().map(shown));
        [options("--text-model", texts), options("--image-model", images)].concat()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Grid {
    pub runs: Vec<RunPlan>,
    /// The calls of programs, in order; a step needs only earlier steps.
    pub steps: Vec<Step>,
    /// The models that the table has figures of.
    pub cells: Vec<Cell>,
}

#[derive(Debug)]
pub(crate) struct RunPlan {
    pub root: PathBuf,
    /// The links to folders of earlier runs, by the folders' names.
    pub links: Vec<(&'static str, PathBuf)>,
    /// The models that the run's evaluation ranks, with the step that each needs.
    pub models: Vec<(String, usize)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub program: &'static str,
    /// The number of the step's run.
    pub run: usize,
    /// The name of the step's dataset, for estimates.
    pub dataset: String,
    /// The folders in the run that the step writes.
    pub outputs: Vec<String>,
    pub arguments: Vec<String>,
    /// The steps that this step needs.
    pub needs: Vec<usize>,
}

/// A variant of one dataset with one seed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub dataset: String,
    pub variant: String,
    pub seed: u64,
    /// The number of the cell's run.
    pub run: usize,
    pub model: String,
}

pub(crate) const EVALUATE: &str = "dsom-evaluate";

/// The level, program and folder of a stage.
type Shared = (Level, &'static str, &'static str);

/// The stages before the students.
pub(crate) const SHARED: [Shared; 4] = [
    (Level::Import, "dsom-import", "graph"),
    (Level::Features, "dsom-features", "features"),
    (Level::Teachers, "dsom-teachers", "teachers"),
    (Level::SoftLabels, "dsom-soft-labels", "soft-labels"),
];

/// The number of stages of [`SHARED`] that the measured model needs: the graph only, up to the teachers, or all.
fn depth(variant: &Variant, recipe: &Recipe) -> usize {
    match variant.model() {
        STUDENT if recipe.distill.term == Term::None => 1,
        // The average combines the teachers of the soft labels.
        STUDENT | AVERAGE => 4,
        _ => 3,
    }
}

impl Grid {
    /// Plans an experiment. It reads every cell's recipe, so that a misspelt key is refused before any step runs.
    pub(crate) fn plan(spec: &Spec, places: &Places) -> Result<Grid> {
        for (model, what) in [(&places.text_model, "text"), (&places.image_model, "image")] {
            model.iter().try_for_each(|model| require_folder(model, what))?;
        }
        let (grid, runs, steps) = (Grid::default(), HashMap::new(), HashMap::new());
        let mut planner = Planner { spec, places, grid, runs, steps };
        for dataset in chosen(spec, places)? {
            let raw = planner.raw(dataset)?;
            for &seed in &spec.seeds {
                for variant in &spec.variants() {
                    planner.cell(dataset, &raw, seed, variant)?;
                }
            }
            planner.evaluations(dataset);
        }
        Ok(planner.grid)
    }

    /// Leaves out the cells outside `variants` and `seeds`, and the steps that only those cells need. The other steps
    /// keep their folders of the whole grid.
    pub(crate) fn keep(&mut self, variants: &[String], seeds: &[u64]) {
        self.cells.retain(|cell| variants.contains(&cell.variant) && seeds.contains(&cell.seed));
        for (number, run) in self.runs.iter_mut().enumerate() {
            run.models.retain(|(model, _)| {
                self.cells.iter().any(|cell| cell.run == number && cell.model == *model)
            });
        }
        let of_models = self.runs.iter().flat_map(|run| run.models.iter().map(|(_, step)| *step));
        let mut needed: Vec<usize> = of_models.collect();
        needed.extend(needed.clone().iter().flat_map(|step| &self.steps[*step].needs));
        let evaluates = |step: &Step| step.program == EVALUATE && !self.runs[step.run].models.is_empty();
        needed.extend((0..self.steps.len()).filter(|number| evaluates(&self.steps[*number])));
        needed.sort_unstable();
        needed.dedup();
        let renumbered = |step: &mut usize| *step = needed.partition_point(|other| other < step);
        self.runs.iter_mut().flat_map(|run| &mut run.models).for_each(|(_, step)| renumbered(step));
        self.steps = needed.iter().map(|step| self.steps[*step].clone()).collect();
        self.steps.iter_mut().flat_map(|step| &mut step.needs).for_each(renumbered);
    }
}

/// Refuses a path to a missing encoder; `random` and OWNER/NAME on the hub are not paths.
fn require_folder(model: &Path, what: &str) -> Result<()> {
    let is_path = model.to_string_lossy().starts_with(['/', '.']) || model.components().count() > 2;
    if is_path && !model.is_dir() {
        let error = Error::missing(format!("no {what} encoder")).at(model);
        return Err(error.hint(format!("--{what}-model names its folder")));
    }
    Ok(())
}

fn chosen<'a>(spec: &'a Spec, places: &Places) -> Result<Vec<&'a Dataset>> {
    let names: Vec<&str> = spec.dataset.iter().map(|dataset| dataset.name.as_str()).collect();
    let mut asked = places.dataset.iter().chain(places.data.iter().map(|(name, _)| name));
    if let Some(other) = asked.find(|asked| !names.contains(&asked.as_str())) {
        let error = Error::usage(format!("`{other}` is no dataset of this experiment"));
        return Err(error.hint(format!("there are: {}", names.join(", "))));
    }
    let datasets = spec.dataset.iter();
    Ok(datasets
        .filter(|dataset| places.dataset.is_empty() || places.dataset.contains(&dataset.name))
        .collect())
}

struct Planner<'a> {
    spec: &'a Spec,
    places: &'a Places,
    grid: Grid,
    /// The number of each run, by the identity of its last shared stage.
    runs: HashMap<String, usize>,
    /// The step of each shared stage, by the identity of the stage.
    steps: HashMap<String, usize>,
}

struct Planned<'a> {
    dataset: &'a Dataset,
    raw: &'a Path,
    seed: u64,
    variant: &'a Variant,
    overrides: Overrides,
    recipe: Recipe,
}

impl Planned<'_> {
    /// The folders that a shared stage writes in its run.
    fn outputs(&self, level: Level, folder: &str) -> Vec<String> {
        let given = self.recipe.features.keys().cloned();
        let modalities: Vec<Modality> = match level {
            Level::Features => given.collect(),
            Level::Teachers => std::iter::once(Modality::structural()).chain(given).collect(),
            _ => return vec![folder.to_owned()],
        };
        modalities.iter().map(|modality| format!("{folder}/{modality}")).collect()
    }
}

impl Planner<'_> {
    fn raw(&self, dataset: &Dataset) -> Result<PathBuf> {
        let name = &dataset.name;
        // If the command line gives several folders, the last one counts.
        let given = self.places.data.iter().rev().find(|(of, _)| of == name);
        let error = match given.map(|(_, raw)| raw).or(dataset.raw.as_ref()) {
            Some(raw) if raw.is_dir() => return Ok(raw.clone()),
            Some(raw) => Error::missing(format!("no raw folder of `{name}`")).at(raw),
            None => Error::missing(format!("no raw folder of `{name}` is named")),
        };
        Err(error.hint(format!("give its raw folder with --data {name}=DIR, or leave it out with --dataset")))
    }

    /// Refuses a table of a split whose ranks no evaluation makes.
    fn require_split(&self, recipe: &Recipe) -> Result<()> {
        let (split, opened) = (self.spec.split.as_str(), &recipe.evaluate.splits);
        if opened.iter().any(|opened| opened == split) {
            return Ok(());
        }
        let message =
            format!("`split` is {split}, but the recipe's `evaluate.splits` are {}", opened.join(", "));
        Err(Error::usage(message).hint("tabulate one of these, or evaluate it"))
    }

    fn cell(&mut self, dataset: &Dataset, raw: &Path, seed: u64, variant: &Variant) -> Result<()> {
        let overrides = Overrides::of([&self.spec.set, &dataset.set, &variant.set]);
        let recipe = Recipe::load(&dataset.recipe, &overrides.sets()).map_err(|e| in_variant(e, variant))?;
        require_model(variant, &recipe)?;
        self.require_split(&recipe)?;
        let cell = Planned { dataset, raw, seed, variant, overrides, recipe };
        let run = self.run(&cell);
        let mut needs = Vec::new();
        for stage in &SHARED[..depth(variant, &cell.recipe)] {
            needs.push(self.shared(&cell, run, *stage, &needs));
        }
        let (model, step) = self
            .own(&cell, run, &needs)
            .unwrap_or_else(|| (variant.model().to_owned(), needs.last().copied().unwrap_or_default()));
        let models = &mut self.grid.runs[run].models;
        if models.iter().all(|(name, _)| *name != model) {
            models.push((model.clone(), step));
        }
        let (dataset, variant) = (dataset.name.clone(), variant.name.clone());
        self.grid.cells.push(Cell { dataset, variant, seed, run, model });
        Ok(())
    }

    fn seed_of(&self, level: Level, seed: u64) -> u64 {
        if level < self.spec.varies_from { self.spec.seeds[0] } else { seed }
    }

    /// The identity of a stage: its dataset, seeds and keys of the recipe. Cells with equal identity share it.
    fn identity(&self, cell: &Planned, level: Level) -> String {
        let above = SHARED.iter().take_while(|(above, ..)| *above <= level);
        let seeds: Vec<u64> = above.map(|(above, ..)| self.seed_of(*above, cell.seed)).collect();
        format!("{level:?} {} {seeds:?} {:?}", cell.dataset.name, cell.overrides.up_to(level).sets())
    }

    /// The run of a cell; made if no earlier cell has it.
    fn run(&mut self, cell: &Planned) -> usize {
        let identity = self.identity(cell, Level::SoftLabels);
        if let Some(run) = self.runs.get(&identity) {
            return *run;
        }
        let run = self.grid.runs.len();
        let seed = self.seed_of(Level::SoftLabels, cell.seed);
        let common = Overrides::of([&self.spec.set, &cell.dataset.set]).up_to(Level::SoftLabels);
        let folder = if cell.overrides.up_to(Level::SoftLabels) == common {
            format!("seed-{seed}")
        } else {
            format!("seed-{seed}-{}", cell.variant.name)
        };
        let root = self.places.out().join(&cell.dataset.name).join(folder);
        self.grid.runs.push(RunPlan { root, links: Vec::new(), models: Vec::new() });
        self.runs.insert(identity, run);
        run
    }

    /// The step that does a shared stage for `run`, in that run or in the run that it links to.
    fn shared(&mut self, cell: &Planned, run: usize, stage: Shared, needs: &[usize]) -> usize {
        let (level, program, folder) = stage;
        let identity = self.identity(cell, level);
        if let Some(&step) = self.steps.get(&identity) {
            self.link(run, self.grid.steps[step].run, folder);
            return step;
        }
        let seed = self.seed_of(level, cell.seed);
        let mut arguments = self.arguments(cell.dataset, run, &cell.overrides.up_to(level), seed);
        match level {
            Level::Import => arguments.extend(options("--raw", [shown(cell.raw)])),
            Level::Features => arguments.extend(self.places.encoders()),
            _ => {}
        }
        let (dataset, needs) = (cell.dataset.name.clone(), needs.to_vec());
        let outputs = cell.outputs(level, folder);
        let step = self.push(Step { program, run, dataset, outputs, arguments, needs });
        self.steps.insert(identity, step);
        step
    }

    /// Links a folder of an earlier run, which lies beside this one, into a run.
    fn link(&mut self, run: usize, owner: usize, folder: &'static str) {
        let owners_folder = self.grid.runs[owner].root.file_name().unwrap_or_default();
        let link = Path::new("..").join(owners_folder).join(folder);
        let links = &mut self.grid.runs[run].links;
        if owner != run && links.iter().all(|(name, _)| *name != folder) {
            links.push((folder, link));
        }
    }

    /// The student or ensemble that belongs to this variant only, and the step that makes it.
    fn own(&mut self, cell: &Planned, run: usize, needs: &[usize]) -> Option<(String, usize)> {
        let program = cell.variant.program()?;
        let name = format!("{}-{}-{}", cell.variant.model(), cell.variant.name, cell.seed);
        let mut arguments = self.arguments(cell.dataset, run, &cell.overrides, cell.seed);
        arguments.extend(["--name".to_owned(), name.clone()]);
        let (dataset, needs) = (cell.dataset.name.clone(), needs.to_vec());
        let step = Step { program, run, dataset, outputs: vec![name.clone()], arguments, needs };
        Some((name, self.push(step)))
    }

    /// Plans one evaluation of all models for every run of a dataset, after all other steps.
    fn evaluations(&mut self, dataset: &Dataset) {
        for run in 0..self.grid.runs.len() {
            let mut cells = self.grid.cells.iter();
            let cell = cells.find(|cell| cell.run == run && cell.dataset == dataset.name);
            let Some(seed) = cell.map(|cell| self.seed_of(Level::SoftLabels, cell.seed)) else { continue };
            let arguments = self.arguments(dataset, run, &Overrides::default(), seed);
            // The evaluation ranks all models that exist when it starts.
            let (dataset, outputs) = (dataset.name.clone(), vec!["evaluation".to_owned()]);
            self.push(Step { program: EVALUATE, run, dataset, outputs, arguments, needs: Vec::new() });
        }
    }

    fn push(&mut self, step: Step) -> usize {
        self.grid.steps.push(step);
        self.grid.steps.len() - 1
    }

    fn arguments(&self, dataset: &Dataset, run: usize, overrides: &Overrides, seed: u64) -> Vec<String> {
        let mut arguments = options("--run", [shown(&self.grid.runs[run].root)]);
        arguments.extend(options("--recipe", dataset.recipe.iter().map(shown)));
        arguments.extend(options("--set", overrides.sets()));
        arguments.extend(options("--seed", [seed.to_string()]));
        arguments.extend(options("--threads", self.places.threads.iter().map(usize::to_string)));
        arguments
    }
}

/// The option, repeated before each of its values.
fn options(option: &str, values: impl IntoIterator<Item = String>) -> Vec<String> {
    values.into_iter().flat_map(|value| [option.to_owned(), value]).collect()
}

fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

/// Refuses to measure a teacher that the recipe has no features for.
fn require_model(variant: &Variant, recipe: &Recipe) -> Result<()> {
    let model = variant.model();
    let modality = model.parse::<Modality>().ok();
    let is_known = modality.is_some_and(|of| of.is_structural() || recipe.features.contains_key(&of));
    if variant.program().is_some() || model == AVERAGE || is_known {
        return Ok(());
    }
    Err(in_variant(Error::usage(format!("`{model}` is no model of the recipe")), variant))
}

fn in_variant(error: Error, variant: &Variant) -> Error {
    let usual = match error.kind() {
        Kind::Missing => "see `recipe` of this dataset",
        _ => "see `set` and `model` of this variant",
    };
    let hint = error.hint_text().unwrap_or(usual);
    Error::new(error.kind(), format!("variant `{}`: {error}", variant.name)).hint(hint)
}

#[cfg(test)]
mod tests;
