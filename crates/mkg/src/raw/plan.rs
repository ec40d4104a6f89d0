//! Which files of a raw folder will be read.

use recipe::{Import, Join, TextSource, TripleFormat};
use stage::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::Split;

/// The parts of a dataset, all of them there. Paths are relative to the raw folder.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The raw folder.
    pub root: PathBuf,
    /// The dataset's name.
    pub name: String,
    /// Format of the triple files.
    pub format: TripleFormat,
    /// Id map or table of the entities; without one the triples say which there are.
    pub entities: Option<PathBuf>,
    /// Id map or table of the relations.
    pub relations: Option<PathBuf>,
    /// Training triples.
    pub train: PathBuf,
    /// Published validation triples, if there are any.
    pub valid: Option<PathBuf>,
    /// Test triples.
    pub test: PathBuf,
    /// Sources of names.
    pub names: Vec<TextSource>,
    /// Sources of descriptions.
    pub descriptions: Vec<TextSource>,
    /// Sources of captions.
    pub captions: Vec<TextSource>,
    /// Sources of relation names.
    pub relation_names: Vec<TextSource>,
    /// True if a key is the name of what no source names.
    pub names_from_keys: bool,
    /// Folder with one image or one sub-folder of images per entity.
    pub images: Option<PathBuf>,
}

const ENTITIES: &[&str] = &["entities.tsv", "entity2id.txt", "ent_id", "entity2id.tsv", "ent_id.txt"];
const RELATIONS: &[&str] = &["relations.tsv", "relation2id.txt", "rel_id", "relation2id.tsv", "rel_id.txt"];
const NAMES: &[(&str, Join)] = &[
    ("entityid2name.txt", Join::Id),
    ("entity2name.txt", Join::Auto),
    ("ent_name.txt", Join::Auto),
    ("entity2text.txt", Join::Auto),
];
const DESCRIPTIONS: &[(&str, Join)] = &[("entity2textlong.txt", Join::Auto), ("ent_dscp.txt", Join::Auto)];
const RELATION_NAMES: &[(&str, Join)] = &[
    ("relationid2name.txt", Join::Id),
    ("relation2name.txt", Join::Auto),
    ("relation2text.txt", Join::Auto),
];

impl Plan {
    /// Finds every part of the dataset in `root`: what the recipe names, or else what lies there under a usual name.
    pub fn resolve(root: &Path, import: &Import) -> Result<Plan> {
        if !root.is_dir() {
            return Err(Error::missing("no such folder")
                .at(root)
                .hint("give the dataset's folder with --raw"));
        }
        let finder = Finder { root };
        let plan = Plan {
            root: root.to_owned(),
            name: import.name.clone().unwrap_or_else(|| folder_name(root)),
            format: import.format,
            entities: finder.file(&import.entities, ENTITIES)?,
            relations: finder.file(&import.relations, RELATIONS)?,
            train: finder.split(&import.train, Split::Train)?,
            valid: finder.file(&import.valid, &split_names(Split::Valid))?,
            test: finder.split(&import.test, Split::Test)?,
            names: finder.texts(&import.names, NAMES),
            descriptions: finder.texts(&import.descriptions, DESCRIPTIONS),
            captions: import.captions.clone(),
            relation_names: finder.texts(&import.relation_names, RELATION_NAMES),
            names_from_keys: import.names_from_keys,
            images: finder.images(&import.images)?,
        };
        for file in plan.files() {
            finder.require(&file)?;
        }
        Ok(plan)
    }

    /// The place of a file.
    pub fn path(&self, file: &Path) -> PathBuf {
        self.root.join(file)
    }

    /// Every file that will be read except images, each once.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let sources = [&self.names, &self.descriptions, &self.captions, &self.relation_names];
        let sources = sources.into_iter().flatten();
        let texts = sources.flat_map(|source| {
            [Some(&source.file), source.ids.as_ref(), source.via.as_ref(), source.vocabulary.as_ref()]
        });
        let parts = [
            self.entities.as_ref(),
            self.relations.as_ref(),
            Some(&self.train),
            self.valid.as_ref(),
            Some(&self.test),
        ];
        parts.into_iter().chain(texts).flatten().cloned().collect()
    }

    /// The file of a split, if there is one.
    pub fn split(&self, split: Split) -> Option<&Path> {
        match split {
            Split::Train => Some(&self.train),
            Split::Valid => self.valid.as_deref(),
            Split::Test => Some(&self.test),
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

struct Finder<'a> {
    root: &'a Path,
}

impl Finder<'_> {
    fn require(&self, file: &Path) -> Result<()> {
        let path = self.root.join(file);
        if path.is_file() { Ok(()) } else { Err(Error::missing("no such file").at(path)) }
    }

    /// What the recipe names, or the first usual name that is there.
    fn file(&self, named: &Option<PathBuf>, usual: &[impl AsRef<str>]) -> Result<Option<PathBuf>> {
        if let Some(file) = named {
            return self.require(file).map(|()| Some(file.clone()));
        }
        let mut usual = usual.iter().map(|name| PathBuf::from(name.as_ref()));
        Ok(usual.find(|name| self.root.join(name).is_file()))
    }

    fn split(&self, named: &Option<PathBuf>, split: Split) -> Result<PathBuf> {
        let usual = split_names(split);
        self.file(named, &usual)?.ok_or_else(|| {
            let error = Error::missing(format!("no {split} triples here")).at(self.root);
            error.hint(format!("looked for {}; set `import.{split}` for another name", usual.join(", ")))
        })
    }

    fn texts(&self, named: &[TextSource], usual: &[(&str, Join)]) -> Vec<TextSource> {
        if !named.is_empty() {
            return named.to_vec();
        }
        let there = usual.iter().filter(|(name, _)| self.root.join(name).is_file());
        let source = |(name, join): &(&str, Join)| TextSource {
            file: name.into(),
            join: *join,
            field: None,
            key_field: None,
            key_prefix: None,
            ids: None,
            via: None,
            part: None,
            vocabulary: None,
        };
        there.map(source).collect()
    }

    /// The image folder: the one that the recipe names, or `images` if it is there.
    fn images(&self, named: &Option<PathBuf>) -> Result<Option<PathBuf>> {
        let folder = named.clone().unwrap_or_else(|| "images".into());
        if self.root.join(&folder).is_dir() {
            return Ok(Some(folder));
        }
        match named {
            Some(_) => Err(Error::missing("no such folder").at(self.root.join(folder))),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        dir
    }

    #[test]
    fn usual_names_are_found() {
        let dir = folder(&["ent_id", "rel_id", "train", "valid", "test", "ent_name.txt", "ent_dscp.txt"]);
        std::fs::create_dir(dir.path().join("images")).unwrap();
        let plan = Plan::resolve(dir.path(), &Import::default()).unwrap();
        assert_eq!(plan.entities.as_deref(), Some(Path::new("ent_id")));
        assert_eq!(plan.split(Split::Valid), Some(Path::new("valid")));
        assert_eq!((plan.names.len(), plan.descriptions.len()), (1, 1));
        assert_eq!(plan.images.as_deref(), Some(Path::new("images")));
        assert_eq!(plan.files().len(), 7);
        assert_eq!(plan.name, dir.path().file_name().unwrap().to_str().unwrap());
    }

    #[test]
    fn what_is_missing_is_said_before_anything_is_read() {
        let missing = |files: &[&str], import: Import| {
            let error = Plan::resolve(folder(files).path(), &import).unwrap_err();
            assert_eq!(error.kind(), stage::Kind::Missing);
            (error.to_string(), error.hint_text().unwrap_or_default().to_owned())
        };
        let (message, hint) = missing(&["train.txt"], Import::default());
        assert!(
            message.ends_with("no test triples here") && hint.contains("test2id.txt"),
            "{message} {hint}"
        );
        let named = Import { entities: Some("map".into()), ..Import::default() };
        assert!(missing(&["train", "test"], named).0.ends_with("map: no such file"));
        let images = Import { images: Some("pictures".into()), ..Import::default() };
        assert!(missing(&["train", "test"], images).0.ends_with("pictures: no such folder"));
    }
}
