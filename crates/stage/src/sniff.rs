//! Files that should be text: most of what is wrong with one shows in its first bytes.

use crate::{Error, Result};

/// First bytes of files that are no text, what such a file is, and how it becomes one.
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

/// First words of texts that stand in the place of the file that was meant.
const STAND_INS: [(&str, &str, &str); 3] = [
    ("version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"),
    ("<!doctype html", "a web page, not the file itself", "download the file again"),
    ("<html", "a web page, not the file itself", "download the file again"),
];

/// The text in a file's bytes, without a byte order mark.
///
/// # Errors
/// [`crate::Kind::Data`] for anything but UTF-8 without NUL, named as what it looks like.
pub(crate) fn text(bytes: Vec<u8>) -> Result<String> {
    if let Some((_, what, remedy)) = BINARY.iter().find(|(magic, ..)| bytes.starts_with(magic)) {
        return Err(Error::data(format!("{what}, not UTF-8 text")).hint(*remedy));
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let hint =
            "is it UTF-16, or no text at all? a text is converted by: iconv -f UTF-16 -t UTF-8 OLD > NEW";
        return Err(Error::data("a NUL byte, which no text has").line(line_of(&bytes, at)).hint(hint));
    }
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let line = line_of(e.as_bytes(), e.utf8_error().valid_up_to());
        let hint = "is it Latin-1 or Windows-1252? then convert it: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW";
        Error::data("not valid UTF-8").line(line).hint(hint)
    })?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    let start: String = text.trim_start().chars().take(30).collect::<String>().to_ascii_lowercase();
    match STAND_INS.iter().find(|(words, ..)| start.starts_with(words)) {
        Some((_, what, remedy)) => Err(Error::data(*what).hint(*remedy)),
        None => Ok(text),
    }
}

/// The line that byte number `at` stands on, counted from 1.
fn line_of(bytes: &[u8], at: usize) -> usize {
    1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (b"PK\x03\x04rest".to_vec(), "a zip archive", "unpack"),
            (pointer, "a pointer of Git LFS", "git lfs pull"),
            (b"\n<!DOCTYPE html><title>Quota exceeded".to_vec(), "a web page", "download"),
        ] {
            let error = text(bytes).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Data);
            assert!(error.to_string().starts_with(says), "{error}");
            assert!(error.hint_text().unwrap().contains(remedy), "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(text("\u{feff}č\r\n".into()).unwrap(), "č\r\n");
        assert_eq!(text(Vec::new()).unwrap(), "");
    }
}
