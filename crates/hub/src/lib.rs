//! Checkpoints from the Hugging Face hub, in the cache that its other tools share.
//!
//! [`fetch`] brings files of a [`Repository`] at a revision into the cache and says what they are: where, at which commit,
//! with which digest. Files that Python's huggingface_hub (or anything else with its cache) fetched are used, and the other
//! way round. A revision that is a whole commit hash, and cached, is answered without the network.
//!
//! - **Whole or absent.** A download that was cut off, by the network or by a signal, continues at its last byte, now or
//!   the next time; its digest is checked before it counts, and again whenever it is asked for.
//! - **Patient.** Dropped connections, 429 and 5xx are tried again with growing pauses, as long as the server asks for up to a
//!   minute, and given up after six failures in a row.
//! - **Together.** Processes that want the same file wait for the one that downloads it.
//! - **Discreet.** The token goes to the endpoint's host alone, and into no log, error or file.
//!
//! The environment variables are those of huggingface_hub:
//!
//! | variable | what it says | where it is not set |
//! |---|---|---|
//! | `HF_ENDPOINT` | the hub's address, of a mirror for example | `https://huggingface.co` |
//! | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` | the folder of the cache | `hub` in `HF_HOME` |
//! | `HF_HOME` | the folder of cache and token | `huggingface` in `XDG_CACHE_HOME`, or in `~/.cache` |
//! | `HF_TOKEN` | the token for private and gated repositories | what the file `HF_TOKEN_PATH` says, or `HF_HOME/token` |
//! | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | `1`: no token is sent | |
//! | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | `1`: only what is cached is used | |
//! | `SSL_CERT_FILE`, `SSL_CERT_DIR` | certificates that are trusted | the system's |
//! | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` | a proxy, and what goes without it | no proxy |
//!
//! ```no_run
//! use hub::Want;
//! let repository = "google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594".parse()?;
//! let weights = Want::required(&["model.safetensors", "pytorch_model.bin"]);
//! let snapshot = hub::fetch(&repository, &[Want::required(&["config.json"]), weights])?;
//! println!("{} at {}: {}", snapshot.folder.display(), snapshot.commit, snapshot.files[1].sha256);
//! # Ok::<(), stage::Error>(())
//! ```

mod cache;
mod checksum;
mod download;
mod fetch;
mod patience;
mod refusal;
mod remote;
mod repository;
mod settings;

pub use repository::{Repository, Want};
pub use settings::{Settings, Token};

use stage::Result;
use std::path::PathBuf;

/// Files of a repository, as they lie in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder that holds them, and perhaps others of the same commit.
    pub folder: PathBuf,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// One per want, in their order; none for an optional one that the repository does not have.
    pub files: Vec<File>,
}

impl Snapshot {
    /// The file of this name, if it is among those that were wanted.
    pub fn file(&self, name: &str) -> Option<&File> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// One file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path in the repository.
    pub name: String,
    /// Where it is, a link in the snapshot's folder.
    pub path: PathBuf,
    /// The SHA-256 of its content as hexadecimal digits.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// [`Settings::fetch`] with the settings of the environment.
pub fn fetch(repository: &Repository, wants: &[Want]) -> Result<Snapshot> {
    Settings::from_environment()?.fetch(repository, wants)
}

/// [`Settings::cached`] with the settings of the environment.
pub fn cached(repository: &Repository, wants: &[Want]) -> Result<Option<Snapshot>> {
    Settings::from_environment()?.cached(repository, wants)
}
