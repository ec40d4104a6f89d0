//! Our part of the comparisons with PyTorch: cuts a workload out of a run, times the engine on it, and times encoders.
//!
//! A workload is a folder that any program can read: the batches of a few steps as JSON, features and trained teachers
//! as safetensors. `harness.py` gives it to this program and to both references, each in its own process.

mod encoders;
mod engine;
mod products;
mod workload;

use clap::{Parser, Subcommand};
use program::print_line;
use stage::{Result, Run};
use std::path::PathBuf;
use std::process::ExitCode;

use encoders::Encoding;
use engine::Case;
use workload::Workload;

/// Times the training engine and the encoders; see benches/harness.py and benches/encoders.py, which call it
#[derive(Parser)]
#[command(name = "dsom-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Cut the workload of a few steps out of a run with a graph, features, teachers and a student
    Cut {
        /// The run
        run: PathBuf,
        /// The workload's folder
        workload: PathBuf,
        /// Number of steps
        #[arg(long, default_value_t = 12)]
        steps: usize,
    },
    /// Make the workload of a random graph
    Synthetic {
        /// The workload's folder
        workload: PathBuf,
        /// Number of entities
        #[arg(long)]
        entities: usize,
        /// Number of steps
        #[arg(long, default_value_t = 4)]
        steps: usize,
    },
    /// Time training steps of one model
    Run {
        /// The workload's folder
        workload: PathBuf,
        #[command(flatten)]
        case: Case,
    },
    /// Time an encoder; see benches/encoders.py, which calls it
    Encode {
        #[command(flatten)]
        encoding: Encoding,
    },
    /// Time only the products of a step, and the machine's peak
    Products {
        /// Queries of a step
        #[arg(long)]
        queries: usize,
        /// Number of entities
        #[arg(long)]
        entities: usize,
        /// Reals of an embedding
        #[arg(long)]
        width: usize,
        /// Worker threads
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
}

fn main() -> ExitCode {
    dsom_features::batch::one_thread_per_operation();
    let arguments = Arguments::parse();
    program::init_logging(0);
    program::exit(run(arguments.command))
}

fn run(command: Command) -> Result<()> {
    let report = match command {
        Command::Cut { run, workload, steps } => {
            return workload::cut(&Run::new(run), &workload, steps);
        }
        Command::Synthetic { workload, entities, steps } => {
            return workload::synthetic(&workload, entities, steps);
        }
        Command::Run { workload, case } => {
            limit_threads(case.threads);
            engine::run(Workload::read(&workload)?, &case)?
        }
        Command::Encode { encoding } => encoders::run(&encoding)?,
        Command::Products { queries, entities, width, threads } => {
            limit_threads(threads);
            products::run(queries, entities, width)
        }
    };
    print_line(&report.to_string())
}

fn limit_threads(threads: usize) {
    // This fails only if a thread pool exists already.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}
