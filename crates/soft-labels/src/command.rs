//! Command line of `dsom soft-labels`.

use clap::Args;
use program::{Common, Sharing};
use stage::Result;
use std::process::ExitCode;

/// Stage 4: cache the teachers' scores of all entities for every training query
///
/// Reads graph/ and teachers/, writes soft-labels/part-*.parquet: one row per distinct query (both directions)
/// with its ids, names, neighbours and, per teacher, Float16 lists of its scores and its
/// query vector. DuckDB, Polars and pyarrow open them.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) sharing: Sharing,
    /// Check the finished files (row count, order, digests) and write nothing
    #[arg(long, conflicts_with_all = ["shard", "merge"])]
    verify: bool,
}

/// Runs the program, and gives its exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    program::main(&arguments.common, || run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.verify {
        let rows = crate::verify(&arguments.common.run())?;
        tracing::info!("{rows} rows, in order, and every digest matches");
        return Ok(());
    }
    crate::run(arguments, &arguments.common.recipe()?)
}
