use super::*;
use image::Rgb;

fn read_as(json: &str, usual: Preparation) -> Result<Preparation> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    std::fs::write(&path, json).unwrap();
    Preparation::read(&path, usual)
}

fn read(json: &str, size: u32) -> Result<Preparation> {
    read_as(json, Preparation::vit(size))
}

fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(255 * x / width.max(2)) as u8, y as u8, 7]))
}

#[test]
fn a_published_configuration_reads_as_the_defaults() {
    let published = r#"{"do_normalize": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5], "size": 224}"#;
    assert_eq!(read(published, 224).unwrap(), Preparation::vit(224));
    let newer = r#"{"do_convert_rgb": null, "do_rescale": true, "rescale_factor": 0.00392156862745098,
        "resample": 2, "image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}}"#;
    assert_eq!(read(newer, 224).unwrap(), Preparation::vit(224));
    assert_eq!(read("{}", 48).unwrap(), Preparation::vit(48));
}

#[test]
fn pixels_are_normalised_channel_by_channel() {
    let image = RgbImage::from_pixel(90, 60, Rgb([255, 0, 51]));
    let pixels = Preparation::vit(4).pixels(&image);
    assert_eq!(pixels.len(), 48);
    assert!(pixels[..16].iter().all(|x| *x == 1.0) && pixels[16..32].iter().all(|x| *x == -1.0));
    let json = r#"{"image_mean": [0.5, 0.5, 0.1], "image_std": [0.5, 0.5, 0.2]}"#;
    assert!(read(json, 4).unwrap().pixels(&image)[32..].iter().all(|x| (x - 0.5).abs() < 1e-6));
    assert_eq!(read(r#"{"do_normalize": false}"#, 4).unwrap().pixels(&image)[0], 1.0);
    assert_eq!(read(r#"{"do_normalize": false, "do_rescale": false}"#, 4).unwrap().pixels(&image)[0], 255.0);
    // An image of the right size stays as it is.
    let image = gradient(8, 8);
    let bytes = (0..3).flat_map(|channel| image.pixels().map(move |pixel| pixel[channel]));
    let pixels = Preparation::vit(8).pixels(&image);
    assert!(
        pixels.iter().zip(bytes).all(|(x, byte)| (x - (f32::from(byte) / 255.0 - 0.5) / 0.5).abs() < 1e-6)
    );
}

#[test]
fn the_centre_is_cropped() {
    let json = r#"{"size": {"shortest_edge": 10}, "do_center_crop": true, "crop_size": 4, "resample": 3,
        "do_normalize": false, "do_rescale": false}"#;
    let preparation = read(json, 4).unwrap();
    let pixels = preparation.pixels(&gradient(20, 10));
    // Columns 8 to 11 of 20; 255 / 20 levels per column.
    assert_eq!(&pixels[..4], &[102.0, 114.0, 127.0, 140.0]);
    assert_eq!((pixels[16], pixels[20]), (3.0, 4.0));
    let deit = r#"{"size": 256, "do_center_crop": true, "crop_size": {"height": 224, "width": 224}}"#;
    assert_eq!(read(deit, 224).unwrap().size(), [224, 224]);
}

#[test]
fn what_a_file_leaves_out_is_as_the_architectures_own_processor_does() {
    // OpenAI's file, in which `size` is the length of the shorter side.
    let published = r#"{"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224}"#;
    assert_eq!(read_as(published, Preparation::clip(224)).unwrap(), Preparation::clip(224));
    let published = r#"{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_convert_rgb": true,
        "image_mean": [0.485, 0.456, 0.406], "image_processor_type": "BitImageProcessor",
        "image_std": [0.229, 0.224, 0.225], "resample": 3, "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 256}}"#;
    assert_eq!(read(published, 224).unwrap(), Preparation::dinov2());
    assert_eq!(read_as("{}", Preparation::dinov2()).unwrap(), Preparation::dinov2());
    let nested = format!(r#"{{"image_processor": {published}, "processor_class": "CLIPProcessor"}}"#);
    assert_eq!(read(&nested, 224).unwrap(), Preparation::dinov2());
    let uncropped = r#"{"do_center_crop": false, "size": {"height": 9, "width": 9}}"#;
    let uncropped = read_as(uncropped, Preparation::clip(8)).unwrap();
    assert_eq!((uncropped.crop, uncropped.size()), (None, [9, 9]));
}

#[test]
fn strips_and_single_pixels_are_prepared() {
    let json = r#"{"size": {"shortest_edge": 6}, "do_center_crop": true, "crop_size": 6}"#;
    for preparation in [Preparation::vit(6), read(json, 6).unwrap()] {
        for (width, height) in [(1, 1), (20_000, 1), (1, 20_000), (3, 50), (0, 0)] {
            assert_eq!(preparation.pixels(&gradient(width, height)).len(), 108, "{width} x {height}");
        }
    }
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let refused = [
        (r#"{"do_resize": false}"#, "`do_resize` is false"),
        (r#"{"size": {"shortest_edge": 224}}"#, "without a centre crop"),
        (r#"{"size": 200, "do_center_crop": true}"#, "larger than the image"),
        (r#"{"resample": 9}"#, "`resample` is 9"),
        (r#"{"image_mean": [0.5, 0.5]}"#, "`image_mean` has 2 numbers"),
        (r#"{"image_std": [0.5, 0, 0.5]}"#, "`image_std` has 0"),
        (r#"{"size": "large"}"#, "line 1"),
        (r#"{"size": {"shortest_edge": 224, "longest_edge": 300}}"#, "line 1"),
        ("junk", "line 1"),
    ];
    for (json, reason) in refused {
        let error = read(json, 224).unwrap_err();
        assert_eq!(error.kind(), stage::Kind::Data);
        assert!(error.to_string().contains(reason) && error.to_string().contains(FILE), "{error}");
    }
}
