//! Real photographs of the published datasets.
//!
//! They lie outside the repository, in `../shared/data`; where they are not, this test passes without looking.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use dsom_features::images::{ImageSet, ImageWork};
use dsom_features::preparation::Preparation;
use dsom_features::shard::Shard;
use dsom_features::vit::ImageEncoder;
use mkg::graph::Entity;
use std::path::Path;

/// One entity for each sub-folder, with the files in it.
fn entities(root: &Path) -> Vec<Entity> {
    let list = |folder: &Path| {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let folders = list(root).into_iter().filter(|name| root.join(name).is_dir());
    folders
        .map(|key| {
            let images = list(&root.join(&key)).iter().map(|file| format!("{key}/{file}")).collect();
            Entity { key, images, ..Entity::default() }
        })
        .collect()
}

#[test]
fn every_photograph_of_the_datasets_is_read() {
    for dataset in ["wn9", "fb15k-237"] {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(dataset).join("images");
        if !root.is_dir() {
            eprintln!("{} is not there: nothing tested", root.display());
            continue;
        }
        let entities = entities(&root);
        let images = ImageSet::new(root, &entities).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let encoder = ImageEncoder::random(1, &candle_core::Device::Cpu).unwrap();
        let work = ImageWork {
            images: &images,
            encoder: &encoder,
            preparation: &Preparation::vit(encoder.image_size()),
            pool: stage::recipe::Pool::Mean,
            upright: true,
            batch: 8,
            threads: 2,
            strict: true,
            modality: &"visual".parse().unwrap(),
            shard: Shard::WHOLE,
            journal: scratch.path().join("journal"),
        };
        let (table, report) = work.run(entities.len()).unwrap();
        assert_eq!((report.digests.len(), report.unreadable.len()), (30, 0), "{dataset}");
        assert_eq!(table.coverage(), 1.0);
        table.check().unwrap();
    }
}
