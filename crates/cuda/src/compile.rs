//! The kernels for a kind of device, by NVRTC: needs its library, but no device.

use cudarc::nvrtc::{result as nvrtc, sys};
use stage::{Error, Kind, Result};
use std::ffi::CString;

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

/// The binary for an architecture such as `sm_90`, for blocks of so many threads.
#[expect(unsafe_code, reason = "NVRTC's interface is C")]
pub(crate) fn cubin(architecture: &str, threads: u32) -> Result<Vec<u8>> {
    library("nvrtc")?;
    let failed = |e| Error::new(Kind::Unexpected, "NVRTC does not start").because(e);
    let source = CString::new(SOURCE).expect("C has no zeros");
    let program = nvrtc::create_program(&source, Some(c"kernels.cu")).map_err(failed)?;
    let options = [format!("--gpu-architecture={architecture}"), format!("--define-macro=THREADS={threads}")];
    // SAFETY: the program was made above and is destroyed below.
    let compiled = unsafe { nvrtc::compile_program(program, &options) };
    let result = match compiled {
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
        for architecture in ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"] {
            let image = cubin(architecture, THREADS).unwrap();
            let text = String::from_utf8_lossy(&image);
            for name in NAMES {
                assert!(text.contains(name), "{architecture} lacks {name}");
            }
        }
    }
}
