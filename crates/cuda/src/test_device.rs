//! The device that tests run on.

use crate::Gpu;

/// The emulator; with `DSOM_TEST_DEVICE=cuda` (and the feature) the machine's first CUDA device. Every test of this crate
/// runs on either, within the same tolerances.
pub(crate) fn gpu() -> Gpu {
    match std::env::var("DSOM_TEST_DEVICE").as_deref() {
        #[cfg(feature = "cuda")]
        Ok("cuda") => Gpu::cuda(0).unwrap(),
        #[cfg(not(feature = "cuda"))]
        Ok("cuda") => panic!("DSOM_TEST_DEVICE=cuda needs --features cuda"),
        _ => Gpu::emulated(),
    }
}
