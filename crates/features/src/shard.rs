//! A share of the batches, for array jobs.
//!
//! Which texts or images are encoded together is decided for the whole graph, and a shard takes every so many-th
//! batch: so shards are of about the same work, and what they give is the same to the bit as without them.

use stage::task::Task;
use stage::{Error, Modality, Result, Run};
use std::fmt;
use std::str::FromStr;

/// Shard `index`, from 1, of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, from 1.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

impl Shard {
    /// All of the work.
    pub const WHOLE: Shard = Shard { index: 1, of: 1 };

    /// Whether batch `number`, from 0, belongs to it.
    ///
    /// ```
    /// use dsom_features::shard::Shard;
    /// let shard: Shard = "2/3".parse().unwrap();
    /// assert_eq!((0..8).filter(|i| shard.has(*i)).collect::<Vec<_>>(), [1, 4, 7]);
    /// ```
    pub fn has(self, number: usize) -> bool {
        number % self.of == self.index - 1
    }

    /// All shards of so many.
    pub fn all(of: usize) -> impl Iterator<Item = Shard> {
        (1..=of).map(move |index| Shard { index, of })
    }

    /// Its share of the `task` that makes a modality's features, in a folder beside theirs. No modality is called so.
    pub fn task(self, run: &Run, modality: &Modality, task: &Task) -> Task {
        let folder = format!("{modality}.shard-{}-of-{}", self.index, self.of);
        task.part(run.root().join("features").join(folder), "shard", self.to_string())
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Shard> {
        let parts =
            text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((index, of)) if index >= 1 && index <= of => Ok(Shard { index, of }),
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
    fn only_shards_are_parsed() {
        assert_eq!("3/3".parse::<Shard>().unwrap(), Shard { index: 3, of: 3 });
        for text in ["0/3", "4/3", "1/0", "1", "a/b", "-1/2", ""] {
            assert_eq!(text.parse::<Shard>().unwrap_err().kind(), stage::Kind::Usage, "{text}");
        }
    }

    #[test]
    fn every_batch_is_in_one_shard() {
        for of in 1..5 {
            for number in 0..20 {
                assert_eq!(Shard::all(of).filter(|shard| shard.has(number)).count(), 1);
            }
        }
    }
}
