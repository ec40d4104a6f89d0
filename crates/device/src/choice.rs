//! The choice of the device that a program works on, and that device's memory.

use candle_core::Device;
use recipe::Precision;
use stage::{Error, Kind, Result, resources};

/// The device that was asked for, whose name is logged; `None` is the hand-written engine on the CPU. Refuses a device
/// that does not exist, or that this program was built without.
pub fn choose(asked: program::Device) -> Result<Option<Device>> {
    let cuda = |ordinal| open(ordinal, cfg!(feature = "cuda"), Device::new_cuda);
    let metal = |ordinal| open(ordinal, cfg!(feature = "metal"), Device::new_metal);
    let device = match asked {
        program::Device::Cpu => None,
        program::Device::Auto => {
            let found = cuda(0).or_else(|_| metal(0));
            found.inspect_err(|error| tracing::debug!("device: cpu ({error})")).ok()
        }
        program::Device::Cuda(ordinal) => Some(cuda(ordinal)?),
        program::Device::Metal(ordinal) => Some(metal(ordinal)?),
        program::Device::Candle => Some(Device::Cpu),
    };
    if let Some(device) = &device {
        tracing::info!("device: {}", name(device));
    }
    Ok(device)
}

fn open(ordinal: usize, is_built: bool, new: fn(usize) -> candle_core::Result<Device>) -> Result<Device> {
    if !is_built {
        return Err(Error::usage("this program was built without that device")
            .hint("`make build-cuda` builds one with CUDA: see docs/gpu.md; or use --device cpu"));
    }
    new(ordinal).map_err(|e| Error::usage(format!("no device number {ordinal}: {e}")).hint("--device cpu"))
}

/// The device's name, in the form of `--device`.
fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "candle".to_owned(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// The products of a training with this precision, as words for a summary.
pub fn products(device: &Device, precision: Precision) -> String {
    let precision = match (precision, device.is_cuda()) {
        (Precision::F32, _) | (Precision::Tf32, false) => "f32",
        (Precision::Tf32, true) => "tf32",
        (Precision::Bf16, _) => "bf16",
    };
    format!("{precision} by {}", name(device))
}

/// Refuses work that needs more `bytes` than the device has free; `knob` says how to need fewer. CUDA's driver knows
/// the free memory; Metal, which shares the host's memory, and candle's CPU device have what the host has available.
pub fn require_memory(device: &Device, bytes: u64, what: &str, knob: &str) -> Result<()> {
    match free(device)? {
        None => resources::require_memory(bytes, what, knob),
        Some(free) if bytes > free => {
            let (needed, free) = (resources::human(bytes), resources::human(free));
            let message =
                format!("{what} needs about {needed} of {}'s memory, {free} are free", name(device));
            Err(Error::new(Kind::Resource, message).hint(format!("{knob}, or use --device cpu")))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(feature = "cuda")]
fn free(device: &Device) -> Result<Option<u64>> {
    let Device::Cuda(device) = device else { return Ok(None) };
    let asked = device.cuda_stream().context().mem_get_info();
    let (free, _) = asked.map_err(|e| Error::new(Kind::Unexpected, "the device's memory").because(e))?;
    Ok(Some(free as u64))
}

#[cfg(not(feature = "cuda"))]
fn free(_device: &Device) -> Result<Option<u64>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candle_is_a_device_and_the_cpu_is_none() {
        assert!(choose(program::Device::Cpu).unwrap().is_none());
        let device = choose(program::Device::Candle).unwrap().unwrap();
        assert_eq!(
            (name(&device), products(&device, Precision::Tf32)),
            ("candle".into(), "f32 by candle".into())
        );
        let error = require_memory(&device, u64::MAX, "training", "lower `teachers.batch`").unwrap_err();
        assert_eq!(error.kind(), Kind::Resource);
    }

    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    #[test]
    fn a_program_built_without_devices_says_how_to_get_one() {
        assert!(choose(program::Device::Auto).unwrap().is_none());
        for asked in [program::Device::Cuda(1), program::Device::Metal(0)] {
            let error = choose(asked).unwrap_err();
            assert!(error.hint_text().unwrap().contains("make build-cuda"), "{error}");
        }
    }
}
