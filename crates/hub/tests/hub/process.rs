//! A process of its own: its environment, its signals, all that it logs.

use crate::server::{COMMIT, Fault, Hub, NAME, Of};
use crate::{Client, bytes};
use hub::Want;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const TOKEN: &str = "hf_a-token-of-the-tests";
const LENGTH: usize = 300_000;

/// What a program does with the hub. Other tests start this one.
#[test]
#[ignore = "is started by other tests, with an environment"]
fn program() {
    let Ok(wanted) = std::env::var("TEST_WANTED") else { return };
    program::init_logging(2);
    stage::interrupt::listen();
    let result = hub::fetch(&NAME.parse().unwrap(), &[Want::required(&[&wanted])]);
    let code = match result {
        Ok(snapshot) => {
            println!("{snapshot:?}");
            0
        }
        Err(error) => {
            println!("{error:?} {error} {:?}", error.hint_text());
            error.kind().exit_code()
        }
    };
    std::process::exit(code.into());
}

/// The program above, with this server and everything logged.
fn command(client: &Client, wanted: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "process::program", "--ignored", "--nocapture"]);
    let kept = ["PATH", "LD_LIBRARY_PATH"].map(|name| (name, std::env::var(name).unwrap_or_default()));
    command.env_clear().envs(kept).env("RUST_LOG", "trace").env("HOME", client.dir.path());
    command.env("TEST_WANTED", wanted).env("HF_HUB_CACHE", client.dir.path());
    command.env("HF_ENDPOINT", format!("{}/", client.settings.endpoint));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn hub() -> Hub {
    Hub::start().large("model.bin", &bytes(LENGTH))
}

#[test]
fn the_token_is_in_no_log_error_or_file() {
    let storage = hub();
    let hub = hub().elsewhere(&storage).gated(TOKEN).fault(Of::Revision, Fault::Status(500, vec![]));
    let client = Client::of(&hub);
    let good = command(&client, "model.bin").env("HF_TOKEN", TOKEN).output().unwrap();
    let missing = command(&client, "other.bin").env("HF_TOKEN", TOKEN).output().unwrap();
    let other = Hub::start().gated("another");
    let refused = command(&Client::of(&other), "model.bin").env("HF_TOKEN", TOKEN).output().unwrap();
    for (output, code) in [(&good, 0), (&missing, 66), (&refused, 66)] {
        let said = said(output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("TRACE") || said.contains("DEBUG"), "nothing is logged: {said}");
        assert!(!said.contains(TOKEN), "{said}");
        assert!(!said.contains("Signature"), "{said}");
    }
    assert!(said(&refused).contains("Bearer …"), "the server repeats the token: {}", said(&refused));
    let files = Command::new("grep").args(["-r", TOKEN]).arg(client.dir.path()).output().unwrap();
    assert_eq!(files.status.code(), Some(1), "{}", said(&files));
    assert!(hub.requests().iter().any(|request| request.header("authorization").is_some()));
}

#[test]
fn the_environment_is_that_of_huggingface_hub() {
    let hub = hub();
    let client = Client::of(&hub);
    let home = client.dir.path().join("home");
    std::fs::create_dir_all(home.join("hub")).unwrap();
    std::fs::write(home.join("token"), format!("{TOKEN}\n")).unwrap();
    let homely = || {
        let mut command = command(&client, "model.bin");
        command.env_remove("HF_HUB_CACHE").env("HF_HOME", &home);
        command
    };
    let offline = homely().env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(offline.status.code(), Some(66), "{}", said(&offline));
    assert_eq!(hub.requests().len(), 0);

    let silent = homely().env("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1").output().unwrap();
    assert_eq!(silent.status.code(), Some(0), "{}", said(&silent));
    assert!(hub.requests().iter().all(|request| request.header("authorization").is_none()));
    assert!(home.join("hub/models--owner--model/snapshots").join(COMMIT).join("model.bin").is_file());

    let token = |command: &mut Command| {
        assert_eq!(command.output().unwrap().status.code(), Some(0));
        hub.requests().last().unwrap().header("authorization").map(str::to_owned)
    };
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    assert_eq!(token(&mut homely()), bearer(TOKEN));
    std::fs::write(home.join("other"), "from-a-file").unwrap();
    assert_eq!(token(homely().env("HF_TOKEN_PATH", home.join("other"))), bearer("from-a-file"));
    assert_eq!(token(homely().env("HF_TOKEN", "given")), bearer("given"));

    let wrong = homely().env("HF_ENDPOINT", "no address").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
}

#[test]
fn a_signal_stops_it_and_keeps_the_part() {
    let hub = hub().fault(Of::Content, Fault::Stall(100_000));
    let client = Client::of(&hub);
    let mut child = command(&client, "model.bin").spawn().unwrap();
    let part = client.path(&format!("blobs/{}.incomplete", stage::files::digest_of(&bytes(LENGTH))));
    while part.metadata().map_or(0, |data| data.len()) < 100_000 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert_eq!(part.metadata().unwrap().len(), 100_000);

    let again = command(&client, "model.bin").output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    assert_eq!(hub.ranges(), [None, Some("bytes=100000-".into())]);
}
