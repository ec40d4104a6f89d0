//! Ensembles of teachers without a student: every kind goes through the pipeline.

use dsom_tests::Run;
use serde_json::Value;

const KINDS: [&str; 4] = ["average", "by-relation", "boosting", "policy"];

/// Makes the ensemble of this kind in a folder of its own.
fn make(run: &Run, kind: &str, more: &[&str]) -> String {
    let (name, set) = (format!("ensemble-{kind}"), format!("--set=ensemble.kind={kind}"));
    run.succeeds("dsom-ensemble", &[&["--name", &name, &set], more].concat());
    name
}

#[test]
fn every_kind_is_made_ranked_and_reported() {
    let runs = [Run::finished(), Run::finished()];
    for kind in KINDS {
        let policy = ["--set=ensemble.hidden=32", "--set=ensemble.learning_rate=0.01"];
        let more = if kind == "policy" { &policy[..] } else { &[] };
        let [one, two] = ["1", "2"].map(|threads| [more, &["--threads", threads]].concat());
        let file = format!("{}/ensemble.safetensors", make(&runs[0], kind, &one));
        make(&runs[1], kind, &two);
        assert!(runs[0].bytes(&file) == runs[1].bytes(&file), "{kind} depends on threads");
    }
    let run = &runs[0];
    let summary = |kind: &str| run.json(&format!("ensemble-{kind}/stage.json"))["summary"].clone();
    let number = |of: &Value, name: &str| of[name].as_f64().expect("a number");
    let fitted = &summary("by-relation")["weights"];
    assert!(number(fitted, "after") > number(fitted, "before"), "{fitted}");
    let policy = &summary("policy")["policy"];
    assert!(number(policy, "oracle") > number(policy, "policy"), "{policy}");
    let gain = number(policy, "policy") - number(policy, "constant");
    assert_eq!(policy["kept"], gain > number(policy, "standard_error"), "{policy}");

    run.succeeds("dsom-evaluate", &[]);
    let metrics = run.json("evaluation/metrics.json");
    let names: Vec<&String> = metrics["models"].as_object().expect("models").keys().collect();
    let ensembles = ["ensemble-average", "ensemble-boosting", "ensemble-by-relation", "ensemble-policy"];
    let expected = [&["student"][..], &ensembles, &["average", "structural", "textual", "visual"]];
    assert_eq!(names, expected.concat());
    let mrr = |model: &str| run.figure(model, "/test/both/mrr");
    assert_eq!(mrr("ensemble-average"), mrr("average"));
    assert!(ensembles.iter().all(|model| mrr(model) > 0.2), "{metrics}");
    run.succeeds("dsom-predict", &["--model", "ensemble-policy", "Norway", "borders"]);
    run.succeeds("dsom-report", &[]);
    let page = run.text("report.html");
    assert!(page.contains("Weights of ensembles") && page.contains("Policies of ensembles"));
}

#[test]
fn an_ensemble_is_a_stage_like_any_other() {
    let run = Run::finished();
    run.succeeds("dsom-ensemble", &[]);
    for (arguments, words) in [
        (&[][..], "fresh"),
        (&["--set=ensemble.kind=boosting"], "stale: parameter `kind` was \"by-relation\", now \"boosting\""),
        (
            &["--set=soft_labels.teachers=[\"structural\"]"],
            "stale: input `teachers/textual/model.safetensors` is gone",
        ),
    ] {
        let status = run.status("dsom-ensemble", arguments);
        assert!(status.contains(words), "{status}");
    }
    run.fails("dsom-ensemble", &["--name", "students"], 2, &["`ensemble-…`"]);
    run.fails("dsom-ensemble", &["--set=ensemble.folds=3"], 2, &["`ensemble.folds`", "there are: kind"]);
    // One that is damaged is an error, and never left out.
    run.succeeds("dsom-evaluate", &[]);
    let file = run.path("ensemble/ensemble.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let words = ["ensemble/ensemble.safetensors", "truncated", "rerun `dsom-ensemble`"];
    run.fails("dsom-evaluate", &[], 65, &words);
    std::fs::write(run.path("ensemble/stage.json"), "").unwrap();
    run.fails("dsom-evaluate", &[], 65, &["ensemble/stage.json", "rerun `dsom-ensemble`"]);
    std::fs::remove_file(run.path("ensemble/stage.json")).unwrap();
    run.fails("dsom-evaluate", &[], 66, &["model `ensemble` has not finished", "--model"]);
    run.succeeds("dsom-evaluate", &["--model", "student"]);
}
