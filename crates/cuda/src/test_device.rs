//! The device that tests run on, here and in the crates that compute on devices.

use std::sync::OnceLock;

use crate::{Gpu, choose};

/// What tests give `--device`: the emulator; with `DSOM_TEST_DEVICE=cuda` (or `cuda:N`, and the feature) a CUDA device. Every
/// test runs on either, within the same tolerances.
pub fn name() -> String {
    std::env::var("DSOM_TEST_DEVICE").unwrap_or_else(|_| "emulated".to_owned())
}

/// The device of that name, opened once.
///
/// # Panics
/// If there is no such device.
pub fn gpu() -> Gpu {
    static OPENED: OnceLock<Gpu> = OnceLock::new();
    let open = || {
        let device = name().parse().expect("DSOM_TEST_DEVICE is what --device takes");
        let found = choose(device, None).expect("the device opens");
        found.expect("DSOM_TEST_DEVICE is a device other than the CPU")
    };
    OPENED.get_or_init(open).clone()
}
