//! The download: hf-hub's, one process at a time, compared with its digest.

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo};
use sha1::{Digest as _, Sha1};
use stage::files::{digest, hex, read_bytes};
use stage::resources::require_disk;
use stage::{Error, Kind, Result, interrupt};
use std::fs::File;
use std::path::Path;

use crate::repository::{is_hex, is_path};
use crate::{Hub, Repository, Snapshot, Want};

pub(crate) const ELSEWHERE: &str = "or download the files elsewhere: give their folder by --text-model or --image-model, or \
    copy that machine's HF_HOME";

impl Hub {
    /// Downloads in a thread that a signal leaves behind, to end with the process: hf-hub's waiting cannot be stopped.
    pub(crate) fn download_until_stopped(&self, repository: &Repository, wants: &[Want]) -> Result<Snapshot> {
        let (hub, repository, wants) = (self.clone(), repository.clone(), wants.to_vec());
        interrupt::until_stopped(move || hub.download(&repository, &wants))
    }

    fn download(&self, repository: &Repository, wants: &[Want]) -> Result<Snapshot> {
        let subject = format!("`{repository}` at {}", self.endpoint);
        let api = self.api().map_err(|e| self.failure(&subject, &e))?;
        let info = api.repo(repository.at(&repository.revision)).info();
        let info = info.map_err(|e| self.failure(&subject, &e))?;
        if !is_hex(&info.sha, 40) {
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

    fn api(&self) -> Result<Api, ApiError> {
        ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_retries(5)
            .with_progress(tracing::enabled!(tracing::Level::INFO))
            .build()
    }

    /// Waits for other processes that download from the same repository: hf-hub itself gives up after five seconds.
    fn lock(&self, repository: &Repository) -> Result<File> {
        let folder = self.cache.join(".locks").join(repository.at("").folder_name());
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let file = File::create(folder.join("dsom.lock")).map_err(|e| Error::io(&folder, e))?;
        if file.try_lock().is_err() {
            tracing::info!("waiting for another process that downloads from `{repository}`");
            // Where a file system has no locks, hf-hub says so.
            let _ = file.lock();
        }
        Ok(file)
    }

    /// Downloads one file.
    fn bring(&self, api: &Api, repo: &ApiRepo, cache: &CacheRepo, name: &str) -> Result<()> {
        let address = repo.url(name);
        tracing::info!("downloading {address} into {}", self.cache.display());
        let file = api.metadata(&address).map_err(|e| self.failure(&address, &e))?;
        if !is_path(file.etag()) {
            return Err(Error::data(format!("{address}: the ETag `{}` is no name of a file", file.etag())));
        }
        let (size, part) = (file.size() as u64, cache.blob_path(file.etag()).with_extension("part"));
        require_disk(&self.cache, size, "the download", "set HF_HOME to a folder on a larger disk")?;
        // Of a part that is whole hf-hub would ask for the bytes after the last one, in vain.
        if part.metadata().is_ok_and(|part| part.len() >= size) {
            std::fs::remove_file(&part).map_err(|e| Error::io(&part, e))?;
        }
        verify(&repo.download(name).map_err(|e| self.failure(&address, &e))?)
    }

    /// hf-hub's error about an address or a repository, with a remedy.
    fn failure(&self, subject: &str, error: &ApiError) -> Error {
        let (kind, message, hint) = match (status(error), &self.token) {
            (Some(401 | 403), None) => (Kind::Missing, "access denied, no token was sent".into(), DENIED),
            (Some(401 | 403), _) => {
                (Kind::Missing, "access denied with the token that was sent".into(), DENIED)
            }
            (Some(404), _) => {
                (Kind::Missing, "not found".into(), "check the name, the revision and HF_TOKEN")
            }
            (Some(status), _) => (Kind::Io, format!("the server answered {status}"), "try again later"),
            (None, _) => (Kind::Io, error.to_string(), "check the connection and HF_ENDPOINT"),
        };
        Error::new(kind, format!("{subject}: {message}")).hint(format!("{hint}, {ELSEWHERE}"))
    }
}

const DENIED: &str = "check the name (the hub denies what does not exist, too); if it is private or gated, accept its \
    terms on its page and set HF_TOKEN";

/// The status with which the server refused, if it answered.
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

/// Compares a file with the digest that its blob is named after, and removes it if it is another: the SHA-256 of what lies
/// in large storage, git's object id (the SHA-1 of a header and the content) of what git keeps itself.
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

#[cfg(test)]
mod tests {
    #[test]
    fn the_digest_is_what_git_hash_object_prints() {
        assert_eq!(super::git_digest(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
    }
}
