//! Image files become upright RGB images, whatever kind of file the web delivers.
//!
//! Colours are converted as Pillow's `convert("RGB")` does, which published encoders rely on: grey is repeated, alpha
//! is dropped (no background is put under it), a palette is looked up, CMYK is multiplied out, a colour profile is
//! ignored. Only the first frame of an animation counts. Two things differ from Pillow: the upper 8 of 16 bits are
//! kept, where Pillow takes values above 255 as white; and an image is turned upright as its EXIF orientation says.
//!
//! A file that cannot be decoded gets a reason. It never causes a panic or an allocation beyond the limits:
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
/// The largest number of pixels of an image that is decoded.
const MAX_PIXELS: u64 = 1 << 26;
/// The system's number for a loop of links (`ELOOP`), which has no [`std::io::ErrorKind`] yet.
const LOOP: i32 = if cfg!(target_os = "linux") { 40 } else { 62 };
/// The formats that are decoded; the workspace builds `image` with them.
const FORMATS: [ImageFormat; 4] = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif];

/// The folder of a dataset's images; nothing outside it is read.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    pub(crate) path: PathBuf,
    real: PathBuf,
}

impl ImageFolder {
    /// Opens the folder `path`; a path that cannot be resolved is an error.
    pub fn open(path: &Path) -> Result<ImageFolder> {
        let real = path.canonicalize().map_err(|e| Error::io(path, e))?;
        Ok(ImageFolder { path: path.to_owned(), real })
    }

    /// Reads the file at `relative`; the inner error says why it is not an image of this folder. If reading fails, the
    /// content stays unknown: the outer error is of the kind [`Io`](stage::Kind::Io).
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
        // The type is checked before opening: opening a pipe waits until another program writes to it.
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

/// Decodes the image in `bytes`, turned by its EXIF orientation; the error is the reason why it cannot be decoded.
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
    // A panic in a decoder makes only this file unreadable.
    stage::caught(|| decode_as(format, bytes)).unwrap_or_else(|| Err("the decoder panicked".to_owned()))
}

fn decode_as(format: ImageFormat, bytes: &[u8]) -> Result<RgbImage, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // Only memory is limited, to 8 bytes per pixel. The sides are compared here, where the message can name both.
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

/// Returns whether a JPEG file has its end marker. Decoders fill missing parts with grey and report nothing.
///
/// Segments are skipped by their lengths (a thumbnail in a segment has an end marker of its own). In the coded data
/// after a start of scan, an `ff` that does not begin a marker is followed by 0.
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
            // Neither a marker nor coded data: the decoder decides.
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests;
