//! Who may, and what is not there.

use crate::server::{COMMIT, Fault, Hub, Of};
use crate::{Client, bytes, content};
use hub::{Repository, Want};
use stage::Kind;

const TOKEN: &str = "hf_a-token-of-the-tests";

fn hub() -> Hub {
    Hub::start().large("model.bin", &bytes(10_000))
}

#[test]
fn without_a_token_a_gated_repository_is_closed() {
    let hub = hub().gated(TOKEN);
    let said = Client::of(&hub).fails(Kind::Missing);
    assert!(
        said.contains("(401), no token was sent: Access to model") && said.contains("set HF_TOKEN"),
        "{said}"
    );
    assert!(hub.requests().iter().all(|request| request.header("authorization").is_none()));
    assert_eq!(content(&Client::of(&hub).with_token(TOKEN).model().unwrap()), bytes(10_000));
}

#[test]
fn a_token_that_is_not_accepted_is_not_repeated() {
    let said = Client::of(&hub().gated("another")).with_token(TOKEN).fails(Kind::Missing);
    assert!(
        said.contains("the token that was sent is not accepted") && said.contains("check HF_TOKEN"),
        "{said}"
    );
    assert!(said.contains("Invalid credentials in Bearer …") && !said.contains(TOKEN), "{said}");
    let closed = hub().fault(Of::Description, Fault::Status(403, vec![("X-Error-Code", "GatedRepo".into())]));
    let said = Client::of(&closed).with_token(TOKEN).fails(Kind::Missing);
    assert!(said.contains("does not open it") && said.contains("accept its terms"), "{said}");
}

#[test]
fn the_token_goes_to_no_other_host() {
    let storage = hub();
    let hub = hub().elsewhere(&storage);
    let client = Client::of(&hub).with_token(TOKEN);
    assert_eq!(content(&client.model().unwrap()), bytes(10_000));
    let token = format!("Bearer {TOKEN}");
    assert!(hub.requests().iter().all(|request| request.header("authorization") == Some(&token)));
    assert_eq!(hub.requests().len(), 3);
    let elsewhere = storage.requests();
    assert_eq!(elsewhere.len(), 1);
    assert_eq!(elsewhere[0].header("authorization"), None);
}

#[test]
fn a_signed_redirect_that_has_expired_is_asked_for_again() {
    let storage = hub().fault(Of::Content, Fault::Status(403, vec![]));
    let hub = hub().elsewhere(&storage);
    assert_eq!(content(&Client::of(&hub).model().unwrap()), bytes(10_000));
    assert_eq!(hub.ranges().len(), 2);
}

#[test]
fn a_renamed_repository_is_followed() {
    let hub = hub();
    let client = Client::of(&hub).with_token(TOKEN);
    let repository = Repository::new("old/name", "main").unwrap();
    let snapshot = client.settings.fetch(&repository, &[Want::required(&["model.bin"])]).unwrap();
    assert_eq!(content(&snapshot), bytes(10_000));
    assert!(hub.requests().iter().all(|request| request.header("authorization").is_some()));
}

#[test]
fn what_the_hub_does_not_have_is_missing() {
    let hub = hub();
    let client = Client::of(&hub);
    let fails = |repository: &str, file: &str| {
        let repository: Repository = repository.parse().unwrap();
        let error = client.settings.fetch(&repository, &[Want::required(&[file])]).unwrap_err();
        assert_eq!(error.kind(), Kind::Missing);
        error.to_string()
    };
    let said = fails("nobody/nothing", "model.bin");
    assert!(said.contains("`nobody/nothing@main`") && said.contains("no such repository"), "{said}");
    let said = fails("owner/model@v9", "model.bin");
    assert!(said.contains("`owner/model@v9`") && said.contains("no such revision"), "{said}");
    let said = fails("owner/model", "other.bin");
    assert!(said.contains("`other.bin` of `owner/model@main`") && said.contains("no such file"), "{said}");
    assert_eq!(hub.ranges(), []);
}

#[test]
fn the_first_of_the_wanted_names_is_taken() {
    let wants = [
        Want::required(&["model.safetensors", "model.bin"]),
        Want::optional(&["tokenizer.json", "vocab.txt"]),
        Want::optional(&["modules.json"]),
    ];
    let names = |hub: &Hub, client: &Client| {
        let snapshot = client.fetch(COMMIT, &wants).unwrap();
        let names = snapshot.files.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
        (names, hub.requests().len())
    };
    let both = hub().large("model.safetensors", b"tensors").small("vocab.txt", b"a");
    assert_eq!(names(&both, &Client::of(&both)).0, ["model.safetensors", "vocab.txt"]);
    assert!(!both.requests().iter().any(|request| request.path.ends_with("/model.bin")));
    // What a commit does not have is noted, and never asked for again.
    let one = hub();
    let client = Client::of(&one);
    let first = names(&one, &client);
    assert_eq!(first.0, ["model.bin"]);
    assert_eq!(names(&one, &client), first);
    assert_eq!(client.listing(&format!(".no_exist/{COMMIT}")).len(), 4);
}
