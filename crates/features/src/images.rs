//! Images of entities become features.
//!
//! An entity's row is the mean over its images that can be decoded; an entity without such an image is absent. Files
//! with the same bytes among an entity's images count as one image. Entities whose only image is shared with others are
//! counted: this finds a placeholder that a site shows where it has no picture.

use candle_core::{Device, Module, Tensor};
use candle_nn::{Func, func};
use image::RgbImage;
use mkg::graph::Entity;
use recipe::ImageOutput;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stage::files::write_bytes;
use stage::work::Work;
use stage::{Error, Modality, Result};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Component, Path};

use crate::batch::{Encode, Encoded, EntityBatch};
use crate::checkpoint::{Checkpoint, Config};
use crate::decode::{ImageFolder, decode};
use crate::preparation::{self, Preparation};
use crate::{tensor_error, weights};

pub(crate) mod models;

use models::{ImageArchitecture, cells};

/// Refuses images that lie outside the image folder; the error names the entity's row.
pub(crate) fn require_inside(entities: &[Entity]) -> Result<()> {
    for (i, entity) in (0..).zip(entities) {
        if let Some(path) = entity.images.iter().find(|path| !stays_inside(path)) {
            return Err(Error::data(format!("image path `{path}` leaves the image folder")).row(i));
        }
    }
    Ok(())
}

fn stays_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Groups of entities with at least `batch` images each, except the last group; an entity's images stay together.
fn batches(entities: &[Entity], batch: usize) -> Vec<EntityBatch> {
    let mut batches: Vec<EntityBatch> = Vec::new();
    for (i, Entity { images, .. }) in entities.iter().enumerate().filter(|(_, e)| !e.images.is_empty()) {
        match batches.last_mut().filter(|last| last.size < batch) {
            None => batches.push(EntityBatch { entities: vec![i], size: images.len() }),
            Some(last) => {
                last.entities.push(i);
                last.size += images.len();
            }
        }
    }
    batches
}

pub(crate) struct ImageWork<'a> {
    pub entities: &'a [Entity],
    pub folder: ImageFolder,
    pub encoder: ImageEncoder,
    /// The largest number of images that are encoded together.
    pub batch: usize,
    /// Makes an image that cannot be decoded an error.
    pub strict: bool,
}

impl Encode for ImageWork<'_> {
    fn unit(&self) -> &'static str {
        "images"
    }

    fn width(&self) -> usize {
        self.encoder.width
    }

    fn batches(&self) -> Vec<EntityBatch> {
        batches(self.entities, self.batch)
    }

    fn encode(&self, batch: &EntityBatch) -> Result<Encoded> {
        let mut report = DecodeReport::default();
        // The entity of each image; the last images wait to be encoded together.
        let (mut owners, mut waiting, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
        for entity in &batch.entities {
            let mut seen = HashSet::new();
            for path in &self.entities[*entity].images {
                match self.folder.read(path)?.and_then(|bytes| once(&bytes, &mut seen)) {
                    Ok((digest, image)) => {
                        report.read.push((*entity, digest, path.clone()));
                        let Some(image) = image else { continue };
                        owners.push(*entity);
                        waiting.extend(self.encoder.preparation.pixels(&image));
                    }
                    Err(reason) if self.strict => {
                        return Err(unreadable(&reason).at(self.folder.path.join(path)));
                    }
                    Err(reason) => report.unreadable.push((path.clone(), reason)),
                }
                if owners.len().is_multiple_of(self.batch) {
                    vectors.extend(self.encoder.encode(&waiting)?);
                    waiting.clear();
                }
            }
        }
        vectors.extend(self.encoder.encode(&waiting)?);
        let (mut rows, mut rest) = (Vec::new(), vectors.as_slice());
        for own in owners.chunk_by(|a, b| a == b) {
            let (vectors, others) = rest.split_at(own.len() * self.width());
            rows.extend(mean(vectors, own.len()));
            rest = others;
        }
        owners.dedup();
        Ok(Encoded { entities: owners, report, rows })
    }
}

/// The digest of a file, and the decoded image if the digest is not among those `seen`.
fn once(bytes: &[u8], seen: &mut HashSet<String>) -> Result<(String, Option<RgbImage>), String> {
    // Half of the digest is enough to tell files apart, and saves memory where there are many.
    let digest = stage::files::digest_of(bytes)[..32].to_owned();
    let image = if seen.contains(&digest) { None } else { Some(decode(bytes)?) };
    seen.insert(digest.clone());
    Ok((digest, image))
}

/// The mean of `count` vectors, which lie one after the other.
pub(crate) fn mean(vectors: &[f32], count: usize) -> Vec<f32> {
    let width = vectors.len() / count;
    let columns = (0..width).map(|column| vectors.iter().skip(column).step_by(width));
    columns.map(|column| column.sum::<f32>() / count as f32).collect()
}

/// The number of unreadable images that are named in the log and in `stage.json`.
const MAX_NAMED: usize = 20;

/// The error that `--strict` makes of an image that cannot be decoded.
pub(crate) fn unreadable(reason: &str) -> Error {
    Error::data(format!("unreadable image: {reason}"))
        .hint("replace or remove it and import again; without --strict it is counted as absent")
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DecodeReport {
    /// The entity, digest and path of each decoded file.
    pub read: Vec<(usize, String, String)>,
    /// The path of each file that cannot be decoded, and the reason.
    pub unreadable: Vec<(String, String)>,
}

impl DecodeReport {
    pub(crate) fn add(&mut self, other: DecodeReport) {
        self.read.extend(other.read);
        self.unreadable.extend(other.unreadable);
    }

    /// The digests of each entity's images without repetition, and a path of each.
    fn own(&self) -> BTreeMap<usize, BTreeMap<&str, &str>> {
        let mut own: BTreeMap<usize, BTreeMap<&str, &str>> = BTreeMap::new();
        for (entity, digest, path) in &self.read {
            own.entry(*entity).or_default().entry(digest).or_insert(path);
        }
        own
    }

    /// The entities whose only image is also the only image of others: their number, the number of those that have the
    /// most frequent such image, and a path of that image.
    fn shared(&self) -> Option<(usize, usize, &str)> {
        let own = self.own();
        let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for images in own.values().filter(|images| images.len() == 1) {
            images.iter().for_each(|(digest, path)| owners.entry(digest).or_default().push(path));
        }
        owners.retain(|_, paths| paths.len() > 1);
        let most = owners.values().max_by_key(|paths| paths.len())?;
        Some((owners.values().map(Vec::len).sum(), most.len(), most[0]))
    }

    /// Refuses a list of images of which none can be decoded; if `strict`, a list of which any cannot be decoded.
    pub(crate) fn require(&self, root: &Path, strict: bool) -> Result<()> {
        if self.read.is_empty() {
            let message = format!("none of {} images could be read", self.unreadable.len());
            let first = self.named().into_iter().next().unwrap_or_default();
            return Err(Error::data(message).at(root).hint(format!("the first is {first}")));
        }
        match self.unreadable.iter().min() {
            Some((path, reason)) if strict => Err(unreadable(reason).at(root.join(path))),
            _ => Ok(()),
        }
    }

    /// The first images that cannot be decoded, with their reasons.
    fn named(&self) -> Vec<String> {
        let sorted = BTreeSet::from_iter(&self.unreadable);
        sorted.into_iter().take(MAX_NAMED).map(|(path, reason)| format!("{path}: {reason}")).collect()
    }

    pub(crate) fn summary(&self) -> Value {
        let digests: BTreeSet<&str> = self.read.iter().map(|(_, digest, _)| digest.as_str()).collect();
        let own: usize = self.own().values().map(BTreeMap::len).sum();
        json!({
            "images_read": self.read.len(),
            "images_duplicate": self.read.len() - digests.len(),
            "images_duplicate_within_entity": self.read.len() - own,
            "entities_with_shared_image_alone": self.shared().map_or(0, |(entities, ..)| entities),
            "images_unreadable": self.unreadable.len(),
            "unreadable": self.named(),
        })
    }

    /// Warns of entities that have only the same image, and names the images that cannot be decoded: the first ones in
    /// the log, all of them in `unreadable.tsv`.
    pub(crate) fn write(&self, work: &Work, modality: &Modality) -> Result<()> {
        if let Some((entities, most, example)) = self.shared() {
            tracing::warn!(
                "{modality}: {entities} entities have no image but one that others have as well; {most} of them have \
                 {example}: is it a placeholder?"
            );
        }
        if self.unreadable.is_empty() {
            return Ok(());
        }
        self.named().iter().for_each(|named| tracing::warn!("{modality}: unreadable image {named}"));
        let (path, count) = (work.path("unreadable.tsv"), self.unreadable.len());
        if count > MAX_NAMED {
            tracing::warn!("{modality}: {count} images are unreadable, see {}", path.display());
        }
        // Each text is one field of one line, whatever characters a decoder's message has.
        let lines = BTreeSet::from_iter(&self.unreadable).into_iter().map(|(path, reason)| {
            [path, reason].map(|text| text.replace(['\t', '\n', '\r'], " ")).join("\t") + "\n"
        });
        let lines: String = lines.collect();
        write_bytes(&path, lines.as_bytes())
    }
}

/// The number of images that go through the layers together on the CPU: more images no longer fit the caches.
const CPU_IMAGES: usize = 2;

/// An image encoder in `f32`, with the preparation that it was trained with. It never changes, so threads share it.
pub struct ImageEncoder {
    model: Func<'static>,
    head: Func<'static>,
    pub(crate) preparation: Preparation,
    width: usize,
    device: Device,
}

impl ImageEncoder {
    /// The encoder of a checkpoint, or without one a small encoder with weights drawn from `seed`.
    pub(crate) fn open(
        checkpoint: Option<&Checkpoint>,
        output: ImageOutput,
        seed: u64,
        device: &Device,
    ) -> Result<ImageEncoder> {
        if let Some(checkpoint) = checkpoint {
            return ImageEncoder::load(checkpoint, output, device);
        }
        let config = Config::<ImageArchitecture>::new(&weights::random_images())?;
        let preparation = config.preparation(None)?;
        let weights = weights::random(seed, "features/random-vit", device);
        let model = config.model(preparation.size()[0], false, weights);
        let (head, width) = (func(cells), weights::GRID.pow(2) * config.size("hidden_size"));
        let model = model.map_err(tensor_error("building the image encoder"))?;
        Ok(ImageEncoder { model, head, preparation, width, device: device.clone() })
    }

    /// Loads the encoder of a checkpoint; `output` says which of its outputs is the feature. An output that the encoder
    /// lacks is an error of the kind [`Usage`](stage::Kind::Usage).
    pub fn load(checkpoint: &Checkpoint, output: ImageOutput, device: &Device) -> Result<ImageEncoder> {
        let (config, weights) = checkpoint.load::<ImageArchitecture>(output, device)?;
        let preparation = config.preparation(preparation::file(checkpoint)?.as_deref())?;
        let loaded = config.head(output, &weights).and_then(|head| {
            let model = config.model(preparation.size()[0], output == ImageOutput::Pooler, weights)?;
            let (width, device) = (config.size("hidden_size"), device.clone());
            Ok(ImageEncoder { model, head, preparation, width, device })
        });
        loaded.map_err(|e| checkpoint.damaged(e))
    }

    /// Encodes [prepared](crate::preparation) `pixels`, `(image, channel, row, column)`, to rows `(image, width)`.
    pub fn encode(&self, pixels: &[f32]) -> Result<Vec<f32>> {
        let [rows, columns] = self.preparation.size();
        let one = 3 * rows * columns;
        let at_once = if self.device.is_cpu() { CPU_IMAGES } else { (pixels.len() / one).max(1) };
        let mut encoded = Vec::new();
        for pixels in pixels.chunks(at_once * one) {
            let pixels = Tensor::from_slice(pixels, (pixels.len() / one, 3, rows, columns), &self.device);
            let states = pixels.and_then(|pixels| self.model.forward(&pixels));
            let rows = states.and_then(|states| self.head.forward(&states)?.flatten_all()?.to_vec1());
            encoded.extend::<Vec<f32>>(rows.map_err(tensor_error("encoding images"))?);
        }
        Ok(encoded)
    }
}

#[cfg(test)]
mod tests;
