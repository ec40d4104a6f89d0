//! Submission with stand-ins for Slurm and for the stages' programs: the submitted jobs and their dependencies.

use super::*;
use crate::execute::Programs;
use crate::grid::{Grid, Places};
use crate::jobs::{jobs, write_plan};
use crate::spec::Spec;
use std::os::unix::fs::PermissionsExt;

/// A folder with stand-ins, and a plan of the demo's experiment: one seed and one variant of it.
struct Site {
    dir: tempfile::TempDir,
    grid: Grid,
    profile: Profile,
}

impl Site {
    fn new(profile: &str) -> Site {
        let dir = tempfile::Builder::new().prefix("a b").tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut spec = Spec::read(&root.join("pipelines/experiments/demo.toml")).unwrap();
        spec.dataset[0].recipe = vec![root.join("pipelines/nations.toml")];
        spec.dataset[0].raw = Some(root.join("data/nations"));
        let places = Places { out: Some(dir.path().join("out")), ..Places::default() };
        let mut grid = Grid::plan(&spec, &places).unwrap();
        grid.keep(&["dsom".to_owned()], &[1]);
        let site = Site { grid, profile: toml::from_str(profile).map(Profile).unwrap(), dir };
        // Every stage that the file `fresh` names is finished.
        site.stand_in(
            "dsom",
            "case \" $(cat fresh) \" in *\" $1 \"*) echo x fresh ;; *) echo x absent ;; esac",
        );
        // Job numbers are line numbers of the log; `--test-only` adds no line.
        let calls = "case \" $* \" in *--test-only*) ;; *) printf '<%s>' \"$@\" >>calls; echo >>calls; wc -l <calls ;; esac";
        site.stand_in("sbatch", &format!("cat >>jobs; {calls}"));
        site.stand_in("squeue", "cat queue");
        site.stand_in("scancel", "echo \"cancelled $*\" >>calls");
        ["queue", "calls"].iter().for_each(|file| site.write(file, ""));
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn stand_in(&self, name: &str, body: &str) {
        self.write(name, &format!("#!/bin/sh\ncd '{}'\n{body}\n", self.dir.path().display()));
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn jobs(&self, profile: &Profile) -> Vec<BatchJob> {
        let programs = Programs(self.path("dsom"));
        jobs(&self.grid, &programs.words("experiment"), &self.path("out"), &programs, profile)
    }

    /// The calls of Slurm's commands if the stages in `fresh` are finished.
    fn submit(&self, fresh: &str) -> Vec<String> {
        self.write("fresh", fresh);
        let call = Programs(self.path("dsom")).words("experiment");
        let script = script(&self.jobs(&self.profile), &call, &self.path("out")).unwrap();
        let path = format!("{}:{}", self.dir.path().display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash").args(["-c", &script]).env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let calls = std::fs::read_to_string(self.path("calls")).unwrap();
        calls.lines().map(|call| call.replace(&self.path("out").display().to_string(), "OUT")).collect()
    }
}

/// The name and the dependencies of a job in a call of `sbatch`.
fn depends(call: &str) -> (&str, &str) {
    let option = |name: &str| {
        let (_, rest) = call.split_once(&format!("<--{name}="))?;
        rest.split_once('>').map(|(value, _)| value)
    };
    (
        option("comment").and_then(|name| name.strip_prefix("OUT/")).unwrap(),
        option("dependency").unwrap_or(""),
    )
}

#[test]
fn every_job_waits_for_what_it_reads_and_the_tables_for_all() {
    let site = Site::new(
        "[default]\nmem = \"2G\"\n[features]\narray = \"1-4%2\"\n[soft-labels]\narray = \"1-2\"\n[teachers]\nmem = false\ngres = \"gpu:1\"\nsetup = \"module load x\"\n",
    );
    let calls = site.submit("");
    let expected = [
        ("nations/seed-0/graph", ""),
        ("nations/seed-0/features.shards", "afterok:1"),
        ("nations/seed-0/features", "afterok:1:2"),
        ("nations/seed-1/teachers/structural", "afterok:1:3"),
        ("nations/seed-1/teachers/textual", "afterok:1:3"),
        ("nations/seed-1/teachers/visual", "afterok:1:3"),
        ("nations/seed-1/teachers", "afterok:1:3,afterany:4:5:6"),
        ("nations/seed-1/soft-labels.shards", "afterok:1:3:7"),
        ("nations/seed-1/soft-labels", "afterok:1:3:7:8"),
        ("nations/seed-1/student-dsom-1", "afterok:1:3:7:9"),
        ("tables", "afterany:1:2:3:4:5:6:7:8:9:10"),
    ];
    assert_eq!(calls.iter().map(|call| depends(call)).collect::<Vec<_>>(), expected);
    assert!(
        calls[1].contains("<--output=OUT/logs/nations-seed-0-features.shards.log.%a><--array=1-4%2>"),
        "{}",
        calls[1]
    );
    assert!(calls[2].contains("<--mem=2G>") && !calls[2].contains("array"), "{}", calls[2]);
    assert!(calls[4].contains("<--gres=gpu:1>") && !calls[4].contains("mem"), "{}", calls[4]);
    let jobs = std::fs::read_to_string(site.path("jobs")).unwrap();
    assert_eq!(jobs.matches("module load x\n").count(), 4);
    let spaced = site.path("dsom").display().to_string().replace(' ', "\\ ");
    assert!(
        jobs.contains(&format!("set -- {spaced} teachers --run")) && jobs.contains("--merge 4"),
        "{jobs}"
    );
}

#[test]
fn what_is_fresh_or_in_the_queue_is_not_submitted() {
    let site = Site::new("");
    let out = site.path("out").display().to_string();
    let queue = ["nations/seed-1/soft-labels", "tables"].iter().zip(70..);
    let queue: Vec<String> = queue.map(|(name, number)| format!("{number} {out}/{name}\n")).collect();
    std::fs::write(site.path("queue"), queue.concat() + "72 (null)\n73 \n").unwrap();
    let calls = site.submit("import features teachers");
    assert_eq!(depends(&calls[0]), ("nations/seed-1/student-dsom-1", "afterok:70"));
    // The tables job that is already in the queue would not wait for the student.
    assert_eq!(calls[1], "cancelled 71");
    assert_eq!(depends(&calls[2]), ("tables", "afterany:70:1"));
    std::fs::write(site.path("calls"), "").unwrap();
    assert!(
        site.submit("import features teachers soft-labels distill").is_empty(),
        "only tables, and they wait"
    );
}

#[test]
fn a_profile_that_makes_no_sense_is_refused() {
    for (profile, words) in [
        ("[teacher]\n", "[teacher] is none of default, import"),
        ("[default]\ndependency = \"x\"\n", "cannot have `dependency`"),
        ("[teachers]\narray = \"1-3\"\n", "[teachers] cannot have `array`"),
        ("[features]\narray = \"0-3\"\n", "\"1-N\""),
        ("[default]\nmem = 1.5\n", "`mem` is no text"),
        ("mem = 1\n", "expected"),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), profile).unwrap();
        let error = Profile::read(file.path()).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.to_string().contains(words), "{profile}: {error}");
    }
}

#[test]
fn a_plan_has_every_step_once_with_what_it_reads() {
    let site = Site::new("[features]\narray = \"1-4\"\n[distill]\nmem = \"1G\"\n");
    let jobs = site.jobs(&site.profile.clone().without_arrays());
    write_plan(&site.grid, &jobs, &site.path("out/plan.json")).unwrap();
    // The links between the runs are in place.
    let link = std::fs::read_link(site.path("out/nations/seed-1/graph")).unwrap();
    assert_eq!(link, Path::new("../seed-0/graph"));
    let text = std::fs::read(site.path("out/plan.json")).unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let student = &plan["steps"][7];
    assert_eq!(student["resources"], serde_json::json!({ "mem": "1G" }));
    assert_eq!(student["inputs"].as_array().unwrap().len(), 7);
    assert!(student["inputs"][6].as_str().unwrap().ends_with("seed-1/soft-labels/stage.json"));
    let written: Vec<&PathBuf> = jobs.iter().flat_map(|job| &job.outputs).collect();
    let distinct: BTreeSet<&PathBuf> = written.iter().copied().collect();
    assert_eq!((jobs.len(), written.len(), distinct.len()), (9, 9, 9));
}
