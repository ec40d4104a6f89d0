//! What became of the images.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stage::files::write_bytes;
use stage::work::Work;
use stage::{Modality, Result};
use std::collections::HashSet;

/// The list of unreadable images in the stage's folder.
pub const UNREADABLE: &str = "unreadable.tsv";
/// Unreadable images that are named in the log and in `stage.json`.
const MAX_NAMED: usize = 20;

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
    /// Files looked at.
    pub fn files(&self) -> usize {
        self.digests.len() + self.unreadable.len()
    }

    /// Adds what follows it.
    pub fn add(&mut self, other: Report) {
        self.digests.extend(other.digests);
        self.copies += other.copies;
        self.unreadable.extend(other.unreadable);
    }

    /// Files whose bytes another file has already.
    pub fn duplicates(&self) -> usize {
        self.digests.len() - self.digests.iter().collect::<HashSet<_>>().len()
    }

    /// An unreadable image, as it is named.
    pub fn first_unreadable(&self) -> Option<String> {
        self.named().next()
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
