use super::*;
use candle_core::Device;
use image::Rgb;
use mkg::graph::Entity;
use std::path::Path;

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
    std::fs::write(dir.path().join("copy.png"), &whole).unwrap();
    std::fs::write(dir.path().join("half.png"), &whole[..whole.len() / 2]).unwrap();
    dir
}

/// Changes the work before it runs.
type Change = fn(&mut ImageWork);

fn run(dir: &Path, images: &[&[&str]], change: Change) -> Result<(FeatureTable, Report)> {
    let images = ImageSet::new(dir.to_owned(), &entities(images)).unwrap();
    let encoder = ImageEncoder::random(1, &Device::Cpu).unwrap();
    let modality = "visual".parse().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut work = ImageWork {
        images: &images,
        encoder: &encoder,
        batch: 32,
        threads: 1,
        strict: false,
        modality: &modality,
        shard: Shard::WHOLE,
        journal: scratch.path().join("journal"),
    };
    change(&mut work);
    let entities = work.images.of_entities.iter().map(|(entity, _)| entity + 1).max().unwrap_or(0);
    work.run(entities)
}

const IMAGES: [&[&str]; 5] =
    [&["red.png"], &[], &["red.png", "blue.png", "junk.png"], &["half.png", "gone.png"], &["blue.png"]];

#[test]
fn features_are_the_mean_over_readable_images() {
    let dir = folder();
    let (table, report) = run(dir.path(), &IMAGES, |_| ()).unwrap();
    assert_eq!(table.present, [true, false, true, false, true]);
    assert_eq!((report.digests.len(), report.files()), (4, 7));
    let named: Vec<&str> = report.unreadable.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(named, ["gone.png", "half.png", "junk.png"]);
    let mean = table.row(0).iter().zip(table.row(4)).map(|(a, b)| (a + b) / 2.0);
    assert!(mean.zip(table.row(2)).all(|(a, b)| (a - b).abs() < 1e-5));
    table.check().unwrap();
}

#[test]
fn copies_are_counted_and_weigh_once_within_an_entity() {
    let dir = folder();
    let images: [&[&str]; 3] =
        [&["red.png", "copy.png", "blue.png"], &["copy.png"], &["red.png", "blue.png"]];
    let (table, report) = run(dir.path(), &images, |_| ()).unwrap();
    assert_eq!(table.row(0), table.row(2));
    assert_eq!((report.duplicates(), report.copies), (4, 1));
    assert_eq!(report.summary()["images_duplicate_within_entity"], 1);
}

#[test]
fn threads_do_not_change_a_bit_and_batches_hardly() {
    let dir = folder();
    let (table, report) = run(dir.path(), &IMAGES, |work| work.batch = 2).unwrap();
    let threads: Change = |work| (work.batch, work.threads) = (2, 3);
    assert_eq!((table.clone(), report.clone()), run(dir.path(), &IMAGES, threads).unwrap());
    let (other, same_report) = run(dir.path(), &IMAGES, |work| (work.batch, work.threads) = (1, 2)).unwrap();
    assert!(table.values.iter().zip(&other.values).all(|(a, b)| (a - b).abs() < 1e-5));
    assert_eq!((table.present, report), (other.present, same_report));
}

#[test]
fn an_unreadable_image_is_an_error_where_that_is_asked_for() {
    let dir = folder();
    let error = run(dir.path(), &IMAGES, |work| work.strict = true).unwrap_err();
    assert!(error.to_string().ends_with("junk.png: unreadable image: not an image"), "{error}");
    assert_eq!(error.kind(), stage::Kind::Data);
    run(dir.path(), &IMAGES[..2], |work| work.strict = true).unwrap();
}
