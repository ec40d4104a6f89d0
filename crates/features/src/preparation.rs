//! Decoded images become an encoder's numbers: resized, cropped if the checkpoint says so, rescaled and normalised. The
//! rules stand in `preprocessor_config.json`, or in the newer `image_processor` of `processor_config.json`, read first.
//!
//! Images are resized as PIL does: in 8 bits, with a wider filter where the image shrinks. `shortest_edge` sizes need a
//! centre crop, because the encoder takes images of one size only. An image longer than `MAX_RATIO` times its width is
//! first cut to that length, so that a strip of pixels does not grow into gigabytes.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ImageView, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use serde::Deserialize;
use serde_json::Value;
use stage::files::read_json;
use stage::{Error, Result};
use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoint;

/// The file in which a checkpoint says how its images are prepared.
pub const FILE: &str = "preprocessor_config.json";

/// The newer file, which may say how images are prepared in place of `FILE`.
pub(crate) const PROCESSOR: &str = "processor_config.json";

/// The largest ratio of length to width of an image that is resized by its shortest edge.
const MAX_RATIO: u32 = 8;

/// The steps that turn images into pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    resized: Size,
    algorithm: ResizeAlg,
    /// Height and width of the part that is cut from the centre.
    crop: Option<[u32; 2]>,
    factor: f32,
    mean: [f32; 3],
    deviation: [f32; 3],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Size {
    /// Height and width; the image's own ratio is not kept.
    Exact([u32; 2]),
    /// The shorter of height and width; the ratio is kept.
    ShortestEdge(u32),
}

/// The file of a checkpoint that says how its images are prepared.
pub(crate) fn file(checkpoint: &Checkpoint) -> Result<Option<PathBuf>> {
    let usual = checkpoint.optional(FILE);
    let Some(path) = checkpoint.optional(PROCESSOR) else { return Ok(usual) };
    // Older files of this name do not describe images.
    let is_of_images = !read_json::<Value>(&path)?["image_processor"].is_null();
    Ok(if is_of_images { Some(path) } else { usual })
}

impl Preparation {
    /// The preparation of ViT's own processor, for images of `size` x `size` pixels: bilinear, -1 to 1.
    pub fn vit(size: u32) -> Preparation {
        Preparation {
            resized: Size::Exact([size; 2]),
            algorithm: ResizeAlg::Convolution(FilterType::Bilinear),
            crop: None,
            factor: 1.0 / 255.0,
            mean: [0.5; 3],
            deviation: [0.5; 3],
        }
    }

    /// The preparation of SigLIP: bicubic.
    pub(crate) fn siglip(size: u32) -> Preparation {
        Preparation { algorithm: ResizeAlg::Convolution(FilterType::CatmullRom), ..Preparation::vit(size) }
    }

    /// The preparation of CLIP: resized by the shorter side, cropped to the centre, with its training images' colours.
    pub(crate) fn clip(size: u32) -> Preparation {
        Preparation {
            resized: Size::ShortestEdge(size),
            crop: Some([size; 2]),
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            deviation: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            ..Preparation::siglip(size)
        }
    }

    /// The preparation of DINOv2: cropped to a smaller part of the centre, with the colours of ImageNet.
    pub(crate) fn dinov2() -> Preparation {
        Preparation {
            resized: Size::ShortestEdge(256),
            mean: [0.485, 0.456, 0.406],
            deviation: [0.229, 0.224, 0.225],
            ..Preparation::clip(224)
        }
    }

    /// Reads the file at `path`; `usual` has the missing values. A damaged or unusable file is an error.
    pub fn read(path: &Path, usual: Preparation) -> Result<Preparation> {
        let file: PreparationFile = read_json(path)?;
        let config = file.image_processor.as_deref().unwrap_or(&file);
        config.preparation(usual).map_err(|message| Error::data(message).at(path))
    }

    /// Height and width of prepared images, in pixels.
    pub fn size(&self) -> [usize; 2] {
        self.crop.unwrap_or(self.resized.least()).map(|side| side as usize)
    }

    /// The pixels of the image as `(channel, row, column)`, the encoder's input.
    pub fn pixels(&self, image: &RgbImage) -> Vec<f32> {
        let (resized, [rows, columns]) = (self.resize(image), self.size());
        let above = (resized.height() as usize - rows) / 2;
        let mut pixels = Vec::with_capacity(3 * rows * columns);
        for channel in 0..3 {
            // A table saves work: a channel has no more than 256 different values.
            let table: Vec<f32> = (0..=u8::MAX)
                .map(|byte| (f32::from(byte) * self.factor - self.mean[channel]) / self.deviation[channel])
                .collect();
            for row in resized.iter_rows(0).skip(above).take(rows) {
                let shown = &row[(row.len() - columns) / 2..][..columns];
                pixels.extend(shown.iter().map(|pixel| table[usize::from(pixel.0[channel])]));
            }
        }
        pixels
    }

    /// The resized image before the crop. Rows are resized first, then columns, as PIL does: where the filter
    /// overshoots, the intermediate values are cut to 8 bits.
    fn resize(&self, image: &RgbImage) -> TypedImage<'static, U8x3> {
        let (width, height) = image.dimensions();
        let (shown_width, shown_height, new_width, new_height) = match self.resized {
            Size::Exact([new_height, new_width]) => (width, height, new_width, new_height),
            Size::ShortestEdge(edge) => {
                let most = width.min(height).saturating_mul(MAX_RATIO);
                let (w, h) = (width.min(most), height.min(most));
                let (new_width, new_height) = by_shortest_edge(w, h, edge);
                (w, h, new_width, new_height)
            }
        };
        let columns = ResizeOptions::new().resize_alg(self.algorithm);
        let rows = columns.crop(
            f64::from((width - shown_width) / 2),
            f64::from((height - shown_height) / 2),
            f64::from(shown_width),
            f64::from(shown_height),
        );
        // A named type generates code for one kind of pixel, not all twenty: two thirds of this crate's build.
        let mut narrowed = TypedImage::<U8x3>::new(new_width, shown_height);
        let mut resized = TypedImage::<U8x3>::new(new_width, new_height);
        // An image fails if its bytes do not fit its size or the crop lies outside it: neither happens here.
        if let Ok(image) = TypedImageRef::<U8x3>::from_buffer(width, height, image.as_raw()) {
            let mut outcome = Resizer::new().resize_typed(&image, &mut narrowed, Some(&rows));
            outcome =
                outcome.and_then(|()| Resizer::new().resize_typed(&narrowed, &mut resized, Some(&columns)));
            debug_assert!(outcome.is_ok() || width * height == 0, "{outcome:?}");
        }
        resized
    }
}

impl Size {
    /// The smallest height and width that a resized image can have.
    fn least(self) -> [u32; 2] {
        match self {
            Size::Exact(sides) => sides,
            Size::ShortestEdge(edge) => [edge; 2],
        }
    }
}

/// Width and height after the shorter one becomes `edge`: the longer one is rounded down, as the processors do.
fn by_shortest_edge(width: u32, height: u32, edge: u32) -> (u32, u32) {
    let (long, short) = (width.max(height), width.min(height).max(1));
    let longer = u64::from(edge) * u64::from(long) / u64::from(short);
    let longer = u32::try_from(longer).unwrap_or(u32::MAX);
    if width <= height { (edge, longer.max(edge)) } else { (longer, edge) }
}

#[derive(Deserialize)]
struct PreparationFile {
    image_processor: Option<Box<PreparationFile>>,
    do_resize: Option<bool>,
    size: Option<SizeConfig>,
    resample: Option<u8>,
    do_center_crop: Option<bool>,
    crop_size: Option<SizeConfig>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f32>,
    do_normalize: Option<bool>,
    image_mean: Option<Vec<f32>>,
    image_std: Option<Vec<f32>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum SizeConfig {
    Both { height: u32, width: u32 },
    Shortest { shortest_edge: u32 },
    Square(u32),
}

impl PreparationFile {
    fn preparation(&self, usual: Preparation) -> Result<Preparation, String> {
        if self.do_resize == Some(false) {
            return Err("`do_resize` is false, but entities have images of every size".to_owned());
        }
        let resized = match (self.size, usual.resized) {
            (None, usual) => usual,
            (Some(SizeConfig::Both { height, width }), _) => Size::Exact([height, width]),
            (Some(SizeConfig::Square(edge)), Size::Exact(_)) => Size::Exact([edge; 2]),
            (Some(SizeConfig::Square(edge) | SizeConfig::Shortest { shortest_edge: edge }), _) => {
                Size::ShortestEdge(edge)
            }
        };
        let crop = match self.crop_size {
            _ if !self.do_center_crop.unwrap_or(usual.crop.is_some()) => None,
            None => Some(usual.crop.unwrap_or(usual.resized.least())),
            Some(SizeConfig::Both { height, width }) => Some([height, width]),
            Some(SizeConfig::Square(edge)) => Some([edge; 2]),
            Some(SizeConfig::Shortest { .. }) => {
                return Err("`crop_size` needs a height and a width".to_owned());
            }
        };
        let [height, width] = resized.least();
        match (resized, crop) {
            (Size::ShortestEdge(_), None) => {
                return Err(
                    "`shortest_edge` without a centre crop gives images of different sizes".to_owned()
                );
            }
            (_, Some([rows, columns])) if rows > height || columns > width => {
                let image = format!("the image of {height} x {width}");
                return Err(format!("the crop of {rows} x {columns} is larger than {image}"));
            }
            _ => {}
        }
        // Images without rescaling stay at 0 to 255; without normalising, nothing is subtracted.
        let (mean, deviation) = match self.do_normalize {
            Some(false) => ([0.0; 3], [1.0; 3]),
            _ => (
                channels("image_mean", self.image_mean.as_deref(), usual.mean)?,
                channels("image_std", self.image_std.as_deref(), usual.deviation)?,
            ),
        };
        if let Some(bad) = deviation.iter().find(|x| !x.is_finite() || **x <= 0.0) {
            return Err(format!("`image_std` has {bad}"));
        }
        let factor = match self.do_rescale {
            Some(false) => 1.0,
            _ => self.rescale_factor.unwrap_or(usual.factor),
        };
        let algorithm = self.resample.map_or(Ok(usual.algorithm), algorithm)?;
        Ok(Preparation { resized, algorithm, crop, factor, mean, deviation })
    }
}

/// One number for each channel; a single number counts for all three.
fn channels(name: &str, values: Option<&[f32]>, default: [f32; 3]) -> Result<[f32; 3], String> {
    match values {
        None => Ok(default),
        Some([value]) => Ok([*value; 3]),
        Some([red, green, blue]) => Ok([*red, *green, *blue]),
        Some(values) => Err(format!("`{name}` has {} numbers, an image has 3 channels", values.len())),
    }
}

/// The filter with PIL's number `resample`.
fn algorithm(resample: u8) -> Result<ResizeAlg, String> {
    let filter = match resample {
        0 => return Ok(ResizeAlg::Nearest),
        1 => FilterType::Lanczos3,
        2 => FilterType::Bilinear,
        3 => FilterType::CatmullRom,
        4 => FilterType::Box,
        5 => FilterType::Hamming,
        other => return Err(format!("`resample` is {other}, known are 0 to 5")),
    };
    Ok(ResizeAlg::Convolution(filter))
}

#[cfg(test)]
#[path = "preparation/tests.rs"]
mod tests;
