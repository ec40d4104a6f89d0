//! `stage.json`: what a stage did, from what, and whether that still holds.
//!
//! The file is removed before a stage starts writing and written after its last output, so its presence means
//! that the folder is whole. A [`Task`] describes what is asked for; comparing it with the `stage.json` that is
//! there answers fresh, stale (and why) or incomplete. Files ending in `.jsonl` are logs: kept, not digested,
//! because they hold wall-clock times while outputs must be the same bytes for the same inputs and seed.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::files::{self, digest, read_json, write_json};
use crate::{Error, Kind, Result, Run};

/// The name of the manifest in every stage's folder.
pub const FILE: &str = "stage.json";
/// Marks a folder whose stage has begun and not ended; holds what it was asked for, and a lock while it runs.
pub const INCOMPLETE: &str = "incomplete.json";
/// Saved state of unfinished work; removed when the stage ends.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Version of the layout of the run directory and of this file.
const FORMAT: u32 = 1;

/// One file, by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Inputs: relative to the run where it lies inside, else a label such as `raw/train.txt`. Outputs: relative to the stage's folder.
    pub path: String,
    /// SHA-256 as hexadecimal digits.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// The content of `stage.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file's layout.
    pub format: u32,
    /// The program that wrote the folder.
    pub program: String,
    /// Its version and source revision.
    pub version: String,
    /// Everything in the recipe that the outputs depend on.
    pub parameters: Value,
    /// The run's seed.
    pub seed: u64,
    /// The files it read.
    pub inputs: Vec<FileRecord>,
    /// The files it wrote.
    pub outputs: Vec<FileRecord>,
    /// Start, RFC 3339.
    pub started: String,
    /// End, RFC 3339.
    pub finished: String,
    /// Seconds between start and end of the process that finished it (an interrupted start is not counted).
    pub wall_seconds: f64,
    /// The largest resident memory of the process, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Worker threads; the outputs do not depend on them.
    pub threads: usize,
    /// Counts and figures worth knowing without opening the outputs.
    pub summary: Value,
}

impl Manifest {
    /// Reads the manifest of a stage's `folder`; missing if that stage has not finished.
    pub fn read(folder: &Path) -> Result<Manifest> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Err(Error::missing(format!("no {FILE}: this stage has not finished"))
                .at(folder)
                .hint(format!("run `{}` first", program_of(folder))));
        }
        let manifest: Manifest = read_json(&path)?;
        if manifest.format > FORMAT {
            let message = format!("format {} is newer than this program's {FORMAT}", manifest.format);
            return Err(Error::data(message)
                .at(path)
                .hint("update the program, or rerun the stage with this one"));
        }
        Ok(manifest)
    }

    /// The record of an output, checked against the size of the file that is there.
    fn output(&self, folder: &Path, name: &str) -> Result<&FileRecord> {
        let path = folder.join(name);
        let record = self.outputs.iter().find(|record| record.path == name);
        let record = record
            .ok_or_else(|| Error::missing(format!("not among the outputs that {FILE} lists")).at(&path))?;
        let size = std::fs::metadata(&path).map_err(|e| Error::io(&path, e))?.len();
        if size != record.bytes {
            let message = format!("{size} bytes, but {FILE} says {}: truncated or changed", record.bytes);
            return Err(Error::data(message).at(path).hint(format!("rerun `{}` with --force", self.program)));
        }
        Ok(record)
    }
}

/// The program that writes a stage's folder.
fn program_of(folder: &Path) -> &'static str {
    let parts: Vec<&str> = folder.iter().rev().take(2).filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        ["graph", ..] => "dsom-import",
        [_, "features"] => "dsom-features",
        [_, "teachers"] => "dsom-teachers",
        ["soft-labels", ..] => "dsom-soft-labels",
        ["evaluation", ..] => "dsom-evaluate",
        _ => "dsom-distill",
    }
}

/// Checks every output of a finished stage against its digest.
pub fn verify(folder: &Path) -> Result<Manifest> {
    let manifest = Manifest::read(folder)?;
    for record in &manifest.outputs {
        manifest.output(folder, &record.path)?;
        let path = folder.join(&record.path);
        let (sha256, _) = digest(&path)?;
        if sha256 != record.sha256 {
            let message = format!("digest is {sha256}, but {FILE} says {}", record.sha256);
            return Err(Error::data(message)
                .at(path)
                .hint(format!("rerun `{}` with --force", manifest.program)));
        }
    }
    Ok(manifest)
}

/// How a folder stands to what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing is there.
    Absent,
    /// Work was begun and not finished.
    Incomplete {
        /// Whether it was asked for exactly the same, so that it can be continued.
        resumable: bool,
    },
    /// It is whole, but not what is asked for; each line is a reason.
    Stale(Vec<String>),
    /// It is what is asked for.
    Fresh,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Absent => f.write_str("absent"),
            Status::Incomplete { resumable: true } => f.write_str("incomplete: cut short, to be continued"),
            Status::Incomplete { resumable: false } => {
                f.write_str("incomplete: cut short with other parameters or inputs, to be done anew")
            }
            Status::Stale(reasons) => write!(f, "stale: {}", reasons.join("; ")),
            Status::Fresh => f.write_str("fresh"),
        }
    }
}

/// What a program is asked to do: with these parameters, from these inputs, into this folder.
#[derive(Debug)]
pub struct Task {
    run: Run,
    program: &'static str,
    folder: PathBuf,
    parameters: Value,
    seed: u64,
    inputs: Vec<FileRecord>,
}

impl Task {
    /// A task of `program` that writes `folder`. `parameters` is everything the outputs depend on beside the
    /// inputs and the seed.
    pub fn new(
        run: &Run,
        program: &'static str,
        folder: PathBuf,
        parameters: &impl Serialize,
        seed: u64,
    ) -> Self {
        let parameters = serde_json::to_value(parameters).expect("parameters are plain data");
        Task { run: run.clone(), program, folder, parameters, seed, inputs: Vec::new() }
    }

    /// Adds a file another stage wrote, by that stage's own record of it.
    pub fn stage_input(&mut self, folder: &Path, name: &str) -> Result<PathBuf> {
        let manifest = Manifest::read(folder)?;
        let record = manifest.output(folder, name)?;
        let path = folder.join(name);
        self.inputs.push(FileRecord { path: self.relative(&path), ..record.clone() });
        Ok(path)
    }

    /// Adds a file from outside the run, by its digest. It is recorded as `label` (`raw/train.txt`), so that a
    /// folder that moved is still the same input.
    pub fn external_input(&mut self, path: &Path, label: impl Into<String>) -> Result<()> {
        let (sha256, bytes) = digest(path)?;
        self.inputs.push(FileRecord { path: label.into(), sha256, bytes });
        Ok(())
    }

    /// Adds something from outside the run that is no single file, by text that changes when it does: a listing
    /// of a large folder.
    pub fn external_listing(&mut self, listing: &str, label: impl Into<String>) {
        let (sha256, bytes) = (files::digest_of(listing.as_bytes()), listing.len() as u64);
        self.inputs.push(FileRecord { path: label.into(), sha256, bytes });
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.run.root()).unwrap_or(path).to_string_lossy().into_owned()
    }

    /// The folder this task writes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How the folder stands to this task.
    pub fn status(&self) -> Result<Status> {
        if !self.folder.join(FILE).is_file() {
            let begun = self.folder.join(INCOMPLETE).is_file();
            return Ok(if begun {
                Status::Incomplete { resumable: self.is_begun() }
            } else {
                Status::Absent
            });
        }
        let there = match Manifest::read(&self.folder) {
            Ok(manifest) => manifest,
            Err(error) => return Ok(Status::Stale(vec![error.to_string()])),
        };
        let mut reasons = self.differences(&there);
        reasons.extend(there.outputs.iter().filter_map(|record| {
            there.output(&self.folder, &record.path).err().map(|error| format!("output {error}"))
        }));
        reasons.extend(self.stale_inputs());
        Ok(if reasons.is_empty() { Status::Fresh } else { Status::Stale(reasons) })
    }

    fn differences(&self, there: &Manifest) -> Vec<String> {
        let mut reasons = Vec::new();
        if there.program != self.program {
            reasons.push(format!("written by `{}`", there.program));
        }
        if there.seed != self.seed {
            reasons.push(format!("seed was {}, now {}", there.seed, self.seed));
        }
        reasons.extend(changed_parameters(&there.parameters, &self.parameters));
        reasons.extend(changed_inputs(&there.inputs, &self.inputs));
        reasons
    }

    /// Reasons why the stages that wrote our inputs are themselves stale.
    fn stale_inputs(&self) -> Vec<String> {
        stages_of(&self.run, &self.inputs)
            .into_iter()
            .filter_map(|folder| {
                let reason = upstream_change(&self.run, &folder)?;
                Some(format!("its input stage `{}` is stale: {reason}", self.relative(&folder)))
            })
            .collect()
    }

    /// Starts the work, or answers `None` if the folder is fresh and `force` is not given.
    ///
    /// Whatever the folder held is removed, except for the checkpoint of an interrupted start that was asked
    /// for exactly the same. Call it after reading and checking the inputs, so that bad input destroys nothing.
    pub fn begin(self, force: bool) -> Result<Option<Work>> {
        let status = self.status()?;
        let name = self.relative(&self.folder);
        match &status {
            Status::Fresh if !force => {
                tracing::info!("{name} is fresh");
                return Ok(None);
            }
            Status::Absent | Status::Fresh => {}
            other => tracing::info!("{name} is {other}"),
        }
        for reason in self.stale_inputs() {
            tracing::warn!("{reason}");
        }
        self.claim(force).map(Some)
    }

    /// What the marker of an unfinished start holds.
    fn identity(&self) -> Value {
        serde_json::json!({
            "program": self.program, "parameters": self.parameters, "seed": self.seed, "inputs": self.inputs,
        })
    }

    /// Whether exactly this task was begun and not finished.
    fn is_begun(&self) -> bool {
        read_json::<Value>(&self.folder.join(INCOMPLETE)).is_ok_and(|before| before == self.identity())
    }

    fn claim(self, force: bool) -> Result<Work> {
        let marker = self.folder.join(INCOMPLETE);
        let resumes = !force && self.is_begun();
        refuse_foreign(&self.folder)?;
        let lock = lock(&marker)?;
        if !resumes {
            clear(&self.folder)?;
        }
        // Written in place, not renamed, so that the lock stays with the file.
        std::fs::write(&marker, self.identity().to_string()).map_err(|e| Error::io(&marker, e))?;
        let stage_json = self.folder.join(FILE);
        if stage_json.is_file() {
            std::fs::remove_file(&stage_json).map_err(|e| Error::io(&stage_json, e))?;
        }
        let started = (Instant::now(), jiff::Timestamp::now());
        Ok(Work { task: self, started, resumes, _lock: lock })
    }
}

/// A folder that holds files but neither a manifest nor our marker is somebody else's.
fn refuse_foreign(folder: &Path) -> Result<()> {
    let ours = folder.join(FILE).is_file() || folder.join(INCOMPLETE).is_file();
    let holds_files = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if holds_files && !ours {
        return Err(Error::usage(format!("holds files, but no {FILE}: not written by this pipeline"))
            .at(folder)
            .hint("choose another --run, or remove the folder"));
    }
    Ok(())
}

fn lock(marker: &Path) -> Result<File> {
    let folder = marker.parent().expect("the marker lies in a folder");
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let file = File::options().create(true).truncate(false).write(true).open(marker);
    let file = file.map_err(|e| Error::io(marker, e))?;
    if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
        return Err(Error::new(Kind::Io, "another process is writing this folder").at(folder));
    }
    Ok(file)
}

/// Removes everything in the folder but the marker.
fn clear(folder: &Path) -> Result<()> {
    // The manifest goes first: from then on nothing in the folder passes for whole.
    let mut paths = vec![folder.join(FILE)];
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    paths.extend(entries.flatten().map(|entry| entry.path()).filter(|path| !path.ends_with(INCOMPLETE)));
    for path in paths {
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(path, e)),
            _ => {}
        }
    }
    Ok(())
}

/// The stage folders inside the run that hold any of `inputs`.
fn stages_of(run: &Run, inputs: &[FileRecord]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = inputs
        .iter()
        .map(|record| run.root().join(&record.path))
        .filter_map(|path| Some(path.parent()?.to_owned()))
        .filter(|folder| folder.starts_with(run.root()) && folder.join(FILE).is_file())
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

/// Why a finished stage no longer matches the stages it read from, if so; looks all the way up.
fn upstream_change(run: &Run, folder: &Path) -> Option<String> {
    let manifest = Manifest::read(folder).ok()?;
    for record in &manifest.inputs {
        let path = run.root().join(&record.path);
        let above = path.parent()?;
        let (Ok(current), Some(name)) = (Manifest::read(above), path.file_name()) else { continue };
        match current.outputs.iter().find(|output| *output.path == *name.to_string_lossy()) {
            Some(output) if output.sha256 == record.sha256 => {}
            _ => return Some(format!("its input `{}` changed", record.path)),
        }
    }
    stages_of(run, &manifest.inputs).iter().find_map(|above| {
        let name = above.strip_prefix(run.root()).unwrap_or(above).display();
        upstream_change(run, above).map(|reason| format!("`{name}` is stale: {reason}"))
    })
}

fn changed_inputs(before: &[FileRecord], now: &[FileRecord]) -> Vec<String> {
    let by_path = |records: &[FileRecord]| -> BTreeMap<String, String> {
        records.iter().map(|record| (record.path.clone(), record.sha256.clone())).collect()
    };
    let (before, now) = (by_path(before), by_path(now));
    let changed = now.iter().filter_map(|(path, sha256)| match before.get(path) {
        None => Some(format!("input `{path}` is new")),
        Some(was) if was != sha256 => Some(format!("input `{path}` changed")),
        Some(_) => None,
    });
    let gone =
        before.keys().filter(|path| !now.contains_key(*path)).map(|path| format!("input `{path}` is gone"));
    changed.chain(gone).collect()
}

fn changed_parameters(before: &Value, now: &Value) -> Vec<String> {
    let (before, now) = (flatten(before), flatten(now));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let show = |value: Option<&Value>| value.map_or("unset".to_owned(), Value::to_string);
    names
        .into_iter()
        .filter(|name| before.get(*name) != now.get(*name))
        .map(|name| format!("parameter `{name}` was {}, now {}", show(before.get(name)), show(now.get(name))))
        .collect()
}

/// `{"a": {"b": 1}}` as `{"a.b": 1}`.
fn flatten(value: &Value) -> BTreeMap<String, Value> {
    fn walk(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                walk(&path, value, into);
            }),
            Value::Null => {}
            other => {
                into.insert(prefix.to_owned(), other.clone());
            }
        }
    }
    let mut flat = BTreeMap::new();
    walk("", value, &mut flat);
    flat
}

/// A stage at work on its folder.
pub struct Work {
    task: Task,
    started: (Instant, jiff::Timestamp),
    resumes: bool,
    _lock: File,
}

impl Work {
    /// The path of a file in the stage's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.task.folder.join(name)
    }

    /// The checkpoint of an interrupted start that was asked for exactly the same, if there is one.
    pub fn checkpoint(&self) -> Option<PathBuf> {
        Some(self.path(CHECKPOINT)).filter(|path| self.resumes && path.is_file())
    }

    /// Whether this continues an interrupted start that was asked for exactly the same.
    pub fn resumes(&self) -> bool {
        self.resumes
    }

    /// Ends the stage: removes the checkpoint, digests the outputs, writes `stage.json` last.
    pub fn finish(self, summary: Value) -> Result<Manifest> {
        let folder = &self.task.folder;
        let checkpoint = folder.join(CHECKPOINT);
        if checkpoint.is_file() {
            std::fs::remove_file(&checkpoint).map_err(|e| Error::io(&checkpoint, e))?;
        }
        let mut outputs = Vec::new();
        collect_outputs(folder, folder, &mut outputs)?;
        outputs.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Manifest {
            format: FORMAT,
            program: self.task.program.to_owned(),
            version: version(),
            parameters: self.task.parameters.clone(),
            seed: self.task.seed,
            inputs: self.task.inputs.clone(),
            outputs,
            started: self.started.1.to_string(),
            finished: jiff::Timestamp::now().to_string(),
            wall_seconds: (self.started.0.elapsed().as_secs_f64() * 1e3).round() / 1e3,
            peak_memory_bytes: crate::resources::peak_memory(),
            threads: rayon::current_num_threads(),
            summary,
        };
        write_json(&folder.join(FILE), &manifest)?;
        let marker = folder.join(INCOMPLETE);
        std::fs::remove_file(&marker).map_err(|e| Error::io(&marker, e))?;
        Ok(manifest)
    }
}

/// The version of the programs with the source revision they were built from.
pub fn version() -> String {
    match env!("DSOM_REVISION") {
        "" => env!("CARGO_PKG_VERSION").to_owned(),
        revision => format!("{} ({revision})", env!("CARGO_PKG_VERSION")),
    }
}

fn collect_outputs(root: &Path, folder: &Path, into: &mut Vec<FileRecord>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        if path.is_dir() {
            collect_outputs(root, &path, into)?;
        } else if name != INCOMPLETE && !name.ends_with(".jsonl") && !name.ends_with(".tmp") {
            let (sha256, bytes) = files::digest(&path)?;
            into.push(FileRecord { path: name, sha256, bytes });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Fixture {
        dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let fixture = Fixture { dir: tempfile::tempdir().unwrap() };
            std::fs::write(fixture.dir.path().join("raw.txt"), "raw").unwrap();
            fixture
        }

        fn run(&self) -> Run {
            Run::new(self.dir.path().join("run"))
        }

        fn import(&self, parameter: u32) -> Task {
            let parameters = json!({ "deep": { "parameter": parameter } });
            let mut task = Task::new(&self.run(), "dsom-import", self.run().graph(), &parameters, 1);
            task.external_input(&self.dir.path().join("raw.txt"), "raw/raw.txt").unwrap();
            task
        }

        fn soft_labels(&self) -> Task {
            let mut task =
                Task::new(&self.run(), "dsom-soft-labels", self.run().soft_labels(), &json!({}), 1);
            task.stage_input(&self.run().graph(), "out").unwrap();
            task
        }

        fn distill(&self) -> Task {
            let mut task =
                Task::new(&self.run(), "dsom-distill", self.run().student("student"), &json!({}), 1);
            task.stage_input(&self.run().soft_labels(), "out").unwrap();
            task
        }
    }

    fn finish(task: Task, content: &str) {
        let work = task.begin(false).unwrap().expect("there is work to do");
        std::fs::write(work.path("out"), content).unwrap();
        work.finish(json!({})).unwrap();
    }

    #[test]
    fn a_finished_stage_is_fresh_until_a_parameter_changes() {
        let fixture = Fixture::new();
        assert_eq!(fixture.import(1).status().unwrap(), Status::Absent);
        finish(fixture.import(1), "a");
        assert_eq!(fixture.import(1).status().unwrap(), Status::Fresh);
        assert!(fixture.import(1).begin(false).unwrap().is_none());
        let reasons = vec!["parameter `deep.parameter` was 1, now 2".to_owned()];
        assert_eq!(fixture.import(2).status().unwrap(), Status::Stale(reasons));
    }

    #[test]
    fn a_change_makes_exactly_the_later_stages_stale() {
        let fixture = Fixture::new();
        finish(fixture.import(1), "a");
        finish(fixture.soft_labels(), "b");
        finish(fixture.distill(), "c");
        finish(fixture.import(2), "changed");
        assert_eq!(fixture.import(2).status().unwrap(), Status::Fresh);
        let stale = |task: Task| match task.status().unwrap() {
            Status::Stale(reasons) => reasons.join("; "),
            other => panic!("expected stale, found {other}"),
        };
        assert_eq!(stale(fixture.soft_labels()), "input `graph/out` changed");
        assert_eq!(
            stale(fixture.distill()),
            "its input stage `soft-labels` is stale: its input `graph/out` changed"
        );
        // The same bytes as before: nothing further down has to run.
        finish(fixture.soft_labels(), "b");
        assert_eq!(fixture.distill().status().unwrap(), Status::Fresh);
    }

    #[test]
    fn a_truncated_output_is_seen() {
        let fixture = Fixture::new();
        finish(fixture.import(1), "long content");
        std::fs::write(fixture.run().graph().join("out"), "long").unwrap();
        assert!(matches!(fixture.import(1).status().unwrap(), Status::Stale(_)));
        let mut task = Task::new(&fixture.run(), "x", fixture.run().soft_labels(), &json!({}), 1);
        let error = task.stage_input(&fixture.run().graph(), "out").unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains("4 bytes, but stage.json says 12"), "{error}");
    }

    #[test]
    fn a_checkpoint_survives_only_for_the_same_task() {
        let fixture = Fixture::new();
        let work = fixture.import(1).begin(false).unwrap().unwrap();
        std::fs::write(work.path(CHECKPOINT), "state").unwrap();
        drop(work);
        assert_eq!(fixture.import(1).status().unwrap(), Status::Incomplete { resumable: true });
        assert_eq!(fixture.import(2).status().unwrap(), Status::Incomplete { resumable: false });
        let same = fixture.import(1).begin(false).unwrap().unwrap();
        assert!(same.checkpoint().is_some());
        drop(same);
        let other = fixture.import(2).begin(false).unwrap().unwrap();
        assert!(other.checkpoint().is_none() && !other.path(CHECKPOINT).exists());
    }

    #[test]
    fn two_processes_cannot_write_one_folder() {
        let fixture = Fixture::new();
        let _first = fixture.import(1).begin(false).unwrap().unwrap();
        let second = fixture.import(1).begin(false);
        assert!(second.is_err_and(|e| e.to_string().contains("another process")));
    }

    #[test]
    fn a_foreign_folder_is_not_touched() {
        let fixture = Fixture::new();
        std::fs::create_dir_all(fixture.run().graph()).unwrap();
        std::fs::write(fixture.run().graph().join("thesis.tex"), "dear").unwrap();
        assert!(fixture.import(1).begin(true).is_err_and(|e| e.kind() == Kind::Usage));
        assert!(fixture.run().graph().join("thesis.tex").is_file());
    }
}
