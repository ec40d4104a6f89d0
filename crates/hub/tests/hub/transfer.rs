//! Bytes that come, or come in pieces.

use crate::server::{COMMIT, Fault, Hub, Of};
use crate::{Client, bytes, content};
use hub::Want;
use stage::Kind;
use std::time::{Duration, Instant};

const LENGTH: usize = 300_000;

fn hub() -> Hub {
    Hub::start().large("model.bin", &bytes(LENGTH))
}

#[test]
fn files_lie_where_huggingface_hub_puts_them() {
    let hub = hub().small("config.json", b"{}").small("1_Pooling/config.json", b"[]");
    let client = Client::of(&hub);
    let wants = ["config.json", "1_Pooling/config.json", "model.bin"].map(|name| Want::required(&[name]));
    let snapshot = client.fetch("main", &wants).unwrap();
    assert_eq!(snapshot.folder, client.path(&format!("snapshots/{COMMIT}")));
    assert_eq!(std::fs::read_to_string(client.path("refs/main")).unwrap(), COMMIT);
    let contents: Vec<Vec<u8>> =
        snapshot.files.iter().map(|file| std::fs::read(&file.path).unwrap()).collect();
    assert_eq!(contents, [b"{}".to_vec(), b"[]".to_vec(), bytes(LENGTH)]);
    let sha256 = &snapshot.file("model.bin").unwrap().sha256;
    // What `git hash-object` says of `{}` and `[]`.
    let (object, array) =
        ("9e26dfeeb6e641a33dae4961196235bdb965b21b", "0637a088a01e8ddab3bf3fa98dbe804cbde1a0dc");
    let mut blobs = vec![object, array, sha256.as_str()];
    blobs.sort();
    assert_eq!(client.listing("blobs"), blobs);
    let link = |file: usize| std::fs::read_link(&snapshot.files[file].path).unwrap();
    assert_eq!(link(0).to_str().unwrap(), format!("../../blobs/{object}"));
    assert_eq!(link(1).to_str().unwrap(), format!("../../../blobs/{array}"));
}

#[test]
fn a_dropped_connection_is_continued() {
    let hub = hub().fault(Of::Content, Fault::Drop(100_000)).fault(Of::Content, Fault::Drop(50_000));
    assert_eq!(content(&Client::of(&hub).model().unwrap()), bytes(LENGTH));
    assert_eq!(hub.ranges(), [None, Some("bytes=100000-".into()), Some("bytes=150000-".into())]);
}

#[test]
fn what_an_earlier_process_left_is_continued() {
    let hub = hub();
    let client = Client::of(&hub);
    let sha256 = stage::files::digest_of(&bytes(LENGTH));
    std::fs::create_dir_all(client.path("blobs")).unwrap();
    std::fs::write(client.path(&format!("blobs/{sha256}.incomplete")), &bytes(LENGTH)[..LENGTH - 1]).unwrap();
    assert_eq!(content(&client.model().unwrap()), bytes(LENGTH));
    assert_eq!(hub.ranges(), [Some(format!("bytes={}-", LENGTH - 1))]);
    assert_eq!(client.listing("blobs"), [sha256]);
}

#[test]
fn a_part_that_is_whole_is_only_checked() {
    let hub = hub();
    let client = Client::of(&hub);
    let sha256 = stage::files::digest_of(&bytes(LENGTH));
    std::fs::create_dir_all(client.path("blobs")).unwrap();
    std::fs::write(client.path(&format!("blobs/{sha256}.incomplete")), bytes(LENGTH)).unwrap();
    assert_eq!(content(&client.model().unwrap()), bytes(LENGTH));
    assert_eq!(hub.ranges(), []);
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let hub = hub().fault(Of::Content, Fault::Drop(100_000)).fault(Of::Content, Fault::IgnoreRange);
    assert_eq!(content(&Client::of(&hub).model().unwrap()), bytes(LENGTH));
    assert_eq!(hub.ranges(), [None, Some("bytes=100000-".into())]);
}

#[test]
fn servers_that_are_busy_are_waited_for() {
    let busy = |status, seconds: &str| Fault::Status(status, vec![("Retry-After", seconds.to_owned())]);
    let hub = hub()
        .fault(Of::Revision, busy(429, "0"))
        .fault(Of::Description, busy(503, "0"))
        .fault(Of::Content, busy(429, "1"))
        .fault(Of::Content, Fault::Status(500, vec![]));
    let started = Instant::now();
    assert_eq!(content(&Client::of(&hub).model().unwrap()), bytes(LENGTH));
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(hub.requests().len(), 2 + 2 + 3);
}

#[test]
fn patience_ends() {
    let mut hub = hub();
    for _ in 0..6 {
        hub = hub.fault(Of::Content, Fault::Status(502, vec![]));
    }
    let client = Client::of(&hub);
    let said = client.fails(Kind::Io);
    assert!(said.contains("502") && said.contains("--text-model"), "{said}");
    assert_eq!(hub.ranges().len(), 6);
    assert!(!client.path(&format!("snapshots/{COMMIT}/model.bin")).exists());
}

#[test]
fn no_connection_is_an_error_of_reading() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = Client::of(&hub());
    client.settings.endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let said = client.fails(Kind::Io);
    assert!(said.contains("refused") && said.contains("HF_ENDPOINT") && said.contains("HF_HOME"), "{said}");
}

#[test]
fn processes_do_not_download_the_same_twice() {
    let hub = hub();
    let clients: Vec<Client> = (0..4).map(|_| Client::of(&hub)).collect();
    let cache = &clients[0].settings.cache;
    std::thread::scope(|scope| {
        let fetch = |client: &Client| {
            let mut settings = client.settings.clone();
            settings.cache = cache.clone();
            let wants = [Want::required(&["model.bin"])];
            scope.spawn(move || settings.fetch(&crate::repository("main"), &wants))
        };
        let running: Vec<_> = clients.iter().map(fetch).collect();
        for snapshot in running {
            assert_eq!(content(&snapshot.join().unwrap().unwrap()), bytes(LENGTH));
        }
    });
    assert_eq!(hub.ranges(), [None]);
}

#[test]
fn where_locks_keep_out_nobody_the_content_is_whole() {
    let hub = hub().fault(Of::Content, Fault::Pause(100_000)).fault(Of::Content, Fault::Pause(100_000));
    let (one, other) = (Client::of(&hub), Client::of(&hub));
    std::fs::create_dir_all(one.path("blobs")).unwrap();
    // The same folder with locks of its own, as on another node.
    std::os::unix::fs::symlink(one.folder(), other.folder()).unwrap();
    std::thread::scope(|scope| {
        let running = [&one, &other].map(|client| scope.spawn(|| client.model()));
        for snapshot in running {
            snapshot.join().unwrap().unwrap();
        }
    });
    assert_eq!(hub.ranges().len(), 2);
    assert_eq!(content(&one.fetch(COMMIT, &[Want::required(&["model.bin"])]).unwrap()), bytes(LENGTH));
    assert_eq!(one.listing("blobs"), [stage::files::digest_of(&bytes(LENGTH))]);
}

#[test]
fn what_does_not_fit_on_the_disk_is_not_begun() {
    let size = ("X-Linked-Size", (u64::MAX / 2).to_string());
    let headers = vec![("X-Linked-Etag", "a".repeat(64)), size];
    let hub = hub().fault(Of::Description, Fault::Status(302, headers));
    let error = Client::of(&hub).model().unwrap_err();
    assert_eq!(error.kind(), Kind::Resource);
    assert!(error.hint_text().unwrap().contains("HF_HOME"));
    assert_eq!(hub.ranges(), []);
}
