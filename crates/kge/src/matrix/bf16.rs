//! Products of `f32` matrices in bf16: operands are rounded to bf16 while they are packed, sums are `f32`.
//!
//! `pack` rounds and lays out operands; `amx` and `avx512` multiply; `blocks` cuts a product into blocks for them and
//! distributes the blocks to the cores. A [`Kernel`] proves that the processor has the instructions. Processors other
//! than x86-64 have no kernel.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use super::View;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(target_arch = "x86_64")]
mod pack;

/// Instructions that this processor has for products in bf16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kernel(Instructions);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Instructions {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    /// Kernels that this processor can run, the fastest first. Their products differ in the last bits.
    pub(crate) fn all() -> Vec<Kernel> {
        let mut all: Vec<Instructions> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if avx512::available() {
            #[cfg(target_os = "linux")]
            all.extend(amx::available().then_some(Instructions::Amx));
            all.push(Instructions::Avx512);
        }
        all.into_iter().map(Kernel).collect()
    }

    /// The fastest kernel of this processor, if there is one.
    pub fn fastest() -> Option<Kernel> {
        Self::all().first().copied()
    }
}

impl Display for Kernel {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.0 {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Instructions::Amx => "AMX",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "AVX512-BF16",
        })
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Kernel {
    /// A stub that is never called: no kernel exists on this architecture.
    pub(super) fn multiply(
        self,
        _threads: usize,
        _target: (&mut [f32], usize),
        _keep: bool,
        _a: View<'_, f32>,
        _b: View<'_, f32>,
    ) {
        match self.0 {}
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel {
    /// Computes `target = keep · target + bf16(a) · bf16(b)` on the pool's threads, or on the calling thread if
    /// `threads` is 1. The target is its values and its number of columns. All shapes must fit, and no matrix may be
    /// empty. The bits do not depend on the number of threads, but they depend on the kernel.
    pub(super) fn multiply(
        self,
        threads: usize,
        (values, columns): (&mut [f32], usize),
        keep: bool,
        a: View<'_, f32>,
        b: View<'_, f32>,
    ) {
        assert_eq!((a.rows, b.columns), (values.len() / columns, columns), "shape of the product");
        let target = blocks::BlockTarget { values: values.as_mut_ptr(), rows: a.rows, columns, keep };
        blocks::product(self, threads, target, pack::Operand::left(a), pack::Operand::right(b));
    }

    #[expect(unsafe_code, reason = "calls what needs instructions found at run time")]
    fn pack(
        self,
        operand: &pack::Operand<'_>,
        panels: Range<usize>,
        depths: Range<usize>,
        tiles: &mut [pack::Tile],
    ) {
        // SAFETY: a kernel is only made where the processor has AVX512-BF16.
        unsafe { operand.pack(panels, depths, tiles) }
    }

    fn begin(self) -> KernelSession {
        match self.0 {
            #[cfg(target_os = "linux")]
            Instructions::Amx => KernelSession::Amx(amx::Tiles::new()),
            Instructions::Avx512 => KernelSession::Avx512,
        }
    }
}

/// The state of a thread that is ready to multiply.
#[cfg(target_arch = "x86_64")]
enum KernelSession {
    #[cfg(target_os = "linux")]
    Amx(amx::Tiles),
    /// A state without data, made only from a kernel.
    Avx512,
}

#[cfg(target_arch = "x86_64")]
impl KernelSession {
    /// Computes 32 x 32 values of the product: `c = a·b` if `fresh`, else `c += a·b`. `a` and `b` are packed panels of
    /// one depth. The rows of `c` lie `stride` values apart.
    ///
    /// # Safety
    /// `c` must be readable and writable at 32 values of 32 rows, and no other code may access them during the call.
    #[expect(unsafe_code, reason = "writes through a pointer to a block of a matrix")]
    unsafe fn block(&self, a: &[pack::Tile], b: &[pack::Tile], fresh: bool, c: *mut f32, stride: usize) {
        // SAFETY: the caller guarantees `c`; a session exists only where the processor has the instructions.
        unsafe {
            match self {
                #[cfg(target_os = "linux")]
                KernelSession::Amx(tiles) => tiles.block(a, b, fresh, c, stride),
                KernelSession::Avx512 => avx512::block(a, b, fresh, c, stride),
            }
        }
    }
}

#[cfg(test)]
mod tests;
