//! `stage.json`: what a stage did, from what, and whether that still holds.
//!
//! The file is removed before a stage starts writing and written after its last output, so its presence means
//! that the folder is whole. Files ending in `.jsonl` are logs: kept, not digested, because they hold wall-clock
//! times while outputs must be the same bytes for the same inputs and seed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::Metadata;
use std::path::Path;

use crate::files::{digest, read_json};
use crate::{Error, Result};

/// The name of the manifest in every stage's folder.
pub const FILE: &str = "stage.json";
/// Marks a folder whose stage has begun and not ended; holds what it was asked for, and a lock while it runs.
pub(crate) const INCOMPLETE: &str = "incomplete.json";
/// Saved state of unfinished work; removed when the stage ends.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Version of the layout of the run directory and of this file.
pub(crate) const FORMAT: u32 = 1;

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

impl FileRecord {
    /// Refuses the file at `path` if it has not the bytes that `program` wrote.
    ///
    /// # Errors
    /// [`crate::Kind::Data`] if its digest is another one.
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
        if manifest.format <= FORMAT {
            return Ok(manifest);
        }
        let message = format!("format {} is newer than this program's {FORMAT}", manifest.format);
        let hint = "update the program, or rerun the stage with this one";
        Err(Error::data(message).at(path).hint(hint))
    }

    /// A field of the summary, of the stage in `folder`.
    pub fn summary_field<T: DeserializeOwned>(&self, folder: &Path, name: &str) -> Result<T> {
        serde_json::from_value(self.summary[name].clone()).map_err(|e| {
            let error = Error::data(format!("the summary's `{name}` is not readable")).at(folder.join(FILE));
            error.hint(format!("rerun `{}` with --force", self.program)).because(e)
        })
    }

    /// The outputs in `folder` that are not as they were written, in words.
    pub fn damages(&self, folder: &Path) -> impl Iterator<Item = String> {
        let outputs = self.outputs.iter().map(|record| self.output(folder, &record.path));
        outputs.filter_map(|output| output.err().map(|error| format!("output {error}")))
    }

    /// The record of an output, checked against the file that is there: by its size, and by its digest where the file
    /// was touched after the stage had finished.
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

/// The version of the programs with the source revision they were built from.
pub fn version() -> String {
    match env!("DSOM_REVISION") {
        "" => env!("CARGO_PKG_VERSION").to_owned(),
        revision => format!("{} ({revision})", env!("CARGO_PKG_VERSION")),
    }
}
