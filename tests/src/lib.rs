//! Runs the real programs on the embedded dataset, small enough to take seconds; and what tests of several crates need.

pub mod readers;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

/// The stages in order.
pub const STAGES: [&str; 6] =
    ["dsom-import", "dsom-features", "dsom-teachers", "dsom-soft-labels", "dsom-distill", "dsom-evaluate"];

/// Overrides that make the demo's models tiny.
const SMALL: [&str; 5] =
    ["teachers.rank=16", "teachers.epochs=12", "distill.rank=16", "distill.epochs=12", "evaluate.examples=2"];

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A program of this workspace such as `dsom-import`, never older than its sources.
pub fn program(name: &str) -> Command {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(build);
    let mut command = Command::new(FOLDER.join(format!("dsom{}", std::env::consts::EXE_SUFFIX)));
    command.arg(name.trim_start_matches("dsom-"));
    command.env_remove("RUST_LOG").env_remove("DSOM_RUN").env_remove("DSOM_DEVICE").current_dir(root());
    command
}

/// Builds the programs as the running test was built, into `target/<profile>`, and returns that folder: `cargo test` alone
/// would leave older ones there. `DSOM_PROGRAMS` names a folder of programs for a machine without cargo.
fn build() -> PathBuf {
    if let Some(folder) = std::env::var_os("DSOM_PROGRAMS") {
        return folder.into();
    }
    let test = std::env::current_exe().expect("a test knows its executable");
    let folder = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
    let (target, profile) =
        (folder.parent().expect("a target folder"), folder.file_name().expect("a profile"));
    let profile = if profile == "debug" { "dev".as_ref() } else { profile };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(root()).args(["build", "--workspace", "--bins", "--frozen"]);
    // What cargo tells a test of its package, build scripts of dependencies would take for a change.
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

/// Asks a program for an orderly stop, as a cluster does.
pub fn terminate(program: &Child) {
    let status = Command::new("kill").args(["-TERM", &program.id().to_string()]).status();
    assert!(status.expect("kill starts").success());
}

/// A run directory of its own, removed with the test.
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

    /// A copy of a run in which all stages are finished; the original is made once per process.
    pub fn finished() -> Run {
        static ORIGINAL: OnceLock<Run> = OnceLock::new();
        let original = ORIGINAL.get_or_init(|| {
            let run = Run::new();
            STAGES.iter().for_each(|stage| run.succeeds(stage, &[]));
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
        let events = std::fs::read_to_string(self.path(model).join("events.jsonl")).expect("a log");
        serde_json::from_str(events.lines().last().expect("an epoch")).expect("JSON")
    }

    /// A figure of a model in `metrics.json`, by its path in there.
    pub fn figure(&self, model: &str, path: &str) -> f64 {
        let metrics = self.json("evaluation/metrics.json");
        let figure = metrics["models"][model].pointer(path).and_then(Value::as_f64);
        figure.unwrap_or_else(|| panic!("no {path} of {model} in {metrics}"))
    }

    /// A program's call for this run.
    pub fn command(&self, stage: &str, arguments: &[&str]) -> Command {
        let mut command = program(stage);
        command.arg("--run").arg(self.path("")).args(["--recipe", "pipelines/nations.toml"]);
        SMALL.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        if stage == "dsom-import" && !arguments.contains(&"--raw") {
            command.args(["--raw", "data/nations"]);
        }
        command.args(arguments);
        command
    }

    /// Records the file called `name` in a stage's folder as it is now, as if the stage had written it so.
    pub fn record_anew(&self, folder: &str, name: &str) {
        let path = self.path(folder).join("stage.json");
        let mut manifest: Value = stage::files::read_json(&path).expect("a manifest");
        let outputs = manifest["outputs"].as_array_mut().expect("outputs");
        let record = outputs.iter_mut().find(|record| record["path"] == name).expect("the file is an output");
        record["sha256"] = stage::files::digest(&self.path(folder).join(name)).expect("a file").0.into();
        stage::files::write_json(&path, &manifest).expect("it can be written");
    }

    /// Runs a program and returns what it said.
    pub fn output(&self, stage: &str, arguments: &[&str]) -> Output {
        self.command(stage, arguments).output().expect("the program starts")
    }

    /// Runs a program that must succeed.
    pub fn succeeds(&self, stage: &str, arguments: &[&str]) {
        let output = self.output(stage, arguments);
        assert!(output.status.success(), "{stage} {arguments:?}: {}", said(&output));
    }

    /// Runs a program that must fail with exit code `code` and say every one of `words`.
    pub fn fails(&self, stage: &str, arguments: &[&str], code: i32, words: &[&str]) {
        let output = self.output(stage, arguments);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{stage} {arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{stage} does not say `{word}`: {said}");
        }
    }

    /// Answer of `--status` for every folder of a stage.
    pub fn status(&self, stage: &str, arguments: &[&str]) -> String {
        let arguments = [arguments, &["--status"]].concat();
        let output = self.output(stage, &arguments);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

/// Asserts that float64 numbers are the golden ones, to 1e-12.
pub fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-12, "{what}[{i}]: {found}, expected {expected}");
    }
}

/// Everything a program printed.
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Copies a folder with all that is in it.
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
