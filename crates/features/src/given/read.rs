//! The formats that given features are read from.

use stage::files::read_bytes;
use stage::{Error, Result};
use std::path::Path;

use super::npy::Npy;
use super::npz::Npz;
use super::safetensors::Safetensors;
use super::tensors::{Rows, Wanted, rows};
use super::torch::Torch;

/// What can be read, for messages.
const FORMATS: &str = ".npy, .npz, .safetensors, and .pth, .pt or .pkl as torch.save writes them";

/// Reads the rows in `path`; its extension says the format.
///
/// # Errors
/// [`stage::Kind::Usage`] for other formats, [`stage::Kind::Data`] where the file is damaged or gives no rows.
pub fn read(path: &Path, wanted: Wanted) -> Result<Rows> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let read =
        match extension.to_ascii_lowercase().as_str() {
            "npy" if wanted.tensor.is_some() => Err(Error::usage("a .npy file has one array without a name")
                .hint("leave out `tensor` in the recipe")),
            "npy" => whole(path).and_then(|bytes| rows(&mut Npy::parse(&bytes)?, wanted)),
            "safetensors" => whole(path).and_then(|bytes| rows(&mut Safetensors::parse(&bytes)?, wanted)),
            "npz" => Npz::open(path).and_then(|mut file| rows(&mut file, wanted)),
            "pth" | "pt" | "pkl" | "pickle" | "bin" => {
                Torch::open(path, wanted).and_then(|mut file| rows(&mut file, wanted))
            }
            "h5" | "hdf5" => {
                let hint = "in Python: numpy.save(\"features.npy\", h5py.File(path)[name][:])";
                Err(Error::usage(format!("HDF5 is not read; features come from {FORMATS}")).hint(hint))
            }
            _ => Err(Error::usage(format!("features are read from {FORMATS}"))),
        };
    read.map_err(|e| e.at(path))
}

fn whole(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    let knob = "use a machine with more memory, or features with fewer columns";
    stage::resources::require_memory(bytes, "reading the features", knob)?;
    read_bytes(path)
}
