use super::*;
use crate::batch::{EncodedFeatures, Job};
use candle_core::Device;
use image::Rgb;

fn set(root: &Path, images: &[&[&str]]) -> Result<ImageSet> {
    let entities = images.iter().map(|paths| {
        let images = paths.iter().map(|path| (*path).to_owned()).collect();
        Entity { images, ..Entity::default() }
    });
    ImageSet::new(root.to_owned(), &entities.collect::<Vec<_>>())
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

fn run(dir: &Path, images: &[&[&str]], batch: usize, strict: bool) -> Result<EncodedFeatures> {
    let images = set(dir, images)?;
    let encoder = ImageEncoder::random(1, &Device::Cpu)?;
    let work = ImageWork::new(&images, encoder, batch, strict)?;
    let (modality, kept) = ("visual".parse()?, tempfile::tempdir().unwrap());
    let job = Job { modality: &modality, threads: 2, shard: None, folder: kept.path() };
    job.run(&work, images.paths.len())
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
        assert_eq!((&summary["images_read"], &summary["images_unreadable"]), (&4.into(), &3.into()));
        let named: Vec<&str> =
            summary["unreadable"].as_array().unwrap().iter().flat_map(|x| x.as_str()).collect();
        assert!(named.is_sorted() && named[0] == "gone.png: no such file", "{named:?}");
        let mean = table.row(0).iter().zip(table.row(4)).map(|(a, b)| (a + b) / 2.0);
        assert!(mean.zip(table.row(2)).all(|(a, b)| (a - b).abs() < 1e-5));
        table.check().unwrap();
    }
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
}

#[test]
fn entities_with_nothing_but_the_same_image_are_counted() {
    let dir = folder();
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
fn an_unreadable_image_is_an_error_where_that_is_asked_for() {
    let dir = folder();
    let error = run(dir.path(), &IMAGES, 32, true).unwrap_err();
    assert!(error.to_string().ends_with("junk.png: unreadable image: not an image"), "{error}");
    assert_eq!(error.kind(), stage::Kind::Data);
    run(dir.path(), &IMAGES[..2], 32, true).unwrap();
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    for path in ["../x.png", "/etc/passwd", "a/../../x.png"] {
        let error = set("images".as_ref(), &[&[], &["a.png", path]]).unwrap_err();
        let message = format!("row 1: image path `{path}` leaves the image folder");
        assert_eq!((error.kind(), error.to_string()), (stage::Kind::Data, message));
    }
    assert!(set("images".as_ref(), &[&["./a/b.png"]]).is_ok());
}

#[test]
fn an_entity_is_never_split() {
    let set = set("".as_ref(), &[&["a"; 3], &[], &["a"; 5], &["a"], &["a"]]).unwrap();
    let sizes = |batch| set.batches(batch).iter().map(|batch| batch.entities.len()).collect::<Vec<_>>();
    assert_eq!((sizes(4), sizes(1), sizes(100)), (vec![2, 2], vec![1, 1, 1, 1], vec![4]));
    let numbers: Vec<usize> = set.batches(1).iter().map(|batch| batch.number).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
}
