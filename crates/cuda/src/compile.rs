//! The kernels for a kind of device, by NVRTC: needs its library, but no device.

use cudarc::nvrtc::result::{self as nvrtc, NvrtcError};
use cudarc::nvrtc::sys;
use stage::{Error, Kind, Result};
use std::ffi::{CString, c_int};

const SOURCE: &str = include_str!("kernels/kernels.cu");

/// Refuses to go on without one of CUDA's libraries, which would end the program when it is first called.
#[expect(unsafe_code, reason = "looks for a library")]
pub(crate) fn library(name: &str) -> Result<()> {
    // SAFETY: loads NVIDIA's libraries, whose initialisers are sound.
    let there = unsafe {
        match name {
            "cublas" => cudarc::cublas::sys::is_culib_present(),
            _ => sys::is_culib_present(),
        }
    };
    match there {
        true => Ok(()),
        false => Err(Error::usage(format!("CUDA's library lib{name}.so is not found"))
            .hint("LD_LIBRARY_PATH names its folder: see \"CUDA\" in README.md, or use --device cpu")),
    }
}

fn failed(e: NvrtcError) -> Error {
    Error::new(Kind::Unexpected, "NVRTC does not start").because(e)
}

/// What to compile for on a device of a compute capability, such as 90 for 9.0.
#[expect(unsafe_code, reason = "NVRTC's interface is C")]
pub(crate) fn architecture(capability: c_int) -> Result<String> {
    library("nvrtc")?;
    let mut count = 0;
    // SAFETY: NVRTC writes one number.
    unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) }.result().map_err(failed)?;
    let mut known = vec![0; count.max(0) as usize];
    // SAFETY: the vector has as many numbers as NVRTC says.
    unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }.result().map_err(failed)?;
    Ok(among(&known, capability))
}

/// The device's own where NVRTC knows it; for one that is newer, the newest that is older, for the driver to translate.
fn among(known: &[c_int], capability: c_int) -> String {
    match known.iter().filter(|known| **known <= capability).max() {
        Some(older) if *older < capability => format!("compute_{older}"),
        _ => format!("sm_{capability}"),
    }
}

/// The kernels for an architecture, for blocks of so many threads: a binary for one such as `sm_90`, PTX with the zero at
/// its end for one such as `compute_90`.
#[expect(unsafe_code, reason = "NVRTC's interface is C")]
pub(crate) fn compiled(architecture: &str, threads: u32) -> Result<Vec<u8>> {
    library("nvrtc")?;
    let source = CString::new(SOURCE).expect("C has no zeros");
    let program = nvrtc::create_program(&source, Some(c"kernels.cu")).map_err(failed)?;
    let options = [format!("--gpu-architecture={architecture}"), format!("--define-macro=THREADS={threads}")];
    // SAFETY: the program was made above and is destroyed below.
    let compiled = unsafe { nvrtc::compile_program(program, &options) };
    let result = match compiled {
        Ok(()) if architecture.starts_with("compute_") => {
            // SAFETY: the program was compiled.
            let ptx = unsafe { nvrtc::get_ptx(program) }.map_err(failed)?;
            Ok(ptx.into_iter().map(|c| c as u8).collect())
        }
        Ok(()) => {
            let mut size = 0;
            // SAFETY: the program was compiled; the vector has the size that NVRTC says.
            unsafe { sys::nvrtcGetCUBINSize(program, &raw mut size) }.result().map_err(failed)?;
            let mut image = vec![0u8; size];
            // SAFETY: as above.
            unsafe { sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()) }.result().map_err(failed)?;
            Ok(image)
        }
        Err(error) => {
            // SAFETY: the program was made above.
            let log = unsafe { nvrtc::get_program_log(program) }.unwrap_or_default();
            let log: String = log.iter().map(|c| *c as u8 as char).filter(|c| *c != '\0').collect();
            let message = format!("the kernels do not compile for {architecture}: {}", log.trim());
            Err(Error::new(Kind::Unexpected, message).because(error))
        }
    };
    // SAFETY: nothing uses the program any more.
    unsafe { nvrtc::destroy_program(program) }.map_err(failed)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::THREADS;
    use crate::kernel::NAMES;

    /// Needs NVRTC, no device: `make check-cuda` brings it.
    #[test]
    fn the_kernels_compile_for_the_devices_of_this_decade() {
        match library("nvrtc") {
            Err(error) if std::env::var_os("DSOM_REQUIRE_NVRTC").is_none() => {
                println!("skipped: {error}");
                return;
            }
            found => found.unwrap(),
        }
        for architecture in ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "compute_120"] {
            let image = compiled(architecture, THREADS).unwrap();
            let text = String::from_utf8_lossy(&image);
            for name in NAMES {
                assert!(text.contains(name), "{architecture} lacks {name}");
            }
        }
        assert_eq!(architecture(90).unwrap(), "sm_90");
    }

    #[test]
    fn a_device_newer_than_nvrtc_has_the_newest_that_is_older_translated() {
        let known = [75, 80, 90, 120];
        assert_eq!(among(&known, 90), "sm_90");
        assert_eq!(among(&known, 121), "compute_120");
        // NVRTC itself says that it no longer knows it.
        assert_eq!(among(&known, 70), "sm_70");
    }
}
