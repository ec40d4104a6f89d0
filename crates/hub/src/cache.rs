//! The cache's layout, which Python's huggingface_hub and other tools share:
//!
//! ```text
//! models--owner--name/
//!   refs/main                    the commit that a branch or tag was at when it was last asked for
//!   blobs/<etag>                 content; <etag>.incomplete while it comes
//!   snapshots/<commit>/<file>    a link to its blob
//!   .no_exist/<commit>/<file>    empty: the commit has no such file
//! .locks/models--owner--name/<etag>.lock
//! ```

use stage::files::{read_text, write_bytes};
use stage::{Error, Result};
use std::path::{Path, PathBuf};

use crate::checksum::Digest;
use crate::repository::{Repository, Want, is_commit};
use crate::{File, Snapshot};

/// One repository's part of the cache.
pub(crate) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

/// What the cache knows of a file at a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Here,
    /// The hub has said that the commit has no such file.
    Absent,
    Unknown,
}

impl Cache {
    pub(crate) fn new(root: &Path, repository: &Repository) -> Self {
        let name = format!("models--{}", repository.name.replace('/', "--"));
        Cache { folder: root.join(&name), locks: root.join(".locks").join(&name) }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// The part of a blob that has come, for the next process to continue.
    pub(crate) fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// What of a blob of this size has not come yet.
    pub(crate) fn missing(&self, etag: &str, bytes: u64) -> u64 {
        let length = |path: PathBuf| path.metadata().map_or(0, |data| data.len());
        bytes.saturating_sub(length(self.blob(etag)).max(length(self.incomplete(etag))))
    }

    pub(crate) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    /// The commit of a revision, as far as the cache knows it.
    pub(crate) fn commit(&self, repository: &Repository) -> Result<Option<String>> {
        if repository.is_pinned() {
            return Ok(Some(repository.revision.clone()));
        }
        let path = self.reference(&repository.revision);
        if !path.is_file() {
            return Ok(None);
        }
        let commit = read_text(&path)?.trim().to_owned();
        match is_commit(&commit) {
            true => Ok(Some(commit)),
            false => Err(Error::data("no commit hash").at(path).hint("remove this file")),
        }
    }

    /// Notes which commit a branch or tag is at.
    pub(crate) fn refer(&self, repository: &Repository, commit: &str) -> Result<()> {
        match repository.is_pinned() {
            true => Ok(()),
            false => write_bytes(&self.reference(&repository.revision), commit.as_bytes()),
        }
    }

    pub(crate) fn look(&self, commit: &str, file: &str) -> Known {
        match (self.snapshot(commit).join(file).exists(), self.absence(commit, file).exists()) {
            (true, _) => Known::Here,
            (false, true) => Known::Absent,
            (false, false) => Known::Unknown,
        }
    }

    /// Notes that a commit has no such file.
    pub(crate) fn note_absence(&self, commit: &str, file: &str) -> Result<()> {
        write_bytes(&self.absence(commit, file), b"")
    }

    /// What of `wants` the cache holds; none where one that is required is missing. To be `certain` is to answer nothing,
    /// too, where the hub might have a file that is preferred or optional.
    pub(crate) fn find(&self, commit: &str, wants: &[Want], certain: bool) -> Result<Option<Snapshot>> {
        let mut files = Vec::new();
        for want in wants {
            let mut known = want.any_of.iter().map(|file| (file, self.look(commit, file)));
            let passed_over =
                |known: &Known| *known == Known::Absent || (*known == Known::Unknown && !certain);
            match known.find(|(_, known)| !passed_over(known)) {
                Some((file, Known::Here)) => files.push(self.file(commit, file)?),
                Some(_) => return Ok(None),
                None if want.required => return Ok(None),
                None => {}
            }
        }
        Ok(Some(Snapshot { folder: self.snapshot(commit), commit: commit.to_owned(), files }))
    }

    /// A file that is here, read and compared with the digest that its blob's name is.
    pub(crate) fn file(&self, commit: &str, name: &str) -> Result<File> {
        let path = self.snapshot(commit).join(name);
        let blob = std::fs::read_link(&path).unwrap_or_default();
        let etag = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let digest = Digest::of(&path, etag)?;
        if !digest.keeps(etag) {
            let message = format!("damaged: it is not what its blob's name says, {etag}");
            return Err(Error::data(message).at(path).hint("remove it to have it downloaded again"));
        }
        Ok(File { name: name.to_owned(), path, sha256: digest.sha256, bytes: digest.bytes })
    }

    /// Removes a file that is here, and its blob.
    pub(crate) fn remove(&self, commit: &str, name: &str) -> Result<()> {
        let pointer = self.snapshot(commit).join(name);
        let blob = pointer.canonicalize().map_err(|e| Error::io(&pointer, e))?;
        for path in [&blob, &pointer] {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(path, e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a commit's file a link to its blob.
    pub(crate) fn point(&self, commit: &str, name: &str, etag: &str) -> Result<PathBuf> {
        let pointer = self.snapshot(commit).join(name);
        let folder = pointer.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let up = "../".repeat(2 + name.matches('/').count());
        let relative = PathBuf::from(format!("{up}blobs/{etag}"));
        // Beside it and renamed, since another process may do the same now.
        let linked = tempfile::Builder::new()
            .prefix(".")
            .suffix(".tmp")
            .make_in(folder, |path| link(&self.blob(etag), &relative, path));
        let renamed = linked.and_then(|link| link.into_temp_path().persist(&pointer).map_err(|e| e.error));
        renamed.map_err(|e| Error::io(&pointer, e))?;
        Ok(pointer)
    }
}

#[cfg(unix)]
fn link(_blob: &Path, relative: &Path, pointer: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, pointer)
}

#[cfg(not(unix))]
fn link(blob: &Path, _relative: &Path, pointer: &Path) -> std::io::Result<()> {
    std::fs::hard_link(blob, pointer)
}
