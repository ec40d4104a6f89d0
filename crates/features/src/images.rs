//! Images of entities become features.
//!
//! An entity's readable images are [pooled](pooling) into one row; without one it is absent. The same bytes twice
//! among its images are one image, and copies are counted over all entities: a placeholder that a site shows where it
//! has no picture is found this way.

use image::RgbImage;
use stage::progress::Progress;
use stage::recipe::Pool;
use stage::{Error, Modality, Result};
use std::collections::HashSet;

use crate::FeatureTable;
use crate::decode::{Folder, decode};
use crate::parallel::{Permits, in_order};
use crate::preparation::Preparation;
use crate::vit::ImageEncoder;

pub mod pooling;
pub mod report;
pub mod set;

pub use pooling::Pooled;
pub use report::Report;
pub use set::{Illustrated, ImageSet};

/// Encodes images in groups of about the same number.
pub struct ImageWork<'a> {
    /// The images.
    pub images: &'a ImageSet,
    /// The encoder.
    pub encoder: &'a ImageEncoder,
    /// How an image becomes what the encoder takes.
    pub preparation: &'a Preparation,
    /// How an entity's images become one row.
    pub pool: Pool,
    /// Whether images are turned by their EXIF orientation.
    pub upright: bool,
    /// Images that are encoded together, at most.
    pub batch: usize,
    /// Batches that are encoded at the same time.
    pub threads: usize,
    /// Whether an unreadable image is an error.
    pub strict: bool,
    /// Shown beside the progress.
    pub modality: &'a Modality,
}

impl ImageWork<'_> {
    /// The features of so many `entities`, and what became of their images.
    ///
    /// Memory holds one group's prepared images for each thread and one group more: while all threads encode, the next
    /// group is read and decoded.
    pub fn run(&self, entities: usize) -> Result<(FeatureTable, Report)> {
        let folder = Folder::open(&self.images.root)?;
        let mut table = FeatureTable::absent(entities, self.encoder.width());
        let mut report = Report::default();
        let progress = Progress::new(self.modality.as_str(), self.images.count() as u64, "images");
        let groups = self.images.groups(self.batch.max(1));
        let permits = Permits::new(self.threads);
        let encode = |group: &&[Illustrated]| self.encode(&folder, group, &permits);
        in_order(&groups, self.threads + 1, encode, |group, (rows, part)| {
            self.require_readable(&part)?;
            rows.iter().for_each(|(entity, row)| table.set(*entity, row));
            progress.advance(group.iter().map(|(_, paths)| paths.len() as u64).sum());
            report.add(part);
            Ok(())
        })?;
        Ok((table, report))
    }

    fn encode(
        &self,
        folder: &Folder,
        group: &[Illustrated],
        permits: &Permits,
    ) -> Result<(Vec<(usize, Vec<f32>)>, Report)> {
        let mut report = Report::default();
        let mut batch =
            Batch { work: self, permits, owners: vec![], pixels: vec![], rows: Pooled::new(self.pool) };
        for (entity, paths) in group {
            let mut seen = HashSet::new();
            for path in paths {
                let decoded = folder.read(path).and_then(|bytes| {
                    // Half of it: enough to tell files apart, and many are kept.
                    let digest = stage::files::digest_of(&bytes)[..32].to_owned();
                    let image =
                        if seen.contains(&digest) { None } else { Some(decode(&bytes, self.upright)?) };
                    Ok((digest, image))
                });
                match decoded {
                    Err(reason) => report.unreadable.push((path.clone(), reason)),
                    Ok((digest, image)) => {
                        report.copies += usize::from(image.is_none());
                        seen.insert(digest.clone());
                        report.digests.push(digest);
                        image.map_or(Ok(()), |image| batch.add(*entity, &image))?;
                        if self.pool == Pool::First {
                            break;
                        }
                    }
                }
            }
        }
        batch.encode()?;
        Ok((batch.rows.rows().collect(), report))
    }

    fn require_readable(&self, report: &Report) -> Result<()> {
        match report.unreadable.first() {
            Some((path, reason)) if self.strict => Err(unreadable(reason).at(self.images.root.join(path))),
            _ => Ok(()),
        }
    }
}

/// The error that an unreadable image is with `--strict`.
pub fn unreadable(reason: &str) -> Error {
    Error::data(format!("unreadable image: {reason}"))
        .hint("replace or remove it and import again; without --strict it is counted as absent")
}

/// Prepared images that wait to be encoded together.
struct Batch<'a> {
    work: &'a ImageWork<'a>,
    permits: &'a Permits,
    owners: Vec<usize>,
    pixels: Vec<f32>,
    rows: Pooled,
}

impl Batch<'_> {
    fn add(&mut self, entity: usize, image: &RgbImage) -> Result<()> {
        self.owners.push(entity);
        self.pixels.extend(self.work.preparation.pixels(image));
        if self.owners.len() >= self.work.batch.max(1) { self.encode() } else { Ok(()) }
    }

    fn encode(&mut self) -> Result<()> {
        if self.owners.is_empty() {
            return Ok(());
        }
        let encoder = self.work.encoder;
        let vectors = {
            let _permit = self.permits.acquire();
            encoder.encode(std::mem::take(&mut self.pixels))?
        };
        let owned = self.owners.drain(..).zip(vectors.chunks_exact(encoder.width()));
        owned.for_each(|(entity, vector)| self.rows.add(entity, vector));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
