//! A small ViT with random weights, by candle's own layers: what runs have been made with stays the same to the bit.
//!
//! What a trained ViT gathers in its CLS token, a random one does not: its attention is nearly uniform, so the CLS
//! token, like the mean over all patches, knows which colours an image has and not where. The flags of France, the
//! Netherlands and Russia come out nearly the same (cosine 0.98 and more after centring). So the feature here is the mean
//! over the patches of each cell of a 3 x 3 grid, after the final layer norm, side by side: the flags that look alike are
//! then the near ones, and the mean over all patches is still a linear image of it.

use candle_core::{Device, Module, Result, Tensor};
use candle_nn::LayerNorm;
use candle_transformers::models::vit::{Config, Embeddings, Encoder};
use serde::Serialize;

use crate::images::encoder::ImageModel;
use crate::random;
use crate::tensor_error;

/// Sizes of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Height and width of an image in pixels.
    pub image: usize,
    /// Height and width of a patch in pixels.
    pub patch: usize,
    /// Width of the hidden states.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads per layer.
    pub heads: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
    /// Cells of the grid along each side.
    pub grid: usize,
}

/// The sizes in use.
pub const RANDOM: Sizes =
    Sizes { image: 48, patch: 8, hidden: 64, layers: 2, heads: 2, intermediate: 128, grid: 3 };

/// The means over the cells of a grid.
pub(crate) struct RandomVit {
    embeddings: Embeddings,
    encoder: Encoder,
    norm: LayerNorm,
}

impl RandomVit {
    pub(crate) fn new(seed: u64) -> Result<RandomVit> {
        let config = Config {
            hidden_size: RANDOM.hidden,
            num_hidden_layers: RANDOM.layers,
            num_attention_heads: RANDOM.heads,
            intermediate_size: RANDOM.intermediate,
            image_size: RANDOM.image,
            patch_size: RANDOM.patch,
            ..Config::vit_base_patch16_224()
        };
        let weights = random::weights(seed, "features/random-vit");
        Ok(RandomVit {
            embeddings: Embeddings::new(&config, false, weights.pp("embeddings"))?,
            encoder: Encoder::new(&config, weights.pp("encoder"))?,
            norm: candle_nn::layer_norm(RANDOM.hidden, config.layer_norm_eps, weights.pp("layernorm"))?,
        })
    }
}

impl ImageModel for RandomVit {
    fn image_size(&self) -> usize {
        RANDOM.image
    }

    fn width(&self) -> usize {
        RANDOM.grid * RANDOM.grid * RANDOM.hidden
    }

    fn encode(&self, pixels: Vec<f32>) -> stage::Result<Vec<f32>> {
        self.cells(pixels).map_err(tensor_error("encoding images"))
    }
}

impl RandomVit {
    fn cells(&self, pixels: Vec<f32>) -> Result<Vec<f32>> {
        let Sizes { image, patch, hidden, grid, .. } = RANDOM;
        let count = pixels.len() / (3 * image * image);
        let pixels = Tensor::from_vec(pixels, (count, 3, image, image), &Device::Cpu)?;
        let states = self.encoder.forward(&self.embeddings.forward(&pixels, None, false)?)?;
        let states = self.norm.forward(&states)?;
        let cell = image / patch / grid;
        let patches = states.narrow(1, 1, (cell * grid).pow(2))?;
        let cells = patches.reshape(&[count, grid, cell, grid, cell, hidden][..])?.mean(4)?.mean(2)?;
        cells.flatten_all()?.to_vec1()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::ImageEncoder;

    const RED: [f32; 3] = [0.8, -0.9, -0.6];
    const WHITE: [f32; 3] = [1.0, 1.0, 1.0];
    const BLUE: [f32; 3] = [-1.0, -0.4, 0.3];
    const GREEN: [f32; 3] = [-1.0, 0.1, -0.5];
    const YELLOW: [f32; 3] = [1.0, 0.7, -0.9];

    /// Three bands, from the top or from the left.
    fn bands(upright: bool, colours: [[f32; 3]; 3]) -> Vec<f32> {
        let size = RANDOM.image;
        let at =
            |channel: usize, y: usize, x: usize| colours[if upright { x } else { y } * 3 / size][channel];
        (0..3 * size * size).map(|i| at(i / (size * size), i / size % size, i % size)).collect()
    }

    fn centred_cosines(rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let mean: Vec<f32> = (0..rows[0].len())
            .map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / rows.len() as f32)
            .collect();
        let centred = |row: &Vec<f32>| -> Vec<f32> {
            let row: Vec<f32> = row.iter().zip(&mean).map(|(x, mean)| x - mean).collect();
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter().map(|x| x / norm).collect()
        };
        let rows: Vec<Vec<f32>> = rows.iter().map(centred).collect();
        let dot = |a: &Vec<f32>, b: &Vec<f32>| a.iter().zip(b).map(|(a, b)| a * b).sum();
        rows.iter().map(|a| rows.iter().map(|b| dot(a, b)).collect()).collect()
    }

    fn encode(images: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let encoder = ImageEncoder::random(1).unwrap();
        let rows = encoder.encode(images.concat()).unwrap();
        rows.chunks(encoder.width()).map(<[f32]>::to_vec).collect()
    }

    #[test]
    fn flags_that_look_alike_are_near_each_other() {
        let flags = [
            ("france", bands(true, [BLUE, WHITE, RED])),
            ("italy", bands(true, [GREEN, WHITE, RED])),
            ("netherlands", bands(false, [RED, WHITE, BLUE])),
            ("hungary", bands(false, [RED, WHITE, GREEN])),
            ("russia", bands(false, [WHITE, BLUE, RED])),
            ("mali", bands(true, [GREEN, YELLOW, RED])),
            ("bolivia", bands(false, [RED, YELLOW, GREEN])),
            ("austria", bands(false, [RED, WHITE, RED])),
        ];
        let images: Vec<Vec<f32>> = flags.iter().map(|(_, image)| image.clone()).collect();
        let cosines = centred_cosines(&encode(&images));
        let nearest = |i: usize| {
            let others = (0..flags.len()).filter(|j| *j != i);
            others.max_by(|a, b| cosines[i][*a].total_cmp(&cosines[i][*b])).map(|j| flags[j].0).unwrap()
        };
        assert_eq!([nearest(0), nearest(1)], ["italy", "france"]);
        assert_eq!([nearest(2), nearest(3)], ["hungary", "netherlands"]);
        // The same colours the other way round are another flag.
        assert!(cosines[0][1] > 0.5 && cosines[0][2] < 0.2, "{:?}", cosines[0]);
    }

    #[test]
    fn an_image_does_not_depend_on_its_batch() {
        let images = [bands(true, [BLUE, WHITE, RED]), bands(false, [RED, YELLOW, GREEN])];
        let together = encode(&images);
        for (image, row) in images.iter().zip(&together) {
            let single = &encode(std::slice::from_ref(image))[0];
            assert!(single.iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-5));
        }
        assert_eq!(together, encode(&images));
    }
}
