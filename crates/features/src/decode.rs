//! Image files become upright RGB images, whatever the web has put into them.
//!
//! Colours are converted as Pillow's `convert("RGB")` does, on which the published encoders' preparation rests: grey is
//! repeated, alpha is dropped (nothing is laid under it), a palette is looked up, CMYK is multiplied out, a colour
//! profile is ignored. Of an animation the first frame counts. Two things are unlike there: of 16 bits the upper 8 are
//! kept, where Pillow takes what is above 255 for white; and an image is turned upright as its EXIF orientation says.
//!
//! A file that cannot be decoded gets a reason, never a panic and never an allocation that the limits do not bound:
//!
//! | file | gets |
//! |---|---|
//! | JPEG, PNG, WebP, GIF | decoded |
//! | greyscale, palette, alpha, 16-bit PNG | decoded as above |
//! | CMYK and YCCK JPEG | decoded as above |
//! | EXIF orientation | turned upright |
//! | animated GIF, animated WebP | first frame |
//! | wrong extension | decoded by its content |
//! | bytes after the end | decoded, they are ignored |
//! | link within the folder | decoded |
//! | empty | `an empty file` |
//! | not an image | `not an image` |
//! | web page | `not an image` |
//! | format not supported (BMP, TIFF, ...) | `is not supported` |
//! | header only | an error of the decoder |
//! | truncated PNG, WebP, GIF | an error of the decoder |
//! | truncated JPEG | `ends before the image does` |
//! | wrong check sum | an error of the decoder |
//! | zero-sized | an error of the decoder |
//! | absurd dimensions | `pixels, at most` |
//! | decompression bomb | `pixels, at most` |
//! | huge file | `bytes, at most` |
//! | absent | `no such file` |
//! | dangling link | `no such file` |
//! | link out of the folder | `leads out of the image folder` |
//! | directory named .jpg | `not a file` |
//! | pipe | `not a file` |
//! | loop of links | `a loop of links` |
//!
//! A file that cannot be read (no permission, a failing disk, too many open files) is an error, never an absent image.

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use stage::{Error, Result};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 256 << 20;
/// The largest height or width of an image that is decoded, in pixels.
const MAX_SIDE: u32 = 20_000;
/// The most pixels of an image that is decoded.
const MAX_PIXELS: u64 = 1 << 26;
/// The system's number for a loop of links (`ELOOP`), which has no [`std::io::ErrorKind`] yet.
const LOOP: i32 = if cfg!(target_os = "linux") { 40 } else { 62 };
/// The formats that are decoded; the workspace's `image` is built with these.
const FORMATS: [ImageFormat; 4] = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif];

/// The folder of a dataset's images; nothing outside it is read.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    pub(crate) path: PathBuf,
    real: PathBuf,
}

impl ImageFolder {
    /// The folder `path`; an error where it cannot be resolved.
    pub fn open(path: &Path) -> Result<ImageFolder> {
        let real = path.canonicalize().map_err(|e| Error::io(path, e))?;
        Ok(ImageFolder { path: path.to_owned(), real })
    }

    /// Reads the file at `relative`; the inner error says why it is not an image of this folder. Where reading fails, it is not
    /// known what the image would have been: an error of the kind [`Io`](stage::Kind::Io).
    pub fn read(&self, relative: &str) -> Result<Result<Vec<u8>, String>> {
        use std::io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
        let path = self.path.join(relative);
        match self.read_inside(&path) {
            Err(e) if matches!(e.kind(), NotFound | NotADirectory | InvalidFilename) => {
                Ok(Err("no such file".to_owned()))
            }
            Err(e) if e.raw_os_error() == Some(LOOP) => Ok(Err("a loop of links".to_owned())),
            read => read.map_err(|e| Error::io(path, e)),
        }
    }

    fn read_inside(&self, path: &Path) -> std::io::Result<Result<Vec<u8>, String>> {
        let real = path.canonicalize()?;
        if !real.starts_with(&self.real) {
            return Ok(Err("a link that leads out of the image folder".to_owned()));
        }
        // Asked before opening: opening a pipe waits for somebody to write to it.
        let metadata = std::fs::metadata(&real)?;
        if !metadata.is_file() {
            return Ok(Err("not a file".to_owned()));
        }
        if metadata.len() > MAX_FILE {
            return Ok(Err(format!("{} bytes, at most {MAX_FILE} are read", metadata.len())));
        }
        let mut bytes = Vec::new();
        File::open(&real)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(Ok(bytes))
    }
}

/// The image in `bytes`, turned by its EXIF orientation; or why it cannot be decoded.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    if bytes.is_empty() {
        return Err("an empty file".to_owned());
    }
    let format = image::guess_format(bytes).map_err(|_| "not an image".to_owned())?;
    if !FORMATS.contains(&format) {
        return Err(format!("the format {format:?} is not supported"));
    }
    if format == ImageFormat::Jpeg && !jpeg_ends(bytes) {
        return Err("a JPEG file that ends before the image does".to_owned());
    }
    // A panic in a decoder is one unreadable file.
    stage::caught(|| decode_as(format, bytes)).unwrap_or_else(|| Err("the decoder panicked".to_owned()))
}

fn decode_as(format: ImageFormat, bytes: &[u8]) -> Result<RgbImage, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // Only memory, 8 bytes for every pixel: the sides are compared here, where both are at hand for the message.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(8 * MAX_PIXELS);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(format!("{width} x {height} pixels"));
    }
    if pixels > MAX_PIXELS || width.max(height) > MAX_SIDE {
        let most = format!("at most {MAX_PIXELS} and {MAX_SIDE} along a side are decoded");
        return Err(format!("{width} x {height} pixels, {most}"));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Returns whether a JPEG file has the marker of its end. Decoders fill up what is missing with grey and say nothing.
///
/// Segments are skipped by their lengths (a thumbnail in one has an end of its own); in the coded data after a start
/// of scan, an `ff` that is not the first byte of a marker is followed by 0.
fn jpeg_ends(bytes: &[u8]) -> bool {
    const RESTARTS: std::ops::RangeInclusive<u8> = 0xd0..=0xd7;
    let mut rest = bytes.get(2..).unwrap_or_default();
    let mut scanning = false;
    while let [first, second, after @ ..] = rest {
        match (first, second) {
            (0xff, 0xd9) => return true,
            (0xff, 0xff) => rest = &rest[1..],
            (0xff, 0x00 | 0x01) => rest = after,
            (0xff, marker) if RESTARTS.contains(marker) => rest = after,
            (0xff, marker) => {
                let [high, low, ..] = after else { return false };
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                scanning |= *marker == 0xda;
                rest = after.get(length.max(2)..).unwrap_or_default();
            }
            _ if scanning => rest = &rest[1..],
            // Neither a marker nor coded data: the decoder shall judge.
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests;
