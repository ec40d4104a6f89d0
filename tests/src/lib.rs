//! Runs the real programs on the embedded dataset, small enough to take seconds.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The stages in order.
pub const STAGES: [&str; 6] =
    ["dsom-import", "dsom-features", "dsom-teachers", "dsom-soft-labels", "dsom-distill", "dsom-evaluate"];

/// Overrides that make the demo's models tiny.
const SMALL: [&str; 6] = [
    "teachers.rank=16",
    "teachers.epochs=12",
    "distill.rank=16",
    "distill.epochs=12",
    "distill.selection.hidden=32",
    "evaluate.examples=2",
];

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A program beside this test's own executable; `make test` builds them first.
pub fn program(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test knows its executable");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "{} is missing: run `make build` first", path.display());
    let mut command = Command::new(path);
    command.env_remove("RUST_LOG").env_remove("DSOM_RUN").env_remove("DSOM_DEVICE").current_dir(root());
    command
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

    /// What `--status` answers for every folder of a stage.
    pub fn status(&self, stage: &str, arguments: &[&str]) -> String {
        let arguments = [arguments, &["--status"]].concat();
        let output = self.output(stage, &arguments);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
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
