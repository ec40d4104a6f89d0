//! A stage at work on its folder: claimed at the beginning, made whole at the end.

use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::files::{self, write_json};
use crate::manifest::{CHECKPOINT, FILE, FORMAT, FileRecord, INCOMPLETE, Manifest, version};
use crate::task::Task;
use crate::{Error, Kind, Result};

/// A stage at work on its folder.
pub struct Work {
    task: Task,
    started: (Instant, jiff::Timestamp),
    resumes: bool,
    _lock: File,
}

impl Work {
    /// Takes the folder of `task`: nothing in it passes for whole from here on.
    pub(crate) fn claim(task: Task, force: bool) -> Result<Work> {
        let marker = task.folder.join(INCOMPLETE);
        let resumes = !force && task.is_begun();
        refuse_foreign(&task.folder)?;
        let lock = lock(&marker)?;
        if !resumes {
            clear(&task.folder)?;
        }
        // Written in place, not renamed, so that the lock stays with the file.
        std::fs::write(&marker, task.identity().to_string()).map_err(|e| Error::io(&marker, e))?;
        let started = (Instant::now(), jiff::Timestamp::now());
        Ok(Work { task, started, resumes, _lock: lock })
    }

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
