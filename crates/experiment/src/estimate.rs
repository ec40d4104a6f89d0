//! The steps that would run, their states, and the time that they may take.

use program::print_line;
use stage::manifest::{FILE, Manifest};
use stage::resources::duration;
use stage::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::execute::{Programs, command_line};
use crate::grid::{Grid, Step};
use crate::statistics::mean;

/// The depth of the stages below the experiments' directory: experiment, dataset, run, `teachers`, modality.
const DEPTH: usize = 6;

#[derive(Clone, Debug)]
struct Finished {
    folder: PathBuf,
    program: String,
    seconds: f64,
}

/// Prints every step with its state and an estimate, and runs no step.
pub(crate) fn dry_run(grid: &Grid, programs: &Programs, out: &Path) -> Result<()> {
    let mut finished = Vec::new();
    collect(out.parent().unwrap_or(out), DEPTH, &mut finished);
    let mut open = Vec::new();
    for step in &grid.steps {
        let arguments = grid.expected_arguments(step);
        let words = match open_because(grid, programs, step, &arguments)? {
            None => "fresh".to_owned(),
            Some(why) => {
                let seconds = estimate(step, &finished);
                open.push(seconds);
                let time = seconds.map(|seconds| format!("about {}", duration(seconds)));
                format!("{why}, {}", time.unwrap_or("time unknown".to_owned()))
            }
        };
        print_line(&format!("$ {}\n    {words}", command_line(step.program, &arguments)))?;
    }
    print_line(&total(grid, &open))
}

/// The last line; `open` has the estimated seconds of each step that would run, if known.
fn total(grid: &Grid, open: &[Option<f64>]) -> String {
    let known: f64 = open.iter().flatten().sum();
    let (unknown, open) = (open.iter().filter(|seconds| seconds.is_none()).count(), open.len());
    let (cells, steps) = (grid.cells.len(), grid.steps.len());
    let steps = format!("{cells} cells, {steps} steps: {} fresh, {open} to run", steps - open);
    match (open, unknown) {
        (0, _) => steps,
        (_, 0) => format!("{steps}, about {} in all", duration(known)),
        (_, unknown) if unknown == open => {
            format!("{steps}; how long is unknown: nothing like them has finished here")
        }
        _ => format!("{steps}, about {} and {unknown} of unknown length", duration(known)),
    }
}

/// The reason why a step is not finished, if it is not: asks the step's own program if the run exists.
pub(crate) fn open_because(
    grid: &Grid,
    programs: &Programs,
    step: &Step,
    arguments: &[String],
) -> Result<Option<String>> {
    if !grid.runs[step.run].root.is_dir() {
        return Ok(Some("absent".to_owned()));
    }
    asked(programs.command(step.program).args(arguments))
}

/// Asks a program, by its whole command, whether it has nothing to do.
pub(crate) fn is_fresh(command: &[String]) -> Result<bool> {
    Ok(asked(Command::new(&command[0]).args(&command[1..]))?.is_none())
}

fn asked(command: &mut Command) -> Result<Option<String>> {
    command.arg("--status").env_remove("DSOM_RUN").stdin(std::process::Stdio::null());
    let output = command.output().map_err(|e| Error::io(command.get_program(), e))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Every line has a folder and its state.
    let stand = text.lines().filter_map(|line| line.trim_start().split_once(char::is_whitespace));
    let other = stand.map(|(_, state)| state.trim()).find(|state| *state != "fresh");
    let waits = (!output.status.success()).then_some("waits for what is before it");
    Ok(waits.or(other).map(str::to_owned))
}

/// Finds the stages that finished below a folder.
fn collect(folder: &Path, depth: usize, found: &mut Vec<Finished>) {
    if folder.join(FILE).is_file() {
        let manifest = Manifest::read(folder).ok();
        found.extend(manifest.map(|Manifest { program, wall_seconds: seconds, .. }| Finished {
            folder: folder.to_owned(),
            program,
            seconds,
        }));
    } else if depth > 0 {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        // A link leads to another run's folder, which is counted there.
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.for_each(|entry| collect(&entry.path(), depth - 1, found));
    }
}

/// The seconds that a step may take: the mean of finished steps of its kind on its dataset, of the same student if
/// there is one. A step for several modalities takes the sum of their times.
fn estimate(step: &Step, finished: &[Finished]) -> Option<f64> {
    let mut chosen: Vec<&Finished> = finished.iter().filter(|of| of.program == step.program).collect();
    chosen.retain(|of| of.folder.iter().any(|part| *part == *step.dataset));
    let mut same = chosen.clone();
    same.retain(|of| {
        let name = of.folder.file_name().unwrap_or_default().to_string_lossy();
        step.outputs.iter().any(|output| Path::new(without_seed(output)).ends_with(without_seed(&name)))
    });
    if !same.is_empty() {
        chosen = same;
    }
    let mut by_run: BTreeMap<&Path, f64> = BTreeMap::new();
    for of in chosen {
        let parent = of.folder.parent().unwrap_or(&of.folder);
        let modalities = parent.ends_with("teachers") || parent.ends_with("features");
        *by_run.entry(if modalities { parent } else { &of.folder }).or_default() += of.seconds;
    }
    let seconds: Vec<f64> = by_run.into_values().collect();
    (!seconds.is_empty()).then(|| mean(&seconds))
}

/// `student-all-3` as `student-all`.
fn without_seed(folder: &str) -> &str {
    folder.rsplit_once('-').map_or(folder, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(program: &'static str, output: &str) -> Step {
        let outputs = vec![output.to_owned()];
        Step { program, run: 0, dataset: "nations".into(), outputs, arguments: vec![], needs: vec![] }
    }

    fn took(folder: &str, program: &str, seconds: f64) -> Finished {
        Finished { folder: folder.into(), program: program.into(), seconds }
    }

    #[test]
    fn estimates_are_means_of_what_is_alike() {
        let finished = [
            took("x/nations/seed-0/teachers/structural", "dsom-teachers", 2.0),
            took("x/nations/seed-0/teachers/visual", "dsom-teachers", 4.0),
            took("x/nations/seed-1/teachers/structural", "dsom-teachers", 10.0),
            took("x/wn9/seed-0/teachers/structural", "dsom-teachers", 900.0),
            took("x/nations/seed-0/student-a-0", "dsom-distill", 1.0),
            took("x/nations/seed-0/student-b-0", "dsom-distill", 3.0),
        ];
        assert_eq!(estimate(&step("dsom-teachers", ""), &finished), Some(8.0));
        assert_eq!(estimate(&step("dsom-distill", "student-b-7"), &finished), Some(3.0));
        assert_eq!(estimate(&step("dsom-distill", "student-c-7"), &finished), Some(2.0));
        assert_eq!(estimate(&step("dsom-evaluate", "evaluation"), &finished), None);
    }
}
