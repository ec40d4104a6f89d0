use super::*;
use crate::batch::{EncodedFeatures, encode_all};
use image::Rgb;

fn entities(images: &[&[&str]]) -> Vec<Entity> {
    let entities = images.iter().map(|paths| {
        let images = paths.iter().map(|path| (*path).to_owned()).collect();
        Entity { images, ..Entity::default() }
    });
    entities.collect()
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, colour) in [("red.png", [255, 0, 0]), ("blue.png", [0, 0, 255]), ("green.jpg", [0, 255, 0])] {
        RgbImage::from_pixel(90, 60, Rgb(colour)).save(dir.path().join(name)).unwrap();
    }
    let whole = std::fs::read(dir.path().join("red.png")).unwrap();
    for (name, bytes) in [("junk.png", &b"no image"[..]), ("copy.png", &whole), ("half.png", &whole[..90])] {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn random() -> Result<ImageEncoder> {
    ImageEncoder::open(None, ImageOutput::Cls, 1, &Device::Cpu)
}

fn run(dir: &Path, images: &[&[&str]], batch: usize, strict: bool) -> Result<EncodedFeatures> {
    let (entities, kept) = (entities(images), tempfile::tempdir().unwrap());
    let (encoder, folder) = (random()?, ImageFolder::open(dir)?);
    let work = ImageWork { entities: &entities, folder, encoder, batch, strict };
    encode_all(&work, entities.len(), &"visual".parse()?, None, kept.path())
}

const IMAGES: [&[&str]; 5] =
    [&["red.png"], &[], &["red.png", "blue.png", "junk.png"], &["half.png", "gone.png"], &["blue.png"]];

#[test]
fn features_are_the_mean_over_readable_images_whatever_the_batches() {
    let dir = folder();
    for batch in [1, 2, 32] {
        let EncodedFeatures { table, report, .. } = run(dir.path(), &IMAGES, batch, false).unwrap();
        assert_eq!(table.present, [true, false, true, false, true]);
        let summary = report.summary();
        assert_eq!([&summary["images_read"], &summary["images_unreadable"]], [4, 3]);
        let named = summary["unreadable"].as_array().unwrap();
        assert!(named.is_sorted_by_key(|name| name.as_str()) && named[0] == "gone.png: no such file");
        let mean = table.row(0).iter().zip(table.row(4)).map(|(a, b)| (a + b) / 2.0);
        assert!(mean.zip(table.row(2)).all(|(a, b)| (a - b).abs() < 1e-5));
        table.check().unwrap();
    }
    let error = run(dir.path(), &IMAGES, 32, true).err().unwrap();
    assert!(error.to_string().ends_with("junk.png: unreadable image: not an image"), "{error}");
    assert_eq!(error.kind(), stage::Kind::Data);
    run(dir.path(), &IMAGES[..2], 32, true).unwrap();
}

#[test]
fn copies_are_counted_and_weigh_once_within_an_entity() {
    let dir = folder();
    let images: [&[&str]; 3] =
        [&["red.png", "copy.png", "blue.png"], &["copy.png"], &["red.png", "blue.png"]];
    let EncodedFeatures { table, report, .. } = run(dir.path(), &images, 32, false).unwrap();
    assert_eq!(table.row(0), table.row(2));
    let summary = report.summary();
    assert_eq!([&summary["images_duplicate"], &summary["images_duplicate_within_entity"]], [4, 1]);
    assert_eq!(summary["entities_with_shared_image_alone"], 0);
    let images: [&[&str]; 6] = [
        &["red.png", "copy.png"],
        &["copy.png"],
        &["red.png", "junk.png"],
        &["red.png", "blue.png"],
        &["blue.png"],
        &["green.jpg"],
    ];
    let report = run(dir.path(), &images, 2, false).unwrap().report;
    assert_eq!(report.summary()["entities_with_shared_image_alone"], 3);
}

#[test]
fn paths_that_leave_the_folder_are_refused_and_no_entity_is_split() {
    for path in ["../x.png", "/etc/passwd", "a/../../x.png"] {
        let error = require_inside(&entities(&[&[], &["a.png", path]])).unwrap_err();
        let message = format!("row 1: image path `{path}` leaves the image folder");
        assert_eq!((error.kind(), error.to_string()), (stage::Kind::Data, message));
    }
    assert!(require_inside(&entities(&[&["./a/b.png"]])).is_ok());
    let entities = entities(&[&["a"; 3], &[], &["a"; 5], &["a"], &["a"]]);
    let sizes = |size| batches(&entities, size).iter().map(|batch| batch.entities.len()).collect::<Vec<_>>();
    assert_eq!((sizes(4), sizes(1), sizes(100)), (vec![2, 2], vec![1, 1, 1, 1], vec![4]));
}

const RED: [f32; 3] = [0.8, -0.9, -0.6];
const WHITE: [f32; 3] = [1.0, 1.0, 1.0];
const BLUE: [f32; 3] = [-1.0, -0.4, 0.3];
const GREEN: [f32; 3] = [-1.0, 0.1, -0.5];
const YELLOW: [f32; 3] = [1.0, 0.7, -0.9];

/// Three bands, one below the other or side by side, with as many pixels as the random encoder takes.
fn bands(upright: bool, colours: [[f32; 3]; 3]) -> Vec<f32> {
    const SIZE: usize = 48;
    let pixels = (0..3 * SIZE * SIZE).map(|i| {
        let (channel, y, x) = (i / (SIZE * SIZE), i / SIZE % SIZE, i % SIZE);
        colours[if upright { x } else { y } * 3 / SIZE][channel]
    });
    pixels.collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn encode(images: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let encoder = random().unwrap();
    let rows = encoder.encode(&images.concat()).unwrap();
    rows.chunks(encoder.width).map(<[f32]>::to_vec).collect()
}

#[test]
fn flags_that_look_alike_are_near_each_other_whatever_the_batch() {
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
    let images = flags.each_ref().map(|(_, image)| image.clone());
    let mut rows = encode(&images);
    for (image, row) in images.iter().zip(&rows) {
        let single = &encode(std::slice::from_ref(image))[0];
        assert!(single.iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    let centre = mean(&rows.concat(), rows.len());
    for row in &mut rows {
        row.iter_mut().zip(&centre).for_each(|(x, mean)| *x -= mean);
    }
    let cosine = |i: usize, j: usize| {
        dot(&rows[i], &rows[j]) / (dot(&rows[i], &rows[i]) * dot(&rows[j], &rows[j])).sqrt()
    };
    let nearest = |i: usize| {
        let others = (0..flags.len()).filter(|j| *j != i);
        others.max_by(|a, b| cosine(i, *a).total_cmp(&cosine(i, *b))).map(|j| flags[j].0).unwrap()
    };
    assert_eq!([0, 1, 2, 3].map(nearest), ["italy", "france", "hungary", "netherlands"]);
    // The same colours in the other direction are another flag.
    assert!(cosine(0, 1) > 0.5 && cosine(0, 2) < 0.2, "{} {}", cosine(0, 1), cosine(0, 2));
}
