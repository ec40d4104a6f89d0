//! NumPy's `.npy`, versions 1 to 3: a magic string, the header's length, the header as a Python literal, the numbers.
//!
//! Files are checked before anything is allocated for them, so that a damaged one is an error with a place. (candle
//! reads `.npy` too, but trusts the sizes in its header and knows only C order.)

use stage::{Error, Result};

use super::tensors::{Number, Tensors};

/// One array.
pub(super) struct Npy<'a> {
    number: Number,
    shape: Vec<usize>,
    fortran: bool,
    data: &'a [u8],
}

impl<'a> Npy<'a> {
    /// The array in a file's `bytes`.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Npy<'a>> {
        let (header, data) = parts(bytes).ok_or_else(|| Error::data("not a whole .npy file"))?;
        let array = Npy::header(header, data)?;
        let count = array.shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
        let expected = count.and_then(|count| count.checked_mul(array.number.size()));
        if expected != Some(data.len()) {
            let (shape, size, left) = (&array.shape, array.number.size(), data.len());
            let message = format!(
                "shape {shape:?} of {size} bytes each does not fit the {left} bytes that follow: truncated?"
            );
            return Err(Error::data(message));
        }
        Ok(array)
    }

    fn header(header: &str, data: &'a [u8]) -> Result<Npy<'a>> {
        let number = match field(header, "descr").map(|text| text.trim_matches(['\'', '"'])) {
            Some("<f2" | "=f2") => Number::F16,
            Some("<f4" | "=f4") => Number::F32,
            Some("<f8" | "=f8") => Number::F64,
            other => {
                let message =
                    format!("holds {}, not little-endian f2, f4 or f8", other.unwrap_or("no numbers"));
                return Err(Error::data(message).hint("save it with .astype('float32')"));
            }
        };
        let fortran = field(header, "fortran_order") == Some("True");
        Ok(Npy { number, shape: shape(header)?, fortran, data })
    }

    /// The axes of an array, whatever it holds, of which only the beginning is there.
    pub(super) fn shape_of(beginning: &[u8]) -> Result<Vec<usize>> {
        let (header, _) = parts(beginning).ok_or_else(|| Error::data("not a .npy file"))?;
        shape(header)
    }

    /// Its numbers, the last axis fastest.
    pub(super) fn values(&self) -> Result<Vec<f32>> {
        let values = self.number.read(self.data);
        match (self.fortran, self.shape.as_slice()) {
            (false, _) | (true, [] | [_]) => Ok(values),
            (true, &[rows, width]) => Ok(transposed(&values, width, rows)),
            (true, shape) => Err(Error::data(format!("shape {shape:?} in Fortran order"))),
        }
    }
}

impl Tensors for Npy<'_> {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        vec![("array".to_owned(), self.shape.clone())]
    }

    fn read(&mut self, _: &str) -> Result<Vec<f32>> {
        self.values()
    }
}

fn shape(header: &str) -> Result<Vec<usize>> {
    let shape = field(header, "shape").ok_or_else(|| Error::data("no shape in the header"))?;
    let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty()).map(str::parse);
    axes.collect::<Result<_, _>>().map_err(|_| Error::data(format!("shape ({shape}) in the header")))
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
