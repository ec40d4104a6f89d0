//! `--device`: compares the stages on candle's tensors, on its CPU device, with the stages on the hand-written engine.
//! `DSOM_TEST_DEVICE=cuda`, with programs built for it, makes the same comparison on a GPU.

use dsom_tests::{Run, ends, number};
use serde_json::Value;

const ON_DEVICE: [&str; 4] = ["dsom-teachers", "dsom-soft-labels", "dsom-distill", "dsom-evaluate"];

fn device_name() -> String {
    std::env::var("DSOM_TEST_DEVICE").unwrap_or_else(|_| "candle".to_owned())
}

/// Trains the student again on a device; returns its last epoch and its validation MRR.
fn student(run: &Run, device: &str, keys: &[&str]) -> (Value, f64) {
    run.distil("student", keys, &["--device", device, "--force", "--soft-labels", "cache"]);
    (run.last_event("student"), number(&run.json("student/stage.json"), "/summary/valid_mrr"))
}

/// Asserts that a figure on the device equals that on the CPU, except for the order of additions.
fn assert_near(found: f64, expected: f64, tolerance: f64, what: &str) {
    let near = (found - expected).abs() < tolerance;
    assert!(near, "{what}: {found} on the device, {expected} on the CPU");
}

#[test]
fn the_pipeline_on_a_device_ends_where_it_does_on_the_cpu() {
    let (cpu, device) = (Run::finished(), Run::finished());
    for stage in ON_DEVICE {
        let said = device.succeeds(stage, &["--device", &device_name(), "--force"]);
        assert!(said.contains("device: ") && !said.contains("device: cpu"), "{stage}: {said}");
    }
    // The device trains the same model with another order of additions: ranks of a few triples may change.
    for folder in ["teachers/structural", "teachers/textual", "teachers/visual", "student"] {
        let [found, expected] = [&device, &cpu].map(|run| run.json(&format!("{folder}/stage.json")));
        let products = found["summary"]["products"].as_str().unwrap_or_default();
        assert!(products.starts_with("f32 by "), "{folder}: {products}");
        let mrr = "/summary/valid_mrr";
        assert_near(number(&found, mrr), number(&expected, mrr), 0.03, folder);
    }
    for model in ["student", "average", "structural", "textual", "visual"] {
        let [found, expected] = [&device, &cpu].map(|run| run.figure(model, "/test/both/mrr"));
        assert_near(found, expected, 0.03, model);
    }
    // Another device is no reason to compute the stages again.
    ON_DEVICE.iter().for_each(|stage| device.is_fresh(stage, &["--device", "cpu"]));
}

#[test]
fn ranks_and_soft_labels_of_one_model_are_those_of_the_cpu() {
    let (cpu, device) = (Run::finished(), Run::finished());
    device.succeeds("dsom-evaluate", &["--device", &device_name(), "--force"]);
    for figure in ["mrr", "hits_at_1", "hits_at_10"] {
        let path = format!("/test/both/{figure}");
        let [found, expected] = [&device, &cpu].map(|run| run.figure("student", &path));
        assert_near(found, expected, 2e-3, figure);
    }
    device.succeeds("dsom-soft-labels", &["--device", &device_name(), "--force"]);
    device.succeeds("dsom-soft-labels", &["--verify"]);
}

#[test]
fn a_student_takes_its_teachers_from_the_cache_or_their_models() {
    let (run, device) = (Run::finished(), device_name());
    let [cache, recompute, _] = [("cache", ""), ("recompute", "computed anew"), ("auto", "computed anew")]
        .map(|(from, words)| {
            // All students have the same name, because the name decides their initial values.
            let arguments = ["--device", &device, "--force", "--soft-labels", from];
            let three = ["--set=distill.epochs=3", "--set=distill.selection.kind=all"];
            ends(&run.output("dsom-distill", &[&arguments[..], &three].concat()), 0, &[words]);
            number(&run.json("student/stage.json"), "/summary/valid_mrr")
        });
    // The two differ only by half precision.
    assert_near(recompute, cache, 2e-3, "recomputed teachers beside the cache");
    run.succeeds("dsom-soft-labels", &["--set=soft_labels.top=32"]);
    let arguments = ["--device", &device, "--soft-labels", "cache", "--name", "student-top"];
    run.fails("dsom-distill", &arguments, 2, &["keep only the top", "recompute"]);
    let model = "teachers/structural/model.safetensors";
    let mut bytes = run.bytes(model);
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(run.path(model), bytes).unwrap();
    let arguments = ["--device", &device, "--name", "student-top"];
    run.fails("dsom-distill", &arguments, 65, &[model, "its digest is not the one"]);
}

#[test]
fn a_policy_learns_on_a_device_what_it_learns_on_the_cpu() {
    let run = Run::finished();
    for state in ["query", "scores"] {
        let keys = [&format!("selection.state={state}"), "selection.hidden=32", "epochs=5"];
        let [(found, _), (expected, _)] = [&*device_name(), "cpu"].map(|device| {
            let last = student(&run, device, &keys);
            assert!(run.path("student/strategies.parquet").is_file());
            last
        });
        for figure in ["/loss", "/distillation", "/with_advantage", "/strategies/structural"] {
            let (found, expected) = (number(&found, figure), number(&expected, figure));
            assert_near(found, expected, 0.02 * expected.abs() + 0.02, &format!("{state}{figure}"));
        }
    }
}

#[test]
fn other_backbones_and_the_senior_are_there_on_a_device() {
    let run = Run::finished();
    let keys = ["selection.kind=mulde", "backbone=rotate", "epochs=3"];
    let [(_, found), (_, expected)] = [&*device_name(), "cpu"].map(|device| student(&run, device, &keys));
    assert_near(found, expected, 2e-3, "rotate by MulDE");
}

#[test]
fn what_cannot_be_had_says_what_can() {
    let run = Run::finished();
    run.fails("dsom-teachers", &["--device", "gpu"], 2, &["`gpu` is no device", "cuda:N"]);
    run.are_whole(&["student"]);
    let said = ends(&run.output("dsom-teachers", &["--device", "cuda:99", "--force"]), 2, &[]);
    assert!(["make build-cuda", "cuda:99", "libcuda"].iter().any(|words| said.contains(words)), "{said}");
    run.are_whole(&["teachers/structural"]);
}
