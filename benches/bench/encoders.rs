//! Timing an encoder on prepared batches, without tokenising or decoding.

use candle_core::{Device, Tensor};
use clap::Args;
use dsom_features::batch::as_done;
use dsom_features::checkpoint::Checkpoint;
use dsom_features::encoder_device;
use dsom_features::images::ImageEncoder;
use dsom_features::text::TextEncoder;
use program::print_line;
use recipe::{ImageOutput, TextOutput};
use serde_json::{Value, json};
use stage::{Error, Result};
use std::path::PathBuf;
use std::time::Instant;

/// The encoder and the inputs that are timed.
#[derive(Args, Debug)]
pub(crate) struct Encoding {
    /// The checkpoint's folder
    checkpoint: PathBuf,
    /// A safetensors file with `pixels`, or with `ids` and `lengths`
    inputs: PathBuf,
    /// Images or texts per batch
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Batches at the same time
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Device to compute on, named as in dsom-features
    #[arg(long, default_value = "cpu")]
    device: program::Device,
    /// Rounds over all inputs
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Encodes the inputs repeatedly; reports the seconds of each round and the sum of the first row.
pub(crate) fn run(encoding: &Encoding) -> Result<Value> {
    let damaged = |error: candle_core::Error| {
        Error::data("not what an encoder takes").at(&encoding.inputs).because(error)
    };
    let inputs = candle_core::safetensors::load(&encoding.inputs, &Device::Cpu).map_err(damaged)?;
    match inputs.get("pixels") {
        Some(pixels) => {
            images(encoding, &pixels.flatten_from(1).and_then(|rows| rows.to_vec2()).map_err(damaged)?)
        }
        None => texts(encoding, &texts_of(&inputs["ids"], &inputs["lengths"]).map_err(damaged)?),
    }
}

fn images(encoding: &Encoding, images: &[Vec<f32>]) -> Result<Value> {
    let checkpoint = Checkpoint::open(&encoding.checkpoint, &[])?;
    let encoder = ImageEncoder::load(&checkpoint, ImageOutput::Cls, &encoder_device(encoding.device)?)?;
    time(encoding, images, |batch| encoder.encode(&batch.concat()))
}

fn texts(encoding: &Encoding, texts: &[Vec<u32>]) -> Result<Value> {
    let checkpoint = Checkpoint::open(&encoding.checkpoint, &[])?;
    let encoder = TextEncoder::load(&checkpoint, TextOutput::Mean, &encoder_device(encoding.device)?)?;
    time(encoding, texts, |batch| encoder.encode(&batch.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

fn texts_of(ids: &Tensor, lengths: &Tensor) -> candle_core::Result<Vec<Vec<u32>>> {
    let texts = ids.to_vec2::<i64>()?.into_iter().zip(lengths.to_vec1::<i64>()?);
    Ok(texts.map(|(ids, length)| ids[..length as usize].iter().map(|id| *id as u32).collect()).collect())
}

fn time<I: Sync>(
    encoding: &Encoding,
    inputs: &[I],
    encode: impl Fn(&[I]) -> Result<Vec<f32>> + Sync,
) -> Result<Value> {
    let batches: Vec<&[I]> = inputs.chunks(encoding.batch.max(1)).collect();
    // This call warms up pages and caches.
    encode(&inputs[..1])?;
    print_line(&json!({ "ready": true, "cached": 0 }).to_string())?;
    let (mut seconds, mut sum) = (Vec::new(), 0.0);
    for _ in 0..encoding.rounds {
        let started = Instant::now();
        as_done(
            &batches,
            encoding.threads,
            |batch| encode(batch),
            |batch, rows| {
                if batch.as_ptr() == inputs.as_ptr() {
                    sum = rows[..rows.len() / batch.len()].iter().map(|x| x.abs()).sum();
                }
                Ok(())
            },
        )?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(json!({ "seconds": seconds, "count": inputs.len(), "sum": sum }))
}
