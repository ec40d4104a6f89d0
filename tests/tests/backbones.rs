//! Teachers and students that are no ComplEx, through the whole pipeline; and what is refused of them.

use dsom_tests::Run;

/// A teacher of each kind, one of a rank of its own, and students of the others.
const TEACHERS: [&str; 4] = [
    "--set=teachers.modality.structural.backbone=rotate",
    "--set=teachers.modality.textual.backbone=transe",
    "--set=teachers.modality.visual.backbone=tucker",
    "--set=teachers.modality.textual.rank=20",
];

fn replace(run: &Run, file: &str, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = run.bytes(file);
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("it says so");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    std::fs::write(run.path(file), bytes).expect("the file can be written");
}

#[test]
fn every_backbone_teaches_and_learns() {
    let run = Run::finished();
    let status = run.status("dsom-teachers", &TEACHERS);
    let stale = "stale: parameter `training.backbone` was \"complex\", now \"rotate\"\n";
    assert!(status.contains(stale), "{status}");
    run.succeeds("dsom-teachers", &TEACHERS);
    run.is_fresh("dsom-teachers", &TEACHERS);
    run.succeeds("dsom-soft-labels", &[]);
    run.distil("student", &["backbone=transe"], &[]);
    run.distil("student-rotate", &["backbone=rotate", "selection.state=scores"], &[]);
    run.distil("student-distmult", &["backbone=distmult"], &[]);
    run.distil("student-tucker", &["backbone=tucker", "term.kind=none"], &[]);
    run.succeeds("dsom-evaluate", &[]);
    let students = ["student", "student-rotate", "student-distmult", "student-tucker"];
    for model in students.iter().chain(&["structural", "textual", "visual", "average"]) {
        // A random order of 768 entities has an MRR of about 0.01; flags seen by a random encoder tell little more.
        let bound = if *model == "visual" { 0.02 } else { 0.03 };
        let mrr = run.figure(model, "/test/both/mrr");
        assert!(mrr > bound, "{model}: {mrr}");
    }
    let answer = run.succeeds("dsom-predict", &["Norway", "borders", "--why"]);
    assert!(answer.contains("(of 7 strategies)"), "{answer}");

    replace(&run, "student-rotate/stage.json", "\"rotate\"", "\"tucker\"");
    let asked = ["--model", "student-rotate", "--force"];
    run.fails("dsom-evaluate", &asked, 65, &["a rotate model, but stage.json says tucker"]);
    replace(&run, "student/model.safetensors", "transe", "rotate");
    run.record_anew("student", "model.safetensors");
    let words = ["student/model.safetensors", "`relation` is", "another backbone"];
    run.fails("dsom-evaluate", &["--model", "student", "--force"], 65, &words);
}

#[test]
fn what_a_backbone_cannot_be_is_refused_before_it_starts() {
    let run = Run::finished();
    let huge = ["--set=distill.backbone=tucker", "--set=distill.rank=1000000"];
    run.fails("dsom-distill", &huge, 71, &["memory", "`distill.rank`"]);
    assert!(run.path("student/stage.json").is_file(), "the earlier student is whole");
    // A distance has no place for nothing.
    let zero = ["--modality", "visual", "--set=teachers.backbone=rotate", "--set=teachers.absent=zero"];
    run.fails("dsom-teachers", &zero, 2, &["no features of `visual`", "set `teachers.absent`"]);
    assert!(run.path("teachers/visual/stage.json").is_file(), "the earlier teacher is whole");
}
