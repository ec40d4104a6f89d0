//! `stage.json`: the record of a stage's work and inputs, and the checks that the record still holds.
//!
//! A stage removes the file before it starts writing and writes it after its last output, so the file's presence means
//! that the folder is complete. Files ending in `.jsonl` are logs. They are kept but not digested: they hold wall-clock
//! times, while outputs must have the same bytes for the same inputs and seed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::Metadata;
use std::path::Path;

use crate::files::{digest, read_json};
use crate::{Error, Result};

/// The name of the manifest in every stage's folder.
pub const FILE: &str = "stage.json";
/// Marks a folder whose stage has begun and not ended; holds the task, and a lock while the stage runs.
pub(crate) const INCOMPLETE: &str = "incomplete.json";
/// Saved state of unfinished work; the end of the stage removes it.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Version of the layout of the run directory and of this file.
pub(crate) const FORMAT: u32 = 1;

/// One file, by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// For an input, relative to the run, or a label such as `raw/train.txt`. For an output, relative to its folder.
    pub path: String,
    /// SHA-256 as hexadecimal digits.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

impl FileRecord {
    /// Refuses the file at `path` if its bytes differ from those that `program` wrote.
    ///
    /// # Errors
    /// [`crate::Kind::Data`] if the digests differ.
    pub(crate) fn require(&self, path: &Path, program: &str) -> Result<()> {
        let (sha256, _) = digest(path)?;
        if sha256 == self.sha256 {
            return Ok(());
        }
        let message = format!("changed since `{program}` wrote it: its digest is not the one in {FILE}");
        Err(Error::data(message).at(path).hint(format!("rerun `{program}` with --force")))
    }
}

/// The content of `stage.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file's layout.
    pub format: u32,
    /// The program that wrote the folder.
    pub program: String,
    /// The program's version and source revision.
    pub version: String,
    /// Everything in the recipe that the outputs depend on.
    pub parameters: Value,
    /// The run's seed.
    pub seed: u64,
    /// The files that the stage read.
    pub inputs: Vec<FileRecord>,
    /// The files that the stage wrote.
    pub outputs: Vec<FileRecord>,
    /// Start, RFC 3339.
    pub started: String,
    /// End, RFC 3339.
    pub finished: String,
    /// Seconds between start and end of the process that finished the stage (interrupted starts are not counted).
    pub wall_seconds: f64,
    /// The largest resident memory of the process, where the system reports it.
    pub peak_memory_bytes: Option<u64>,
    /// Worker threads; the outputs do not depend on them.
    pub threads: usize,
    /// Counts and figures worth knowing without opening the outputs.
    pub summary: Value,
}

impl Manifest {
    /// Reads the manifest of a stage's `folder`; [`crate::Kind::Missing`] if that stage has not finished.
    pub fn read(folder: &Path) -> Result<Manifest> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Err(Error::missing(format!("no {FILE}: this stage has not finished"))
                .at(folder)
                .hint(format!("run `{}` first", program_of(folder))));
        }
        let manifest: Manifest = read_json(&path)?;
        if manifest.format <= FORMAT {
            return Ok(manifest);
        }
        let message = format!("format {} is newer than this program's {FORMAT}", manifest.format);
        let hint = "update the program, or rerun the stage with this one";
        Err(Error::data(message).at(path).hint(hint))
    }

    /// Reads the field `name` of the summary; errors name the stage's `folder`.
    pub fn summary_field<T: DeserializeOwned>(&self, folder: &Path, name: &str) -> Result<T> {
        serde_json::from_value(self.summary[name].clone()).map_err(|e| {
            let error = Error::data(format!("the summary's `{name}` is not readable")).at(folder.join(FILE));
            error.hint(format!("rerun `{}` with --force", self.program)).because(e)
        })
    }

    /// Messages about the outputs in `folder` that differ from their records.
    pub fn damages(&self, folder: &Path) -> impl Iterator<Item = String> {
        let outputs = self.outputs.iter().map(|record| self.output(folder, &record.path));
        outputs.filter_map(|output| output.err().map(|error| format!("output {error}")))
    }

    /// The record of an output, checked against the file: by its size, and by its digest if the file was modified after
    /// the stage had finished.
    pub(crate) fn output(&self, folder: &Path, name: &str) -> Result<&FileRecord> {
        let path = folder.join(name);
        let Some(record) = self.outputs.iter().find(|record| record.path == name) else {
            return Err(Error::missing(format!("not among the outputs that {FILE} lists")).at(path));
        };
        let (file, manifest) = (metadata(&path)?, metadata(&folder.join(FILE))?);
        if file.len() != record.bytes {
            let (size, expected) = (file.len(), record.bytes);
            let message = format!("{size} bytes, but {FILE} says {expected}: truncated or changed");
            return Err(Error::data(message).at(path).hint(format!("rerun `{}` with --force", self.program)));
        }
        if file.modified().ok() > manifest.modified().ok() {
            record.require(&path, &self.program)?;
        }
        Ok(record)
    }
}

fn metadata(path: &Path) -> Result<Metadata> {
    std::fs::metadata(path).map_err(|e| Error::io(path, e))
}

fn program_of(folder: &Path) -> &'static str {
    let parts: Vec<&str> = folder.iter().rev().take(2).filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        ["graph", ..] => "dsom-import",
        [_, "features"] => "dsom-features",
        [_, "teachers"] => "dsom-teachers",
        ["soft-labels", ..] => "dsom-soft-labels",
        ["evaluation", ..] => "dsom-evaluate",
        [name, ..] if name.starts_with("ensemble") => "dsom-ensemble",
        _ => "dsom-distill",
    }
}

/// Checks every output of a finished stage against its digest.
pub fn verify(folder: &Path) -> Result<Manifest> {
    let manifest = Manifest::read(folder)?;
    for record in &manifest.outputs {
        manifest.output(folder, &record.path)?;
        record.require(&folder.join(&record.path), &manifest.program)?;
    }
    Ok(manifest)
}

/// The version of the programs, with the source revision that they were built from.
pub fn version() -> String {
    match env!("DSOM_REVISION") {
        "" => env!("CARGO_PKG_VERSION").to_owned(),
        revision => format!("{} ({revision})", env!("CARGO_PKG_VERSION")),
    }
}
