//! The real binary on tiny datasets.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod cases;
mod command;

use std::path::PathBuf;

/// A file's name and content.
type File<'a> = (&'a str, &'a [u8]);

/// A raw folder and a run of a test.
struct Lab {
    dir: tempfile::TempDir,
}

/// An import that has ended.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Lab {
    /// A raw folder of these files, later ones in the place of earlier ones.
    fn of(files: &[File]) -> Lab {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        files.iter().for_each(|(name, content)| lab.write(name, content));
        lab
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.raw().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn raw(&self) -> PathBuf {
        self.dir.path().join("raw")
    }

    fn graph(&self) -> PathBuf {
        self.dir.path().join("run/graph")
    }

    fn import(&self, more: &[&str]) -> Ended {
        let (run, raw) = (self.dir.path().join("run"), self.raw());
        let own = ["--run", run.to_str().unwrap(), "--raw", raw.to_str().unwrap()];
        program(&[&own, more].concat())
    }
}

fn program(arguments: &[&str]) -> Ended {
    let mut command = dsom_tests::program("dsom-import");
    let output = command.env_remove("RUST_LOG").env_remove("DSOM_RUN").args(arguments).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    Ended { code: output.status.code().unwrap(), stdout, stderr }
}

impl Ended {
    /// Everything printed by an import that ends well.
    #[track_caller]
    fn succeeds(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout
    }

    fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The import ends with `code` and says each of `says`.
    #[track_caller]
    fn ends(&self, code: i32, says: &[&str]) {
        let said = self.said();
        assert_eq!(self.code, code, "{said}");
        says.iter().for_each(|part| assert!(said.contains(part), "expected `{part}`, found: {said}"));
    }
}
