//! The steps as jobs that run anywhere, each after the jobs that it needs: for Slurm, and as JSON for other engines.

use serde::Serialize;
use stage::Result;
use stage::files::write_json;
use stage::manifest::FILE;
use std::path::{Path, PathBuf};
use toml::Table;

use crate::execute::Programs;
use crate::grid::{EVALUATE, Grid, Step};
use crate::record;
use crate::slurm::{ARRAYS, Profile, shards_of};

/// The name of the job that evaluates and tabulates the successful steps.
pub(crate) const TABLES: &str = "tables";

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct BatchJob {
    /// The job's folder below the experiment's directory, or [`TABLES`].
    pub name: String,
    /// The program without `dsom-`, or [`TABLES`]; it names a table of the profile.
    pub stage: &'static str,
    pub command: Vec<String>,
    /// The jobs that must have succeeded.
    pub needs: Vec<String>,
    /// The jobs that must have ended, successfully or not.
    pub after: Vec<String>,
    /// The files whose presence shows that the job's inputs are finished.
    pub inputs: Vec<PathBuf>,
    /// The files that the job writes last; none if other jobs write them, and this job only does the rest.
    pub outputs: Vec<PathBuf>,
    /// The options of `sbatch`, from the profile.
    pub resources: Table,
}

/// The jobs of an experiment, needed jobs first, the tables last; `call` is the command that names the experiment.
pub(crate) fn jobs(
    grid: &Grid,
    call: &[String],
    out: &Path,
    programs: &Programs,
    profile: &Profile,
) -> Vec<BatchJob> {
    // The last job evaluates: only it knows which models exist.
    let steps = grid.steps.iter().filter(|step| step.program != EVALUATE);
    let mut jobs: Vec<BatchJob> =
        steps.flat_map(|step| parts(of_step(grid, out, programs, profile, step))).collect();
    jobs.push(tables(&jobs, call, out, profile));
    jobs
}

fn tables(jobs: &[BatchJob], call: &[String], out: &Path, profile: &Profile) -> BatchJob {
    BatchJob {
        name: TABLES.to_owned(),
        stage: TABLES,
        command: with(call, ["--finished", "--report"]),
        needs: Vec::new(),
        after: jobs.iter().map(|job| job.name.clone()).collect(),
        inputs: jobs.iter().flat_map(|job| job.outputs.clone()).collect(),
        outputs: vec![out.join(record::FILE)],
        resources: profile.of(TABLES),
    }
}

pub(crate) fn with<const N: usize>(command: &[String], more: [&str; N]) -> Vec<String> {
    command.iter().cloned().chain(more.map(str::to_owned)).collect()
}

/// Writes the jobs for other engines, and makes the runs' folders with the links that the jobs need.
pub(crate) fn write_plan(grid: &Grid, jobs: &[BatchJob], to: &Path) -> Result<()> {
    grid.runs.iter().try_for_each(|run| run.link())?;
    write_json(to, &serde_json::json!({ "format": 1, "steps": jobs }))
}

fn of_step(grid: &Grid, out: &Path, programs: &Programs, profile: &Profile, step: &Step) -> BatchJob {
    let stage = step.program.trim_start_matches("dsom-");
    let needs = || step.needs.iter().map(|need| &grid.steps[*need]);
    BatchJob {
        name: name(grid, out, step),
        stage,
        command: programs.words(step.program).into_iter().chain(step.arguments.iter().cloned()).collect(),
        needs: needs().map(|need| name(grid, out, need)).collect(),
        after: Vec::new(),
        inputs: needs().flat_map(|need| outputs(grid, need)).collect(),
        outputs: outputs(grid, step).collect(),
        resources: profile.of(stage),
    }
}

/// The name of a step's job, such as `nations/seed-0/teachers`.
fn name(grid: &Grid, out: &Path, step: &Step) -> String {
    let run = &grid.runs[step.run].root;
    let folder = step.outputs.first().and_then(|output| output.split('/').next());
    // A recipe without features has a step without outputs.
    let folder = folder.unwrap_or(step.program);
    run.strip_prefix(out).unwrap_or(run).join(folder).display().to_string()
}

fn outputs<'a>(grid: &'a Grid, step: &'a Step) -> impl Iterator<Item = PathBuf> + 'a {
    let run = &grid.runs[step.run].root;
    step.outputs.iter().map(move |output| run.join(output).join(FILE))
}

/// Splits a job into parts that can run at the same time.
fn parts(job: BatchJob) -> Vec<BatchJob> {
    match job.stage {
        "teachers" => by_modality(job),
        stage if ARRAYS.contains(&stage) => by_shard(job),
        _ => vec![job],
    }
}

/// One job for each teacher, and one that trains the teachers of the recipe's other features.
fn by_modality(mut rest: BatchJob) -> Vec<BatchJob> {
    let mut jobs = Vec::new();
    for output in std::mem::take(&mut rest.outputs) {
        let modality = output.parent().and_then(Path::file_name).unwrap_or_default().display().to_string();
        let command = with(&rest.command, ["--modality", &modality]);
        let name = format!("{}/{modality}", rest.name);
        jobs.push(BatchJob { name, command, outputs: vec![output], ..rest.clone() });
    }
    rest.after.extend(jobs.iter().map(|job| job.name.clone()));
    jobs.push(rest);
    jobs
}

/// A job array of shards and the job that merges them, if the profile has `array = "1-N"`; else the job itself.
fn by_shard(mut merge: BatchJob) -> Vec<BatchJob> {
    let Some(array) = merge.resources.remove("array") else { return vec![merge] };
    let mut shards = BatchJob { name: format!("{}.shards", merge.name), ..merge.clone() };
    shards.outputs.clear();
    merge.needs.push(shards.name.clone());
    let count = array.as_str().and_then(shards_of).unwrap_or_default().to_string();
    merge.command = with(&merge.command, ["--merge", &count]);
    shards.resources.insert("array".to_owned(), array);
    vec![shards, merge]
}
