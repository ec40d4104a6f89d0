//! The stage: every modality's plan is made, then done.

use mkg::Vocabulary;
use program::Shards;
use recipe::{Features, Recipe, TextOutput};
use serde_json::{Value, json};
use stage::manifest::Manifest;
use stage::task::Task;
use stage::work::Work;
use stage::{Error, Modality, Result};
use std::path::Path;

use crate::batch::{Encode, Encoded, EncodedFeatures, Job};
use crate::command::Arguments;
use crate::images::ImageWork;
use crate::images::report::unreadable;
use crate::plan::{Context, FeatureSource, Lack, ModalityPlan};
use crate::source::EncoderSource;
use crate::text::{TextEncoder, TextWork};
use crate::tokens::Tokens;
use crate::{FeatureTable, encoder_device, export, given, table};

/// Makes the features of the modalities that are asked for.
///
/// # Errors
/// Where the request, an input or the work fails.
pub(crate) fn run(args: &Arguments) -> Result<()> {
    let recipe = args.common.recipe()?;
    let modalities = selected(&recipe, &args.modality)?;
    if modalities.is_empty() {
        tracing::info!("the recipe has no [features]: nothing to do");
        return Ok(());
    }
    let run = args.common.run();
    let graph = Manifest::read(&run.graph())?;
    let entities = Vocabulary::read(&run.graph())?.entities;
    let context = Context { args, run: &run, seed: recipe.seed, graph: &graph, entities: &entities };
    for plan in context.plans(&modalities)? {
        let folder = plan.task.folder().to_owned();
        let export = args.export.as_ref().filter(|_| !args.common.is_status());
        let export = export.map(|to| to.join(format!("{}.parquet", plan.modality)));
        context.make(plan)?;
        if let Some(path) = export {
            let features = FeatureTable::read(&folder.join(table::FILE), entities.len())?;
            export::write(&path, &features, &entities)?;
        }
    }
    Ok(())
}

/// The modalities asked for, or all that the recipe has.
fn selected<'a>(recipe: &'a Recipe, asked: &'a [Modality]) -> Result<Vec<(&'a Modality, &'a Features)>> {
    if asked.is_empty() {
        return Ok(recipe.features.iter().collect());
    }
    let found = asked
        .iter()
        .map(|modality| recipe.features.get_key_value(modality).ok_or_else(|| unknown(recipe, modality)));
    found.collect()
}

fn unknown(recipe: &Recipe, modality: &Modality) -> Error {
    let known = recipe.features.keys().map(Modality::as_str).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "no [features]" } else { &known };
    Error::usage(format!("no modality `{modality}` among [features]")).hint(format!("the recipe has {known}"))
}

/// Inputs that were read and checked.
enum Ready<'a> {
    /// Something to encode, and what the summary tells of it.
    Encode(Box<dyn Encode + 'a>, Value),
    /// Given features, joined.
    Given(FeatureTable),
}

impl Context<'_> {
    /// Every modality's work, before any is begun; says why one has none.
    fn plans(&self, modalities: &[(&Modality, &Features)]) -> Result<Vec<ModalityPlan>> {
        let mut plans = Vec::new();
        for &(modality, section) in modalities {
            let folder = self.run.features(modality);
            match self.plan(modality, section)? {
                Ok(plan) => plans.push(plan),
                Err(Lack::Nothing(reason)) => {
                    let older = folder.join(stage::manifest::FILE).is_file();
                    let kept = if older { "; its features from another graph are still there" } else { "" };
                    tracing::warn!("{modality}: skipped, {reason}{kept}");
                }
                Err(Lack::Unfetched(encoder)) => {
                    self.args.common.say(&folder, &format!("unknown until {encoder} is fetched"));
                }
            }
        }
        Ok(plans)
    }

    /// Does one modality's task, or a shard of it, or puts its shards together.
    fn make(&self, ModalityPlan { modality, task, source }: ModalityPlan) -> Result<()> {
        let sharing = self.args.sharing;
        match (&source, sharing.shard, sharing.merge) {
            (FeatureSource::Given { .. } | FeatureSource::Words { .. }, Some(_), _) => {
                tracing::info!("{modality}: given features have no shards, --merge makes them");
                Ok(())
            }
            (FeatureSource::Text { .. } | FeatureSource::Images { .. }, None, Some(count)) => {
                let whole = task.clone();
                let ready = || merged(&Shards::of(&whole, count)?, self.entities.len());
                match self.args.common.begin(task, ready)? {
                    Some((work, (outcome, about))) => {
                        self.finish(&modality, &source, outcome, about, work)?;
                    }
                    None => self.left_alone(whole.folder())?,
                }
                self.args.common.after_merging(&whole, count)
            }
            (_, shard, _) => match self.args.common.share(task, shard)? {
                Some(task) => self.encode(&modality, &source, task),
                None => Ok(()),
            },
        }
    }

    /// Makes features, all of them or a shard's, unless they are fresh.
    fn encode(&self, modality: &Modality, source: &FeatureSource, task: Task) -> Result<()> {
        let folder = task.folder().to_owned();
        let Some((work, ready)) = self.args.common.begin(task, || self.ready(modality, source))? else {
            return self.left_alone(&folder);
        };
        let (encode, about) = match ready {
            Ready::Encode(encode, about) => (encode, about),
            Ready::Given(table) => return write(modality, &table, json!({}), work),
        };
        let shard = self.args.sharing.shard;
        let job = Job { modality, threads: rayon::current_num_threads(), shard, folder: &folder };
        let outcome = job.run(encode.as_ref(), self.entities.len())?;
        if shard.is_none() {
            return self.finish(modality, source, outcome, about, work);
        }
        let (batches, of, width) = (outcome.batches, encode.batches().len(), encode.width());
        tracing::info!("{modality}: {batches} of {of} batches");
        work.finish(json!({ "batches": batches, "of": of, "width": width, "about": about }))?;
        Ok(())
    }

    /// Reads and checks what the work needs, before the stage's folder is touched.
    fn ready<'a>(&self, modality: &Modality, source: &'a FeatureSource) -> Result<Ready<'a>> {
        match source {
            FeatureSource::Text { texts, encoder, max_tokens, batch } => {
                let (text_encoder, tokens) = self.text_encoder(modality, texts, encoder, *max_tokens)?;
                let count: usize = tokens.ids.iter().map(Vec::len).sum();
                tracing::info!("{modality}: {count} tokens");
                let about = json!({ "texts_truncated": tokens.truncated, "encoder": self.origin(encoder) });
                let work = TextWork { encoder: text_encoder, tokens, batch: *batch };
                work.require_memory(rayon::current_num_threads(), modality)?;
                Ok(Ready::Encode(Box::new(work), about))
            }
            FeatureSource::Images { images, encoder, batch } => {
                if *encoder == EncoderSource::Random {
                    self.warn_of_random_weights(modality, "image");
                }
                let image_encoder = encoder.open(self.seed, &encoder_device(self.args.common.device())?)?;
                let work = ImageWork::new(images, image_encoder, *batch, self.args.strict)?;
                Ok(Ready::Encode(Box::new(work), json!({ "encoder": self.origin(encoder) })))
            }
            FeatureSource::Given { file, tensor, keys, unknown_keys, zero_is_absent } => {
                let keys = keys.as_deref();
                let wanted = given::Wanted { tensor: tensor.as_deref(), keyed: keys.is_some() };
                let rows = given::read(file, wanted)?;
                if rows.keys.is_empty() && keys.is_none() {
                    self.say_order(modality);
                }
                let mapping =
                    given::Mapping { keys, unknown: *unknown_keys, zero_is_absent: *zero_is_absent };
                Ok(Ready::Given(given::join(&rows, file, mapping, self.entities)?))
            }
            FeatureSource::Words { file, vectors, by_id, unknown_keys } => {
                let rows = given::words(file, vectors, by_id.then_some(self.entities))?;
                let mapping = given::Mapping { keys: None, unknown: *unknown_keys, zero_is_absent: true };
                Ok(Ready::Given(given::join(&rows, file, mapping, self.entities)?))
            }
        }
    }

    fn text_encoder(
        &self,
        modality: &Modality,
        texts: &[String],
        source: &EncoderSource<TextOutput>,
        max_tokens: usize,
    ) -> Result<(TextEncoder, Tokens)> {
        let device = encoder_device(self.args.common.device())?;
        if *source == EncoderSource::Random {
            self.warn_of_random_weights(modality, "text");
        }
        let reader = source.open(texts, max_tokens, self.seed, &device)?;
        if *source != EncoderSource::Random && max_tokens > reader.max_tokens {
            tracing::warn!("{modality}: the encoder takes {} tokens, not {max_tokens}", reader.max_tokens);
        }
        let tokens = reader.tokens(texts)?;
        Ok((reader.encoder, tokens))
    }

    /// Says whose the rows are that nothing names.
    fn say_order(&self, modality: &Modality) {
        let first = self.entities.iter().take(3).map(|entity| format!("`{}`", entity.key));
        let first = first.collect::<Vec<_>>().join(", ");
        if self.graph.summary["entities_listed"] != false {
            tracing::info!("{modality}: row i is entity i of graph/entities.parquet ({first}, ...)");
        } else {
            tracing::warn!(
                "{modality}: row i is taken for entity i in the order of first appearance in train, valid and test \
                 ({first}, ...), as no file lists the entities: `keys` in the recipe names the rows"
            );
        }
    }

    fn origin<O>(&self, source: &EncoderSource<O>) -> String {
        match source {
            EncoderSource::Checkpoint(checkpoint, _) => {
                checkpoint.origin().unwrap_or("checkpoint").to_owned()
            }
            EncoderSource::Random => format!("random weights, seed {}", self.seed),
        }
    }

    fn warn_of_random_weights(&self, modality: &Modality, kind: &str) {
        let weights = self.origin::<()>(&EncoderSource::Random);
        tracing::warn!("{modality}: the {kind} encoder has {weights}: it was never trained");
    }

    /// Finishes the stage's folder with encoded features.
    fn finish(
        &self,
        modality: &Modality,
        source: &FeatureSource,
        EncodedFeatures { table, report, .. }: EncodedFeatures,
        mut about: Value,
        work: Work,
    ) -> Result<()> {
        if let FeatureSource::Images { images, .. } = source {
            report.require_any(&images.root)?;
            if self.args.strict {
                report.require_all(&images.root)?;
            }
            report.write(&work, modality)?;
            extend(&mut about, report.summary());
        }
        write(modality, &table, about, work)
    }

    /// Refuses what is fresh but was made without `--strict`.
    fn left_alone(&self, folder: &Path) -> Result<()> {
        if !self.args.strict || self.args.common.is_status() {
            return Ok(());
        }
        match Manifest::read(folder)?.summary["unreadable"].get(0).and_then(Value::as_str) {
            Some(first) => Err(unreadable(first).at(folder)),
            None => Ok(()),
        }
    }
}

/// Writes the table and finishes the stage's folder.
fn write(modality: &Modality, table: &FeatureTable, about: Value, work: Work) -> Result<()> {
    table.write(&work.path(table::FILE), modality)?;
    let (entities, present, width) = (table.entities(), table.count_present(), table.width);
    let coverage = table.coverage();
    let mut summary =
        json!({ "entities": entities, "present": present, "coverage": coverage, "width": width });
    extend(&mut summary, about);
    tracing::info!("{modality}: {present} of {entities} entities, width {width}");
    work.finish(summary)?;
    Ok(())
}

/// Adds the entries of another object.
fn extend(to: &mut Value, from: Value) {
    if let (Value::Object(to), Value::Object(from)) = (to, from) {
        to.extend(from);
    }
}

/// The finished shards together, of a graph with so many `entities`, and what their summaries tell of the encoder.
///
/// # Errors
/// [`stage::Kind::Data`] where shards do not fit each other.
fn merged(shards: &Shards, entities: usize) -> Result<(EncodedFeatures, Value)> {
    let summary = &shards.manifest().summary;
    let [width, of] =
        ["width", "of"].map(|name| summary[name].as_u64().and_then(|n| usize::try_from(n).ok()));
    let mut outcome = EncodedFeatures::empty(entities, width.unwrap_or_default());
    for path in shards.files() {
        let batch = Encoded::read(&path).ok_or_else(|| Error::data("not a whole batch").at(&path))?;
        outcome.add(batch).map_err(|e| e.at(&path))?;
    }
    match of.unwrap_or_default() {
        of if of == outcome.batches => Ok((outcome, summary["about"].clone())),
        of => {
            let message = format!("the shards have {} batches of {of}", outcome.batches);
            Err(Error::data(message).hint("make all shards with the same program"))
        }
    }
}
