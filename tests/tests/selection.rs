//! Who chooses the teachers: every selection goes through the pipeline, and the same whatever the number of threads.

use dsom_tests::{Run, said};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn json_of(run: &Run, name: &str) -> Value {
    let bytes = std::fs::read(run.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    serde_json::from_slice(&bytes).expect("valid JSON")
}

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
    let events = std::fs::read_to_string(run.path(name).join("events.jsonl")).expect("a log");
    let last: Value = serde_json::from_str(events.lines().last().expect("an epoch")).expect("valid JSON");
    let shares = last["strategies"].as_object().expect("shares");
    shares.iter().map(|(name, share)| (name.clone(), share.as_f64().expect("a number"))).collect()
}

fn test_mrr(run: &Run, model: &str) -> f64 {
    run.succeeds("dsom-evaluate", &["--model", model, "--split", "test"]);
    json_of(run, "evaluation/metrics.json")["models"][model]["test"]["both"]["mrr"]
        .as_f64()
        .expect("a number")
}

#[test]
fn fixed_and_settled_choices_are_what_they_say() {
    let run = Run::finished();
    distil(&run, "student-fixed", &["selection=textual+structural"], "2");
    for (strategy, share) in shares(&run, "student-fixed") {
        assert_eq!(share, f64::from(u8::from(strategy == "structural+textual")), "{strategy}");
    }
    for selection in ["conf", "best-teacher"] {
        let name = format!("student-{selection}");
        distil(&run, &name, &[&format!("selection={selection}")], "2");
        for (strategy, share) in shares(&run, &name) {
            assert!(share == 0.0 || !strategy.contains('+'), "{selection}: {strategy} {share}");
        }
    }
    // The ensembles are the means that they are of.
    let mean = test_mrr(&run, "structural+textual");
    assert_eq!(test_mrr(&run, "student-fixed/teachers"), mean);
    assert!(test_mrr(&run, "student-conf/teachers") > 0.2);
    distil(&run, "student-all", &["selection=all"], "2");
    assert_eq!(test_mrr(&run, "student-all/teachers"), test_mrr(&run, "average"));
}

#[test]
fn a_policy_that_learns_from_validation_is_the_same_on_any_number_of_threads() {
    let runs = [Run::finished(), Run::finished()];
    let keys =
        ["policy_learns=valid", "policy_state=relation", "calibrate=relation", "policy_learning_rate=0.01"];
    for (run, threads) in runs.iter().zip(["1", "2"]) {
        distil(run, "student-valid", &keys, threads);
    }
    for file in ["model.safetensors", "policy.safetensors", "calibration.safetensors", "strategies.parquet"] {
        let of = |run: &Run| std::fs::read(run.path("student-valid").join(file)).expect("written");
        assert!(of(&runs[0]) == of(&runs[1]), "{file} depends on threads");
    }
    let summary = &json_of(&runs[0], "student-valid/stage.json")["summary"];
    assert_eq!(summary["teachers"], json!(["structural", "textual", "visual"]));
    let number = |of: &str, name: &str| summary[of][name].as_f64().expect("a number");
    assert!(number("calibration", "after") >= number("calibration", "before"), "{summary}");
    assert!(number("policy", "oracle") >= number("policy", "policy"), "{summary}");
    // It does not change its mind.
    let events = std::fs::read_to_string(runs[0].path("student-valid/events.jsonl")).unwrap();
    let of_epoch = |line: &str| serde_json::from_str::<Value>(line).unwrap()["strategies"].clone();
    assert!(events.lines().all(|line| of_epoch(line) == of_epoch(events.lines().next().unwrap())));
    assert!(test_mrr(&runs[0], "student-valid/teachers") > 0.2);
    assert!(test_mrr(&runs[0], "student-valid") > 0.2);
}

/// The last epoch's log.
fn last_event(run: &Run, name: &str) -> Value {
    let events = std::fs::read_to_string(run.path(name).join("events.jsonl")).expect("a log");
    serde_json::from_str(events.lines().last().expect("an epoch")).expect("valid JSON")
}

#[cfg(unix)]
#[test]
fn muldes_senior_goes_on_to_the_same_bytes_on_any_number_of_threads() {
    let keys = ["selection=mulde", "epochs=40", "patience=40"];
    let runs = [Run::finished(), Run::finished()];
    distil(&runs[0], "student-mulde", &keys, "1");
    let sets =
        ["--set", "distill.selection=mulde", "--set", "distill.epochs=40", "--set", "distill.patience=40"];
    let arguments = [&["--name", "student-mulde", "--threads", "2"], sets.as_slice()].concat();
    let mut child = runs[1].command("dsom-distill", &arguments).spawn().unwrap();
    let (checkpoint, started) = (runs[1].path("student-mulde/checkpoint.safetensors"), Instant::now());
    while !checkpoint.is_file() && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(75));
    distil(&runs[1], "student-mulde", &keys, "2");
    for file in ["model.safetensors", "senior.safetensors"] {
        let of = |run: &Run| std::fs::read(run.path("student-mulde").join(file)).expect("written");
        assert!(of(&runs[0]) == of(&runs[1]), "{file} differs");
    }
    let last = last_event(&runs[0], "student-mulde");
    let of = |what: &str| -> Vec<f64> {
        let values = last[what].as_object().expect("a figure for each teacher").values();
        values.map(|value| value.as_f64().expect("a number")).collect()
    };
    assert!((of("attention").iter().sum::<f64>() - 1.0).abs() < 1e-6, "{last}");
    assert_eq!(json_of(&runs[0], "student-mulde/stage.json")["summary"]["senior"], last["scales"]);
    assert!(of("scales").iter().all(|scale| (0.0..2.0).contains(scale) && *scale != 1.0), "{last}");
    assert!(test_mrr(&runs[0], "student-mulde") > 0.2);
    let output = runs[0].output("dsom-evaluate", &["--model", "student-mulde/teachers"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("attends to its student"), "{}", said(&output));
}

#[test]
fn validation_says_what_strategies_teachers_and_relations_are_worth() {
    let run = Run::finished();
    let valid = ["policy_learns=valid", "policy_state=relation", "policy_epochs=5", "epochs=3"];
    for value in ["reciprocal-rank", "log-probability", "complement", "mixed"] {
        let (name, key) = (format!("student-{value}"), format!("policy_value={value}"));
        distil(&run, &name, &[&valid[..], &[key.as_str()]].concat(), "2");
        let policy = &json_of(&run, &format!("{name}/stage.json"))["summary"]["policy"];
        let number = |name: &str| policy[name].as_f64().expect("a number");
        let strategies = policy["strategies"].as_object().expect("every strategy");
        assert_eq!(strategies.len(), 7, "{policy}");
        assert_eq!(strategies["structural+textual+visual"], policy["all"]);
        let gain = number("policy") - number("constant");
        assert_eq!(policy["taken"] == "policy", gain > number("standard_error"), "{policy}");
        if policy["taken"] == "constant" {
            let constant = policy["constant_strategy"].as_str().unwrap();
            let share =
                |(strategy, share): &(String, f64)| *share == f64::from(u8::from(strategy == constant));
            assert!(shares(&run, &name).iter().all(share), "{policy}");
        }
    }
    // An ensemble needs no student.
    distil(&run, "student-boosting", &["selection=all", "calibrate=boosting", "epochs=0"], "2");
    assert!(!run.path("student-boosting/model.safetensors").exists());
    assert!(test_mrr(&run, "student-boosting/teachers") > 0.2);
    run.fails(
        "dsom-evaluate",
        &["--model", "student-boosting"],
        2,
        &["no epochs", "student-boosting/teachers"],
    );
    distil(&run, "student-chosen", &[&valid[..3], &["epochs=0"]].concat(), "2");
    let mrr = test_mrr(&run, "student-chosen/teachers");
    assert_eq!(mrr, test_mrr(&run, "student-reciprocal-rank/teachers"));
    run.succeeds("dsom-evaluate", &[]);
    let models = &json_of(&run, "evaluation/metrics.json")["models"];
    assert!(models["student-chosen/teachers"].is_object() && models["student-chosen"].is_null(), "{models}");
    let report = dsom_tests::program("dsom-report").arg("--run").arg(run.path("")).output().unwrap();
    assert!(report.status.success(), "{}", said(&report));
    distil(&run, "student-reliable", &["selection=all", "query_weight=reliability", "epochs=3"], "2");
    let weight = &json_of(&run, "student-reliable/stage.json")["summary"]["query_weight"];
    let (least, most) = (weight["least"].as_f64().unwrap(), weight["most"].as_f64().unwrap());
    assert!(0.0 < least && least < 1.0 && 1.0 < most, "{weight}");
    distil(&run, "student-equal", &["selection=all", "epochs=3"], "2");
    let model = |name: &str| std::fs::read(run.path(name).join("model.safetensors")).expect("written");
    assert!(model("student-reliable") != model("student-equal"));
}

#[test]
fn useful_teachers_are_found_on_validation_triples_and_taken_for_all_queries() {
    let run = Run::finished();
    // A third teacher that has learned nothing. (One of noise features is useful here: so few entities are told apart by it.)
    let idle = ["--modality=visual", "--set=teachers.modality.visual.learning_rate=1e-9"];
    run.succeeds("dsom-teachers", &idle);
    run.succeeds("dsom-soft-labels", &[]);
    let model = || std::fs::read(run.path("student-useful/model.safetensors")).expect("written");
    distil(&run, "student-useful", &["selection=useful", "epochs=3"], "1");
    let (found, on_one) = (json_of(&run, "student-useful/stage.json")["summary"]["useful"].clone(), model());
    let (chosen, adds) = (found["chosen"].as_str().expect("a name"), &found["adds"]);
    assert!(!chosen.contains("visual") && adds["visual"].as_f64().expect("a number") < 0.01, "{found}");
    for (strategy, share) in shares(&run, "student-useful") {
        assert_eq!(share, f64::from(u8::from(strategy == chosen)), "{strategy}");
    }
    // The same teachers by name teach the same, and so does the same choice on two threads.
    distil(&run, "student-useful", &[&format!("selection={chosen}"), "epochs=3"], "2");
    assert!(model() == on_one, "{found}");
    distil(&run, "student-useful", &["selection=useful", "epochs=3"], "2");
    assert!(model() == on_one, "the choice depends on threads");
    assert_eq!(test_mrr(&run, "student-useful/teachers"), test_mrr(&run, chosen));
    distil(&run, "student-none", &["selection=useful", "epochs=0"], "2");
    assert_eq!(test_mrr(&run, "student-none/teachers"), test_mrr(&run, chosen));
    let report = dsom_tests::program("dsom-report").arg("--run").arg(run.path("")).output().unwrap();
    assert!(report.status.success(), "{}", said(&report));
    let page = std::fs::read_to_string(run.path("report.html")).expect("a report");
    assert!(page.contains("Useful teachers") && page.contains(chosen));
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let run = Run::finished();
    let output = run.output("dsom-distill", &["--set", "distill.selection=structural+smell"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("`smell`") && said(&output).contains("structural, textual, visual"));
    distil(&run, "student-random", &["selection=random"], "2");
    for (model, words) in
        [("student-random/teachers", "chooses by `random`"), ("student-x/teachers", "student")]
    {
        let output = run.output("dsom-evaluate", &["--model", model]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    }

    for selection in ["random", "mulde", "policy", "best-teacher"] {
        let sets = ["--set", "distill.epochs=0", "--set", &format!("distill.selection={selection}")];
        run.fails("dsom-distill", &sets, 2, &[selection, "without a student"]);
    }
    let folds = ["--set", "distill.policy_learns=valid", "--set", "distill.policy_folds=1"];
    run.fails("dsom-distill", &folds, 2, &["policy_folds", "2 or more"]);
    distil(&run, "student-alone", &["objective=none"], "2");
    let output = run.output("dsom-evaluate", &["--model", "student-alone/teachers"]);
    assert!(said(&output).contains("learned alone"), "{}", said(&output));
}
