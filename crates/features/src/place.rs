//! Where encoders compute.

use cuda::{Gpu, choose};
use program::Device;
use stage::Result;
use std::sync::OnceLock;

/// The device that was asked for. It is opened when an encoder first needs it: what is fresh needs none.
#[derive(Debug)]
pub struct Place {
    asked: Device,
    opened: OnceLock<Option<Gpu>>,
}

impl Place {
    /// What `--device` says.
    pub fn new(asked: Device) -> Place {
        Place { asked, opened: OnceLock::new() }
    }

    /// The CPU.
    pub fn cpu() -> Place {
        Place::new(Device::Cpu)
    }

    /// The device for an encoder, with a message that says which; none is the CPU. `lacking` says what of this encoder no
    /// device does.
    ///
    /// # Errors
    /// As [`choose`] has them.
    pub(crate) fn gpu(&self, lacking: Option<&str>) -> Result<Option<Gpu>> {
        if lacking.is_some() {
            return choose(self.asked, lacking);
        }
        if let Some(opened) = self.opened.get() {
            return Ok(opened.clone());
        }
        let opened = choose(self.asked, None)?;
        Ok(self.opened.get_or_init(|| opened).clone())
    }

    /// Says of work that no device does that it is done on the CPU, where that is not what was asked for.
    pub(crate) fn left(&self, what: &str) {
        if let Device::Cuda(_) | Device::Emulated = self.asked {
            tracing::info!("device: cpu ({what} is not done on a device)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_opened_once_and_not_for_what_it_cannot_do() {
        let place = Place::new(Device::Emulated);
        assert!(place.gpu(Some("`x`")).is_err() && place.opened.get().is_none());
        assert!(place.gpu(None).unwrap().is_some() && place.opened.get().is_some());
        let auto = Place::new(Device::Auto);
        assert!(auto.gpu(Some("`x`")).unwrap().is_none() && auto.opened.get().is_none());
        assert!(Place::cpu().gpu(Some("`x`")).unwrap().is_none());
    }
}
