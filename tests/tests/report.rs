//! `dsom-report` on real runs: complete, incomplete, and with hostile names.

use dsom_tests::{Run, STAGES, copy_folder, ends, program, root};
use serde_json::Value;
use std::collections::HashSet;

fn report(run: &Run, more: &[&str]) -> String {
    run.succeeds("dsom-report", more);
    run.text("report.html")
}

fn ask(run: &Run, more: &[&str]) -> String {
    run.succeeds("dsom-report", &[&["--ask"], more].concat());
    run.text("ask.html")
}

/// The data block called `id`, cut out of the page that answers questions.
fn held<'a>(page: &'a str, id: &str) -> &'a str {
    let rest = page.split_once(&format!("<script id=\"{id}\" type=\"text/plain\">")).expect("a script").1;
    rest.split_once("</script>").expect("its end").0
}

#[test]
fn a_whole_run_has_every_section_and_asks_the_network_for_nothing() {
    let run = Run::finished();
    let page = report(&run, &[]);
    for (id, words) in [
        ("summary", "MRR"),
        ("results", "95 % interval"),
        ("slices", "N-N"),
        ("learning", "Validation MRR"),
        ("strategies", "By relation"),
        ("calibration", "expected calibration error"),
        ("coverage", "entities with features"),
        ("audit", "Splits as published"),
        ("examples", "first candidates"),
        ("provenance", "soft-labels"),
    ] {
        let at = page.find(&format!("<section id=\"{id}\">")).unwrap_or_else(|| panic!("no section {id}"));
        let section = &page[at..at + page[at..].find("</section>").unwrap()];
        assert!(section.contains(words), "{id} does not say `{words}`");
        assert!(!section.contains("class=\"absent\"") || id == "coverage", "{id} lacks something: {section}");
    }
    for outside in ["http:", "https:", "<script", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    // Every chart has a name and a description.
    assert!(page.matches("<figure>").count() >= 10);
    assert_eq!(page.matches("<figure>").count(), page.matches("<desc id=").count());
    let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "ids are unique");
    assert_eq!(report(&run, &["-q"]), page, "the same run, another report");
    // The report names a stale stage and a stage whose outputs are missing.
    run.succeeds("dsom-distill", &["--set=distill.term.gamma=4"]);
    std::fs::remove_dir_all(run.path("features")).unwrap();
    std::fs::write(run.path("teachers/structural/model.safetensors"), "").unwrap();
    let page = report(&run, &[]);
    for reason in ["its input `student/model.safetensors` changed", "output "] {
        assert!(page.contains(&format!("<p class=\"notice\">{reason}")), "{reason}");
    }
}

#[test]
fn what_is_missing_is_a_sentence() {
    let run = Run::new();
    run.fails("dsom-report", &[], 66, &[]);
    run.succeeds(STAGES[0], &[]);
    let page = report(&run, &[]);
    for words in [
        "Not evaluated yet",
        "No model has been trained yet",
        "No student has been distilled yet",
        "No features",
    ] {
        assert!(page.contains(words), "{words}");
    }
    for stage in ["dsom-teachers", "dsom-soft-labels", "dsom-distill", "dsom-evaluate"] {
        run.succeeds(stage, &["--set=distill.selection.kind=all"]);
    }
    let page = report(&run, &[]);
    assert!(page.contains("No policy: the students of this run learn alone, by a rule, or by chance"));
    assert!(page.contains("<code>student</code>") && !page.contains("Not evaluated yet"));
}

#[test]
fn a_page_that_answers_holds_the_model_and_asks_for_nothing() {
    let run = Run::finished();
    let page = ask(&run, &[]);
    for outside in ["http:", "https:", "src=", "@import", "url(", "data:image"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let graph: Value = serde_json::from_str(held(&page, "graph")).unwrap();
    let entities = graph["entities"].as_array().unwrap().len();
    let base64 = |bytes: usize| bytes.div_ceil(3) * 4;
    assert_eq!(held(&page, "entities").len(), base64(entities * 32 * 4));
    assert_eq!(ask(&run, &[]), page, "the same run, another page");
    let half = ask(&run, &["--half", "--model", "textual", "--thumbnails"]);
    assert_eq!(held(&half, "entities").len(), base64(entities * 32 * 2));
    let pictured = run.json("graph/stage.json")["summary"]["entities_with_images"].as_u64();
    assert_eq!(Some(half.matches("data:image/jpeg;base64,").count() as u64), pictured);
    for (wrong, code, words) in [
        (&["--ask", "--model", "average"][..], 2, "is made of"),
        (&["--ask", "--model", "student-x"], 2, "student-x"),
        (&["--ask", "--thumbnails", "nowhere"], 66, "--thumbnails DIR"),
        (&["--half"], 2, "--ask"),
    ] {
        run.fails("dsom-report", wrong, code, &[words]);
    }
}

#[test]
fn hostile_names_do_no_harm() {
    const NAME: &str = "<script>alert('France')</script>&\"quoted\"\u{202e}";
    let raw = tempfile::tempdir().unwrap();
    copy_folder(&root().join("data/nations"), raw.path());
    let entities = raw.path().join("entities.tsv");
    let text = std::fs::read_to_string(&entities).unwrap();
    let hostile = text.replace("\tFrance\t", &format!("\t{NAME}\t"));
    assert_ne!(text, hostile);
    std::fs::write(&entities, hostile).unwrap();
    let run = Run::new();
    run.succeeds("dsom-import", &["--raw", raw.path().to_str().unwrap()]);
    for stage in &STAGES[1..] {
        run.succeeds(stage, &["--set=evaluate.examples=200"]);
    }
    let page = report(&run, &[]);
    assert!(page.contains("&lt;script&gt;alert('France')&lt;/script&gt;&amp;&quot;quoted&quot;"));
    assert!(!page.contains("<script"));
    let page = ask(&run, &[]);
    assert!(page.contains("\\u003cscript>alert('France')\\u003c/script>&\\\"quoted\\\"\\\\u202e"));
    assert!(!page.contains("<script>alert") && !page.contains('\u{202e}'));
}

#[test]
fn tensorboard_files_are_whole_records() {
    let run = Run::finished();
    let folder = run.path("tensorboard");
    report(&run, &["--tensorboard", folder.to_str().unwrap()]);
    for model in ["student", "structural", "textual", "visual"] {
        let file = std::fs::read_dir(folder.join(model)).unwrap().next().unwrap().unwrap().path();
        let bytes = std::fs::read(&file).unwrap();
        let (mut rest, mut records) = (&bytes[..], 0);
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            rest = &rest[8 + 4 + length + 4..];
            records += 1;
        }
        // One record for the format, at most twelve for epochs, and one for the figures.
        assert!((3..=14).contains(&records), "{model}: {records}");
        assert!(bytes.windows(8).any(|part| part == b"test/mrr"), "{model}");
    }
}

#[test]
fn a_wrong_call_says_so() {
    ends(&program("dsom-report").output().unwrap(), 2, &[]);
    // The variable that names a run does not affect an experiment.
    let experiment =
        program("dsom-report").args(["--experiment", "nowhere"]).env("DSOM_RUN", "runs/x").output();
    ends(&experiment.unwrap(), 66, &["dsom-experiment"]);
    ends(&program("dsom-report").env("DSOM_RUN", "nowhere").output().unwrap(), 66, &["nowhere"]);
}
