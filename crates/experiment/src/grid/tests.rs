//! Shared and separate stages; and the experiments in pipelines/experiments: each can be planned and has the expected
//! content.

use super::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A plan of these variants and seeds over the demo's recipe, and the experiment.
fn planned(head: &str, variants: &[(&str, &str)]) -> Grid {
    plan(head, variants).unwrap()
}

fn plan(head: &str, variants: &[(&str, &str)]) -> Result<Grid> {
    let mut text = format!("title = \"t\"\n{head}\n[[dataset]]\nname = \"nations\"\n");
    text += &format!("recipe = [\"{}\"]\n", root().join("pipelines/nations.toml").display());
    for (name, more) in variants {
        text += &format!("[[variant]]\nname = \"{name}\"\n{more}\n");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.toml");
    std::fs::write(&path, text).unwrap();
    let data = vec![("nations".to_owned(), root().join("data/nations"))];
    Grid::plan(&Spec::read(&path).unwrap(), &Places { out: Some("out".into()), data, ..Places::default() })
}

/// The programs of the steps without `dsom-`, after the name of their run.
fn steps(grid: &Grid) -> Vec<String> {
    let of_run = |steps: &[Step]| {
        let run = grid.runs[steps[0].run].root.strip_prefix("out/nations").unwrap().display();
        steps.iter().fold(format!("{run}:"), |line, step| format!("{line} {}", &step.program[5..]))
    };
    grid.steps.chunk_by(|this, next| this.run == next.run).map(of_run).collect()
}

/// The step that evaluates a cell.
fn evaluation(grid: &Grid, cell: &Cell) -> usize {
    let evaluates = |step: &Step| step.program == EVALUATE && step.run == cell.run;
    grid.steps.iter().position(evaluates).unwrap()
}

#[test]
fn a_split_that_no_evaluation_opens_is_refused() {
    let error = plan("seeds = [1]\nsplit = \"train\"", &[("dsom", "")]).unwrap_err();
    assert_eq!(error.kind(), stage::Kind::Usage);
}

const SEEDS: &str = "seeds = [3, 4]";

#[test]
fn students_share_everything_before_them() {
    let grid = planned("seeds = [3]", &[("dsom", ""), ("all", "set = { distill.selection.kind = \"all\" }")]);
    assert_eq!(steps(&grid), ["seed-3: import features teachers soft-labels distill distill evaluate"]);
    assert_eq!(grid.steps[5].needs, [0, 1, 2, 3]);
    let models: Vec<&str> = grid.runs[0].models.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(models, ["student-dsom-3", "student-all-3"]);
    assert!(grid.cells.iter().all(|cell| evaluation(&grid, cell) == 6));
    let arguments = grid.steps[5].arguments.join(" ");
    assert!(
        arguments.contains("--set distill.selection.kind=all --seed 3 --name student-all-3"),
        "{arguments}"
    );
}

#[test]
fn seeds_share_graph_and_features_by_default() {
    let grid = planned(SEEDS, &[("dsom", "")]);
    let expected = [
        "seed-3: import features teachers soft-labels distill",
        "seed-4: teachers soft-labels distill",
        "seed-3: evaluate",
        "seed-4: evaluate",
    ];
    assert_eq!(steps(&grid), expected);
    let links: Vec<String> = grid.runs[1].links.iter().map(|(_, to)| to.display().to_string()).collect();
    assert_eq!(links, ["../seed-3/graph", "../seed-3/features"]);
    assert_eq!(grid.steps[5].needs, [0, 1]);
    assert!(grid.steps[0].arguments.contains(&"3".to_owned()));
}

#[test]
fn seeds_vary_from_where_it_is_said() {
    let from = |stage: &str| planned(&format!("{SEEDS}\nvaries_from = \"{stage}\""), &[("dsom", "")]);
    let grid = from("distill");
    assert_eq!(steps(&grid), ["seed-3: import features teachers soft-labels distill distill evaluate"]);
    assert!(grid.steps[5].arguments.join(" ").contains("--seed 4 --name student-dsom-4"));
    let everything = steps(&from("import"));
    assert_eq!(everything.iter().filter(|steps| steps.contains(": import")).count(), 2);
}

#[test]
fn keys_above_the_students_take_a_run_of_their_own() {
    let grid = planned(
        "seeds = [0]",
        &[
            ("dsom", ""),
            ("s", "set = { soft_labels.teachers = [\"structural\"] }"),
            ("hidden", "set = { teachers.missing_rate = 0.5 }"),
        ],
    );
    let expected = [
        "seed-0: import features teachers soft-labels distill",
        "seed-0-s: soft-labels distill",
        "seed-0-hidden: teachers soft-labels distill",
        "seed-0: evaluate",
        "seed-0-s: evaluate",
        "seed-0-hidden: evaluate",
    ];
    assert_eq!(steps(&grid), expected);
    let names = |run: usize| grid.runs[run].links.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    assert_eq!((names(1), names(2)), (vec!["graph", "features", "teachers"], vec!["graph", "features"]));
    assert_eq!(grid.steps[6].needs, [0, 1, 2, 5]);
}

#[test]
fn a_part_lies_where_it_lies_in_the_whole() {
    let variants = [
        ("dsom", ""),
        ("hidden", "set = { teachers.missing_rate = 0.5 }"),
        ("alone", "set = { distill.term.kind = \"none\" }"),
    ];
    let mut grid = planned(SEEDS, &variants);
    grid.keep(&["hidden".to_owned(), "alone".to_owned()], &[4]);
    let expected = [
        "seed-3: import features",
        "seed-4-hidden: teachers soft-labels distill",
        "seed-4: distill evaluate",
        "seed-4-hidden: evaluate",
    ];
    assert_eq!(steps(&grid), expected);
    assert_eq!(grid.steps[4].needs, [0, 1, 2, 3]);
    assert_eq!(grid.steps[5].needs, [0]);
    let evaluated = grid.cells.iter().map(|cell| (cell.variant.as_str(), evaluation(&grid, cell)));
    assert_eq!(evaluated.collect::<Vec<_>>(), [("hidden", 7), ("alone", 6)]);
    let models = grid.runs.iter().flat_map(|run| run.models.clone());
    let expected = [("student-alone-4", 5), ("student-hidden-4", 4)];
    assert_eq!(models.collect::<Vec<_>>(), expected.map(|(name, step)| (name.to_owned(), step)));
}

#[test]
fn what_needs_no_teachers_waits_for_none() {
    let alone = ("alone", "set = { distill.term.kind = \"none\" }");
    let grid = planned("seeds = [0]", &[alone]);
    assert_eq!(steps(&grid), ["seed-0: import distill evaluate"]);
    let grid =
        planned("seeds = [0]", &[("average", "model = \"average\""), ("s", "model = \"structural\""), alone]);
    assert_eq!(grid.steps.len(), 6);
    assert_eq!(grid.steps[4].needs, [0]);
    let models = grid.runs[0].models.clone();
    assert_eq!(models[..2], [("average".to_owned(), 3), ("structural".to_owned(), 2)]);
}

#[test]
fn an_ensemble_needs_teachers_and_no_soft_labels() {
    let ensemble = ("ml", "model = \"ensemble\"\nset = { ensemble.kind = \"boosting\" }");
    let grid = planned("seeds = [3]", &[ensemble]);
    assert_eq!(steps(&grid), ["seed-3: import features teachers ensemble evaluate"]);
    let arguments = grid.steps[3].arguments.join(" ");
    assert!(arguments.contains("--set ensemble.kind=boosting --seed 3 --name ensemble-ml-3"), "{arguments}");
    assert_eq!(grid.runs[0].models, [("ensemble-ml-3".to_owned(), 3)]);
}

#[test]
fn what_cannot_be_planned_is_named() {
    let spec: Spec = toml::from_str(
        "title = \"t\"\nseeds = [0]\n[[dataset]]\nname = \"d\"\nrecipe = []\nraw = \".\"\n\
         [[variant]]\nname = \"typo\"\nset = { distill.gama = 1 }\n",
    )
    .unwrap();
    let with = |model: &str| Places { text_model: Some(model.into()), ..Places::default() };
    for (places, words) in [
        (Places::default(), ["variant `typo`", "`distill.gama`"]),
        (Places { dataset: vec!["nowhere".into()], ..Places::default() }, ["`nowhere` is no dataset", ""]),
        (with("../bert"), ["no text encoder", ""]),
        (with("/no/bert"), ["no text encoder", ""]),
        (with("models/text/bert"), ["no text encoder", ""]),
        (with("OWNER/bert"), ["variant `typo`", ""]),
    ] {
        let error = Grid::plan(&spec, &places).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    }
}

/// An experiment, read at the repository's root.
fn read(file: &Path) -> Spec {
    let mut spec = Spec::read(file).unwrap();
    for dataset in &mut spec.dataset {
        dataset.recipe.iter_mut().for_each(|recipe| *recipe = root().join(&*recipe));
        dataset.raw = Some(root());
    }
    spec
}

fn experiments() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("pipelines/experiments")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

#[test]
fn every_experiment_can_be_planned() {
    assert!(experiments().len() > 8);
    for file in experiments() {
        let spec = read(&file);
        let grid =
            Grid::plan(&spec, &Places::default()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let cells = spec.dataset.len() * spec.seeds.len() * spec.variants().len();
        assert_eq!(grid.cells.len(), cells, "{}", file.display());
        let imports = grid.steps.iter().filter(|step| step.program == "dsom-import");
        assert_eq!(imports.count(), spec.dataset.len());
    }
}

#[test]
fn comments_say_how_to_call_them() {
    for file in experiments() {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let calls = [format!("experiments/{name}.toml"), format!("EXPERIMENT={name}")];
        assert!(calls.iter().any(|call| text.contains(call)), "{name}");
        for dataset in read(&file).dataset.iter().filter(|dataset| dataset.name != "nations") {
            assert!(text.contains(&format!("--data {}=", dataset.name)), "{name}: {}", dataset.name);
        }
    }
}
