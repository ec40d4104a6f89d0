//! Against a server on loopback that speaks the hub's protocol and misbehaves at will.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod access;
mod cache;
mod damage;
mod process;
mod server;
mod transfer;

use hub::{Repository, Settings, Snapshot, Token, Want};
use server::{COMMIT, Hub, NAME};
use stage::{Kind, Result};
use std::path::PathBuf;
use std::time::Duration;

/// A cache of its own, and the settings to use it with a server.
struct Client {
    dir: tempfile::TempDir,
    settings: Settings,
}

impl Client {
    fn of(hub: &Hub) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            endpoint: hub.address().to_owned(),
            cache: dir.path().to_owned(),
            token: None,
            offline: false,
            back_off: Duration::from_millis(1),
        };
        Client { dir, settings }
    }

    fn with_token(mut self, token: &str) -> Self {
        self.settings.token = Token::new(token);
        self
    }

    fn fetch(&self, revision: &str, wants: &[Want]) -> Result<Snapshot> {
        self.settings.fetch(&repository(revision), wants)
    }

    /// Fetches `model.bin` at `main`.
    fn model(&self) -> Result<Snapshot> {
        self.fetch("main", &[Want::required(&["model.bin"])])
    }

    /// What goes wrong with `model.bin`, with its hint.
    fn fails(&self, kind: Kind) -> String {
        let error = self.model().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let host = self.settings.host().unwrap();
        assert!(error.to_string().contains(NAME) && error.to_string().contains(&host), "{error}");
        format!("{error}\n{}", error.hint_text().unwrap_or_default())
    }

    /// The repository's part of the cache.
    fn folder(&self) -> PathBuf {
        self.dir.path().join("models--owner--model")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Names in a folder of the repository's part of the cache, sorted.
    fn listing(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn repository(revision: &str) -> Repository {
    Repository::new(NAME, revision).unwrap()
}

/// Bytes that do not repeat soon.
fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// The bytes of a snapshot's only file.
fn content(snapshot: &Snapshot) -> Vec<u8> {
    assert_eq!(snapshot.files.len(), 1);
    let file = &snapshot.files[0];
    let content = std::fs::read(&file.path).unwrap();
    assert_eq!((&file.sha256, file.bytes), (&stage::files::digest_of(&content), content.len() as u64));
    assert_eq!(snapshot.commit, COMMIT);
    content
}
