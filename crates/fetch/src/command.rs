//! Command line of `dsom fetch`.

use clap::{ArgAction, Args};
use stage::files::read_text;
use stage::{Result, interrupt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::{Manifest, Options, PUBLISHED, fetch};

/// Fetch the raw files of a published dataset
///
/// Downloads the files from their publishers' repositories at pinned commits and compares each file with its SHA-256.
/// Correct files in place are left alone, without a connection. The same call continues an interrupted download. A
/// failed connection is tried four times within some seconds. HTTPS_PROXY, ALL_PROXY and NO_PROXY apply.
#[derive(Args)]
pub struct Arguments {
    /// Dataset: db15k, fb15k-237, mkg-w, mkg-y, wn18 or wn9
    dataset: String,
    /// Folder for the folder DATASET, and for the folders of datasets that share files with it
    #[arg(long, value_name = "DIR", default_value = "data/raw")]
    out: PathBuf,
    /// Mirror, such as `https://mirror.example/github`: replaces the scheme and the host of every address
    #[arg(long, value_name = "URL", env = "DSOM_MIRROR")]
    mirror: Option<String>,
    /// Also fetch token ids of texts, if there are any; their digests are not known
    #[arg(long)]
    tokens: bool,
    /// File that describes datasets of your own, like data/datasets.toml
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Say less (repeatable)
    #[arg(short, long, action = ArgAction::Count)]
    quiet: u8,
    /// Say more (repeatable)
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

/// Runs the program, and gives its exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    program::init_logging(arguments.verbose.min(3) as i8 - arguments.quiet.min(3) as i8);
    interrupt::listen();
    program::exit(run(arguments))
}

fn run(arguments: Arguments) -> Result<()> {
    let manifest = match &arguments.manifest {
        Some(path) => Manifest::parse(&read_text(path)?).map_err(|e| e.at(path))?,
        None => Manifest::parse(PUBLISHED)?,
    };
    let options = Options {
        out: arguments.out,
        mirror: arguments.mirror.filter(|mirror| !mirror.is_empty()),
        with_tokens: arguments.tokens,
        pause: Duration::from_secs(1),
    };
    fetch(&manifest, &arguments.dataset, options)
}
