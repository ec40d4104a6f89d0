//! `events.jsonl`: one JSON object per line about each epoch. A log, not an artifact: it holds wall-clock times.

use serde_json::{Map, Value};
use stage::files::write_bytes;
use stage::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(crate) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Opens the log and drops lines about epochs after `epoch`, which will be run again.
    pub(crate) fn resume(path: PathBuf, epoch: usize) -> Result<Events> {
        let kept = kept_lines(&path, epoch);
        write_bytes(&path, kept.as_bytes())?;
        let file = File::options().append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        Ok(Events { path, file })
    }

    pub(crate) fn write(&mut self, event: Map<String, Value>) -> Result<()> {
        // One call: a line is there as a whole or not at all.
        let line = format!("{}\n", Value::Object(event));
        self.file.write_all(line.as_bytes()).map_err(|e| Error::io(&self.path, e))
    }
}

fn kept_lines(path: &Path, epoch: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let is_kept = |line: &&str| {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        event["epoch"].as_u64().is_some_and(|of| of <= epoch as u64)
    };
    text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
}
