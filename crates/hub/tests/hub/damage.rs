//! Content that is not what was promised.

use crate::server::{COMMIT, Fault, Hub, Of};
use crate::{Client, bytes, content};
use hub::Want;
use stage::Kind;

const LENGTH: usize = 10_000;

fn refused_and_not_kept(hub: &Hub) {
    let client = Client::of(hub);
    let said = client.fails(Kind::Data);
    assert!(said.contains("digest") && said.contains("model.bin"), "{said}");
    assert_eq!(client.listing(&format!("snapshots/{COMMIT}")), [""; 0]);
    let blobs = client.listing("blobs").into_iter();
    assert!(
        blobs.map(|blob| client.path("blobs").join(blob)).all(|blob| blob.metadata().unwrap().len() == 0)
    );
    assert_eq!(content(&client.model().unwrap()), bytes(LENGTH));
}

#[test]
fn a_wrong_digest_of_a_large_file_is_refused() {
    refused_and_not_kept(&Hub::start().large("model.bin", &bytes(LENGTH)).fault(Of::Content, Fault::Corrupt));
}

#[test]
fn a_wrong_digest_of_a_small_file_is_refused() {
    refused_and_not_kept(&Hub::start().small("model.bin", &bytes(LENGTH)).fault(Of::Content, Fault::Corrupt));
}

#[test]
fn more_than_was_promised_is_refused() {
    refused_and_not_kept(&Hub::start().large("model.bin", &bytes(LENGTH)).fault(Of::Content, Fault::Excess));
}

#[test]
fn a_part_that_is_wrong_is_dropped() {
    let hub = Hub::start().large("model.bin", &bytes(LENGTH));
    let client = Client::of(&hub);
    let part = client.path(&format!("blobs/{}.incomplete", stage::files::digest_of(&bytes(LENGTH))));
    std::fs::create_dir_all(client.path("blobs")).unwrap();
    for (wrong, asked) in [(vec![0; 5000], 2), (vec![0; LENGTH], 1), (vec![0; 2 * LENGTH], 1)] {
        let before = hub.ranges().len();
        std::fs::write(&part, wrong).unwrap();
        assert_eq!(content(&client.model().unwrap()), bytes(LENGTH));
        assert_eq!(hub.ranges().len() - before, asked);
        std::fs::remove_dir_all(client.path("snapshots")).unwrap();
        std::fs::remove_dir_all(client.path("blobs")).unwrap();
        std::fs::create_dir_all(client.path("blobs")).unwrap();
    }
}

#[test]
fn a_cached_file_that_changed_is_downloaded_again() {
    let hub = Hub::start().large("model.bin", &bytes(LENGTH));
    let mut client = Client::of(&hub);
    let wants = [Want::required(&["model.bin"])];
    let path = client.fetch(COMMIT, &wants).unwrap().files[0].path.clone();
    std::fs::write(path, "damaged").unwrap();
    client.settings.offline = true;
    let error = client.fetch(COMMIT, &wants).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.hint_text().unwrap().contains("remove it"));
    client.settings.offline = false;
    assert_eq!(content(&client.fetch(COMMIT, &wants).unwrap()), bytes(LENGTH));
    assert_eq!(hub.ranges(), [None, None]);
}
