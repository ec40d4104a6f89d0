//! The task of a program, and the state of its folder: absent, incomplete, stale (and why) or fresh.

use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::changes::{changed_inputs, changed_parameters, stages_of, stale_stages};
use crate::files::{self, digest, read_json};
use crate::manifest::{FILE, FileRecord, INCOMPLETE, Manifest};
use crate::work::{self, Work};
use crate::{Result, Run};

/// The state of a folder compared with its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The folder holds no stage.
    Absent,
    /// The work began and did not finish.
    Incomplete {
        /// True if the unfinished work is the same task, so that it can continue.
        resumable: bool,
    },
    /// The folder is complete, but differs from the task; each line is a reason.
    Stale(Vec<String>),
    /// The folder is complete and matches the task.
    Fresh,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Absent => f.write_str("absent"),
            Status::Incomplete { resumable: true } => f.write_str("incomplete: cut short, to be continued"),
            Status::Incomplete { resumable: false } => {
                f.write_str("incomplete: cut short with other parameters or inputs, to be done anew")
            }
            Status::Stale(reasons) => write!(f, "stale: {}", reasons.join("; ")),
            Status::Fresh => f.write_str("fresh"),
        }
    }
}

/// The task of a program: its parameters, its inputs, and the folder that it writes.
#[derive(Clone, Debug)]
pub struct Task {
    pub(crate) run: Run,
    pub(crate) program: &'static str,
    pub(crate) folder: PathBuf,
    pub(crate) parameters: Value,
    pub(crate) seed: u64,
    pub(crate) inputs: Vec<FileRecord>,
    /// The inputs that other stages wrote: the path, the record and the program of each.
    written: Vec<(PathBuf, FileRecord, String)>,
}

impl Task {
    /// A task of `program` that writes `folder`. `parameters` holds everything that the outputs depend on, except the
    /// inputs and the seed.
    pub fn new(
        run: &Run,
        program: &'static str,
        folder: PathBuf,
        parameters: &impl Serialize,
        seed: u64,
    ) -> Self {
        let parameters = serde_json::to_value(parameters).expect("parameters are plain data");
        Task { run: run.clone(), program, folder, parameters, seed, inputs: Vec::new(), written: Vec::new() }
    }

    /// A part of this task's work: the same task with one more parameter, in another folder.
    pub fn part(&self, folder: PathBuf, name: &str, value: impl Into<Value>) -> Task {
        let mut parameters = self.parameters.clone();
        parameters[name] = value.into();
        Task { folder, parameters, ..self.clone() }
    }

    /// Adds a file that another stage wrote, with the record from that stage's manifest.
    pub fn stage_input(&mut self, folder: &Path, name: &str) -> Result<PathBuf> {
        let manifest = Manifest::read(folder)?;
        let record = manifest.output(folder, name)?;
        let path = folder.join(name);
        self.inputs.push(FileRecord { path: self.relative(&path), ..record.clone() });
        self.written.push((path.clone(), record.clone(), manifest.program.clone()));
        Ok(path)
    }

    /// Adds a file from outside the run, by its digest. The record has the path `label` (`raw/train.txt`), so a moved
    /// folder is still the same input.
    pub fn external_input(&mut self, path: &Path, label: impl Into<String>) -> Result<()> {
        let (sha256, bytes) = digest(path)?;
        self.inputs.push(FileRecord { path: label.into(), sha256, bytes });
        Ok(())
    }

    /// Adds an input from outside the run that is not a single file, by text that changes when the input does: a
    /// listing of a large folder.
    pub fn external_listing(&mut self, listing: &str, label: impl Into<String>) {
        let (sha256, bytes) = (files::digest_of(listing.as_bytes()), listing.len() as u64);
        self.inputs.push(FileRecord { path: label.into(), sha256, bytes });
    }

    pub(crate) fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.run.root()).unwrap_or(path).to_string_lossy().into_owned()
    }

    /// The folder this task writes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The state of the folder compared with this task.
    pub fn status(&self) -> Status {
        if !self.folder.join(FILE).is_file() {
            return match self.folder.join(INCOMPLETE).is_file() {
                true => Status::Incomplete { resumable: self.is_begun() },
                false => Status::Absent,
            };
        }
        let there = match Manifest::read(&self.folder) {
            Ok(manifest) => manifest,
            Err(error) => return Status::Stale(vec![error.to_string()]),
        };
        let mut reasons = self.differences(&there);
        reasons.extend(there.damages(&self.folder));
        reasons.extend(self.stale_inputs());
        if reasons.is_empty() { Status::Fresh } else { Status::Stale(reasons) }
    }

    fn differences(&self, there: &Manifest) -> Vec<String> {
        let mut reasons = Vec::new();
        if there.program != self.program {
            reasons.push(format!("written by `{}`", there.program));
        }
        if there.seed != self.seed {
            reasons.push(format!("seed was {}, now {}", there.seed, self.seed));
        }
        reasons.extend(changed_parameters(&there.parameters, &self.parameters));
        reasons.extend(changed_inputs(&there.inputs, &self.inputs));
        reasons
    }

    /// Reasons why the stages that wrote our inputs are themselves stale.
    fn stale_inputs(&self) -> Vec<String> {
        stale_stages(&self.run, &self.inputs).map(|stage| format!("its input stage {stage}")).collect()
    }

    /// Starts the work, or returns `None` if the folder is fresh and `force` is false.
    ///
    /// `ready` does the steps that may fail before anything is changed: checking and reading inputs, memory, disk. Only
    /// then is the folder's old content removed, except the checkpoint of an interrupted start of the same task.
    pub fn begin<T>(self, force: bool, ready: impl FnOnce() -> Result<T>) -> Result<Option<(Work, T)>> {
        let name = self.relative(&self.folder);
        match self.status() {
            Status::Fresh if !force => {
                tracing::info!("{name} is fresh");
                work::tidy(&self.folder);
                return Ok(None);
            }
            Status::Absent | Status::Fresh => {}
            other => tracing::info!("{name} is {other}"),
        }
        self.verify()?;
        let ready = ready()?;
        Ok(Work::claim(self, force)?.map(|work| (work, ready)))
    }

    /// Refuses inputs that differ from the record of the stage that wrote them, and stages of another graph. Warns of
    /// stale stages.
    pub fn verify(&self) -> Result<()> {
        self.stale_inputs().iter().for_each(|reason| tracing::warn!("{reason}"));
        for folder in stages_of(&self.run, &self.inputs) {
            Manifest::read(&folder)?.require_same_graph(&self.run, &folder)?;
        }
        self.written.par_iter().try_for_each(|(path, record, program)| record.require(path, program))
    }

    /// The content of the marker file of unfinished work.
    pub(crate) fn identity(&self) -> Value {
        serde_json::json!({
            "program": self.program, "parameters": self.parameters, "seed": self.seed, "inputs": self.inputs,
        })
    }

    pub(crate) fn is_begun(&self) -> bool {
        read_json::<Value>(&self.folder.join(INCOMPLETE)).is_ok_and(|before| before == self.identity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::manifest::CHECKPOINT;
    use serde_json::json;
    use std::fs::File;

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new() -> Self {
            let fixture = Fixture(tempfile::tempdir().unwrap());
            std::fs::write(fixture.0.path().join("raw.txt"), "raw").unwrap();
            fixture
        }

        fn run(&self) -> Run {
            Run::new(self.0.path().join("run"))
        }

        fn graph(&self, file: &str) -> PathBuf {
            self.run().graph().join(file)
        }

        fn import(&self, parameter: u32) -> Task {
            let parameters = json!({ "deep": { "parameter": parameter } });
            let mut task = Task::new(&self.run(), "dsom-import", self.run().graph(), &parameters, 1);
            task.external_input(&self.0.path().join("raw.txt"), "raw/raw.txt").unwrap();
            task
        }

        /// A task that reads the output of another stage.
        fn after(&self, above: &Path, program: &'static str, folder: PathBuf) -> Task {
            let mut task = Task::new(&self.run(), program, folder, &json!({}), 1);
            task.stage_input(above, "out").unwrap();
            task
        }

        fn soft_labels(&self) -> Task {
            self.after(&self.run().graph(), "dsom-soft-labels", self.run().soft_labels())
        }

        fn distill(&self) -> Task {
            self.after(&self.run().soft_labels(), "dsom-distill", self.run().student("student"))
        }
    }

    fn begun(task: Task) -> Option<Work> {
        task.begin(false, || Ok(())).unwrap().map(|(work, ())| work)
    }

    fn finish(task: Task, content: &str) {
        let work = begun(task).expect("there is work to do");
        std::fs::write(work.path("out"), content).unwrap();
        work.finish(json!({})).unwrap();
    }

    #[test]
    fn a_finished_stage_is_fresh_until_a_parameter_changes() {
        let fixture = Fixture::new();
        assert_eq!(fixture.import(1).status(), Status::Absent);
        finish(fixture.import(1), "a");
        assert_eq!(fixture.import(1).status(), Status::Fresh);
        assert!(begun(fixture.import(1)).is_none());
        let reasons = vec!["parameter `deep.parameter` was 1, now 2".to_owned()];
        assert_eq!(fixture.import(2).status(), Status::Stale(reasons));
    }

    #[test]
    fn a_change_makes_exactly_the_later_stages_stale() {
        let fixture = Fixture::new();
        finish(fixture.import(1), "a");
        finish(fixture.soft_labels(), "b");
        finish(fixture.distill(), "c");
        finish(fixture.import(2), "changed");
        assert_eq!(fixture.import(2).status(), Status::Fresh);
        let reason = "input `graph/out` changed";
        assert_eq!(fixture.soft_labels().status(), Status::Stale(vec![reason.to_owned()]));
        let reason = format!("its input stage `soft-labels` is stale: its {reason}");
        assert_eq!(fixture.distill().status(), Status::Stale(vec![reason]));
        // The ids of another graph would name wrong entities of this one.
        let error = fixture.distill().begin(true, || Ok(())).err().unwrap();
        assert!(error.kind() == Kind::Data && error.to_string().contains("another graph"), "{error}");
        let same_graph = |folder: PathBuf| {
            let manifest = Manifest::read(&folder).unwrap();
            manifest.require_same_graph(&fixture.run(), &folder).map_err(|e| e.to_string())
        };
        let (labels, student) = (fixture.run().soft_labels(), fixture.run().student("student"));
        for folder in [labels.clone(), student.clone()] {
            let message = same_graph(folder).unwrap_err();
            assert!(message.contains("another graph: `graph/out`"), "{message}");
        }
        // The labels are made anew, so the student's record no longer shows which graph its old labels came from.
        finish(fixture.soft_labels(), "new labels");
        assert_eq!([labels, student].map(same_graph), [Ok(()), Ok(())]);
        // The bytes are the same as before, so no later stage has to run.
        finish(fixture.import(1), "once more");
        finish(fixture.soft_labels(), "b");
        assert_eq!(fixture.distill().status(), Status::Fresh);
    }

    #[test]
    fn a_truncated_output_is_seen() {
        let fixture = Fixture::new();
        finish(fixture.import(1), "long content");
        std::fs::write(fixture.graph("out"), "long").unwrap();
        assert!(matches!(fixture.import(1).status(), Status::Stale(_)));
        let mut task = Task::new(&fixture.run(), "x", fixture.run().soft_labels(), &json!({}), 1);
        let error = task.stage_input(&fixture.run().graph(), "out").unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains("4 bytes, but stage.json says 12"), "{error}");
    }

    #[test]
    fn a_checkpoint_survives_only_for_the_same_task() {
        let fixture = Fixture::new();
        let work = begun(fixture.import(1)).unwrap();
        std::fs::write(work.path(CHECKPOINT), "state").unwrap();
        drop(work);
        assert_eq!(fixture.import(1).status(), Status::Incomplete { resumable: true });
        assert_eq!(fixture.import(2).status(), Status::Incomplete { resumable: false });
        let same = begun(fixture.import(1)).unwrap();
        assert!(same.checkpoint().is_some());
        drop(same);
        let other = begun(fixture.import(2)).unwrap();
        assert!(other.checkpoint().is_none() && !other.path(CHECKPOINT).exists());
    }

    #[test]
    fn what_is_not_ready_destroys_nothing() {
        let fixture = Fixture::new();
        finish(fixture.import(1), "a");
        let refused = fixture.import(2).begin(true, || Err::<(), _>(crate::Error::data("bad input")));
        assert!(refused.is_err());
        assert_eq!(fixture.import(1).status(), Status::Fresh);
    }

    #[test]
    fn two_processes_cannot_write_one_folder() {
        let fixture = Fixture::new();
        let _first = begun(fixture.import(1)).unwrap();
        let second = fixture.import(1).begin(false, || Ok(())).err().unwrap();
        let holder = format!("process {}", std::process::id());
        assert!(second.kind() == Kind::Interrupted && second.to_string().contains(&holder), "{second}");
    }

    #[test]
    fn the_second_of_two_starts_does_not_touch_what_the_first_finished() {
        let fixture = Fixture::new();
        // The first start ends while the second prepares.
        let second = fixture.import(1).begin(false, || {
            finish(fixture.import(1), "a");
            Ok(())
        });
        assert!(second.unwrap().is_none());
        assert_eq!(fixture.import(1).status(), Status::Fresh);
        assert!(!fixture.graph(INCOMPLETE).exists());
    }

    #[test]
    fn a_finished_stage_with_a_marker_is_not_gone_on_with() {
        let fixture = Fixture::new();
        finish(fixture.import(1), "a");
        let marker = fixture.graph(INCOMPLETE);
        let mark = || std::fs::write(&marker, fixture.import(1).identity().to_string()).unwrap();
        // A process was killed after it wrote `stage.json`: only the marker is left to remove.
        mark();
        assert!(begun(fixture.import(1)).is_none() && !marker.exists());
        // An output is lost as well: the work begins anew, and meanwhile no process takes the folder for complete.
        mark();
        std::fs::remove_file(fixture.graph("out")).unwrap();
        let work = begun(fixture.import(1)).unwrap();
        assert!(!work.resumes && !work.path(FILE).exists());
    }

    #[test]
    fn other_bytes_of_the_same_size_are_seen() {
        let fixture = Fixture::new();
        finish(fixture.import(1), "content");
        finish(fixture.soft_labels(), "labels");
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        let out = fixture.graph("out");
        std::fs::write(&out, "CONTENT").unwrap();
        File::options().write(true).open(&out).unwrap().set_modified(later).unwrap();
        assert!(matches!(fixture.import(1).status(), Status::Stale(_)));
        // Even if the modification time does not show the change, no stage uses the file.
        let before = std::time::SystemTime::UNIX_EPOCH;
        File::options().write(true).open(&out).unwrap().set_modified(before).unwrap();
        let error = fixture.soft_labels().begin(true, || Ok(())).err().unwrap();
        assert!(error.kind() == Kind::Data && error.to_string().contains("changed since"), "{error}");
        assert_eq!(std::fs::read_to_string(fixture.run().soft_labels().join("out")).unwrap(), "labels");
    }

    #[test]
    fn a_kept_file_is_believed_only_as_it_was() {
        let fixture = Fixture::new();
        let work = begun(fixture.import(1)).unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(work.path(name), "part").unwrap();
        }
        work.keep("a").unwrap();
        work.keep("b").unwrap();
        std::fs::write(work.path("b"), "PART").unwrap();
        std::fs::write(work.path(".d.tmp"), "a killed write").unwrap();
        drop(work);
        let work = begun(fixture.import(1)).unwrap();
        assert_eq!(["a", "b", "c"].map(|name| work.keeps(name)), [true, false, false]);
        assert!(!work.path(".d.tmp").exists());
        work.finish(json!({})).unwrap();
        let outputs = Manifest::read(&fixture.run().graph()).unwrap().outputs;
        assert_eq!(outputs.iter().map(|record| record.path.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn a_foreign_folder_is_not_touched() {
        let fixture = Fixture::new();
        std::fs::create_dir_all(fixture.run().graph()).unwrap();
        std::fs::write(fixture.graph("thesis.tex"), "dear").unwrap();
        assert!(fixture.import(1).begin(true, || Ok(())).is_err_and(|e| e.kind() == Kind::Usage));
        assert!(fixture.graph("thesis.tex").is_file());
    }
}
