//! Products of `f32` matrices in bf16: operands are rounded to bf16 while they are packed, sums are `f32`.
//!
//! `pack` rounds and lays out, `amx` and `avx512` multiply, `blocks` cuts a product into what they multiply and
//! shares it out to the cores. A [`Kernel`] is the proof that the processor can do it. On processors other than
//! x86-64 there is none.

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
    /// Kernels that this processor can run, the fastest first. The last bits of their products differ.
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
    /// Never called: no kernel exists without this architecture.
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
    /// `target = keep · target + bf16(a) · bf16(b)` on some of the pool's threads, or on the caller alone.
    /// The target is given with its columns; it and the operands have matching shapes, and none is empty. The bits
    /// are the same for any number of threads, but not for every kernel.
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

/// A thread that is ready to multiply.
#[cfg(target_arch = "x86_64")]
enum KernelSession {
    #[cfg(target_os = "linux")]
    Amx(amx::Tiles),
    /// Only made from a kernel.
    Avx512,
}

#[cfg(target_arch = "x86_64")]
impl KernelSession {
    /// 32 x 32 of the product: `c = a·b` where `fresh`, else `c += a·b`, of packed panels of one depth. The rows of
    /// `c` lie `stride` values apart.
    ///
    /// # Safety
    /// `c` can be read and written at 32 values of 32 rows, and nobody else does so meanwhile.
    #[expect(unsafe_code, reason = "writes through a pointer to a block of a matrix")]
    unsafe fn block(&self, a: &[pack::Tile], b: &[pack::Tile], fresh: bool, c: *mut f32, stride: usize) {
        // SAFETY: the caller's promise; a session is only made where the processor has the instructions.
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
