use super::*;
use crate::{Action, Backbone, Ensemble, Features, PolicyKeys, Selection, Term, Validation};
use stage::Modality;
use std::path::Path;

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn load(sets: &[&str]) -> Result<Recipe> {
    load_over("", sets)
}

/// Loads a recipe with this text, then the overrides.
fn load_over(text: &str, sets: &[&str]) -> Result<Recipe> {
    let (_dir, path) = written(text);
    Recipe::load(&[path], &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>())
}

/// The error message of a load that must fail with exit code 2.
fn refused(recipe: Result<Recipe>) -> String {
    let error = recipe.expect_err("refused");
    assert_eq!(error.kind().exit_code(), 2);
    error.to_string()
}

fn manual() -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/default.toml");
    let text = files::read_text(&path).unwrap();
    (path, text)
}

/// Asserts that the manual's `text` assigns each key of `table`, below `[section]`.
fn assert_lists(text: &str, section: &str, table: &serde_json::Value) {
    let header = text.lines().position(|line| line == format!("[{section}]"));
    let header = header.unwrap_or_else(|| panic!("pipelines/default.toml lacks [{section}]"));
    let below = || text.lines().skip(header + 1).take_while(|line| !line.starts_with('['));
    for key in table.as_object().unwrap().iter().filter(|(_, value)| !value.is_object()).map(|(key, _)| key) {
        let assigns = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
        assert!(below().any(assigns), "pipelines/default.toml: [{section}] lacks `{key}`");
    }
}

#[test]
fn the_manual_lists_every_key_with_its_default() {
    let (path, text) = manual();
    assert_eq!(Recipe::load(&[path], &[]).unwrap(), Recipe::default());
    let complete = serde_json::to_value(Recipe::default()).unwrap();
    for (section, table) in complete.as_object().unwrap().iter().filter(|(_, value)| value.is_object()) {
        assert_lists(&text, section, table);
        for (inner, table) in table.as_object().unwrap().iter().filter(|(_, value)| value.is_object()) {
            assert_lists(&text, &format!("{section}.{inner}"), table);
        }
    }
}

/// The manual's examples: every comment block that begins with a table's header, without the comment signs.
fn examples(text: &str) -> Vec<String> {
    let mut examples: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("# [") {
            examples.push(String::new());
            inside = true;
        }
        inside = inside && line.starts_with("# ");
        if inside && let Some(example) = examples.last_mut() {
            *example += &format!("{}\n", &line[2..]);
        }
    }
    examples
}

#[test]
fn the_manual_has_an_example_of_every_kind_with_all_its_keys() {
    let (_, text) = manual();
    let features: String =
        examples(&text).into_iter().filter(|example| example.starts_with("[features.")).collect();
    let (_dir, declared) = written(&features);
    let mut kinds: Vec<String> =
        ["distill.term ndkd", "distill.selection policy", "ensemble by-relation"].map(str::to_owned).into();
    for example in examples(&text) {
        let (_dir, path) = written(&example);
        let recipe =
            Recipe::load(&[declared.clone(), path], &[]).unwrap_or_else(|e| panic!("{example}: {e}"));
        let section = example.lines().next().unwrap().trim_matches(['[', ']']).to_owned();
        let mut table = &serde_json::to_value(recipe).unwrap();
        for name in section.split('.') {
            table = &table[name];
        }
        assert_lists(&example, &section, table);
        let kind = table["kind"].as_str().or(table["from"].as_str());
        kinds.extend(kind.map(|kind| format!("{section} {kind}")));
    }
    let selections = ["all", "useful", "fixed", "random", "conf", "best-teacher", "best-strategy", "mulde"];
    for (section, all) in [
        ("distill.selection", &selections[..]),
        ("distill.term", &["ndkd", "nekd", "nnkd", "dkd", "kd", "none"]),
        ("ensemble", &["average", "boosting", "policy"]),
        ("features.", &["text", "images", "file", "words"]),
    ] {
        let has = |kind: &&&str| {
            kinds.iter().any(|has| has.starts_with(section) && has.ends_with(&format!(" {kind}")))
        };
        assert_eq!(all.iter().find(|kind| !has(kind)), None, "{section}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_key_its_line_and_what_there_is() {
    for (text, line, words) in [
        // Unknown keys.
        ("seed = 1\n[distill]\ngama = 2\n", 3, ["`distill.gama`", "backbone, rank"]),
        (
            "[distill.selection]\nkind = \"all\"\n\nreward = 2\n",
            4,
            ["`distill.selection.reward`", "are: kind"],
        ),
        (
            "distill.term = { kind = \"kd\", tau = 1, alpha = 1 }\n",
            1,
            ["`distill.term.alpha`", "kind, gamma, tau"],
        ),
        ("[features.x]\nfrom = \"text\"\npool = \"mean\"\n", 3, ["`features.x.pool`", "fields, encoder"]),
        ("[[import.names]]\nfile = \"x\"\njoyn = \"id\"\n", 1, ["`import.names.joyn`", "join, field"]),
        ("[distil]\n", 1, ["`distil`", "distill, ensemble"]),
        // Wrong values.
        ("[distill]\nrank = 8\nbatch = \"x\"\n", 3, ["`distill.batch`", "invalid type"]),
        ("[distill.term]\ntau = 0\n", 2, ["`distill.term.tau`", "above zero, but is 0"]),
        ("[teachers]\nabsent = \"mean\"\n", 2, ["`teachers.absent`", "`learned`"]),
        ("[distill.selection]\nkind = \"polcy\"\n", 2, ["`distill.selection.kind`", "`best-teacher`"]),
        (
            "[features.a]\nfrom = \"text\"\n[features.b]\nfrom = \"image\"\n",
            4,
            ["`features.b.from`", "`images`"],
        ),
        ("[features.x]\nfrom = \"file\"\n", 2, ["`features.x.from`", "missing field `file`"]),
        (
            "[features.x]\nfrom = \"text\"\nmax_tokens = \"8\"\n",
            3,
            ["`features.x.max_tokens`", "invalid type"],
        ),
        ("[features.x]\n\n[features.y]\nfrom = \"text\"\n", 1, ["`features.x`", "missing field `from`"]),
        ("seed = 1\n[features.\"a b\"]\nfrom = \"text\"\n", 2, ["`features.a b`", ""]),
        ("[distill.selection]\nreward = -20\n", 1, ["`distill.selection.penalty`", "below `reward`"]),
        ("seed = \n", 1, ["value", ""]),
    ] {
        let message = refused(load_over(text, &[]));
        assert!(message.contains(&format!("line {line}:")), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}

#[test]
fn later_recipes_and_overrides_win() {
    let (_a, first) = written("[distill]\nrank = 8\nterm.gamma = 3.0\n[teachers]\nrank = 8\n");
    let (_b, second) = written("[distill.term]\ngamma = 5.0\n");
    let sets = ["distill.rank=16".to_owned(), "import.validation=holdout:0.2".to_owned()];
    let recipe = Recipe::load(&[first, second], &sets).unwrap();
    assert_eq!((recipe.distill.term.softening().unwrap().gamma, recipe.distill.training.rank), (5.0, 16));
    assert_eq!(recipe.teachers.training.rank, 8);
    assert_eq!(recipe.import.validation, Validation::Holdout(0.2));
}

#[test]
fn another_kind_takes_the_place_of_a_table_and_the_same_one_keeps_its_keys() {
    let text = "[distill.selection]\nhidden = 64\nreward = 2\n[distill.term]\ntau = 2\n";
    let load = |sets: &[&str]| load_over(text, sets);
    let policy = |recipe: Recipe| recipe.distill.selection.policy().cloned().unwrap();
    assert_eq!(load(&["distill.selection.kind=all"]).unwrap().distill.selection, Selection::All);
    let kept = policy(load(&["distill.selection.kind=policy", "distill.selection.action=triple"]).unwrap());
    assert_eq!(kept, PolicyKeys { action: Action::Triple, hidden: 64, reward: 2.0, ..PolicyKeys::default() });
    let kd = load(&["distill.term.kind=kd"]).unwrap().distill.term;
    assert_eq!(kd, Term::Kd(crate::Softening::default()));
    // The two keys may come in any order, or as one table.
    let fixed = Selection::Fixed { teachers: vec![Modality::structural()] };
    for sets in [
        &["distill.selection.teachers=[\"structural\"]", "distill.selection.kind=fixed"][..],
        &["distill.selection={ kind = \"fixed\", teachers = [\"structural\"] }"],
    ] {
        assert_eq!(load(sets).unwrap().distill.selection, fixed);
    }
    // The keys of the old kind do not apply to the new kind.
    let message = refused(load(&["distill.selection.kind=all", "distill.selection.reward=2"]));
    assert!(message.contains("`distill.selection.reward`: no such key; there are: kind"), "{message}");
    let ((_a, path), (_b, other)) = (written(text), written("[distill.selection]\nkind = \"mulde\"\n"));
    let recipe = Recipe::load(&[path, other], &[]).unwrap();
    assert_eq!(recipe.distill.selection, Selection::Mulde);
}

#[test]
fn a_key_alone_is_of_the_kind_that_is_there() {
    let recipe = load(&["distill.selection.reward=2", "ensemble.kind=policy", "ensemble.folds=3"]).unwrap();
    assert_eq!(recipe.distill.selection.policy().unwrap().reward, 2.0);
    assert!(matches!(recipe.ensemble, Ensemble::Policy(policy) if policy.folds == 3));
}

#[test]
fn senseless_values_are_refused() {
    for set in [
        "distill.term.tau=0",
        "distill.term.tau=nan",
        "distill.term.gamma=-1",
        "distill.term.alpha=-0.1",
        "distill.term.beta=inf",
        "distill.selection.learning_rate=-1e-4",
        "distill.selection.learning_rate=inf",
        "distill.selection.hidden=0",
        "distill.selection.hidden=9007199254740992",
        "distill.selection.penalty=1",
        "distill.selection.reward=nan",
        "distill.selection={ kind = \"fixed\", teachers = [] }",
        "distill.rank=9223372036854775807",
        "distill.epochs=0",
        "distill.learning_rate=0",
        "distill.n3=nan",
        "teachers.rank=0",
        "teachers.rank=4\nteachers.epochs=3",
        "teachers.batch=0",
        "teachers.patience=-1",
        "teachers.missing_rate=1.5",
        "teachers.modality.structural.missing_rate=-1",
        "teachers.modality.structural.rank=0",
        "teachers.modality.structural.learning_rate=inf",
        "features.x={ from = \"text\", max_tokens = 1000000000 }",
        "features.x={ from = \"images\", batch = 0 }",
        "features.structural={ from = \"text\" }",
        "features.average={ from = \"text\" }",
        "import.validation=holdout:2",
        "import.overlap_threshold=nan",
        "import.overlap_threshold=-1",
        "import.holdout_fraction=1",
        "soft_labels.rows_per_file=0",
        "soft_labels.teachers=[\"structural\", \"structural\"]",
        "ensemble={ kind = \"policy\", folds = 2000 }",
        "ensemble={ kind = \"policy\", folds = 1 }",
        "ensemble={ kind = \"policy\", epochs = 1000000000000 }",
        "distill.term.kind=x",
        "seed",
    ] {
        let message = refused(load(&[set]));
        let key = set.split('=').next().unwrap();
        assert!(message.contains(key), "{set}: {message}");
    }
    let message = refused(load(&["teachers.rank=9223372036854775807"]));
    assert!(message.contains("between 1 and 1048576"), "{message}");
}

#[test]
fn a_modality_that_nobody_declares_is_refused_wherever_it_stands() {
    for set in [
        "teachers.modality.textaul.rank=64",
        "soft_labels.teachers=[\"structural\", \"textaul\"]",
        "distill.selection={ kind = \"fixed\", teachers = [\"textaul\"] }",
    ] {
        let message = refused(load(&["features.textual.from=text", set]));
        assert!(message.contains("`textaul`; there are: structural, textual"), "{message}");
    }
}

#[test]
fn a_teacher_has_its_own_rank_and_backbone() {
    let recipe = load(&[
        "features.visual.from=images",
        "teachers.modality.visual.backbone=distmult",
        "teachers.modality.visual.rank=1000",
        "distill.backbone=transe",
    ])
    .unwrap();
    let training = |modality: &str| recipe.teachers.of(&modality.parse().unwrap()).training;
    assert_eq!((training("visual").backbone, training("visual").rank), (Backbone::DistMult, 1000));
    assert_eq!((training("structural").backbone, training("structural").rank), (Backbone::ComplEx, 256));
    assert_eq!(recipe.distill.training.backbone, Backbone::TransE);
    assert!(refused(load(&["distill.backbone=rescal"])).contains("`tucker`"));
}

#[test]
fn a_modality_is_a_table_of_its_own() {
    let recipe = load_over("[features.caption]\nfrom = \"text\"\nfields = [\"caption\"]\n", &[]).unwrap();
    let names: Vec<&str> = recipe.features.keys().map(Modality::as_str).collect();
    assert_eq!(names, ["caption"]);
    assert!(matches!(recipe.features[&"caption".parse().unwrap()], Features::Text { .. }));
}
