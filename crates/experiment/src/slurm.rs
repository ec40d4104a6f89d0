//! Submission to Slurm: a script of `sbatch` calls, one for each unfinished job.

use program::print_line;
use stage::files::read_text;
use stage::{Error, Kind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use toml::{Table, Value};

use crate::estimate::is_fresh;
use crate::jobs::{BatchJob, TABLES, with};
use crate::overrides::quoted;

/// The tables of a profile: the options of all jobs, and the options of each stage's jobs.
const SECTIONS: [&str; 8] =
    ["default", "import", "features", "teachers", "soft-labels", "distill", "ensemble", TABLES];
/// The stages whose work a job array can share.
pub(crate) const ARRAYS: [&str; 2] = ["features", "soft-labels"];
/// The options that this program sets itself.
const DECIDED: [&str; 7] = ["comment", "dependency", "job-name", "output", "parsable", "test-only", "wrap"];
/// The body of every script, after its first lines.
const SCRIPT: &str = include_str!("submit.sh");

/// The options of `sbatch` by stage, as `pipelines/slurm.toml` explains them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile(BTreeMap<String, Table>);

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the file is not a profile, or names an unknown stage or a forbidden option.
    pub(crate) fn read(path: &Path) -> Result<Profile> {
        let text = read_text(path)?;
        let tables: BTreeMap<String, Table> =
            toml::from_str(&text).map_err(|e| Error::usage(e.message()).at(path))?;
        match tables.iter().find_map(|(section, table)| problem(section, table)) {
            None => Ok(Profile(tables)),
            Some(problem) => {
                Err(Error::usage(problem).at(path).hint("pipelines/slurm.toml explains a profile"))
            }
        }
    }

    pub(crate) fn without_arrays(mut self) -> Profile {
        self.0.values_mut().for_each(|table| drop(table.remove("array")));
        self
    }

    pub(crate) fn of(&self, stage: &str) -> Table {
        let tables = ["default", stage].into_iter().filter_map(|section| self.0.get(section));
        tables.flat_map(|table| table.clone()).collect()
    }
}

/// The error in a table of a profile, if there is one.
fn problem(section: &str, table: &Table) -> Option<String> {
    if !SECTIONS.contains(&section) {
        return Some(format!("[{section}] is none of {}", SECTIONS.join(", ")));
    }
    table.iter().find_map(|(key, value)| {
        let is_array = key == "array";
        if DECIDED.contains(&key.as_str()) || (is_array && !ARRAYS.contains(&section)) {
            return Some(format!("[{section}] cannot have `{key}`"));
        }
        if is_array && value.as_str().and_then(shards_of).is_none() {
            return Some(format!("`array` is \"1-N\" or \"1-N%AT_ONCE\", not {value}"));
        }
        let is_option = value.is_str() || value.is_integer() || value.is_bool();
        (!is_option).then(|| format!("[{section}] `{key}` is no text, whole number, true or false"))
    })
}

/// The number of shards in the text of an array: `1-8`, `1-8%2`.
pub(crate) fn shards_of(array: &str) -> Option<u32> {
    let count = array.strip_prefix("1-")?.split('%').next()?;
    count.parse().ok().filter(|count| *count > 0)
}

pub(crate) fn submit(jobs: &[BatchJob], call: &[String], out: &Path) -> Result<()> {
    let script = script(jobs, call, out)?;
    let failed = |error| Error::io("bash", error);
    // The script goes through a pipe: arguments have a length limit, and the script's own commands do not read from it.
    let mut bash = Command::new("bash");
    let mut bash =
        bash.args(["-c", "eval \"$(cat)\" </dev/null"]).stdin(Stdio::piped()).spawn().map_err(failed)?;
    bash.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(script.as_bytes())).map_err(failed)?;
    match bash.wait().map_err(failed)?.code() {
        Some(0) => Ok(()),
        code => Err(Error::new(Kind::of_exit_code(code.unwrap_or(1)), "not all could be submitted")
            .hint("the same call again submits what is missing")),
    }
}

pub(crate) fn dry_run(jobs: &[BatchJob], call: &[String], out: &Path) -> Result<()> {
    script(jobs, call, out).and_then(|script| print_line(&script))
}

fn script(jobs: &[BatchJob], call: &[String], out: &Path) -> Result<String> {
    let here = std::env::current_dir().map_err(|e| Error::io(".", e))?;
    let plan = out.join("plan.json").display().to_string();
    // The path has no slash at its end: its last part is the jobs' name.
    let out: PathBuf = here.join(out).components().collect();
    let head = [
        "#!/usr/bin/env bash\nset -euo pipefail".to_owned(),
        format!("cd {}", quoted(&here.display().to_string())),
        format!("out={}", quoted(&out.display().to_string())),
        format!("plan=({})\n{SCRIPT}", words(&with(call, ["--plan", &plan]))),
    ];
    let open = open(jobs)?;
    let checks: BTreeSet<String> = open.iter().map(|job| format!("check {}", words(&options(job)))).collect();
    let calls = open.iter().map(|job| submission(job));
    Ok(head.into_iter().chain(checks).chain(calls).collect::<Vec<_>>().join("\n"))
}

/// The unfinished jobs: those that are not fresh, and those that wait for an unfinished job.
fn open(jobs: &[BatchJob]) -> Result<Vec<&BatchJob>> {
    let mut open: Vec<&BatchJob> = Vec::new();
    for job in jobs {
        let mut names = job.needs.iter().chain(&job.after);
        let waits = names.any(|name| open.iter().any(|other| other.name == *name));
        if waits || job.name == TABLES || !is_fresh(&job.command)? {
            open.push(job);
        }
    }
    Ok(open)
}

fn submission(job: &BatchJob) -> String {
    let mut before = Vec::new();
    for (word, names) in [("needs", &job.needs), ("after", &job.after)] {
        before.extend((!names.is_empty()).then(|| format!("--{word}={}", names.join(" "))));
    }
    let setup = job.resources.get("setup").and_then(Value::as_str);
    before.extend(setup.map(|setup| format!("--setup={setup}")));
    before.extend(options(job));
    format!("submit {} {} -- {}", job.name, words(&before), words(&job.command))
}

/// The `sbatch` options of a job; `false` leaves out an option that all other jobs have.
fn options(job: &BatchJob) -> Vec<String> {
    let options = job.resources.iter().filter(|(key, _)| *key != "setup");
    let options = options.filter_map(|(key, value)| match value {
        Value::Boolean(false) => None,
        Value::Boolean(true) => Some(format!("--{key}")),
        Value::String(text) => Some(format!("--{key}={text}")),
        other => Some(format!("--{key}={other}")),
    });
    options.collect()
}

fn words(arguments: &[String]) -> String {
    arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
