//! Stage 2: images and descriptions of entities become feature vectors.
//!
//! Every modality of the recipe's `[features]` becomes one [`FeatureTable`] with a row per entity, from one of three
//! sources: [texts](text) through a text encoder, [images] ([decoded](decode) from files) through an image encoder, or
//! given rows. An entity without a text or an image keeps a row of zeros and is marked absent: later stages see missing
//! data as such, never as noise that they cannot tell from a feature.
//!
//! Encoders run in `f32` and never train, so several batches run side by side, each on one thread (see [`batch`]), or
//! one after the other on a device. Only the data decide the content of a batch: the bytes are the same on any number
//! of threads.

pub mod batch;
pub mod checkpoint;
pub mod command;
pub mod decode;
pub mod given;
pub mod images;
pub mod preparation;
pub mod source;
pub mod table;
pub mod text;
pub mod tokens;
pub mod unseen;
mod weights;
mod work;

pub use table::FeatureTable;
pub use work::require_section;

use stage::{Error, Kind, Result};

/// The candle device that encoders compute on, also for the CPU. Errors are those of [`device::choose`].
pub fn encoder_device(asked: program::Device) -> Result<device::Device> {
    Ok(device::choose(asked)?.unwrap_or(device::Device::Cpu))
}

/// The error for a failure inside the tensor library; `doing` says what the program was doing.
fn tensor_error(doing: &str) -> impl Fn(candle_core::Error) -> Error + '_ {
    move |error| Error::new(Kind::Unexpected, format!("{doing} failed")).because(plain(error))
}

/// The same failure without the stack that candle records if `RUST_BACKTRACE` is set.
fn plain(error: candle_core::Error) -> candle_core::Error {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => plain(*inner),
        other => other,
    }
}
