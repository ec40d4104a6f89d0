//! The plan of an experiment: cells, runs, and the stages that several cells share.
//!
//! A run is one directory as every pipeline has it, for one dataset, one seed of its shared stages and one set of keys
//! up to the soft labels. The students of all variants that agree on these lie in it side by side. Where two runs agree
//! on the first stages only, the second has symbolic links to the first one's folders: stages find each other by
//! digests, relative to the run, so a linked folder is as good as one of its own, and nothing is done or stored twice.

use dsom_evaluate::models::AVERAGE;
use recipe::{Recipe, Term};
use stage::{Error, Modality, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::overrides::{Level, Overrides};
use crate::spec::{Dataset, STUDENT, Spec, Variant, VariesFrom};

/// Sources and targets of files, and the part of the experiment to run, from the command line.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The experiment's directory.
    pub out: PathBuf,
    /// Raw folders by dataset, over those of the experiment.
    pub data: BTreeMap<String, PathBuf>,
    /// The text encoder, for recipes that name none.
    pub text_model: Option<PathBuf>,
    /// Only these datasets; empty means all.
    pub only: Vec<String>,
    /// Only these variants and sweeps; empty means all.
    pub only_variants: Vec<String>,
    /// Only these seeds; empty means all.
    pub only_seeds: Vec<u64>,
    /// Worker threads of every stage.
    pub threads: Option<usize>,
}

/// Plan of everything there is to do.
#[derive(Debug, Default)]
pub struct Grid {
    /// The runs.
    pub runs: Vec<RunPlan>,
    /// Calls of programs, in order; a step needs earlier ones alone.
    pub steps: Vec<Step>,
    /// Models that become figures of the table.
    pub cells: Vec<Cell>,
}

/// A directory with one pipeline.
#[derive(Debug)]
pub struct RunPlan {
    /// The directory.
    pub root: PathBuf,
    /// Folders of earlier runs, by their names.
    pub links: Vec<(&'static str, PathBuf)>,
    /// The models that its evaluation ranks, with the step that each needs.
    pub models: Vec<(String, usize)>,
}

/// One call of a stage's program.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The program.
    pub program: &'static str,
    /// The number of its run.
    pub run: usize,
    /// The dataset, for estimates.
    pub dataset: String,
    /// The folder of a student or an ensemble, for estimates.
    pub folder: Option<String>,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The steps without which it cannot be.
    pub needs: Vec<usize>,
}

/// A variant of one dataset with one seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The dataset's name.
    pub dataset: String,
    /// The variant's name.
    pub variant: String,
    /// The seed.
    pub seed: u64,
    /// The number of its run.
    pub run: usize,
    /// The model there.
    pub model: String,
    /// The step that evaluates it.
    pub step: usize,
}

/// The program that ranks.
pub const EVALUATE: &str = "dsom-evaluate";

/// The stages before the students: their level, program and folder.
pub(crate) const SHARED: [(Level, &str, &str); 4] = [
    (Level::Import, "dsom-import", "graph"),
    (Level::Features, "dsom-features", "features"),
    (Level::Teachers, "dsom-teachers", "teachers"),
    (Level::SoftLabels, "dsom-soft-labels", "soft-labels"),
];

/// Number of stages of [`SHARED`] that the measured model needs: the graph, the teachers, or all.
fn depth(variant: &Variant, recipe: &Recipe) -> usize {
    match variant.model() {
        STUDENT if recipe.distill.term == Term::None => 1,
        // The average is of the soft labels' teachers.
        STUDENT | AVERAGE => 4,
        _ => 3,
    }
}

impl Grid {
    /// Plans an experiment; every cell's recipe is read, so that a misspelt key is refused before anything is run.
    pub fn plan(spec: &Spec, places: &Places) -> Result<Grid> {
        let mut planner = Planner { spec, places, grid: Grid::default(), owners: HashMap::new() };
        for dataset in chosen(spec, places)? {
            let raw = planner.raw(dataset)?;
            for &seed in &spec.seeds {
                for variant in &spec.variants() {
                    planner.variant(dataset, &raw, seed, variant)?;
                }
            }
            planner.evaluations(dataset);
        }
        Ok(planner.grid)
    }

    /// Leaves out the cells that are not of `variants` and `seeds`, and the steps that only they need. What remains lies
    /// where it lies in the whole grid.
    pub fn keep(&mut self, variants: &[String], seeds: &[u64]) {
        self.cells.retain(|cell| variants.contains(&cell.variant) && seeds.contains(&cell.seed));
        for (number, run) in self.runs.iter_mut().enumerate() {
            let here = |model: &str| self.cells.iter().any(|cell| cell.run == number && cell.model == model);
            run.models.retain(|(model, _)| here(model));
        }
        let of_models = self.runs.iter().flat_map(|run| run.models.iter().map(|(_, step)| *step));
        let mut needed: Vec<usize> = self.cells.iter().map(|cell| cell.step).chain(of_models).collect();
        needed.extend(needed.clone().iter().flat_map(|step| &self.steps[*step].needs));
        needed.sort_unstable();
        needed.dedup();
        let renumbered = |step: &mut usize| *step = needed.partition_point(|other| other < step);
        self.cells.iter_mut().for_each(|cell| renumbered(&mut cell.step));
        self.runs.iter_mut().flat_map(|run| &mut run.models).for_each(|(_, step)| renumbered(step));
        self.steps = needed.iter().map(|step| self.steps[*step].clone()).collect();
        self.steps.iter_mut().flat_map(|step| &mut step.needs).for_each(renumbered);
    }
}

/// The datasets that are asked for.
fn chosen<'a>(spec: &'a Spec, places: &Places) -> Result<Vec<&'a Dataset>> {
    let names = || spec.dataset.iter().map(|dataset| dataset.name.as_str()).collect::<Vec<_>>().join(", ");
    for asked in places.only.iter().chain(places.data.keys()) {
        if spec.dataset.iter().all(|dataset| dataset.name != *asked) {
            let error = Error::usage(format!("`{asked}` is no dataset of this experiment"));
            return Err(error.hint(format!("there are: {}", names())));
        }
    }
    let asked = |dataset: &&Dataset| places.only.is_empty() || places.only.contains(&dataset.name);
    Ok(spec.dataset.iter().filter(asked).collect())
}

struct Planner<'a> {
    spec: &'a Spec,
    places: &'a Places,
    grid: Grid,
    /// The run that does a shared stage, and the step: by dataset, seed and keys up to its level.
    owners: HashMap<(Level, String), (usize, Option<usize>)>,
}

impl Planner<'_> {
    fn raw(&self, dataset: &Dataset) -> Result<PathBuf> {
        let raw = self.places.data.get(&dataset.name).or(dataset.raw.as_ref());
        let hint =
            format!("give its raw folder with --data {0}=DIR, or leave it out with --dataset", dataset.name);
        match raw {
            Some(raw) if raw.is_dir() => Ok(raw.clone()),
            Some(raw) => {
                Err(Error::missing(format!("no raw folder of `{}`", dataset.name)).at(raw).hint(hint))
            }
            None => Err(Error::missing(format!("no raw folder of `{}` is named", dataset.name)).hint(hint)),
        }
    }

    fn variant(&mut self, dataset: &Dataset, raw: &Path, seed: u64, variant: &Variant) -> Result<()> {
        let overrides = Overrides::of([&self.spec.set, &dataset.set, &variant.set]);
        let recipe = Recipe::load(&dataset.recipe, &overrides.sets()).map_err(|e| in_variant(e, variant))?;
        self.require_model(variant, &recipe)?;
        let depth = depth(variant, &recipe);
        let run = self.run(dataset, seed, variant, &overrides);
        let mut needs = Vec::new();
        for shared in SHARED.iter().take(depth) {
            needs.extend(self.shared(dataset, raw, seed, run, shared, &overrides));
        }
        let (model, step) = self
            .own(dataset, seed, variant, run, &overrides, &needs)
            .unwrap_or_else(|| (variant.model().to_owned(), needs.last().copied().unwrap_or_default()));
        if self.grid.runs[run].models.iter().all(|(name, _)| *name != model) {
            self.grid.runs[run].models.push((model.clone(), step));
        }
        let (dataset, variant) = (dataset.name.clone(), variant.name.clone());
        self.grid.cells.push(Cell { dataset, variant, seed, run, model, step });
        Ok(())
    }

    /// A teacher that the recipe has no features for cannot be measured.
    fn require_model(&self, variant: &Variant, recipe: &Recipe) -> Result<()> {
        let model = variant.model();
        let known = |modality: Modality| modality.is_structural() || recipe.features.contains_key(&modality);
        if variant.program().is_some() || model == AVERAGE || model.parse().is_ok_and(known) {
            return Ok(());
        }
        Err(in_variant(Error::usage(format!("`{model}` is no model of the recipe")), variant))
    }

    /// The seed of a stage.
    fn seed_of(&self, level: Level, seed: u64) -> u64 {
        let from = match self.spec.varies_from {
            VariesFrom::Import => Level::Import,
            VariesFrom::Features => Level::Features,
            VariesFrom::Teachers => Level::Teachers,
            VariesFrom::Distill => Level::Distill,
        };
        if level < from { self.spec.seeds.first().copied().unwrap_or(seed) } else { seed }
    }

    /// Key of a stage: cells with equal keys share it.
    fn identity(&self, dataset: &Dataset, seed: u64, level: Level, overrides: &Overrides) -> (Level, String) {
        let seeds: Vec<u64> = SHARED
            .iter()
            .take_while(|(above, ..)| *above <= level)
            .map(|(above, ..)| self.seed_of(*above, seed))
            .collect();
        (level, format!("{} {seeds:?} {:?}", dataset.name, overrides.up_to(level).sets()))
    }

    /// The run of a cell, made where no earlier cell has it.
    fn run(&mut self, dataset: &Dataset, seed: u64, variant: &Variant, overrides: &Overrides) -> usize {
        let identity = self.identity(dataset, seed, Level::SoftLabels, overrides);
        if let Some((run, _)) = self.owners.get(&identity) {
            return *run;
        }
        let run = self.grid.runs.len();
        let seed = self.seed_of(Level::SoftLabels, seed);
        let common = Overrides::of([&self.spec.set, &dataset.set]).up_to(Level::SoftLabels);
        let folder = match overrides.up_to(Level::SoftLabels) == common {
            true => format!("seed-{seed}"),
            false => format!("seed-{seed}-{}", variant.name),
        };
        let root = self.places.out.join(&dataset.name).join(folder);
        self.grid.runs.push(RunPlan { root, links: Vec::new(), models: Vec::new() });
        self.owners.insert(identity, (run, None));
        run
    }

    /// The step that does a shared stage for `run`, in it or in the run that it is linked from.
    fn shared(
        &mut self,
        dataset: &Dataset,
        raw: &Path,
        seed: u64,
        run: usize,
        &(level, program, folder): &(Level, &'static str, &'static str),
        overrides: &Overrides,
    ) -> Option<usize> {
        let identity = self.identity(dataset, seed, level, overrides);
        if let Some((owner, Some(step))) = self.owners.get(&identity).copied() {
            let (mine, theirs) = (self.grid.runs[run].root.clone(), self.grid.runs[owner].root.clone());
            let links = &mut self.grid.runs[run].links;
            if owner != run && links.iter().all(|(name, _)| *name != folder) {
                links.push((folder, relative(&mine, &theirs.join(folder))));
            }
            return Some(step);
        }
        let mut arguments = self.arguments(dataset, run, &overrides.up_to(level), self.seed_of(level, seed));
        match level {
            Level::Import => arguments.extend(["--raw".to_owned(), raw.display().to_string()]),
            Level::Features => {
                let model = self.places.text_model.iter();
                arguments
                    .extend(model.flat_map(|model| ["--text-model".to_owned(), model.display().to_string()]));
            }
            _ => {}
        }
        let needs = self.before(level, dataset, seed, overrides);
        let step = self.step(program, dataset, run, arguments, needs);
        self.owners.insert(identity, (run, Some(step)));
        Some(step)
    }

    /// The steps that a shared stage needs: those of the levels before it.
    fn before(&self, level: Level, dataset: &Dataset, seed: u64, overrides: &Overrides) -> Vec<usize> {
        let above = SHARED.iter().take_while(|(above, ..)| *above < level);
        let step = |(above, ..): &(Level, &str, &str)| {
            self.owners.get(&self.identity(dataset, seed, *above, overrides)).and_then(|(_, step)| *step)
        };
        above.filter_map(step).collect()
    }

    /// A student or an ensemble of the variant's own, and the step that makes it.
    fn own(
        &mut self,
        dataset: &Dataset,
        seed: u64,
        variant: &Variant,
        run: usize,
        overrides: &Overrides,
        needs: &[usize],
    ) -> Option<(String, usize)> {
        let program = variant.program()?;
        let name = format!("{}-{}-{seed}", variant.model(), variant.name);
        let mut arguments = self.arguments(dataset, run, overrides, seed);
        arguments.extend(["--name".to_owned(), name.clone()]);
        let step = self.step(program, dataset, run, arguments, needs.to_vec());
        self.grid.steps[step].folder = Some(name.clone());
        Some((name, step))
    }

    /// One evaluation for every run of a dataset, of all its models, after everything else.
    fn evaluations(&mut self, dataset: &Dataset) {
        for run in 0..self.grid.runs.len() {
            let cells = self.grid.cells.iter();
            let Some(cell) = cells.into_iter().find(|cell| cell.run == run && cell.dataset == dataset.name)
            else {
                continue;
            };
            let seed = self.seed_of(Level::SoftLabels, cell.seed);
            let arguments = self.arguments(dataset, run, &Overrides::default(), seed);
            // It ranks whatever models are there when its turn comes.
            let step = self.step(EVALUATE, dataset, run, arguments, Vec::new());
            self.grid.cells.iter_mut().filter(|cell| cell.run == run).for_each(|cell| cell.step = step);
        }
    }

    fn step(
        &mut self,
        program: &'static str,
        dataset: &Dataset,
        run: usize,
        arguments: Vec<String>,
        needs: Vec<usize>,
    ) -> usize {
        let dataset = dataset.name.clone();
        self.grid.steps.push(Step { program, run, dataset, folder: None, arguments, needs });
        self.grid.steps.len() - 1
    }

    fn arguments(&self, dataset: &Dataset, run: usize, overrides: &Overrides, seed: u64) -> Vec<String> {
        let mut arguments = vec!["--run".to_owned(), self.grid.runs[run].root.display().to_string()];
        let recipes =
            dataset.recipe.iter().flat_map(|path| ["--recipe".to_owned(), path.display().to_string()]);
        arguments.extend(recipes);
        arguments.extend(overrides.sets().into_iter().flat_map(|set| ["--set".to_owned(), set]));
        arguments.extend(["--seed".to_owned(), seed.to_string()]);
        arguments.extend(self.places.threads.iter().flat_map(|n| ["--threads".to_owned(), n.to_string()]));
        arguments
    }
}

fn in_variant(error: Error, variant: &Variant) -> Error {
    let message = format!("variant `{}`: {error}", variant.name);
    Error::usage(message)
        .hint(error.hint_text().unwrap_or("see `set` and `model` of this variant").to_owned())
}

/// `to` as seen from inside the folder `from`; both begin at the experiment's directory.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| "..");
    up.map(Path::new).chain(to.components().skip(common).map(|part| part.as_os_str().as_ref())).collect()
}

#[cfg(test)]
mod tests;
