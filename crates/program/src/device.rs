//! The device for the arithmetic, as named on the command line.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use stage::Error;

/// The value of `--device`.
///
/// ```
/// use program::Device;
/// assert_eq!("cuda:1".parse::<Device>().unwrap(), Device::Cuda(1));
/// assert!("gpu".parse::<Device>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// A CUDA or Metal device if the program was built with one of them and there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this number, from 0.
    Cuda(usize),
    /// The Metal device with this number, from 0.
    Metal(usize),
    /// Candle's tensors on the CPU: the computation of a device without a device. Slow, for tests and comparisons.
    Candle,
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Device, Error> {
        let (kind, number) = text.split_once(':').unwrap_or((text, "0"));
        match (kind, number.parse()) {
            ("cuda", Ok(number)) => Ok(Device::Cuda(number)),
            ("metal", Ok(number)) => Ok(Device::Metal(number)),
            _ if text == "auto" => Ok(Device::Auto),
            _ if text == "cpu" => Ok(Device::Cpu),
            _ if text == "candle" => Ok(Device::Candle),
            _ => Err(Error::usage(format!(
                "`{text}` is no device: auto, cpu, cuda, cuda:N (from 0), metal, metal:N, or candle"
            ))),
        }
    }
}

impl Display for Device {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => formatter.write_str("auto"),
            Device::Cpu => formatter.write_str("cpu"),
            Device::Cuda(ordinal) => write!(formatter, "cuda:{ordinal}"),
            Device::Metal(ordinal) => write!(formatter, "metal:{ordinal}"),
            Device::Candle => formatter.write_str("candle"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_they_are_read() {
        for text in ["auto", "cpu", "cuda:0", "cuda:7", "metal:1", "candle"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        assert_eq!("metal".parse::<Device>().unwrap(), Device::Metal(0));
        for text in ["", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "GPU"] {
            assert_eq!(text.parse::<Device>().unwrap_err().kind(), stage::Kind::Usage, "{text}");
        }
    }
}
