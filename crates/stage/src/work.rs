//! A stage at work on its folder: it claims the folder at the beginning and completes the folder at the end.

use serde_json::Value;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::files::{self, write_json};
use crate::manifest::{CHECKPOINT, FILE, FORMAT, FileRecord, INCOMPLETE, Manifest, version};
use crate::task::{Status, Task};
use crate::{Error, Kind, Result};

/// A stage at work on its folder.
pub struct Work {
    task: Task,
    started: (Instant, String),
    /// True if this work continues an interrupted start of the same task.
    pub(crate) resumes: bool,
    _lock: File,
}

/// The list of finished files while the work is unfinished, one record a line; the end of the stage removes it.
const KEPT: &str = "kept.tmp";
/// Names the process that works on the folder, for a second process to report; the end of the stage removes it.
const HOLDER: &str = "holder.tmp";

/// The time in RFC 3339, to the microsecond.
fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

impl Work {
    /// Claims the folder of `task`: from here on, no process takes its content for complete. None if another process
    /// has finished the same work in the meantime.
    pub(crate) fn claim(task: Task, force: bool) -> Result<Option<Work>> {
        let marker = task.folder.join(INCOMPLETE);
        refuse_foreign(&task.folder)?;
        let lock = lock(&marker)?;
        if !force && task.status() == Status::Fresh {
            remove(&marker)?;
            return Ok(None);
        }
        let resumes = !force && task.is_begun() && !task.folder.join(FILE).is_file();
        if resumes {
            files::sweep(&task.folder)?;
        } else {
            clear(&task.folder)?;
            // The marker is written in place and not renamed, because the lock belongs to this file.
            std::fs::write(&marker, task.identity().to_string()).map_err(|e| Error::io(&marker, e))?;
        }
        let started = (Instant::now(), now());
        let holder = format!("process {} since {}", std::process::id(), started.1);
        files::write_bytes(&task.folder.join(HOLDER), holder.as_bytes())?;
        Ok(Some(Work { task, started, resumes, _lock: lock }))
    }

    /// Records that the file `name` is finished. [`Work::keeps`] uses the record to detect later damage.
    ///
    /// # Errors
    /// If the file cannot be read or the record cannot be written.
    pub fn keep(&self, name: &str) -> Result<()> {
        let (sha256, bytes) = files::digest(&self.path(name))?;
        let record = FileRecord { path: name.to_owned(), sha256, bytes };
        let line = serde_json::json!(record).to_string() + "\n";
        let path = self.path(KEPT);
        let file = File::options().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|e| Error::io(&path, e))
    }

    /// Tells whether an interrupted start of the same task finished the file `name` and the file is unchanged.
    pub fn keeps(&self, name: &str) -> bool {
        let records = std::fs::read_to_string(self.path(KEPT)).unwrap_or_default();
        let records = records.lines().filter_map(|line| serde_json::from_str::<FileRecord>(line).ok());
        let mut records = records.filter(|record| record.path == name);
        self.resumes && records.any(|record| record.require(&self.path(name), self.task.program).is_ok())
    }

    /// The path of a file in the stage's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.task.folder.join(name)
    }

    /// The checkpoint of an interrupted start of the same task, if there is one.
    pub fn checkpoint(&self) -> Option<PathBuf> {
        Some(self.path(CHECKPOINT)).filter(|path| self.resumes && path.is_file())
    }

    /// Ends the stage: removes the checkpoint, digests the outputs and writes `stage.json` last.
    pub fn finish(self, summary: Value) -> Result<()> {
        let folder = &self.task.folder;
        remove(&folder.join(CHECKPOINT))?;
        files::remove_files(folder, &|name| name.ends_with(".tmp"))?;
        let manifest = Manifest {
            format: FORMAT,
            program: self.task.program.to_owned(),
            version: version(),
            parameters: self.task.parameters.clone(),
            seed: self.task.seed,
            inputs: self.task.inputs.clone(),
            outputs: outputs(folder)?,
            started: self.started.1,
            finished: now(),
            wall_seconds: (self.started.0.elapsed().as_secs_f64() * 1e3).round() / 1e3,
            peak_memory_bytes: crate::resources::peak_memory(),
            threads: rayon::current_num_threads(),
            summary,
        };
        write_json(&folder.join(FILE), &manifest)?;
        remove(&folder.join(INCOMPLETE))?;
        files::sync_folder(folder)?;
        tracing::info!("{} took {:.1} s", self.task.relative(folder), manifest.wall_seconds);
        Ok(())
    }
}

/// Removes the leftovers of a process that was killed after it had finished `folder`. Does nothing if another process
/// is at work there or the folder cannot be written.
pub(crate) fn tidy(folder: &Path) {
    let marker = folder.join(INCOMPLETE);
    if marker.is_file() && lock(&marker).is_ok() {
        let _ = files::remove_files(folder, &|name| name.ends_with(".tmp")).and_then(|()| remove(&marker));
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, e)),
        _ => Ok(()),
    }
}

/// The records of all files in the folder except logs, sorted.
fn outputs(folder: &Path) -> Result<Vec<FileRecord>> {
    let mut outputs = Vec::new();
    for path in files::below(folder)? {
        let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        if name != INCOMPLETE && !name.ends_with(".jsonl") {
            let (sha256, bytes) = files::digest(&path)?;
            outputs.push(FileRecord { path: name, sha256, bytes });
        }
    }
    outputs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(outputs)
}

/// Refuses a folder that holds files but neither a manifest nor our marker: another program wrote it.
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

/// Opens the marker and locks it.
///
/// # Errors
/// [`Kind::Interrupted`] while another process holds the lock.
fn lock(marker: &Path) -> Result<File> {
    let folder = marker.parent().expect("the marker lies in a folder");
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let file = File::options().create(true).truncate(false).write(true).open(marker);
    let file = file.map_err(|e| Error::io(marker, e))?;
    match file.try_lock() {
        // The process that held the lock may have finished and removed the file in the meantime.
        Ok(()) if files::is_at(&file, marker) => Ok(file),
        Ok(()) => lock(marker),
        Err(TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(folder.join(HOLDER));
            let holder = holder.unwrap_or_else(|_| "another process".to_owned());
            let error = Error::new(Kind::Interrupted, format!("is being written by {holder}")).at(folder);
            Err(error.hint("run the same command again when that has ended"))
        }
        Err(TryLockError::Error(error)) => {
            let folder = folder.display();
            tracing::warn!("{folder}: cannot lock ({error}): no two processes may write this folder");
            Ok(file)
        }
    }
}

/// Removes everything in the folder except the marker.
fn clear(folder: &Path) -> Result<()> {
    // The manifest goes first: from then on, no process takes the folder's content for complete.
    let mut paths = vec![folder.join(FILE)];
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    paths.extend(entries.flatten().map(|entry| entry.path()).filter(|path| !path.ends_with(INCOMPLETE)));
    for path in paths {
        if path.is_dir() {
            std::fs::remove_dir_all(&path).map_err(|e| Error::io(path, e))?
        } else {
            remove(&path)?
        }
    }
    Ok(())
}
