//! Images of entities become features.
//!
//! An entity's readable images are [pooled](pooling) into one row; without one it is absent. The same bytes twice
//! among its images are one image, and copies are counted over all entities: a placeholder that a site shows where it
//! has no picture is found this way.

use image::RgbImage;
use program::Progress;
use stage::{Error, Modality, Result};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use crate::FeatureTable;
use crate::decode::{Folder, decode};
use crate::journal::{Entry, Head, Journal};
use crate::outcome::Covered;
use crate::parallel::{Permits, as_done};
use crate::shard::Shard;

mod beit;
pub mod encoder;
pub(crate) mod models;
pub mod pooling;
mod positions;
pub mod report;
pub mod set;

pub use encoder::ImageEncoder;
pub use pooling::{EntityRows, Pooled};
pub use report::{Report, unreadable};
pub use set::{Illustrated, ImageSet};

/// Encodes images in groups of about the same number.
pub struct ImageWork<'a> {
    /// The images.
    pub images: &'a ImageSet,
    /// The encoder.
    pub encoder: &'a ImageEncoder,
    /// Images that are encoded together, at most.
    pub batch: usize,
    /// Batches that are encoded at the same time.
    pub threads: usize,
    /// Whether an unreadable image is an error.
    pub strict: bool,
    /// Shown beside the progress.
    pub modality: &'a Modality,
    /// Which groups are done here.
    pub shard: Shard,
    /// Where finished groups are kept, and looked for.
    pub journal: PathBuf,
}

impl ImageWork<'_> {
    /// The features of so many `entities`, and what became of their images.
    ///
    /// Memory holds one group's prepared images for each thread and one group more: while all threads encode, the next
    /// group is read and decoded.
    pub fn run(&self, entities: usize) -> Result<(FeatureTable, Report)> {
        let folder = Folder::open(&self.images.root)?;
        let mut table = FeatureTable::absent(entities, self.encoder.width());
        let mut reports: BTreeMap<usize, Report> = BTreeMap::new();
        let mut journal = Journal::open(&self.journal, |entry| {
            let report = report_of(&entry.head)?;
            self.require_readable(&report)?;
            reports.insert(entry.head.batch, report);
            table.take(&entry.head.entities, &entry.rows)
        })?;
        let groups = self.groups();
        let images = |groups: &[Group]| groups.iter().map(Group::images).sum::<u64>();
        let progress = Progress::new(self.modality.as_str(), images(&groups), "images");
        let left: Vec<Group> =
            groups.iter().filter(|group| !reports.contains_key(&group.number)).copied().collect();
        let done = images(&groups) - images(&left);
        progress.start_at(done);
        if done > 0 {
            tracing::info!("{}: continues with {done} images done", self.modality);
        }
        tracing::info!("{}: encodes {} images", self.modality, images(&left));
        let permits = Permits::new(self.threads);
        let encode = |group: &Group| self.encode(&folder, group.entities, &permits);
        as_done(&left, self.threads + 1, encode, |group, (pooled, report)| {
            self.require_readable(&report)?;
            let entry = entry(group.number, pooled, &report)?;
            table.take(&entry.head.entities, &entry.rows)?;
            progress.advance(group.images());
            reports.insert(group.number, report);
            journal.append(&entry)
        })?;
        Ok((table, Report::of_groups(reports.into_values())))
    }

    /// The entities whose images are looked at here.
    pub fn covered(&self) -> Covered {
        let entities = self.groups().into_iter().flat_map(|group| group.entities).map(|(entity, _)| *entity);
        Covered { entities: entities.collect(), of: self.images.of_entities.len() }
    }

    fn groups(&self) -> Vec<Group<'_>> {
        let groups = self.images.groups(self.batch.max(1)).into_iter().enumerate();
        let groups = groups.map(|(number, entities)| Group { number, entities });
        groups.filter(|group| self.shard.has(group.number)).collect()
    }

    fn encode(
        &self,
        folder: &Folder,
        group: &[Illustrated],
        permits: &Permits,
    ) -> Result<(EntityRows, Report)> {
        let mut report = Report::default();
        let mut batch =
            Batch { work: self, permits, owners: vec![], pixels: vec![], rows: Pooled::default() };
        for (entity, paths) in group {
            let mut seen = HashSet::new();
            for path in paths {
                let decoded = folder.read(path)?.and_then(|bytes| {
                    // Half of it: enough to tell files apart, and many are kept.
                    let digest = stage::files::digest_of(&bytes)[..32].to_owned();
                    let image = if seen.contains(&digest) { None } else { Some(decode(&bytes)?) };
                    Ok((digest, image))
                });
                match decoded {
                    Err(reason) => report.unreadable.push((path.clone(), reason)),
                    Ok((digest, image)) => {
                        report.copies += usize::from(image.is_none());
                        seen.insert(digest.clone());
                        report.digests.push(digest);
                        image.map_or(Ok(()), |image| batch.add(*entity, &image))?;
                    }
                }
            }
        }
        batch.encode()?;
        Ok((batch.rows.rows(), report))
    }

    fn require_readable(&self, report: &Report) -> Result<()> {
        if self.strict { report.require_all(&self.images.root) } else { Ok(()) }
    }
}

/// Entities whose images are encoded together.
#[derive(Clone, Copy)]
struct Group<'a> {
    number: usize,
    entities: &'a [Illustrated],
}

impl Group<'_> {
    fn images(&self) -> u64 {
        self.entities.iter().map(|(_, paths)| paths.len() as u64).sum()
    }
}

/// A group's rows and report as they are kept.
fn entry(batch: usize, pooled: EntityRows, report: &Report) -> Result<Entry> {
    let note = serde_json::to_value(report).map_err(|e| Error::data(e.to_string()))?;
    let (entities, rows): (Vec<usize>, Vec<Vec<f32>>) = pooled.into_iter().unzip();
    Ok(Entry { head: Head { batch, entities, note }, rows: rows.concat() })
}

fn report_of(head: &Head) -> Result<Report> {
    serde_json::from_value(head.note.clone())
        .map_err(|e| Error::data("the saved work is unusable").because(e).hint("use --force"))
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
        self.pixels.extend(self.work.encoder.preparation().pixels(image));
        if self.owners.len() >= self.work.batch.max(1) { self.encode() } else { Ok(()) }
    }

    fn encode(&mut self) -> Result<()> {
        if self.owners.is_empty() {
            return Ok(());
        }
        let encoder = self.work.encoder;
        let vectors = {
            let _permit = self.permits.acquire();
            encoder.encode(&std::mem::take(&mut self.pixels))?
        };
        let owned = self.owners.drain(..).zip(vectors.chunks_exact(encoder.width()));
        owned.for_each(|(entity, vector)| self.rows.add(entity, vector));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
