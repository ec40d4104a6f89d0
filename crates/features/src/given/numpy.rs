//! NumPy's `.npy`, versions 1 to 3 (a magic string, the header's length, the header as a Python literal, the numbers),
//! and `.npz`, a zip archive of `.npy` files.
//!
//! Files are checked before memory is allocated for them, so that a damaged file is an error with a place. (candle
//! reads both formats too, but it trusts the sizes in a header and knows only C order and no texts.)

use candle_core::DType;
use stage::files::read_bytes;
use stage::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

use super::{Array, Tensors, little_endian, member, members, open_archive, tensor, unread};

/// The bytes of a member that are read first: enough for any header that NumPy writes for an array of numbers.
const HEADER: u64 = 4096;

struct Header {
    /// NumPy's name for the type of the items: `<f4`.
    kind: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(header: &str) -> Result<Header> {
        let kind = field(header, "descr").unwrap_or_default().trim_matches(['\'', '"']).to_owned();
        let fortran = field(header, "fortran_order") == Some("True");
        let shape = field(header, "shape").ok_or_else(|| Error::data("no shape in the header"))?;
        let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty()).map(str::parse);
        let axes = axes.collect::<Result<_, _>>();
        let shape = axes.map_err(|_| Error::data(format!("shape ({shape}) in the header")))?;
        Ok(Header { kind, fortran, shape })
    }

    /// The letter of the items' type, and the number of bytes per item.
    fn letter(&self) -> (char, usize) {
        let kind = self.kind.trim_start_matches(['<', '>', '=', '|']);
        let letter = kind.chars().next().unwrap_or(' ');
        let size = kind[letter.len_utf8().min(kind.len())..].parse().unwrap_or(0);
        // NumPy gives the size of texts in letters of UTF-32.
        (letter, if letter == 'U' { size * 4 } else { size })
    }

    /// The number of bytes of the whole array; none if it overflows.
    fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.letter().1, |product, axis| product.checked_mul(*axis))
    }

    fn unread(&self) -> Error {
        let kind = if self.kind.is_empty() { "no numbers" } else { &self.kind };
        let error = Error::data(format!("holds {kind}, not f2, f4 or f8"));
        error.hint(match self.letter() {
            ('O', _) if self.shape.is_empty() => {
                "in Python: d = np.load(path, allow_pickle=True).item(); np.savez(path, **d)"
            }
            ('O', _) => "in Python: an array of objects becomes one of numbers by np.stack(list(x)).astype('float32')",
            ('V', 2) => {
                "bfloat16, of which NumPy knows nothing: in Python: x.float() of the tensor before it is saved"
            }
            ('[', _) => "a structured array: save the field that holds the features",
            _ => "save it with .astype('float32')",
        })
    }

    fn array(&self, data: &[u8]) -> Result<Array> {
        let (letter, size) = self.letter();
        let dtype = match (letter, size) {
            ('f', 2) => DType::F16,
            ('f', 4) => DType::F32,
            ('f', 8) => DType::F64,
            ('i' | 'u' | 'b', 1..=8) => DType::I64,
            ('U' | 'S', 1..) => DType::U8,
            _ => return Ok(Array::Unread(self.unread())),
        };
        if self.bytes() != Some(data.len()) {
            let each = format!("shape {:?} of {size} bytes each", self.shape);
            let follow = format!("the {} bytes that follow", data.len());
            return Err(Error::data(format!("{each} does not fit {follow}: truncated?")));
        }
        let unit = match letter {
            'U' => 4,
            'S' => 1,
            _ => size,
        };
        let data = little_endian(data, unit, self.kind.starts_with('>'));
        let each = data.chunks_exact(size);
        match letter {
            'U' => Ok(Array::Texts(each.map(utf_32).collect())),
            'S' => {
                let texts = each.map(String::from_utf8_lossy);
                Ok(Array::Texts(texts.map(|text| text.trim_end_matches('\0').to_owned()).collect()))
            }
            'f' => self.shaped(&data, dtype),
            _ => {
                let whole = each.map(|bytes| integer(bytes, letter == 'i'));
                self.shaped(&whole.flat_map(i64::to_le_bytes).collect::<Vec<_>>(), dtype)
            }
        }
    }

    fn shaped(&self, bytes: &[u8], dtype: DType) -> Result<Array> {
        if !self.fortran {
            return Ok(Array::Numbers(tensor(bytes, dtype, &self.shape)?));
        }
        let (axes, reversed): (Vec<usize>, Vec<usize>) = self.shape.iter().copied().enumerate().rev().unzip();
        let turned = tensor(bytes, dtype, &reversed)?.permute(axes);
        Ok(Array::Numbers(turned.map_err(unread)?))
    }
}

/// A text of UTF-32, padded with zeros.
fn utf_32(bytes: &[u8]) -> String {
    let letters = bytes.as_chunks().0.iter().map(|letter| u32::from_le_bytes(*letter));
    letters.filter_map(char::from_u32).filter(|letter| *letter != '\0').collect()
}

/// A whole number of up to eight bytes, lowest byte first.
fn integer(bytes: &[u8], signed: bool) -> i64 {
    let negative = signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    i64::from_le_bytes(whole)
}

fn parts(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (version, rest) = rest.split_at_checked(2)?;
    let (length, rest) = rest.split_at_checked(if version[0] == 1 { 2 } else { 4 })?;
    let length = length.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// The value of a key in `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`; a tuple without its brackets.
fn field<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, after) = header.split_once(&format!("'{key}'"))?;
    let value = after.trim_start().strip_prefix(':')?.trim_start();
    match value.strip_prefix('(') {
        Some(tuple) => Some(tuple.split_once(')')?.0),
        None => Some(value.split([',', '}']).next()?.trim()),
    }
}

fn parse(bytes: &[u8]) -> Result<(Header, Array)> {
    let (header, data) = parts(bytes).ok_or_else(|| Error::data("not a whole .npy file"))?;
    let header = Header::parse(header)?;
    let array = header.array(data)?;
    Ok((header, array))
}

pub(super) fn array(path: &Path) -> Result<Tensors> {
    let (header, array) = match parse(&read_bytes(path)?)? {
        (_, Array::Unread(error)) => return Err(error),
        parsed => parsed,
    };
    let mut array = Some(array);
    let read = Box::new(move |_: &str| array.take().ok_or_else(|| Error::data("one array")));
    Ok(Tensors { list: vec![("array".to_owned(), header.shape)], lists: Vec::new(), read })
}

/// Opens a `.npz` archive and reads the headers of its members.
pub(super) fn archive(path: &Path) -> Result<Tensors> {
    let mut archive = open_archive(path, || Error::data(BROKEN))?;
    let mut headers = BTreeMap::new();
    for file in members(&archive) {
        let Some(name) = file.strip_suffix(".npy") else { continue };
        let start = member(&mut archive, &file, HEADER).map_err(|e| Error::data(BROKEN).because(e))?;
        let header = parts(&start).ok_or_else(|| Error::data("not a .npy file"));
        let header = header.and_then(|(header, _)| Header::parse(header)).map_err(|e| in_member(&e, name))?;
        headers.insert(name.to_owned(), header);
    }
    let list = headers.iter().map(|(name, header)| (name.clone(), header.shape.clone())).collect();
    let read = Box::new(move |name: &str| {
        // Memory was requested for the size in the header. One more byte shows a member that is too long.
        let size = headers.get(name).and_then(Header::bytes).map_or(u64::MAX, |size| size as u64);
        let bytes = member(&mut archive, &format!("{name}.npy"), size.saturating_add(HEADER + 1))
            .map_err(|e| Error::data(BROKEN).because(e))?;
        parse(&bytes).map(|(_, array)| array).map_err(|e| in_member(&e, name))
    });
    Ok(Tensors { list, lists: Vec::new(), read })
}

const BROKEN: &str = "not a whole .npz file";

fn in_member(error: &Error, name: &str) -> Error {
    Error::data(format!("`{name}`: {error}")).hint(error.hint_text().unwrap_or("save it with np.savez"))
}
