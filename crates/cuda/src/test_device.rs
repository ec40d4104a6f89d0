//! The device that tests run on.

use std::sync::OnceLock;

use crate::{Gpu, choose};

/// The emulator; with `DSOM_TEST_DEVICE=cuda` (or `cuda:N`, and the feature) a CUDA device. Every test of this crate runs on
/// either, within the same tolerances.
pub(crate) fn gpu() -> Gpu {
    static OPENED: OnceLock<Gpu> = OnceLock::new();
    let open = || {
        let asked = std::env::var("DSOM_TEST_DEVICE").unwrap_or_else(|_| "emulated".to_owned());
        let found = choose(asked.parse().unwrap(), None).unwrap();
        found.expect("DSOM_TEST_DEVICE is a device other than the CPU")
    };
    OPENED.get_or_init(open).clone()
}
