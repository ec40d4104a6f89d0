//! Who chooses the teachers: every selection goes through the pipeline, and the same whatever the number of threads.

use dsom_tests::{Run, said};
use serde_json::{Value, json};

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
    distil(&run, "student-alone", &["objective=none"], "2");
    let output = run.output("dsom-evaluate", &["--model", "student-alone/teachers"]);
    assert!(said(&output).contains("learned alone"), "{}", said(&output));
}
