//! Shares of a stage's work for array jobs: each shard writes a separate folder, and one last call merges the shards.

use clap::Args;
use stage::manifest::{self, FILE, Manifest};
use stage::task::{Status, Task};
use stage::{Error, Result};
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Common;

/// Arguments of a stage whose work can be split into shards.
#[derive(Args, Clone, Copy, Debug)]
pub struct Sharing {
    /// Do only every N-th part of the work, starting with part I, in a separate folder, for array jobs; then --merge N
    #[arg(long, value_name = "I/N", conflicts_with = "merge")]
    pub shard: Option<Shard>,
    /// Merge N finished shards and remove their folders; the result has the same bytes as without shards
    #[arg(long, value_name = "N")]
    pub merge: Option<NonZeroUsize>,
}

/// Shard number `index`, from 1, of `of` shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    of: usize,
}

impl Shard {
    /// Tells whether part `number` of the work, from 0, belongs to this shard.
    pub fn has(self, number: usize) -> bool {
        number % self.of == self.index - 1
    }

    /// The shard's part of a task, in a folder beside that of the `whole`.
    fn of_task(self, whole: &Task) -> Task {
        let mut folder = whole.folder().as_os_str().to_owned();
        folder.push(format!(".shard-{}-of-{}", self.index, self.of));
        whole.part(folder.into(), "shard", self.to_string())
    }

    /// All `of` shards.
    fn all(of: usize) -> impl Iterator<Item = Shard> {
        (1..=of).map(move |index| Shard { index, of })
    }
}

/// The finished shards of a task: folders and manifests.
pub struct Shards(Vec<(PathBuf, Manifest)>);

impl Shards {
    /// The `count` shards of a task.
    ///
    /// # Errors
    /// [`stage::Kind::Missing`] if a shard is not finished or belongs to another task; [`stage::Kind::Data`] if a file
    /// differs from the shard's record of it.
    pub fn of(whole: &Task, count: NonZeroUsize) -> Result<Shards> {
        Shard::all(count.get())
            .map(|shard| finished(&shard.of_task(whole)))
            .collect::<Result<_>>()
            .map(Shards)
    }

    /// The manifest of the first shard; its summary is the same in all shards.
    pub fn manifest(&self) -> &Manifest {
        &self.0[0].1
    }

    /// The files of all shards.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.0.iter().flat_map(|(folder, shard)| shard.outputs.iter().map(|file| folder.join(&file.path)))
    }
}

impl Common {
    /// The task itself, or a shard of it in a folder beside. `None` for a shard if the `whole` is fresh and not forced.
    pub fn share(&self, whole: Task, shard: Option<Shard>) -> Option<Task> {
        let Some(shard) = shard else { return Some(whole) };
        if !self.force && !self.is_status() && whole.status() == Status::Fresh {
            tracing::info!("{} is fresh, and needs no shard", whole.folder().display());
            return None;
        }
        Some(shard.of_task(&whole))
    }

    /// Removes the folders of the `count` shards of a finished task, also those that a killed call left. With
    /// `--status`, removes nothing.
    ///
    /// # Errors
    /// [`stage::Kind::Io`] if a folder cannot be removed.
    pub fn after_merging(&self, whole: &Task, count: NonZeroUsize) -> Result<()> {
        let folders = Shard::all(count.get()).map(|shard| shard.of_task(whole).folder().to_owned());
        let mut folders = folders.filter(|folder| !self.is_status() && folder.join(FILE).is_file());
        folders.try_for_each(|folder| remove(&folder))
    }
}

fn remove(folder: &Path) -> Result<()> {
    // The manifest goes last: without it, the folder would count as written by another program.
    let files = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?.flatten();
    let others = files.map(|file| file.path()).filter(|path| !path.ends_with(FILE));
    others
        .chain([folder.join(FILE)])
        .try_for_each(std::fs::remove_file)
        .and_then(|()| std::fs::remove_dir(folder))
        .map_err(|e| Error::io(folder, e))
}

/// A shard's folder and its `stage.json`.
fn finished(shard: &Task) -> Result<(PathBuf, Manifest)> {
    match shard.status() {
        Status::Fresh => Ok((shard.folder().to_owned(), manifest::verify(shard.folder())?)),
        other => {
            let error = Error::missing(format!("this shard is {other}")).at(shard.folder());
            Err(error.hint("run it with the same recipe and --shard"))
        }
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Shard> {
        match text.split_once('/').map(|(index, of)| (index.parse(), of.parse())) {
            Some((Ok(index), Ok(of))) if (1..=of).contains(&index) => Ok(Shard { index, of }),
            _ => {
                Err(Error::usage(format!("`{text}` is no shard")).hint("I/N with I from 1 to N, such as 2/8"))
            }
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shards_are_parsed_and_every_batch_is_in_one() {
        let parsed = "3/3".parse::<Shard>().unwrap();
        assert_eq!(Shard::all(3).last(), Some(parsed));
        assert_eq!((0..8).filter(|i| parsed.has(*i)).collect::<Vec<_>>(), [2, 5]);
        assert!((0..20).all(|i| Shard::all(3).filter(|shard| shard.has(i)).count() == 1));
        for text in ["0/3", "4/3", "1/0", "1", "a/b", "-1/2", ""] {
            assert_eq!(text.parse::<Shard>().unwrap_err().kind(), stage::Kind::Usage, "{text}");
        }
    }
}
