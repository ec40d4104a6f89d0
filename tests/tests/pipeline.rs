//! The pipeline from the raw dataset to the metrics: figures, freshness, staleness, the closed test split, interruption
//! and threads; and a new graph in five files, as the README explains.

use dsom_tests::{Run, STAGES, copy_folder, ends, interrupted_at, number, program, wait_for};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use std::process::Output;

#[test]
fn it_ends_with_metrics_far_above_chance() {
    let run = Run::finished();
    let metrics = run.json("evaluation/metrics.json");
    let number = |path: &str| number(&metrics, path);
    for split in ["test", "valid"] {
        for side in ["both", "head", "tail"] {
            for figure in ["mrr", "mr", "hits_at_1", "hits_at_3", "hits_at_10"] {
                number(&format!("/{split}/{side}/{figure}"));
            }
        }
        let rules = ["optimistic/mrr", "mrr", "pessimistic/mrr"];
        assert!(rules.map(|rule| number(&format!("/{split}/both/{rule}"))).is_sorted_by(|a, b| a >= b));
    }
    // A random order of 768 entities has an MRR of about 0.01.
    assert!(number("/test/both/mrr") > 0.2, "{}", number("/test/both/mrr"));
    assert_eq!(metrics["model"], "student");
    run.figure("average", "/test/both/mrr");
    for (model, folder) in [
        ("student", "student"),
        ("structural", "teachers/structural"),
        ("textual", "teachers/textual"),
        ("visual", "teachers/visual"),
    ] {
        run.figure(model, "/test/both/mrr");
        let trained = dsom_tests::number(&run.json(&format!("{folder}/stage.json")), "/summary/valid_mrr");
        let evaluated = run.figure(model, "/valid/both/mrr");
        assert!((trained - evaluated).abs() < 1e-9, "{model}: {trained} while training, {evaluated} here");
    }
}

#[test]
fn every_stage_is_fresh_afterwards_and_does_nothing() {
    let run = Run::finished();
    for stage in STAGES {
        run.is_fresh(stage, &[]);
        assert!(run.succeeds(stage, &[]).contains("is fresh"), "{stage}");
    }
}

#[test]
fn a_changed_parameter_makes_exactly_the_later_stages_stale() {
    let run = Run::finished();
    let changed = ["--set=distill.term.gamma=4"];
    STAGES[..4].iter().for_each(|stage| run.is_fresh(stage, &changed));
    let status = run.status("dsom-distill", &changed);
    assert!(status.contains("stale: parameter `term.gamma` was 8.0, now 4.0"), "{status}");
    run.succeeds("dsom-distill", &changed);
    run.is_fresh("dsom-distill", &changed);
    let status = run.status("dsom-evaluate", &changed);
    assert!(status.contains("stale: input `student/model.safetensors` changed"), "{status}");
    // The treatment of absent entities does not affect the structural teacher.
    let status = run.status("dsom-teachers", &["--set=teachers.absent=zero"]);
    let stale = status.matches("stale: parameter `absent` was \"learned\", now \"zero\"").count();
    let structural = status.lines().find(|line| line.contains("structural")).expect("a teacher");
    assert!(stale == 2 && structural.ends_with(" fresh"), "{status}");
}

#[test]
fn a_stage_rerun_high_up_reaches_all_below_it() {
    let run = Run::finished();
    let changed = "--set=teachers.n3=0.05";
    run.succeeds("dsom-teachers", &[changed, "--modality", "textual"]);
    let status = run.status("dsom-soft-labels", &[changed]);
    assert!(status.contains("stale: input `teachers/textual/model.safetensors` changed"), "{status}");
    let status = run.status("dsom-distill", &[changed]);
    assert!(status.contains("its input stage `soft-labels` is stale"), "{status}");
    STAGES[..2].iter().for_each(|stage| run.is_fresh(stage, &[changed]));
}

#[test]
fn only_the_evaluation_opens_the_test_split() {
    let run = Run::new();
    run.succeeds("dsom-import", &[]);
    std::fs::write(run.path("graph/test.parquet"), "no Parquet at all").unwrap();
    for stage in &STAGES[1..5] {
        run.succeeds(stage, &["--set=teachers.epochs=1", "--set=distill.epochs=1"]);
    }
    run.fails("dsom-evaluate", &[], 65, &["graph/test.parquet", "truncated or changed"]);
}

#[test]
fn killed_training_continues_to_the_same_bytes() {
    let long = ["--set=teachers.epochs=120", "--set=teachers.patience=120", "--modality", "structural"];
    let whole = Run::finished();
    whole.succeeds("dsom-teachers", &long);
    let killed = Run::finished();
    let mut child = killed.command("dsom-teachers", &long).spawn().unwrap();
    wait_for(&killed.path("teachers/structural/checkpoint.safetensors"), &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!killed.path("teachers/structural/stage.json").exists(), "it was killed too late");
    assert!(killed.status("dsom-teachers", &long).contains("incomplete"));
    let said = killed.succeeds("dsom-teachers", &long);
    assert!(said.contains("continues after epoch"), "{said}");
    let model = "teachers/structural/model.safetensors";
    assert!(killed.bytes(model) == whole.bytes(model), "the resumed model differs");
}

#[cfg(unix)]
#[test]
fn an_interrupted_student_says_so_and_continues_to_the_same_bytes() {
    let long = ["--set=distill.epochs=40", "--set=distill.patience=40"];
    let (whole, run) = (Run::finished(), Run::finished());
    whole.succeeds("dsom-distill", &long);
    let mut command = run.command("dsom-distill", &long);
    let said = interrupted_at(&run.path("student/checkpoint.safetensors"), &mut command);
    assert!(said.contains("run the same command again"), "{said}");
    assert!(run.status("dsom-distill", &long).contains("to be continued"));
    assert!(run.status("dsom-distill", &["--set=distill.epochs=2"]).contains("to be done anew"));
    assert!(run.succeeds("dsom-distill", &long).contains("continues after epoch"));
    for file in ["student/model.safetensors", "student/policy.safetensors", "student/strategies.parquet"] {
        assert!(run.bytes(file) == whole.bytes(file), "{file} differs");
    }
}

#[test]
fn hidden_modalities_are_recorded_and_go_through_the_pipeline() {
    let run = Run::finished();
    let present = || run.json("teachers/visual/stage.json")["summary"]["present"].as_u64().expect("a count");
    let all = present();
    let hide = ["--modality", "visual", "--missing-rate", "0.5", "--missing-seed", "3"];
    for absent in ["zero", "learned", "noise"] {
        run.succeeds("dsom-teachers", &[&hide[..], &[&format!("--set=teachers.absent={absent}")]].concat());
        let left = present();
        assert!(left > all / 4 && left < all * 3 / 4, "{absent}: {left} of {all}");
    }
    let manifest = run.json("teachers/visual/stage.json");
    assert_eq!(manifest["parameters"]["missing"], serde_json::json!({ "rate": 0.5, "seed": 3 }));
    assert_eq!(manifest["summary"]["hidden"].as_u64(), Some(all - present()));
    for stage in ["dsom-features", "dsom-soft-labels", "dsom-distill", "dsom-evaluate"] {
        run.succeeds(stage, &[]);
    }
    run.figure("visual", "/test/both/mrr");
}

#[test]
fn a_lossy_cache_goes_through_the_pipeline() {
    let runs = [Run::finished(), Run::finished()];
    let lossy = "--set=soft_labels.top=16";
    let whole = runs[0].bytes("soft-labels/part-00000.parquet").len();
    let status = runs[0].status("dsom-soft-labels", &[lossy]);
    assert!(status.contains("stale: parameter `top` was 0, now 16"), "{status}");
    for (run, threads) in runs.iter().zip(["1", "2"]) {
        run.succeeds("dsom-soft-labels", &[lossy, "--threads", threads]);
        run.succeeds("dsom-soft-labels", &["--verify"]);
        for (name, state) in [("student", "query"), ("student-scores", "scores")] {
            run.distil(name, &[&format!("selection.state={state}")], &["--threads", threads]);
        }
        run.succeeds("dsom-evaluate", &[]);
    }
    let [one, two] = [&runs[0], &runs[1]].map(|run| run.bytes("soft-labels/part-00000.parquet"));
    assert!(one.len() < whole / 3, "{} of {whole} bytes", one.len());
    assert!(one == two, "the cache depends on threads");
    for name in ["student", "student-scores"] {
        let model = format!("{name}/model.safetensors");
        assert!(runs[0].bytes(&model) == runs[1].bytes(&model), "{name} depends on threads");
        let mrr = runs[0].figure(name, "/test/both/mrr");
        assert!(mrr > 0.2, "{name}: {mrr}");
    }
}

#[test]
fn shards_of_soft_labels_merge_to_the_same_bytes() {
    let (whole, sharded) = (Run::finished(), Run::finished());
    let small = |more: &[&'static str]| [&["--set=soft_labels.rows_per_file=100"][..], more].concat();
    whole.succeeds("dsom-soft-labels", &small(&[]));
    for shard in ["1/3", "3/3"] {
        sharded.succeeds("dsom-soft-labels", &small(&["--shard", shard]));
    }
    sharded.fails("dsom-soft-labels", &small(&["--merge", "3"]), 66, &["shard-2-of-3", "shard is absent"]);
    sharded.succeeds("dsom-soft-labels", &small(&["--shard", "2/3"]));
    // A file that differs from the shard's output is not merged.
    let part = sharded.path("soft-labels.shard-2-of-3/part-00001.parquet");
    let (kept, metadata) = (std::fs::read(&part).unwrap(), std::fs::metadata(&part).unwrap());
    let write = |bytes: &[u8]| {
        std::fs::write(&part, bytes).unwrap();
        let file = std::fs::File::options().write(true).open(&part).unwrap();
        file.set_modified(metadata.modified().unwrap()).unwrap();
    };
    let merge = small(&["--merge", "3"]);
    write(&vec![0; kept.len()]);
    sharded.fails("dsom-soft-labels", &merge, 65, &["part-00001.parquet", "changed since"]);
    write(&kept);
    let (shard, copy) = (sharded.path("soft-labels.shard-2-of-3"), sharded.path("copy"));
    copy_folder(&shard, &copy);
    sharded.succeeds("dsom-soft-labels", &merge);
    let outputs = |run: &Run| run.json("soft-labels/stage.json")["outputs"].clone();
    assert!(outputs(&whole).as_array().unwrap().len() > 3);
    assert_eq!(outputs(&whole), outputs(&sharded));
    sharded.succeeds("dsom-soft-labels", &["--verify"]);
    assert!(sharded.status("dsom-soft-labels", &small(&[])).contains("fresh"));
    // The shards are gone, and a finished whole does not need them again.
    let again = sharded.succeeds("dsom-soft-labels", &small(&["--shard", "2/3"]));
    assert!(again.contains("needs no shard"), "{again}");
    assert!(!shard.exists());
    assert!(sharded.status("dsom-soft-labels", &small(&["--shard", "2/3"])).contains("absent"));
    sharded.succeeds("dsom-soft-labels", &small(&["--shard", "2/3", "--force"]));
    assert!(shard.exists());
    std::fs::remove_dir_all(&shard).unwrap();
    // A shard that a killed call left is removed, too.
    std::fs::rename(&copy, &shard).unwrap();
    sharded.succeeds("dsom-soft-labels", &merge);
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
    for file in [
        "features/textual/features.safetensors",
        "features/visual/features.safetensors",
        "teachers/visual/model.safetensors",
        "soft-labels/part-00000.parquet",
        "student/model.safetensors",
        "student/policy.safetensors",
        "student/strategies.parquet",
        "evaluation/ranks.parquet",
        "evaluation/metrics.json",
    ] {
        assert!(one.bytes(file) == two.bytes(file), "{file} differs");
    }
}

/// Writes a graph of thirty composers of three periods, their teachers and their works, invented for this test.
fn write_graph(folder: &Path) {
    let (mut entities, mut facts) = ("key\tname\tdescription\n".to_owned(), Vec::new());
    for period in ["baroque", "classical", "romantic"] {
        let _ = writeln!(entities, "{period}\t{period} music\tA period.");
    }
    for i in 0..30 {
        let _ = writeln!(entities, "c{i}\tComposer {i}\tWrote work {i}.");
        let _ = writeln!(entities, "w{i}\tWork {i}\tA piece.");
        let period = ["baroque", "classical", "romantic"][i % 3];
        facts.push(format!("c{i}\tof_period\t{period}\n"));
        facts.push(format!("c{i}\twrote\tw{i}\n"));
        facts.push(format!("w{i}\tin_style\t{period}\n"));
        facts.push(format!("c{i}\ttaught\tc{}\n", (i + 3) % 30));
    }
    let split = |rest: &dyn Fn(usize) -> bool| -> String {
        facts.iter().enumerate().filter(|(i, _)| rest(*i)).map(|(_, fact)| fact.as_str()).collect()
    };
    // Each composer has four facts: the period of some composers is held out, and the style of some works of others.
    let is_valid = |i: usize| i.is_multiple_of(4) && i / 4 % 5 == 2;
    let is_test = |i: usize| i % 4 == 2 && i / 4 % 5 == 4;
    let relations = "key\tname\nof_period\tperiod\nwrote\twrote\nin_style\tstyle\ntaught\ttaught\n";
    let recipe = "[import]\nname = \"Composers\"\nentities = \"entities.tsv\"\nrelations = \"relations.tsv\"\n\
                  [teachers]\nrank = 16\n[distill]\nrank = 16\nselection.hidden = 16\n\
                  [features.textual]\nfrom = \"text\"\nfields = [\"name\", \"description\"]\nencoder = \"random\"\n";
    for (name, content) in [
        ("composers.toml", recipe.to_owned()),
        ("entities.tsv", entities),
        ("relations.tsv", relations.to_owned()),
        ("train.tsv", split(&|i| !is_valid(i) && !is_test(i))),
        ("valid.tsv", split(&is_valid)),
        ("test.tsv", split(&is_test)),
    ] {
        std::fs::write(folder.join(name), content).expect("a temporary folder can be written");
    }
}

#[test]
fn five_files_become_a_student_that_answers() {
    let folder = tempfile::tempdir().unwrap();
    write_graph(folder.path());
    let (run, recipe) = (folder.path().join("run"), folder.path().join("composers.toml"));
    let call = |name: &str, more: &[&str]| -> Output {
        let output = program(name).arg("--run").arg(&run).args(more).output().unwrap();
        ends(&output, 0, &[]);
        output
    };
    let arguments = ["--recipe", recipe.to_str().unwrap(), "--raw", folder.path().to_str().unwrap()];
    for stage in STAGES {
        call(stage, if stage == "dsom-import" { &arguments } else { &arguments[..2] });
    }
    // Work 4 is by composer 4, who is classical; its style is a test fact. `--range` allows only styles.
    let answer = call("dsom-predict", &["Work 4", "style", "--range", "--json"]).stdout;
    let first = answer.split(|byte| *byte == b'\n').next().unwrap();
    let first: Value = serde_json::from_slice(first).unwrap();
    assert_eq!(first["tail_key"], "classical");
}
