//! A graph of one's own in five files, as the README tells it: a recipe of seven lines, six stages, and a question.

use dsom_tests::{STAGES, ends, program};
use std::fmt::Write;
use std::path::Path;
use std::process::Output;

/// Writes thirty composers of three periods, who taught whom, and what they wrote: made up for this test.
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
    // Four facts a composer: the period of some is held out, and the style of other works.
    let is_valid = |i: usize| i.is_multiple_of(4) && i / 4 % 5 == 2;
    let is_test = |i: usize| i % 4 == 2 && i / 4 % 5 == 4;
    let files = [
        ("entities.tsv", entities),
        (
            "relations.tsv",
            "key\tname\nof_period\tperiod\nwrote\twrote\nin_style\tstyle\ntaught\ttaught\n".to_owned(),
        ),
        ("train.tsv", split(&|i| !is_valid(i) && !is_test(i))),
        ("valid.tsv", split(&is_valid)),
        ("test.tsv", split(&is_test)),
    ];
    for (name, content) in files {
        std::fs::write(folder.join(name), content).expect("a temporary folder can be written");
    }
    let recipe = "[import]\nname = \"Composers\"\nentities = \"entities.tsv\"\nrelations = \"relations.tsv\"\n\
                  [teachers]\nrank = 16\n[distill]\nrank = 16\nselection.hidden = 16\n\
                  [features.textual]\nfrom = \"text\"\nfields = [\"name\", \"description\"]\nencoder = \"random\"\n";
    std::fs::write(folder.join("composers.toml"), recipe).expect("a temporary folder can be written");
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
    // Work 4 is of composer 4, who is classical; its style is a test fact. `--range`: what has been a style.
    let answer = call("dsom-predict", &["Work 4", "style", "--range", "--json"]).stdout;
    let first = answer.split(|byte| *byte == b'\n').next().unwrap();
    let first: serde_json::Value = serde_json::from_slice(first).unwrap();
    assert_eq!(first["tail_key"], "classical");
}
