//! The manifest `data/datasets.toml`: the files of each dataset, their addresses and their digests.

use serde::Deserialize;
use stage::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Datasets and the sources of their files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    source: BTreeMap<String, Source>,
    /// The datasets by name; a dataset's folder has the same name.
    pub dataset: BTreeMap<String, Dataset>,
}

/// A publisher's repository at a commit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    address: String,
    licence: String,
}

/// A dataset's files, and notes about them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// The publication to cite.
    pub citation: String,
    /// A sentence for each part that only a person can fetch.
    pub elsewhere: Vec<String>,
    #[serde(default)]
    shares: Vec<String>,
    files: Vec<File>,
    #[serde(default)]
    tokens: Vec<File>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    source: String,
    path: String,
    bytes: Option<u64>,
    sha256: Option<String>,
}

/// A wanted file: its address, its place and its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The path below the folder of all datasets, such as `mkg-w/train.txt`.
    pub place: PathBuf,
    /// The published address.
    pub address: String,
    /// The licence, as its publisher states it.
    pub licence: String,
    /// The size in bytes, if it is known.
    pub bytes: Option<u64>,
    /// The SHA-256 in hexadecimal digits, if it is known.
    pub sha256: Option<String>,
}

impl Manifest {
    /// Reads a manifest and checks every file that it names.
    pub fn parse(text: &str) -> Result<Self> {
        let manifest: Manifest = toml::from_str(text).map_err(|e| Error::data(e.to_string()))?;
        manifest.dataset.keys().try_for_each(|name| manifest.wanted(name, true).map(drop))?;
        Ok(manifest)
    }

    /// Returns the dataset of this name; an error lists the known names.
    pub fn dataset(&self, name: &str) -> Result<&Dataset> {
        self.dataset.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.dataset.keys().map(String::as_str).collect();
            Error::usage(format!("no dataset `{name}` is known"))
                .hint(format!("known are {}", names.join(", ")))
        })
    }

    /// Lists a dataset's own files, the files that it shares with other datasets, and with `with_tokens` its token ids.
    pub fn wanted(&self, name: &str, with_tokens: bool) -> Result<Vec<Wanted>> {
        let dataset = self.dataset(name)?;
        let tokens = dataset.tokens.iter().filter(|_| with_tokens);
        let own = dataset.files.iter().chain(tokens).map(|file| self.resolve(name, file));
        own.chain(dataset.shares.iter().map(|place| self.shared(place))).collect()
    }

    /// Returns the file of another dataset at `place`.
    fn shared(&self, place: &str) -> Result<Wanted> {
        let (owner, name) = place.split_once('/').unwrap_or_default();
        let file = self.dataset.get(owner).and_then(|of| of.files.iter().find(|file| file.name == name));
        let file = file.ok_or_else(|| Error::data(format!("no dataset has the shared file `{place}`")))?;
        self.resolve(owner, file)
    }

    fn resolve(&self, dataset: &str, file: &File) -> Result<Wanted> {
        let place = Path::new(dataset).join(&file.name);
        let source = self.source.get(&file.source);
        let source =
            source.ok_or_else(|| Error::data(format!("no source `{}` is described", file.source)))?;
        if !place.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Error::data(format!("`{}` leaves its folder", place.display())));
        }
        Ok(Wanted {
            place,
            address: format!("{}/{}", source.address, file.path),
            licence: source.licence.clone(),
            bytes: file.bytes,
            sha256: file.sha256.clone(),
        })
    }
}

impl Wanted {
    /// The same file on a mirror, which replaces the scheme and the host of its address.
    pub fn on(mut self, mirror: Option<&str>) -> Self {
        if let Some(mirror) = mirror {
            let rest = self.address.split_once("://").map_or("", |(_, rest)| rest);
            let path = rest.find('/').map_or("", |slash| &rest[slash..]);
            self.address = format!("{}{path}", mirror.trim_end_matches('/'));
        }
        self
    }

    /// Tells whether a digest and a size match this file, as far as its own are known.
    pub fn is(&self, (sha256, bytes): &(String, u64)) -> bool {
        self.bytes.is_none_or(|known| known == *bytes)
            && self.sha256.as_ref().is_none_or(|known| known == sha256)
    }
}
