//! A CUDA device: the driver's calls, cuBLAS for products, NVRTC to compile the kernels for the device that is there.
//!
//! Libraries are loaded when a device is opened, so that one program serves machines with and without. Everything goes
//! through the default stream, where work is done in the order in which it was given; but for rows that are sent ahead,
//! which have a stream of their own (`upload`).

mod upload;

use cudarc::cublas::result::CublasError;
use cudarc::cublas::sys as blas;
use cudarc::driver::result::{self as cuda, DriverError, ctx, device, module, primary_ctx, stream};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};
use recipe::Precision;
use stage::{Error, Kind, Result};
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use crate::backend::{Backend, IF_FULL, Lane, Product, Products, out_of_memory};
use crate::compile::{architecture, compiled, library};
use crate::kernel::{Kernel, NAMES};
use crate::memory::{Address, View};
use upload::Upload;

/// Threads of a block; a power of two.
pub(crate) const THREADS: u32 = 256;

/// The driver's version from which on libraries of CUDA 13 work.
const CUDA_13: c_int = 13_000;

/// Bytes of a device's memory that are left to cuBLAS, which takes them when it first multiplies.
const RESERVE: u64 = 256 << 20;

pub(crate) struct Driver {
    name: String,
    context: sys::CUcontext,
    functions: HashMap<&'static str, sys::CUfunction>,
    /// Where copies run beside everything else.
    uploads: sys::CUstream,
    /// One thread at a time may use it.
    products: Mutex<blas::cublasHandle_t>,
}

// SAFETY: contexts and functions may be used from any thread that makes the context its current one, as every call here
// does; the handle is behind a lock.
#[expect(unsafe_code, reason = "handles of the driver are pointers")]
unsafe impl Send for Driver {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "handles of the driver are pointers")]
unsafe impl Sync for Driver {}

fn failed(what: &str) -> impl Fn(DriverError) -> Error {
    move |e| {
        let is_full = e == DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        failure(is_full, format!("CUDA: {what} failed")).because(e)
    }
}

/// The same of cuBLAS, which takes memory of its own when it starts and first multiplies.
fn blas_failed(what: &str) -> impl Fn(CublasError) -> Error {
    move |e| {
        let is_full = e.0 == blas::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED;
        failure(is_full, format!("cuBLAS: {what} failed")).because(e)
    }
}

fn failure(is_full: bool, message: String) -> Error {
    match is_full {
        true => Error::new(Kind::Resource, format!("{message}: the device's memory is full")).hint(IF_FULL),
        false => Error::new(Kind::Unexpected, message),
    }
}

/// The CUDA that the driver is of, as 1000 times its major number and 10 times its minor.
#[expect(unsafe_code, reason = "the driver's interface is C")]
fn driver_version() -> Result<c_int> {
    let mut version = 0;
    // SAFETY: the driver writes one number.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(failed("asking for the driver's version"))?;
    Ok(version)
}

/// How many CUDA devices there are; an error says why there are none to be asked for.
#[expect(unsafe_code, reason = "looks for the driver's library")]
pub(crate) fn count() -> Result<usize> {
    // SAFETY: loads the driver's library, whose initialisers are sound.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::usage("no CUDA device: the driver's library (libcuda) is not here")
            .hint("install NVIDIA's driver, or use --device cpu"));
    }
    let none = |e| Error::usage("no CUDA device: the driver does not start").because(e);
    cuda::init().map_err(none)?;
    Ok(device::get_count().map_err(none)?.max(0) as usize)
}

impl Driver {
    /// Opens device number `ordinal` and compiles the kernels for it.
    #[expect(unsafe_code, reason = "the driver's interface is C")]
    pub(crate) fn open(ordinal: usize) -> Result<Driver> {
        let devices = count()?;
        if ordinal >= devices {
            let message = format!("no device cuda:{ordinal}: this machine has {devices}");
            return Err(Error::usage(message).hint("devices are counted from 0; see `nvidia-smi -L`"));
        }
        library("cublas")?;
        let version = driver_version()?;
        if version < CUDA_13 {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            tracing::warn!(
                "the driver is of CUDA {major}.{minor}: libraries of CUDA 13 need that of 580 or later"
            );
        }
        let device = device::get(ordinal as c_int).map_err(failed("finding the device"))?;
        let name = device::get_name(device).map_err(failed("asking for the device's name"))?;
        let attribute = |attribute| {
            // SAFETY: the device was returned by the driver.
            unsafe { device::get_attribute(device, attribute) }.map_err(failed("asking for an attribute"))
        };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        // SAFETY: the device was returned by the driver. The primary context lives until the process ends.
        let context = unsafe { primary_ctx::retain(device) }.map_err(failed("opening the device"))?;
        // SAFETY: the context was returned by the driver.
        unsafe { ctx::set_current(context) }.map_err(failed("opening the device"))?;
        let image = compiled(&architecture(10 * major + minor)?, THREADS)?;
        // SAFETY: the image is what NVRTC made.
        let module =
            unsafe { module::load_data(image.as_ptr().cast()) }.map_err(failed("loading the kernels"))?;
        let mut functions = HashMap::new();
        for name in NAMES {
            let symbol = CString::new(*name).expect("names of kernels have no zeros");
            // SAFETY: the module was returned by the driver and is never unloaded.
            let function =
                unsafe { module::get_function(module, symbol) }.map_err(failed("finding a kernel"))?;
            functions.insert(*name, function);
        }
        let uploads = stream::create(stream::StreamKind::NonBlocking).map_err(failed("opening a stream"))?;
        let handle = cudarc::cublas::result::create_handle().map_err(blas_failed("its start"))?;
        let name = format!("{name} (cuda:{ordinal})");
        Ok(Driver { name, context, functions, uploads, products: Mutex::new(handle) })
    }

    /// Makes the device that of the calling thread.
    fn bind(&self) -> Result<()> {
        bind(self.context)
    }
}

/// Makes a device that of the calling thread.
#[expect(unsafe_code, reason = "the driver's interface is C")]
fn bind(context: sys::CUcontext) -> Result<()> {
    // SAFETY: the context was returned by the driver and is never released.
    unsafe { ctx::set_current(context) }.map_err(failed("choosing the device"))
}

#[expect(unsafe_code, reason = "the driver's interface is C")]
impl Backend for Driver {
    fn name(&self) -> &str {
        &self.name
    }

    fn free(&self) -> Result<u64> {
        self.bind()?;
        let free = cuda::mem_get_info().map_err(failed("asking for free memory"))?.0 as u64;
        Ok(free.saturating_sub(RESERVE))
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.bind()?;
        // SAFETY: `bytes` is not zero: arrays allocate when they grow.
        match unsafe { cuda::malloc_sync(bytes) } {
            Ok(pointer) => Ok(Address(pointer)),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                Err(out_of_memory(&self.name, bytes, self.free()?))
            }
            Err(error) => Err(failed("allocating memory")(error)),
        }
    }

    fn release(&self, at: Address, _bytes: usize) {
        // A failure would be that of earlier work, which whoever waits for that work hears of.
        // SAFETY: arrays release what they allocated, once; the call waits for work that still uses it.
        let _ = self.bind().map(|()| unsafe { cuda::free_sync(at.0) });
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.bind()?;
        // The caller changes the bytes next. Of the calls that copy, only this one is documented to have read them on return.
        // SAFETY: arrays copy no more than they allocated.
        unsafe { cuda::memcpy_htod_sync(to.0, bytes) }.map_err(failed("copying up"))
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: arrays copy no more than they allocated; the call returns when all is there.
        unsafe { cuda::memcpy_dtoh_sync(bytes, from.0) }.map_err(failed("copying down"))
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: arrays clear no more than they allocated.
        unsafe { cuda::memset_d8_async(at.0, 0, bytes, std::ptr::null_mut()) }
            .map_err(failed("clearing memory"))
    }

    unsafe fn launch(&self, kernel: Kernel, blocks: usize, arguments: *const c_void) -> Result<()> {
        self.bind()?;
        let function = self.functions[kernel.name];
        let blocks =
            u32::try_from(blocks).map_err(|_| Error::new(Kind::Resource, "too many blocks for a launch"))?;
        let mut parameters = [arguments.cast_mut()];
        // SAFETY: the caller's promise. The driver copies the arguments before it returns.
        unsafe {
            cuda::launch_kernel(
                function,
                (blocks, 1, 1),
                (THREADS, 1, 1),
                0,
                std::ptr::null_mut(),
                &mut parameters,
            )
        }
        .map_err(failed(kernel.name))
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        self.bind()?;
        let Product { precision, keep, factor, a, b, into, stride } = *product;
        let keep = if keep { 1.0f32 } else { 0.0 };
        let handle = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        // cuBLAS counts by columns: to it a row-major matrix is transposed, and so the product is that of the factors
        // exchanged.
        // SAFETY: views lie within their arrays, and shapes fit: `Gpu::product` has checked them.
        unsafe {
            cudarc::cublas::result::gemm_ex(
                *handle,
                operation(b),
                operation(a),
                dimension(b.columns)?,
                dimension(a.rows)?,
                dimension(a.columns)?,
                std::ptr::from_ref(&factor).cast(),
                b.address.0 as *const c_void,
                blas::cudaDataType_t::CUDA_R_32F,
                dimension(b.stride)?,
                a.address.0 as *const c_void,
                blas::cudaDataType_t::CUDA_R_32F,
                dimension(a.stride)?,
                std::ptr::from_ref(&keep).cast(),
                into.0 as *mut c_void,
                blas::cudaDataType_t::CUDA_R_32F,
                dimension(stride)?,
                compute(precision),
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(blas_failed("a product"))
    }

    fn lane(&self) -> Result<Box<dyn Lane>> {
        self.bind()?;
        Ok(Box::new(Upload::new(self.context, self.uploads)?))
    }

    fn multiply_many(&self, products: &Products) -> Result<()> {
        self.bind()?;
        let Products { precision, count, a, b, into, stride } = *products;
        let (factor, keep) = (1.0f32, 0.0f32);
        let handle = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        // Factors exchanged, as in `multiply`.
        // SAFETY: the caller's lists have `count` addresses of as much memory as the shapes say.
        unsafe {
            blas::cublasGemmBatchedEx(
                *handle,
                operation(b),
                operation(a),
                dimension(b.columns)?,
                dimension(a.rows)?,
                dimension(a.columns)?,
                std::ptr::from_ref(&factor).cast(),
                b.address.0 as *const *const c_void,
                blas::cudaDataType_t::CUDA_R_32F,
                dimension(b.stride)?,
                a.address.0 as *const *const c_void,
                blas::cudaDataType_t::CUDA_R_32F,
                dimension(a.stride)?,
                std::ptr::from_ref(&keep).cast(),
                into.0 as *const *mut c_void,
                blas::cudaDataType_t::CUDA_R_32F,
                dimension(stride)?,
                dimension(count)?,
                compute(precision),
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .result()
        .map_err(blas_failed("many products"))
    }

    fn products(&self, precision: Precision) -> String {
        let precision = match precision {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        };
        format!("{precision} by cuBLAS on {}", self.name)
    }
}

fn compute(precision: Precision) -> blas::cublasComputeType_t {
    match precision {
        Precision::F32 => blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        Precision::Tf32 => blas::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        Precision::Bf16 => blas::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_16BF,
    }
}

fn operation(view: View) -> blas::cublasOperation_t {
    match view.transposed {
        true => blas::cublasOperation_t::CUBLAS_OP_T,
        false => blas::cublasOperation_t::CUBLAS_OP_N,
    }
}

fn dimension(size: usize) -> Result<c_int> {
    c_int::try_from(size)
        .map_err(|_| Error::new(Kind::Resource, format!("a dimension of {size} is too large for cuBLAS")))
}
