//! Where the arithmetic is done, as the command line says it.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use stage::Error;

/// `--device`.
///
/// ```
/// use program::Device;
/// assert_eq!("cuda:1".parse::<Device>().unwrap(), Device::Cuda(1));
/// assert!("gpu".parse::<Device>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// A CUDA device if the program was built with CUDA and there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number, from 0.
    Cuda(usize),
    /// A CUDA device's kernels, run on the CPU: slow, for tests.
    Emulated,
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Device, Error> {
        let unknown =
            || Error::usage(format!("`{text}` is no device: auto, cpu, cuda, cuda:N (from 0), or emulated"));
        match (text, text.strip_prefix("cuda:")) {
            ("auto", _) => Ok(Device::Auto),
            ("cpu", _) => Ok(Device::Cpu),
            ("cuda", _) => Ok(Device::Cuda(0)),
            ("emulated", _) => Ok(Device::Emulated),
            (_, Some(number)) => number.parse().map(Device::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl Display for Device {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => formatter.write_str("auto"),
            Device::Cpu => formatter.write_str("cpu"),
            Device::Cuda(ordinal) => write!(formatter, "cuda:{ordinal}"),
            Device::Emulated => formatter.write_str("emulated"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_they_are_read() {
        for text in ["auto", "cpu", "cuda:0", "cuda:7", "emulated"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for text in ["", "cuda:", "cuda:-1", "cuda:x", "GPU"] {
            assert_eq!(text.parse::<Device>().unwrap_err().kind(), stage::Kind::Usage, "{text}");
        }
    }
}
