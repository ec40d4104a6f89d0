//! Raw files of the published datasets, taken from their publishers' repositories at pinned commits.
//!
//! The [`Manifest`] knows every file's address, size and SHA-256. [`fetch`] leaves alone files that are in place and
//! correct, without using the network. Other files go to a temporary name, continue after a broken connection, and get
//! their final name once the digest is right.

pub mod command;
mod download;
mod manifest;

pub use manifest::{Dataset, Manifest, Wanted};

use stage::files::digest;
use stage::resources::{human, require_disk};
use stage::{Result, interrupt};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use download::Client;

/// The manifest of this project, `data/datasets.toml`.
pub const PUBLISHED: &str = include_str!("../../../data/datasets.toml");

/// The options of [`fetch`].
#[derive(Debug)]
pub struct Options {
    /// The folder for the folders of all datasets.
    pub out: PathBuf,
    /// The scheme and host that replace those of every address.
    pub mirror: Option<String>,
    /// True to fetch also files of token ids, whose digests are unknown.
    pub with_tokens: bool,
    /// The wait before a second attempt; it doubles for each further attempt.
    pub pause: Duration,
}

/// Fetches the files of a dataset that are not in place yet.
///
/// Errors are [`Usage`](stage::Kind::Usage) (no such dataset), [`Data`](stage::Kind::Data) (not the published digest),
/// [`Io`](stage::Kind::Io) (the connection, the publisher, the disk), [`Resource`](stage::Kind::Resource) (the disk is
/// too small) or [`Interrupted`](stage::Kind::Interrupted).
pub fn fetch(manifest: &Manifest, name: &str, options: Options) -> Result<()> {
    let (dataset, all) = (manifest.dataset(name)?, manifest.wanted(name, options.with_tokens)?);
    let folder = options.out.join(name);
    let lacking = lacking(&all, &options.out)?;
    if lacking.is_empty() {
        tracing::info!("{}: fresh, all {} files are in place", folder.display(), all.len());
        return Ok(());
    }
    let bytes = lacking.iter().filter_map(|file| file.bytes).sum();
    require_disk(&options.out, bytes, "the download", "give --out a folder on a larger disk")?;
    let more = if lacking.iter().any(|file| file.bytes.is_none()) { "more than " } else { "" };
    let (count, all, size, out) = (lacking.len(), all.len(), human(bytes), options.out.display());
    tracing::info!("{name}: {count} of {all} files to fetch, {more}{size}, into {out}");
    let licences: BTreeSet<&str> = lacking.iter().map(|file| file.licence.as_str()).collect();
    let licences = licences.into_iter().collect::<Vec<_>>().join(", ");
    tracing::info!("licences, as their publishers state them: {licences}; to be cited: {}", dataset.citation);
    interrupt::until_stopped(move || bring(lacking, &options))?;
    for sentence in &dataset.elsewhere {
        tracing::info!("not fetched: {sentence}");
    }
    tracing::info!("{}: all {all} files are in place", folder.display());
    Ok(())
}

/// The files that are absent or differ from the published ones.
fn lacking(all: &[Wanted], out: &Path) -> Result<Vec<Wanted>> {
    let mut lacking = Vec::new();
    for file in all {
        let target = out.join(&file.place);
        if target.exists() {
            if file.is(&digest(&target)?) {
                continue;
            }
            tracing::warn!("{}: not what was published, so it is fetched anew", target.display());
        }
        lacking.push(file.clone());
    }
    Ok(lacking)
}

fn bring(lacking: Vec<Wanted>, options: &Options) -> Result<()> {
    let client = Client::new(options.pause);
    for file in lacking {
        let (target, file) = (options.out.join(&file.place), file.on(options.mirror.as_deref()));
        let (sha256, bytes) = client.bring(&file, &target)?;
        let target = target.display();
        tracing::info!("{target}: {}", human(bytes));
        if file.sha256.is_none() {
            tracing::warn!("{target}: no digest is known to compare with; its SHA-256 is {sha256}");
        }
    }
    Ok(())
}
