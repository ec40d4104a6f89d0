//! Lines of a text file, whatever its line ends.

use stage::{Error, Result};
use std::path::{Path, PathBuf};

/// A text file with its path, for errors that name both.
///
/// Lines are counted from 1. CRLF and LF both end one, a byte order mark is no part of the first, and empty lines
/// at the end are none.
pub(super) struct Lines {
    path: PathBuf,
    text: String,
}

impl Lines {
    pub(super) fn read(path: &Path) -> Result<Lines> {
        let mut text = stage::files::read_text(path)?;
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
        if text.starts_with('\u{feff}') {
            text.remove(0);
        }
        Ok(Lines { path: path.to_owned(), text })
    }

    /// The lines with their numbers.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u64, &str)> {
        (1..).zip(self.text.lines())
    }

    pub(super) fn first(&self) -> Option<&str> {
        self.text.lines().next()
    }

    /// The number that the first line consists of, if it does: how many lines are said to follow.
    pub(super) fn count_line(&self) -> Option<usize> {
        self.first()?.trim().parse().ok()
    }

    /// The lines after the count line, if there is one, which must then be right.
    pub(super) fn body(&self) -> Result<impl Iterator<Item = (u64, &str)>> {
        let count = self.count_line();
        if let Some(count) = count {
            let follow = self.text.lines().count() - 1;
            if count != follow {
                let message = format!("the count line says {count}, but {follow} lines follow");
                return Err(self.error(1, message).hint("is the file cut short?"));
            }
        }
        Ok(self.numbered().skip(usize::from(count.is_some())))
    }

    /// An error about one line.
    pub(super) fn error(&self, line: u64, message: impl Into<String>) -> Error {
        Error::data(message).at(&self.path).line(line)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file of a test, in a folder that is removed with it.
    pub(in crate::raw) struct Written {
        dir: tempfile::TempDir,
    }

    impl Written {
        pub(in crate::raw) fn new(text: &str) -> Written {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("file.txt"), text).unwrap();
            Written { dir }
        }

        pub(in crate::raw) fn path(&self) -> PathBuf {
            self.dir.path().join("file.txt")
        }
    }

    fn body(text: &str) -> Result<Vec<(u64, String)>> {
        let lines = Lines::read(&Written::new(text).path())?;
        Ok(lines.body()?.map(|(number, line)| (number, line.to_owned())).collect())
    }

    #[test]
    fn every_line_end_reads_alike() {
        let expected = vec![(1, "a b".to_owned()), (2, "č".to_owned())];
        for text in ["a b\nč\n", "a b\r\nč\r\n", "a b\nč", "\u{feff}a b\r\nč\r\n\r\n\n"] {
            assert_eq!(body(text).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_count_line_is_skipped_and_checked() {
        assert_eq!(body("1\r\na\r\n").unwrap(), [(2, "a".to_owned())]);
        let error = body("3\na\nb\n").unwrap_err().to_string();
        assert!(error.ends_with("line 1: the count line says 3, but 2 lines follow"), "{error}");
    }

    #[test]
    fn an_empty_file_has_no_lines() {
        assert!(body("").unwrap().is_empty() && body("\n\n").unwrap().is_empty());
    }
}
