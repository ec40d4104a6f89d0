//! The experiments in pipelines/experiments: each can be planned, and says what it should.

use dsom_experiment::grid::{Grid, Places};
use dsom_experiment::spec::Spec;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// An experiment as it is read at the repository's root.
fn read(file: &Path) -> Spec {
    let mut spec = Spec::read(file).expect("an experiment");
    for dataset in &mut spec.dataset {
        dataset.recipe.iter_mut().for_each(|recipe| *recipe = root().join(&*recipe));
        dataset.raw = Some(root());
    }
    spec
}

fn all() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("pipelines/experiments")).expect("a folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

#[test]
fn every_experiment_can_be_planned() {
    assert!(all().len() > 8);
    for file in all() {
        let spec = read(&file);
        let grid =
            Grid::plan(&spec, &Places::default()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let cells = spec.dataset.len() * spec.seeds.len() * spec.variants().len();
        assert_eq!(grid.cells.len(), cells, "{}", file.display());
        assert_eq!(
            grid.steps.iter().filter(|step| step.program == "dsom-import").count(),
            spec.dataset.len()
        );
    }
}

#[test]
fn comments_say_how_to_call_them() {
    for file in all() {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            text.contains(&format!("experiments/{name}.toml"))
                || text.contains(&format!("EXPERIMENT={name}")),
            "{name}"
        );
        for dataset in read(&file).dataset.iter().filter(|dataset| dataset.name != "nations") {
            assert!(text.contains(&format!("--data {}=", dataset.name)), "{name}: {}", dataset.name);
        }
    }
}
