//! Finished batches of unfinished work, kept one by one.
//!
//! Each is appended as soon as it is done, so a process that is killed loses the batches in work and nothing else,
//! and saving costs what the batch is large, not what the table is. An entry is its length, the first half of its
//! SHA-256, and its bytes; what a kill has cut off at the end is cut off altogether.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage::files::digest_of;
use stage::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The file in a modality's folder, while its features are unfinished. Its ending keeps it out of the outputs.
pub const FILE: &str = "done.tmp";
/// Hexadecimal digits of an entry's digest.
const DIGEST: usize = 32;
/// The longest entry that is believed, in bytes.
const MAX_ENTRY: u64 = 1 << 32;

/// One finished batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Which, and what is told of it.
    pub head: Head,
    /// Its rows, one after the other.
    pub rows: Vec<f32>,
}

/// What an entry begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The number of the batch.
    pub batch: usize,
    /// The entities of its rows.
    pub entities: Vec<usize>,
    /// What else is known of it.
    pub note: Value,
}

/// A file of finished batches.
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal at `path`, begins it where it is absent, and hands every whole entry to `each`.
    ///
    /// # Errors
    /// Where reading or writing fails, and what `each` answers.
    pub fn open(path: &Path, mut each: impl FnMut(Entry) -> Result<()>) -> Result<Journal> {
        let io = |e| Error::io(path, e);
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(io)?;
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let mut whole = 0;
        while let Some((entry, length)) = next(&mut reader).map_err(io)? {
            each(entry)?;
            whole += length;
        }
        file.set_len(whole).map_err(io)?;
        (&file).seek(SeekFrom::Start(whole)).map_err(io)?;
        Ok(Journal { path: path.to_owned(), file })
    }

    /// Adds an entry.
    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        let head = serde_json::to_vec(&entry.head).map_err(|e| Error::data(e.to_string()).at(&self.path))?;
        let mut body = (head.len() as u64).to_le_bytes().to_vec();
        body.extend(head);
        body.extend(bytemuck::cast_slice::<f32, u8>(&entry.rows));
        let digest = &digest_of(&body)[..DIGEST];
        let record = [&(body.len() as u64).to_le_bytes(), digest.as_bytes(), &body].concat();
        self.file.write_all(&record).map_err(|e| Error::io(&self.path, e))
    }
}

/// The next entry and its length in the file; none where no whole one follows.
fn next(reader: &mut impl Read) -> std::io::Result<Option<(Entry, u64)>> {
    let mut start = [0; 8 + DIGEST];
    if !fill(reader, &mut start)? {
        return Ok(None);
    }
    let (length, digest) = start.split_at(8);
    let length = number(length);
    if length > MAX_ENTRY {
        return Ok(None);
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    let whole = body.len() as u64 == length && digest_of(&body).as_bytes()[..DIGEST] == *digest;
    Ok(whole.then(|| parse(&body)).flatten().map(|entry| (entry, start.len() as u64 + length)))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether there were enough bytes.
fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> std::io::Result<bool> {
    match reader.read_exact(bytes) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| true),
    }
}

fn parse(body: &[u8]) -> Option<Entry> {
    let (length, rest) = body.split_at_checked(8)?;
    let (head, rows) = rest.split_at_checked(number(length) as usize)?;
    let rows = rows.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Some(Entry { head: serde_json::from_slice(head).ok()?, rows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(batch: usize) -> Entry {
        let head = Head { batch, entities: vec![batch, batch + 9], note: json!({ "read": batch }) };
        Entry { head, rows: vec![batch as f32, 0.5, -1.0, 2.0] }
    }

    /// Opens the journal; what it holds.
    fn entries(path: &Path) -> (Journal, Vec<Entry>) {
        let mut entries = Vec::new();
        let journal = Journal::open(path, |entry| {
            entries.push(entry);
            Ok(())
        });
        (journal.unwrap(), entries)
    }

    #[test]
    fn what_is_cut_off_is_dropped_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let (mut journal, none) = entries(&path);
        assert!(none.is_empty());
        let ends: Vec<usize> = (0..3)
            .map(|batch| {
                journal.append(&entry(batch)).unwrap();
                std::fs::metadata(&path).unwrap().len() as usize
            })
            .collect();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(entries(&path).1, [entry(0), entry(1), entry(2)]);
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let (mut journal, kept) = entries(&path);
            let whole = ends.iter().filter(|end| **end <= length).count();
            assert!(kept == (0..whole).map(entry).collect::<Vec<_>>(), "{length} bytes");
            journal.append(&entry(7)).unwrap();
            assert_eq!(entries(&path).1.last(), Some(&entry(7)));
        }
    }

    #[test]
    fn damage_ends_what_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut journal = entries(&path).0;
        (0..3).for_each(|batch| journal.append(&entry(batch)).unwrap());
        let bytes = std::fs::read(&path).unwrap();
        for at in bytes.len() / 3..bytes.len() / 3 * 2 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(entries(&path).1, [entry(0)], "byte {at}");
        }
        std::fs::write(&path, "junk of somebody else, which is longer than what an entry begins with")
            .unwrap();
        assert!(entries(&path).1.is_empty());
    }
}
