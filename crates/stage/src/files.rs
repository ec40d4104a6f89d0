//! Files that are either complete or absent, and their digests.

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::fs::{File, TryLockError};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{Error, Kind, Result};

/// The first bytes of files that are not text, the kind of each file, and the way to convert it.
const BINARY: [(&[u8], &str, &str); 12] = [
    (b"\xff\xfe\0\0", "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8 OLD > NEW"),
    (b"\xff\xfe", "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW"),
    (b"\xfe\xff", "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it: gunzip < OLD > NEW"),
    (b"BZh", "compressed by bzip2", "unpack it: bunzip2 < OLD > NEW"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it: unxz < OLD > NEW"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it: unzstd < OLD > NEW"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"PAR1", "a Parquet file", "write it as text: one line per row, tabs between columns"),
    (b"\x93NUMPY", "a NumPy file", "write it as text: one line per row, tabs between columns"),
    (b"\x80\x03", "a pickle of Python", "write it as text: one line per row, tabs between columns"),
    (b"\x80\x04", "a pickle of Python", "write it as text: one line per row, tabs between columns"),
];

/// The first words of texts that a server or Git LFS gives in place of the real file.
const STAND_INS: [(&[&str], &str, &str); 4] = [
    (
        &["version https://git-lfs"],
        "a pointer of Git LFS, not the file itself",
        "fetch the file: git lfs pull",
    ),
    (&["<!doctype html", "<html"], "a web page, not the file itself", "download the file again"),
    (&["<?xml"], "XML, perhaps a server's error, not the file itself", "download the file again"),
    (
        &["404: not found", "entry not found", "repository not found"],
        "a server's error, not the file itself",
        "is its address right? download the file again",
    ),
];

/// Writes `path` through a temporary sibling. The sibling is renamed to `path` after `write` has succeeded and the
/// content has reached the disk, so a killed program or machine never leaves a file that only looks complete.
///
/// The sibling is called `.NAME.tmp`. The stage's next start or the next write removes one that a killed program left.
///
/// # Errors
/// The errors of `write`, failed writes, and [`Kind::Interrupted`] while another process writes the same file.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    // A link stays a link; a device or a pipe is written directly.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if path.metadata().is_ok_and(|of| !of.is_file() && !of.is_dir()) {
        let file = File::options().write(true).open(path).map_err(|e| Error::io(path, e))?;
        return fill(&file, path, write);
    }
    let temporary = Temporary::open(path, "tmp")?;
    let emptied = temporary.file.set_len(0).map_err(|e| Error::io(path, e));
    let written = emptied.and_then(|()| fill(&temporary.file, path, write)).and_then(|()| temporary.rename());
    if written.is_err() {
        // The caller gets the first error, not an error of this removal.
        let _ = std::fs::remove_file(&temporary.path);
    }
    written
}

fn fill(file: &File, path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    write(&mut writer).map_err(|e| e.at(path))?;
    writer.flush().map_err(|e| Error::io(path, e))
}

/// An unfinished file, under a temporary name beside its final name.
pub struct Temporary {
    /// The path of the temporary file.
    pub path: PathBuf,
    /// The temporary file's content so far; writes go to its end.
    pub file: File,
    target: PathBuf,
}

impl Temporary {
    /// Opens `.NAME.ENDING` beside `target`, with the content of an earlier start, and locks it until it is dropped.
    ///
    /// # Errors
    /// Failed writes, and [`Kind::Interrupted`] while another process has the temporary file open.
    pub fn open(target: &Path, ending: &str) -> Result<Temporary> {
        let folder = folder_of(target);
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = folder.join(format!(".{name}.{ending}"));
        let file = File::options().create(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let error = Error::new(Kind::Interrupted, "another process is writing this file").at(target);
                Err(error.hint("run the same command again when that has ended"))
            }
            // The process that held the lock has renamed the file in the meantime.
            Ok(()) if !is_at(&file, &path) => Temporary::open(target, ending),
            _ => Ok(Temporary { path, file, target: target.to_owned() }),
        }
    }

    /// Renames the file to its final name, once its content has reached the disk.
    ///
    /// # Errors
    /// Failed writes and a failed rename.
    pub fn rename(&self) -> Result<()> {
        let moved = self.file.sync_all().and_then(|()| std::fs::rename(&self.path, &self.target));
        moved.map_err(|e| Error::io(&self.target, e))?;
        sync_folder(folder_of(&self.target))
    }
}

/// Tells whether `file` is still the file at `path`.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = |file: std::io::Result<std::fs::Metadata>| file.map(|file| (file.dev(), file.ino())).ok();
        inode(file.metadata()) == inode(std::fs::metadata(path))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.is_file()
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// Makes renames and removals in `folder` survive a power failure, where the system can.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(folder, e))?;
    let _ = folder;
    Ok(())
}

/// Removes temporary files that killed programs left in `folder` and the folders below it.
pub(crate) fn sweep(folder: &Path) -> Result<()> {
    remove_files(folder, &|name| name.starts_with('.') && name.ends_with(".tmp"))
}

/// Removes the files in `folder` and below it whose name satisfies `is_meant`.
pub(crate) fn remove_files(folder: &Path, is_meant: &impl Fn(&str) -> bool) -> Result<()> {
    for path in below(folder)? {
        if is_meant(&path.file_name().unwrap_or_default().to_string_lossy()) {
            std::fs::remove_file(&path).map_err(|e| Error::io(path, e))?;
        }
    }
    Ok(())
}

/// All files in `folder` and the folders below it; links to folders are not followed.
pub(crate) fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if path.is_dir() && !path.is_symlink() { files.append(&mut below(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

/// The names of the folders in `parent` that parse as `T`, sorted by name; empty if `parent` does not exist.
pub fn folders<T: FromStr>(parent: &Path) -> Result<Vec<T>> {
    let entries = match std::fs::read_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<std::io::Result<Vec<_>>>),
    };
    let entries = entries.map_err(|e| Error::io(parent, e))?;
    let folders = entries.iter().filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Writes a safetensors file, atomically: its `header` (every tensor's `dtype`, `shape` and `data_offsets`), then the
/// tensors' bytes. The `safetensors` crate writes texts in the order of a hash map, but here the same tensors must give
/// the same bytes.
pub fn write_tensors<'a>(
    path: &Path,
    header: &serde_json::Value,
    tensors: impl IntoIterator<Item = &'a [u8]>,
) -> Result<()> {
    let mut header = header.to_string();
    // The tensors begin at a multiple of 8 bytes.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let length = (header.len() as u64).to_le_bytes();
    let front = [&length[..], header.as_bytes()].concat();
    write_atomically(path, |file| {
        let mut tensors = tensors.into_iter();
        let written = file.write_all(&front).and_then(|()| tensors.try_for_each(|part| file.write_all(part)));
        written.map_err(|e| Error::io(path, e))
    })
}

/// Writes `bytes` to `path`, atomically.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(path, |file| file.write_all(bytes).map_err(|e| Error::io(path, e)))
}

/// Reads all of `path`.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(path, e))
}

/// Reads all of `path` as UTF-8 text, without a byte order mark; an error names the format of a file that is not text.
pub fn read_text(path: &Path) -> Result<String> {
    text(read_bytes(path)?).map_err(|e| e.at(path))
}

/// The text in a file's bytes, without a byte order mark.
///
/// # Errors
/// [`Kind::Data`] for anything but UTF-8 without NUL; the message names the likely format.
pub fn text(bytes: Vec<u8>) -> Result<String> {
    // A text may also begin with these bytes, so they count only if the file is not valid text.
    let binary = BINARY.iter().find(|(magic, ..)| bytes.starts_with(magic));
    let binary = binary.map(|(_, what, remedy)| Error::data(format!("{what}, not UTF-8 text")).hint(*remedy));
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let hint =
            "is it UTF-16, or no text at all? a text is converted by: iconv -f UTF-16 -t UTF-8 OLD > NEW";
        let error = || Error::data("a NUL byte, which no text has").line(line_of(&bytes, at)).hint(hint);
        return Err(binary.unwrap_or_else(error));
    }
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let line = line_of(e.as_bytes(), e.utf8_error().valid_up_to());
        let hint = "is it Latin-1 or Windows-1252? then convert it: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW";
        binary.unwrap_or_else(|| Error::data("not valid UTF-8").line(line).hint(hint))
    })?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    let start: String = text.trim_start().chars().take(30).collect::<String>().to_ascii_lowercase();
    match STAND_INS.iter().find(|(words, ..)| words.iter().any(|words| start.starts_with(words))) {
        Some((_, what, remedy)) => Err(Error::data(*what).hint(*remedy)),
        None => Ok(text),
    }
}

/// The line of the byte at index `at`, counted from 1.
fn line_of(bytes: &[u8], at: usize) -> usize {
    1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count()
}

/// Writes `value` as indented JSON, atomically.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::data(e.to_string()).at(path))?;
    text.push('\n');
    write_bytes(path, text.as_bytes())
}

/// Reads JSON; an error names the line.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&read_text(path)?).map_err(|e| Error::data(e.to_string()).at(path).line(e.line()))
}

/// The SHA-256 of a file as hexadecimal digits (what `sha256sum` prints) and its size in bytes.
pub fn digest(path: &Path) -> Result<(String, u64)> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let (mut hasher, mut buffer, mut size) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let n = file.read(&mut buffer).map_err(|e| Error::io(path, e))?;
        if n == 0 {
            return Ok((hex(&hasher.finalize()), size));
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
    }
}

/// The SHA-256 of `bytes` as hexadecimal digits.
pub fn digest_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_bytes(&path, b"old").unwrap();
        let failed = write_atomically(&path, |file| {
            file.write_all(b"ne").unwrap();
            Err(Error::data("no"))
        });
        assert!(failed.is_err());
        assert_eq!(read_bytes(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_and_pipes_are_written_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link, pipe] = ["file", "link", "pipe"].map(|name| dir.path().join(name));
        write_bytes(&file, b"old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_bytes(&link, b"new").unwrap();
        assert!(link.is_symlink() && read_bytes(&file).unwrap() == b"new");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        write_bytes(&pipe, b"through").unwrap();
        assert!(!pipe.is_file());
        assert_eq!(reader.join().unwrap(), b"through");
    }

    #[test]
    fn numbers_read_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let numbers: Vec<f64> = (1..2000).map(|i| f64::from(i).sqrt() / 45.0).collect();
        write_json(&path, &numbers).unwrap();
        assert_eq!(read_json::<Vec<f64>>(&path).unwrap(), numbers);
    }

    #[test]
    fn what_a_killed_write_left_is_swept_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (path, below) = (dir.path().join("x"), dir.path().join("below"));
        std::fs::create_dir(&below).unwrap();
        for left in [dir.path().join(".x.tmp"), below.join(".y.tmp")] {
            std::fs::write(left, "a longer beginning").unwrap();
        }
        write_bytes(&path, b"short").unwrap();
        assert_eq!(read_bytes(&path).unwrap(), b"short");
        std::fs::write(dir.path().join("done.tmp"), "work to go on with").unwrap();
        sweep(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(&below).unwrap().count(), 0);
        assert!(path.is_file() && dir.path().join("done.tmp").is_file());
    }

    #[test]
    fn two_writers_of_one_file_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let first = write_atomically(&path, |file| {
            file.write_all(b"first").unwrap();
            assert_eq!(write_bytes(&path, b"second").unwrap_err().kind(), Kind::Interrupted);
            Ok(())
        });
        first.unwrap();
        assert_eq!(read_bytes(&path).unwrap(), b"first");
    }

    #[test]
    fn the_digest_is_what_sha256sum_prints() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_bytes(&path, b"abc").unwrap();
        let (digest, size) = digest(&path).unwrap();
        assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(size, 3);
    }

    #[test]
    fn what_is_no_text_is_named() {
        let utf16: Vec<u8> = "\u{feff}key\tname\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let bare: Vec<u8> = "key\tname\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n".to_vec();
        for (bytes, says, remedy) in [
            (utf16, "UTF-16 text", "iconv -f UTF-16"),
            (bare, "line 1: a NUL byte", "UTF-16"),
            (b"a\nb\0\n".to_vec(), "line 2: a NUL byte", "no text at all"),
            (b"a\n\xe9t\xe9\n".to_vec(), "line 2: not valid UTF-8", "Latin-1"),
            (b"\x1f\x8b\x08\x00".to_vec(), "compressed by gzip", "gunzip"),
            (b"PK\x03\x04\x14\0rest".to_vec(), "a zip archive", "unpack"),
            (pointer, "a pointer of Git LFS", "git lfs pull"),
            (b"\n<!DOCTYPE html><title>Quota exceeded".to_vec(), "a web page", "download"),
        ] {
            let error = text(bytes).unwrap_err();
            assert_eq!(error.kind(), Kind::Data);
            assert!(error.to_string().starts_with(says), "{error}");
            assert!(error.hint_text().unwrap().contains(remedy), "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(text("\u{feff}č\r\n".into()).unwrap(), "č\r\n");
        assert_eq!(text(Vec::new()).unwrap(), "");
        assert_eq!(text("PAR1\tF2R\n".into()).unwrap(), "PAR1\tF2R\n", "a gene");
    }
}
