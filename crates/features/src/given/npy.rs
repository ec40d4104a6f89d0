//! NumPy's `.npy`, versions 1 to 3: a magic string, the header's length, the header as a Python literal, the numbers.
//!
//! Files are checked before anything is allocated for them, so that a damaged one is an error with a place. (candle
//! reads `.npy` too, but trusts the sizes in its header and knows only C order.)

use stage::{Error, Result};

use super::tensors::{Labels, Number, Order, Tensors};

/// What an array's header says.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// NumPy's word for what the array holds: `<f4`.
    kind: String,
    fortran: bool,
    pub(super) shape: Vec<usize>,
}

impl Header {
    /// The header at the `beginning` of a file.
    pub(super) fn of(beginning: &[u8]) -> Result<Header> {
        let (header, _) = parts(beginning).ok_or_else(|| Error::data("not a .npy file"))?;
        Header::parse(header)
    }

    fn parse(header: &str) -> Result<Header> {
        let kind = field(header, "descr").unwrap_or_default().trim_matches(['\'', '"']).to_owned();
        let fortran = field(header, "fortran_order") == Some("True");
        let shape = field(header, "shape").ok_or_else(|| Error::data("no shape in the header"))?;
        let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty()).map(str::parse);
        let axes = axes.collect::<Result<_, _>>();
        Ok(Header {
            kind,
            fortran,
            shape: axes.map_err(|_| Error::data(format!("shape ({shape}) in the header")))?,
        })
    }

    /// How floating-point numbers are stored.
    fn number(&self) -> Result<Number> {
        match self.letter() {
            ('f', 2) => Ok(Number::F16),
            ('f', 4) => Ok(Number::F32),
            ('f', 8) => Ok(Number::F64),
            other => {
                let kind = if self.kind.is_empty() { "no numbers" } else { &self.kind };
                let error = Error::data(format!("holds {kind}, not f2, f4 or f8"));
                Err(error.hint(match other {
                    ('O', _) if self.shape.is_empty() => {
                        "in Python: d = np.load(path, allow_pickle=True).item(); np.savez(path, **d)"
                    }
                    ('O', _) => "in Python: an array of objects becomes one of numbers by np.stack(list(x)).astype('float32')",
                    ('V', 2) => "bfloat16, of which NumPy knows nothing: in Python: x.float() of the tensor before it is saved",
                    ('[', _) => "a structured array: save the field that holds the features",
                    ('U' | 'S', _) => "texts: are these the keys of the rows?",
                    _ => "save it with .astype('float32')",
                }))
            }
        }
    }

    fn order(&self) -> Order {
        if self.kind.starts_with('>') { Order::BigEndian } else { Order::LittleEndian }
    }

    /// The letter of what is held, and the number that follows it: the bytes of each, of texts in UTF-32 the letters.
    fn letter(&self) -> (char, usize) {
        let kind = self.kind.trim_start_matches(['<', '>', '=', '|']);
        let letter = kind.chars().next().unwrap_or(' ');
        (letter, kind[letter.len_utf8().min(kind.len())..].parse().unwrap_or(0))
    }

    /// Bytes of each.
    pub(super) fn size(&self) -> usize {
        let (letter, size) = self.letter();
        if letter == 'U' { 4 * size } else { size }
    }

    /// Whether Python's objects are held, which are not read.
    pub(super) fn is_of_objects(&self) -> bool {
        self.letter().0 == 'O'
    }

    /// Whether these may be labels of so many rows.
    pub(super) fn may_label(&self, count: usize) -> bool {
        self.shape == [count] && matches!(self.letter().0, 'U' | 'S' | 'i' | 'u' | 'O')
    }
}

/// One array.
pub(super) struct Npy<'a> {
    header: Header,
    data: &'a [u8],
}

impl<'a> Npy<'a> {
    /// The array in a file's `bytes`.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Npy<'a>> {
        let (header, data) = parts(bytes).ok_or_else(|| Error::data("not a whole .npy file"))?;
        let header = Header::parse(header)?;
        if matches!(header.letter(), ('O' | 'V' | '[' | ' ', _)) {
            header.number()?;
        }
        let count = header.shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
        let expected = count.and_then(|count| count.checked_mul(header.size()));
        if expected != Some(data.len()) {
            let (shape, size, left) = (&header.shape, header.size(), data.len());
            let message = format!(
                "shape {shape:?} of {size} bytes each does not fit the {left} bytes that follow: truncated?"
            );
            return Err(Error::data(message));
        }
        Ok(Npy { header, data })
    }

    /// Its numbers, the last axis fastest.
    pub(super) fn values(&self) -> Result<Vec<f32>> {
        let values = self.header.number()?.read(self.data, self.header.order());
        match (self.header.fortran, self.header.shape.as_slice()) {
            (false, _) | (true, [] | [_]) => Ok(values),
            (true, &[rows, width]) => Ok(transposed(&values, width, rows)),
            (true, shape) => Err(Error::data(format!("shape {shape:?} in Fortran order"))),
        }
    }

    /// What it holds, as labels of rows.
    pub(super) fn labels(&self) -> Labels {
        let (letter, size) = self.header.letter();
        let each = self.header.size().max(1);
        let little = |bytes: &[u8], size| self.header.order().little(bytes, size).into_owned();
        match letter {
            'U' => {
                let letters = little(self.data, 4);
                let letter =
                    |bytes: &[u8; 4]| char::from_u32(u32::from_le_bytes(*bytes)).filter(|c| *c != '\0');
                let text = |bytes: &[u8]| bytes.as_chunks().0.iter().filter_map(letter).collect();
                Labels::Texts(letters.chunks_exact(each).map(text).collect())
            }
            'S' => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
                Labels::Texts(self.data.chunks_exact(each).map(text).collect())
            }
            _ => {
                let numbers = little(self.data, size);
                Labels::Numbers(
                    numbers.chunks_exact(each).map(|bytes| integer(bytes, letter == 'i')).collect(),
                )
            }
        }
    }
}

/// A whole number of up to eight bytes, the lowest first.
pub(super) fn integer(bytes: &[u8], signed: bool) -> i64 {
    let negative = signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    i64::from_le_bytes(whole)
}

impl Tensors for Npy<'_> {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        vec![("array".to_owned(), self.header.shape.clone())]
    }

    fn read(&mut self, _: &str) -> Result<Vec<f32>> {
        self.values()
    }

    fn labels(&mut self, _: usize) -> Result<Vec<(String, Labels)>> {
        Ok(Vec::new())
    }
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

/// A `(rows, columns)` matrix with its axes exchanged.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut exchanged = Vec::with_capacity(values.len());
    for column in 0..columns {
        exchanged.extend((0..rows).map(|row| values[row * columns + column]));
    }
    exchanged
}
