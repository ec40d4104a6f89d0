//! `dsom`: all programs in one file. A link to this file with the name `dsom-import` runs `dsom import`.

use clap::{Command, CommandFactory, Parser};
use clap_complete::Shell;
use stage::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The shells, and the folder of each one's completions below a folder such as /usr/share.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions"),
    (Shell::Zsh, "zsh/site-functions"),
    (Shell::Fish, "fish/vendor_completions.d"),
];

/// Complete multimodal knowledge graphs
#[derive(Parser)]
#[command(version = &*stage::manifest::version().leak(), propagate_version = true)]
enum Dsom {
    Fetch(dsom_fetch::command::Arguments),
    Import(dsom_import::command::Arguments),
    Features(dsom_features::command::Arguments),
    Teachers(dsom_teachers::command::Arguments),
    SoftLabels(dsom_soft_labels::command::Arguments),
    Distill(dsom_distill::command::Arguments),
    Ensemble(dsom_ensemble::command::Arguments),
    Evaluate(dsom_evaluate::command::Arguments),
    Predict(dsom_predict::command::Arguments),
    Experiment(dsom_experiment::command::Arguments),
    Report(dsom_report::command::Arguments),
    /// Write man pages, and completions for bash, zsh and fish, into a folder such as /usr/local/share
    Manual {
        #[arg(value_name = "DIR")]
        share: PathBuf,
    },
}

fn main() -> ExitCode {
    match Dsom::parse_from(words(std::env::args_os().collect())) {
        Dsom::Fetch(arguments) => dsom_fetch::command::main(arguments),
        Dsom::Import(arguments) => dsom_import::command::main(arguments),
        Dsom::Features(arguments) => dsom_features::command::main(arguments),
        Dsom::Teachers(arguments) => dsom_teachers::command::main(arguments),
        Dsom::SoftLabels(arguments) => dsom_soft_labels::command::main(arguments),
        Dsom::Distill(arguments) => dsom_distill::command::main(arguments),
        Dsom::Ensemble(arguments) => dsom_ensemble::command::main(arguments),
        Dsom::Evaluate(arguments) => dsom_evaluate::command::main(arguments),
        Dsom::Predict(arguments) => dsom_predict::command::main(arguments),
        Dsom::Experiment(arguments) => dsom_experiment::command::main(arguments),
        Dsom::Report(arguments) => dsom_report::command::main(arguments),
        Dsom::Manual { share } => {
            program::init_logging(0);
            program::exit(write_manual(&share))
        }
    }
}

/// The words of the command line; the name of a link is replaced by `dsom` and the command.
fn words(mut words: Vec<OsString>) -> Vec<OsString> {
    let link = words.first().and_then(|path| Path::new(path).file_stem()?.to_str()?.strip_prefix("dsom-"));
    if let Some(command) = link.map(OsString::from) {
        words.splice(..1, ["dsom".into(), command]);
    }
    words
}

/// Writes a man page for each command, and completions for `dsom` and every link.
fn write_manual(share: &Path) -> Result<()> {
    let dsom = Dsom::command();
    let pages = folder(share.join("man/man1"))?;
    clap_mangen::generate_to(dsom.clone(), &pages).map_err(|e| Error::io(&pages, e))?;
    let links = dsom.get_subcommands().map(|command| (format!("dsom-{}", command.get_name()), command));
    let names: Vec<(String, &Command)> = [("dsom".to_owned(), &dsom)].into_iter().chain(links).collect();
    for (shell, place) in COMPLETIONS {
        let place = folder(share.join(place))?;
        for (name, command) in &names {
            clap_complete::generate_to(shell, &mut (*command).clone(), name, &place)
                .map_err(|e| Error::io(&place, e))?;
        }
    }
    Ok(())
}

fn folder(path: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&path).map_err(|e| Error::io(&path, e))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_well_formed_and_links_are_commands() {
        Dsom::command().debug_assert();
        let typed = |line: &[&str]| words(line.iter().map(OsString::from).collect());
        assert_eq!(typed(&["bin/dsom-soft-labels", "--help"]), ["dsom", "soft-labels", "--help"]);
        assert_eq!(typed(&["/x-y/dsom", "import"]), ["/x-y/dsom", "import"]);
    }
}
