//! Stage 2: feature vectors of entities from their texts and images.

use clap::Parser;
use dsom_features::images;
use dsom_features::plan::{Context, Plan, Planned};
use dsom_features::work::Setting;
use mkg::Vocabulary;
use serde_json::Value;
use stage::manifest::Manifest;
use stage::recipe::{Features, Recipe};
use stage::{Common, Error, Modality, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Turn the texts and images of entities into feature vectors
#[derive(Parser)]
#[command(name = "dsom-features", version)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// Only this modality of the recipe's [features] (repeatable) [default: all]
    #[arg(long, value_name = "M")]
    modality: Vec<Modality>,
    /// Text encoder where the recipe names none: a folder with config.json, tokenizer.json and model.safetensors of a
    /// BERT, or `random`
    #[arg(long, value_name = "DIR", env = "DSOM_TEXT_MODEL")]
    text_model: Option<PathBuf>,
    /// Image folder, where it is not the one that the graph's stage.json names
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Refuse an unreadable image; without it, it is named and counted as absent
    #[arg(long)]
    strict: bool,
}

fn main() -> ExitCode {
    dsom_features::parallel::one_thread_per_operation();
    let args = Args::parse();
    stage::main(&args.common, || run(&args))
}

fn run(args: &Args) -> Result<()> {
    let recipe = args.common.recipe()?;
    let modalities = selected(&recipe, &args.modality)?;
    if modalities.is_empty() {
        tracing::info!("the recipe has no [features]: nothing to do");
        return Ok(());
    }
    let run = args.common.run();
    let graph = Manifest::read(&run.graph())?;
    let entities = Vocabulary::read(&run.graph())?.entities;
    let context = Context {
        run: &run,
        seed: recipe.seed,
        graph: &graph,
        entities: &entities,
        text_model: args.text_model.as_deref(),
        images: args.images.as_deref(),
    };
    let mut plans: Vec<Plan> = Vec::new();
    for (modality, section) in modalities {
        match context.plan(modality, section)? {
            Planned::Work(plan) => plans.push(*plan),
            Planned::Nothing(reason) => {
                let older = run.features(modality).join(stage::manifest::FILE).is_file();
                let kept = if older { "; its features from another graph are still there" } else { "" };
                tracing::warn!("{modality}: skipped, {reason}{kept}");
            }
        }
    }
    for Plan { modality, task, source } in plans {
        let folder = task.folder().to_owned();
        let Some((work, ())) = args.common.begin(task, || Ok(()))? else {
            if args.strict && !args.common.is_status() {
                require_readable(&folder)?;
            }
            continue;
        };
        let setting = Setting {
            modality: &modality,
            entities: &entities,
            seed: recipe.seed,
            device: &candle_core::Device::Cpu,
            threads: rayon::current_num_threads(),
            strict: args.strict,
        };
        setting.run(&source, work)?;
    }
    Ok(())
}

/// What is fresh may have been made without `--strict`.
fn require_readable(folder: &Path) -> Result<()> {
    match Manifest::read(folder)?.summary["unreadable"].get(0).and_then(Value::as_str) {
        Some(first) => Err(images::unreadable(first).at(folder)),
        None => Ok(()),
    }
}

/// The modalities asked for, or all that the recipe has.
fn selected<'a>(recipe: &'a Recipe, asked: &'a [Modality]) -> Result<Vec<(&'a Modality, &'a Features)>> {
    if asked.is_empty() {
        return Ok(recipe.features.iter().collect());
    }
    let known = || match recipe.features.keys().map(Modality::as_str).collect::<Vec<_>>().as_slice() {
        [] => "the recipe has no [features]".to_owned(),
        names => format!("the recipe has {}", names.join(", ")),
    };
    let find = |modality: &'a Modality| {
        let section = recipe.features.get(modality);
        let missing = || Error::usage(format!("no modality `{modality}` among [features]")).hint(known());
        section.map(|section| (modality, section)).ok_or_else(missing)
    };
    asked.iter().map(find).collect()
}
