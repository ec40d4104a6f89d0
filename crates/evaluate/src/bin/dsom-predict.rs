//! `dsom-predict`: see `--help`.

use clap::Parser;
use dsom_evaluate::predict::{Question, Reply, ask};
use program::print_line;
use stage::{Error, Result, Run};
use std::path::PathBuf;
use std::process::ExitCode;

/// Ask a model of a run: which entities complete (HEAD, RELATION, ?)
///
/// HEAD and RELATION are names or keys, in any case where that is unambiguous. Answers that train or valid already
/// have are left out unless asked for; the test split is never read. The probability is the softmax over all
/// entities.
#[derive(Parser)]
#[command(name = "dsom-predict", version)]
struct Arguments {
    /// Directory of the run
    #[arg(long, value_name = "DIR", env = "DSOM_RUN")]
    run: PathBuf,
    /// A student's folder, a teacher's modality, or `average` of the teachers
    #[arg(long, value_name = "NAME", default_value = dsom_evaluate::models::STUDENT)]
    model: String,
    /// How many answers
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// List known answers too, marked
    #[arg(long)]
    include_known: bool,
    /// Ask for (?, RELATION, HEAD): who has this relation to HEAD
    #[arg(long)]
    inverse: bool,
    /// Print one JSON object per answer
    #[arg(long)]
    json: bool,
    /// The known entity
    #[arg(value_name = "HEAD")]
    head: String,
    /// The relation
    #[arg(value_name = "RELATION")]
    relation: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::init_logging(0);
    program::exit(run(arguments))
}

fn run(arguments: Arguments) -> Result<()> {
    let Arguments { run, model, top, include_known, inverse, json, head, relation } = arguments;
    let reply = ask(&Run::new(run), &model, &Question { head, relation, inverse, top, include_known })?;
    if json { print_json(&reply) } else { print_table(&reply) }
}

fn print_json(reply: &Reply) -> Result<()> {
    for answer in &reply.predictions {
        print_line(&serde_json::to_string(answer).map_err(|e| Error::data(e.to_string()))?);
    }
    Ok(())
}

fn print_table(reply: &Reply) -> Result<()> {
    print_line(&reply.render());
    Ok(())
}
