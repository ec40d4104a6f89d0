//! The files of a raw folder that import reads.

use recipe::{Import, Join, TextSource};
use stage::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::images::name;
use crate::Split;

/// The files of a dataset; all of them exist.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The raw folder, to which all paths are relative.
    pub root: PathBuf,
    /// The recipe's table, completed with the files that were found.
    pub import: Import,
}

const ENTITIES: &[&str] = &["entities.tsv", "entity2id.txt", "ent_id", "entity2id.tsv", "ent_id.txt"];
const RELATIONS: &[&str] = &["relations.tsv", "relation2id.txt", "rel_id", "relation2id.tsv", "rel_id.txt"];
/// The beginnings of the names of split files.
const SPLITS: [&str; 4] = ["train", "val", "dev", "test"];
const NAMES: &[&str] = &["entityid2name.txt", "entity2name.txt", "ent_name.txt", "entity2text.txt"];
const DESCRIPTIONS: &[&str] = &["entity2textlong.txt", "ent_dscp.txt"];
const RELATION_NAMES: &[&str] = &["relationid2name.txt", "relation2name.txt", "relation2text.txt"];

impl Plan {
    /// Finds every part of the dataset in `root`: the file that the recipe names, or else a file with a usual name.
    pub fn resolve(root: &Path, import: &Import) -> Result<Plan> {
        if !root.is_dir() {
            let error = Error::missing("no such folder").at(root);
            return Err(error.hint("give the dataset's folder with --raw"));
        }
        let mut import = import.clone();
        import.name.get_or_insert_with(|| folder_name(root));
        find_listing(root, &mut import.entities, ENTITIES, "entities")?;
        find_listing(root, &mut import.relations, RELATIONS, "relations")?;
        find_split(root, &mut import.train, Split::Train)?;
        find(root, &mut import.valid, &split_names(Split::Valid));
        find_split(root, &mut import.test, Split::Test)?;
        find_texts(root, &mut import.names, NAMES);
        find_texts(root, &mut import.descriptions, DESCRIPTIONS);
        find_texts(root, &mut import.relation_names, RELATION_NAMES);
        find_images(root, &mut import.images)?;
        let plan = Plan { root: root.to_owned(), import };
        match plan.files().iter().map(|file| plan.path(file)).find(|path| !path.is_file()) {
            Some(path) if path.symlink_metadata().is_ok() => {
                let error = Error::missing("not a file, or a link that leads to none").at(path);
                Err(error.hint("rename it, or name the file that is meant in the recipe's [import]"))
            }
            Some(absent) => Err(Error::missing("no such file").at(absent)),
            None => Ok(plan),
        }
    }

    /// The path of a file.
    pub fn path(&self, file: &Path) -> PathBuf {
        self.root.join(file)
    }

    /// All files that import reads except images, each once.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let Import { entities, relations, train, valid, test, .. } = &self.import;
        let Import { names, descriptions, captions, relation_names, .. } = &self.import;
        let sources = [names, descriptions, captions, relation_names].into_iter().flatten();
        let texts = sources.flat_map(|source| {
            [Some(&source.file), source.ids.as_ref(), source.via.as_ref(), source.vocabulary.as_ref()]
        });
        let parts = [entities, relations, train, valid, test].map(Option::as_ref);
        parts.into_iter().chain(texts).flatten().cloned().collect()
    }

    /// A note about files that are named like a split but not read.
    pub(super) fn left_out(&self) -> Result<Option<String>> {
        let (read, failed) = (self.files(), |e| Error::io(&self.root, e));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = name(&path).into_owned();
            let is_of_split = SPLITS.iter().any(|split| name.starts_with(split)) && path.is_file();
            names.extend((is_of_split && !read.contains(Path::new(&name))).then_some(name));
        }
        names.sort();
        let said = format!("not read: {}; to read one, name it in the recipe's [import]", names.join(", "));
        Ok((!names.is_empty()).then_some(said))
    }

    /// The file of a split, if there is one.
    pub fn split(&self, split: Split) -> Option<&Path> {
        match split {
            Split::Train => self.import.train.as_deref(),
            Split::Valid => self.import.valid.as_deref(),
            Split::Test => self.import.test.as_deref(),
        }
    }
}

fn folder_name(root: &Path) -> String {
    let real = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    real.file_name().map_or("dataset".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn split_names(split: Split) -> [String; 4] {
    [format!("{split}.tsv"), format!("{split}2id.txt"), format!("{split}.txt"), split.to_string()]
}

/// Takes the first existing file. An entry that is not a file still counts: the check of all files refuses it later.
fn find(root: &Path, file: &mut Option<PathBuf>, usual: &[impl AsRef<str>]) {
    if file.is_none() {
        let (mut files, others): (Vec<_>, Vec<_>) =
            there(root, usual).partition(|name| root.join(name).is_file());
        files.extend(others);
        *file = files.into_iter().next();
    }
}

/// Takes the only file that lists the keys. Refuses two files: their orders may differ, and either may define the ids.
fn find_listing(root: &Path, file: &mut Option<PathBuf>, usual: &[&str], called: &str) -> Result<()> {
    if file.is_none()
        && let [one, other, ..] = &there(root, usual).collect::<Vec<_>>()[..]
    {
        let message = format!("{} and {} both list the {called}", one.display(), other.display());
        return Err(Error::data(message).at(root).hint(format!("name the one to read in `import.{called}`")));
    }
    find(root, file, usual);
    Ok(())
}

/// The names that exist in the folder.
fn there(root: &Path, usual: &[impl AsRef<str>]) -> impl Iterator<Item = PathBuf> {
    let usual = usual.iter().map(|name| PathBuf::from(name.as_ref()));
    usual.filter(|name| root.join(name).symlink_metadata().is_ok())
}

fn find_split(root: &Path, file: &mut Option<PathBuf>, split: Split) -> Result<()> {
    let usual = split_names(split);
    find(root, file, &usual);
    if file.is_none() {
        let error = Error::missing(format!("no {split} triples here")).at(root);
        let usual = usual.join(", ");
        return Err(error.hint(format!("looked for {usual}; set `import.{split}` for another name")));
    }
    Ok(())
}

fn find_texts(root: &Path, sources: &mut Vec<TextSource>, usual: &[&str]) {
    if sources.is_empty() {
        sources.extend(there(root, usual).map(|file| {
            let join = if name(&file).contains("id2name") { Join::Id } else { Join::Auto };
            TextSource { file, join, ..TextSource::default() }
        }));
    }
}

fn find_images(root: &Path, folder: &mut Option<PathBuf>) -> Result<()> {
    let path = root.join(folder.as_deref().unwrap_or("images".as_ref()));
    if path.is_dir() {
        folder.get_or_insert("images".into());
    } else if path.symlink_metadata().is_ok() {
        let error = Error::missing("not a folder, or a link that leads to none").at(path);
        return Err(error.hint("rename it, or name the folder of images in `import.images`"));
    } else if folder.is_some() {
        return Err(Error::missing("no such folder").at(path));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::folder;

    #[test]
    fn usual_names_are_found() {
        let files =
            ["ent_id", "rel_id", "train", "valid", "test", "ent_name.txt", "ent_dscp.txt", "images/a.png"];
        let dir = folder(&files.map(|file| (file, "")));
        let plan = Plan::resolve(dir.path(), &Import::default()).unwrap();
        assert_eq!(plan.import.entities.as_deref(), Some(Path::new("ent_id")));
        assert_eq!(plan.split(Split::Valid), Some(Path::new("valid")));
        assert_eq!((plan.import.names.len(), plan.import.descriptions.len()), (1, 1));
        assert_eq!(plan.import.images.as_deref(), Some(Path::new("images")));
        assert_eq!(plan.files().len(), 7);
        assert_eq!(plan.import.name.as_deref(), dir.path().file_name().unwrap().to_str());
    }

    #[test]
    fn images_that_are_no_folder_are_refused() {
        let dir = folder(&["train", "valid", "test", "images"].map(|file| (file, "")));
        let error = Plan::resolve(dir.path(), &Import::default()).unwrap_err();
        assert!(error.to_string().ends_with("images: not a folder, or a link that leads to none"), "{error}");
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_not_one_that_is_absent() {
        let dir = folder(&["train", "test", "valid/x", "ent_id"].map(|file| (file, "")));
        let error = Plan::resolve(dir.path(), &Import::default()).unwrap_err();
        assert!(error.to_string().ends_with("valid: not a file, or a link that leads to none"), "{error}");
        let dir = folder(&["train.txt", "train/x", "test", "valid"].map(|file| (file, "")));
        let plan = Plan::resolve(dir.path(), &Import::default()).unwrap();
        assert_eq!(plan.split(Split::Train), Some(Path::new("train.txt")), "beside a folder of that name");
    }
}
