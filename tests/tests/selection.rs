//! Selections of teachers: every selection goes through the pipeline, and the same whatever the number of threads.

use dsom_tests::{Run, said, terminate, wait_for};

/// Trains a student called `name` with these keys of `distill`.
fn distil(run: &Run, name: &str, keys: &[&str], threads: &str) {
    let sets: Vec<String> = keys.iter().map(|key| format!("distill.{key}")).collect();
    let sets = sets.iter().flat_map(|set| ["--set", set.as_str()]);
    run.succeeds(
        "dsom-distill",
        &["--name", name, "--threads", threads].into_iter().chain(sets).collect::<Vec<_>>(),
    );
}

/// The shares of strategies in the last epoch.
fn shares(run: &Run, name: &str) -> Vec<(String, f64)> {
    let last = run.last_event(name);
    let shares = last["strategies"].as_object().expect("shares");
    shares.iter().map(|(name, share)| (name.clone(), share.as_f64().expect("a number"))).collect()
}

fn test_mrr(run: &Run, model: &str) -> f64 {
    run.succeeds("dsom-evaluate", &["--model", model, "--split", "test"]);
    run.figure(model, "/test/both/mrr")
}

#[test]
fn fixed_choices_and_rules_are_what_they_say() {
    let run = Run::finished();
    let fixed = ["selection.kind=fixed", "selection.teachers=[\"textual\", \"structural\"]"];
    distil(&run, "student-fixed", &fixed, "2");
    for (strategy, share) in shares(&run, "student-fixed") {
        assert_eq!(share, f64::from(u8::from(strategy == "structural+textual")), "{strategy}");
    }
    for selection in ["conf", "best-teacher"] {
        let name = format!("student-{selection}");
        distil(&run, &name, &[&format!("selection.kind={selection}")], "2");
        for (strategy, share) in shares(&run, &name) {
            assert!(share == 0.0 || !strategy.contains('+'), "{selection}: {strategy} {share}");
        }
    }
    // By chance every strategy has its share, and the same one on any number of threads.
    distil(&run, "student-random", &["selection.kind=random", "selection.action=triple"], "1");
    let on_one = std::fs::read(run.path("student-random/model.safetensors")).expect("written");
    let of_random = shares(&run, "student-random");
    assert!(of_random.iter().all(|(_, share)| (share - 1.0 / 7.0).abs() < 0.03), "{of_random:?}");
    std::fs::remove_dir_all(run.path("student-random")).unwrap();
    distil(&run, "student-random", &["selection.kind=random", "selection.action=triple"], "2");
    assert!(std::fs::read(run.path("student-random/model.safetensors")).unwrap() == on_one);
}

#[cfg(unix)]
#[test]
fn muldes_senior_goes_on_to_the_same_bytes_on_any_number_of_threads() {
    let keys = ["selection.kind=mulde", "epochs=40", "patience=40"];
    let runs = [Run::finished(), Run::finished()];
    distil(&runs[0], "student-mulde", &keys, "1");
    let sets = [
        "--set",
        "distill.selection.kind=mulde",
        "--set",
        "distill.epochs=40",
        "--set",
        "distill.patience=40",
    ];
    let arguments = [&["--name", "student-mulde", "--threads", "2"], sets.as_slice()].concat();
    let mut child = runs[1].command("dsom-distill", &arguments).spawn().unwrap();
    wait_for(&runs[1].path("student-mulde/checkpoint.safetensors"), &mut child);
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(75));
    distil(&runs[1], "student-mulde", &keys, "2");
    for file in ["model.safetensors", "senior.safetensors"] {
        let of = |run: &Run| std::fs::read(run.path("student-mulde").join(file)).expect("written");
        assert!(of(&runs[0]) == of(&runs[1]), "{file} differs");
    }
    let last = runs[0].last_event("student-mulde");
    let of = |what: &str| -> Vec<f64> {
        let values = last[what].as_object().expect("a figure for each teacher").values();
        values.map(|value| value.as_f64().expect("a number")).collect()
    };
    assert!((of("attention").iter().sum::<f64>() - 1.0).abs() < 1e-6, "{last}");
    assert_eq!(runs[0].json("student-mulde/stage.json")["summary"]["senior"], last["scales"]);
    assert!(of("scales").iter().all(|scale| (0.0..2.0).contains(scale) && *scale != 1.0), "{last}");
    assert!(test_mrr(&runs[0], "student-mulde") > 0.2);
}

#[test]
fn useful_teachers_are_found_on_validation_triples_and_taken_for_all_queries() {
    let run = Run::finished();
    // A third teacher that has learned nothing. (One of noise features is useful here: so few entities are told apart by it.)
    let idle = ["--modality=visual", "--set=teachers.modality.visual.learning_rate=1e-9"];
    run.succeeds("dsom-teachers", &idle);
    run.succeeds("dsom-soft-labels", &[]);
    let model = || std::fs::read(run.path("student-useful/model.safetensors")).expect("written");
    distil(&run, "student-useful", &["selection.kind=useful", "epochs=3"], "1");
    let (found, on_one) = (run.json("student-useful/stage.json")["summary"]["useful"].clone(), model());
    let (chosen, adds) = (found["chosen"].as_str().expect("a name"), &found["adds"]);
    assert!(!chosen.contains("visual") && adds["visual"].as_f64().expect("a number") < 0.01, "{found}");
    for (strategy, share) in shares(&run, "student-useful") {
        assert_eq!(share, f64::from(u8::from(strategy == chosen)), "{strategy}");
    }
    // The same teachers by name teach the same, and so does the same choice on two threads.
    let named = format!("selection.teachers=[\"{}\"]", chosen.replace('+', "\", \""));
    distil(&run, "student-useful", &["selection.kind=fixed", &named, "epochs=3"], "2");
    assert!(model() == on_one, "{found}");
    distil(&run, "student-useful", &["selection.kind=useful", "epochs=3"], "2");
    assert!(model() == on_one, "the choice depends on threads");
    let report = dsom_tests::program("dsom-report").arg("--run").arg(run.path("")).output().unwrap();
    assert!(report.status.success(), "{}", said(&report));
    let page = std::fs::read_to_string(run.path("report.html")).expect("a report");
    assert!(page.contains("Useful teachers") && page.contains(chosen));
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let run = Run::finished();
    let fixed = |teachers: &str| format!("distill.selection={{ kind = \"fixed\", teachers = [{teachers}] }}");
    let unknown = fixed("\"structural\", \"smell\"");
    run.fails("dsom-distill", &["--set", &unknown], 2, &["`smell`", "structural, textual, visual"]);
    // Declared, but not among those of the soft labels.
    run.succeeds("dsom-soft-labels", &["--set", "soft_labels.teachers=[\"structural\"]"]);
    run.fails("dsom-distill", &["--set", &fixed("\"visual\"")], 2, &["`visual`", "there are: structural"]);
    run.fails("dsom-evaluate", &["--model", "student-x"], 2, &["student-x", "there are: student"]);
}
