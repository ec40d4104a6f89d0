//! Lists of numbers as Parquet pages whose values lie in the file as they lie in memory.
//!
//! A page is a header, repetition and definition levels, and the values in PLAIN encoding: little-endian f16, row
//! after row. The levels of a page depend on its shape alone, so they are composed here instead of being derived
//! from every single value, which is what makes general writers slow. Where the values would begin at an odd
//! offset, one number in the levels is spelled with a byte more, so that a mapped file can be read as `[f16]`.

use bytes::Bytes;
use half::f16;
use half::slice::HalfFloatSliceExt;
use kge::Matrix;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use rayon::prelude::*;
use std::ops::Range;

use crate::schema::rows_per_page;

/// The levels in front of a page's values: each of `rows` lists has `width` numbers, none is missing.
///
/// `wide` makes them one byte longer and says the same.
pub(crate) fn levels(rows: usize, width: usize, wide: bool) -> Vec<u8> {
    // Repetition: 0 begins a row, 1 continues it.
    let mut repetition = Vec::new();
    for _ in 0..rows {
        run(&mut repetition, 1, 0, false);
        if width > 1 {
            run(&mut repetition, width - 1, 1, false);
        }
    }
    // Definition: 1, there is a value.
    let mut definition = Vec::new();
    run(&mut definition, rows * width, 1, wide);
    let length = |levels: &[u8]| (levels.len() as u32).to_le_bytes();
    [&length(&repetition)[..], &repetition, &length(&definition), &definition].concat()
}

/// A run of Parquet's RLE hybrid: twice its length in ULEB128, which may end in redundant zero bits, then the level.
fn run(into: &mut Vec<u8>, length: usize, level: u8, wide: bool) {
    let mut rest = 2 * length;
    while rest >= 0x80 {
        into.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    match wide {
        true => into.extend([rest as u8 | 0x80, 0]),
        false => into.push(rest as u8),
    }
    into.push(level);
}

/// A column chunk, encoded.
pub(crate) struct Chunk {
    /// Its pages.
    pub(crate) bytes: Bytes,
    /// What the footer says of it.
    pub(crate) close: ColumnCloseResult,
}

/// Encodes `rows` as one column chunk that will begin at `offset` of its file.
pub(crate) fn encode(column: &ColumnDescPtr, rows: &Matrix<f32>, offset: u64) -> Result<Chunk> {
    let plans = plan(rows.rows(), rows.columns(), offset)?;
    let pages: Vec<CompressedPage> = plans.into_par_iter().map(|plan| page(rows, plan)).collect();
    let length: usize = pages.iter().map(|page| page.data().len() + 64).sum();
    let mut sink = TrackedWrite::new(Vec::with_capacity(length));
    let mut writer = SerializedPageWriter::new(&mut sink);
    pages.into_iter().try_for_each(|page| writer.write_page(page).map(drop))?;
    let bytes = Bytes::from(sink.into_inner()?);
    let metadata = ColumnChunkMetaData::builder(column.clone())
        .set_encodings(vec![Encoding::PLAIN, Encoding::RLE])
        .set_compression(Compression::UNCOMPRESSED)
        .set_num_values(rows.values().len() as i64)
        .set_total_compressed_size(bytes.len() as i64)
        .set_total_uncompressed_size(bytes.len() as i64)
        .set_data_page_offset(0)
        .build()?;
    let close = ColumnCloseResult {
        bytes_written: bytes.len() as u64,
        rows_written: rows.rows() as u64,
        metadata,
        bloom_filter: None,
        column_index: None,
        offset_index: None,
    };
    Ok(Chunk { bytes, close })
}

/// The rows of one page, with their levels.
struct Plan {
    rows: Range<usize>,
    levels: Vec<u8>,
}

/// Cuts rows into pages whose values begin at even offsets.
fn plan(rows: usize, width: usize, mut offset: u64) -> Result<Vec<Plan>> {
    let step = rows_per_page(width);
    let mut plans = Vec::with_capacity(rows.div_ceil(step));
    for from in (0..rows).step_by(step) {
        let rows = from..(from + step).min(rows);
        let mut chosen = None;
        for wide in [false, true] {
            let levels = levels(rows.len(), width, wide);
            let length = levels.len() + 2 * rows.len() * width;
            let header = header_length(length, rows.len() * width)?;
            if (offset + header + levels.len() as u64).is_multiple_of(2) {
                offset += header + length as u64;
                chosen = Some(Plan { rows, levels });
                break;
            }
        }
        plans.push(chosen.ok_or_else(|| ParquetError::General("no page begins at an even offset".into()))?);
    }
    Ok(plans)
}

/// Bytes of a page's header: it depends on the page's length and number of values alone.
fn header_length(length: usize, values: usize) -> Result<u64> {
    let mut sink = TrackedWrite::new(std::io::sink());
    // Never touched but for its length, so it takes no memory.
    let page = data_page(Bytes::from(vec![0; length]), values);
    let written = SerializedPageWriter::new(&mut sink).write_page(page)?;
    Ok(written.bytes_written - length as u64)
}

fn page(rows: &Matrix<f32>, plan: Plan) -> CompressedPage {
    let values = &rows.values()[plan.rows.start * rows.columns()..plan.rows.end * rows.columns()];
    let mut bytes = Vec::with_capacity(plan.levels.len() + 2 * values.len());
    bytes.extend(plan.levels);
    // The values may lie at an odd address here, so they pass through a piece that does not.
    let mut piece = [f16::ZERO; 4096];
    for values in values.chunks(piece.len()) {
        let piece = &mut piece[..values.len()];
        piece.convert_from_f32_slice(values);
        bytes.extend_from_slice(bytemuck::cast_slice(piece));
    }
    data_page(Bytes::from(bytes), values.len())
}

fn data_page(buf: Bytes, values: usize) -> CompressedPage {
    let length = buf.len();
    let page = Page::DataPage {
        buf,
        num_values: values as u32,
        encoding: Encoding::PLAIN,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    };
    CompressedPage::new(page, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field, Schema};
    use mkg::graph::list_item;
    use parquet::arrow::ArrowSchemaConverter;
    use parquet::column::page::PageReader;
    use parquet::column::reader::ColumnReaderImpl;
    use parquet::data_type::FixedLenByteArrayType;
    use parquet::file::serialized_reader::SerializedPageReader;
    use std::sync::Arc;

    fn column(width: usize) -> ColumnDescPtr {
        let list = DataType::FixedSizeList(list_item(DataType::Float16), width as i32);
        let schema = Schema::new(vec![Field::new("scores", list, false)]);
        ArrowSchemaConverter::new().convert(&schema).unwrap().column(0)
    }

    /// The chunk's pages, which must have values at even offsets, as a general reader of Parquet takes them.
    fn read(column: &ColumnDescPtr, rows: &Matrix<f32>, offset: u64) -> (Vec<i16>, Vec<i16>, Vec<f16>) {
        let chunk = encode(column, rows, offset).unwrap();
        let open = || {
            let (bytes, metadata) = (Arc::new(chunk.bytes.clone()), &chunk.close.metadata);
            SerializedPageReader::new(bytes, metadata, rows.rows(), None).unwrap()
        };
        for page in open() {
            let page = page.unwrap();
            let end = page.buffer().as_ptr_range().end as usize - chunk.bytes.as_ptr() as usize;
            assert!((offset as usize + end).is_multiple_of(2), "values end, and so begin, at an even offset");
        }
        let pages: Box<dyn PageReader> = Box::new(open());
        let mut reader = ColumnReaderImpl::<FixedLenByteArrayType>::new(column.clone(), pages);
        let (mut definition, mut repetition, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let levels = (Some(&mut definition), Some(&mut repetition));
        reader.read_records(rows.rows(), levels.0, levels.1, &mut values).unwrap();
        let half = |value: &parquet::data_type::FixedLenByteArray| {
            f16::from_le_bytes(value.data().try_into().unwrap())
        };
        (definition, repetition, values.iter().map(half).collect())
    }

    #[test]
    fn a_general_reader_finds_lists_of_one_width_wherever_the_chunk_begins() {
        for (rows, width) in [(1, 1), (1, 2), (3, 1), (5, 3), (40, 64), (9, 200_000), (70_000, 8)] {
            let column = column(width);
            let values = (0..rows * width).map(|i| (i % 1999) as f32).collect();
            let matrix = Matrix::from_values(rows, width, values);
            for offset in [4, 5] {
                let (definition, repetition, values) = read(&column, &matrix, offset);
                assert!(definition.len() == rows * width && definition.iter().all(|level| *level == 1));
                assert!(repetition.iter().enumerate().all(|(i, level)| (*level == 0) == (i % width == 0)));
                assert!(values.iter().zip(matrix.values()).all(|(half, x)| half.to_f32() == *x));
                assert_eq!(values.len(), rows * width);
            }
        }
    }

    #[test]
    fn levels_say_the_same_in_one_byte_more() {
        for (rows, width) in [(1, 1), (2, 63), (2, 64), (100, 1000)] {
            assert_eq!(levels(rows, width, true).len(), levels(rows, width, false).len() + 1);
        }
    }
}
