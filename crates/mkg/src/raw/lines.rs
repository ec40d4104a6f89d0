//! The lines of a text file with any line ends.

use stage::{Error, Result};
use std::path::{Path, PathBuf};

/// A text file with its path, for errors that name both.
///
/// Lines are counted from 1. CRLF and LF both end a line. A byte order mark does not belong to the first line, and
/// blank lines are skipped.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    text: String,
}

impl Lines {
    /// Reads a text file.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] if the file is not UTF-8 text or a carriage return is within a line.
    pub fn read(path: &Path) -> Result<Lines> {
        let lines = Lines { path: path.to_owned(), text: stage::files::read_text(path)? };
        let mut ends = (1..).zip(lines.text.split('\n'));
        let odd = ends.find(|(_, line)| line.trim_end_matches('\r').contains('\r'));
        let Some((number, _)) = odd else { return Ok(lines) };
        let hint = "do lines end in CR alone, as on old Macs? convert them: tr '\\r' '\\n' < OLD > NEW";
        Err(lines.error(number, "a carriage return (CR) within the line").hint(hint))
    }

    /// The lines that are not blank, with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u64, &str)> {
        (1..)
            .zip(self.text.lines())
            .filter(|(_, line)| !line.trim_matches([' ', '\r', '\u{feff}']).is_empty())
    }

    pub(super) fn first(&self) -> Option<&str> {
        self.numbered().next().map(|(_, line)| line)
    }

    /// The number of following lines that the first line states, if the first line is only a number.
    pub(super) fn count_line(&self) -> Option<usize> {
        trimmed(self.first()?).parse().ok()
    }

    /// The lines after the count line, if there is one; an error if the count is wrong.
    pub(super) fn body(&self) -> Result<impl Iterator<Item = (u64, &str)>> {
        let count = self.count_line();
        if let Some(count) = count {
            let follow = self.numbered().count() - 1;
            if count != follow {
                let message = format!("the count line says {count}, but {follow} lines follow");
                return Err(self.error(1, message).hint("is the file cut short?"));
            }
        }
        Ok(self.numbered().skip(usize::from(count.is_some())))
    }

    /// An error about one line.
    pub fn error(&self, line: u64, message: impl Into<String>) -> Error {
        self.locate(line, Error::data(message))
    }

    pub(super) fn locate(&self, number: u64, error: Error) -> Error {
        error.at(&self.path).line(number)
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A cell without the space around it, or the byte order marks that joined files leave.
pub fn trimmed(cell: &str) -> &str {
    cell.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// A text without the space around it; `None` if it is then empty.
pub(super) fn filled(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{complaint, written};

    fn body(text: &str) -> Result<Vec<(u64, String)>> {
        let lines = written(text, Lines::read)?;
        Ok(lines.body()?.map(|(number, line)| (number, trimmed(line).to_owned())).collect())
    }

    #[test]
    fn every_line_end_reads_alike() {
        let expected = vec![(1, "a b".to_owned()), (2, "č".to_owned())];
        for text in ["a b\nč\n", "a b\r\nč\r\n", "a b\nč", "\u{feff}a b\r\nč\r\n\r\n\n", "a b\nč\r"] {
            assert_eq!(body(text).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn blank_lines_and_a_count_line_are_none_but_count() {
        assert_eq!(body("\n2\n \na\n\r\nb\n").unwrap(), [(4, "a".to_owned()), (6, "b".to_owned())]);
        assert_eq!(body("1\r\na\r\n").unwrap(), [(2, "a".to_owned())]);
        assert!(body("").unwrap().is_empty() && body("\n\n").unwrap().is_empty());
        assert_eq!(complaint(body("3\na\nb\n")), "line 1: the count line says 3, but 2 lines follow");
    }

    #[test]
    fn a_carriage_return_within_a_line_is_refused() {
        for (text, line) in [("a b\rc d\r", 1), ("a b\nc\rd\n", 2)] {
            let says = format!("line {line}: a carriage return (CR) within the line");
            assert_eq!(complaint(body(text)), says);
        }
    }
}
