//! Image folders: one image or one subfolder per entity.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stage::{Error, Result};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::DirEntry;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::keys::{KeyMap, last_segment};
use crate::Entity;

/// Endings of files that the encoders can decode.
const EXTENSIONS: [&str; 5] = ["gif", "jpeg", "jpg", "png", "webp"];

/// One image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// The path relative to the image folder, with `/` between its parts.
    pub path: String,
    /// The file's size in bytes.
    pub bytes: u64,
}

/// The content of an image folder other than the images of entities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReport {
    /// Number of subfolders and images whose name fits no entity, or several.
    pub unknown: usize,
    /// Numbers of files and folders that are not read, by the ending of their name.
    pub skipped: BTreeMap<String, usize>,
    /// Everything odd about the folder, in words.
    pub notes: Vec<String>,
}

/// Lists the images in `root` by entity, sorted. The name of a subfolder or single image is the entity's key, the key
/// with dots for slashes (`m.027rn` for `/m/027rn`), or the part after the last slash of a URI or a path.
pub(super) fn read_images(
    root: &Path,
    keys: &KeyMap,
    entities: &[Entity],
) -> Result<(Vec<Vec<ImageFile>>, ImageReport)> {
    let mut folder = Folder::open(root)?;
    let holders = holders(keys);
    let mut images = vec![Vec::new(); keys.all.len()];
    for path in folder.entries(root)? {
        let is_folder = path.is_dir();
        let name = if is_folder { path.file_name() } else { path.file_stem() };
        let name = name.map(OsStr::to_string_lossy).unwrap_or_default();
        match holders.get(&*name).map_or(&[][..], Vec::as_slice) {
            _ if !is_folder && !is_image(&path) => folder.skipped.push(path),
            [id] => images[*id].extend(folder.images(&path)?),
            [] => folder.meet(&path, &holders),
            ids => folder.shared.push(format!("`{}` may be of {}", folder.shown(&path), keys.either(ids))),
        }
    }
    let found = images.iter().any(|files| !files.is_empty());
    let mut skipped: BTreeMap<String, usize> = BTreeMap::new();
    folder.skipped.iter().for_each(|path| *skipped.entry(ending(path)).or_default() += 1);
    let notes = folder.notes(keys, entities, &skipped, found);
    Ok((images, ImageReport { unknown: folder.unknown.len() + folder.shared.len(), skipped, notes }))
}

/// The entities that a folder's name may mean; an exact name goes before a derived one.
fn holders(keys: &KeyMap) -> HashMap<Cow<'_, str>, Vec<usize>> {
    let mut holders = keys.spelled(|_, key| key.into());
    let dotted = keys.spelled(|_, key| key.trim_start_matches('/').replace('/', ".").into());
    // `AC/DC` is a name and not a path.
    let is_path = |key: &str| key.starts_with('/') || key.contains("://");
    let last = keys.spelled(|_, key| if is_path(key) { last_segment(key) } else { key }.into());
    for (name, ids) in dotted.into_iter().chain(last) {
        holders.entry(name).or_insert(ids);
    }
    holders
}

/// The image folder and the entries that were skipped in it. Nothing outside the folder is read.
#[derive(Default)]
struct Folder {
    root: PathBuf,
    real: PathBuf,
    /// Subfolders and images whose name fits no entity.
    unknown: Vec<String>,
    /// An unknown subfolder that itself holds folders of entities.
    outer: Option<String>,
    /// Sentences about subfolders and images that fit several entities.
    shared: Vec<String>,
    /// Files and folders that are not read.
    skipped: Vec<PathBuf>,
    /// Broken links.
    broken: Vec<String>,
    /// Subfolders without a readable image.
    empty: Vec<String>,
}

impl Folder {
    fn open(root: &Path) -> Result<Folder> {
        let real = root.canonicalize().map_err(|e| Error::io(root, e))?;
        Ok(Folder { root: root.to_owned(), real, ..Folder::default() })
    }

    /// The entries of a folder, sorted, without broken links.
    fn entries(&mut self, folder: &Path) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
        let mut sorted = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io(folder, e))?;
            if self.leads_somewhere(&entry)? {
                sorted.push(entry.path());
            }
        }
        sorted.sort();
        Ok(sorted)
    }

    /// Tells whether an entry is not a broken link. Refuses a link out of the folder: a dataset from elsewhere must not
    /// make us read files that it does not hold.
    fn leads_somewhere(&mut self, entry: &DirEntry) -> Result<bool> {
        let path = entry.path();
        if !entry.file_type().map_err(|e| Error::io(&path, e))?.is_symlink() {
            return Ok(true);
        }
        match path.canonicalize() {
            Ok(target) if target.starts_with(&self.real) => Ok(true),
            Ok(_) => {
                let error = Error::data("a link that leads out of the image folder").at(path);
                Err(error.hint("copy the images, or name the folder they lie in"))
            }
            Err(e) if e.kind() == ErrorKind::NotFound || Errno::from_io_error(&e) == Some(Errno::LOOP) => {
                self.broken.push(self.shown(&path));
                Ok(false)
            }
            Err(e) => Err(Error::io(&path, e)),
        }
    }

    /// The images of one entity: the images in its subfolder, or its single image.
    fn images(&mut self, path: &Path) -> Result<Vec<ImageFile>> {
        let inside = if path.is_dir() { self.entries(path)? } else { vec![path.to_owned()] };
        let (images, others): (Vec<_>, Vec<_>) = inside.into_iter().partition(|path| is_image(path));
        self.skipped.extend(others);
        if images.is_empty() {
            self.empty.push(self.shown(path));
        }
        let images = images.iter().map(|path| {
            let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
            let parts = path.strip_prefix(&self.root).unwrap_or(path).iter().map(OsStr::to_string_lossy);
            Ok(ImageFile { path: parts.collect::<Vec<_>>().join("/"), bytes })
        });
        images.collect()
    }

    /// Records a folder or image that fits no entity, and whether it holds entries with names of entities.
    fn meet(&mut self, path: &Path, holders: &HashMap<Cow<str>, Vec<usize>>) {
        let shown = self.shown(path);
        if self.outer.is_none() && paths(path).iter().any(|inside| holders.contains_key(&*name(inside))) {
            self.outer = Some(shown.clone());
        }
        self.unknown.push(shown);
    }

    /// A path in the image folder for messages: a folder ends with a slash.
    fn shown(&self, path: &Path) -> String {
        let end = if path.is_dir() { "/" } else { "" };
        format!("{}{end}", path.strip_prefix(&self.root).unwrap_or(path).display())
    }

    fn notes(
        &self,
        keys: &KeyMap,
        entities: &[Entity],
        skipped: &BTreeMap<String, usize>,
        found: bool,
    ) -> Vec<String> {
        let key = entities.first().map_or("", |entity| entity.key.as_str());
        let layout =
            format!("images lie in a folder named like the entity's key, as `{key}/`, or are named like it");
        let notes = [
            told(&self.unknown, |count, first| {
                let why = stranger(first, keys, entities);
                format!(
                    "{count} images or their folders are named like no entity, such as `{first}`: {why}; {layout}"
                )
            }),
            self.outer.as_ref().map(|outer| {
                format!(
                    "`{outer}` holds what is named like entities: is it what `import.images` should name?"
                )
            }),
            told(&self.shared, |count, first| {
                format!("{count} images or their folders may be of several entities: {first}; none is read")
            }),
            told(&self.broken, |count, first| format!("{count} links lead nowhere, such as `{first}`")),
            self.skipped.first().map(|first| {
                let (all, counts, first) = (self.skipped.len(), most(skipped), self.shown(first));
                let read = EXTENSIONS.join(", ");
                format!(
                    "{all} files are skipped for their ending ({counts}), such as `{first}`: images end in {read}"
                )
            }),
            told(&self.empty, |count, first| {
                format!("{count} image folders have no image that is read, such as `{first}`")
            }),
        ];
        let mut notes: Vec<String> = notes.into_iter().flatten().collect();
        if !found && notes.is_empty() {
            notes.push(format!("the image folder is empty; {layout}"));
        }
        notes
    }
}

/// The most frequent endings with their counts: `12 .tif, 3 folders`.
fn most(skipped: &BTreeMap<String, usize>) -> String {
    let mut counts: Vec<_> = skipped.iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(**count));
    let counts = counts.iter().take(8).map(|(ending, count)| format!("{count} {ending}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// A sentence from the number of examples and the first example; `None` without examples.
fn told(examples: &[String], say: impl Fn(usize, &str) -> String) -> Option<String> {
    examples.first().map(|first| say(examples.len(), first))
}

/// A guess, for messages, why a folder or file of this name fits no entity.
fn stranger(shown: &str, keys: &KeyMap, entities: &[Entity]) -> String {
    let name = match shown.strip_suffix('/') {
        Some(folder) => folder,
        None => shown.rsplit_once('.').map_or(shown, |(stem, _)| stem),
    };
    if let Some(entity) = entities.iter().find(|entity| entity.name.as_deref() == Some(name)) {
        return format!("it is the name of `{}`", entity.key);
    }
    match name.parse::<usize>() {
        Ok(id) if id < keys.all.len() => format!("as an id it would be that of `{}`", keys.all[id]),
        _ => format!("of the keys {}", keys.unlike(name)),
    }
}

/// Tells whether a file has an image's ending. Files like `._x`, which macOS writes beside others, do not count.
fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    path.to_str().is_some()
        && !name(path).starts_with("._")
        && path.is_file()
        && extension.is_some_and(|e| EXTENSIONS.contains(&e.to_ascii_lowercase().as_str()))
}

/// The ending of a file's name, such as `.tif`; words for a folder, a name without an ending, or a name not in UTF-8.
fn ending(path: &Path) -> String {
    match path.extension() {
        _ if path.is_dir() => "folders".to_owned(),
        _ if path.to_str().is_none() => "not in UTF-8".to_owned(),
        Some(ending) => format!(".{}", ending.to_string_lossy().to_ascii_lowercase()),
        None => "without an ending".to_owned(),
    }
}

/// The paths in a folder, sorted; empty if the folder cannot be read.
fn paths(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The last part of a path.
pub(super) fn name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn holds_images(folder: &Path) -> bool {
    let inside = paths(folder);
    let deeper = inside.iter().filter(|path| path.is_dir()).take(3).flat_map(|path| paths(path));
    inside.iter().take(20).cloned().chain(deeper).any(|path| is_image(&path))
}

fn is_archive_of_images(path: &Path) -> bool {
    let name = name(path).to_lowercase();
    [".zip", ".tar", ".gz", ".tgz"].iter().any(|ending| name.ends_with(ending))
        && ["image", "img", "picture", "photo"].iter().any(|word| name.contains(word))
}

/// A note about a folder of images with another name than `images`, or about an archive of images.
pub(super) fn elsewhere(root: &Path) -> Option<String> {
    let all = paths(root);
    if let Some(folder) = all.iter().find(|path| path.is_dir() && holds_images(path)) {
        return Some(format!("`{}/` holds images, but is not read: set `import.images`", name(folder)));
    }
    let archive = all.iter().find(|path| is_archive_of_images(path))?;
    Some(format!("`{}` is not read: unpack it, into `images/`", name(archive)))
}

#[cfg(test)]
mod tests {
    use super::super::keys::tests::of_keys;
    use super::*;
    use crate::fixture::folder;

    fn read(dir: &tempfile::TempDir) -> Result<(Vec<Vec<String>>, ImageReport)> {
        let keys =
            of_keys(&["/m/0_jm", "n02738741", "http://w/entity/Q42", "http://y/entity/Q43", "http://z/Q43"]);
        let entities = keys.all.iter().map(|key| Entity { key: key.clone(), ..Entity::default() });
        let (images, report) = read_images(&dir.path().join("images"), &keys, &entities.collect::<Vec<_>>())?;
        let paths = images.into_iter().map(|files| files.into_iter().map(|file| file.path).collect());
        Ok((paths.collect(), report))
    }

    fn written(files: &[&str]) -> tempfile::TempDir {
        let names: Vec<String> = files.iter().map(|file| format!("images/{file}")).collect();
        folder(&names.iter().map(|name| (name.as_str(), "abc")).collect::<Vec<_>>())
    }

    #[test]
    fn folders_and_images_find_their_entities_and_files_are_sorted() {
        let dir = written(&[
            "m.0_jm/b.jpg",
            "m.0_jm/a.PNG",
            "m.0_jm/notes.txt",
            "n02738741/x.JPEG",
            "Q42.webp",
            "Q42/1.webp",
            "Q43/1.png",
            "Q44/1.png",
            "readme.txt",
        ]);
        let (images, report) = read(&dir).unwrap();
        let expected: [&[&str]; 5] =
            [&["m.0_jm/a.PNG", "m.0_jm/b.jpg"], &["n02738741/x.JPEG"], &["Q42/1.webp", "Q42.webp"], &[], &[]];
        assert_eq!(images, expected);
        assert_eq!(report.unknown, 2);
        assert_eq!(report.skipped, BTreeMap::from([(".txt".to_owned(), 2)]));
        let starts = [
            "1 images or their folders are named like no entity, such as `Q44/`",
            "1 images or their folders may be of several entities: `Q43/` may be of `http://y/entity/Q43` or `http://z/Q43`",
            "2 files are skipped for their ending (2 .txt), such as `m.0_jm/notes.txt`",
        ];
        assert_eq!(report.notes.len(), starts.len());
        assert!(
            report.notes.iter().zip(starts).all(|(note, start)| note.starts_with(start)),
            "{:?}",
            report.notes
        );
    }

    #[test]
    fn a_slash_separates_only_in_uris_and_paths() {
        let keys = of_keys(&["AC/DC", "/m/0_jm", "<http://w/Q42>"]);
        let holders = holders(&keys);
        let holder = |name| holders.get(name).map(Vec::as_slice);
        let (found, nobody) = (["AC.DC", "0_jm", "Q42"].map(holder), ["DC", "w"].map(holder));
        assert_eq!((found, nobody), ([Some(&[0][..]), Some(&[1]), Some(&[2])], [None, None]));
    }

    #[cfg(unix)]
    #[test]
    fn links_may_stay_inside_but_not_lead_out() {
        use std::os::unix::fs::symlink;
        let dir = written(&["n02738741/x.png", "m.0_jm/y.png"]);
        let root = dir.path().join("images");
        symlink(root.join("n02738741"), root.join("Q42")).unwrap();
        symlink("nowhere", root.join("n02738741/gone.png")).unwrap();
        symlink("loop.png", root.join("n02738741/loop.png")).unwrap();
        let (images, report) = read(&dir).unwrap();
        assert_eq!((images[1].len(), images[2][0].as_str()), (1, "Q42/x.png"));
        assert!(report.notes.iter().any(|note| note.starts_with("4 links lead nowhere, such as")));
        std::fs::write(dir.path().join("secret.png"), "s").unwrap();
        symlink("../../secret.png", root.join("m.0_jm/z.png")).unwrap();
        let error = read(&dir).unwrap_err().to_string();
        assert!(error.ends_with("m.0_jm/z.png: a link that leads out of the image folder"), "{error}");
    }
}
