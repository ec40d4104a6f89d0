//! The command line.

use clap::Parser;
use recipe::{Import, Recipe, TripleFormat, Validation};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use stage::Result;
use std::path::PathBuf;

/// Read a published multimodal knowledge graph and write it into the run's `graph` folder
#[derive(Parser, Clone, Debug)]
#[command(name = "dsom-import", version, after_long_help = HELP)]
pub struct Args {
    /// Arguments of every stage.
    #[command(flatten)]
    pub common: program::Common,
    /// Folder of the dataset as it was published
    #[arg(long, value_name = "DIR")]
    pub raw: PathBuf,
    /// Where validation triples come from: auto, published, or holdout:FRACTION (of train)
    ///
    /// "auto" takes the published split unless many of its triples also stand in train or test (see
    /// `overlap_threshold` in the recipe) or there is none; then part of train is held out. Overrides the recipe.
    #[arg(long, value_name = "HOW", value_parser = |text: &str| Validation::try_from(text.to_owned()))]
    pub validation: Option<Validation>,
    /// Format of the triple files: auto, openke, ids or named
    ///
    /// "openke": a count line, then `head tail relation` ids. "ids": `head relation tail` ids. "named": keys,
    /// separated by tabs or spaces, or N-Triples. "auto" decides from all files and what lists their keys, and refuses
    /// what may be ids as well as keys. Overrides the recipe.
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub format: Option<TripleFormat>,
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

impl Args {
    /// The recipe, and its import section with this command line's overrides.
    pub(crate) fn recipe(&self) -> Result<(Recipe, Import)> {
        let recipe = self.common.recipe()?;
        let mut import = recipe.import.clone();
        import.validation = self.validation.unwrap_or(import.validation);
        import.format = self.format.unwrap_or(import.format);
        Ok((recipe, import))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn overrides_reach_the_import_section() {
        let line =
            ["dsom-import", "--run", "r", "--raw", "d", "--validation", "holdout:0.2", "--format", "ids"];
        let (_, import) = Args::try_parse_from(line).unwrap().recipe().unwrap();
        assert_eq!((import.validation, import.format), (Validation::Holdout(0.2), TripleFormat::Ids));
    }
}
