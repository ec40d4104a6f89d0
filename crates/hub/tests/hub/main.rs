//! Tests against a server on loopback that speaks the hub's protocol and answers with faults on request.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod server;

use hub::{Hub, Repository, Snapshot, Want};
use server::{COMMIT, FakeHub, Fault, NAME};
use stage::files::digest_of;
use stage::{Kind, Result};

/// A hub with an empty cache, and a server with a small file in git and a large file in large storage.
struct Client {
    _cache: tempfile::TempDir,
    server: FakeHub,
    hub: Hub,
}

fn weights() -> Vec<u8> {
    (0..300_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn client(faults: &[Fault]) -> Client {
    let server = FakeHub::start()
        .file("config.json", "ce013625030ba8dba906f756967f9e9ca394464a", b"hello\n")
        .file("model.bin", &digest_of(&weights()), &weights())
        .faults(faults);
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, cache) = (server.address.clone(), folder.path().to_owned());
    Client { _cache: folder, server, hub: Hub { endpoint, cache, token: None, offline: false } }
}

impl Client {
    fn fetch(&self, revision: &str) -> Result<Snapshot> {
        let wants = [Want::required(["config.json"]), Want::required(["none.bin", "model.bin"])];
        let optional = Want::optional("tokenizer.json");
        self.hub.fetch(&Repository::new(NAME, revision).unwrap(), &[&wants[..], &[optional]].concat())
    }

    /// Asserts that a fetch fails with this kind and caches nothing; returns the error's message and hint.
    fn fails(&self, kind: Kind) -> String {
        let error = self.fetch("main").unwrap_err();
        let said = format!("{error}: {}", error.hint_text().unwrap());
        assert_eq!(error.kind(), kind, "{said}");
        assert!(self.hub.cached(&NAME.parse().unwrap(), &[Want::required(["model.bin"])]).is_none());
        said
    }
}

#[test]
fn files_are_whole_and_downloaded_once() {
    let client = client(&[]);
    let snapshot = client.fetch("main").unwrap();
    assert_eq!(snapshot.commit, COMMIT);
    assert_eq!(std::fs::read(snapshot.folder.join("model.bin")).unwrap(), weights());
    let repository = client.hub.cache.join("models--owner--model");
    assert_eq!(std::fs::read(repository.join("blobs").join(digest_of(&weights()))).unwrap(), weights());
    let requests = client.server.requests().len();
    assert_eq!(client.fetch("main").unwrap(), snapshot);
    assert_eq!(client.server.requests().len(), requests + 1, "where the branch is");
    // A cached pinned commit needs no request.
    let pinned = Repository::new(NAME, COMMIT).unwrap();
    assert_eq!(client.hub.fetch(&pinned, &[Want::required(["model.bin"])]).unwrap(), snapshot);
    assert_eq!(client.server.requests().len(), requests + 1);
}

#[test]
fn offline_only_cached_files_are_used() {
    let mut client = client(&[]);
    client.hub.offline = true;
    let said = client.fails(Kind::Missing);
    assert!(said.contains("HF_HUB_OFFLINE is set, and `owner/model@main` is cached without "), "{said}");
    assert!(client.server.requests().is_empty());
    client.hub.offline = false;
    let snapshot = client.fetch("main").unwrap();
    let requests = client.server.requests().len();
    client.hub.offline = true;
    assert_eq!(client.fetch("main").unwrap(), snapshot);
    assert_eq!(client.server.requests().len(), requests);
}

#[test]
fn a_wrong_digest_is_refused_and_not_kept() {
    for faults in [&[Fault::Corrupt][..], &[Fault::Break, Fault::Corrupt]] {
        let client = client(faults);
        let said = client.fails(Kind::Data);
        assert!(said.contains("damaged") && said.contains("run the same command again"), "{said}");
        client.fetch("main").unwrap();
    }
}

#[test]
fn a_broken_connection_is_continued_and_in_the_end_an_error() {
    let patient = client(&[Fault::Break; 3]);
    let snapshot = patient.fetch("main").unwrap();
    assert_eq!(std::fs::read(snapshot.folder.join("model.bin")).unwrap(), weights());
    let broken = client(&[Fault::Break; 40]);
    let said = broken.fails(Kind::Io);
    assert!(said.contains("/config.json: ") && said.contains("check the connection"), "{said}");
}

#[test]
fn refusals_say_what_to_do() {
    let cases =
        [(401, Kind::Missing, "HF_TOKEN"), (404, Kind::Missing, "check the name"), (503, Kind::Io, "later")];
    for (status, kind, remedy) in cases {
        let client = client(&[Fault::Status(status)]);
        let said = client.fails(kind);
        assert!([NAME, &client.hub.endpoint, remedy].iter().all(|part| said.contains(part)), "{said}");
    }
    let mut nowhere = client(&[]);
    nowhere.hub.endpoint = "http://127.0.0.1:1".to_owned();
    assert!(nowhere.fails(Kind::Io).contains("check the connection"));
    let client = client(&[]);
    let error = client.hub.fetch(&NAME.parse().unwrap(), &[Want::required(["a.bin", "b.bin"])]).unwrap_err();
    assert_eq!(error.kind(), Kind::Missing);
    assert!(error.to_string().ends_with("has no file `a.bin` or `b.bin`"), "{error}");
}

#[test]
fn the_token_is_sent_and_not_shown() {
    let mut client = client(&[Fault::Status(403)]);
    client.hub.token = Some("hf_secret".to_owned());
    assert!(!client.fails(Kind::Missing).contains("hf_secret"));
    client.fetch("main").unwrap();
    assert!(client.server.requests().iter().all(|request| request.contains("Bearer hf_secret")));
}
