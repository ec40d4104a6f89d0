//! What a device can do, and the two that there are: a CUDA device, and the emulator.

use recipe::Precision;
use stage::{Error, Kind, Result, resources};
use std::ffi::c_void;
use std::sync::Arc;

use crate::emulator::Emulator;
use crate::kernel::{Arguments, Kernel, SPAN};
use crate::memory::{Address, DeviceMatrix, View};

/// What a device can do. Work is done in the order in which it is given; only `download` waits for it.
pub(crate) trait Backend: Send + Sync {
    /// What to call it.
    fn name(&self) -> &str;
    /// Bytes that could be allocated.
    fn free(&self) -> Result<u64>;
    fn allocate(&self, bytes: usize) -> Result<Address>;
    fn release(&self, at: Address, bytes: usize);
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()>;
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()>;
    fn clear(&self, at: Address, bytes: usize) -> Result<()>;
    /// Runs so many blocks of a kernel.
    ///
    /// # Safety
    /// `arguments` points to the kernel's own, and their addresses to as much memory as the kernel reads and writes.
    #[expect(unsafe_code, reason = "kernels take addresses")]
    unsafe fn launch(&self, kernel: Kernel, blocks: usize, arguments: *const c_void) -> Result<()>;
    fn multiply(&self, product: &Product) -> Result<()>;
    /// A way up beside the work that is given to it.
    fn lane(&self) -> Result<Box<dyn Lane>>;
    fn multiply_many(&self, products: &Products) -> Result<()>;
    /// What its products are called in a summary.
    fn products(&self, precision: Precision) -> String;
}

/// A way up beside the device's other work: memory on the host whose content is copied while the device computes. Calls come
/// in the order in which they stand here, over and over.
pub(crate) trait Lane: Send + Sync {
    /// At least so many bytes on the host to be filled, once the last copy of them is done.
    fn room(&mut self, bytes: usize) -> Result<&mut [u8]>;
    /// Begins to copy the first `bytes` of them to a place that nothing reads any more but what was given to the device
    /// before the last [`Lane::release`].
    fn start(&mut self, to: Address, bytes: usize) -> Result<()>;
    /// Has what is given to the device from now on wait for the copy.
    fn arrive(&mut self) -> Result<()>;
    /// What was given to the device so far is all that reads the copy.
    fn release(&mut self) -> Result<()>;
}

/// `into = keep · into + factor · a · b`, row-major.
#[derive(Debug)]
pub(crate) struct Product {
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "the emulator computes in f32"))]
    pub(crate) precision: Precision,
    pub(crate) keep: bool,
    pub(crate) factor: f32,
    pub(crate) a: View,
    pub(crate) b: View,
    pub(crate) into: Address,
    /// Numbers from one row of `into` to the next.
    pub(crate) stride: usize,
}

/// `count` products of one shape, each `into = a · b`. What would be an address in one of them is here that of a list of
/// `count` addresses, which lies on the device as well.
#[derive(Debug)]
pub(crate) struct Products {
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "the emulator computes in f32"))]
    pub(crate) precision: Precision,
    pub(crate) count: usize,
    pub(crate) a: View,
    pub(crate) b: View,
    pub(crate) into: Address,
    /// Numbers from one row of a product to the next.
    pub(crate) stride: usize,
}

/// A device that computes.
#[derive(Clone)]
pub struct Gpu(Arc<dyn Backend>);

impl std::fmt::Debug for Gpu {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Gpu {
    /// The kernels on the CPU, as plain C: for tests, and to look into a failure without a GPU.
    pub fn emulated() -> Gpu {
        Gpu(Arc::new(Emulator::new(None)))
    }

    /// The same with so many bytes of memory.
    pub fn emulated_with(memory: u64) -> Gpu {
        Gpu(Arc::new(Emulator::new(Some(memory))))
    }

    /// CUDA device number `ordinal`.
    ///
    /// # Errors
    /// If there is no driver, no such device, or a library is missing.
    #[cfg(feature = "cuda")]
    pub fn cuda(ordinal: usize) -> Result<Gpu> {
        Ok(Gpu(Arc::new(crate::driver::Driver::open(ordinal)?)))
    }

    /// For tests that look at what is asked of a device.
    #[cfg(test)]
    pub(crate) fn of(backend: Arc<dyn Backend>) -> Gpu {
        Gpu(backend)
    }

    /// What to call it.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// What its products in this precision are called in a summary.
    pub fn products(&self, precision: Precision) -> String {
        self.0.products(precision)
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.0
    }

    /// Refuses work that the device's free memory does not hold, with the half, quarter, .. of `batch` that would fit as
    /// advice. `bytes` estimates for a batch, `knob` is the batch's key of the recipe.
    pub fn require_memory(
        &self,
        bytes: impl Fn(usize) -> u64,
        batch: usize,
        what: &str,
        knob: &str,
    ) -> Result<()> {
        self.require_memory_or(bytes, batch, what, |fits| match fits {
            Some(batch) => {
                format!("`{knob}={batch}` fits (another batch is another training); or use --device cpu")
            }
            None => "no batch fits: lower the rank, or use --device cpu".to_owned(),
        })
    }

    /// The same with advice of the caller's, who is told a smaller batch that would fit.
    pub fn require_memory_or(
        &self,
        bytes: impl Fn(usize) -> u64,
        batch: usize,
        what: &str,
        advice: impl FnOnce(Option<usize>) -> String,
    ) -> Result<()> {
        let (needed, free) = (bytes(batch), self.0.free()?);
        tracing::debug!("{what}: about {} of the memory of {}", resources::human(needed), self.name());
        if needed <= free {
            return Ok(());
        }
        let of_both = [needed, free].map(resources::human);
        let message = format!(
            "{what} needs about {} of the memory of {}, {} are free",
            of_both[0],
            self.name(),
            of_both[1]
        );
        let smaller = (1..batch.max(2).ilog2()).map(|halvings| batch >> halvings);
        let fits = smaller.into_iter().find(|batch| bytes(*batch) <= free);
        Err(Error::new(Kind::Resource, message).hint(advice(fits)))
    }

    /// Runs so many blocks of a kernel.
    pub(crate) fn launch<A: Arguments>(&self, blocks: usize, arguments: &A) -> Result<()> {
        if blocks == 0 {
            return Ok(());
        }
        // SAFETY: the type of the arguments is the kernel's. Their addresses come from arrays that live in the caller,
        // which has sized them for this launch; the functions that call this are few and each has a test on the emulator.
        #[expect(unsafe_code, reason = "kernels take addresses")]
        unsafe {
            self.0.launch(A::KERNEL, blocks, std::ptr::from_ref(arguments).cast())
        }
    }

    /// Runs a kernel over `count` elements.
    pub(crate) fn launch_over<A: Arguments>(&self, count: usize, arguments: &A) -> Result<()> {
        self.launch(count.div_ceil(SPAN), arguments)
    }

    /// `into = keep · into + factor · a · b`, which resizes `into` unless it is kept.
    pub(crate) fn product(
        &self,
        precision: Precision,
        keep: bool,
        factor: f32,
        a: View,
        b: View,
        into: &mut DeviceMatrix,
    ) -> Result<()> {
        if keep {
            assert_eq!((into.rows(), into.columns()), (a.rows, b.columns), "shape of the product");
        } else {
            into.resize(a.rows, b.columns)?;
        }
        self.product_at(precision, keep, factor, a, b, (into.at(0), into.stride()))
    }

    /// The same to a place with room for the product, in rows of such a stride.
    pub(crate) fn product_at(
        &self,
        precision: Precision,
        keep: bool,
        factor: f32,
        a: View,
        b: View,
        (into, stride): (Address, usize),
    ) -> Result<()> {
        assert_eq!(a.columns, b.rows, "inner dimensions");
        if a.rows == 0 || b.columns == 0 {
            return Ok(());
        }
        if a.columns == 0 {
            let bytes = a.rows * stride * size_of::<f32>();
            return if keep { Ok(()) } else { self.0.clear(into, bytes) };
        }
        self.0.multiply(&Product { precision, keep, factor, a, b, into, stride })
    }

    /// Many products of one shape, at addresses that the caller has put into lists.
    pub(crate) fn products_at(&self, products: &Products) -> Result<()> {
        assert_eq!(products.a.columns, products.b.rows, "inner dimensions");
        assert!(products.b.columns <= products.stride, "room for rows of the products");
        match products.count {
            0 => Ok(()),
            _ => self.0.multiply_many(products),
        }
    }
}

/// The error for memory that a device does not have.
pub(crate) fn out_of_memory(name: &str, bytes: usize, free: u64) -> Error {
    let message = format!(
        "the memory of {name} is full: {} wanted, {} free",
        resources::human(bytes as u64),
        resources::human(free)
    );
    Error::new(Kind::Resource, message).hint(IF_FULL)
}

/// What to do where a device's memory is full.
pub(crate) const IF_FULL: &str = "lower `batch`; what was saved is kept, and --device cpu goes on from there";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_device::gpu;
    use kge::Matrix;
    use kge::model::normal;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// `keep · into + factor · a · b` in double precision.
    fn expected(keep: Option<&Matrix<f32>>, factor: f64, a: &Matrix<f32>, b: &Matrix<f32>) -> Vec<f64> {
        let product = |i: usize, j: usize| {
            let terms = (0..a.columns()).map(|k| f64::from(a.row(i)[k]) * f64::from(b.row(k)[j]));
            factor * terms.sum::<f64>() + keep.map_or(0.0, |keep| f64::from(keep.row(i)[j]))
        };
        (0..a.rows())
            .flat_map(|i| (0..b.columns()).map(move |j| (i, j)))
            .map(|(i, j)| product(i, j))
            .collect()
    }

    fn transposed(matrix: &Matrix<f32>) -> Matrix<f32> {
        let (rows, columns) = (matrix.rows(), matrix.columns());
        let values = (0..columns).flat_map(|j| (0..rows).map(move |i| (i, j)));
        Matrix::from_values(columns, rows, values.map(|(i, j)| matrix.row(i)[j]).collect())
    }

    /// Every way round in which a step has its factors, in every precision; sizes that are no multiples of anything.
    #[test]
    fn products_in_every_precision_are_near_the_exact_ones() {
        let (gpu, mut generator) = (gpu(), ChaCha8Rng::seed_from_u64(11));
        let mut random = |rows, columns| normal::<f32>(rows, columns, 0.3, &mut generator);
        let (a, b, before) = (random(37, 65), random(65, 51), random(37, 51));
        let of = |matrix: &Matrix<f32>| DeviceMatrix::of(&gpu, matrix).unwrap();
        let (a_here, b_here) = (of(&a), of(&b));
        let (a_across, b_across) = (of(&transposed(&a)), of(&transposed(&b)));
        // `b` among other columns.
        let mut wide = random(65, 60);
        (0..65).for_each(|row| wide.row_mut(row)[4..55].copy_from_slice(b.row(row)));
        let wide = of(&wide);
        // The rounding of a factor, times the root of 65 products of about 0.09, with room for the farthest.
        for (precision, tolerance) in
            [(Precision::F32, 1e-5), (Precision::Tf32, 1e-2), (Precision::Bf16, 5e-2)]
        {
            let views = [
                (a_here.view(), b_here.view()),
                (a_here.view(), b_across.transposed()),
                (a_across.transposed(), b_here.view()),
                (a_across.transposed(), b_across.transposed()),
                (a_here.view(), wide.columns_at(4..55)),
            ];
            for (i, (a_view, b_view)) in views.into_iter().enumerate() {
                for keep in [false, true] {
                    let (mut into, mut found) = (of(&before), Matrix::zeros(0, 0));
                    gpu.product(precision, keep, 0.5, a_view, b_view, &mut into).unwrap();
                    into.read(&mut found).unwrap();
                    let expected = expected(keep.then_some(&before), 0.5, &a, &b);
                    for (found, expected) in found.values().iter().zip(expected) {
                        let error = (f64::from(*found) - expected).abs();
                        assert!(error < tolerance, "{precision:?}, view {i}, keep {keep}: off by {error}");
                    }
                }
            }
        }
    }
}
