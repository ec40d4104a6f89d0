//! `dsom`: one command for all programs; `dsom import` is `dsom-import`.

use program::{exit, init_logging, print_line};
use stage::{Error, Kind, Result};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The programs in the order of the pipeline, then those that look at what came out.
const PROGRAMS: [(&str, &str); 11] = [
    ("fetch", "take a published dataset's files from its publishers"),
    ("import", "read a raw dataset: RUN/graph"),
    ("features", "encode texts and images: RUN/features"),
    ("teachers", "train one teacher for each modality: RUN/teachers"),
    ("soft-labels", "cache the teachers' scores: RUN/soft-labels"),
    ("distill", "train the student: RUN/student"),
    ("ensemble", "combine teachers without a student: RUN/ensemble"),
    ("evaluate", "rank the test triples: RUN/evaluation"),
    ("predict", "ask a model: one question or many, and why"),
    ("experiment", "run a grid of datasets, variants and seeds"),
    ("report", "write a page about a run or an experiment"),
];

fn main() -> ExitCode {
    init_logging(0);
    let mut arguments = std::env::args_os().skip(1);
    let Some(name) = arguments.next() else { return usage() };
    match name.to_str() {
        Some("help" | "--help" | "-h") => match arguments.next() {
            Some(name) => run(name, vec!["--help".into()]),
            None => usage(),
        },
        Some("--version" | "-V") => {
            print_line(&format!("dsom {}", stage::manifest::version()));
            ExitCode::SUCCESS
        }
        _ => run(name, arguments.collect()),
    }
}

/// Prints what there is.
fn usage() -> ExitCode {
    let lines = PROGRAMS.map(|(name, about)| format!("  {name:12} {about}"));
    let head = "Complete multimodal knowledge graphs\n\nUsage: dsom COMMAND [OPTIONS]\n\nCommands:";
    print_line(&format!("{head}\n{}\n\n`dsom help COMMAND` says more.", lines.join("\n")));
    ExitCode::SUCCESS
}

/// Becomes the program of a command.
fn run(name: OsString, arguments: Vec<OsString>) -> ExitCode {
    let ended = find(&name).and_then(|program| {
        become_program(Command::new(&program).args(arguments)).map_err(|e| Error::io(&program, e))
    });
    ended.unwrap_or_else(|error| exit(Err(error)))
}

/// Replaces this process, so that signals reach the program.
#[cfg(unix)]
fn become_program(command: &mut Command) -> std::io::Result<ExitCode> {
    Err(std::os::unix::process::CommandExt::exec(command))
}

#[cfg(not(unix))]
fn become_program(command: &mut Command) -> std::io::Result<ExitCode> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Finds the program of a command.
fn find(name: &OsString) -> Result<PathBuf> {
    let name = name.to_string_lossy();
    if !PROGRAMS.iter().any(|(known, _)| *known == name) {
        let near = PROGRAMS
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(a.0, &name).total_cmp(&strsim::jaro_winkler(b.0, &name)));
        let hint =
            near.map_or(String::new(), |(near, _)| format!("did you mean `{near}`? `dsom --help` lists all"));
        return Err(Error::usage(format!("there is no command `{name}`")).hint(hint));
    }
    let this = std::env::current_exe().map_err(|e| Error::new(Kind::Io, "this program's path").because(e))?;
    let file = format!("dsom-{name}{}", std::env::consts::EXE_SUFFIX);
    Ok(this.with_file_name(file))
}
