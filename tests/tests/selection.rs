//! Selections of teachers: every selection goes through the pipeline, and the same whatever the number of threads.

use dsom_tests::{Run, interrupted_at};

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
    run.distil("student-fixed", &fixed, &[]);
    for (strategy, share) in shares(&run, "student-fixed") {
        assert_eq!(share, f64::from(u8::from(strategy == "structural+textual")), "{strategy}");
    }
    for selection in ["conf", "best-teacher"] {
        let name = format!("student-{selection}");
        run.distil(&name, &[&format!("selection.kind={selection}")], &[]);
        for (strategy, share) in shares(&run, &name) {
            assert!(share == 0.0 || !strategy.contains('+'), "{selection}: {strategy} {share}");
        }
    }
    // By chance every strategy has its share, and the same one on any number of threads.
    let [on_one, on_two] = ["1", "2"].map(|threads| {
        let random = ["selection.kind=random", "selection.action=triple"];
        run.distil("student-random", &random, &["--threads", threads, "--force"]);
        run.bytes("student-random/model.safetensors")
    });
    let of_random = shares(&run, "student-random");
    assert!(of_random.iter().all(|(_, share)| (share - 1.0 / 7.0).abs() < 0.03), "{of_random:?}");
    assert!(on_one == on_two);
}

#[cfg(unix)]
#[test]
fn muldes_senior_goes_on_to_the_same_bytes_on_any_number_of_threads() {
    let (name, keys) = ("student-mulde", ["selection.kind=mulde", "epochs=40", "patience=40"]);
    let runs = [Run::finished(), Run::finished()];
    runs[0].distil(name, &keys, &["--threads", "1"]);
    let sets = keys.map(|key| format!("--set=distill.{key}"));
    let mut command = runs[1].command("dsom-distill", &["--name", name, "--threads", "2"]);
    interrupted_at(&runs[1].path("student-mulde/checkpoint.safetensors"), command.args(sets));
    runs[1].distil(name, &keys, &["--threads", "2"]);
    for file in ["student-mulde/model.safetensors", "student-mulde/senior.safetensors"] {
        assert!(runs[0].bytes(file) == runs[1].bytes(file), "{file} differs");
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
    let taught = |selection: &[&str], threads| {
        run.distil("student-useful", &[selection, &["epochs=3"]].concat(), &["--threads", threads]);
        run.bytes("student-useful/model.safetensors")
    };
    let on_one = taught(&["selection.kind=useful"], "1");
    let found = run.json("student-useful/stage.json")["summary"]["useful"].clone();
    let (chosen, adds) = (found["chosen"].as_str().expect("a name"), &found["adds"]);
    assert!(!chosen.contains("visual") && adds["visual"].as_f64().expect("a number") < 0.01, "{found}");
    for (strategy, share) in shares(&run, "student-useful") {
        assert_eq!(share, f64::from(u8::from(strategy == chosen)), "{strategy}");
    }
    // The same teachers by name teach the same, and so does the same choice on two threads.
    let named = format!("selection.teachers=[\"{}\"]", chosen.replace('+', "\", \""));
    assert!(taught(&["selection.kind=fixed", &named], "2") == on_one, "{found}");
    assert!(taught(&["selection.kind=useful"], "2") == on_one, "the choice depends on threads");
    run.succeeds("dsom-report", &[]);
    let page = run.text("report.html");
    assert!(page.contains("Useful teachers") && page.contains(chosen));
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let run = Run::finished();
    let fixed =
        |teachers: &str| format!("--set=distill.selection={{ kind = \"fixed\", teachers = [{teachers}] }}");
    let unknown = fixed("\"structural\", \"smell\"");
    run.fails("dsom-distill", &[&unknown], 2, &["`smell`", "structural, textual, visual"]);
    // Declared, but not among those of the soft labels.
    run.succeeds("dsom-soft-labels", &["--set=soft_labels.teachers=[\"structural\"]"]);
    run.fails("dsom-distill", &[&fixed("\"visual\"")], 2, &["`visual`", "there are: structural"]);
    run.fails("dsom-evaluate", &["--model", "student-x"], 2, &["student-x", "there are: student"]);
}
