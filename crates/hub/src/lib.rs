//! Checkpoints from the Hugging Face hub: an adapter over [hf-hub](hf_hub), whose cache other tools share.
//!
//! [`Hub::fetch`] brings files of a [`Repository`] at a revision into the cache. hf-hub downloads and, where a connection broke,
//! continues; added here are the digest (a blob is named after the one that the hub promised, and what comes is compared with
//! it), one download of a repository at a time, interruption, and errors that say what to do.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `HF_ENDPOINT` | the hub's address, of a mirror for example | `https://huggingface.co` |
//! | `HF_HUB_CACHE` | the folder of the cache | `hub` in `HF_HOME` |
//! | `HF_HOME` | the folder of cache and token | `~/.cache/huggingface` |
//! | `HF_TOKEN` | the token for private and gated repositories | the content of `HF_TOKEN_PATH`, or of `HF_HOME/token` |
//! | `HF_HUB_OFFLINE` | `1`: only cached files are used | |
//! | `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | a proxy, and the hosts that need none | no proxy |
//!
//! hf-hub sends the token also to the host that the hub redirects large files to.
//!
//! ```no_run
//! use hub::{Hub, Want};
//! let repository = "google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594".parse()?;
//! let weights = Want::required(["model.safetensors", "pytorch_model.bin"]);
//! let snapshot = Hub::from_environment().fetch(&repository, &[Want::required(["config.json"]), weights])?;
//! println!("{} at {}", snapshot.folder.display(), snapshot.commit);
//! # Ok::<(), stage::Error>(())
//! ```

mod download;
mod repository;

pub use repository::{Repository, Want};

use stage::{Error, Result};
use std::path::PathBuf;

/// Files of a repository, as they lie in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder that holds them, and perhaps others of the same commit.
    pub folder: PathBuf,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
}

impl Snapshot {
    fn holds(&self, want: &Want) -> bool {
        want.any_of.iter().any(|name| self.folder.join(name).exists())
    }
}

/// The hub's address, its cache, and who asks.
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
    /// The hub as the environment of this process describes it (see the table of [this crate](crate)).
    pub fn from_environment() -> Self {
        Hub::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = given("HF_HOME").map(|home| hf_hub::Cache::new(PathBuf::from(home).join("hub")));
        let home = home.unwrap_or_default();
        let stored = given("HF_TOKEN_PATH").map_or_else(|| home.token_path(), PathBuf::from);
        let token = given("HF_TOKEN").or_else(|| std::fs::read_to_string(stored).ok());
        let endpoint = given("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let offline = given("HF_HUB_OFFLINE").unwrap_or_default().to_uppercase();
        Hub {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: given("HF_HUB_CACHE").map_or_else(|| home.path().clone(), PathBuf::from),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline: ["1", "ON", "YES", "TRUE"].contains(&offline.as_str()),
        }
    }

    /// The files of a repository, downloaded where they are not cached yet.
    ///
    /// Errors are [`Missing`](stage::Kind::Missing) (no such repository, revision or file, no access, or not cached while
    /// offline), [`Data`](stage::Kind::Data) (not the digest that was promised), [`Io`](stage::Kind::Io) (the connection, the
    /// disk), [`Resource`](stage::Kind::Resource) (the disk is too small) or [`Interrupted`](stage::Kind::Interrupted).
    pub fn fetch(&self, repository: &Repository, wants: &[Want]) -> Result<Snapshot> {
        let settled = |snapshot: &Snapshot| {
            self.offline || repository.is_pinned() && wants.iter().all(|want| snapshot.holds(want))
        };
        match self.cached(repository, wants).filter(settled) {
            Some(snapshot) => Ok(snapshot),
            None if self.offline => {
                let snapshot = self.snapshot(repository);
                let here = |want: &Want| snapshot.as_ref().is_some_and(|snapshot| snapshot.holds(want));
                let lacking = wants.iter().filter(|want| want.required && !here(want));
                let names: Vec<String> = lacking.map(|want| want.any_of.join(" or ")).collect();
                let names = names.join(", ");
                let message = format!("HF_HUB_OFFLINE is set, and `{repository}` is cached without {names}");
                let hint = format!("unset it to download, {}", download::ELSEWHERE);
                Err(Error::missing(message).at(&self.cache).hint(hint))
            }
            None => self.download_until_stopped(repository, wants),
        }
    }

    /// The files of a repository, if the cache holds all that are required; the network is not touched. A branch or tag is at
    /// the commit where it was when it was last fetched.
    pub fn cached(&self, repository: &Repository, wants: &[Want]) -> Option<Snapshot> {
        let snapshot = self.snapshot(repository)?;
        wants.iter().all(|want| !want.required || snapshot.holds(want)).then_some(snapshot)
    }

    /// Folder of a repository's files in the cache, if the commit is known.
    fn snapshot(&self, repository: &Repository) -> Option<Snapshot> {
        let folder = self.cache.join(repository.at("").folder_name());
        let commit = if repository.is_pinned() {
            repository.revision.clone()
        } else {
            std::fs::read_to_string(folder.join("refs").join(&repository.revision)).ok()?
        };
        Some(Snapshot { folder: folder.join("snapshots").join(&commit), commit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_that_of_huggingface_hub() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "stored\n").unwrap();
        let home = home.path().display().to_string();
        let hub = |name: &str, value: &str| {
            let set = [("HF_HOME", home.as_str()), (name, value)];
            Hub::read(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        let plain = hub("HF_HUB_OFFLINE", "0");
        assert_eq!((plain.cache, plain.offline), (PathBuf::from(&home).join("hub"), false));
        assert_eq!(
            (plain.endpoint.as_str(), plain.token.as_deref()),
            ("https://huggingface.co", Some("stored"))
        );
        assert_eq!(hub("HF_TOKEN", "given").token.as_deref(), Some("given"));
        assert_eq!(hub("HF_TOKEN_PATH", "/nowhere").token, None);
        assert_eq!(hub("HF_HUB_CACHE", "/c").cache, PathBuf::from("/c"));
        assert_eq!(hub("HF_ENDPOINT", "http://x/").endpoint, "http://x");
        assert!(hub("HF_HUB_OFFLINE", "true").offline);
    }
}
