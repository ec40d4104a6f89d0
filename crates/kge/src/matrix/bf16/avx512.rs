//! The kernel for AVX512-BF16: eight rows of two vectors of sums at a time.

use std::arch::x86_64::*;

use super::pack::Tile;

const ROWS: usize = 8;

/// Tells whether the processor has the instructions for multiplying and for packing.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// Computes 32 x 32 values: `c = a·b` if `fresh`, else `c += a·b`. The rows of `c` lie `stride` values apart.
///
/// # Safety
/// `c` must be readable and writable at 32 values of 32 rows, and no other code may access them during the call.
#[expect(unsafe_code, reason = "writes through a pointer to a block of a matrix")]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn block(a: &[Tile], b: &[Tile], fresh: bool, c: *mut f32, stride: usize) {
    assert!(a.len() == b.len() && a.len().is_multiple_of(2), "whole panels of one depth");
    for first in (0..32).step_by(ROWS) {
        // SAFETY: the caller guarantees `c`, and the eight rows from `first` on are among the 32.
        unsafe { rows(a, b, first, fresh, c.wrapping_add(first * stride), stride) };
    }
}

/// Computes eight rows of the block, from row `first` of its 32 rows on.
///
/// # Safety
/// `c` must be readable and writable at 32 values of eight rows, and no other code may access them during the call.
#[inline]
#[expect(unsafe_code, reason = "writes through a pointer to a block of a matrix")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows(a: &[Tile], b: &[Tile], first: usize, fresh: bool, c: *mut f32, stride: usize) {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    if !fresh {
        for (i, sums) in sums.iter_mut().enumerate() {
            let row = c.wrapping_add(i * stride);
            // SAFETY: the caller guarantees `c`.
            *sums = unsafe { [_mm512_loadu_ps(row), _mm512_loadu_ps(row.wrapping_add(16))] };
        }
    }
    for (a, b) in a.chunks_exact(2).zip(b.chunks_exact(2)) {
        let a = &a[first / 16].0.as_chunks::<ROWS>().0[first % 16 / ROWS];
        for pair in 0..16 {
            let right = [numbers(b[0].0[pair]), numbers(b[1].0[pair])];
            for (sums, a) in sums.iter_mut().zip(a) {
                let left = numbers([a[pair]; 16]);
                sums[0] = _mm512_dpbf16_ps(sums[0], left, right[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], left, right[1]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let row = c.wrapping_add(i * stride);
        // SAFETY: the caller guarantees `c`.
        unsafe {
            _mm512_storeu_ps(row, sums[0]);
            _mm512_storeu_ps(row.wrapping_add(16), sums[1]);
        }
    }
}

#[inline]
#[expect(unsafe_code, reason = "words are read as pairs of bf16")]
#[target_feature(enable = "avx512f")]
fn numbers(words: [u32; 16]) -> __m512bh {
    // SAFETY: both types have 64 bytes, and any bytes are valid numbers.
    unsafe { std::mem::transmute::<[u32; 16], __m512bh>(words) }
}
