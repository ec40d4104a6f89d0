//! From what is wanted to a snapshot: what the cache holds, then what the hub has.

use stage::resources::{human, require_disk};
use stage::{Error, Kind, Result};

use crate::cache::{Cache, Known};
use crate::download::download;
use crate::patience::unless_stopped;
use crate::refusal::ELSEWHERE;
use crate::remote::{Description, Remote};
use crate::{File, Repository, Settings, Snapshot, Want};

impl Settings {
    /// Brings what is wanted of a repository into the cache, where it is not there yet.
    ///
    /// # Errors
    ///
    /// - [`Kind::Missing`]: no such repository, revision or file, no access to it, or not cached while offline.
    /// - [`Kind::Data`]: content that is not what its digest says.
    /// - [`Kind::Io`]: the connection, after several tries; writing to the cache.
    /// - [`Kind::Resource`]: the disk is too small.
    /// - [`Kind::Interrupted`]: a signal came; what has come of a file is kept.
    /// - [`Kind::Usage`]: names that cannot be, or settings.
    pub fn fetch(&self, repository: &Repository, wants: &[Want]) -> Result<Snapshot> {
        wants.iter().try_for_each(Want::check)?;
        let cache = Cache::new(&self.cache, repository);
        if self.offline {
            let found = self.cached(repository, wants)?;
            return found.ok_or_else(|| not_cached(repository, wants, &cache));
        }
        if let Some(snapshot) = settled(&cache, repository, wants)? {
            return Ok(snapshot);
        }
        let remote = Remote::new(self, repository)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::new(Kind::Unexpected, e.to_string()))?;
        runtime.block_on(unless_stopped(Fetching { cache: &cache, remote: &remote }.fetch(repository, wants)))
    }

    /// What is wanted of a repository, if the cache holds it; the network is not touched. A branch or tag is at the commit where it
    /// was when it was last fetched.
    pub fn cached(&self, repository: &Repository, wants: &[Want]) -> Result<Option<Snapshot>> {
        wants.iter().try_for_each(Want::check)?;
        let cache = Cache::new(&self.cache, repository);
        match cache.commit(repository)? {
            Some(commit) => cache.find(&commit, wants, false),
            None => Ok(None),
        }
    }
}

/// The snapshot of a commit about which nothing is left to ask.
fn settled(cache: &Cache, repository: &Repository, wants: &[Want]) -> Result<Option<Snapshot>> {
    if !repository.is_pinned() {
        return Ok(None);
    }
    match cache.find(&repository.revision, wants, true) {
        // What is damaged is fetched again.
        Err(error) if error.kind() == Kind::Data => Ok(None),
        found => found,
    }
}

fn not_cached(repository: &Repository, wants: &[Want], cache: &Cache) -> Error {
    let wanted: Vec<String> = wants.iter().filter(|want| want.required).map(Want::names).collect();
    let message =
        format!("HF_HUB_OFFLINE is set, and {} of `{repository}` is not all cached", wanted.join(", "));
    Error::missing(message).at(cache.folder()).hint(format!("unset it to download, {ELSEWHERE}"))
}

/// What is done with the hub.
struct Fetching<'a> {
    cache: &'a Cache,
    remote: &'a Remote<'a>,
}

/// A file, or what to download for it.
enum Found {
    Here(File),
    There(Description),
}

impl Fetching<'_> {
    async fn fetch(&self, repository: &Repository, wants: &[Want]) -> Result<Snapshot> {
        let commit = self.remote.commit().await?;
        let mut found = Vec::new();
        for want in wants {
            found.extend(self.find(&commit, want).await?);
        }
        self.require_room(&found)?;
        let mut files = Vec::new();
        for found in found {
            files.push(match found {
                Found::Here(file) => file,
                Found::There(description) => self.bring(&commit, &description).await?,
            });
        }
        self.cache.refer(repository, &commit)?;
        Ok(Snapshot { folder: self.cache.snapshot(&commit), commit, files })
    }

    /// The first of the wanted names that the commit has.
    async fn find(&self, commit: &str, want: &Want) -> Result<Option<Found>> {
        for name in &want.any_of {
            if let Some(found) = self.find_one(commit, name).await? {
                return Ok(Some(found));
            }
        }
        match want.required {
            true => Err(Error::missing(format!(
                "{}: the repository has no such file",
                self.remote.subject_of(&want.names())
            ))
            .hint("check the names and the revision, and that it is a model of the kind that is wanted")),
            false => Ok(None),
        }
    }

    async fn find_one(&self, commit: &str, name: &str) -> Result<Option<Found>> {
        match self.cache.look(commit, name) {
            Known::Here => match self.cache.file(commit, name) {
                Err(error) if error.kind() == Kind::Data => {
                    tracing::warn!("{error}: downloading it again");
                    self.cache.remove(commit, name)?;
                }
                file => return Ok(Some(Found::Here(file?))),
            },
            Known::Absent => return Ok(None),
            Known::Unknown => {}
        }
        let description = self.remote.describe(commit, name).await?;
        if description.is_none() {
            self.cache.note_absence(commit, name)?;
        }
        Ok(description.map(Found::There))
    }

    fn require_room(&self, found: &[Found]) -> Result<()> {
        let missing = |found: &Found| match found {
            Found::Here(_) => 0,
            Found::There(file) => self.cache.missing(&file.etag, file.bytes),
        };
        let missing = found.iter().map(missing).sum();
        require_disk(self.cache.folder(), missing, "the download", "set HF_HOME to a folder on a larger disk")
    }

    async fn bring(&self, commit: &str, file: &Description) -> Result<File> {
        tracing::info!(
            "{}, {}: into {}",
            self.remote.subject(&file.name),
            human(file.bytes),
            self.cache.folder().display()
        );
        let digest = download(self.remote, self.cache, commit, file).await?;
        let path = self.cache.point(commit, &file.name, &file.etag)?;
        Ok(File { name: file.name.clone(), path, sha256: digest.sha256, bytes: digest.bytes })
    }
}
