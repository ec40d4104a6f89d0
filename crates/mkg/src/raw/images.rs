//! Image folders: one image or one sub-folder per entity.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stage::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::DirEntry;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::keys::KeyMap;
use super::names::{last_segment, unlike};
use crate::Entity;

/// Endings of files that the encoders can decode.
const EXTENSIONS: [&str; 5] = ["gif", "jpeg", "jpg", "png", "webp"];

/// One image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Relative to the image folder, with `/` between its parts.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The content of an image folder beside the images of entities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReport {
    /// Sub-folders and images whose name belongs to no entity, or may mean several.
    pub unknown: usize,
    /// Files and folders that are not read, by the ending of their name.
    pub skipped: BTreeMap<String, usize>,
    /// Everything odd about the folder, in words.
    pub notes: Vec<String>,
}

/// The image files of every entity, sorted.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) files: Vec<Vec<ImageFile>>,
    pub(super) report: ImageReport,
}

/// Lists the images in `root`. A sub-folder, or a single image, is named like the entity's key, like the key with its
/// slashes as dots (`m.027rn` for `/m/027rn`), or like what follows the key's last slash.
///
/// # Errors
/// If a folder cannot be read, or a link leads out of `root`. A link that leads nowhere is counted.
pub(super) fn read_images(root: &Path, keys: &KeyMap, entities: &[Entity]) -> Result<Images> {
    let mut folder = Folder::open(root)?;
    let holders = holders(keys);
    let mut images = Images { files: vec![Vec::new(); keys.len()], report: ImageReport::default() };
    for path in folder.entries(root)? {
        let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let name = name.map(OsStr::to_string_lossy).unwrap_or_default();
        match holders.get(&*name).map_or(&[][..], Vec::as_slice) {
            _ if !path.is_dir() && !is_image(&path) => folder.skip(&path),
            [id] => images.files[*id].extend(folder.images(&path)?),
            [] => folder.meet(&path, &holders),
            [one, other, ..] => {
                let (one, other) = (&keys.keys()[*one], &keys.keys()[*other]);
                folder.shared.push(format!("`{}` may be of `{one}` or `{other}`", folder.shown(&path)));
            }
        }
    }
    let found = images.files.iter().any(|files| !files.is_empty());
    images.report = folder.report(keys, entities, found);
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

/// The image folder, of which nothing outside is read, and what was passed over in it.
#[derive(Default)]
struct Folder {
    root: PathBuf,
    real: PathBuf,
    /// Sub-folders and images that are named like no entity.
    unknown: Vec<String>,
    /// One of them that holds folders of entities.
    outer: Option<String>,
    /// Sentences about those that may be several entities'.
    shared: Vec<String>,
    /// Files and folders that are not read, by the ending of their name, and the first of them.
    skipped: BTreeMap<String, usize>,
    first_skipped: Option<String>,
    /// Links that lead nowhere.
    broken: Vec<String>,
    /// Sub-folders without a file that is read.
    empty: Vec<String>,
}

impl Folder {
    fn open(root: &Path) -> Result<Folder> {
        let real = root.canonicalize().map_err(|e| Error::io(root, e))?;
        Ok(Folder { root: root.to_owned(), real, ..Folder::default() })
    }

    /// The entries of a folder, sorted by name, without links that lead nowhere.
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

    /// Returns whether an entry is no link, or one that leads to something; a dataset from elsewhere must not make us read
    /// files that it does not hold.
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

    /// The images of one entity: those in its sub-folder, or the one that lies there by itself.
    fn images(&mut self, path: &Path) -> Result<Vec<ImageFile>> {
        let inside = if path.is_dir() { self.entries(path)? } else { vec![path.to_owned()] };
        let (images, others): (Vec<_>, Vec<_>) = inside.into_iter().partition(|path| is_image(path));
        others.iter().for_each(|other| self.skip(other));
        if images.is_empty() {
            self.empty.push(self.shown(path));
        }
        images.iter().map(|image| self.image_file(image)).collect()
    }

    fn image_file(&self, path: &Path) -> Result<ImageFile> {
        let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        let parts = path.strip_prefix(&self.root).unwrap_or(path).iter().map(OsStr::to_string_lossy);
        Ok(ImageFile { path: parts.collect::<Vec<_>>().join("/"), bytes })
    }

    /// Notes what is no entity's, and whether it holds folders that are.
    fn meet(&mut self, path: &Path, holders: &HashMap<String, Vec<usize>>) {
        let inside = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut names = inside.map(|entry| entry.file_name().to_string_lossy().into_owned());
        if self.outer.is_none() && names.any(|name| holders.contains_key(&name)) {
            self.outer = Some(self.shown(path));
        }
        self.unknown.push(self.shown(path));
    }

    fn skip(&mut self, path: &Path) {
        *self.skipped.entry(ending(path)).or_default() += 1;
        let shown = self.shown(path);
        self.first_skipped.get_or_insert(shown);
    }

    /// A path in the image folder, as messages show it: a folder ends with a slash.
    fn shown(&self, path: &Path) -> String {
        let end = if path.is_dir() { "/" } else { "" };
        format!("{}{end}", path.strip_prefix(&self.root).unwrap_or(path).display())
    }

    fn report(self, keys: &KeyMap, entities: &[Entity], found: bool) -> ImageReport {
        let notes = self.notes(keys, entities, found);
        ImageReport { unknown: self.unknown.len() + self.shared.len(), skipped: self.skipped, notes }
    }

    fn notes(&self, keys: &KeyMap, entities: &[Entity], found: bool) -> Vec<String> {
        let key = entities.first().map_or("", |entity| entity.key.as_str());
        let layout =
            format!("images lie in a folder named like the entity's key, as `{key}/`, or are named like it");
        let mut notes = Vec::new();
        let mut note = |examples: &[String], say: &dyn Fn(usize, &str) -> String| {
            notes.extend(examples.first().map(|first| say(examples.len(), first)));
        };
        note(&self.unknown, &|count, first| {
            let why = stranger(first, keys, entities);
            format!(
                "{count} images or their folders are named like no entity, such as `{first}`: {why}; {layout}"
            )
        });
        note(self.outer.as_slice(), &|_, outer| {
            format!("`{outer}` holds what is named like entities: is it what `import.images` should name?")
        });
        note(&self.shared, &|count, first| {
            format!("{count} images or their folders may be of several entities: {first}; none is read")
        });
        note(&self.broken, &|count, first| format!("{count} links lead nowhere, such as `{first}`"));
        note(self.skipped_note().as_slice(), &|_, said| said.to_owned());
        note(&self.empty, &|count, first| {
            format!("{count} image folders have no image that is read, such as `{first}`")
        });
        if !found && notes.is_empty() {
            notes.push(format!("the image folder is empty; {layout}"));
        }
        notes
    }

    fn skipped_note(&self) -> Option<String> {
        let first = self.first_skipped.as_ref()?;
        let mut counts: Vec<(&String, &usize)> = self.skipped.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let counts: Vec<String> =
            counts.iter().take(8).map(|(ending, count)| format!("{count} {ending}")).collect();
        let (all, counts, read) =
            (self.skipped.values().sum::<usize>(), counts.join(", "), EXTENSIONS.join(", "));
        Some(format!(
            "{all} files are skipped for their ending ({counts}), such as `{first}`: images end in {read}"
        ))
    }
}

/// A guess, for messages, why folders or files of such a name belong to no entity.
fn stranger(shown: &str, keys: &KeyMap, entities: &[Entity]) -> String {
    let name = match shown.strip_suffix('/') {
        Some(folder) => folder,
        None => shown.rsplit_once('.').map_or(shown, |(stem, _)| stem),
    };
    if let Some(entity) = entities.iter().find(|entity| entity.name.as_deref() == Some(name)) {
        return format!("it is the name of `{}`", entity.key);
    }
    match name.parse::<usize>() {
        Ok(id) if id < keys.len() => format!("as an id it would be that of `{}`", keys.keys()[id]),
        _ => format!("of the keys {}", unlike(name, keys.iter())),
    }
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    path.to_str().is_some()
        && path.is_file()
        && extension.is_some_and(|e| EXTENSIONS.contains(&e.to_ascii_lowercase().as_str()))
}

/// `.tif`, or what a name without an ending, or of a folder, is.
fn ending(path: &Path) -> String {
    match path.extension() {
        _ if path.is_dir() => "folders".to_owned(),
        _ if path.to_str().is_none() => "not in UTF-8".to_owned(),
        Some(ending) => format!(".{}", ending.to_string_lossy().to_ascii_lowercase()),
        None => "without an ending".to_owned(),
    }
}

/// A folder of a raw dataset that may hold its images under another name than `images`, or an archive that does.
pub(super) fn elsewhere(root: &Path) -> Option<String> {
    let names = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let holds_images = |folder: &PathBuf| {
        let inside = names(folder);
        let deeper = inside.iter().filter(|path| path.is_dir()).take(3).flat_map(|path| names(path));
        inside.iter().take(20).cloned().chain(deeper).any(|path| is_image(&path))
    };
    let all = names(root);
    let shown = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(folder) = all.iter().find(|path| path.is_dir() && holds_images(path)) {
        return Some(format!("`{}/` holds images, but is not read: set `import.images`", shown(folder)));
    }
    let is_archive = |path: &&PathBuf| {
        let name = shown(path).to_lowercase();
        let packed = [".zip", ".tar", ".gz", ".tgz"].iter().any(|ending| name.ends_with(ending));
        packed && ["image", "img", "picture", "photo"].iter().any(|word| name.contains(word))
    };
    all.iter()
        .find(is_archive)
        .map(|archive| format!("`{}` is not read: unpack it, into `images/`", shown(archive)))
}

#[cfg(test)]
mod tests {
    use super::super::keys::tests::of_keys;
    use super::*;
    use crate::fixture::folder;

    fn read(dir: &tempfile::TempDir) -> Result<Images> {
        let entity = |key: &String| Entity { key: key.clone(), ..Entity::default() };
        let entities: Vec<Entity> = keys().keys().iter().map(entity).collect();
        read_images(&dir.path().join("images"), &keys(), &entities)
    }

    fn keys() -> KeyMap {
        of_keys(&["/m/0_jm", "n02738741", "http://w/entity/Q42", "a/../b"])
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
            "readme.txt",
        ]);
        let images = read(&dir).unwrap();
        let paths: Vec<Vec<&str>> =
            images.files.iter().map(|files| files.iter().map(|file| file.path.as_str()).collect()).collect();
        let none: Vec<&str> = Vec::new();
        let expected = [
            vec!["m.0_jm/a.PNG", "m.0_jm/b.jpg"],
            vec!["n02738741/x.JPEG"],
            vec!["Q42/1.webp", "Q42.webp"],
            none,
        ];
        assert_eq!(paths, expected);
        assert_eq!(images.files[0][0].bytes, 3);
        assert_eq!(images.report.unknown, 1);
        assert_eq!(images.report.skipped, BTreeMap::from([(".txt".to_owned(), 2)]));
        let starts = [
            "1 images or their folders are named like no entity, such as `Q43/`",
            "2 files are skipped for their ending (2 .txt), such as `m.0_jm/notes.txt`",
        ];
        assert!(images.report.notes.iter().zip(starts).all(|(note, start)| note.starts_with(start)));
    }

    #[test]
    fn a_layout_that_is_not_read_is_told_with_an_example() {
        let says = |files: &[&str], part: &str| {
            let dir = written(files);
            let notes = read(&dir).unwrap().report.notes.join("\n");
            assert!(notes.contains(part), "{part}: {notes}");
        };
        says(&["2.png"], "such as `2.png`: as an id it would be that of `http://w/entity/Q42`");
        says(&["N02738741/1.png"], "there is `n02738741`");
        says(&["Q42/photo.tif", "Q42/photo.jpg_large"], "1 .jpg_large, 1 .tif");
        says(&["Q42/all/1.png"], "1 folders");
    }

    #[test]
    fn a_folder_that_may_be_of_several_entities_is_of_none() {
        let dir = written(&["a/1.png"]);
        let keys = of_keys(&["http://x/a", "http://y/a"]);
        let images = read_images(&dir.path().join("images"), &keys, &[]).unwrap();
        assert!(images.files.iter().all(Vec::is_empty));
        let note = "1 images or their folders may be of several entities: `a/` may be of `http://x/a` or `http://y/a`";
        assert!(images.report.notes.iter().any(|said| said.starts_with(note)), "{:?}", images.report.notes);
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
        let images = read(&dir).unwrap();
        assert_eq!(images.files[2][0].path, "Q42/x.png");
        assert_eq!(images.files[1].len(), 1);
        assert!(images.report.notes.iter().any(|note| note.starts_with("4 links lead nowhere, such as")));
        std::fs::write(dir.path().join("secret.png"), "s").unwrap();
        symlink("../../secret.png", root.join("m.0_jm/z.png")).unwrap();
        let error = read(&dir).unwrap_err();
        assert!(
            error.to_string().ends_with("m.0_jm/z.png: a link that leads out of the image folder"),
            "{error}"
        );
    }
}
