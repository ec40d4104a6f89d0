//! Images of entities become features.

use image::imageops::{FilterType, resize};
use image::{ImageReader, Limits};
use mkg::graph::Entity;
use stage::progress::Progress;
use stage::{Error, Modality, Result};
use std::path::{Component, Path, PathBuf};

use crate::FeatureTable;
use crate::parallel::in_order;
use crate::vit::ImageEncoder;

/// The largest height or width of an image that is read, in pixels.
const MAX_SIDE: u32 = 20_000;
/// The most memory that decoding one image may take, in bytes.
const MAX_DECODED: u64 = 512 << 20;
/// Unreadable files that are named.
const MAX_NAMED: usize = 20;

/// The images of a graph's entities.
#[derive(Clone, Debug)]
pub struct ImageSet {
    /// The folder that paths are relative to.
    pub root: PathBuf,
    /// Entities that have images, with their paths.
    pub of_entities: Vec<(usize, Vec<String>)>,
}

impl ImageSet {
    /// The images of `entities` in the folder `root`.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where a path leaves the folder.
    pub fn new(root: PathBuf, entities: &[Entity]) -> Result<ImageSet> {
        let with_images = entities.iter().enumerate().filter(|(_, entity)| !entity.images.is_empty());
        let checked =
            with_images.map(|(i, entity)| match entity.images.iter().find(|path| !stays_inside(path)) {
                Some(path) => {
                    let message = format!("image path `{path}` leaves the image folder");
                    Err(Error::data(message).row(i as u64))
                }
                None => Ok((i, entity.images.clone())),
            });
        Ok(ImageSet { of_entities: checked.collect::<Result<_>>()?, root })
    }

    /// How many images there are.
    pub fn count(&self) -> usize {
        self.of_entities.iter().map(|(_, paths)| paths.len()).sum()
    }

    /// Entities in groups of at least `batch` images, but for the last; an entity's images stay together.
    fn batches(&self, batch: usize) -> Vec<&[(usize, Vec<String>)]> {
        let (mut batches, mut rest) = (Vec::new(), self.of_entities.as_slice());
        while !rest.is_empty() {
            let mut images = 0;
            let filled = rest.iter().position(|(_, paths)| {
                images += paths.len();
                images >= batch
            });
            let (group, after) = rest.split_at(filled.map_or(rest.len(), |last| last + 1));
            batches.push(group);
            rest = after;
        }
        batches
    }
}

/// Whether a path relative to a folder stays in it.
fn stays_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// What became of the images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Images that were read.
    pub read: usize,
    /// Images that could not be read.
    pub unreadable: usize,
    /// The first of those, each with the reason.
    pub examples: Vec<String>,
}

/// The features of all entities: the mean over an entity's readable images; without one it is absent.
///
/// Up to `batch` images of one or more entities are encoded together, on each of `threads` threads.
pub fn encode(
    images: &ImageSet,
    encoder: &ImageEncoder,
    entities: usize,
    batch: usize,
    threads: usize,
    modality: &Modality,
) -> Result<(FeatureTable, Counts)> {
    let mut table = FeatureTable::absent(entities, encoder.width());
    let mut counts = Counts::default();
    let progress = Progress::new(modality.as_str(), images.count() as u64, "images");
    let batches = images.batches(batch.max(1));
    let work = |group: &&[(usize, Vec<String>)]| encode_group(&images.root, group, encoder, batch.max(1));
    in_order(&batches, threads, work, |_, group| {
        progress.advance((group.counts.read + group.counts.unreadable) as u64);
        group.rows.iter().for_each(|(entity, row)| table.set(*entity, row));
        counts.add(group.counts);
        Ok(())
    })?;
    Ok((table, counts))
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.read += other.read;
        self.unreadable += other.unreadable;
        let room = MAX_NAMED - self.examples.len();
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

/// The features of some entities.
struct Group {
    rows: Vec<(usize, Vec<f32>)>,
    counts: Counts,
}

fn encode_group(
    root: &Path,
    group: &[(usize, Vec<String>)],
    encoder: &ImageEncoder,
    batch: usize,
) -> Result<Group> {
    let mut counts = Counts::default();
    let paths: Vec<(usize, &String)> =
        group.iter().flat_map(|(entity, paths)| paths.iter().map(|path| (*entity, path))).collect();
    let mut vectors: Vec<(usize, Vec<f32>)> = Vec::new();
    for paths in paths.chunks(batch) {
        let (mut owners, mut pixels) = (Vec::new(), Vec::new());
        for (entity, path) in paths {
            match read_image(&root.join(path), encoder.image_size()) {
                Ok(image) => {
                    owners.push(*entity);
                    pixels.extend(image);
                }
                Err(reason) => {
                    counts.add(Counts {
                        unreadable: 1,
                        examples: vec![format!("{path}: {reason}")],
                        read: 0,
                    });
                }
            }
        }
        counts.read += owners.len();
        if !owners.is_empty() {
            let rows = encoder.encode(pixels)?;
            vectors.extend(owners.into_iter().zip(rows.chunks_exact(encoder.width()).map(<[f32]>::to_vec)));
        }
    }
    Ok(Group { rows: means(vectors), counts })
}

/// The mean of each run of vectors with the same owner.
fn means(vectors: Vec<(usize, Vec<f32>)>) -> Vec<(usize, Vec<f32>)> {
    let mean = |run: &[(usize, Vec<f32>)]| {
        let mut sum = run[0].1.clone();
        for (_, vector) in &run[1..] {
            sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
        }
        sum.iter_mut().for_each(|x| *x /= run.len() as f32);
        (run[0].0, sum)
    };
    vectors.chunk_by(|a, b| a.0 == b.0).map(mean).collect()
}

/// The image at `path` as `(channel, row, column)` in -1 to 1, resized to `size` x `size`; or why it cannot be read.
pub fn read_image(path: &Path, size: usize) -> Result<Vec<f32>, String> {
    let decode = || -> image::ImageResult<Vec<f32>> {
        let mut reader = ImageReader::open(path)?.with_guessed_format()?;
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        limits.max_alloc = Some(MAX_DECODED);
        reader.limits(limits);
        let image = resize(&reader.decode()?.into_rgb8(), size as u32, size as u32, FilterType::Triangle);
        let channel = |c: usize| image.pixels().map(move |pixel| (f32::from(pixel[c]) / 255.0 - 0.5) / 0.5);
        Ok((0..3).flat_map(channel).collect())
    };
    // Decoders meet whatever the web holds: a panic in one is one unreadable file.
    match std::panic::catch_unwind(decode) {
        Ok(pixels) => pixels.map_err(|e| e.to_string()),
        Err(_) => Err("the decoder panicked".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use image::{Rgb, RgbImage};

    fn entities(images: &[&[&str]]) -> Vec<Entity> {
        let entity = |paths: &&[&str]| Entity {
            images: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Entity::default()
        };
        images.iter().map(entity).collect()
    }

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let plain = |name: &str, colour| {
            RgbImage::from_pixel(90, 60, Rgb(colour)).save(dir.path().join(name)).unwrap();
        };
        plain("red.png", [255, 0, 0]);
        plain("blue.png", [0, 0, 255]);
        plain("green.jpg", [0, 255, 0]);
        std::fs::write(dir.path().join("junk.png"), "no image").unwrap();
        let whole = std::fs::read(dir.path().join("red.png")).unwrap();
        std::fs::write(dir.path().join("half.png"), &whole[..whole.len() / 2]).unwrap();
        dir
    }

    fn run(dir: &Path, images: &[&[&str]], batch: usize, threads: usize) -> (FeatureTable, Counts) {
        let set = ImageSet::new(dir.to_owned(), &entities(images)).unwrap();
        let encoder = ImageEncoder::random(1, &Device::Cpu).unwrap();
        encode(&set, &encoder, images.len(), batch, threads, &"visual".parse().unwrap()).unwrap()
    }

    const IMAGES: [&[&str]; 5] =
        [&["red.png"], &[], &["red.png", "blue.png", "junk.png"], &["half.png", "gone.png"], &["blue.png"]];

    #[test]
    fn features_are_the_mean_over_readable_images() {
        let dir = folder();
        let (table, counts) = run(dir.path(), &IMAGES, 32, 1);
        assert_eq!(table.present, [true, false, true, false, true]);
        assert_eq!((counts.read, counts.unreadable), (4, 3));
        let named: Vec<&str> = counts.examples.iter().filter_map(|text| text.split(':').next()).collect();
        assert_eq!(named, ["junk.png", "half.png", "gone.png"]);
        let mean = table.row(0).iter().zip(table.row(4)).map(|(a, b)| (a + b) / 2.0);
        assert!(mean.zip(table.row(2)).all(|(a, b)| (a - b).abs() < 1e-5));
        table.check().unwrap();
    }

    #[test]
    fn threads_do_not_change_a_bit_and_batches_hardly() {
        let dir = folder();
        let (table, counts) = run(dir.path(), &IMAGES, 2, 1);
        assert_eq!((table.clone(), counts.clone()), run(dir.path(), &IMAGES, 2, 3));
        let (other, same_counts) = run(dir.path(), &IMAGES, 1, 2);
        assert!(table.values.iter().zip(&other.values).all(|(a, b)| (a - b).abs() < 1e-5));
        assert_eq!((table.present, counts), (other.present, same_counts));
    }

    #[test]
    fn pixels_are_normalised_channel_by_channel() {
        let dir = folder();
        let pixels = read_image(&dir.path().join("red.png"), 4).unwrap();
        assert_eq!(pixels.len(), 48);
        assert!(pixels[..16].iter().all(|x| *x == 1.0) && pixels[16..].iter().all(|x| *x == -1.0));
        assert!(read_image(&dir.path().join("green.jpg"), 4).unwrap()[16..32].iter().all(|x| *x > 0.95));
    }

    #[test]
    fn an_image_that_would_fill_the_memory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bomb.png");
        RgbImage::new(2, 2).save(&path).unwrap();
        // The size in the header, which the check sum no longer fits; 60,000 x 60,000.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        std::fs::write(&path, bytes).unwrap();
        assert!(read_image(&path, 4).is_err());
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for path in ["../x.png", "/etc/passwd", "a/../../x.png"] {
            let error = ImageSet::new("images".into(), &entities(&[&[], &["a.png", path]])).unwrap_err();
            let message = format!("row 1: image path `{path}` leaves the image folder");
            assert_eq!((error.kind(), error.to_string()), (stage::Kind::Data, message));
        }
        assert!(ImageSet::new("images".into(), &entities(&[&["./a/b.png"]])).is_ok());
    }

    #[test]
    fn an_entity_is_never_split() {
        let set = ImageSet::new("".into(), &entities(&[&["a"; 3], &["a"; 5], &["a"], &["a"]])).unwrap();
        let sizes = |batch| set.batches(batch).iter().map(|group| group.len()).collect::<Vec<_>>();
        assert_eq!((sizes(4), sizes(1), sizes(100)), (vec![2, 2], vec![1, 1, 1, 1], vec![4]));
    }
}
