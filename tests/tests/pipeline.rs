//! The pipeline from the raw dataset to the metrics: figures, freshness, staleness, the closed test split,
//! interruption, threads.

use dsom_tests::{Run, STAGES, copy_folder, said, terminate, wait_for};
use serde_json::Value;

fn bytes(run: &Run, name: &str) -> Vec<u8> {
    std::fs::read(run.path(name)).expect("the stage wrote the file")
}

#[test]
fn it_ends_with_metrics_far_above_chance() {
    let run = Run::finished();
    let metrics = run.json("evaluation/metrics.json");
    let number = |path: &str| {
        let value = metrics.pointer(path).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("metrics.json has no {path}"))
    };
    for split in ["test", "valid"] {
        for side in ["both", "head", "tail"] {
            for figure in ["mrr", "mr", "hits_at_1", "hits_at_3", "hits_at_10"] {
                number(&format!("/{split}/{side}/{figure}"));
            }
        }
        let rules = ["optimistic", "pessimistic"].map(|rule| number(&format!("/{split}/both/{rule}/mrr")));
        assert!(
            rules[0] >= number(&format!("/{split}/both/mrr"))
                && number(&format!("/{split}/both/mrr")) >= rules[1]
        );
    }
    // A random order of 768 entities has an MRR of about 0.01.
    assert!(number("/test/both/mrr") > 0.2, "{}", number("/test/both/mrr"));
    assert_eq!(metrics["model"], "student");
    for model in ["average", "structural", "textual", "visual"] {
        run.figure(model, "/test/both/mrr");
    }
}

#[test]
fn evaluation_agrees_with_training_about_validation() {
    let run = Run::finished();
    for (model, folder) in
        [("student", "student"), ("structural", "teachers/structural"), ("visual", "teachers/visual")]
    {
        let trained =
            run.json(&format!("{folder}/stage.json"))["summary"]["valid_mrr"].as_f64().expect("a number");
        let evaluated = run.figure(model, "/valid/both/mrr");
        assert!((trained - evaluated).abs() < 1e-9, "{model}: {trained} while training, {evaluated} here");
    }
}

#[test]
fn every_stage_is_fresh_afterwards_and_does_nothing() {
    let run = Run::finished();
    for stage in STAGES {
        let status = run.status(stage, &[]);
        assert!(
            status.lines().count() > 0 && status.lines().all(|line| line.ends_with(" fresh")),
            "{stage}: {status}"
        );
        assert!(said(&run.output(stage, &[])).contains("is fresh"), "{stage}");
    }
}

#[test]
fn a_changed_parameter_makes_exactly_the_later_stages_stale() {
    let run = Run::finished();
    let changed = ["--set", "distill.term.gamma=4"];
    for stage in &STAGES[..4] {
        assert!(run.status(stage, &changed).lines().all(|line| line.ends_with(" fresh")), "{stage}");
    }
    let status = run.status("dsom-distill", &changed);
    assert!(status.contains("stale: parameter `term.gamma` was 8.0, now 4.0"), "{status}");
    run.succeeds("dsom-distill", &changed);
    assert!(run.status("dsom-distill", &changed).contains("fresh"));
    let status = run.status("dsom-evaluate", &changed);
    assert!(status.contains("stale: input `student/model.safetensors` changed"), "{status}");
}

#[test]
fn a_stage_rerun_high_up_reaches_all_below_it() {
    let run = Run::finished();
    let changed = ["--set", "teachers.n3=0.05"];
    run.succeeds("dsom-teachers", &[&changed[..], &["--modality", "textual"]].concat());
    let soft_labels = run.status("dsom-soft-labels", &changed);
    assert!(
        soft_labels.contains("stale: input `teachers/textual/model.safetensors` changed"),
        "{soft_labels}"
    );
    let student = run.status("dsom-distill", &changed);
    assert!(student.contains("its input stage `soft-labels` is stale"), "{student}");
    for stage in ["dsom-import", "dsom-features"] {
        assert!(run.status(stage, &changed).lines().all(|line| line.ends_with(" fresh")), "{stage}");
    }
}

#[test]
fn only_the_evaluation_opens_the_test_split() {
    let run = Run::new();
    run.succeeds("dsom-import", &[]);
    std::fs::write(run.path("graph/test.parquet"), "no Parquet at all").unwrap();
    for stage in &STAGES[1..5] {
        run.succeeds(stage, &["--set", "teachers.epochs=1", "--set", "distill.epochs=1"]);
    }
    run.fails("dsom-evaluate", &[], 65, &["graph/test.parquet", "truncated or changed"]);
}

#[test]
fn killed_training_continues_to_the_same_bytes() {
    let long = ["--set", "teachers.epochs=120", "--set", "teachers.patience=120", "--modality", "structural"];
    let whole = Run::finished();
    whole.succeeds("dsom-teachers", &long);
    let killed = Run::finished();
    let mut child = killed.command("dsom-teachers", &long).spawn().unwrap();
    wait_for(&killed.path("teachers/structural/checkpoint.safetensors"), &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !killed.path("teachers/structural/stage.json").exists(),
        "it was killed too late to show anything"
    );
    assert!(killed.status("dsom-teachers", &long).contains("incomplete"));
    let output = killed.output("dsom-teachers", &long);
    assert!(said(&output).contains("continues after epoch"), "{}", said(&output));
    let model = "teachers/structural/model.safetensors";
    assert!(bytes(&killed, model) == bytes(&whole, model), "the resumed model differs");
}

#[cfg(unix)]
#[test]
fn an_interrupted_student_says_so_and_continues_to_the_same_bytes() {
    let long = ["--set", "distill.epochs=40", "--set", "distill.patience=40"];
    let whole = Run::finished();
    whole.succeeds("dsom-distill", &long);
    let run = Run::finished();
    let mut child = run.command("dsom-distill", &long).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_for(&run.path("student/checkpoint.safetensors"), &mut child);
    terminate(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert!(said(&output).contains("run the same command again"), "{}", said(&output));
    assert!(run.status("dsom-distill", &long).contains("to be continued"));
    assert!(run.status("dsom-distill", &["--set", "distill.epochs=2"]).contains("to be done anew"));
    assert!(said(&run.output("dsom-distill", &long)).contains("continues after epoch"));
    for file in ["student/model.safetensors", "student/policy.safetensors", "student/strategies.parquet"] {
        assert!(bytes(&run, file) == bytes(&whole, file), "{file} differs");
    }
}

#[test]
fn hidden_modalities_are_recorded_and_go_through_the_pipeline() {
    let run = Run::finished();
    let summary = |run: &Run| -> Value { run.json("teachers/visual/stage.json") };
    let present = |run: &Run| summary(run)["summary"]["present"].as_u64().expect("a count");
    let all = present(&run);
    let hide = ["--modality", "visual", "--missing-rate", "0.5", "--missing-seed", "3"];
    for absent in ["zero", "learned", "noise"] {
        let strategy = format!("teachers.absent={absent}");
        run.succeeds("dsom-teachers", &[&hide[..], &["--set", &strategy]].concat());
        let left = present(&run);
        assert!(left > all / 4 && left < all * 3 / 4, "{absent}: {left} of {all}");
    }
    assert_eq!(summary(&run)["parameters"]["missing"], serde_json::json!({ "rate": 0.5, "seed": 3 }));
    assert_eq!(summary(&run)["summary"]["hidden"].as_u64(), Some(all - present(&run)));
    for stage in ["dsom-features", "dsom-soft-labels", "dsom-distill", "dsom-evaluate"] {
        run.succeeds(stage, &[]);
    }
    run.figure("visual", "/test/both/mrr");
}

#[test]
fn a_lossy_cache_goes_through_the_pipeline() {
    let runs = [Run::finished(), Run::finished()];
    let lossy = ["--set", "soft_labels.top=16"];
    let whole = bytes(&runs[0], "soft-labels/part-00000.parquet").len();
    let status = runs[0].status("dsom-soft-labels", &lossy);
    assert!(status.contains("stale: parameter `top` was 0, now 16"), "{status}");
    for (run, threads) in runs.iter().zip(["1", "2"]) {
        run.succeeds("dsom-soft-labels", &[&lossy[..], &["--threads", threads]].concat());
        run.succeeds("dsom-soft-labels", &["--verify"]);
        for (name, state) in [("student", "query"), ("student-scores", "scores")] {
            let state = format!("distill.selection.state={state}");
            run.succeeds("dsom-distill", &["--set", &state, "--name", name, "--threads", threads]);
        }
        run.succeeds("dsom-evaluate", &[]);
    }
    let part = bytes(&runs[0], "soft-labels/part-00000.parquet");
    assert!(part.len() < whole / 3, "{} of {whole} bytes", part.len());
    assert!(part == bytes(&runs[1], "soft-labels/part-00000.parquet"), "the cache depends on threads");
    for name in ["student", "student-scores"] {
        let model = format!("{name}/model.safetensors");
        assert!(bytes(&runs[0], &model) == bytes(&runs[1], &model), "{name} depends on threads");
        let mrr = runs[0].figure(name, "/test/both/mrr");
        assert!(mrr > 0.2, "{name}: {mrr}");
    }
}

#[test]
fn shards_of_soft_labels_merge_to_the_same_bytes() {
    let (whole, sharded) = (Run::finished(), Run::finished());
    let small = |more: &[&'static str]| [&["--set", "soft_labels.rows_per_file=100"][..], more].concat();
    whole.succeeds("dsom-soft-labels", &small(&[]));
    for shard in ["1/3", "3/3"] {
        sharded.succeeds("dsom-soft-labels", &small(&["--shard", shard]));
    }
    sharded.fails("dsom-soft-labels", &small(&["--merge", "3"]), 66, &["shard-2-of-3", "shard is absent"]);
    sharded.succeeds("dsom-soft-labels", &small(&["--shard", "2/3"]));
    // A file that is no longer what the shard wrote does not become one of the whole.
    let part = sharded.path("soft-labels.shard-2-of-3/part-00001.parquet");
    let kept = std::fs::read(&part).unwrap();
    let modified = std::fs::metadata(&part).unwrap().modified().unwrap();
    let write = |bytes: &[u8]| {
        std::fs::write(&part, bytes).unwrap();
        std::fs::File::options().write(true).open(&part).unwrap().set_modified(modified).unwrap();
    };
    write(&vec![0; kept.len()]);
    sharded.fails(
        "dsom-soft-labels",
        &small(&["--merge", "3"]),
        65,
        &["part-00001.parquet", "changed since"],
    );
    write(&kept);
    let (shard, copy) = (sharded.path("soft-labels.shard-2-of-3"), sharded.path("copy"));
    copy_folder(&shard, &copy);
    sharded.succeeds("dsom-soft-labels", &small(&["--merge", "3"]));
    let outputs = |run: &Run| run.json("soft-labels/stage.json")["outputs"].clone();
    assert!(outputs(&whole).as_array().unwrap().len() > 3);
    assert_eq!(outputs(&whole), outputs(&sharded));
    sharded.succeeds("dsom-soft-labels", &["--verify"]);
    assert!(sharded.status("dsom-soft-labels", &small(&[])).contains("fresh"));
    // The shards are gone, and are not made anew for what is done.
    let again = sharded.output("dsom-soft-labels", &small(&["--shard", "2/3"]));
    assert!(said(&again).contains("needs no shard"), "{}", said(&again));
    assert!(!shard.exists());
    assert!(sharded.status("dsom-soft-labels", &small(&["--shard", "2/3"])).contains("absent"));
    sharded.succeeds("dsom-soft-labels", &small(&["--shard", "2/3", "--force"]));
    assert!(shard.exists());
    std::fs::remove_dir_all(&shard).unwrap();
    // One that a killed call left goes as well.
    std::fs::rename(&copy, &shard).unwrap();
    sharded.succeeds("dsom-soft-labels", &small(&["--merge", "3"]));
    assert!(!shard.exists());
}

#[test]
fn outputs_do_not_depend_on_the_number_of_threads() {
    let (one, two) = (Run::finished(), Run::finished());
    for (run, threads) in [(&one, "1"), (&two, "2")] {
        for stage in &STAGES[1..] {
            run.succeeds(stage, &["--force", "--threads", threads]);
        }
    }
    let files = [
        "features/textual/features.safetensors",
        "features/visual/features.safetensors",
        "teachers/visual/model.safetensors",
        "soft-labels/part-00000.parquet",
        "student/model.safetensors",
        "student/policy.safetensors",
        "student/strategies.parquet",
        "evaluation/ranks.parquet",
        "evaluation/metrics.json",
    ];
    for file in files {
        assert!(bytes(&one, file) == bytes(&two, file), "{file} differs");
    }
}

#[test]
fn what_absent_entities_are_does_not_concern_the_structural_teacher() {
    let run = Run::finished();
    let status = run.status("dsom-teachers", &["--set", "teachers.absent=zero"]);
    assert_eq!(
        status.matches("stale: parameter `absent` was \"learned\", now \"zero\"").count(),
        2,
        "{status}"
    );
    assert!(status.lines().any(|line| line.contains("structural") && line.ends_with(" fresh")), "{status}");
}
