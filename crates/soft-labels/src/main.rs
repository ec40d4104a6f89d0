//! `dsom-soft-labels`: see `--help`.

use clap::Parser;
use program::Common;
use stage::Result;
use std::process::ExitCode;

/// Stage 4: cache the teachers' scores of all entities for every training query
///
/// Reads graph/ and teachers/, writes soft-labels/part-*.parquet: one row per distinct query (both directions)
/// with its ids, names, neighbours and, per teacher, Float16 lists of its scores and its
/// query vector. DuckDB, Polars and pyarrow open them.
#[derive(Parser)]
#[command(name = "dsom-soft-labels", version)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Check the finished files (row count, order, digests) and write nothing
    #[arg(long)]
    verify: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::main(&arguments.common, || run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.verify {
        let rows = dsom_soft_labels::verify(&arguments.common.run())?;
        tracing::info!("{rows} rows, in order, and every digest matches");
        return Ok(());
    }
    dsom_soft_labels::run(&arguments.common, &arguments.common.recipe()?)
}
