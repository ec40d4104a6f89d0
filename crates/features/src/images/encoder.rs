//! The image encoder: prepared images become rows.

use candle_core::Device;
use stage::Result;
use stage::recipe::ImageOutput;

use crate::checkpoint::Checkpoint;
use crate::random::vit::RandomVit;
use crate::tensor_error;
use crate::vit::Vit;

/// A model that encodes images.
pub(crate) trait ImageModel: Send + Sync {
    /// Numbers per image.
    fn width(&self) -> usize;
    /// Height and width of the images it takes, in pixels.
    fn image_size(&self) -> usize;
    /// `(image, width)`, row after row, of pixels `(image, channel, row, column)`.
    fn encode(&self, pixels: Vec<f32>) -> candle_core::Result<Vec<f32>>;
}

/// A ViT-architecture encoder in `f32`. It never changes, so threads share it.
pub struct ImageEncoder(Box<dyn ImageModel>);

impl ImageEncoder {
    /// The encoder of a checkpoint, and what of it shall be the feature.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where the checkpoint is damaged, of another architecture, or has not that output.
    pub fn load(checkpoint: &Checkpoint, output: ImageOutput, device: &Device) -> Result<ImageEncoder> {
        Ok(ImageEncoder(Box::new(Vit::load(checkpoint, output, device)?)))
    }

    /// An encoder of [`RANDOM`](crate::random::vit::RANDOM) sizes and weights drawn from `seed`.
    pub fn random(seed: u64, device: &Device) -> Result<ImageEncoder> {
        let model = RandomVit::new(seed, device).map_err(tensor_error("building the image encoder"))?;
        Ok(ImageEncoder(Box::new(model)))
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
        self.0.encode(pixels).map_err(tensor_error("encoding images"))
    }
}
