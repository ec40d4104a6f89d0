//! The image encoder: images become rows.

use candle_core::{Device, Module, Tensor};
use candle_nn::VarBuilder;
use recipe::ImageOutput;
use stage::Result;

use super::models::{Architecture, Head, ImageModel, Taken};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::preparation::{self, Preparation};
use crate::{random, tensor_error};

/// Images that go through the layers together on the CPU: more no longer fit the caches.
const CPU_IMAGES: usize = 2;

/// An image encoder in `f32`, with the preparation that it was trained with. It never changes, so threads share it.
pub struct ImageEncoder {
    model: ImageModel,
    head: Head,
    preparation: Preparation,
    /// Numbers per image.
    width: usize,
    device: Device,
}

impl ImageEncoder {
    /// The encoder of a checkpoint, and what of it shall be the feature.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where the checkpoint is damaged or of an architecture without adapter, [`stage::Kind::Usage`]
    /// where it has not that output.
    pub fn load(checkpoint: &Checkpoint, output: ImageOutput, device: &Device) -> Result<ImageEncoder> {
        let config = checkpoint.config::<Architecture>()?;
        checkpoint.require_output(output, config.outputs())?;
        let preparation = config.preparation(checkpoint.optional(preparation::FILE).as_deref())?;
        let weights = checkpoint.weights(config.probe(), device)?;
        let head = config.head(output, &weights).map_err(|e| checkpoint.damaged(e))?;
        ImageEncoder::new(&config, head, preparation, weights).map_err(|e| checkpoint.damaged(e))
    }

    /// A small encoder with weights drawn from `seed`.
    pub fn random(seed: u64, device: &Device) -> Result<ImageEncoder> {
        let config = Config::new(&random::images())?;
        let weights = random::weights(seed, "features/random-vit", device);
        ImageEncoder::new(&config, Head::of(Taken::Cells), config.preparation(None)?, weights)
            .map_err(tensor_error("building the image encoder"))
    }

    fn new(
        config: &Config<Architecture>,
        head: Head,
        preparation: Preparation,
        weights: VarBuilder<'static>,
    ) -> candle_core::Result<ImageEncoder> {
        let (width, device) = (head.width(config.size("hidden_size")), weights.device().clone());
        let model = config.model(preparation.size().0, &head, weights)?;
        Ok(ImageEncoder { model, head, preparation, width, device })
    }

    /// How an image becomes the pixels it takes.
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
        let encode = |pixels: &[f32]| -> candle_core::Result<Vec<f32>> {
            let shape = (pixels.len() / one, 3, rows, columns);
            let pixels = Tensor::from_slice(pixels, shape, &self.device)?;
            self.head.forward(&self.model.forward(&pixels)?)?.flatten_all()?.to_vec1()
        };
        let chunks = pixels.chunks(at_once * one).map(encode);
        Ok(chunks.collect::<Result<Vec<_>, _>>().map_err(tensor_error("encoding images"))?.concat())
    }
}

#[cfg(test)]
#[path = "encoder/tests.rs"]
mod tests;
