//! Which images there are.

use mkg::graph::Entity;
use stage::{Error, Result};
use std::path::{Component, Path, PathBuf};

/// An entity with the paths of its images.
pub type Illustrated = (usize, Vec<String>);

/// The images of a graph's entities.
#[derive(Clone, Debug)]
pub struct ImageSet {
    /// The folder that paths are relative to.
    pub root: PathBuf,
    /// Entities that have images, with their paths.
    pub of_entities: Vec<Illustrated>,
}

impl ImageSet {
    /// The images of `entities` in the folder `root`.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where a path leaves the folder.
    pub fn new(root: PathBuf, entities: &[Entity]) -> Result<ImageSet> {
        let with_images = entities.iter().enumerate().filter(|(_, entity)| !entity.images.is_empty());
        let checked =
            with_images.map(|(i, entity)| match entity.images.iter().find(|path| !stays_inside(path)) {
                Some(path) => {
                    let message = format!("image path `{path}` leaves the image folder");
                    Err(Error::data(message).row(i as u64))
                }
                None => Ok((i, entity.images.clone())),
            });
        Ok(ImageSet { of_entities: checked.collect::<Result<_>>()?, root })
    }

    /// How many images there are.
    pub fn count(&self) -> usize {
        self.of_entities.iter().map(|(_, paths)| paths.len()).sum()
    }

    /// Entities in groups of at least `batch` images, but for the last; an entity's images stay together.
    pub fn groups(&self, batch: usize) -> Vec<&[Illustrated]> {
        let (mut groups, mut rest) = (Vec::new(), self.of_entities.as_slice());
        while !rest.is_empty() {
            let mut images = 0;
            let filled = rest.iter().position(|(_, paths)| {
                images += paths.len();
                images >= batch
            });
            let (group, after) = rest.split_at(filled.map_or(rest.len(), |last| last + 1));
            groups.push(group);
            rest = after;
        }
        groups
    }
}

/// Whether a path relative to a folder stays in it.
fn stays_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entities(images: &[&[&str]]) -> Vec<Entity> {
        let entity = |paths: &&[&str]| Entity {
            images: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Entity::default()
        };
        images.iter().map(entity).collect()
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for path in ["../x.png", "/etc/passwd", "a/../../x.png"] {
            let error = ImageSet::new("images".into(), &entities(&[&[], &["a.png", path]])).unwrap_err();
            let message = format!("row 1: image path `{path}` leaves the image folder");
            assert_eq!((error.kind(), error.to_string()), (stage::Kind::Data, message));
        }
        assert!(ImageSet::new("images".into(), &entities(&[&["./a/b.png"]])).is_ok());
    }

    #[test]
    fn an_entity_is_never_split() {
        let set = ImageSet::new("".into(), &entities(&[&["a"; 3], &["a"; 5], &["a"], &["a"]])).unwrap();
        let sizes = |batch| set.groups(batch).iter().map(|group| group.len()).collect::<Vec<_>>();
        assert_eq!((sizes(4), sizes(1), sizes(100)), (vec![2, 2], vec![1, 1, 1, 1], vec![4]));
    }
}
