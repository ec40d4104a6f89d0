//! What is cached, by us or by others, and what is asked for nevertheless.

use crate::server::{COMMIT, Hub};
use crate::{Client, bytes, content, repository};
use hub::Want;
use stage::Kind;

fn hub() -> Hub {
    Hub::start().large("model.bin", &bytes(10_000))
}

fn model() -> [Want; 1] {
    [Want::required(&["model.bin"])]
}

#[test]
fn a_pinned_commit_that_is_cached_asks_nobody() {
    let hub = hub();
    let client = Client::of(&hub);
    let snapshot = client.fetch(COMMIT, &model()).unwrap();
    let before = hub.requests().len();
    assert_eq!(client.fetch(COMMIT, &model()).unwrap(), snapshot);
    assert_eq!(client.settings.cached(&repository(COMMIT), &model()).unwrap(), Some(snapshot));
    assert_eq!(hub.requests().len(), before);
}

#[test]
fn a_branch_is_asked_for_and_its_files_are_not() {
    let hub = hub();
    let client = Client::of(&hub);
    let snapshot = client.fetch("main", &model()).unwrap();
    let before = hub.requests().len();
    assert_eq!(client.fetch("main", &model()).unwrap(), snapshot);
    assert_eq!(hub.requests().len(), before + 1);
}

#[test]
fn offline_the_cache_is_all_there_is() {
    let hub = hub();
    let mut client = Client::of(&hub);
    client.settings.offline = true;
    let error = client.model().unwrap_err();
    assert_eq!(error.kind(), Kind::Missing);
    let said = format!("{error} {}", error.hint_text().unwrap());
    assert!(said.contains("HF_HUB_OFFLINE") && said.contains("`model.bin` of `owner/model@main`"), "{said}");
    assert!(said.contains("--image-model") && said.contains("copy that machine's HF_HOME"), "{said}");
    assert_eq!(client.settings.cached(&repository("main"), &model()).unwrap(), None);
    assert_eq!(hub.requests().len(), 0);

    client.settings.offline = false;
    let snapshot = client.model().unwrap();
    let before = hub.requests().len();
    client.settings.offline = true;
    assert_eq!(client.model().unwrap(), snapshot);
    let more = [&model()[..], &[Want::optional(&["vocab.txt"])]].concat();
    assert_eq!(client.fetch("main", &more).unwrap(), snapshot);
    let more = [&model()[..], &[Want::required(&["vocab.txt"])]].concat();
    assert!(client.fetch("main", &more).is_err());
    assert_eq!(hub.requests().len(), before);
}

#[test]
fn files_of_huggingface_hub_are_used() {
    let hub = hub();
    let client = Client::of(&hub);
    let snapshot = client.path(&format!("snapshots/{COMMIT}"));
    let blob = stage::files::digest_of(b"from Python");
    for folder in [&client.path("blobs"), &client.path("refs"), &snapshot] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(client.path("blobs").join(&blob), "from Python").unwrap();
    std::fs::write(client.path("refs/main"), COMMIT).unwrap();
    std::os::unix::fs::symlink(format!("../../blobs/{blob}"), snapshot.join("model.bin")).unwrap();
    // Without links, as on some file systems: nothing is known of its digest.
    std::fs::write(snapshot.join("config.json"), "{}").unwrap();
    let wants = [&model()[..], &[Want::required(&["config.json"])]].concat();
    let files = client.fetch(COMMIT, &wants).unwrap().files;
    assert_eq!(files[0].sha256, blob);
    assert_eq!(files[1].sha256, stage::files::digest_of(b"{}"));
    assert_eq!(hub.requests().len(), 0);
}

#[test]
fn a_blob_of_another_commit_is_not_downloaded_again() {
    let hub = hub();
    let client = Client::of(&hub);
    client.model().unwrap();
    std::fs::remove_dir_all(client.path("snapshots")).unwrap();
    assert_eq!(content(&client.model().unwrap()), bytes(10_000));
    assert_eq!(hub.ranges(), [None]);
}

#[test]
fn a_reference_that_is_no_commit_is_named() {
    let client = Client::of(&hub());
    std::fs::create_dir_all(client.path("refs")).unwrap();
    std::fs::write(client.path("refs/main"), "../../elsewhere").unwrap();
    let error = client.settings.cached(&repository("main"), &model()).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.to_string().contains("refs/main"));
}
