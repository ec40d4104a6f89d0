//! Stage 2: feature vectors of entities from their texts and images.

use clap::Parser;
use dsom_features::outcome::Outcome;
use dsom_features::plan::{Context, Plan, Planned, Source};
use dsom_features::shard::Shard;
use dsom_features::work::Setting;
use dsom_features::{FeatureTable, export, images, table};
use mkg::Vocabulary;
use program::Common;
use recipe::{Features, Recipe};
use serde_json::Value;
use stage::manifest::Manifest;
use stage::task::{Status, Task};
use stage::{Error, Modality, Result, Run};
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
    /// Text encoder where the recipe names none: a folder with config.json, tokenizer.json and model.safetensors of a BERT,
    /// RoBERTa, DistilBERT, ModernBERT or NomicBERT, OWNER/NAME[@REVISION] on the Hugging Face hub, or `random` [default:
    /// google-bert/bert-base-uncased]
    #[arg(long, value_name = "MODEL", env = "DSOM_TEXT_MODEL")]
    text_model: Option<String>,
    /// Image encoder where the recipe names none: the same of a ViT, BEiT, DINOv2, CLIP or SigLIP, without a tokenizer
    /// [default: google/vit-base-patch16-224]
    #[arg(long, value_name = "MODEL", env = "DSOM_IMAGE_MODEL")]
    image_model: Option<String>,
    /// Image folder, where it is not the one that the graph's stage.json names
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Do only every N-th batch, from the I-th on, in a folder of its own, for array jobs; then --merge N
    #[arg(long, value_name = "I/N", conflicts_with = "merge")]
    shard: Option<Shard>,
    /// Put N finished shards together: the same bytes as without shards
    #[arg(long, value_name = "N")]
    merge: Option<usize>,
    /// Write the features to DIR/<modality>.parquet as well, for other programs
    #[arg(long, value_name = "DIR", conflicts_with = "shard")]
    export: Option<PathBuf>,
    /// Refuse an unreadable image; without it, it is named and counted as absent
    #[arg(long)]
    strict: bool,
}

fn main() -> ExitCode {
    dsom_features::parallel::one_thread_per_operation();
    let args = Args::parse();
    program::main(&args.common, || run(&args))
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
        image_model: args.image_model.as_deref(),
        only_asks: args.common.is_status(),
        images: args.images.as_deref(),
    };
    for Plan { modality, task, source } in args.plans(&context, &modalities)? {
        let setting = Setting {
            modality: &modality,
            entities: &entities,
            seed: recipe.seed,
            device: args.common.device(),
            threads: rayon::current_num_threads(),
            strict: args.strict,
            shard: args.shard,
        };
        let folder = task.folder().to_owned();
        args.work(&run, &setting, task, &source)?;
        if let Some(to) = args.export.as_deref().filter(|_| !args.common.is_status()) {
            let features = FeatureTable::read(&folder.join(table::FILE), entities.len())?;
            export::write(&to.join(format!("{modality}.parquet")), &features, &entities)?;
        }
    }
    Ok(())
}

impl Args {
    /// Every modality's work, before any is begun; says why one has none.
    fn plans(&self, context: &Context<'_>, modalities: &[(&Modality, &Features)]) -> Result<Vec<Plan>> {
        let mut plans = Vec::new();
        for &(modality, section) in modalities {
            let folder = context.run.features(modality);
            match context.plan(modality, section)? {
                Planned::Work(plan) => plans.push(*plan),
                Planned::Nothing(reason) => {
                    let older = folder.join(stage::manifest::FILE).is_file();
                    let kept = if older { "; its features from another graph are still there" } else { "" };
                    tracing::warn!("{modality}: skipped, {reason}{kept}");
                }
                Planned::Unknown(encoder) => {
                    self.common.say(&folder, &format!("unknown until {encoder} is fetched"));
                }
            }
        }
        Ok(plans)
    }

    /// Does one modality's task, or a shard of it, or puts its shards together.
    fn work(&self, run: &Run, setting: &Setting, task: Task, source: &Source) -> Result<()> {
        let whole = matches!(source, Source::Given { .. });
        match (self.shard, self.merge) {
            (Some(_), _) if whole => {
                tracing::info!("{}: given features have no shards, --merge makes them", setting.modality);
                Ok(())
            }
            (Some(shard), _) => self.make(setting, shard.task(run, setting.modality, &task), source),
            (None, Some(count)) if !whole => {
                let shards: Vec<Task> =
                    Shard::all(count).map(|shard| shard.task(run, setting.modality, &task)).collect();
                let (folder, entities) = (task.folder().to_owned(), setting.entities.len());
                match self.common.begin(task, || merged(&shards, entities))? {
                    Some((work, outcome)) => setting.finish(source, outcome, work),
                    None => self.left_alone(&folder),
                }
            }
            _ => self.make(setting, task, source),
        }
    }

    fn make(&self, setting: &Setting, task: Task, source: &Source) -> Result<()> {
        let folder = task.folder().to_owned();
        match self.common.begin(task, || setting.ready(source))? {
            Some((work, ready)) => setting.run(source, ready, work),
            None => self.left_alone(&folder),
        }
    }

    /// What is fresh may have been made without `--strict`.
    fn left_alone(&self, folder: &Path) -> Result<()> {
        if !self.strict || self.common.is_status() {
            return Ok(());
        }
        match Manifest::read(folder)?.summary["unreadable"].get(0).and_then(Value::as_str) {
            Some(first) => Err(images::unreadable(first).at(folder)),
            None => Ok(()),
        }
    }
}

/// What the finished shards are together.
fn merged(shards: &[Task], entities: usize) -> Result<Outcome> {
    for shard in shards {
        match shard.status()? {
            Status::Fresh => {}
            other => {
                return Err(Error::missing(format!("this shard is {other}"))
                    .at(shard.folder())
                    .hint("run it with the same recipe and --shard"));
            }
        }
    }
    let folders: Vec<&Path> = shards.iter().map(Task::folder).collect();
    Outcome::merge(&folders, entities)
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
