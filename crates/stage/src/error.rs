//! One error type for all stages, with the message, the place, the remedy and the exit code.

use std::fmt;
use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of a failure; its number is the exit code of the process, as documented in `docs/stages.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bug, or any failure that was not foreseen.
    Unexpected = 1,
    /// The command line or the recipe is wrong.
    Usage = 2,
    /// An input file's content is wrong.
    Data = 65,
    /// An input file is missing or its stage has not finished.
    Missing = 66,
    /// A number is no longer finite.
    Diverged = 70,
    /// Memory or disk is too small.
    Resource = 71,
    /// Reading or writing failed, on the disk or over a connection.
    Io = 74,
    /// The user or the cluster asked the program to stop, or another process does the same work.
    Interrupted = 75,
}

impl Kind {
    /// The kind of failure of an exit code other than 0.
    ///
    /// ```
    /// use stage::Kind;
    /// assert_eq!(Kind::of_exit_code(75), Kind::Interrupted);
    /// assert_eq!(Kind::of_exit_code(101), Kind::Unexpected);
    /// ```
    pub fn of_exit_code(code: i32) -> Kind {
        use Kind::{Data, Diverged, Interrupted, Io, Missing, Resource, Usage};
        let known = [Usage, Data, Missing, Diverged, Resource, Io, Interrupted];
        known.into_iter().find(|kind| i32::from(kind.exit_code()) == code).unwrap_or(Kind::Unexpected)
    }

    /// The process exit code for this kind of failure.
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

/// A failure with its place and, where we know one, its remedy.
///
/// ```
/// use stage::Error;
/// let error = Error::data("expected 3 columns, found 2").at("train.txt").line(12).hint("is it tab-separated?");
/// assert_eq!(error.to_string(), "train.txt: line 12: expected 3 columns, found 2");
/// assert_eq!(error.kind().exit_code(), 65);
/// ```
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    path: Option<PathBuf>,
    /// The line or row.
    position: Option<String>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; the constructors below are shorter.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let message = message.into();
        Error(Box::new(Inner { kind, message, path: None, position: None, hint: None, source: None }))
    }

    /// Wrong command line or recipe.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(Kind::Usage, message)
    }

    /// Wrong content of an input file.
    pub fn data(message: impl Into<String>) -> Self {
        Error::new(Kind::Data, message)
    }

    /// A missing input.
    pub fn missing(message: impl Into<String>) -> Self {
        Error::new(Kind::Missing, message)
    }

    /// A failed read or write of `path`; a file that does not exist is [`Kind::Missing`].
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        let kind = if source.kind() == std::io::ErrorKind::NotFound { Kind::Missing } else { Kind::Io };
        Error::new(kind, source.to_string()).at(path)
    }

    /// Names the file the error is about, unless an inner call already did.
    pub fn at(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path.get_or_insert_with(|| path.as_ref().to_owned());
        self
    }

    /// Names the line of a text file, counted from 1.
    pub fn line(mut self, line: impl fmt::Display) -> Self {
        self.0.position = Some(format!("line {line}"));
        self
    }

    /// Names the row of a table, counted from 0.
    pub fn row(mut self, row: impl fmt::Display) -> Self {
        self.0.position = Some(format!("row {row}"));
        self
    }

    /// Says what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Names the line, if it is known.
    pub fn maybe_line(self, line: Option<impl fmt::Display>) -> Self {
        match line {
            Some(line) => self.line(line),
            None => self,
        }
    }

    /// Keeps the error that caused this one.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The sort of failure.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The remedy, where one is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.0.path {
            write!(f, "{}: ", path.display())?;
        }
        if let Some(position) = &self.0.position {
            write!(f, "{position}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind::{NotFound, PermissionDenied};

    #[test]
    fn the_innermost_path_is_kept() {
        let error = Error::data("bad").at("inner.txt").at("outer.txt");
        assert_eq!(error.to_string(), "inner.txt: bad");
    }

    #[test]
    fn a_missing_file_is_not_an_io_error() {
        assert_eq!(Error::io("x", NotFound.into()).kind(), Kind::Missing);
        assert_eq!(Error::io("x", PermissionDenied.into()).kind(), Kind::Io);
    }
}
