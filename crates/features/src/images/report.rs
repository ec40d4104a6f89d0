//! What became of the images.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stage::files::write_bytes;
use stage::work::Work;
use stage::{Error, Modality, Result};
use std::collections::HashSet;
use std::path::Path;

/// The list of unreadable images in the stage's folder.
pub const UNREADABLE: &str = "unreadable.tsv";
/// Unreadable images that are named in the log and in `stage.json`.
const MAX_NAMED: usize = 20;

/// The error that an unreadable image is with `--strict`.
pub fn unreadable(reason: &str) -> Error {
    Error::data(format!("unreadable image: {reason}"))
        .hint("replace or remove it and import again; without --strict it is counted as absent")
}

/// What became of some images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Digests of the files that were decoded, in order.
    pub digests: Vec<String>,
    /// Of those, files whose entity already has the same bytes.
    pub copies: usize,
    /// Files that could not be decoded: paths and reasons.
    pub unreadable: Vec<(String, String)>,
}

impl Report {
    /// All of some groups', the unreadable ones by path, whatever the order of the groups.
    pub fn of_groups(groups: impl IntoIterator<Item = Report>) -> Report {
        let mut all = Report::default();
        groups.into_iter().for_each(|group| all.add(group));
        all.unreadable.sort();
        all
    }

    /// Files looked at.
    pub fn files(&self) -> usize {
        self.digests.len() + self.unreadable.len()
    }

    fn add(&mut self, other: Report) {
        self.digests.extend(other.digests);
        self.copies += other.copies;
        self.unreadable.extend(other.unreadable);
    }

    /// Files whose bytes another file has already.
    pub fn duplicates(&self) -> usize {
        self.digests.len() - self.digests.iter().collect::<HashSet<_>>().len()
    }

    /// Refuses images of which any could not be decoded.
    pub fn require_all(&self, root: &Path) -> Result<()> {
        match self.unreadable.first() {
            Some((path, reason)) => Err(unreadable(reason).at(root.join(path))),
            None => Ok(()),
        }
    }

    /// Refuses images of which not one could be decoded.
    pub fn require_any(&self, root: &Path) -> Result<()> {
        if !self.digests.is_empty() {
            return Ok(());
        }
        let message = format!("none of {} images could be read", self.unreadable.len());
        let first = self.named().next().unwrap_or_default();
        Err(Error::data(message).at(root).hint(format!("the first is {first}")))
    }

    fn named(&self) -> impl Iterator<Item = String> {
        self.unreadable.iter().map(|(path, reason)| format!("{path}: {reason}"))
    }

    /// The figures for `stage.json`.
    pub fn summary(&self) -> Value {
        json!({
            "images_read": self.digests.len(),
            "images_duplicate": self.duplicates(),
            "images_duplicate_within_entity": self.copies,
            "images_unreadable": self.unreadable.len(),
            "unreadable": self.named().take(MAX_NAMED).collect::<Vec<_>>(),
        })
    }

    /// Names what was unreadable: the first in the log, all of them in [`UNREADABLE`].
    pub fn write(&self, work: &Work, modality: &Modality) -> Result<()> {
        if self.unreadable.is_empty() {
            return Ok(());
        }
        self.named().take(MAX_NAMED).for_each(|named| tracing::warn!("{modality}: unreadable image {named}"));
        let path = work.path(UNREADABLE);
        if self.unreadable.len() > MAX_NAMED {
            let count = self.unreadable.len();
            tracing::warn!("{modality}: {count} images are unreadable, see {}", path.display());
        }
        // A reason is one field of one line, whatever a decoder says.
        let plain = |text: &str| text.replace(['\t', '\n', '\r'], " ");
        let line = |(path, reason): &(String, String)| format!("{}\t{}\n", plain(path), plain(reason));
        write_bytes(&path, self.unreadable.iter().map(line).collect::<String>().as_bytes())
    }
}
