//! What the hub promises of a file's content, and whether it holds. A file's `ETag` is its digest: the SHA-256 of what
//! lies in large storage, git's own object id (the SHA-1 of a header and the content) of what git keeps itself.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use stage::files::hex;
use stage::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::repository::{is_commit, is_hex};

const BUFFER: usize = 1 << 20;

/// The digests of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) sha256: String,
    /// The object id that git gives to this content, where that was promised.
    git: Option<String>,
    pub(crate) bytes: u64,
}

impl Digest {
    /// Reads all of a file that should be what `etag` says.
    pub(crate) fn of(path: &Path, etag: &str) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
        let bytes = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let mut hasher = Hasher::new(etag, bytes);
        hasher.read(&mut file).map_err(|e| Error::io(path, e))?;
        Ok(hasher.finish())
    }

    /// Whether the content is what this `ETag` says; one that is no digest says nothing.
    pub(crate) fn keeps(&self, etag: &str) -> bool {
        match &self.git {
            Some(git) => git == etag,
            None => !is_sha256(etag) || self.sha256 == etag,
        }
    }
}

/// Whether this `ETag` is a digest at all.
pub(crate) fn is_digest(etag: &str) -> bool {
    is_sha256(etag) || is_commit(etag)
}

fn is_sha256(etag: &str) -> bool {
    etag.len() == 64 && is_hex(etag)
}

/// The digests while bytes come in.
pub(crate) struct Hasher {
    sha256: Sha256,
    git: Option<Sha1>,
    bytes: u64,
}

impl Hasher {
    /// Of content of this size (git's header begins with it) that should be what `etag` says.
    pub(crate) fn new(etag: &str, size: u64) -> Self {
        let git = is_commit(etag).then(|| Sha1::new_with_prefix(format!("blob {size}\0")));
        Hasher { sha256: Sha256::new(), git, bytes: 0 }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
        self.bytes += bytes.len() as u64;
    }

    /// Takes all that is left of `source`.
    pub(crate) fn read(&mut self, source: &mut impl Read) -> std::io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match source.read(&mut buffer)? {
                0 => return Ok(()),
                n => self.update(&buffer[..n]),
            }
        }
    }

    /// The bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn finish(self) -> Digest {
        let git = self.git.map(|git| hex(&git.finalize()));
        Digest { sha256: hex(&self.sha256.finalize()), git, bytes: self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_what_sha256sum_and_git_hash_object_print() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "hello\n").unwrap();
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        for (etag, kept) in [(sha256, true), (git, true), ("none", true), (&sha256.replace('5', "6"), false)]
        {
            let digest = Digest::of(&path, etag).unwrap();
            assert_eq!(
                (digest.sha256.as_str(), digest.bytes, digest.keeps(etag)),
                (sha256, 6, kept),
                "{etag}"
            );
        }
        let wrong = git.replace('c', "d");
        assert!(!Digest::of(&path, &wrong).unwrap().keeps(&wrong));
    }
}
