//! NumPy's `.npz`: a zip archive of `.npy` files, compressed or not.

use stage::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;

use super::npy::Npy;
use super::tensors::Tensors;

/// Enough of a member to hold any header that NumPy writes for an array of numbers.
const HEADER: u64 = 4096;

/// An archive whose members' headers have been read.
pub(super) struct Npz {
    archive: ZipArchive<BufReader<File>>,
    list: Vec<(String, Vec<usize>)>,
}

impl Npz {
    pub(super) fn open(path: &Path) -> Result<Npz> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
        let mut list = Vec::new();
        for i in 0..archive.len() {
            let member = archive.by_index(i).map_err(broken)?;
            let Some(name) =
                String::from_utf8_lossy(member.name_raw()).strip_suffix(".npy").map(str::to_owned)
            else {
                continue;
            };
            let mut start = Vec::new();
            member.take(HEADER).read_to_end(&mut start).map_err(broken)?;
            let shape = Npy::shape_of(&start).map_err(|e| in_member(e, &name))?;
            list.push((name, shape));
        }
        list.sort();
        Ok(Npz { archive, list })
    }
}

impl Tensors for Npz {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        self.list.clone()
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let shape = self.list.iter().find(|(other, _)| other == name).map(|(_, shape)| shape.as_slice());
        let count =
            shape.unwrap_or_default().iter().fold(1u64, |product, axis| product.saturating_mul(*axis as u64));
        let member = self.archive.by_name(&format!("{name}.npy")).map_err(broken)?;
        let mut bytes = Vec::new();
        // Not more than its shape needs, which is what memory was asked for, and one byte that then is too many.
        let most = count.saturating_mul(8).saturating_add(HEADER + 1);
        member.take(most).read_to_end(&mut bytes).map_err(broken)?;
        Npy::parse(&bytes).and_then(|array| array.values()).map_err(|e| in_member(e, name))
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::data("not a whole .npz file").because(error)
}

fn in_member(error: Error, name: &str) -> Error {
    Error::data(format!("`{name}`: {error}")).hint(error.hint_text().unwrap_or("save it with np.savez"))
}
