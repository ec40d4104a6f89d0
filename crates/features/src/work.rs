//! The stage: it makes the plans of all modalities, then carries them out. Every error in the request is found before
//! the program touches a stage folder.

use mkg::Vocabulary;
use mkg::graph::{ENTITIES, Entity};
use program::Shards;
use recipe::{Features, Recipe};
use serde::Deserialize;
use serde_json::{Value, json};
use stage::manifest::Manifest;
use stage::task::{Status, Task};
use stage::work::Work;
use stage::{Error, Modality, Result, Run};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::batch::{Encode, Encoded, EncodedFeatures, encode_all};
use crate::checkpoint::Checkpoint;
use crate::command::Arguments;
use crate::decode::ImageFolder;
use crate::images::{ImageEncoder, ImageWork, require_inside, unreadable};
use crate::source::{self, Lack};
use crate::text::{TextReader, TextWork, texts_of};
use crate::{FeatureTable, encoder_device, given, table};

/// Makes the features of the requested modalities.
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
    let context = Context { args, run, seed: recipe.seed, graph, entities };
    let mut plans = Vec::new();
    for (modality, section) in modalities {
        plans.extend(context.plan(modality, section)?);
    }
    for plan in plans {
        context.make(&plan)?;
        if let Some(to) = args.export.as_ref().filter(|_| !args.common.is_status()) {
            let path = plan.task.folder().join(table::FILE);
            let features = FeatureTable::read(&path, context.entities.len())?;
            features.export(&to.join(format!("{}.parquet", plan.modality)), &context.entities)?;
        }
    }
    Ok(())
}

/// The requested modalities, or all modalities of the recipe.
fn selected<'a>(recipe: &'a Recipe, asked: &[Modality]) -> Result<Vec<(&'a Modality, &'a Features)>> {
    asked.iter().try_for_each(|modality| require_section(recipe, modality))?;
    let features = recipe.features.iter();
    Ok(features.filter(|(modality, _)| asked.is_empty() || asked.contains(modality)).collect())
}

/// Refuses a modality that has no section in the recipe's `[features]`.
///
/// # Errors
/// [`stage::Kind::Usage`].
pub fn require_section(recipe: &Recipe, modality: &Modality) -> Result<()> {
    if recipe.features.contains_key(modality) {
        return Ok(());
    }
    let known = recipe.features.keys().map(Modality::as_str).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "no [features]" } else { &known };
    let error = Error::usage(format!("no modality `{modality}` among [features]"));
    Err(error.hint(format!("the recipe has {known}")))
}

/// The graph, and the settings that the command line adds to the recipe.
struct Context<'a> {
    args: &'a Arguments,
    run: Run,
    seed: u64,
    /// The graph's `stage.json`.
    graph: Manifest,
    entities: Vec<Entity>,
}

struct Plan<'a> {
    modality: &'a Modality,
    section: &'a Features,
    /// Texts for a text encoder: one per entity, empty where the entity has none.
    texts: Vec<String>,
    /// The folder of the entities' images, for an encoder of images.
    images_root: PathBuf,
    /// The encoder's checkpoint; none where the weights are random or the features are given.
    checkpoint: Option<Checkpoint>,
    task: Task,
}

/// Inputs that were read and checked.
enum Ready<'a> {
    /// Something to encode, and the encoder's part of the summary.
    Encode(Box<dyn Encode + 'a>, Value),
    Given(FeatureTable),
}

impl Context<'_> {
    /// The plan of one modality's work; none, with the reason in the log, where there is nothing to do.
    ///
    /// The first plan uses the encoder in the hub's cache. The hub is asked only if that plan leaves work to do.
    fn plan<'a>(&self, modality: &'a Modality, section: &'a Features) -> Result<Option<Plan<'a>>> {
        let mut plan = self.plan_with(modality, section, false);
        let may_change = match &plan {
            Err(lack) => matches!(lack, Lack::Unfetched(_)),
            Ok(Plan { checkpoint, task, .. }) => {
                let is_of_hub = checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.origin.is_some());
                is_of_hub && task.status() != Status::Fresh
            }
        };
        let is_status = self.args.common.is_status();
        if may_change && !is_status {
            plan = self.plan_with(modality, section, true);
        }
        let folder = self.run.features(modality);
        match plan {
            Ok(plan) => return Ok(Some(plan)),
            Err(Lack::Failed(error)) => return Err(error),
            // Later stages would take the old features for this modality's features.
            Err(Lack::Nothing(reason)) if folder.join(stage::manifest::FILE).is_file() && !is_status => {
                let message = format!("{reason}, so these features are of another graph or other parameters");
                let error = Error::data(message).at(folder);
                return Err(error.hint(format!("remove this folder and teachers/{modality}")));
            }
            Err(Lack::Nothing(reason)) => tracing::warn!("{modality}: skipped, {reason}"),
            Err(Lack::Unfetched(encoder)) => {
                self.args.common.say(&folder, &format!("unknown until {encoder} is fetched"))?;
            }
        }
        Ok(None)
    }

    /// The plan, with a task that depends on the digests of files, not on their paths.
    fn plan_with<'a>(
        &self,
        modality: &'a Modality,
        section: &'a Features,
        fetch: bool,
    ) -> Result<Plan<'a>, Lack> {
        let (mut texts, mut images_root, mut checkpoint) = (Vec::new(), PathBuf::new(), None);
        let mut parameters = serde_json::to_value(section).unwrap_or_default();
        let files = match section {
            Features::Text { fields, encoder, revision, output, .. } => {
                texts = texts_of(&self.entities, fields);
                if texts.iter().all(String::is_empty) {
                    return Err(Lack::Nothing("no entity has such a text"));
                }
                let names = [encoder, revision, &self.args.text_model].map(Option::as_deref);
                checkpoint = source::TEXT.open(modality, names, output.is_some(), fetch)?;
                source::TEXT.describe(checkpoint.as_ref(), output.unwrap_or_default(), &mut parameters)
            }
            Features::Images { encoder, revision, output, .. } => {
                images_root = self.images_root()?.ok_or(Lack::Nothing("no entity has an image"))?;
                let names = [encoder, revision, &self.args.image_model].map(Option::as_deref);
                checkpoint = source::IMAGES.open(modality, names, output.is_some(), fetch)?;
                source::IMAGES.describe(checkpoint.as_ref(), output.unwrap_or_default(), &mut parameters)
            }
            Features::File { file, keys, .. } => {
                given_files(modality, [("file", Some(file)), ("keys", keys.as_ref())], &mut parameters)?
            }
            Features::Words { file, vectors, .. } => {
                given_files(modality, [("file", Some(file)), ("vectors", Some(vectors))], &mut parameters)?
            }
        };
        let folder = self.run.features(modality);
        let mut task = Task::new(&self.run, "dsom-features", folder, &parameters, self.seed);
        task.stage_input(&self.run.graph(), ENTITIES)?;
        for (path, label) in files {
            task.external_input(&path, label)?;
        }
        if let Features::Images { .. } = section {
            task.external_listing(&self.listing(&images_root), "images");
        }
        Ok(Plan { modality, section, texts, images_root, checkpoint, task })
    }

    /// The folder of the entities' images; none where no entity has one.
    fn images_root(&self) -> Result<Option<PathBuf>> {
        let graph = self.run.graph();
        let named = self.graph.summary["images_root"].as_str().map(|root| graph.join(root));
        let has_images = self.entities.iter().any(|entity| !entity.images.is_empty());
        let Some(root) = self.args.images.clone().or(named).filter(|_| has_images) else { return Ok(None) };
        require_inside(&self.entities).map_err(|e| e.at(graph.join(ENTITIES)))?;
        if !root.is_dir() {
            let error = Error::missing("no such image folder").at(root);
            return Err(error.hint("give --images DIR if the images have moved"));
        }
        Ok(Some(root))
    }

    /// All images with their sizes, and with their digests where the graph's stage computed them: reading a folder of
    /// photographs twice would double the work. Times are left out, so that a copied folder is the same.
    fn listing(&self, images_root: &Path) -> String {
        // These digests belong to the graph's own folder.
        let inputs = self.graph.inputs.iter().filter(|_| self.args.images.is_none());
        let digests: HashMap<&str, &str> =
            inputs.map(|record| (record.path.as_str(), record.sha256.as_str())).collect();
        let folder = Path::new(self.graph.parameters["images"].as_str().unwrap_or("images"));
        let lines = self.entities.iter().flat_map(|entity| &entity.images).map(|path| {
            let size = images_root.join(path).metadata();
            let size = size.map_or("unreadable".to_owned(), |data| data.len().to_string());
            let digest = digests.get(format!("raw/{}", folder.join(path).display()).as_str());
            let digest = digest.map_or(String::new(), |digest| format!("\t{digest}"));
            format!("{path:?}\t{size}{digest}\n")
        });
        lines.collect()
    }

    /// Does the task of one modality or one of its shards, or merges the shards.
    fn make(&self, plan: &Plan) -> Result<()> {
        let (common, sharing, whole) = (&self.args.common, self.args.sharing, &plan.task);
        let is_given = matches!(plan.section, Features::File { .. } | Features::Words { .. });
        match (sharing.shard, sharing.merge) {
            (Some(_), _) if is_given => {
                tracing::info!("{}: given features have no shards, --merge makes them", plan.modality);
                Ok(())
            }
            (None, Some(count)) if !is_given => {
                let ready = || merged(&Shards::of(whole, count)?, self.entities.len());
                match common.begin(whole.clone(), ready)? {
                    Some((work, (outcome, about))) => self.finish(plan, outcome, about, work)?,
                    None => self.left_alone(whole.folder())?,
                }
                common.after_merging(whole, count)
            }
            (shard, _) => match common.share(whole.clone(), shard) {
                Some(task) => self.encode(plan, task),
                None => Ok(()),
            },
        }
    }

    /// Makes all features or those of one shard, unless they are fresh.
    fn encode(&self, plan: &Plan, task: Task) -> Result<()> {
        let (modality, folder) = (plan.modality, task.folder().to_owned());
        let Some((work, ready)) = self.args.common.begin(task, || self.ready(plan))? else {
            return self.left_alone(&folder);
        };
        let (encode, about) = match ready {
            Ready::Encode(encode, about) => (encode, about),
            Ready::Given(table) => return write(modality, &table, json!({}), work),
        };
        let shard = self.args.sharing.shard;
        let outcome = encode_all(encode.as_ref(), self.entities.len(), modality, shard, &folder)?;
        if shard.is_none() {
            return self.finish(plan, outcome, about, work);
        }
        let (batches, of, width) = (outcome.batches, encode.batches().len(), encode.width());
        tracing::info!("{modality}: {batches} of {of} batches");
        work.finish(json!({ "batches": batches, "of": of, "width": width, "about": about }))
    }

    /// Reads and checks the inputs of the work before the stage's folder is touched.
    fn ready(&self, plan: &Plan) -> Result<Ready<'_>> {
        let (modality, checkpoint) = (plan.modality, plan.checkpoint.as_ref());
        match plan.section {
            Features::Text { output, max_tokens, batch, .. } => {
                let encoder = self.origin(plan, "text");
                let device = encoder_device(self.args.common.device())?;
                let output = output.unwrap_or_default();
                let reader =
                    TextReader::open(checkpoint, output, &plan.texts, *max_tokens, self.seed, &device)?;
                if checkpoint.is_some() && *max_tokens > reader.max_tokens {
                    let taken = reader.max_tokens;
                    tracing::warn!("{modality}: the encoder takes {taken} tokens, not {max_tokens}");
                }
                let tokens = reader.tokens(&plan.texts)?;
                tracing::info!("{modality}: {} tokens", tokens.ids.iter().map(Vec::len).sum::<usize>());
                let about = json!({ "texts_truncated": tokens.truncated, "encoder": encoder });
                let work = TextWork { encoder: reader.encoder, tokens, batch: *batch };
                work.require_memory(modality)?;
                Ok(Ready::Encode(Box::new(work), about))
            }
            Features::Images { output, batch, .. } => {
                let about = json!({ "encoder": self.origin(plan, "image") });
                let device = encoder_device(self.args.common.device())?;
                let encoder = ImageEncoder::open(checkpoint, output.unwrap_or_default(), self.seed, &device)?;
                let (entities, strict, batch) = (&self.entities, self.args.strict, *batch);
                let folder = ImageFolder::open(&plan.images_root)?;
                let work = ImageWork { entities, folder, encoder, batch, strict };
                Ok(Ready::Encode(Box::new(work), about))
            }
            Features::File { file, tensor, keys, unknown_keys: unknown, zero_is_absent } => {
                let keys = keys.as_deref();
                let wanted = given::Wanted { tensor: tensor.as_deref(), keyed: keys.is_some() };
                let rows = given::read(file, wanted)?;
                if rows.keys.is_empty() && keys.is_none() {
                    self.say_order(modality);
                }
                let mapping = given::Mapping { keys, unknown: *unknown, zero_is_absent: *zero_is_absent };
                Ok(Ready::Given(given::join(&rows, file, mapping, &self.entities)?))
            }
            Features::Words { file, vectors, by_id, unknown_keys: unknown } => {
                if *by_id && !self.lists_entities() {
                    let message = format!("`features.{modality}.by_id`: no file lists the entities' ids");
                    return Err(Error::data(message).at(file).hint(
                        "import entities.tsv or entity2id.txt with them, or write the entities' keys here",
                    ));
                }
                let rows = given::words(file, vectors, by_id.then_some(&self.entities))?;
                let mapping = given::Mapping { keys: None, unknown: *unknown, zero_is_absent: true };
                Ok(Ready::Given(given::join(&rows, file, mapping, &self.entities)?))
            }
        }
    }

    /// Returns whether a file of the dataset lists the ids of entities.
    fn lists_entities(&self) -> bool {
        self.graph.summary["entities_listed"] != false
    }

    /// Logs the order of entities in which rows without keys are taken.
    fn say_order(&self, modality: &Modality) {
        let first = self.entities.iter().take(3).map(|entity| format!("`{}`", entity.key));
        let first = first.collect::<Vec<_>>().join(", ");
        if self.lists_entities() {
            tracing::info!("{modality}: row i is entity i of graph/entities.parquet ({first}, ...)");
        } else {
            tracing::warn!(
                "{modality}: row i is taken for entity i in the order of first appearance in train, valid and test \
                 ({first}, ...), as no file lists the entities: `keys` in the recipe names the rows"
            );
        }
    }

    /// The origin of the weights for the summary; warns where the weights are random.
    fn origin(&self, plan: &Plan, kind: &str) -> String {
        if let Some(checkpoint) = &plan.checkpoint {
            return checkpoint.origin.as_deref().unwrap_or("checkpoint").to_owned();
        }
        let weights = format!("random weights, seed {}", self.seed);
        tracing::warn!("{}: the {kind} encoder has {weights}: it was never trained", plan.modality);
        weights
    }

    fn finish(&self, plan: &Plan, encoded: EncodedFeatures, mut about: Value, work: Work) -> Result<()> {
        let EncodedFeatures { table, report, .. } = encoded;
        if let Features::Images { .. } = plan.section {
            report.require(&plan.images_root, self.args.strict)?;
            report.write(&work, plan.modality)?;
            extend(&mut about, report.summary());
        }
        write(plan.modality, &table, about, work)
    }

    /// With `--strict`, refuses fresh features that leave out an unreadable image.
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

fn write(modality: &Modality, table: &FeatureTable, about: Value, work: Work) -> Result<()> {
    table.write(&work.path(table::FILE), modality)?;
    let (entities, present, width) = (table.entities(), table.count_present(), table.width);
    let mut summary =
        json!({ "entities": entities, "present": present, "coverage": table.coverage(), "width": width });
    extend(&mut summary, about);
    tracing::info!("{modality}: {present} of {entities} entities, width {width}");
    let mut rows = (0..entities).filter(|i| table.present[*i]).map(|i| table.row(i));
    let first = rows.next();
    if present > 1 && rows.all(|row| Some(row) == first) {
        tracing::warn!(
            "{modality}: all {present} entities have the same features, which tell nothing of any"
        );
    }
    work.finish(summary)
}

fn extend(to: &mut Value, from: Value) {
    if let (Value::Object(to), Value::Object(from)) = (to, from) {
        to.extend(from);
    }
}

/// The finished shards of a graph with `entities` entities, merged, and the encoder's part of their summaries.
fn merged(shards: &Shards, entities: usize) -> Result<(EncodedFeatures, Value)> {
    let summary = &shards.manifest().summary;
    let [width, of] = ["width", "of"].map(|name| usize::deserialize(&summary[name]).unwrap_or_default());
    let mut outcome = EncodedFeatures::empty(entities, width);
    for path in shards.files() {
        let batch = Encoded::read(&path).ok_or_else(|| Error::data("not a whole batch").at(&path))?;
        outcome.add(batch).map_err(|e| e.at(&path))?;
    }
    if of != outcome.batches {
        let message = format!("the shards have {} batches of {of}", outcome.batches);
        return Err(Error::data(message).hint("make all shards with the same program"));
    }
    Ok((outcome, summary["about"].clone()))
}

/// The files under these keys of the recipe, with their names in the stage's inputs and `parameters`.
fn given_files(
    modality: &Modality,
    named: [(&str, Option<&PathBuf>); 2],
    parameters: &mut Value,
) -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for (name, path) in named {
        let Some(path) = path else { continue };
        if !path.is_file() {
            let here = std::env::current_dir().unwrap_or_default();
            return Err(Error::missing("no such file").at(path).hint(format!(
                "`features.{modality}.{name}` is relative to the folder that the program is called in, {}",
                here.display()
            )));
        }
        parameters[name] = path.file_name().unwrap_or_default().to_string_lossy().into();
        files.push(source::labelled("given", path.clone()));
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
