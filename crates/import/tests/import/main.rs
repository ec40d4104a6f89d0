//! The real binary on tiny datasets.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod cases;
mod command;

use dsom_tests::ends;
use std::path::PathBuf;
use std::process::Output;

/// A file's name and content.
type File<'a> = (&'a str, &'a [u8]);

/// A raw folder and a run of a test.
struct Lab {
    dir: tempfile::TempDir,
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

    fn import(&self, more: &[&str]) -> Output {
        let (run, raw) = (self.dir.path().join("run"), self.raw());
        let own = ["--run", run.to_str().unwrap(), "--raw", raw.to_str().unwrap()];
        program(&[&own, more].concat())
    }

    /// The import ends with `code` and says each of `says`; returns everything it printed.
    #[track_caller]
    fn ends(&self, more: &[&str], code: i32, says: &[&str]) -> String {
        ends(&self.import(more), code, says)
    }
}

fn program(arguments: &[&str]) -> Output {
    dsom_tests::program("dsom-import").args(arguments).output().unwrap()
}
