//! Repositories at a revision, and the files that are wanted of them.

use stage::{Error, Result};
use std::fmt;
use std::str::FromStr;

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
        if !is_path(&name) || name.matches('/').count() > 1 || name.contains("--") || !is_path(&revision) {
            return Err(Error::usage(format!("`{name}` at `{revision}` is no repository on the hub"))
                .hint("it is `owner/name`, at a branch, a tag or, better, the 40 digits of a commit"));
        }
        Ok(Repository { name, revision })
    }

    /// Tells whether the revision is a whole commit hash, whose files never change.
    pub fn is_pinned(&self) -> bool {
        is_hex(&self.revision, 40)
    }

    /// hf-hub's type for this repository, at another revision.
    pub(crate) fn at(&self, revision: &str) -> hf_hub::Repo {
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

/// A file that is wanted, under one of several names.
#[derive(Clone, Debug)]
pub struct Want {
    pub(crate) any_of: Vec<&'static str>,
    pub(crate) required: bool,
}

impl Want {
    /// A file that must be there, under the first of these names that the repository has.
    pub fn required(any_of: impl Into<Vec<&'static str>>) -> Self {
        Want { any_of: any_of.into(), required: true }
    }

    /// A file that may be absent.
    pub fn optional(name: &'static str) -> Self {
        Want { any_of: vec![name], required: false }
    }
}

/// Tells whether this is so many hexadecimal digits, as digests have them.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Tells whether a path stays inside the folder that it is put into.
pub(crate) fn is_path(path: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    path.split('/').all(|part| !part.is_empty() && part.chars().all(plain) && !part.starts_with('.'))
}

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
}
