//! Running the steps: one process after the other, exactly the commands that a person would type.

use rustix::process::{Pid, Signal, kill_process};
use stage::{Error, Kind, Result, interrupt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::estimate::open_because;
use crate::grid::{EVALUATE, Grid, RunPlan, SHARED, Step};
use crate::overrides::quoted;

/// The pause between two checks of a running stage.
const LOOK: Duration = Duration::from_millis(20);

/// The outcome of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The step is finished, now or from an earlier call.
    Done,
    Failed(Kind, String),
    /// The step was left out, for this reason.
    Skipped(String),
}

/// The executable file that contains all programs and runs this one.
#[derive(Clone, Debug)]
pub(crate) struct Programs(pub(crate) PathBuf);

impl Programs {
    /// The file by its present name: a build may put another file in its place.
    pub(crate) fn of_this() -> Result<Programs> {
        std::env::current_exe().map(Programs).map_err(|e| Error::io("dsom", e))
    }

    /// A call of a program such as `dsom-import`.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.0);
        command.arg(program.trim_start_matches("dsom-"));
        command
    }

    /// The words of a call of `program`.
    pub(crate) fn words(&self, program: &str) -> [String; 2] {
        [self.0.display().to_string(), program.trim_start_matches("dsom-").to_owned()]
    }
}

impl Grid {
    /// Runs the steps. A failed step skips the steps that need it; an interruption ends the whole run. With `finished`,
    /// existing models are evaluated and none is trained.
    pub(crate) fn execute(&self, programs: &Programs, finished: bool) -> Result<Vec<Outcome>> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        for step in &self.steps {
            interrupt::check()?;
            self.runs[step.run].link()?;
            let outcome = match self.obstacle(step, &outcomes) {
                Some(why) => Outcome::Skipped(why),
                None if finished && step.program != EVALUATE => {
                    let why = open_because(self, programs, step, &step.arguments)?;
                    why.map_or(Outcome::Done, Outcome::Skipped)
                }
                None => run(programs, step.program, &self.arguments(step, &outcomes))?,
            };
            let run = self.runs[step.run].root.display();
            match &outcome {
                Outcome::Done => {}
                Outcome::Failed(_, reason) => tracing::error!("{run}: {reason}; the others go on"),
                Outcome::Skipped(reason) => tracing::info!("{run}: {} is left out: {reason}", step.program),
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// The reason why a step cannot run, if there is one.
    fn obstacle(&self, step: &Step, outcomes: &[Outcome]) -> Option<String> {
        if step.program == EVALUATE && self.evaluated(step, outcomes).next().is_none() {
            return Some("none of its models is there".to_owned());
        }
        let missing = step.needs.iter().find(|need| outcomes[**need] != Outcome::Done)?;
        Some(format!("it needs {}", self.steps[*missing].program))
    }

    /// The models that an evaluation ranks: those whose steps succeeded.
    fn evaluated<'a>(&'a self, step: &Step, outcomes: &'a [Outcome]) -> impl Iterator<Item = &'a str> {
        let models = self.runs[step.run].models.iter();
        models.filter(|(_, needed)| outcomes[*needed] == Outcome::Done).map(|(name, _)| name.as_str())
    }

    /// The arguments of a step; those of an evaluation end with its models.
    pub(crate) fn arguments(&self, step: &Step, outcomes: &[Outcome]) -> Vec<String> {
        let mut arguments = step.arguments.clone();
        if step.program == EVALUATE {
            let models = self.evaluated(step, outcomes);
            arguments.extend(models.flat_map(|model| ["--model".to_owned(), model.to_owned()]));
        }
        arguments
    }

    /// The arguments of a step if all earlier steps succeed.
    pub(crate) fn expected_arguments(&self, step: &Step) -> Vec<String> {
        self.arguments(step, &vec![Outcome::Done; self.steps.len()])
    }
}

impl RunPlan {
    /// Makes the run's directory with exactly the links that are planned.
    pub(crate) fn link(&self) -> Result<()> {
        std::fs::create_dir_all(&self.root).map_err(|e| Error::io(&self.root, e))?;
        for (.., folder) in SHARED {
            let path = self.root.join(folder);
            let planned = self.links.iter().find(|(name, _)| *name == folder).map(|(_, to)| to);
            let there = std::fs::read_link(&path).ok();
            if there.as_ref() == planned {
                continue;
            }
            if there.is_some() {
                std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
            }
            let Some(planned) = planned else { continue };
            if path.exists() {
                let message = "is a folder of its own, but shared with another run in this experiment";
                let hint =
                    "an earlier form of the experiment wrote it: remove the run, or choose another --out";
                return Err(Error::usage(message).at(path).hint(hint));
            }
            std::os::unix::fs::symlink(planned, &path).map_err(|e| Error::io(&path, e))?;
        }
        Ok(())
    }
}

pub(crate) fn command_line(program: &str, arguments: &[String]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    format!("{program} {}", arguments.join(" "))
}

pub(crate) fn run(programs: &Programs, program: &str, arguments: &[String]) -> Result<Outcome> {
    program::print_line(&format!("$ {}", command_line(program, arguments)))?;
    let mut command = programs.command(program);
    // A separate process group: a terminal's interruption reaches only this program, which passes it on once.
    command.args(arguments).env_remove("DSOM_RUN").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    die_together(&mut command);
    let child = command.spawn().map_err(|e| Error::io(program, e))?;
    outcome(program, wait(child)?)
}

/// Makes the system ask the stage to stop if this program is killed and cannot do it itself.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the only way to do something between fork and exec")]
fn die_together(command: &mut Command) {
    use rustix::process::{getpid, getppid, set_parent_process_death_signal};
    let parent = Some(getpid());
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::TERM))?;
            // The program was killed before this request took effect.
            if getppid() == parent { Ok(()) } else { Err(std::io::Error::other("its experiment was killed")) }
        })
    };
}

#[cfg(not(target_os = "linux"))]
fn die_together(_command: &mut Command) {}

/// Waits for a stage; asks it to stop when this program is asked to stop.
fn wait(mut child: Child) -> Result<ExitStatus> {
    let mut asked = false;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| Error::io("a stage's process", e))? {
            return Ok(status);
        }
        if !asked && interrupt::check().is_err() {
            if let Err(error) = kill_process(Pid::from_child(&child), Signal::TERM) {
                tracing::warn!("cannot stop the stage: {error}");
            }
            asked = true;
        }
        std::thread::sleep(LOOK);
    }
}

fn outcome(program: &str, status: ExitStatus) -> Result<Outcome> {
    interrupt::check()?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(Outcome::Done),
        (Some(code), _) => match Kind::of_exit_code(code) {
            Kind::Interrupted => Err(Error::new(Kind::Interrupted, format!("{program} was interrupted"))
                .hint("run the same command again to continue")),
            kind => Ok(Outcome::Failed(kind, format!("{program} ended with {code}"))),
        },
        (None, signal) => {
            let signal = signal.map_or("a signal".to_owned(), |number| format!("signal {number}"));
            Ok(Outcome::Failed(Kind::Unexpected, format!("{program} was killed by {signal}")))
        }
    }
}
