//! Bad input gives an error with its place and the documented exit code, and leaves earlier artifacts complete.

use dsom_tests::readers::UntrustedFile;
use dsom_tests::{Run, ends, interrupted_at, root};

/// Changes the content of the file called `name` with `change`.
fn change(run: &Run, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = run.bytes(name);
    change(&mut bytes);
    std::fs::write(run.path(name), bytes).expect("the file can be written");
}

/// Overwrites the four bytes that begin `at` bytes before the file's end, as if the stage had written them.
fn patch_tail(run: &Run, folder: &str, name: &str, at: usize, value: f32) {
    change(run, &format!("{folder}/{name}"), |bytes| {
        let from = bytes.len() - at;
        bytes[from..from + 4].copy_from_slice(&value.to_le_bytes());
    });
    run.record_anew(folder, name);
}

#[test]
fn an_unknown_recipe_key_is_refused_by_every_stage_before_it_starts() {
    let run = Run::finished();
    for stage in dsom_tests::STAGES {
        run.fails(stage, &["--set=distill.gama=4"], 2, &["`distill.gama`: no such key", "default.toml"]);
    }
    run.are_whole(&["student"]);
    let recipe = run.path("").with_file_name("recipe.toml");
    std::fs::write(&recipe, "seed = 1\n\n[teachers]\nrankk = 8\n").unwrap();
    let words = ["recipe.toml: line 4", "`teachers.rankk`: no such key"];
    run.fails("dsom-teachers", &["--recipe", recipe.to_str().unwrap()], 2, &words);
}

#[test]
fn a_stage_without_its_input_says_what_to_run() {
    let run = Run::new();
    run.fails("dsom-teachers", &[], 66, &["graph", "has not finished", "run `dsom-import` first"]);
    run.succeeds("dsom-import", &[]);
    run.fails("dsom-teachers", &["--modality", "visual"], 66, &["run `dsom-features` first"]);
    run.fails("dsom-teachers", &["--modality", "visul"], 2, &["no modality `visul` among [features]"]);
    run.fails("dsom-soft-labels", &[], 66, &["no teacher has finished", "run `dsom-teachers`"]);
    run.fails("dsom-distill", &[], 66, &["soft-labels", "run `dsom-soft-labels` first"]);
}

#[test]
fn truncated_files_are_found() {
    for keep in [0.0, 0.5, 0.99] {
        let run = Run::finished();
        let truncate = |bytes: &mut Vec<u8>| bytes.truncate((bytes.len() as f64 * keep) as usize);
        change(&run, "graph/train.parquet", truncate);
        run.fails("dsom-teachers", &["--force"], 65, &["graph/train.parquet", "truncated or changed"]);
        let run = Run::finished();
        change(&run, "teachers/visual/model.safetensors", truncate);
        let visual = ["--force", "--model", "visual"];
        run.fails("dsom-evaluate", &visual, 65, &["visual/model.safetensors", "truncated"]);
        run.are_whole(&["evaluation"]);
    }
}

#[test]
fn a_file_of_the_right_size_with_wrong_content_is_found() {
    let run = Run::finished();
    change(&run, "teachers/visual/model.safetensors", |bytes| bytes.fill(b'x'));
    let words = ["visual/model.safetensors", "changed since `dsom-teachers` wrote it"];
    run.fails("dsom-soft-labels", &["--force"], 65, &words);
    run.fails("dsom-predict", &["France", "borders", "--model", "visual"], 65, &words);
    run.are_whole(&["soft-labels"]);
    change(&run, "soft-labels/part-00000.parquet", |bytes| bytes.fill(b'x'));
    run.fails("dsom-soft-labels", &["--verify"], 65, &["part-00000.parquet", "its digest is not"]);
    run.fails("dsom-distill", &["--force"], 65, &["part-00000.parquet", "changed since"]);
    run.are_whole(&["student"]);
}

#[cfg(unix)]
#[test]
fn the_best_model_of_an_interrupted_training_is_checked() {
    let run = Run::finished();
    let still = ["--set=distill.epochs=40", "--set=distill.patience=40", "--set=distill.learning_rate=1e-30"];
    interrupted_at(&run.path("student/checkpoint.safetensors"), &mut run.command("dsom-distill", &still));
    change(&run, "student/model.safetensors", |bytes| bytes.fill(b'x'));
    run.fails("dsom-distill", &still, 65, &["student/model.safetensors", "damaged", "--force"]);
}

#[cfg(target_os = "linux")]
#[test]
fn answers_that_cannot_be_written_are_an_error() {
    let run = Run::finished();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = run.command("dsom-predict", &["France", "borders"]).stdout(full).output().unwrap();
    ends(&output, 74, &["standard output"]);
}

#[test]
fn numbers_that_are_not_finite_are_named() {
    let run = Run::finished();
    // The file ends with the last feature row, or with the mask of present entities, one byte each.
    patch_tail(&run, "features/visual", "features.safetensors", 4 * 1000, f32::NAN);
    let teacher = ["--force", "--modality", "visual"];
    run.fails("dsom-teachers", &teacher, 65, &["features/visual/features.safetensors", "row", "NaN"]);
    patch_tail(&run, "student", "model.safetensors", 4, f32::INFINITY);
    run.fails("dsom-evaluate", &["--force"], 65, &["student/model.safetensors", "not finite"]);
}

#[test]
fn what_cannot_be_keeps_what_was_there_before() {
    let run = Run::finished();
    let top = ["--set=soft_labels.top=769"];
    run.fails("dsom-soft-labels", &top, 2, &["`soft_labels.top` is 769, but the graph has 768 entities"]);
    let huge = ["--modality", "structural", "--set=teachers.rank=1000000"];
    run.fails("dsom-teachers", &huge, 71, &["memory", "lower `teachers.batch` or `teachers.rank`"]);
    run.are_whole(&["soft-labels", "teachers/structural"]);
    let wild = ["--modality", "structural", "--set=teachers.learning_rate=1e30"];
    run.fails("dsom-teachers", &wild, 70, &["no longer finite", "lower the learning rate"]);
    assert!(!run.path("teachers/structural/stage.json").exists());
    run.are_whole(&["teachers/textual"]);
}

#[test]
fn a_folder_that_is_not_ours_is_left_alone() {
    let run = Run::finished();
    std::fs::create_dir_all(run.path("student-notes")).unwrap();
    std::fs::write(run.path("student-notes/thesis.txt"), "dear").unwrap();
    let words = ["student-notes", "not written by this pipeline"];
    run.fails("dsom-distill", &["--name", "student-notes"], 2, &words);
    let words = ["a student's folder is `student` or `student-…`"];
    run.fails("dsom-distill", &["--name", "../elsewhere"], 2, &words);
    assert!(run.path("student-notes/thesis.txt").is_file());
}

/// The corpus has the initial files of the fuzzing, and the smallest files that it found.
#[test]
fn every_reader_survives_the_corpus() {
    for kind in &UntrustedFile::ALL {
        let files = std::fs::read_dir(root().join("fuzz/corpus").join(kind.name)).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        assert!(!files.is_empty(), "{}", kind.name);
        files.iter().for_each(|file| kind.read(&std::fs::read(file).unwrap()));
    }
}
