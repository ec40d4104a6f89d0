//! Command line of `dsom import`.

use clap::Args;
use recipe::{TripleFormat, Validation};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use std::path::PathBuf;
use std::process::ExitCode;

/// Read a published multimodal knowledge graph and write it into the run's `graph` folder
#[derive(Args)]
// Import computes nothing on a device: the option exists for calls that give all stages the same arguments.
#[command(after_long_help = HELP, mut_arg("device", |device| device.hide(true)))]
pub struct Arguments {
    /// Arguments of every stage.
    #[command(flatten)]
    pub(crate) common: program::Common,
    /// Folder of the published dataset
    #[arg(long, value_name = "DIR")]
    pub(crate) raw: PathBuf,
    /// Source of validation triples: auto, published, or holdout:FRACTION (of train)
    ///
    /// "auto" takes the published split, but holds out part of train if there is no such split or many of its triples
    /// are also in train or test (see `overlap_threshold` in the recipe). Overrides the recipe.
    #[arg(long, value_name = "HOW", value_parser = |text: &str| Validation::try_from(text.to_owned()))]
    pub(crate) validation: Option<Validation>,
    /// Format of the triple files: auto, openke, ids or named
    ///
    /// "openke": a count line, then `head tail relation` ids. "ids": `head relation tail` ids. "named": keys, separated
    /// by tabs or spaces, or N-Triples. "auto" decides from all files and the lists of their keys, and refuses triples
    /// that may be both ids and keys. Overrides the recipe.
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub(crate) format: Option<TripleFormat>,
}

const HELP: &str = "\
Files are looked for under the names that published datasets use (entity2id.txt, train2id.txt, train.tsv, ...); \
the recipe's [import] section names others, and says which files hold names, descriptions and captions. Nothing \
is written before everything has been read and checked.

Writes graph/entities.parquet, relations.parquet, train.parquet, valid.parquet, test.parquet, audit.json and \
stage.json, and prints the audit unless -q is given.

Exit codes: 0 done or fresh, 2 wrong command line or recipe, 65 wrong content (file and line are named), \
66 something is missing, 74 reading or writing failed, 75 interrupted.

Example:
  dsom-import --run runs/wn9 --recipe pipelines/wn9.toml --raw data/wn9";

fn format(text: &str) -> Result<TripleFormat, String> {
    let parsed = TripleFormat::deserialize(text.into_deserializer());
    parsed.map_err(|_: serde::de::value::Error| "use auto, openke, ids or named".to_owned())
}

/// Runs the program, and gives its exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    program::main(&arguments.common, || crate::import(&arguments))
}
