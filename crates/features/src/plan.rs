//! From a recipe's modality to what will be done: everything that can be wrong with the request is found here, before
//! any stage folder is touched.

use mkg::graph::{ENTITIES, Entity};
use serde::Serialize;
use serde_json::{Value, json};
use stage::manifest::Manifest;
use stage::recipe::{Features, ImageOutput, Pool, TextOutput, UnknownKeys};
use stage::task::Task;
use stage::{Error, Modality, Result, Run};
use std::path::{Path, PathBuf};

use crate::checkpoint::{CONFIG, Checkpoint};
use crate::images::ImageSet;
use crate::text::texts_of;
use crate::{bert, preparation, random};

/// The graph, and what the command line says beside the recipe.
pub struct Context<'a> {
    /// The run.
    pub run: &'a Run,
    /// The run's seed.
    pub seed: u64,
    /// The graph's `stage.json`.
    pub graph: &'a Manifest,
    /// The graph's entities.
    pub entities: &'a [Entity],
    /// The encoder of texts whose recipe names none.
    pub text_model: Option<&'a Path>,
    /// The encoder of images whose recipe names none.
    pub image_model: Option<&'a Path>,
    /// The image folder, where it is not the one that the graph names.
    pub images: Option<&'a Path>,
}

/// What one modality's features are made from.
pub enum Source {
    /// Texts.
    Text {
        /// One per entity, empty where there is none.
        texts: Vec<String>,
        /// Where the encoder comes from.
        encoder: EncoderSource<TextOutput>,
        /// Tokens per text, at most.
        max_tokens: usize,
        /// Texts per batch.
        batch: usize,
    },
    /// Images.
    Images(ImageSource),
    /// Given rows.
    Given {
        /// The file they are in.
        file: PathBuf,
        /// Which tensor of it.
        tensor: Option<String>,
        /// The keys of its rows.
        keys: Option<PathBuf>,
        /// What a key that no entity has is.
        unknown_keys: UnknownKeys,
        /// Whether a row of zeros is no features.
        zero_is_absent: bool,
    },
}

/// Images and what is made of them.
pub struct ImageSource {
    /// The images.
    pub images: ImageSet,
    /// Where the encoder comes from.
    pub encoder: EncoderSource<ImageOutput>,
    /// How an entity's images become one row.
    pub pool: Pool,
    /// Whether images are turned by their EXIF orientation.
    pub upright: bool,
    /// Images per batch.
    pub batch: usize,
}

/// Where an encoder comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncoderSource<O> {
    /// A checkpoint, and what of it is the feature.
    Checkpoint(Checkpoint, O),
    /// Weights drawn from the run's seed.
    Random,
}

/// One modality's work.
pub struct Plan {
    /// The modality.
    pub modality: Modality,
    /// What the stage is asked for.
    pub task: Task,
    /// What from.
    pub source: Source,
}

/// A plan, or why there is nothing to do.
pub enum Planned {
    /// Work.
    Work(Box<Plan>),
    /// No entity has what this modality is made from.
    Nothing(String),
}

impl Context<'_> {
    /// The plan for one modality.
    pub fn plan(&self, modality: &Modality, section: &Features) -> Result<Planned> {
        match self.source(modality, section)? {
            Ok(source) => {
                let task = self.task(modality, section, &source)?;
                Ok(Planned::Work(Box::new(Plan { modality: modality.clone(), task, source })))
            }
            Err(reason) => Ok(Planned::Nothing(reason)),
        }
    }

    fn source(&self, modality: &Modality, section: &Features) -> Result<Result<Source, String>> {
        match section {
            Features::Text { fields, encoder, output, max_tokens, batch } => {
                let texts = texts_of(self.entities, fields);
                if texts.iter().all(String::is_empty) {
                    return Ok(Err("no entity has such a text".to_owned()));
                }
                let named = encoder.as_deref().or(self.text_model);
                let encoder = encoder_source(modality, named, *output, &[bert::TOKENIZER], "--text-model")?;
                Ok(Ok(Source::Text { texts, encoder, max_tokens: *max_tokens, batch: *batch }))
            }
            Features::Images { encoder, output, pool, upright, batch } => {
                let Some(images) = self.images()? else {
                    return Ok(Err("no entity has an image".to_owned()));
                };
                let named = encoder.as_deref().or(self.image_model);
                let encoder = encoder_source(modality, named, *output, &[], "--image-model")?;
                let (pool, upright, batch) = (*pool, *upright, *batch);
                let source = ImageSource { images, encoder, pool, upright, batch };
                Ok(Ok(Source::Images(source)))
            }
            Features::File { file, tensor, keys, unknown_keys, zero_is_absent } => Ok(Ok(Source::Given {
                file: file.clone(),
                tensor: tensor.clone(),
                keys: keys.clone(),
                unknown_keys: *unknown_keys,
                zero_is_absent: *zero_is_absent,
            })),
        }
    }

    /// The graph's images; none where no entity has one.
    fn images(&self) -> Result<Option<ImageSet>> {
        let graph = self.run.graph();
        let named =
            self.graph.summary.get("images_root").and_then(Value::as_str).map(|root| graph.join(root));
        let Some(root) = self.images.map(Path::to_owned).or(named) else { return Ok(None) };
        let images = ImageSet::new(root, self.entities).map_err(|e| e.at(graph.join(ENTITIES)))?;
        if images.of_entities.is_empty() {
            return Ok(None);
        }
        if !images.root.is_dir() {
            return Err(Error::missing("no such image folder")
                .at(images.root)
                .hint("give --images DIR if the images have moved"));
        }
        Ok(Some(images))
    }

    /// The task: paths do not count, the files' digests do.
    fn task(&self, modality: &Modality, section: &Features, source: &Source) -> Result<Task> {
        let mut parameters = serde_json::to_value(section).unwrap_or_default();
        let mut files = Vec::new();
        match source {
            Source::Text { encoder, .. } => {
                encoder.describe(&mut parameters, json!(random::bert::RANDOM));
                files.extend(encoder.files(bert::TOKENIZER));
            }
            Source::Images(ImageSource { encoder, .. }) => {
                encoder.describe(&mut parameters, json!(random::vit::RANDOM));
                files.extend(encoder.files(preparation::FILE));
            }
            Source::Given { file, keys, .. } => {
                for (name, path) in [("file", Some(file)), ("keys", keys.as_ref())] {
                    let Some(path) = path else { continue };
                    let label = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    parameters[name] = label.clone().into();
                    files.push((path.clone(), format!("given/{label}")));
                }
            }
        }
        let folder = self.run.features(modality);
        let mut task = Task::new(self.run, "dsom-features", folder, &parameters, self.seed);
        task.stage_input(&self.run.graph(), ENTITIES)?;
        for (path, label) in files {
            task.external_input(&path, label)?;
        }
        if let Source::Images(ImageSource { images, .. }) = source {
            task.external_listing(&self.listing(images), "images");
        }
        Ok(task)
    }

    /// All images, with their digests where the graph's stage wrote them, else with their sizes: reading a folder of
    /// photographs twice would double the work.
    fn listing(&self, images: &ImageSet) -> String {
        let recorded: std::collections::HashMap<PathBuf, &str> = self
            .graph
            .outputs
            .iter()
            .map(|record| (self.run.graph().join(&record.path), record.sha256.as_str()))
            .collect();
        let mut listing = String::new();
        for path in images.of_entities.iter().flat_map(|(_, paths)| paths) {
            let file = images.root.join(path);
            let state = match recorded.get(&file) {
                Some(sha256) => (*sha256).to_owned(),
                None => file.metadata().map_or("unreadable".to_owned(), |data| data.len().to_string()),
            };
            listing.push_str(&format!("{path}\t{state}\n"));
        }
        listing
    }
}

impl<O: Serialize> EncoderSource<O> {
    /// Writes to a task's parameters what the features depend on beside the files.
    fn describe(&self, parameters: &mut Value, sizes: Value) {
        match self {
            EncoderSource::Checkpoint(_, output) => {
                parameters["encoder"] = "checkpoint".into();
                parameters["output"] = json!(output);
            }
            EncoderSource::Random => {
                parameters["encoder"] = json!({ "random": sizes });
                parameters["output"] = Value::Null;
            }
        }
    }

    /// The checkpoint's files that the features depend on, with what they are called in the stage's inputs.
    fn files(&self, other: &str) -> Vec<(PathBuf, String)> {
        let EncoderSource::Checkpoint(checkpoint, _) = self else { return Vec::new() };
        let named = |path: PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (path, format!("encoder/{name}"))
        };
        let weights = checkpoint.weights_file().to_owned();
        [checkpoint.path(CONFIG), weights].into_iter().chain(checkpoint.optional(other)).map(named).collect()
    }
}

fn encoder_source<O: Default>(
    modality: &Modality,
    named: Option<&Path>,
    output: Option<O>,
    needs: &[&str],
    flag: &str,
) -> Result<EncoderSource<O>> {
    match (named, output) {
        (Some(encoder), None) if encoder == Path::new("random") => Ok(EncoderSource::Random),
        (Some(encoder), Some(_)) if encoder == Path::new("random") => {
            let message = format!("`features.{modality}.output`: random weights have an output of their own");
            Err(Error::usage(message).hint("leave it out, or name a checkpoint"))
        }
        (Some(folder), output) => {
            let checkpoint = Checkpoint::open(folder, needs)?;
            Ok(EncoderSource::Checkpoint(checkpoint, output.unwrap_or_default()))
        }
        (None, _) => Err(Error::usage(format!("the recipe names no encoder for `{modality}`"))
            .hint(format!("give {flag} DIR or --set features.{modality}.encoder=DIR (or random)"))),
    }
}
