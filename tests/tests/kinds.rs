//! Every kind of backbone, selection and ensemble goes through the pipeline; invalid combinations are refused.

use dsom_tests::{Run, interrupted_at, number};

/// Teachers of three backbones; one teacher has its own rank.
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
        // A random order of 768 entities has an MRR of about 0.01; features of flags by a random encoder add little.
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
    run.are_whole(&["student"]);
    // A distance gives a zero vector no neutral place.
    let zero = ["--modality", "visual", "--set=teachers.backbone=rotate", "--set=teachers.absent=zero"];
    run.fails("dsom-teachers", &zero, 2, &["no features of `visual`", "set `teachers.absent`"]);
    run.are_whole(&["teachers/visual"]);
}

fn shares(run: &Run, name: &str) -> Vec<(String, f64)> {
    let last = run.last_event(name);
    let shares = last["strategies"].as_object().expect("shares");
    shares.iter().map(|(name, share)| (name.clone(), share.as_f64().expect("a number"))).collect()
}

fn test_mrr(run: &Run, model: &str) -> f64 {
    run.succeeds("dsom-evaluate", &["--model", model, "--split", "test"]);
    run.figure(model, "/test/both/mrr")
}

#[test]
fn fixed_choices_and_rules_are_what_they_say() {
    let run = Run::finished();
    let fixed = ["selection.kind=fixed", "selection.teachers=[\"textual\", \"structural\"]"];
    run.distil("student-fixed", &fixed, &[]);
    for (strategy, share) in shares(&run, "student-fixed") {
        assert_eq!(share, f64::from(u8::from(strategy == "structural+textual")), "{strategy}");
    }
    for selection in ["conf", "best-teacher"] {
        let name = format!("student-{selection}");
        run.distil(&name, &[&format!("selection.kind={selection}")], &[]);
        for (strategy, share) in shares(&run, &name) {
            assert!(share == 0.0 || !strategy.contains('+'), "{selection}: {strategy} {share}");
        }
    }
    // Random selection gives every strategy a share, and the same share on any number of threads.
    let [on_one, on_two] = ["1", "2"].map(|threads| {
        let random = ["selection.kind=random", "selection.action=triple"];
        run.distil("student-random", &random, &["--threads", threads, "--force"]);
        run.bytes("student-random/model.safetensors")
    });
    let of_random = shares(&run, "student-random");
    assert!(of_random.iter().all(|(_, share)| (share - 1.0 / 7.0).abs() < 0.03), "{of_random:?}");
    assert!(on_one == on_two);
}

#[cfg(unix)]
#[test]
fn muldes_senior_goes_on_to_the_same_bytes_on_any_number_of_threads() {
    let (name, keys) = ("student-mulde", ["selection.kind=mulde", "epochs=40", "patience=40"]);
    let runs = [Run::finished(), Run::finished()];
    runs[0].distil(name, &keys, &["--threads", "1"]);
    let sets = keys.map(|key| format!("--set=distill.{key}"));
    let mut command = runs[1].command("dsom-distill", &["--name", name, "--threads", "2"]);
    interrupted_at(&runs[1].path("student-mulde/checkpoint.safetensors"), command.args(sets));
    runs[1].distil(name, &keys, &["--threads", "2"]);
    for file in ["student-mulde/model.safetensors", "student-mulde/senior.safetensors"] {
        assert!(runs[0].bytes(file) == runs[1].bytes(file), "{file} differs");
    }
    let last = runs[0].last_event("student-mulde");
    let of = |what: &str| -> Vec<f64> {
        let values = last[what].as_object().expect("a figure for each teacher").values();
        values.map(|value| value.as_f64().expect("a number")).collect()
    };
    assert!((of("attention").iter().sum::<f64>() - 1.0).abs() < 1e-6, "{last}");
    assert_eq!(runs[0].json("student-mulde/stage.json")["summary"]["senior"], last["scales"]);
    assert!(of("scales").iter().all(|scale| (0.0..2.0).contains(scale) && *scale != 1.0), "{last}");
    assert!(test_mrr(&runs[0], "student-mulde") > 0.2);
}

#[test]
fn useful_teachers_are_found_on_validation_triples_and_taken_for_all_queries() {
    let run = Run::finished();
    // A third teacher that learned nothing. (Noise features would be useful here: they tell so few entities apart.)
    let idle = ["--modality=visual", "--set=teachers.modality.visual.learning_rate=1e-9"];
    run.succeeds("dsom-teachers", &idle);
    run.succeeds("dsom-soft-labels", &[]);
    let taught = |selection: &[&str], threads| {
        run.distil("student-useful", &[selection, &["epochs=3"]].concat(), &["--threads", threads]);
        run.bytes("student-useful/model.safetensors")
    };
    let on_one = taught(&["selection.kind=useful"], "1");
    let found = run.json("student-useful/stage.json")["summary"]["useful"].clone();
    let chosen = found["chosen"].as_str().expect("a name");
    assert!(!chosen.contains("visual") && number(&found, "/adds/visual") < 0.01, "{found}");
    for (strategy, share) in shares(&run, "student-useful") {
        assert_eq!(share, f64::from(u8::from(strategy == chosen)), "{strategy}");
    }
    // Naming the same teachers gives the same student, and so does the same choice on two threads.
    let named = format!("selection.teachers=[\"{}\"]", chosen.replace('+', "\", \""));
    assert!(taught(&["selection.kind=fixed", &named], "2") == on_one, "{found}");
    assert!(taught(&["selection.kind=useful"], "2") == on_one, "the choice depends on threads");
    run.succeeds("dsom-report", &[]);
    let page = run.text("report.html");
    assert!(page.contains("Useful teachers") && page.contains(chosen));
}

#[test]
fn a_selection_that_cannot_be_is_refused() {
    let run = Run::finished();
    let fixed =
        |teachers: &str| format!("--set=distill.selection={{ kind = \"fixed\", teachers = [{teachers}] }}");
    let unknown = fixed("\"structural\", \"smell\"");
    run.fails("dsom-distill", &[&unknown], 2, &["`smell`", "structural, textual, visual"]);
    // A modality of the recipe that is not among those of the soft labels.
    run.succeeds("dsom-soft-labels", &["--set=soft_labels.teachers=[\"structural\"]"]);
    run.fails("dsom-distill", &[&fixed("\"visual\"")], 2, &["`visual`", "there are: structural"]);
    run.fails("dsom-evaluate", &["--model", "student-x"], 2, &["student-x", "there are: student"]);
}

const KINDS: [&str; 4] = ["average", "by-relation", "boosting", "policy"];

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
    let fitted = &summary("by-relation")["weights"];
    assert!(number(fitted, "/after") > number(fitted, "/before"), "{fitted}");
    let policy = &summary("policy")["policy"];
    assert!(number(policy, "/oracle") > number(policy, "/policy"), "{policy}");
    let gain = number(policy, "/policy") - number(policy, "/constant");
    assert_eq!(policy["kept"], gain > number(policy, "/standard_error"), "{policy}");

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
    run.succeeds("dsom-evaluate", &[]);
    // The ensemble weighs teachers that have changed since.
    let ask = ["France", "borders", "--model", "ensemble"];
    assert!(!run.succeeds("dsom-predict", &ask).contains("stale"));
    run.succeeds("dsom-teachers", &["--modality", "visual", "--set=teachers.epochs=2"]);
    assert!(run.succeeds("dsom-predict", &ask).contains("its input stage `ensemble` is stale"));
    std::fs::remove_dir_all(run.path("teachers/visual")).unwrap();
    for model in ["ensemble", "structural+visual"] {
        run.fails("dsom-evaluate", &["--model", model], 66, &["has not finished", "dsom-teachers"]);
    }
    // A damaged model is an error; it is never left out.
    let run = Run::finished();
    run.succeeds("dsom-ensemble", &[]);
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
