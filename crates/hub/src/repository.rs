//! What is asked for: a repository at a revision, and files of it. Names come from recipes and from downloaded indexes,
//! and become folders and addresses, so they are checked once, here.

use stage::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The revision where none is given.
const DEFAULT_REVISION: &str = "main";
/// The hub's own limit.
const MAX_NAME: usize = 96;

/// A model repository at a revision.
///
/// ```
/// use hub::Repository;
/// let repository: Repository = "google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594".parse()?;
/// assert_eq!(repository.name, "google-bert/bert-base-uncased");
/// assert!(repository.is_pinned());
/// assert_eq!("gpt2".parse::<Repository>()?.revision, "main");
/// assert!("../secrets".parse::<Repository>().is_err());
/// # Ok::<(), stage::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repository {
    /// `owner/name`, or the name alone of the few that have no owner.
    pub name: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl Repository {
    /// A repository at a revision; a usage error where one of them cannot be a name on the hub.
    pub fn new(name: impl Into<String>, revision: impl Into<String>) -> Result<Self> {
        let (name, revision) = (name.into(), revision.into());
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 2 || name.len() > MAX_NAME || !parts.iter().all(|part| is_name(part)) {
            return Err(Error::usage(format!("`{name}` is no name of a repository on the hub"))
                .hint("it is `owner/name`: letters, digits, `-`, `_` and `.`"));
        }
        if !is_path(&revision) {
            return Err(Error::usage(format!("`{revision}` is no revision of a repository on the hub"))
                .hint("give a branch, a tag or, better, the 40 digits of a commit"));
        }
        Ok(Repository { name, revision })
    }

    /// Whether the revision is a whole commit hash, whose files never change.
    pub fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }
}

impl FromStr for Repository {
    type Err = Error;

    /// `owner/name`, or `owner/name@revision`.
    fn from_str(text: &str) -> Result<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        Repository::new(name, revision)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.revision)
    }
}

/// A file that is wanted, under one of several names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Its names, the preferred one first; one file is fetched.
    pub any_of: Vec<String>,
    /// Whether it is an error that the repository has none of them.
    pub required: bool,
}

impl Want {
    /// A file that must be there, under the first of these names that the repository has.
    pub fn required(any_of: &[&str]) -> Self {
        Want { any_of: any_of.iter().map(|&name| name.to_owned()).collect(), required: true }
    }

    /// The same of a file that may be absent.
    pub fn optional(any_of: &[&str]) -> Self {
        Want { required: false, ..Want::required(any_of) }
    }

    /// Its names, for messages.
    pub(crate) fn names(&self) -> String {
        self.any_of.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self.any_of.iter().find(|name| !is_path(name)) {
            Some(name) => Err(Error::usage(format!("`{name}` is no name of a file in a repository"))),
            None if self.any_of.is_empty() => Err(Error::usage("a file without a name is wanted")),
            None => Ok(()),
        }
    }
}

/// Whether this is a whole commit hash.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && is_hex(revision)
}

/// Whether these are hexadecimal digits as digests have them.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The hub's rule for owners and names.
fn is_name(part: &str) -> bool {
    let edge = |letter: Option<char>| letter.is_some_and(|letter| letter != '-' && letter != '.');
    let whole = !part.contains("..") && !part.contains("--") && !part.ends_with(".git");
    edge(part.chars().next()) && edge(part.chars().last()) && whole && part.chars().all(is_plain)
}

/// Names of files and revisions: segments that stay inside the folder that they are put into.
fn is_path(path: &str) -> bool {
    let stays = |part: &str| !part.is_empty() && part.chars().all(is_plain) && !part.starts_with('.');
    path.split('/').all(stays)
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use stage::Kind;

    #[test]
    fn names_of_the_hub_are_names() {
        for name in
            ["gpt2", "google-bert/bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2", "a/b.c_d"]
        {
            assert_eq!(name.parse::<Repository>().unwrap().name, name);
        }
        let revisions = ["main", "v1.0", "refs/pr/1", "feature/x"];
        assert!(revisions.iter().all(|revision| Repository::new("a/b", *revision).is_ok()));
    }

    #[test]
    fn what_could_leave_the_cache_is_refused() {
        let names = [
            "", "/", "a/", "/b", "a/b/c", "..", "a/..", "../a", "a/b..c", "a b", "a/.b", "a/b-", "a--b",
            "a/é", "a/b.git",
        ];
        for name in names {
            assert_eq!(name.parse::<Repository>().unwrap_err().kind(), Kind::Usage, "{name}");
        }
        assert!("a".repeat(97).parse::<Repository>().is_err());
        for revision in ["", "..", "a/../b", "/main", "main/", ".hidden", "a b", "a\\b", "a?b"] {
            assert_eq!(Repository::new("a/b", revision).unwrap_err().kind(), Kind::Usage, "{revision}");
        }
        for file in ["../x", "/x", "a//b", "", "a/..", "a%2f"] {
            assert_eq!(Want::required(&[file]).check().unwrap_err().kind(), Kind::Usage, "{file}");
        }
        assert!(Want::required(&["1_Pooling/config.json", "x"]).check().is_ok());
        assert!(Want::required(&[]).check().is_err());
    }

    #[test]
    fn only_a_whole_hash_is_pinned() {
        let pinned = |revision: &str| Repository::new("a/b", revision).unwrap().is_pinned();
        assert!(pinned(&"0a".repeat(20)));
        assert!(!pinned("0a0a0a0"));
        assert!(!pinned(&"0g".repeat(20)));
    }
}
