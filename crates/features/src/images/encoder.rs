//! The image encoder: images become rows.

use candle_core::{Device, Module, Tensor};
use candle_nn::{Func, func};
use recipe::ImageOutput;
use stage::Result;

use super::models::{ImageArchitecture, ImageModel, cells};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::preparation::{self, Preparation};
use crate::source::EncoderSource;
use crate::{random, tensor_error};

/// Images that go through the layers together on the CPU: more no longer fit the caches.
const CPU_IMAGES: usize = 2;

/// An image encoder in `f32`, with the preparation that it was trained with. It never changes, so threads share it.
pub struct ImageEncoder {
    model: ImageModel,
    /// Turns the model's states into rows.
    head: Func<'static>,
    preparation: Preparation,
    /// Numbers per image.
    width: usize,
    device: Device,
}

impl EncoderSource<ImageOutput> {
    /// The encoder.
    pub(crate) fn open(&self, seed: u64, device: &Device) -> Result<ImageEncoder> {
        match self {
            EncoderSource::Checkpoint(checkpoint, output) => ImageEncoder::load(checkpoint, *output, device),
            EncoderSource::Random => ImageEncoder::random(seed, device),
        }
    }
}

impl ImageEncoder {
    /// The encoder of a checkpoint, and what of it shall be the feature.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where the checkpoint is damaged or of an architecture without adapter, [`stage::Kind::Usage`]
    /// where it has not that output.
    pub fn load(checkpoint: &Checkpoint, output: ImageOutput, device: &Device) -> Result<ImageEncoder> {
        let config = checkpoint.config::<ImageArchitecture>()?;
        checkpoint.require_output(output, config.outputs())?;
        let preparation = config.preparation(checkpoint.optional(preparation::FILE).as_deref())?;
        let weights = checkpoint.weights(config.probe(), device)?;
        let loaded = config.head(output, &weights).and_then(|head| {
            let model = config.model(preparation.size().0, output == ImageOutput::Pooler, weights)?;
            let (width, device) = (config.size("hidden_size"), device.clone());
            Ok(ImageEncoder { model, head, preparation, width, device })
        });
        loaded.map_err(|e| checkpoint.damaged(e))
    }

    /// A small encoder with weights drawn from `seed`.
    pub fn random(seed: u64, device: &Device) -> Result<ImageEncoder> {
        let config = Config::<ImageArchitecture>::new(&random::images())?;
        let preparation = config.preparation(None)?;
        let weights = random::weights(seed, "features/random-vit", device);
        let model = config.model(preparation.size().0, false, weights);
        let (head, width) = (func(cells), random::GRID * random::GRID * config.size("hidden_size"));
        let model = model.map_err(tensor_error("building the image encoder"))?;
        Ok(ImageEncoder { model, head, preparation, width, device: device.clone() })
    }

    /// The preparation of an image to the pixels it takes.
    pub fn preparation(&self) -> &Preparation {
        &self.preparation
    }

    /// Numbers per image.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Encodes [prepared](crate::preparation) `pixels`, `(image, channel, row, column)`: `(image, width)`, row after row.
    pub fn encode(&self, pixels: &[f32]) -> Result<Vec<f32>> {
        let (rows, columns) = self.preparation.size();
        let one = 3 * rows * columns;
        let at_once = if self.device.is_cpu() { CPU_IMAGES } else { (pixels.len() / one).max(1) };
        let mut encoded = Vec::new();
        for pixels in pixels.chunks(at_once * one) {
            let shape = (pixels.len() / one, 3, rows, columns);
            encoded.extend(self.rows(pixels, shape).map_err(tensor_error("encoding images"))?);
        }
        Ok(encoded)
    }

    fn rows(&self, pixels: &[f32], shape: (usize, usize, usize, usize)) -> candle_core::Result<Vec<f32>> {
        let pixels = Tensor::from_slice(pixels, shape, &self.device)?;
        self.head.forward(&self.model.forward(&pixels)?)?.flatten_all()?.to_vec1()
    }
}

#[cfg(test)]
#[path = "encoder/tests.rs"]
mod tests;
