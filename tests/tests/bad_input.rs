//! Bad input gets an error that names the place, the documented exit code, and leaves earlier artifacts whole.

use dsom_tests::Run;
use std::path::Path;

/// Overwrites the four bytes at `at` from the file's end.
fn patch_tail(path: &Path, at: usize, value: f32) {
    let mut bytes = std::fs::read(path).expect("the file is there");
    let from = bytes.len() - at;
    bytes[from..from + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(path, bytes).expect("the file can be written");
}

fn truncate(path: &Path, keep: f64) {
    let bytes = std::fs::read(path).expect("the file is there");
    std::fs::write(path, &bytes[..(bytes.len() as f64 * keep) as usize]).expect("the file can be written");
}

#[test]
fn an_unknown_recipe_key_is_refused_by_every_stage_before_it_starts() {
    let run = Run::finished();
    for stage in dsom_tests::STAGES {
        run.fails(stage, &["--set", "distill.gama=4"], 2, &["`distill.gama`: no such key", "default.toml"]);
    }
    assert!(run.path("student/stage.json").is_file());
}

#[test]
fn a_recipe_file_is_refused_with_its_line() {
    let run = Run::new();
    let recipe = run.path("").with_file_name("recipe.toml");
    std::fs::write(&recipe, "seed = 1\n\n[teachers]\nrankk = 8\n").unwrap();
    let recipe = recipe.to_str().unwrap();
    run.fails(
        "dsom-teachers",
        &["--recipe", recipe],
        2,
        &["recipe.toml: line 4", "`teachers.rankk`: no such key"],
    );
}

#[test]
fn a_stage_without_its_input_says_what_to_run() {
    let run = Run::new();
    run.fails("dsom-teachers", &[], 66, &["graph", "has not finished", "run `dsom-import` first"]);
    run.succeeds("dsom-import", &[]);
    run.fails("dsom-soft-labels", &[], 66, &["no teacher has finished", "run `dsom-teachers`"]);
    run.fails("dsom-distill", &[], 66, &["soft-labels", "run `dsom-soft-labels` first"]);
}

#[test]
fn more_entities_than_there_are_cannot_be_kept() {
    let run = Run::finished();
    let top = ["--set", "soft_labels.top=769"];
    run.fails("dsom-soft-labels", &top, 2, &["`soft_labels.top` is 769, but the graph has 768 entities"]);
    assert!(run.path("soft-labels/stage.json").is_file(), "the earlier soft labels are whole");
}

#[test]
fn truncated_files_are_found() {
    for keep in [0.0, 0.5, 0.99] {
        let run = Run::finished();
        truncate(&run.path("graph/train.parquet"), keep);
        run.fails("dsom-teachers", &["--force"], 65, &["graph/train.parquet", "truncated or changed"]);
        let run = Run::finished();
        truncate(&run.path("teachers/visual/model.safetensors"), keep);
        run.fails(
            "dsom-evaluate",
            &["--force", "--model", "visual"],
            65,
            &["visual/model.safetensors", "truncated"],
        );
        assert!(run.path("evaluation/stage.json").is_file(), "the earlier evaluation is whole");
    }
}

#[test]
fn a_file_of_the_right_size_with_wrong_content_is_found() {
    let run = Run::finished();
    let model = run.path("teachers/visual/model.safetensors");
    let length = std::fs::metadata(&model).unwrap().len() as usize;
    std::fs::write(&model, vec![b'x'; length]).unwrap();
    run.fails(
        "dsom-soft-labels",
        &["--force"],
        65,
        &["visual/model.safetensors", "changed since `dsom-teachers` wrote it"],
    );
    assert!(run.path("soft-labels/stage.json").is_file(), "the earlier soft labels are whole");
    let part = run.path("soft-labels/part-00000.parquet");
    let length = std::fs::metadata(&part).unwrap().len() as usize;
    std::fs::write(&part, vec![b'x'; length]).unwrap();
    run.fails("dsom-soft-labels", &["--verify"], 65, &["part-00000.parquet", "its digest is not"]);
    run.fails("dsom-distill", &["--force"], 65, &["part-00000.parquet", "changed since"]);
    assert!(run.path("student/stage.json").is_file(), "the earlier student is whole");
}

#[test]
fn numbers_that_are_not_finite_are_named() {
    let run = Run::finished();
    // The file ends with the mask of present entities, one byte each, or with the last feature row.
    patch_tail(&run.path("features/visual/features.safetensors"), 4 * 1000, f32::NAN);
    run.record_anew("features/visual", "features.safetensors");
    let teacher = ["--force", "--modality", "visual"];
    run.fails("dsom-teachers", &teacher, 65, &["features/visual/features.safetensors", "row", "NaN"]);
    patch_tail(&run.path("student/model.safetensors"), 4, f32::INFINITY);
    run.record_anew("student", "model.safetensors");
    run.fails("dsom-evaluate", &["--force"], 65, &["student/model.safetensors", "not finite"]);
}

#[test]
fn training_that_diverges_keeps_what_was_there_before() {
    let run = Run::finished();
    let wild = ["--modality", "structural", "--set", "teachers.learning_rate=1e30"];
    run.fails("dsom-teachers", &wild, 70, &["no longer finite", "lower the learning rate"]);
    assert!(!run.path("teachers/structural/stage.json").exists());
    assert!(run.path("teachers/textual/stage.json").is_file());
}

#[test]
fn what_cannot_fit_is_refused_before_it_starts() {
    let run = Run::finished();
    let huge = ["--modality", "structural", "--set", "teachers.rank=1000000"];
    run.fails("dsom-teachers", &huge, 71, &["memory", "lower `teachers.batch` or `teachers.rank`"]);
    assert!(run.path("teachers/structural/stage.json").is_file(), "the earlier teacher is whole");
}

#[test]
fn a_folder_that_is_not_ours_is_left_alone() {
    let run = Run::finished();
    std::fs::create_dir_all(run.path("student-notes")).unwrap();
    std::fs::write(run.path("student-notes/thesis.txt"), "dear").unwrap();
    run.fails(
        "dsom-distill",
        &["--name", "student-notes"],
        2,
        &["student-notes", "not written by this pipeline"],
    );
    run.fails(
        "dsom-distill",
        &["--name", "../elsewhere"],
        2,
        &["a student's folder is `student` or `student-…`"],
    );
    assert!(run.path("student-notes/thesis.txt").is_file());
}
