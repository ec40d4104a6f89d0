//! NumPy's `.npy`, versions 1 to 3 (a magic string, the header's length, the header as a Python literal, the numbers),
//! and `.npz`, a zip archive of them.
//!
//! Files are checked before anything is allocated for them, so that a damaged one is an error with a place. (candle
//! reads both too, but trusts the sizes in a header and knows only C order and no texts.)

use candle_core::DType;
use stage::files::read_bytes;
use stage::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;

use super::read::{Array, Order, Tensors, tensor, unread};

/// Enough of a member of an archive to hold any header that NumPy writes for an array of numbers.
const HEADER: u64 = 4096;

/// An array's header.
struct Header {
    /// NumPy's word for what the array holds: `<f4`.
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

    /// The letter of what is held, and the bytes of each.
    fn letter(&self) -> (char, usize) {
        let kind = self.kind.trim_start_matches(['<', '>', '=', '|']);
        let letter = kind.chars().next().unwrap_or(' ');
        let size = kind[letter.len_utf8().min(kind.len())..].parse().unwrap_or(0);
        // The size of texts is a number of letters in UTF-32.
        (letter, if letter == 'U' { size * 4 } else { size })
    }

    /// The bytes of the whole array; none where they are beyond any number.
    fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.letter().1, |product, axis| product.checked_mul(*axis))
    }

    /// The error of an array that is neither numbers nor texts.
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

    /// The array whose bytes are `data`.
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
            let (shape, left) = (&self.shape, data.len());
            let message = format!(
                "shape {shape:?} of {size} bytes each does not fit the {left} bytes that follow: truncated?"
            );
            return Err(Error::data(message));
        }
        let order = if self.kind.starts_with('>') { Order::BigEndian } else { Order::LittleEndian };
        match letter {
            'U' => {
                let data = order.little(data, 4);
                Ok(Array::Texts(data.chunks_exact(size).map(utf_32).collect()))
            }
            'S' => {
                let texts = data.chunks_exact(size).map(String::from_utf8_lossy);
                Ok(Array::Texts(texts.map(|text| text.trim_end_matches('\0').to_owned()).collect()))
            }
            'f' => self.shaped(&order.little(data, size), dtype),
            _ => {
                let data = order.little(data, size);
                let whole = data.chunks_exact(size).map(|bytes| integer(bytes, letter == 'i'));
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

/// A whole number of up to eight bytes, the lowest first.
fn integer(bytes: &[u8], signed: bool) -> i64 {
    let negative = signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    i64::from_le_bytes(whole)
}

/// Header and numbers.
fn parts(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (version, rest) = rest.split_at_checked(2)?;
    let (length, rest) = rest.split_at_checked(if version[0] == 1 { 2 } else { 4 })?;
    let length = length.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// The value of a key in `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, a tuple without its brackets.
fn field<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, after) = header.split_once(&format!("'{key}'"))?;
    let value = after.trim_start().strip_prefix(':')?.trim_start();
    match value.strip_prefix('(') {
        Some(tuple) => Some(tuple.split_once(')')?.0),
        None => Some(value.split([',', '}']).next()?.trim()),
    }
}

/// A `.npy` file in memory.
pub(super) struct Npy {
    header: Header,
    array: Option<Array>,
}

impl Npy {
    pub(super) fn open(path: &Path) -> Result<Npy> {
        match Npy::parse(&read_bytes(path)?)? {
            Npy { array: Some(Array::Unread(error)), .. } => Err(error),
            npy => Ok(npy),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Npy> {
        let (header, data) = parts(bytes).ok_or_else(|| Error::data("not a whole .npy file"))?;
        let header = Header::parse(header)?;
        Ok(Npy { array: Some(header.array(data)?), header })
    }
}

impl Tensors for Npy {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        vec![("array".to_owned(), self.header.shape.clone())]
    }

    fn read(&mut self, _: &str) -> Result<Array> {
        self.array.take().ok_or_else(|| Error::data("one array"))
    }
}

/// A `.npz` archive whose members' headers have been read.
pub(super) struct Npz {
    archive: ZipArchive<BufReader<File>>,
    list: Vec<(String, Header)>,
}

impl Npz {
    pub(super) fn open(path: &Path) -> Result<Npz> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
        let mut list = Vec::new();
        for i in 0..archive.len() {
            let member = archive.by_index(i).map_err(broken)?;
            let name = String::from_utf8_lossy(member.name_raw()).strip_suffix(".npy").map(str::to_owned);
            let Some(name) = name else { continue };
            let mut start = Vec::new();
            member.take(HEADER).read_to_end(&mut start).map_err(broken)?;
            let (header, _) =
                parts(&start).ok_or_else(|| in_member(&Error::data("not a .npy file"), &name))?;
            list.push((name.clone(), Header::parse(header).map_err(|e| in_member(&e, &name))?));
        }
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Npz { archive, list })
    }

    /// The bytes of a member: not more than its header needs, which is what memory was asked for, and one byte that then is
    /// too many.
    fn bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        let header = self.list.iter().find(|(other, _)| other == name);
        let size = header.and_then(|(_, header)| header.bytes()).map_or(u64::MAX, |size| size as u64);
        let member = self.archive.by_name(&format!("{name}.npy")).map_err(broken)?;
        let mut bytes = Vec::new();
        member.take(size.saturating_add(HEADER + 1)).read_to_end(&mut bytes).map_err(broken)?;
        Ok(bytes)
    }
}

impl Tensors for Npz {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        self.list.iter().map(|(name, header)| (name.clone(), header.shape.clone())).collect()
    }

    fn read(&mut self, name: &str) -> Result<Array> {
        let bytes = self.bytes(name)?;
        let read = Npy::parse(&bytes).and_then(|mut npy| npy.read(name));
        read.map_err(|e| in_member(&e, name))
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::data("not a whole .npz file").because(error)
}

fn in_member(error: &Error, name: &str) -> Error {
    Error::data(format!("`{name}`: {error}")).hint(error.hint_text().unwrap_or("save it with np.savez"))
}
