//! Real photographs of the published datasets.
//!
//! They lie outside the repository, in `../shared/data`; where they are not, this test passes without looking.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

use dsom_features::checkpoint::Checkpoint;
use dsom_features::images::{ImageEncoder, ImageSet, ImageWork};
use dsom_features::place::Place;
use dsom_features::preparation::Preparation;
use dsom_features::shard::Shard;
use mkg::graph::Entity;
use recipe::{ImageOutput, Precision};
use std::path::{Path, PathBuf};

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

/// Passes the photographs of each dataset that is there through `encoder`.
fn read_all(encoder: &ImageEncoder) {
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
        let work = ImageWork {
            images: &images,
            encoder,
            preparation: &Preparation::vit(encoder.image_size()),
            pool: recipe::Pool::Mean,
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
        assert_eq!((table.coverage(), table.width), (1.0, encoder.width()));
        table.check().unwrap();
    }
}

#[test]
fn every_photograph_of_the_datasets_is_read() {
    read_all(&ImageEncoder::random(1).unwrap());
}

#[test]
#[ignore = "needs the folder that tests/slow/encoders.py writes, in DSOM_PARITY"]
fn every_photograph_passes_through_an_encoder_of_true_size() {
    let folder = PathBuf::from(std::env::var_os("DSOM_PARITY").expect("DSOM_PARITY names a folder"));
    let checkpoint = Checkpoint::open(&folder.join("vit-base"), &[]).unwrap();
    read_all(&ImageEncoder::load(&checkpoint, ImageOutput::Cls, &Place::cpu(), Precision::F32).unwrap());
}
