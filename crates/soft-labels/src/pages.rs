//! Lists of numbers as Parquet pages whose values have the same bytes in the file and in memory.
//!
//! A page is a header, repetition and definition levels, and the values in PLAIN encoding: little-endian numbers, row
//! after row. The levels of a page depend only on its shape, so they are composed here and not derived from every
//! single value, which makes general writers slow. If the values would begin at an odd offset, one number in the levels
//! is encoded with one more byte, so that a mapped file can be read as `[f16]`.

use arrow::datatypes::DataType;
use bytemuck::Pod;
use bytes::Bytes;
use half::f16;
use half::slice::HalfFloatSliceExt;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use rayon::prelude::*;
use std::io::Write;

use crate::schema::rows_per_page;

/// A number in its form in a file.
pub(crate) trait Stored: Pod {
    /// The number's type in memory.
    type Number: Copy + Sync;
    /// The number's type for other readers.
    const TYPE: DataType;
    /// Stores numbers; returns true if every number fits.
    fn store(numbers: &[Self::Number], bytes: &mut [u8]) -> bool;
}

impl Stored for f16 {
    type Number = f32;
    const TYPE: DataType = DataType::Float16;

    fn store(numbers: &[f32], bytes: &mut [u8]) -> bool {
        let halves: &mut [f16] = bytemuck::cast_slice_mut(bytes);
        let mut fits = true;
        // Checks piece by piece, while a piece is in the cache.
        for (numbers, halves) in numbers.chunks(PIECE).zip(halves.chunks_mut(PIECE)) {
            fits &= fits_half(numbers);
            halves.convert_from_f32_slice(numbers);
        }
        fits
    }
}

impl Stored for u32 {
    type Number = u32;
    const TYPE: DataType = DataType::UInt32;

    fn store(numbers: &[u32], bytes: &mut [u8]) -> bool {
        // Copies bytes: their place is even, but a slice of u32 would need a multiple of four.
        bytes.copy_from_slice(bytemuck::cast_slice(numbers));
        true
    }
}

/// Number of values that are checked and converted at once.
pub(crate) const PIECE: usize = 4096;

/// Tells whether half precision can hold all the numbers; false for NaN.
pub(crate) fn fits_half(numbers: &[f32]) -> bool {
    // A fold without an early exit is vectorised.
    numbers.iter().fold(true, |fits, x| fits & (x.abs() <= f32::from(f16::MAX)))
}

/// The levels before a page's values: each of `rows` lists has `width` numbers, and no number is missing.
///
/// `wide` makes the levels one byte longer, with the same meaning.
pub(crate) fn levels(rows: usize, width: usize, wide: bool) -> Vec<u8> {
    // Repetition: 0 begins a row, 1 continues it.
    let mut repetition = Vec::new();
    for _ in 0..rows {
        run(&mut repetition, 1, 0, false);
        if width > 1 {
            run(&mut repetition, width - 1, 1, false);
        }
    }
    // Definition: 1 means that there is a value.
    let mut definition = Vec::new();
    run(&mut definition, rows * width, 1, wide);
    let [before, between] = [&repetition, &definition].map(|levels| (levels.len() as u32).to_le_bytes());
    [&before[..], &repetition, &between, &definition].concat()
}

/// Writes a run of Parquet's RLE hybrid: twice its length in ULEB128, perhaps with redundant zero bits, then the level.
fn run(into: &mut Vec<u8>, length: usize, level: u8, wide: bool) {
    let mut rest = 2 * length;
    while rest > 0 {
        into.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    if wide {
        into.push(0);
    } else if let Some(last) = into.last_mut() {
        *last &= 0x7f;
    }
    into.push(level);
}

/// A buffer in which column chunks are encoded, one after the other.
#[derive(Default)]
pub(crate) struct Encoder {
    /// Numbers, not bytes, so that everything at an even place has an even address.
    buffer: Vec<f16>,
}

impl Encoder {
    /// Encodes rows of `width` numbers as the pages of a column chunk that begins at `offset` in its file. Returns the
    /// chunk and its footer entry, or `None` if a number is not finite or does not fit its stored type.
    pub(crate) fn encode<S: Stored>(
        &mut self,
        column: &ColumnDescPtr,
        numbers: &[S::Number],
        width: usize,
        offset: usize,
    ) -> Result<Option<(Borrowed<'_>, ColumnCloseResult)>> {
        let size = size_of::<S>();
        let pages = numbers.chunks(rows_per_page(size * width) * width);
        let mut fronts = Vec::with_capacity(pages.len());
        let mut end = offset;
        for page in pages.clone() {
            let mut before = front(page.len(), width, size, false)?;
            if !(end + before.len()).is_multiple_of(2) {
                // A header contains the page's length twice, so only longer levels add an odd number of bytes.
                before = front(page.len(), width, size, true)?;
            }
            end += before.len() + size * page.len();
            fronts.push(before);
        }
        let length = end - offset;
        // Keeps places that are odd in the file odd in the buffer.
        let begin = offset % 2;
        self.buffer.resize((begin + length).div_ceil(2), f16::ZERO);
        let bytes = &mut bytemuck::cast_slice_mut(&mut self.buffer)[begin..begin + length];
        let mut rest = &mut *bytes;
        let mut places = Vec::with_capacity(fronts.len());
        for (page, front) in pages.zip(&fronts) {
            let (before, after) = rest.split_at_mut(front.len());
            let (values, after) = after.split_at_mut(size * page.len());
            before.copy_from_slice(front);
            places.push((page, values));
            rest = after;
        }
        if !places.into_par_iter().all(|(page, values)| S::store(page, values)) {
            return Ok(None);
        }
        let metadata = ColumnChunkMetaData::builder(column.clone())
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE])
            .set_compression(Compression::UNCOMPRESSED)
            .set_num_values(numbers.len() as i64)
            .set_total_compressed_size(length as i64)
            .set_total_uncompressed_size(length as i64)
            .set_data_page_offset(0)
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: length as u64,
            rows_written: (numbers.len() / width) as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        Ok(Some((Borrowed(bytes), close)))
    }
}

/// The header and the levels of a page of `values` values, of `size` bytes each; see [`levels`].
fn front(values: usize, width: usize, size: usize, wide: bool) -> Result<Vec<u8>> {
    let levels = levels(values / width, width, wide);
    let length = levels.len() + size * values;
    let page = Page::DataPage {
        // Only the length counts here, and zeros that are never read take no memory.
        buf: Bytes::from(vec![0; length]),
        num_values: values as u32,
        encoding: Encoding::PLAIN,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    };
    let mut sink = TrackedWrite::new(Front(Vec::new()));
    let spec = SerializedPageWriter::new(&mut sink).write_page(CompressedPage::new(page, length))?;
    let mut front = sink.into_inner()?.0;
    front.truncate(spec.uncompressed_size - length);
    front.extend(levels);
    Ok(front)
}

/// A sink that keeps only the first bytes written to it, more than any header has.
struct Front(Vec<u8>);

impl Write for Front {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = 256_usize.saturating_sub(self.0.len()).min(bytes.len());
        self.0.extend(&bytes[..room]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Bytes from which Parquet's writer copies a chunk.
pub(crate) struct Borrowed<'a>(pub(crate) &'a [u8]);

impl Length for Borrowed<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

impl<'a> ChunkReader for Borrowed<'a> {
    type T = &'a [u8];

    fn get_read(&self, start: u64) -> Result<&'a [u8]> {
        self.0.get(start as usize..).ok_or_else(|| ParquetError::EOF("beyond the chunk".into()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        Ok(Bytes::copy_from_slice(&self.get_read(start)?[..length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{Field, Schema};
    use mkg::graph::list_item;
    use parquet::arrow::ArrowSchemaConverter;
    use parquet::column::page::PageReader;
    use parquet::column::reader::ColumnReaderImpl;
    use parquet::data_type::{FixedLenByteArrayType, Int32Type};
    use parquet::file::serialized_reader::SerializedPageReader;
    use std::sync::Arc;

    fn column<S: Stored>(width: usize) -> ColumnDescPtr {
        let list = DataType::FixedSizeList(list_item(S::TYPE), width as i32);
        let schema = Schema::new(vec![Field::new("numbers", list, false)]);
        ArrowSchemaConverter::new().convert(&schema).unwrap().column(0)
    }

    /// Reads the chunk's pages with a general reader of Parquet: levels of definition and repetition, and values.
    /// Asserts that values begin at even offsets.
    fn read<S: Stored, P: parquet::data_type::DataType>(
        numbers: &[S::Number],
        width: usize,
        offset: usize,
    ) -> (Vec<i16>, Vec<i16>, Vec<P::T>) {
        let (column, mut encoder, rows) = (column::<S>(width), Encoder::default(), numbers.len() / width);
        let (chunk, close) = encoder.encode::<S>(&column, numbers, width, offset).unwrap().unwrap();
        let bytes = Bytes::copy_from_slice(chunk.0);
        let open =
            || SerializedPageReader::new(Arc::new(bytes.clone()), &close.metadata, rows, None).unwrap();
        for page in open() {
            let page = page.unwrap();
            let end = page.buffer().as_ptr_range().end as usize - bytes.as_ptr() as usize;
            assert!((offset + end).is_multiple_of(2), "values end, and so begin, at an even offset");
        }
        let pages: Box<dyn PageReader> = Box::new(open());
        let mut reader = ColumnReaderImpl::<P>::new(column, pages);
        let (mut definition, mut repetition, mut values) = (Vec::new(), Vec::new(), Vec::new());
        reader.read_records(rows, Some(&mut definition), Some(&mut repetition), &mut values).unwrap();
        (definition, repetition, values)
    }

    #[test]
    fn a_general_reader_finds_lists_of_one_width_wherever_the_chunk_begins() {
        for (rows, width) in [(1, 1), (1, 2), (3, 1), (5, 3), (40, 64), (9, 200_000), (70_000, 8)] {
            let check_levels = |definition: Vec<i16>, repetition: Vec<i16>| {
                assert!(definition.len() == rows * width && definition.iter().all(|level| *level == 1));
                assert!(repetition.iter().enumerate().all(|(i, level)| (*level == 0) == (i % width == 0)));
            };
            let scores: Vec<f32> = (0..rows * width).map(|i| (i % 1999) as f32).collect();
            let ids: Vec<u32> = (0..(rows * width) as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
            for offset in [4, 5] {
                let (definition, repetition, found) =
                    read::<f16, FixedLenByteArrayType>(&scores, width, offset);
                check_levels(definition, repetition);
                let halves = found.iter().map(|half| f16::from_le_bytes(half.data().try_into().unwrap()));
                assert!(halves.map(f16::to_f32).eq(scores.iter().copied()));
                let (definition, repetition, found) = read::<u32, Int32Type>(&ids, width, offset);
                check_levels(definition, repetition);
                assert!(found.iter().map(|id| *id as u32).eq(ids.iter().copied()));
            }
        }
    }
}
