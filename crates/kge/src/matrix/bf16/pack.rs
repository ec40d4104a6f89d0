//! Operands, rounded to bf16 and laid out as the kernels read them.
//!
//! Each operand of a product has an outer dimension (rows of the left operand, columns of the right operand) and a
//! depth, the dimension of the sums. A [`Tile`] covers 16 of the outer dimension and 32 of the depth: one tile register
//! of AMX, or 16 vectors of AVX-512. The kernels multiply pairs of neighbouring depths, so a tile is 16 x 16 words of
//! 32 bits: `[outer][pair]` on the left, `[pair][outer]` on the right. A panel covers 32 of the outer dimension: two
//! tiles for each 32 of the depth. Values beyond the edge of the matrix are zero.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::View;

const OUTER: usize = 16;
pub(super) const DEPTH: usize = 32;
/// Number of tiles along the depth by which memory is fetched ahead of packing.
const AHEAD: usize = 2;
pub(super) const PANEL: usize = 2 * OUTER;

/// [`OUTER`] by [`DEPTH`] numbers of an operand.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile(pub(super) [[u32; 16]; 16]);

impl Tile {
    pub(super) const ZERO: Self = Tile([[0; 16]; 16]);

    #[inline]
    #[expect(unsafe_code, reason = "vectors are written through pointers")]
    #[target_feature(enable = "avx512f")]
    fn write(&mut self, words: [__m512i; 16]) {
        for (row, words) in self.0.iter_mut().zip(words) {
            // SAFETY: a row has 64 bytes and the alignment of the tile.
            unsafe { _mm512_store_si512(row.as_mut_ptr().cast(), words) };
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum OperandSide {
    Left,
    Right,
}

/// One operand, not yet packed.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    values: &'a [f32],
    outer: usize,
    depth: usize,
    outer_stride: usize,
    depth_stride: usize,
    pub(super) side: OperandSide,
}

impl<'a> Operand<'a> {
    /// The left operand: its rows are the rows of the product.
    pub(super) fn left(a: View<'a, f32>) -> Self {
        Operand::new(a, OperandSide::Left)
    }

    /// The right operand: its columns are the columns of the product.
    pub(super) fn right(b: View<'a, f32>) -> Self {
        Operand::new(b.transposed(), OperandSide::Right)
    }

    /// Checks that the last value lies in the slice: packing reads vectors along the stride of 1 without a check.
    fn new(outer_by_depth: View<'a, f32>, side: OperandSide) -> Self {
        let View { rows: outer, columns: depth, row_stride, column_stride, values } = outer_by_depth;
        assert!(outer > 0 && depth > 0, "an empty operand");
        assert!(row_stride == 1 || column_stride == 1, "neighbours in one of the dimensions");
        let last = (outer - 1) * row_stride + (depth - 1) * column_stride;
        assert!(last < values.len(), "a view covers its values");
        Operand { values, outer, depth, outer_stride: row_stride, depth_stride: column_stride, side }
    }

    pub(super) fn panels(&self) -> usize {
        self.outer.div_ceil(PANEL)
    }

    pub(super) fn depth_tiles(&self) -> usize {
        self.depth.div_ceil(DEPTH)
    }

    /// Packs the tiles `depths` of some panels, panel by panel: for each depth, first the tile of the panel's first 16
    /// of the outer dimension, then the tile of its last 16.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn pack(&self, panels: Range<usize>, depths: Range<usize>, tiles: &mut [Tile]) {
        let (outers, inners) = (panels.len(), depths.len());
        let mut pair = |panel: usize, depth: usize| {
            let tiles = &mut tiles[2 * (panel * inners + depth)..][..2];
            self.pack_pair((panels.start + panel) * PANEL, (depths.start + depth) * DEPTH, tiles);
        };
        // Reads the values in the order in which they lie in memory.
        if self.depth_stride == 1 {
            (0..outers).for_each(|panel| (0..inners).for_each(|depth| pair(panel, depth)));
        } else {
            (0..inners).for_each(|depth| (0..outers).for_each(|panel| pair(panel, depth)));
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn pack_pair(&self, outer: usize, depth: usize, tiles: &mut [Tile]) {
        let along_depth = self.depth_stride == 1;
        // Words come as [outer][pair] where the depth is contiguous, as [pair][outer] otherwise.
        let transposed = along_depth != (self.side == OperandSide::Left);
        for (i, tile) in tiles.iter_mut().enumerate() {
            let outer = outer + i * OUTER;
            let words = if along_depth { self.rows(outer, depth) } else { self.columns(outer, depth) };
            tile.write(if transposed { transpose(words) } else { words });
        }
    }

    /// Reads one vector for each index of the outer dimension: 16 pairs of the depth, which is contiguous.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn rows(&self, outer: usize, depth: usize) -> [__m512i; 16] {
        let mut words = [_mm512_setzero_si512(); 16];
        for (i, word) in words.iter_mut().enumerate().take(self.outer.saturating_sub(outer)) {
            let start = (outer + i) * self.outer_stride;
            let (low, high) = (self.read(start, depth, self.depth), self.read(start, depth + 16, self.depth));
            *word = round(low, high);
        }
        words
    }

    /// Reads one vector for each pair of the depth: 16 of the outer dimension, which is contiguous.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn columns(&self, outer: usize, depth: usize) -> [__m512i; 16] {
        let interleave = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
            18, 2, 17, 1, 16, 0,
        );
        let zero = _mm512_setzero_ps();
        let mut words = [_mm512_setzero_si512(); 16];
        for (i, word) in words.iter_mut().enumerate() {
            let depth = depth + 2 * i;
            let line = |depth: usize| {
                if depth < self.depth {
                    self.read(depth * self.depth_stride, outer, self.outer)
                } else {
                    zero
                }
            };
            *word = _mm512_permutexvar_epi16(interleave, round(line(depth), line(depth + 1)));
        }
        words
    }

    /// Reads 16 neighbours from `start + from` on, with zeros from `start + end` on.
    #[inline]
    #[expect(unsafe_code, reason = "vectors are read through pointers")]
    #[target_feature(enable = "avx512f")]
    fn read(&self, start: usize, from: usize, end: usize) -> __m512 {
        let count = end.saturating_sub(from);
        let mask = if count >= 16 { u16::MAX } else { (1u16 << count) - 1 };
        let pointer = self.values.as_ptr().wrapping_add(start + from);
        // Neighbouring tiles lie far apart in memory, so the processor does not predict where the next ones are.
        let ahead = pointer.wrapping_add(AHEAD * DEPTH * self.depth_stride);
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
        // SAFETY: the mask selects only values below `end` of a row that `new` found to lie in the slice.
        unsafe { _mm512_maskz_loadu_ps(mask, pointer) }
    }
}

/// Rounds 32 numbers to the nearest bf16, ties to even.
#[inline]
#[expect(unsafe_code, reason = "a vector of bf16 is read as one of words")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both types have 64 bytes, and any bytes are valid words.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// 16 x 16 words with rows and columns exchanged.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = rows;
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // Lane l of fours[4 g + c] is column 4 l + c of the rows 4 g to 4 g + 3.
    let mut fours = rows;
    for i in (0..16).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    let mut columns = rows;
    for c in 0..4 {
        let [a, b, d, e] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
        let (ab_even, ab_odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xDD>(a, b));
        let (de_even, de_odd) = (_mm512_shuffle_i32x4::<0x88>(d, e), _mm512_shuffle_i32x4::<0xDD>(d, e));
        columns[c] = _mm512_shuffle_i32x4::<0x88>(ab_even, de_even);
        columns[4 + c] = _mm512_shuffle_i32x4::<0x88>(ab_odd, de_odd);
        columns[8 + c] = _mm512_shuffle_i32x4::<0xDD>(ab_even, de_even);
        columns[12 + c] = _mm512_shuffle_i32x4::<0xDD>(ab_odd, de_odd);
    }
    columns
}
