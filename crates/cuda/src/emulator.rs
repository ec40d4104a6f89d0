//! The kernels on the CPU: memory is the process's own, a launch is a loop over blocks.
//!
//! What it shares with a device: the kernels' text, the layout of their arguments, and everything in this crate above
//! [`Backend`]. What it does not: the driver's calls, cuBLAS, and that threads of a block run at the same time.

use rayon::prelude::*;
use recipe::Precision;
use stage::Result;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::{Backend, Lane, Product, Products, out_of_memory};
use crate::kernel::Kernel;
use crate::memory::{Address, View};

/// As devices align their memory.
const ALIGNMENT: usize = 256;
/// More than any test needs.
const UNLIMITED: u64 = 1 << 46;

pub(crate) struct Emulator {
    limit: u64,
    used: AtomicU64,
}

impl Emulator {
    /// With so many bytes of memory.
    pub(crate) fn new(memory: Option<u64>) -> Self {
        Emulator { limit: memory.unwrap_or(UNLIMITED), used: AtomicU64::new(0) }
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(1), ALIGNMENT).expect("arrays are smaller than the address space")
}

#[expect(unsafe_code, reason = "a device's memory is raw memory")]
impl Backend for Emulator {
    fn name(&self) -> &str {
        "the emulator"
    }

    fn free(&self) -> Result<u64> {
        Ok(self.limit.saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        let used = self.used.fetch_add(bytes as u64, Ordering::Relaxed);
        if used + bytes as u64 > self.limit {
            self.used.fetch_sub(bytes as u64, Ordering::Relaxed);
            return Err(out_of_memory(self.name(), bytes, self.limit.saturating_sub(used)));
        }
        // SAFETY: the layout's size is not zero. Zeroed, so that no read is of memory without a value.
        let memory = unsafe { alloc_zeroed(layout(bytes)) };
        match memory.is_null() {
            true => Err(out_of_memory(self.name(), bytes, 0)),
            false => Ok(Address(memory.expose_provenance() as u64)),
        }
    }

    fn release(&self, at: Address, bytes: usize) {
        self.used.fetch_sub(bytes as u64, Ordering::Relaxed);
        // SAFETY: arrays release what they allocated, once, with the size they asked for.
        unsafe { dealloc(pointer(at), layout(bytes)) };
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        // SAFETY: arrays copy no more than they allocated.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(to), bytes.len()) };
        Ok(())
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(pointer(from), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<()> {
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(pointer(at), 0, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, kernel: Kernel, blocks: usize, arguments: *const c_void) -> Result<()> {
        struct Shared(*const c_void);
        // SAFETY: blocks only read the arguments, which outlive the loop.
        unsafe impl Sync for Shared {}
        let arguments = Shared(arguments);
        let arguments = &arguments;
        let run = |block| {
            // SAFETY: the caller's promise; blocks of a launch write to different places.
            unsafe { (kernel.emulated)(arguments.0, block) };
        };
        let blocks = 0..blocks as u64;
        match is_worker() {
            true => blocks.for_each(run),
            false => blocks.into_par_iter().for_each(run),
        }
        Ok(())
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        let Product { keep, factor, a, b, into, stride, .. } = *product;
        let threads = match rayon::current_num_threads() {
            threads if threads > 1 && !is_worker() => gemm::Parallelism::Rayon(threads),
            _ => gemm::Parallelism::None,
        };
        let (a_columns, a_rows) = strides(a);
        let (b_columns, b_rows) = strides(b);
        // SAFETY: views lie within their arrays, and shapes fit: `Gpu::product` has checked them.
        unsafe {
            gemm::gemm(
                a.rows,
                b.columns,
                a.columns,
                pointer(into).cast::<f32>(),
                1,
                stride as isize,
                keep,
                pointer(a.address).cast::<f32>(),
                a_columns,
                a_rows,
                pointer(b.address).cast::<f32>(),
                b_columns,
                b_rows,
                1.0,
                factor,
                false,
                false,
                false,
                threads,
            );
        }
        Ok(())
    }

    fn lane(&self) -> Result<Box<dyn Lane>> {
        Ok(Box::new(Copied(Vec::new())))
    }

    fn multiply_many(&self, products: &Products) -> Result<()> {
        let Products { count, a, b, into, stride, .. } = *products;
        // SAFETY: the caller's lists have `count` addresses.
        let list = |at| unsafe { std::slice::from_raw_parts(pointer(at).cast::<u64>().cast_const(), count) };
        let lists = [list(a.address), list(b.address), list(into)];
        let run = |i: usize| {
            let [a_at, b_at, into] = lists.map(|list| pointer(Address(list[i])).cast::<f32>());
            let ((a_columns, a_rows), (b_columns, b_rows)) = (strides(a), strides(b));
            let (stride, alone) = (stride as isize, gemm::Parallelism::None);
            // SAFETY: views lie within their arrays, and shapes fit; products are written to different places.
            unsafe {
                gemm::gemm(
                    a.rows, b.columns, a.columns, into, 1, stride, false, a_at, a_columns, a_rows, b_at,
                    b_columns, b_rows, 0.0, 1.0, false, false, false, alone,
                );
            }
        };
        match is_worker() {
            true => (0..count).for_each(run),
            false => (0..count).into_par_iter().for_each(run),
        }
        Ok(())
    }

    fn products(&self, _precision: Precision) -> String {
        "f32 by the emulator".to_owned()
    }
}

/// A way up that copies when it is told to begin. Whole words, for the alignment.
struct Copied(Vec<u64>);

#[expect(unsafe_code, reason = "a device's memory is raw memory")]
impl Lane for Copied {
    fn room(&mut self, bytes: usize) -> Result<&mut [u8]> {
        self.0.resize(bytes.div_ceil(size_of::<u64>()), 0);
        Ok(&mut bytemuck::cast_slice_mut(&mut self.0)[..bytes])
    }

    fn start(&mut self, to: Address, bytes: usize) -> Result<()> {
        let from: &[u8] = &bytemuck::cast_slice(&self.0)[..bytes];
        // SAFETY: whoever asks for the copy has room for it.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), pointer(to), bytes) };
        Ok(())
    }

    fn arrive(&mut self) -> Result<()> {
        Ok(())
    }

    fn release(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Whether the caller is one of Rayon's threads. It then works alone: waiting for others, it could be given other work of its
/// caller's, which asks for the model that the caller has locked.
fn is_worker() -> bool {
    rayon::current_thread_index().is_some()
}

fn pointer(at: Address) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(at.0 as usize)
}

/// From one column of the factor to the next, and from one row.
fn strides(view: View) -> (isize, isize) {
    let stride = view.stride as isize;
    if view.transposed { (stride, 1) } else { (1, stride) }
}
