//! One file's content into the cache: continued where it was cut off, checked before it counts.
//!
//! A lock keeps processes from downloading the same at once. On file systems of clusters it may keep out nobody (Lustre,
//! GPFS and some NFS mounts grant it to every caller), so nothing rests on it: a part is written at its offsets and not
//! appended to, so that two writers write the same bytes to the same places, and whoever is first renames it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use program::Progress;
use reqwest::Response;
use stage::{Error, Result, files};

use crate::cache::Cache;
use crate::checksum::{Digest, Hasher, is_digest};
use crate::patience::Failure;
use crate::refusal::unanswered;
use crate::remote::{Description, Remote};

/// Progress of so many bytes restores patience.
const ENOUGH: u64 = 1 << 20;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Downloads a file into its blob, unless it is there by now.
pub(crate) async fn download(
    remote: &Remote<'_>,
    cache: &Cache,
    commit: &str,
    file: &Description,
) -> Result<Digest> {
    if !is_digest(&file.etag) {
        tracing::warn!(
            "{}: the server names no digest, its size alone is checked",
            remote.subject(&file.name)
        );
    }
    let _lock = lock(&cache.lock(&file.etag), &file.name).await?;
    let blob = cache.blob(&file.etag);
    if let Some(digest) = already(&blob, file)? {
        return Ok(digest);
    }
    let mut part = Part::open(cache.incomplete(&file.etag), file)?;
    let mut patience = remote.patience();
    let digest = loop {
        let before = part.length();
        match part.complete(remote, commit).await {
            Ok(digest) => break digest,
            Err(failure) => {
                if part.length() >= before + ENOUGH {
                    patience.restore();
                }
                patience.bear(failure).await?;
            }
        }
    };
    part.keep(&blob)?;
    Ok(digest)
}

/// The blob, where another revision or another process has brought it and it is whole.
fn already(blob: &Path, file: &Description) -> Result<Option<Digest>> {
    if !blob.is_file() {
        return Ok(None);
    }
    let digest = Digest::of(blob, &file.etag)?;
    Ok(Some(digest).filter(|digest| digest.bytes == file.bytes && digest.keeps(&file.etag)))
}

/// Waits for other processes that download the same, as huggingface_hub does.
async fn lock(path: &Path, name: &str) -> Result<Option<File>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|e| Error::io(path, e))?;
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!("another process is downloading `{name}`: waiting for it");
                }
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(TryLockError::Error(e)) => {
                tracing::warn!("{}: cannot lock: {e}", path.display());
                return Ok(None);
            }
        }
    }
}

/// What has come of a file.
struct Part<'a> {
    path: PathBuf,
    content: File,
    hasher: Hasher,
    file: &'a Description,
    progress: Progress,
    /// Whether it came in more than one piece.
    pieced: bool,
}

impl<'a> Part<'a> {
    /// Takes up what is there.
    fn open(path: PathBuf, file: &'a Description) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let content = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut content = content.map_err(|e| Error::io(&path, e))?;
        let mut hasher = Hasher::new(&file.etag, file.bytes);
        hasher.read(&mut content).map_err(|e| Error::io(&path, e))?;
        let progress = Progress::of_bytes(&file.name, file.bytes);
        progress.start_at(hasher.bytes());
        let pieced = hasher.bytes() > 0;
        if pieced {
            tracing::info!("continuing `{}` at byte {}", file.name, hasher.bytes());
        }
        Ok(Part { path, content, hasher, file, progress, pieced })
    }

    fn length(&self) -> u64 {
        self.hasher.bytes()
    }

    fn missing(&self) -> u64 {
        self.file.bytes.saturating_sub(self.length())
    }

    /// Asks for what is missing, and checks the whole.
    async fn complete(&mut self, remote: &Remote<'_>, commit: &str) -> Result<Digest, Failure> {
        if self.length() > self.file.bytes {
            self.restart()?;
        }
        if self.missing() > 0 {
            let (answer, from) = remote.content(commit, &self.file.name, self.length()).await?;
            if from == 0 && self.length() > 0 {
                tracing::info!(
                    "the server does not continue `{}`: it comes from its beginning",
                    self.file.name
                );
                self.restart()?;
            }
            self.pieced |= from > 0;
            self.receive(answer, &remote.subject(&self.file.name)).await?;
        }
        self.check(remote)
    }

    async fn receive(&mut self, mut answer: Response, subject: &str) -> Result<(), Failure> {
        while let Some(bytes) = answer.chunk().await.map_err(|error| unanswered(subject, error))? {
            self.content.write_all(&bytes).map_err(|e| Error::io(&self.path, e))?;
            self.hasher.update(&bytes);
            self.progress.advance(bytes.len() as u64);
            if self.length() > self.file.bytes {
                break;
            }
        }
        match self.missing() {
            0 => Ok(()),
            missing => {
                let message = format!("{subject}: the connection ended {missing} bytes too early");
                Err(Failure::again(Error::new(stage::Kind::Io, message)))
            }
        }
    }

    /// The digest, where it is the promised one.
    fn check(&mut self, remote: &Remote<'_>) -> Result<Digest, Failure> {
        let fresh = self.fresh_hasher();
        let digest = std::mem::replace(&mut self.hasher, fresh).finish();
        if digest.bytes == self.file.bytes && digest.keeps(&self.file.etag) {
            return Ok(digest);
        }
        let message = format!(
            "{}: the content is not what its digest says ({} bytes with sha256 {}; promised were {} bytes with {})",
            remote.subject(&self.file.name),
            digest.bytes,
            digest.sha256,
            self.file.bytes,
            self.file.etag
        );
        let error = Error::data(message)
            .hint("try again; if it stays, the server or something before it changes files");
        let pieced = self.pieced;
        self.restart()?;
        // Its beginning may be another program's, or from before a crash.
        if pieced { Err(Failure::again(error)) } else { Err(Failure::Final(error)) }
    }

    fn fresh_hasher(&self) -> Hasher {
        Hasher::new(&self.file.etag, self.file.bytes)
    }

    /// Begins anew with nothing.
    fn restart(&mut self) -> Result<()> {
        self.hasher = self.fresh_hasher();
        self.pieced = false;
        self.progress.start_at(0);
        let emptied = self.content.set_len(0).and_then(|()| self.content.rewind());
        emptied.map_err(|e| Error::io(&self.path, e))
    }

    /// Makes it the blob.
    fn keep(self, blob: &Path) -> Result<()> {
        self.content.sync_all().map_err(|e| Error::io(&self.path, e))?;
        files::make_readable(&self.content, &self.path)?;
        match std::fs::rename(&self.path, blob) {
            // Another process was first.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && blob.is_file() => Ok(()),
            renamed => renamed.map_err(|e| Error::io(blob, e)),
        }
    }
}
