//! NumPy's `.npz`: a zip archive of `.npy` files, compressed or not.

use stage::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;

use super::npy::{Header, Npy};
use super::tensors::{Labels, Tensors};

/// Enough of a member to hold any header that NumPy writes for an array of numbers.
const HEADER: u64 = 4096;

/// An archive whose members' headers have been read.
pub(super) struct Npz {
    archive: ZipArchive<BufReader<File>>,
    list: Vec<(String, Header)>,
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
            let header = Header::of(&start).map_err(|e| in_member(e, &name))?;
            list.push((name, header));
        }
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Npz { archive, list })
    }
}

impl Npz {
    /// The bytes of a member: not more than its header needs, which is what memory was asked for, and one byte that then is
    /// too many.
    fn bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        let header = self.list.iter().find(|(other, _)| other == name).map(|(_, header)| header);
        let each = header.map_or(0, |header| header.size().max(8) as u64);
        let axes = header.map_or(&[][..], |header| header.shape.as_slice());
        let size = axes.iter().fold(each, |product, axis| product.saturating_mul(*axis as u64));
        let member = self.archive.by_name(&format!("{name}.npy")).map_err(broken)?;
        let mut bytes = Vec::new();
        member.take(size.saturating_add(HEADER + 1)).read_to_end(&mut bytes).map_err(broken)?;
        Ok(bytes)
    }
}

impl Tensors for Npz {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        self.list.iter().map(|(name, header)| (name.clone(), header.shape.clone())).collect()
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let bytes = self.bytes(name)?;
        Npy::parse(&bytes).and_then(|array| array.values()).map_err(|e| in_member(e, name))
    }

    fn labels(&mut self, count: usize) -> Result<Vec<(String, Labels)>> {
        let named = self.list.iter().filter(|(_, header)| header.may_label(count));
        let named: Vec<(String, bool)> =
            named.map(|(name, header)| (name.clone(), header.is_of_objects())).collect();
        let mut labels = Vec::new();
        for (name, objects) in named {
            let read = match objects {
                true => Labels::Unread("Python's objects"),
                false => Npy::parse(&self.bytes(&name)?).map_err(|e| in_member(e, &name))?.labels(),
            };
            labels.push((name, read));
        }
        Ok(labels)
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::data("not a whole .npz file").because(error)
}

fn in_member(error: Error, name: &str) -> Error {
    Error::data(format!("`{name}`: {error}")).hint(error.hint_text().unwrap_or("save it with np.savez"))
}
