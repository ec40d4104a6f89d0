//! Runs the real programs on the small embedded dataset, which takes seconds; and helps the tests of several crates.

pub mod readers;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

/// The stages in order.
pub const STAGES: [&str; 6] =
    ["dsom-import", "dsom-features", "dsom-teachers", "dsom-soft-labels", "dsom-distill", "dsom-evaluate"];

/// Overrides that make the demo's models tiny.
const SMALL: [&str; 5] = [
    "--set=teachers.rank=16",
    "--set=teachers.epochs=12",
    "--set=distill.rank=16",
    "--set=distill.epochs=12",
    "--set=evaluate.examples=2",
];

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A program of this workspace such as `dsom-import`, built from the present sources.
pub fn program(name: &str) -> Command {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(build);
    let mut command = Command::new(FOLDER.join(format!("dsom{}", std::env::consts::EXE_SUFFIX)));
    command.arg(name.trim_start_matches("dsom-"));
    command.env_remove("RUST_LOG").env_remove("DSOM_RUN").env_remove("DSOM_DEVICE").current_dir(root());
    command
}

/// Builds the programs with the profile of the running test, into `target/<profile>`, and returns that folder: `cargo
/// test` alone leaves older programs there. `DSOM_PROGRAMS` names a folder of programs for a machine without cargo.
fn build() -> PathBuf {
    if let Some(folder) = std::env::var_os("DSOM_PROGRAMS") {
        return folder.into();
    }
    let test = std::env::current_exe().expect("a test knows its executable");
    let folder = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
    let target = folder.parent().expect("a target folder");
    let profile = folder.file_name().expect("a profile");
    let profile = if profile == "debug" { "dev".as_ref() } else { profile };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(root()).args(["build", "--workspace", "--bins", "--frozen"]);
    // Build scripts of dependencies would take cargo's variables about the test's package for a change.
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    let status = cargo.arg("--profile").arg(profile).arg("--target-dir").arg(target).status();
    assert!(status.expect("cargo starts").success(), "the programs do not build");
    folder.to_owned()
}

/// Waits for a file that a program writes while it runs, such as its first checkpoint.
pub fn wait_for(path: &Path, program: &mut Child) {
    let started = Instant::now();
    while !path.is_file() {
        let ended = program.try_wait().expect("a child can be asked");
        assert!(ended.is_none(), "it ended ({ended:?}) before {} was there", path.display());
        assert!(started.elapsed() < Duration::from_secs(120), "{} is not written", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Calls a program, asks it to stop in an orderly way when this file exists, as a cluster does, and returns its output.
pub fn interrupted_at(path: &Path, command: &mut Command) -> String {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    wait_for(path, &mut child);
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(status.expect("kill starts").success());
    ends(&child.wait_with_output().expect("it ends"), 75, &[])
}

/// Asserts that a program ended with exit code `code` and printed all `words`, as an error if the code is one; returns
/// everything that it printed.
#[track_caller]
pub fn ends(output: &Output, code: i32, words: &[&str]) -> String {
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said)).concat();
    assert_eq!(output.status.code(), Some(code), "{said}");
    let told = if code == 0 { said.clone() } else { String::from_utf8_lossy(&output.stderr).into_owned() };
    words.iter().for_each(|word| assert!(told.contains(word), "it does not say `{word}`: {said}"));
    said
}

/// A separate run directory, removed with the test.
pub struct Run {
    folder: tempfile::TempDir,
}

impl Default for Run {
    fn default() -> Self {
        Run::new()
    }
}

impl Run {
    /// An empty run.
    pub fn new() -> Run {
        Run { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A copy of a run with all stages finished; each process makes the original once.
    pub fn finished() -> Run {
        static ORIGINAL: OnceLock<Run> = OnceLock::new();
        let original = ORIGINAL.get_or_init(|| {
            let run = Run::new();
            for stage in STAGES {
                run.succeeds(stage, &[]);
            }
            run
        });
        let copy = Run::new();
        copy_folder(&original.path(""), &copy.path(""));
        copy
    }

    /// A path in the run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("run").join(name)
    }

    /// Reads a JSON file of the run.
    pub fn json(&self, name: &str) -> Value {
        stage::files::read_json(&self.path(name)).expect("JSON that a stage wrote")
    }

    /// Reads the last epoch's line of a model's log.
    pub fn last_event(&self, model: &str) -> Value {
        let events = self.text(&format!("{model}/events.jsonl"));
        serde_json::from_str(events.lines().last().expect("an epoch")).expect("JSON")
    }

    /// A figure of a model in `metrics.json`, by its path in the model's part.
    #[track_caller]
    pub fn figure(&self, model: &str, path: &str) -> f64 {
        number(&self.json("evaluation/metrics.json"), &format!("/models/{model}{path}"))
    }

    /// Reads a file of the run.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Reads a text of the run.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name)).expect("UTF-8")
    }

    /// The call of a program for this run.
    pub fn command(&self, stage: &str, arguments: &[&str]) -> Command {
        let mut command = program(stage);
        command.arg("--run").arg(self.path(""));
        if !["dsom-report", "dsom-predict"].contains(&stage) {
            command.args(["--recipe", "pipelines/nations.toml"]).args(SMALL);
        }
        if stage == "dsom-import" && !arguments.contains(&"--raw") {
            command.args(["--raw", "data/nations"]);
        }
        command.args(arguments);
        command
    }

    /// Records the present state of the file called `name` in a stage's folder, as if the stage had written it.
    pub fn record_anew(&self, folder: &str, name: &str) {
        let path = self.path(folder).join("stage.json");
        let mut manifest: Value = stage::files::read_json(&path).expect("a manifest");
        let outputs = manifest["outputs"].as_array_mut().expect("outputs");
        let record = outputs.iter_mut().find(|record| record["path"] == name).expect("the file is an output");
        record["sha256"] = stage::files::digest(&self.path(folder).join(name)).expect("a file").0.into();
        stage::files::write_json(&path, &manifest).expect("it can be written");
    }

    /// Runs a program and returns its output.
    pub fn output(&self, stage: &str, arguments: &[&str]) -> Output {
        self.command(stage, arguments).output().expect("the program starts")
    }

    /// Runs a program that must succeed, and returns everything it printed.
    #[track_caller]
    pub fn succeeds(&self, stage: &str, arguments: &[&str]) -> String {
        ends(&self.output(stage, arguments), 0, &[])
    }

    /// Trains a student called `name` with these keys of `distill`.
    #[track_caller]
    pub fn distil(&self, name: &str, keys: &[&str], more: &[&str]) {
        let sets: Vec<String> = keys.iter().map(|key| format!("--set=distill.{key}")).collect();
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        self.succeeds("dsom-distill", &[&["--name", name], more, &sets].concat());
    }

    /// Runs a program that must fail with exit code `code` and print all `words`.
    #[track_caller]
    pub fn fails(&self, stage: &str, arguments: &[&str], code: i32, words: &[&str]) {
        ends(&self.output(stage, arguments), code, words);
    }

    /// The answer of `--status` for every folder of a stage.
    #[track_caller]
    pub fn status(&self, stage: &str, arguments: &[&str]) -> String {
        let output = self.output(stage, &[arguments, &["--status"]].concat());
        ends(&output, 0, &[]);
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Asserts that these folders still hold the complete outputs of an earlier call.
    #[track_caller]
    pub fn are_whole(&self, folders: &[&str]) {
        folders.iter().for_each(|folder| assert!(self.path(folder).join("stage.json").is_file(), "{folder}"));
    }

    /// Asserts that every folder of a stage is fresh.
    #[track_caller]
    pub fn is_fresh(&self, stage: &str, arguments: &[&str]) {
        let status = self.status(stage, arguments);
        let fresh = status.lines().count() > 0 && status.lines().all(|line| line.ends_with(" fresh"));
        assert!(fresh, "{stage}: {status}");
    }
}

/// The number at `path` in a JSON value.
#[track_caller]
pub fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {value}"))
}

/// Asserts that float64 numbers equal the golden numbers within 1e-12.
pub fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-12, "{what}[{i}]: {found}, expected {expected}");
    }
}

/// Copies a folder with all its content.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder to copy to");
    for entry in std::fs::read_dir(from).expect("a folder to copy") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("entries have names"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a copy");
        }
    }
}
