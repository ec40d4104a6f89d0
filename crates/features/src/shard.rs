//! A share of the batches, for array jobs.

use stage::task::Task;
use stage::{Error, Modality, Result, Run};
use std::fmt;
use std::str::FromStr;

/// Shard `index`, from 1, of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    index: usize,
    of: usize,
}

impl Shard {
    /// Returns whether batch `number`, from 0, belongs to it.
    pub(crate) fn has(self, number: usize) -> bool {
        number % self.of == self.index - 1
    }

    /// All shards of so many.
    pub(crate) fn all(of: usize) -> impl Iterator<Item = Shard> {
        (1..=of).map(move |index| Shard { index, of })
    }

    /// Its share of the `task` that makes a modality's features, in a folder beside theirs. No modality is called so.
    pub(crate) fn task(self, run: &Run, modality: &Modality, task: &Task) -> Task {
        let folder = format!("{modality}.shard-{}-of-{}", self.index, self.of);
        task.part(run.root().join("features").join(folder), "shard", self.to_string())
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Shard> {
        let parts = text.split_once('/').map(|(index, of)| (index.parse(), of.parse()));
        match parts {
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
