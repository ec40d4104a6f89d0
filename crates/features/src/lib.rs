//! Stage 2: images and descriptions of entities become feature vectors.
//!
//! Every modality of the recipe's `[features]` becomes one [`FeatureTable`], a row per entity, from one of three
//! sources: [texts](text) through a BERT-architecture encoder, [images] ([decoded](decode) from files) through a
//! ViT-architecture encoder, or given rows. An entity without a text or an image keeps a row of zeros and is marked absent:
//! missing data is a value that later stages see, never noise that they cannot tell from a feature.
//!
//! Encoders run in `f32` and never train, so several batches run side by side, each on one thread (see
//! [`batch`]), or one after the other on a device. The data alone decide what a batch holds: the same bytes
//! come out on any number of threads.

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

/// The device that encoders compute on: candle's, on the CPU as well. Errors are those of [`device::choose`].
pub fn encoder_device(asked: program::Device) -> Result<device::Device> {
    Ok(device::choose(asked)?.unwrap_or(device::Device::Cpu))
}

/// A failure inside the tensor library, with what we were doing.
fn tensor_error(doing: &str) -> impl Fn(candle_core::Error) -> Error + '_ {
    move |error| Error::new(Kind::Unexpected, format!("{doing} failed")).because(plain(error))
}

/// The same failure without the stack that candle notes where `RUST_BACKTRACE` is set.
fn plain(error: candle_core::Error) -> candle_core::Error {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => plain(*inner),
        other => other,
    }
}
