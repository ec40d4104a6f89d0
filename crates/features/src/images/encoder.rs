//! The image encoder: prepared images become rows.

use recipe::{ImageOutput, Precision};
use stage::{Modality, Result};

use crate::checkpoint::Checkpoint;
use crate::place::Place;
use crate::random::vit::RandomVit;
use crate::tensor_error;
use crate::transformer::{CPU_PRODUCTS, Encoder};
use crate::vit::Vit;

/// A model that encodes images.
pub(crate) trait ImageModel: Send + Sync {
    /// Numbers per image.
    fn width(&self) -> usize;
    /// Height and width of the images it takes, in pixels.
    fn image_size(&self) -> usize;
    /// What computes it, where that may be a device, and how many tokens an image is to it.
    fn encoder(&self) -> Option<(&Encoder, usize)> {
        None
    }
    /// `(image, width)`, row after row, of pixels `(image, channel, row, column)`.
    fn encode(&self, pixels: Vec<f32>) -> Result<Vec<f32>>;
}

/// A ViT-architecture encoder in `f32`. It never changes, so threads share it.
pub struct ImageEncoder(Box<dyn ImageModel>);

impl ImageEncoder {
    /// The encoder of a checkpoint, and what of it shall be the feature. On a device its products are in this precision.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where the checkpoint is damaged, of another architecture, or has not that output.
    pub fn load(
        checkpoint: &Checkpoint,
        output: ImageOutput,
        place: &Place,
        precision: Precision,
    ) -> Result<ImageEncoder> {
        Ok(ImageEncoder(Box::new(Vit::load(checkpoint, output, place, precision)?)))
    }

    /// An encoder of [`RANDOM`](crate::random::vit::RANDOM) sizes and weights drawn from `seed`; on the CPU.
    pub fn random(seed: u64) -> Result<ImageEncoder> {
        let model = RandomVit::new(seed).map_err(tensor_error("building the image encoder"))?;
        Ok(ImageEncoder(Box::new(model)))
    }

    /// What its products are called in a summary.
    pub fn products(&self) -> String {
        self.0.encoder().map_or(CPU_PRODUCTS.to_owned(), |(encoder, _)| encoder.products())
    }

    /// Refuses a batch of so many images that a device's memory does not hold.
    pub fn require_device_memory(&self, batch: usize, modality: &Modality) -> Result<()> {
        self.0.encoder().map_or(Ok(()), |(encoder, tokens)| encoder.require_memory(batch, tokens, modality))
    }

    /// Height and width of the images it takes, in pixels.
    pub fn image_size(&self) -> usize {
        self.0.image_size()
    }

    /// Numbers per image.
    pub fn width(&self) -> usize {
        self.0.width()
    }

    /// Encodes [prepared](crate::preparation) `pixels`, `(image, channel, row, column)`: `(image, width)`, row after row.
    pub fn encode(&self, pixels: Vec<f32>) -> Result<Vec<f32>> {
        self.0.encode(pixels)
    }
}
