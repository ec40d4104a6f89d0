//! Memory of large matrices.
//!
//! Products walk through columns of a matrix, and rows of scores are many pages long: with pages of 4 KiB every
//! vector read or written would need a page's address looked up.

use crate::Real;

/// Allocates so many zeros, in pages of 2 MiB where the system has them.
pub(super) fn zeros<T: Real>(len: usize) -> Vec<T> {
    let mut values = vec![T::ZERO; len];
    prefer_large_pages(&mut values);
    values
}

/// A hint: where it is not taken, nothing changes. Memory that was touched before keeps its small pages.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a system call")]
fn prefer_large_pages<T>(values: &mut [T]) {
    const LARGE: usize = 1 << 21;
    let range = values.as_mut_ptr_range();
    let start = range.start.addr().next_multiple_of(LARGE);
    let length = (range.end.addr() / LARGE * LARGE).saturating_sub(start);
    if length > 0 {
        let start = range.start.with_addr(start);
        // SAFETY: whole pages within the slice, whose content the call leaves alone.
        unsafe { libc::madvise(start.cast(), length, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn prefer_large_pages<T>(_values: &mut [T]) {}
