//! The kinds of files in the module's table; these tests make some, Pillow made the others.

use super::*;
use image::{Frame, Rgb, Rgba, RgbaImage, codecs};
use std::path::Path;

const RED: [u8; 3] = [220, 30, 20];
const BLUE: [u8; 3] = [10, 20, 230];

/// Two halves, red on the left and blue on the right, so that a turned image shows.
fn picture() -> RgbImage {
    RgbImage::from_fn(32, 16, |x, _| Rgb(if x < 16 { RED } else { BLUE }))
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png() -> Vec<u8> {
    encoded(picture(), ImageFormat::Png)
}

fn jpeg() -> Vec<u8> {
    encoded(picture(), ImageFormat::Jpeg)
}

fn animated_gif() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = codecs::gif::GifEncoder::new(&mut bytes);
    let frames = [RED, BLUE].map(|[r, g, b]| Frame::new(RgbaImage::from_pixel(32, 16, Rgba([r, g, b, 255]))));
    encoder.encode_frames(frames).unwrap();
    drop(encoder);
    bytes
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = [name.as_slice(), &(data.len() as u32).to_le_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

/// An animation of two frames, each the picture data of a still WebP file.
fn animated_webp() -> Vec<u8> {
    let frame = |colour: [u8; 3]| {
        let still = encoded(RgbImage::from_pixel(32, 16, Rgb(colour)), ImageFormat::WebP);
        // Left, top, width - 1, height - 1, duration: 3 bytes each; then flags.
        let place = [0, 0, 0, 0, 0, 0, 31, 0, 0, 15, 0, 0, 100, 0, 0, 0];
        chunk(b"ANMF", &[&place, &still[12..]].concat())
    };
    let canvas = chunk(b"VP8X", &[0b10, 0, 0, 0, 31, 0, 0, 15, 0, 0]);
    let body = [b"WEBP".to_vec(), canvas, chunk(b"ANIM", &[0; 6]), frame(RED), frame(BLUE)].concat();
    chunk(b"RIFF", &body)
}

/// The picture in Adobe's inverted CMYK, as photo agencies ship it.
fn cmyk() -> Vec<u8> {
    let pixels: Vec<u8> =
        picture().pixels().flat_map(|Rgb([r, g, b])| [255 - r, 255 - g, 255 - b, 0]).collect();
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 95);
    encoder.encode(&pixels, 32, 16, jpeg_encoder::ColorType::CmykAsYcck).unwrap();
    bytes
}

/// A PNG whose header states this size, with a matching check sum.
fn png_of(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png();
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc(&bytes[12..29]).to_be_bytes();
    bytes[29..33].copy_from_slice(&sum);
    bytes
}

fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    }) ^ u32::MAX
}

fn half(bytes: Vec<u8>) -> Vec<u8> {
    bytes[..bytes.len() / 2].to_vec()
}

fn edited(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 0x55;
    bytes
}

enum Gets {
    /// The picture, with at most this difference for each colour.
    Picture(u8),
    /// Only the picture's left half, everywhere.
    Red,
    Refused(&'static str),
}
use Gets::{Picture, Red, Refused};

const DECODER: Gets = Refused("");

/// The kinds of files by content: the row of the module's table, the content, and the expected result.
fn contents() -> Vec<(&'static str, Vec<u8>, Gets)> {
    let page = b"<!DOCTYPE html><html><body>404 Not Found</body></html>".to_vec();
    let deep = DynamicImage::from(picture()).to_rgb16();
    vec![
        ("JPEG, PNG, WebP, GIF", jpeg(), Picture(60)),
        ("JPEG, PNG, WebP, GIF", png(), Picture(0)),
        ("JPEG, PNG, WebP, GIF", encoded(picture(), ImageFormat::WebP), Picture(0)),
        ("JPEG, PNG, WebP, GIF", encoded(picture(), ImageFormat::Gif), Picture(0)),
        ("greyscale, palette, alpha, 16-bit PNG", encoded(deep, ImageFormat::Png), Picture(1)),
        ("CMYK and YCCK JPEG", cmyk(), Picture(60)),
        ("animated GIF, animated WebP", animated_gif(), Red),
        ("animated GIF, animated WebP", animated_webp(), Red),
        ("bytes after the end", [jpeg(), page.clone()].concat(), Picture(60)),
        ("bytes after the end", [png(), page.clone()].concat(), Picture(0)),
        ("empty", Vec::new(), Refused("an empty file")),
        ("not an image", b"no image".to_vec(), Refused("not an image")),
        ("web page", page, Refused("not an image")),
        ("format not supported (BMP, TIFF, ...)", b"BM\x46\0\0\0\0\0".to_vec(), Refused("is not supported")),
        ("header only", b"\x89PNG\r\n\x1a\n".to_vec(), DECODER),
        ("header only", b"GIF89a".to_vec(), DECODER),
        ("truncated PNG, WebP, GIF", half(png()), DECODER),
        ("truncated PNG, WebP, GIF", half(encoded(picture(), ImageFormat::WebP)), DECODER),
        ("truncated PNG, WebP, GIF", half(encoded(picture(), ImageFormat::Gif)), DECODER),
        ("truncated JPEG", half(jpeg()), Refused("ends before the image does")),
        ("truncated JPEG", jpeg()[..jpeg().len() - 2].to_vec(), Refused("ends before the image does")),
        ("wrong check sum", edited(png(), 29), DECODER),
        ("zero-sized", png_of(0, 16), DECODER),
        ("absurd dimensions", png_of(60_000, 60_000), Refused("pixels, at most")),
        ("absurd dimensions", png_of(1, 30_000), Refused("pixels, at most")),
        ("decompression bomb", bomb(), Refused("pixels, at most")),
    ]
}

/// 144 million white pixels in 40 kilobytes.
fn bomb() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 12_000, 12_000);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder.write_header().unwrap().write_image_data(&vec![0xff; 1500 * 12_000]).unwrap();
    assert!(bytes.len() < 50_000, "{}", bytes.len());
    bytes
}

fn check(kind: &str, found: Result<RgbImage, String>, gets: &Gets) {
    let documented = include_str!("../decode.rs");
    assert!(documented.contains(&format!("//! | {kind} | ")), "the module's table lacks `{kind}`");
    let (wanted, within) = match gets {
        Picture(within) => ([RED, BLUE], *within),
        Red => ([RED, RED], 4),
        Refused(words) => {
            let reason = found.expect_err(kind);
            assert!(!reason.is_empty() && reason.contains(words), "{kind}: {reason}");
            let row = format!("//! | {kind} | `{words}` |");
            return assert!(words.is_empty() || documented.contains(&row), "{kind}");
        }
    };
    let image = found.unwrap_or_else(|reason| panic!("{kind}: {reason}"));
    assert_eq!(image.dimensions(), (32, 16));
    // One pixel of each half.
    let halves = [image.get_pixel(4, 8).0, image.get_pixel(28, 8).0];
    let far = halves.as_flattened().iter().zip(wanted.as_flattened()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(far <= Some(within), "{kind}: {halves:?}");
}

#[test]
fn every_kind_of_content_gets_what_the_table_says_and_no_beginning_is_a_whole_image() {
    for (kind, bytes, gets) in contents() {
        check(kind, decode(&bytes), &gets);
    }
    for bytes in [jpeg(), png(), encoded(picture(), ImageFormat::WebP), cmyk()] {
        for length in (0..bytes.len() - 12).step_by(7) {
            assert!(decode(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
    }
}

fn folder() -> (tempfile::TempDir, ImageFolder) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("images");
    std::fs::create_dir_all(root.join("a")).unwrap();
    for name in ["images/a/1.png", "images/a/2.jpg", "secret.png"] {
        std::fs::write(dir.path().join(name), png()).unwrap();
    }
    let folder = ImageFolder::open(&root).unwrap();
    (dir, folder)
}

#[cfg(unix)]
#[test]
fn files_that_are_absent_or_no_files_are_refused() {
    use std::os::unix::fs::symlink;
    let (dir, folder) = folder();
    let root = dir.path().join("images");
    std::fs::create_dir(root.join("a/folder.jpg")).unwrap();
    File::create(root.join("huge.png")).unwrap().set_len(MAX_FILE + 1).unwrap();
    let secret = dir.path().join("secret.png");
    for (target, name) in [
        (Path::new("a/1.png"), "inside.png"),
        (&secret, "outside.png"),
        (Path::new("/nowhere"), "dangling.png"),
        (Path::new("b.png"), "a.png"),
        (Path::new("a.png"), "b.png"),
    ] {
        symlink(target, root.join(name)).unwrap();
    }
    let made = std::process::Command::new("mkfifo").arg(root.join("pipe.png")).status().unwrap();
    assert!(made.success());
    for (kind, path, gets) in [
        ("wrong extension", "a/2.jpg", Picture(0)),
        ("absent", "a/9.png", Refused("no such file")),
        ("directory named .jpg", "a/folder.jpg", Refused("not a file")),
        ("huge file", "huge.png", Refused("bytes, at most")),
        ("link within the folder", "inside.png", Picture(0)),
        ("dangling link", "dangling.png", Refused("no such file")),
        ("link out of the folder", "outside.png", Refused("leads out of the image folder")),
        ("link out of the folder", "../secret.png", Refused("leads out of the image folder")),
        ("pipe", "pipe.png", Refused("not a file")),
        ("loop of links", "a.png", Refused("a loop of links")),
    ] {
        check(kind, folder.read(path).unwrap().and_then(|bytes| decode(&bytes)), &gets);
    }
}

/// A file whose beginning cannot be read: the process's own memory.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_cannot_be_read_is_an_error_with_its_path() {
    let error = ImageFolder::open(Path::new("/proc/self")).unwrap().read("mem").unwrap_err();
    assert_eq!(error.kind(), stage::Kind::Io);
    assert!(error.to_string().starts_with("/proc/self/mem: "), "{error}");
}

fn from_hex(digits: &serde_json::Value) -> Vec<u8> {
    let digits = digits.as_str().unwrap().as_bytes().as_chunks::<2>().0;
    digits.iter().map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The colours in the file that `tests/slow/pillow.py` wrote.
#[test]
fn colours_are_converted_as_pillow_does() {
    let golden = include_str!("../../../../tests/golden/pillow.json");
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    let images = golden["images"].as_array().unwrap();
    assert_eq!(images.len(), 14);
    for golden in images {
        let name = golden["name"].as_str().unwrap();
        let image = decode(&from_hex(&golden["file"])).unwrap_or_else(|reason| panic!("{name}: {reason}"));
        let theirs = from_hex(&golden["rgb"]);
        let far = image.as_raw().iter().zip(theirs).map(|(a, b)| a.abs_diff(b)).max().unwrap();
        assert!(far <= if name.contains("JPEG") { 2 } else { 0 }, "{name}: {far}");
    }
}
