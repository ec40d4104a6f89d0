//! Which device a program works on.

use program::Device;
use stage::{Error, Result};

use crate::Gpu;

/// The device that was asked for, with a message that says which; none is the CPU. `lacking` says what of this work no
/// device does: `auto` takes the CPU then.
///
/// # Errors
/// If a device was asked for that is not there, that this program was built without, or that lacks something.
pub fn choose(asked: Device, lacking: Option<&str>) -> Result<Option<Gpu>> {
    let gpu = match (asked, lacking) {
        (Device::Cpu, _) => None,
        (Device::Auto, Some(lacking)) => return Ok(cpu(&format!("{lacking} is not done on a device"))),
        (Device::Auto, None) => match cuda(0) {
            Ok(gpu) => Some(gpu),
            Err(error) => return Ok(cpu(&error.to_string())),
        },
        (_, Some(lacking)) => {
            let message = format!("{lacking} is not done on a device");
            return Err(Error::usage(message).hint("--device cpu does it"));
        }
        (Device::Cuda(ordinal), None) => Some(cuda(ordinal)?),
        (Device::Emulated | Device::Metal(_) | Device::Candle, None) => Some(Gpu::emulated()),
    };
    if let Some(gpu) = &gpu {
        tracing::info!("device: {}", gpu.name());
    }
    Ok(gpu)
}

fn cpu(why: &str) -> Option<Gpu> {
    tracing::info!("device: cpu ({why})");
    None
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Gpu> {
    Gpu::cuda(ordinal)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_ordinal: usize) -> Result<Gpu> {
    Err(Error::usage("this program was built without CUDA")
        .hint("`make build-cuda` builds one with it: see \"CUDA\" in README.md; or use --device cpu"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_the_cpu_where_a_device_lacks_something_and_others_are_refused() {
        assert!(choose(Device::Auto, Some("`x`")).unwrap().is_none());
        assert!(choose(Device::Cpu, Some("`x`")).unwrap().is_none());
        let error = choose(Device::Emulated, Some("`x`")).unwrap_err();
        assert!(error.to_string().contains("`x`") && error.hint_text().unwrap().contains("cpu"));
        assert!(choose(Device::Emulated, None).unwrap().is_some());
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_program_built_without_cuda_says_how_to_get_one() {
        let error = choose(Device::Cuda(1), None).unwrap_err();
        assert!(error.hint_text().unwrap().contains("make build-cuda"), "{error}");
        assert!(choose(Device::Auto, None).unwrap().is_none());
    }
}
