//! Checkpoints from the Hugging Face hub: an adapter over [hf-hub](hf_hub), whose cache other tools share.
//!
//! [`Hub::fetch`] brings files of a [`Repository`] at a revision into the cache. hf-hub downloads a file and continues
//! after a broken connection. This crate adds a check of the digest (the digest that the hub promised is the name of
//! the blob), one download of a repository at a time, interruption, and errors with a remedy.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `HF_ENDPOINT` | the hub's address, of a mirror for example | `https://huggingface.co` |
//! | `HF_HUB_CACHE` | the folder of the cache | `hub` in `HF_HOME` |
//! | `HF_HOME` | the folder of cache and token | `~/.cache/huggingface` |
//! | `HF_TOKEN` | a token for private and gated repositories | the content of `HF_TOKEN_PATH`, or of `HF_HOME/token` |
//! | `HF_HUB_OFFLINE` | `1`: only cached files are used | |
//! | `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | a proxy, and the hosts that need none | no proxy |
//!
//! hf-hub also sends the token to the host to which the hub redirects large files.

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo};
use sha1::{Digest as _, Sha1};
use stage::files::{digest, hex, read_bytes};
use stage::resources::require_disk;
use stage::{Error, Kind, Result, interrupt};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A model repository at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// `owner/name`, or only the name of one of the few repositories without an owner.
    pub name: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl Repository {
    /// A repository at a revision; a usage error if the name or the revision is not valid on the hub.
    pub fn new(name: impl Into<String>, revision: impl Into<String>) -> Result<Self> {
        let (name, revision) = (name.into(), revision.into());
        if !is_path(&name) || name.matches('/').count() > 1 || name.contains("--") || !is_path(&revision) {
            return Err(Error::usage(format!("`{name}` at `{revision}` is no repository on the hub"))
                .hint("it is `owner/name`, at a branch, a tag or, better, the 40 digits of a commit"));
        }
        Ok(Repository { name, revision })
    }

    /// Tells whether the revision is a complete commit hash, whose files never change.
    pub fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }

    /// hf-hub's type for this repository, at another revision.
    fn at(&self, revision: &str) -> hf_hub::Repo {
        hf_hub::Repo::with_revision(self.name.clone(), hf_hub::RepoType::Model, revision.to_owned())
    }
}

impl FromStr for Repository {
    type Err = Error;

    /// `owner/name`, or `owner/name@revision`.
    fn from_str(text: &str) -> Result<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        Repository::new(name, revision)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.revision)
    }
}

/// A file that a caller wants, under one of several names.
#[derive(Clone, Debug)]
pub struct Want {
    any_of: Vec<&'static str>,
    required: bool,
}

impl Want {
    /// A required file, under the first of these names that the repository has.
    pub fn required(any_of: impl Into<Vec<&'static str>>) -> Self {
        Want { any_of: any_of.into(), required: true }
    }

    /// A file that may be absent.
    pub fn optional(name: &'static str) -> Self {
        Want { any_of: vec![name], required: false }
    }
}

/// Tells whether the text is a complete commit hash.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Tells whether a path stays inside its folder.
fn is_path(path: &str) -> bool {
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    is_plain && path.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

/// The files of a repository in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder of the files, perhaps with other files of the same commit.
    pub folder: PathBuf,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
}

impl Snapshot {
    fn holds(&self, want: &Want) -> bool {
        want.any_of.iter().any(|name| self.folder.join(name).exists())
    }
}

/// The hub's address and cache, the user's token, and the offline mode.
#[derive(Clone)]
pub struct Hub {
    /// The address, without a slash at its end.
    pub endpoint: String,
    /// The folder of the cache that all tools of the hub share.
    pub cache: PathBuf,
    /// The token, a secret.
    pub token: Option<String>,
    /// True if only cached files may be used.
    pub offline: bool,
}

impl Hub {
    /// The hub that the environment of this process describes (see the table of [this crate](crate)).
    pub fn from_environment() -> Self {
        Hub::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let names = ["HF_HOME", "HF_TOKEN_PATH", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_CACHE"];
        let [home, token_path, token, endpoint, offline, cache] =
            names.map(|name| variable(name).filter(|value| !value.is_empty()));
        let home = home.map(|home| Cache::new(PathBuf::from(home).join("hub"))).unwrap_or_default();
        let stored = token_path.map_or_else(|| home.token_path(), PathBuf::from);
        let token = token.or_else(|| std::fs::read_to_string(stored).ok());
        let endpoint = endpoint.unwrap_or("https://huggingface.co".to_owned());
        let offline = offline.unwrap_or_default().to_uppercase();
        Hub {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: cache.map_or_else(|| home.path().clone(), PathBuf::from),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline: ["1", "ON", "YES", "TRUE"].contains(&offline.as_str()),
        }
    }

    /// Returns the files of a repository and downloads those that are not cached yet.
    ///
    /// Errors are [`Missing`](stage::Kind::Missing) (no such repository, revision or file, no access, not cached while
    /// offline), [`Data`](stage::Kind::Data) (a wrong digest), [`Io`](stage::Kind::Io) (the connection, the disk),
    /// [`Resource`](stage::Kind::Resource) (the disk is too small) or [`Interrupted`](stage::Kind::Interrupted).
    pub fn fetch(&self, repository: &Repository, wants: &[Want]) -> Result<Snapshot> {
        let is_whole = |snapshot: &Snapshot| wants.iter().all(|want| snapshot.holds(want));
        match self.cached(repository, wants) {
            Some(snapshot) if self.offline || repository.is_pinned() && is_whole(&snapshot) => Ok(snapshot),
            _ if self.offline => Err(self.not_cached(repository, wants)),
            _ => {
                // hf-hub cannot be stopped: a signal leaves its thread behind, which ends with the process.
                let (hub, repository, wants) = (self.clone(), repository.clone(), wants.to_vec());
                interrupt::until_stopped(move || hub.download(&repository, &wants))
            }
        }
    }

    fn not_cached(&self, repository: &Repository, wants: &[Want]) -> Error {
        let snapshot = self.snapshot(repository);
        let is_there = |want: &&Want| snapshot.as_ref().is_some_and(|snapshot| snapshot.holds(want));
        let lacking = wants.iter().filter(|want| want.required && !is_there(want));
        let names = lacking.map(|want| want.any_of.join(" or ")).collect::<Vec<_>>().join(", ");
        let message = format!("HF_HUB_OFFLINE is set, and `{repository}` is cached without {names}");
        Error::missing(message).at(&self.cache).hint(format!("unset it to download, {ELSEWHERE}"))
    }

    /// The files of a repository, if the cache holds all required ones; does not use the network. A branch or tag has
    /// the commit of its last fetch.
    pub fn cached(&self, repository: &Repository, wants: &[Want]) -> Option<Snapshot> {
        let snapshot = self.snapshot(repository)?;
        wants.iter().all(|want| !want.required || snapshot.holds(want)).then_some(snapshot)
    }

    fn snapshot(&self, repository: &Repository) -> Option<Snapshot> {
        let folder = self.cache.join(repository.at("").folder_name());
        let commit = if repository.is_pinned() {
            repository.revision.clone()
        } else {
            std::fs::read_to_string(folder.join("refs").join(&repository.revision)).ok()?
        };
        Some(Snapshot { folder: folder.join("snapshots").join(&commit), commit })
    }

    fn download(&self, repository: &Repository, wants: &[Want]) -> Result<Snapshot> {
        let subject = format!("`{repository}` at {}", self.endpoint);
        let (api, info) = self.ask(repository).map_err(|e| self.failure(&subject, &e))?;
        if !is_commit(&info.sha) {
            return Err(Error::data(format!("{subject}: `{}` is no commit", info.sha)));
        }
        let cache = Cache::new(self.cache.clone()).repo(repository.at(&repository.revision));
        let snapshot = Snapshot { folder: cache.pointer_path(&info.sha), commit: info.sha };
        let repo = api.repo(repository.at(&snapshot.commit));
        let _lock = self.lock(repository)?;
        for want in wants {
            match want.any_of.iter().find(|name| info.siblings.iter().any(|file| file.rfilename == **name)) {
                Some(name) if snapshot.folder.join(name).exists() => {}
                Some(name) => self.bring(&api, &repo, &cache, name)?,
                None if want.required => {
                    let message = format!("{subject} has no file `{}`", want.any_of.join("` or `"));
                    return Err(Error::missing(message).hint("is it a model of the kind that is wanted?"));
                }
                None => {}
            }
        }
        cache.create_ref(&snapshot.commit).map_err(|e| Error::io(&self.cache, e))?;
        Ok(snapshot)
    }

    fn ask(&self, repository: &Repository) -> Result<(Api, RepoInfo), ApiError> {
        let api = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_retries(5)
            .with_progress(tracing::enabled!(tracing::Level::INFO))
            .build()?;
        let info = api.repo(repository.at(&repository.revision)).info()?;
        Ok((api, info))
    }

    /// Waits for other processes that download from the same repository: hf-hub itself gives up after five seconds.
    fn lock(&self, repository: &Repository) -> Result<File> {
        let folder = self.cache.join(".locks").join(repository.at("").folder_name());
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let file = File::create(folder.join("dsom.lock")).map_err(|e| Error::io(&folder, e))?;
        if file.try_lock().is_err() {
            tracing::info!("waiting for another process that downloads from `{repository}`");
            // On a file system without locks, hf-hub reports the failure.
            let _ = file.lock();
        }
        Ok(file)
    }

    fn bring(&self, api: &Api, repo: &ApiRepo, cache: &CacheRepo, name: &str) -> Result<()> {
        let address = repo.url(name);
        tracing::info!("downloading {address} into {}", self.cache.display());
        let file = api.metadata(&address).map_err(|e| self.failure(&address, &e))?;
        if !is_path(file.etag()) {
            return Err(Error::data(format!("{address}: the ETag `{}` is no name of a file", file.etag())));
        }
        let (size, part) = (file.size() as u64, cache.blob_path(file.etag()).with_extension("part"));
        require_disk(&self.cache, size, "the download", "set HF_HOME to a folder on a larger disk")?;
        // For a complete part, hf-hub would request the bytes after its end, in vain.
        if part.metadata().is_ok_and(|part| part.len() >= size) {
            std::fs::remove_file(&part).map_err(|e| Error::io(&part, e))?;
        }
        verify(&repo.download(name).map_err(|e| self.failure(&address, &e))?)
    }

    /// hf-hub's error about an address or a repository, with a remedy.
    fn failure(&self, subject: &str, error: &ApiError) -> Error {
        let (kind, message, hint) = match status(error) {
            Some(401 | 403) => {
                let sent = if self.token.is_some() {
                    " with the token that was sent"
                } else {
                    ", no token was sent"
                };
                (Kind::Missing, format!("access denied{sent}"), DENIED)
            }
            Some(404) => (Kind::Missing, "not found".into(), "check the name, the revision and HF_TOKEN"),
            Some(status) => (Kind::Io, format!("the server answered {status}"), "try again later"),
            None => (Kind::Io, error.to_string(), "check the connection and HF_ENDPOINT"),
        };
        Error::new(kind, format!("{subject}: {message}")).hint(format!("{hint}, {ELSEWHERE}"))
    }
}

const DENIED: &str = "check the name (the hub denies what does not exist, too); if it is private or gated, accept its \
    terms on its page and set HF_TOKEN";

/// The HTTP status of a refusal, if the server answered.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

/// Compares a file with the digest in its blob's name, and removes the file if they differ. The digest is the SHA-256
/// for files in large storage, and git's object id (the SHA-1 of a header and the content) for files in git.
fn verify(path: &Path) -> Result<()> {
    let blob = path.canonicalize().map_err(|e| Error::io(path, e))?;
    let promised = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let found = match promised.len() {
        64 => digest(&blob)?.0,
        40 => git_digest(&read_bytes(&blob)?),
        _ => return Ok(()),
    };
    if found == promised {
        return Ok(());
    }
    for file in [path, &blob] {
        std::fs::remove_file(file).map_err(|e| Error::io(file, e))?;
    }
    let message = format!("damaged: its digest is {found}, the hub promised {promised}");
    Err(Error::data(message).at(path).hint("it was removed: run the same command again to download it"))
}

/// The object id that `git hash-object` prints.
fn git_digest(content: &[u8]) -> String {
    let header = format!("blob {}\0", content.len());
    hex(&Sha1::new().chain_update(header).chain_update(content).finalize())
}

const ELSEWHERE: &str = "or download the files elsewhere: give their folder by --text-model or --image-model, or \
    copy that machine's HF_HOME";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_cache_are_refused() {
        for name in ["gpt2", "sentence-transformers/all-MiniLM-L6-v2", "a/b.c_d", "a/b@refs/pr/1"] {
            assert!(name.parse::<Repository>().is_ok(), "{name}");
        }
        for name in
            ["", "a/", "/b", "a/b/c", "a/..", "../a", "a b", "a--b", "a/é", "a@", "a@../b", "a@/b", "a@b?c"]
        {
            assert_eq!(name.parse::<Repository>().unwrap_err().kind(), stage::Kind::Usage, "{name}");
        }
        assert!(!Repository::new("a/b", "0g".repeat(20)).unwrap().is_pinned());
    }

    #[test]
    fn the_environment_is_that_of_huggingface_hub() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "stored\n").unwrap();
        let hub = |name: &str, value: &str| {
            Hub::read(|asked| match asked {
                "HF_HOME" => Some(home.path().display().to_string()),
                asked => (asked == name).then(|| value.to_owned()),
            })
        };
        let plain = hub("HF_HUB_OFFLINE", "0");
        assert_eq!((plain.cache, plain.offline), (home.path().join("hub"), false));
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert_eq!(plain.token.as_deref(), Some("stored"));
        assert_eq!(hub("HF_TOKEN", "given").token.as_deref(), Some("given"));
        assert_eq!(hub("HF_TOKEN_PATH", "/nowhere").token, None);
        assert_eq!(hub("HF_HUB_CACHE", "/c").cache, PathBuf::from("/c"));
        assert_eq!(hub("HF_ENDPOINT", "http://x/").endpoint, "http://x");
        assert!(hub("HF_HUB_OFFLINE", "true").offline);
    }
}
