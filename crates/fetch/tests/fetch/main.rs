//! Against a server on loopback that misbehaves at will.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod manifest;
mod server;

use dsom_fetch::{Manifest, Options, fetch};
use server::{Fault, Server};
use stage::files::digest_of;
use stage::{Kind, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SMALL: &[u8] = b"a\tb\tc\n";

fn large() -> Vec<u8> {
    (0..100_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// A publisher of a dataset of two files and one of token ids, and a folder for them.
struct Publisher {
    server: Server,
    folder: tempfile::TempDir,
    manifest: String,
}

fn publisher(faults: &[Option<Fault>]) -> Publisher {
    let files: [(&str, &[u8]); 3] =
        [("/o/r/c/large", &large()), ("/o/r/c/data/small", SMALL), ("/o/r/c/tokens", b"[101, 102]")];
    let server = Server::start(&files, faults);
    let (large, small) = (digest_of(&large()), digest_of(SMALL));
    let manifest = format!(
        r#"
        source.s = {{ address = "{}/o/r/c", licence = "MIT" }}
        [dataset.d]
        citation = "One: A paper"
        elsewhere = ["The pictures are on a drive."]
        files = [
            {{ name = "large.bin", source = "s", path = "large", bytes = 400000, sha256 = "{large}" }},
            {{ name = "small.txt", source = "s", path = "data/small", bytes = 6, sha256 = "{small}" }},
        ]
        tokens = [{{ name = "tokens/t.json", source = "s", path = "tokens" }}]
        "#,
        server.address
    );
    Publisher { server, folder: tempfile::tempdir().unwrap(), manifest }
}

impl Publisher {
    fn options(&self) -> Options {
        let pause = Duration::from_millis(1);
        Options { out: self.folder.path().to_owned(), mirror: None, with_tokens: false, pause }
    }

    fn fetch(&self) -> Result<()> {
        fetch(&Manifest::parse(&self.manifest).unwrap(), "d", &self.options())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("d").join(name)
    }

    /// Everything is in place, and nothing else is.
    fn is_whole(&self) -> bool {
        let files = std::fs::read_dir(self.folder.path().join("d")).unwrap().count();
        files == 2 && read(&self.path("large.bin")) == large() && read(&self.path("small.txt")) == SMALL
    }

    /// The program itself, which must end with exit code `code` and say every one of `words`.
    #[track_caller]
    fn ends(&self, arguments: &[&str], mirror: Option<&str>, code: i32, words: &[&str]) {
        let manifest = self.folder.path().join("datasets.toml");
        std::fs::write(&manifest, &self.manifest).unwrap();
        let mut command = dsom_tests::program("dsom-fetch");
        command.env_remove("DSOM_MIRROR").envs(mirror.map(|at| ("DSOM_MIRROR", at)));
        command.args(arguments).arg("--manifest").arg(manifest).arg("--out").arg(self.folder.path());
        dsom_tests::ends(&command.output().unwrap(), code, words);
    }

    /// A fetch that fails in this way, and says every one of `words`.
    #[track_caller]
    fn fails(&self, kind: Kind, words: &[&str]) {
        let error = self.fetch().unwrap_err();
        assert_eq!(error.kind(), kind);
        let told = format!("{error}: {}", error.hint_text().unwrap_or_default());
        words.iter().for_each(|word| assert!(told.contains(word), "{word} is not in {told}"));
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn files_are_whole_and_fetched_once() {
    let publisher = publisher(&[]);
    publisher.fetch().unwrap();
    assert!(publisher.is_whole());
    assert_eq!(publisher.server.requests(), ["/o/r/c/large -", "/o/r/c/data/small -"]);
    publisher.fetch().unwrap();
    assert_eq!(publisher.server.requests().len(), 2, "fresh files ask nobody");
}

#[test]
fn a_broken_connection_is_gone_on_with() {
    let publisher = publisher(&[Some(Fault::Break), Some(Fault::Status(503)), Some(Fault::Break)]);
    publisher.fetch().unwrap();
    assert!(publisher.is_whole());
    let asked = ["-", "200000-", "200000-", "300000-"].map(|range| format!("/o/r/c/large {range}"));
    assert_eq!(publisher.server.requests()[..4], asked);
}

#[test]
fn a_later_start_goes_on_where_an_earlier_one_ended() {
    let publisher = publisher(&[Some(Fault::Break); 4]);
    publisher.fails(Kind::Io, &["/o/r/c/large: ", "DSOM_MIRROR"]);
    assert!(!publisher.path("large.bin").exists());
    publisher.fetch().unwrap();
    assert!(publisher.is_whole());
    assert_eq!(publisher.server.requests()[4], "/o/r/c/large 375000-");
}

#[test]
fn a_server_that_ignores_or_refuses_ranges_does_no_harm() {
    for fault in [Fault::NoRange, Fault::Status(416)] {
        let publisher = publisher(&[Some(Fault::Break), Some(fault)]);
        publisher.fetch().unwrap();
        assert!(publisher.is_whole());
    }
}

#[test]
fn a_wrong_digest_is_refused_and_not_kept() {
    for faults in [&[Some(Fault::Corrupt)][..], &[Some(Fault::Break), Some(Fault::Corrupt)]] {
        let publisher = publisher(faults);
        let mut other = large();
        *other.last_mut().unwrap() ^= 1;
        let digests = [large(), other].map(|bytes| digest_of(&bytes));
        let words = [&digests[0], &digests[1], "large.bin: ", "run the same command again"];
        publisher.fails(Kind::Data, &words);
        assert_eq!(std::fs::read_dir(publisher.folder.path().join("d")).unwrap().count(), 0);
        publisher.fetch().unwrap();
        assert!(publisher.is_whole());
    }
}

#[test]
fn a_file_that_is_not_what_was_published_is_fetched_anew() {
    let publisher = publisher(&[]);
    publisher.fetch().unwrap();
    std::fs::write(publisher.path("small.txt"), "a\tb\td\n").unwrap();
    publisher.fetch().unwrap();
    assert!(publisher.is_whole());
    assert_eq!(publisher.server.requests()[2..], ["/o/r/c/data/small -"]);
}

#[test]
fn what_is_not_found_and_who_is_not_there_is_named() {
    let mut publisher = publisher(&[]);
    publisher.manifest = publisher.manifest.replace("data/small", "data/gone");
    publisher.ends(&["d"], None, 74, &["/o/r/c/data/gone: not found"]);
    assert_eq!(publisher.server.requests().len(), 2, "what is gone is asked for once");
    publisher.manifest = publisher.manifest.replace(&publisher.server.address, "http://127.0.0.1:1");
    publisher.fails(Kind::Io, &["http://127.0.0.1:1/o/r/c/data/gone: "]);
}

#[test]
fn a_mirror_replaces_the_host_of_every_address() {
    let mut publisher = publisher(&[]);
    publisher.manifest = publisher.manifest.replace(&publisher.server.address, "https://nowhere.invalid");
    let words = ["to be cited: One: A paper", "MIT", "not fetched: The pictures are on a drive."];
    publisher.ends(&["d"], Some(&format!("{}/", publisher.server.address)), 0, &words);
    assert_eq!(publisher.server.requests(), ["/o/r/c/large -", "/o/r/c/data/small -"]);
    // Without a mirror nobody is asked.
    publisher.ends(&["d"], None, 0, &["fresh"]);
}

#[test]
fn token_ids_are_fetched_when_asked_for_and_their_digest_is_told() {
    let publisher = publisher(&[]);
    publisher.ends(&["d", "--tokens"], None, 0, &["no digest is known", &digest_of(b"[101, 102]")]);
    assert_eq!(read(&publisher.path("tokens/t.json")), b"[101, 102]");
    // An unknown dataset is a wrong call.
    publisher.ends(&["e"], None, 2, &["no dataset `e`", "known are d"]);
}

#[test]
fn two_processes_do_not_write_one_file() {
    let publisher = publisher(&[]);
    std::fs::create_dir(publisher.folder.path().join("d")).unwrap();
    let part = std::fs::File::create(publisher.path(".large.bin.part")).unwrap();
    part.lock().unwrap();
    publisher.fails(Kind::Interrupted, &[]);
}
