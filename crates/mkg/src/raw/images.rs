//! Image folders: one image or one sub-folder per entity.

use serde::{Deserialize, Serialize};
use stage::{Error, Result};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use super::keys::KeyMap;
use super::names::last_segment;

/// What the encoders can decode.
const EXTENSIONS: [&str; 5] = ["gif", "jpeg", "jpg", "png", "webp"];

/// One image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Relative to the image folder, with `/` between its parts.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What an image folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReport {
    /// Sub-folders and images whose name belongs to no entity.
    pub unknown: usize,
    /// Files that are no images.
    pub skipped_files: usize,
}

/// The image files of every entity, sorted.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) files: Vec<Vec<ImageFile>>,
    pub(super) report: ImageReport,
}

/// Lists the images in `root`. A sub-folder, or a single image, is named like the entity's key, like the key with its
/// slashes as dots (`m.027rn` for `/m/027rn`), or like what follows the key's last slash.
pub(super) fn read_images(root: &Path, keys: &KeyMap) -> Result<Images> {
    let folder = Folder { real: root.canonicalize().map_err(|e| Error::io(root, e))? };
    let holders = holders(keys);
    let mut images = Images { files: vec![Vec::new(); keys.len()], report: ImageReport::default() };
    for path in folder.entries(root)? {
        let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let Some(ids) = name.and_then(OsStr::to_str).and_then(|name| holders.get(name)) else {
            let count = if path.is_dir() || is_image(&path) {
                &mut images.report.unknown
            } else {
                &mut images.report.skipped_files
            };
            *count += 1;
            continue;
        };
        let inside = if path.is_dir() { folder.entries(&path)? } else { vec![path] };
        let (files, others): (Vec<_>, Vec<_>) = inside.into_iter().partition(|path| is_image(path));
        images.report.skipped_files += others.len();
        let files = files.iter().map(|path| image_file(root, path)).collect::<Result<Vec<_>>>()?;
        ids.iter().for_each(|id| images.files[*id].extend(files.iter().cloned()));
    }
    Ok(images)
}

/// The entities that a folder's name may belong to; an exact name goes before a derived one.
fn holders(keys: &KeyMap) -> HashMap<String, Vec<usize>> {
    let spellings: [fn(&str) -> String; 3] = [
        str::to_owned,
        |key| key.trim_start_matches('/').replace('/', "."),
        |key| last_segment(key).to_owned(),
    ];
    let mut all: HashMap<String, Vec<usize>> = HashMap::new();
    for spelling in spellings {
        let mut names: HashMap<String, Vec<usize>> = HashMap::new();
        for (id, key) in keys.keys().iter().enumerate() {
            names.entry(spelling(key)).or_default().push(id);
        }
        names.into_iter().for_each(|(name, ids)| {
            all.entry(name).or_insert(ids);
        });
    }
    all
}

/// The image folder; nothing outside it is read.
struct Folder {
    real: PathBuf,
}

impl Folder {
    /// What lies in a folder, sorted by name.
    fn entries(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
        let mut sorted = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io(folder, e))?;
            self.refuse_foreign(&entry)?;
            sorted.push(entry.path());
        }
        sorted.sort();
        Ok(sorted)
    }

    /// A dataset from elsewhere must not make us read files it does not hold.
    fn refuse_foreign(&self, entry: &DirEntry) -> Result<()> {
        let path = entry.path();
        if !entry.file_type().map_err(|e| Error::io(&path, e))?.is_symlink() {
            return Ok(());
        }
        let target = path.canonicalize().map_err(|e| Error::io(&path, e))?;
        if target.starts_with(&self.real) {
            return Ok(());
        }
        let error = Error::data("a link that leads out of the image folder").at(path);
        Err(error.hint("copy the images, or name the folder they lie in"))
    }
}

fn image_file(root: &Path, path: &Path) -> Result<ImageFile> {
    let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    let parts = path.strip_prefix(root).unwrap_or(path).iter().map(OsStr::to_string_lossy);
    Ok(ImageFile { path: parts.collect::<Vec<_>>().join("/"), bytes })
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    path.to_str().is_some()
        && path.is_file()
        && extension.is_some_and(|e| EXTENSIONS.contains(&e.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> KeyMap {
        let mut keys = KeyMap::default();
        for key in ["/m/0_jm", "n02738741", "http://w/entity/Q42", "a/../b"] {
            keys.push(key).unwrap();
        }
        keys
    }

    fn written(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join("images").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "abc").unwrap();
        }
        dir
    }

    #[test]
    fn folders_and_images_find_their_entities_and_files_are_sorted() {
        let dir = written(&[
            "m.0_jm/b.jpg",
            "m.0_jm/a.PNG",
            "m.0_jm/notes.txt",
            "n02738741/x.JPEG",
            "Q42/1.webp",
            "Q43/1.png",
            "Q44.png",
            "a....b.gif",
            "readme.txt",
        ]);
        let images = read_images(&dir.path().join("images"), &keys()).unwrap();
        let paths: Vec<Vec<&str>> =
            images.files.iter().map(|files| files.iter().map(|file| file.path.as_str()).collect()).collect();
        let single = vec!["a....b.gif"];
        assert_eq!(
            paths,
            [vec!["m.0_jm/a.PNG", "m.0_jm/b.jpg"], vec!["n02738741/x.JPEG"], vec!["Q42/1.webp"], single]
        );
        assert_eq!(images.files[0][0].bytes, 3);
        assert_eq!(images.report, ImageReport { unknown: 2, skipped_files: 2 });
    }

    #[test]
    fn a_missing_folder_is_missing() {
        let error = read_images(Path::new("not/there"), &keys()).unwrap_err();
        assert_eq!(error.kind(), stage::Kind::Missing);
    }

    #[cfg(unix)]
    #[test]
    fn links_may_stay_inside_but_not_lead_out() {
        use std::os::unix::fs::symlink;
        let dir = written(&["n02738741/x.png", "m.0_jm/y.png"]);
        let root = dir.path().join("images");
        symlink(root.join("n02738741"), root.join("Q42")).unwrap();
        assert_eq!(read_images(&root, &keys()).unwrap().files[2][0].path, "Q42/x.png");
        std::fs::write(dir.path().join("secret.png"), "s").unwrap();
        symlink("../../secret.png", root.join("m.0_jm/z.png")).unwrap();
        let error = read_images(&root, &keys()).unwrap_err();
        assert!(
            error.to_string().ends_with("m.0_jm/z.png: a link that leads out of the image folder"),
            "{error}"
        );
    }
}
