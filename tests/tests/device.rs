//! `--device`: the stages by candle's tensors, on candle's CPU device, beside the stages by the hand-written engine.
//! `DSOM_TEST_DEVICE=cuda`, with programs built for it, runs the same on a GPU.

use dsom_tests::{Run, said};
use serde_json::Value;

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {value}"))
}

/// Name that the tests give `--device`.
fn device_name() -> String {
    std::env::var("DSOM_TEST_DEVICE").unwrap_or_else(|_| "candle".to_owned())
}

/// Training the same model in another order of additions: ranks of a few triples may change.
fn assert_near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 0.03, "{what}: {found} on the device, {expected} on the CPU");
}

#[test]
fn the_pipeline_on_a_device_ends_where_it_does_on_the_cpu() {
    let (cpu, device) = (Run::finished(), Run::finished());
    let on_device = ["--device", &device_name(), "--force"];
    for stage in ["dsom-teachers", "dsom-soft-labels", "dsom-distill", "dsom-evaluate"] {
        let said = said(&device.output(stage, &on_device));
        assert!(said.contains("device: ") && !said.contains("device: cpu"), "{stage}: {said}");
    }
    for folder in ["teachers/structural", "teachers/textual", "teachers/visual", "student"] {
        let [found, expected] =
            [&device, &cpu].map(|run| run.json(&format!("{folder}/stage.json"))["summary"].clone());
        let products = found["products"].as_str().unwrap_or_default();
        assert!(products.starts_with("f32 by "), "{folder}: {products}");
        assert_near(number(&found, "/valid_mrr"), number(&expected, "/valid_mrr"), folder);
    }
    let [found, expected] = [&device, &cpu].map(|run| run.json("evaluation/metrics.json"));
    for model in ["student", "average", "structural", "textual", "visual"] {
        let mrr = format!("/models/{model}/test/both/mrr");
        assert_near(number(&found, &mrr), number(&expected, &mrr), model);
    }
    // Where it was computed is no reason to compute it again.
    for stage in ["dsom-teachers", "dsom-soft-labels", "dsom-distill", "dsom-evaluate"] {
        let status = device.status(stage, &["--device", "cpu"]);
        assert!(status.lines().all(|line| line.ends_with(" fresh")), "{stage}: {status}");
    }
}

#[test]
fn ranks_and_soft_labels_of_one_model_are_those_of_the_cpu() {
    let (cpu, device) = (Run::finished(), Run::finished());
    device.succeeds("dsom-evaluate", &["--device", &device_name(), "--force"]);
    let [found, expected] = [&device, &cpu].map(|run| run.json("evaluation/metrics.json"));
    for figure in ["mrr", "hits_at_1", "hits_at_10"] {
        let path = format!("/test/both/{figure}");
        let difference = number(&found, &path) - number(&expected, &path);
        assert!(difference.abs() < 2e-3, "{figure}: {difference}");
    }
    device.succeeds("dsom-soft-labels", &["--device", &device_name(), "--force"]);
    device.succeeds("dsom-soft-labels", &["--verify"]);
}

#[test]
fn a_student_takes_its_teachers_from_the_cache_or_their_models() {
    let run = Run::finished();
    let sources = [("cache", ""), ("recompute", "computed anew"), ("auto", "computed anew")];
    let [cache, recompute, _] = sources.map(|(from, words)| {
        // One name: it decides where the student begins.
        let three = ["--force", "--set", "distill.epochs=3", "--set", "distill.selection.kind=all"];
        let device = device_name();
        let arguments = [&["--device", &device, "--soft-labels", from], &three[..]].concat();
        let output = run.output("dsom-distill", &arguments);
        let said = said(&output);
        assert!(output.status.success() && said.contains(words), "{from}: {said}");
        number(&run.json("student/stage.json"), "/summary/valid_mrr")
    });
    // Half precision is all they differ by.
    assert!((recompute - cache).abs() < 2e-3, "recomputed teachers: {recompute}, cached {cache}");
    run.succeeds("dsom-soft-labels", &["--set", "soft_labels.top=32"]);
    let arguments = ["--device", &device_name(), "--soft-labels", "cache", "--name", "student-top"];
    run.fails("dsom-distill", &arguments, 2, &["keep only the top", "recompute"]);
}

#[test]
fn a_policy_learns_on_a_device_what_it_learns_on_the_cpu() {
    let run = Run::finished();
    for state in ["query", "scores"] {
        let choice = format!("distill.selection.state={state}");
        let student = |device: &str| {
            let chosen =
                ["--set", "distill.selection.hidden=32", "--set", &choice, "--set", "distill.epochs=5"];
            let arguments = [&["--device", device, "--force", "--soft-labels", "cache"], &chosen[..]];
            run.succeeds("dsom-distill", &arguments.concat());
            assert!(run.path("student/strategies.parquet").is_file());
            run.last_event("student")
        };
        let (found, expected) = (student(&device_name()), student("cpu"));
        for figure in ["/loss", "/distillation", "/with_advantage", "/strategies/structural"] {
            let (found, expected) = (number(&found, figure), number(&expected, figure));
            let near = 0.02 * expected.abs() + 0.02;
            assert!((found - expected).abs() < near, "{state}{figure}: {found}, {expected} on the CPU");
        }
    }
}

#[test]
fn other_backbones_and_the_senior_are_there_on_a_device() {
    let run = Run::finished();
    let student = |device: &str| {
        let chosen = ["distill.selection.kind=mulde", "distill.backbone=rotate", "distill.epochs=3"];
        let mut arguments = vec!["--device", device, "--force", "--soft-labels", "cache"];
        chosen.iter().for_each(|set| arguments.extend(["--set", set]));
        run.succeeds("dsom-distill", &arguments);
        number(&run.json("student/stage.json"), "/summary/valid_mrr")
    };
    let (found, expected) = (student(&device_name()), student("cpu"));
    assert!((found - expected).abs() < 2e-3, "rotate by MulDE: {found}, {expected} on the CPU");
}

#[test]
fn what_cannot_be_had_says_what_can() {
    let run = Run::finished();
    run.fails("dsom-teachers", &["--device", "gpu"], 2, &["`gpu` is no device", "cuda:N"]);
    assert!(run.path("student/stage.json").is_file());
    let output = run.output("dsom-teachers", &["--device", "cuda:99", "--force"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("make build-cuda") || said.contains("cuda:99") || said.contains("libcuda"),
        "{said}"
    );
    assert!(run.path("teachers/structural/stage.json").is_file());
}
