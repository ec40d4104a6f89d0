//! Records the source revision, so that every `stage.json` can name the code that wrote it.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../../.git/HEAD");
    println!("cargo::rerun-if-changed=../../.git/refs/heads");
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let revision = git.ok().filter(|output| output.status.success());
    let revision = revision.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    println!("cargo::rustc-env=DSOM_REVISION={}", revision.trim());
}
