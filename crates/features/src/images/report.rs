//! An account of the images that were read.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stage::files::write_bytes;
use stage::work::Work;
use stage::{Error, Modality, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The list of images that cannot be decoded, in the stage's folder.
const UNREADABLE: &str = "unreadable.tsv";
/// The number of those that are named in the log and in `stage.json`.
const MAX_NAMED: usize = 20;

/// The error that an image which cannot be decoded is with `--strict`.
pub(crate) fn unreadable(reason: &str) -> Error {
    Error::data(format!("unreadable image: {reason}"))
        .hint("replace or remove it and import again; without --strict it is counted as absent")
}

/// An account of images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DecodeReport {
    /// Files that were decoded: the entity, the digest, the path.
    read: Vec<(usize, String, String)>,
    /// Files that cannot be decoded: paths and reasons.
    pub unreadable: Vec<(String, String)>,
}

/// Entities that have no image but one, which others have as well.
#[derive(Debug, PartialEq, Eq)]
struct Shared<'a> {
    entities: usize,
    /// The path of the image that most of them have.
    example: &'a str,
    /// The number of entities that have it.
    most: usize,
}

impl DecodeReport {
    /// Adds what another report has.
    pub(crate) fn add(&mut self, other: DecodeReport) {
        self.read.extend(other.read);
        self.unreadable.extend(other.unreadable);
    }

    pub(super) fn add_read(&mut self, entity: usize, digest: String, path: &str) {
        self.read.push((entity, digest, path.to_owned()));
    }

    /// The digests of each entity's images, each once.
    fn own(&self) -> BTreeMap<usize, BTreeMap<&str, &str>> {
        let mut own: BTreeMap<usize, BTreeMap<&str, &str>> = BTreeMap::new();
        for (entity, digest, path) in &self.read {
            own.entry(*entity).or_default().entry(digest).or_insert(path);
        }
        own
    }

    fn shared(&self) -> Option<Shared<'_>> {
        let own = self.own();
        let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for images in own.values().filter(|images| images.len() == 1) {
            images.iter().for_each(|(digest, path)| owners.entry(digest).or_default().push(path));
        }
        owners.retain(|_, paths| paths.len() > 1);
        let most = owners.values().max_by_key(|paths| paths.len())?;
        let entities = owners.values().map(Vec::len).sum();
        Some(Shared { entities, example: most[0], most: most.len() })
    }

    /// Refuses images of which any cannot be decoded.
    pub(crate) fn require_all(&self, root: &Path) -> Result<()> {
        match self.unreadable.iter().min() {
            Some((path, reason)) => Err(unreadable(reason).at(root.join(path))),
            None => Ok(()),
        }
    }

    /// Refuses images of which not one can be decoded.
    pub(crate) fn require_any(&self, root: &Path) -> Result<()> {
        if !self.read.is_empty() {
            return Ok(());
        }
        let message = format!("none of {} images could be read", self.unreadable.len());
        let first = self.named().first().cloned().unwrap_or_default();
        Err(Error::data(message).at(root).hint(format!("the first is {first}")))
    }

    /// The first of the images that cannot be decoded, with their reasons.
    fn named(&self) -> Vec<String> {
        let sorted = BTreeSet::from_iter(&self.unreadable);
        sorted.into_iter().take(MAX_NAMED).map(|(path, reason)| format!("{path}: {reason}")).collect()
    }

    /// The figures for `stage.json`.
    pub(crate) fn summary(&self) -> Value {
        let digests: BTreeSet<&str> = self.read.iter().map(|(_, digest, _)| digest.as_str()).collect();
        let own: usize = self.own().values().map(BTreeMap::len).sum();
        json!({
            "images_read": self.read.len(),
            "images_duplicate": self.read.len() - digests.len(),
            "images_duplicate_within_entity": self.read.len() - own,
            "entities_with_shared_image_alone": self.shared().map_or(0, |shared| shared.entities),
            "images_unreadable": self.unreadable.len(),
            "unreadable": self.named(),
        })
    }

    /// Warns of entities that have nothing but the same image, and names the images that cannot be decoded: the first in
    /// the log, all of them in [`UNREADABLE`].
    pub(crate) fn write(&self, work: &Work, modality: &Modality) -> Result<()> {
        if let Some(Shared { entities, example, most }) = self.shared() {
            tracing::warn!(
                "{modality}: {entities} entities have no image but one that others have as well; {most} of them have \
                 {example}: is it a placeholder?"
            );
        }
        if self.unreadable.is_empty() {
            return Ok(());
        }
        self.named().iter().for_each(|named| tracing::warn!("{modality}: unreadable image {named}"));
        let (path, count) = (work.path(UNREADABLE), self.unreadable.len());
        if count > MAX_NAMED {
            tracing::warn!("{modality}: {count} images are unreadable, see {}", path.display());
        }
        let lines = BTreeSet::from_iter(&self.unreadable).into_iter();
        let lines: String =
            lines.map(|(path, reason)| format!("{}\t{}\n", plain(path), plain(reason))).collect();
        write_bytes(&path, lines.as_bytes())
    }
}

/// A reason or a path as one field of one line, whatever a decoder says.
fn plain(text: &str) -> String {
    text.replace(['\t', '\n', '\r'], " ")
}
