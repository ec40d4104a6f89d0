//! Images of entities become features.
//!
//! An entity's row is the mean over its images that can be decoded; without one it is absent. The same bytes twice
//! among its images are one image, and entities that have nothing but the same image are counted: a placeholder that a
//! site shows where it has no picture is found this way.

use image::RgbImage;
use mkg::graph::Entity;
use stage::{Error, Result};
use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use crate::batch::{Encode, Encoded, EntityBatch};
use crate::decode::{ImageFolder, decode};

mod beit;
pub mod encoder;
pub(crate) mod models;
mod positions;
pub(crate) mod report;

pub use encoder::ImageEncoder;
pub(crate) use report::{DecodeReport, unreadable};

/// The images of a graph's entities.
#[derive(Clone, Debug)]
pub(crate) struct ImageSet {
    /// The folder that paths are relative to.
    pub root: PathBuf,
    /// The paths of each entity's images.
    pub paths: Vec<Vec<String>>,
}

impl ImageSet {
    /// The images of `entities` in the folder `root`.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where a path leaves the folder.
    pub(crate) fn new(root: PathBuf, entities: &[Entity]) -> Result<ImageSet> {
        for (i, entity) in entities.iter().enumerate() {
            if let Some(path) = entity.images.iter().find(|path| !stays_inside(path)) {
                let message = format!("image path `{path}` leaves the image folder");
                return Err(Error::data(message).row(i as u64));
            }
        }
        Ok(ImageSet { root, paths: entities.iter().map(|entity| entity.images.clone()).collect() })
    }

    /// Entities in groups of at least `batch` images, but for the last; an entity's images stay together.
    fn batches(&self, batch: usize) -> Vec<EntityBatch> {
        let mut batches: Vec<EntityBatch> = Vec::new();
        for (entity, paths) in self.paths.iter().enumerate().filter(|(_, paths)| !paths.is_empty()) {
            match batches.last_mut().filter(|last| last.size < batch) {
                None => {
                    let (number, entities) = (batches.len(), vec![entity]);
                    batches.push(EntityBatch { number, entities, size: paths.len() });
                }
                Some(last) => {
                    last.entities.push(entity);
                    last.size += paths.len();
                }
            }
        }
        batches
    }
}

/// Returns whether a path relative to a folder stays in it.
fn stays_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Images, and what encodes them.
pub(crate) struct ImageWork<'a> {
    images: &'a ImageSet,
    folder: ImageFolder,
    encoder: ImageEncoder,
    /// Images that are encoded together, at most.
    batch: usize,
    /// Makes an image that cannot be decoded an error.
    strict: bool,
}

impl ImageWork<'_> {
    /// # Errors
    /// Where the image folder cannot be opened.
    pub(crate) fn new(
        images: &ImageSet,
        encoder: ImageEncoder,
        batch: usize,
        strict: bool,
    ) -> Result<ImageWork<'_>> {
        Ok(ImageWork {
            folder: ImageFolder::open(&images.root)?,
            images,
            encoder,
            batch: batch.max(1),
            strict,
        })
    }

    fn fail_if_strict(&self, path: &str, reason: &str) -> Result<()> {
        if self.strict { Err(unreadable(reason).at(self.images.root.join(path))) } else { Ok(()) }
    }
}

impl Encode for ImageWork<'_> {
    fn unit(&self) -> &'static str {
        "images"
    }

    fn width(&self) -> usize {
        self.encoder.width()
    }

    fn batches(&self) -> Vec<EntityBatch> {
        self.images.batches(self.batch)
    }

    fn encode(&self, batch: &EntityBatch) -> Result<Encoded> {
        let mut report = DecodeReport::default();
        let mut vectors = Vectors { work: self, owners: vec![], pixels: vec![], done: vec![] };
        for entity in &batch.entities {
            let mut seen = HashSet::new();
            for path in &self.images.paths[*entity] {
                match self.folder.read(path)?.and_then(|bytes| once(&bytes, &mut seen)) {
                    Ok((digest, image)) => {
                        report.add_read(*entity, digest, path);
                        image.map_or(Ok(()), |image| vectors.add(*entity, &image))?;
                    }
                    Err(reason) => {
                        self.fail_if_strict(path, &reason)?;
                        report.unreadable.push((path.clone(), reason));
                    }
                }
            }
        }
        let (entities, rows) = vectors.means()?;
        Ok(Encoded { entities, report, rows })
    }
}

/// The digest of a file and, where it is not among those `seen`, the image in it.
fn once(bytes: &[u8], seen: &mut HashSet<String>) -> Result<(String, Option<RgbImage>), String> {
    // Half of it: enough to tell files apart, and many are kept.
    let digest = stage::files::digest_of(bytes)[..32].to_owned();
    let image = if seen.contains(&digest) { None } else { Some(decode(bytes)?) };
    seen.insert(digest.clone());
    Ok((digest, image))
}

/// Vectors of images, each of which belongs to an entity; an entity's follow each other.
struct Vectors<'a> {
    work: &'a ImageWork<'a>,
    owners: Vec<usize>,
    /// Prepared images that wait to be encoded together.
    pixels: Vec<Vec<f32>>,
    done: Vec<f32>,
}

impl Vectors<'_> {
    fn add(&mut self, entity: usize, image: &RgbImage) -> Result<()> {
        self.owners.push(entity);
        self.pixels.push(self.work.encoder.preparation().pixels(image));
        if self.pixels.len() >= self.work.batch { self.encode() } else { Ok(()) }
    }

    fn encode(&mut self) -> Result<()> {
        self.done.extend(self.work.encoder.encode(&std::mem::take(&mut self.pixels).concat())?);
        Ok(())
    }

    /// The entities, and the mean of each one's vectors.
    fn means(mut self) -> Result<(Vec<usize>, Vec<f32>)> {
        self.encode()?;
        let (mut entities, mut rows, mut rest) = (Vec::new(), Vec::new(), self.done.as_slice());
        for own in self.owners.chunk_by(|a, b| a == b) {
            let (vectors, others) = rest.split_at(own.len() * self.work.width());
            entities.push(own[0]);
            rows.extend(mean(vectors, own.len()));
            rest = others;
        }
        Ok((entities, rows))
    }
}

/// The mean of so many vectors, which lie one after the other.
pub(crate) fn mean(vectors: &[f32], count: usize) -> Vec<f32> {
    let width = vectors.len() / count;
    let sum = |column: usize| vectors.iter().skip(column).step_by(width).sum::<f32>();
    (0..width).map(|column| sum(column) / count as f32).collect()
}

#[cfg(test)]
mod tests;
