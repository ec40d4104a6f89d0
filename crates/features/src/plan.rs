//! From a recipe's modality to what will be done: everything that can be wrong with the request is found here, before
//! any stage folder is touched.

use mkg::graph::{ENTITIES, Entity};
use serde_json::{Value, json};
use stage::manifest::Manifest;
use stage::recipe::{Features, Pool, UnknownKeys};
use stage::task::Task;
use stage::{Error, Modality, Result, Run};
use std::path::{Path, PathBuf};

use crate::images::ImageSet;
use crate::text::texts_of;
use crate::{bert, vit};

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
        encoder: TextSource,
        /// Tokens per text, at most.
        max_tokens: usize,
        /// Texts per batch.
        batch: usize,
    },
    /// Images, for the encoder with random weights.
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
    /// How an entity's images become one row.
    pub pool: Pool,
    /// Whether images are turned by their EXIF orientation.
    pub upright: bool,
    /// Images per batch.
    pub batch: usize,
}

/// Where a text encoder comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextSource {
    /// A checkpoint's folder.
    Checkpoint(PathBuf),
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
            Features::Text { fields, encoder, max_tokens, batch } => {
                let texts = texts_of(self.entities, fields);
                if texts.iter().all(String::is_empty) {
                    return Ok(Err("no entity has such a text".to_owned()));
                }
                let encoder = self.text_source(modality, encoder.as_deref())?;
                Ok(Ok(Source::Text { texts, encoder, max_tokens: *max_tokens, batch: *batch }))
            }
            Features::Images { encoder, pool, upright, batch } => {
                let Some(images) = self.images()? else {
                    return Ok(Err("no entity has an image".to_owned()));
                };
                require_random(modality, encoder.as_deref())?;
                let source = ImageSource { images, pool: *pool, upright: *upright, batch: *batch };
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

    fn text_source(&self, modality: &Modality, encoder: Option<&Path>) -> Result<TextSource> {
        match encoder.or(self.text_model) {
            Some(encoder) if encoder == Path::new("random") => Ok(TextSource::Random),
            Some(folder) => {
                bert::require_checkpoint(folder)?;
                Ok(TextSource::Checkpoint(folder.to_owned()))
            }
            None => Err(Error::usage(format!("the recipe names no encoder for `{modality}`"))
                .hint(format!("give --text-model DIR or --set features.{modality}.encoder=DIR (or random)"))),
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
            Source::Text { encoder: TextSource::Checkpoint(folder), .. } => {
                parameters["encoder"] = "checkpoint".into();
                files.extend(bert::FILES.map(|name| (folder.join(name), format!("encoder/{name}"))));
            }
            Source::Text { encoder: TextSource::Random, .. } => {
                parameters["encoder"] = json!({ "random": bert::RANDOM });
            }
            Source::Images(_) => {
                parameters["encoder"] = json!({ "random": vit::RANDOM });
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

fn require_random(modality: &Modality, encoder: Option<&Path>) -> Result<()> {
    match encoder {
        Some(encoder) if encoder == Path::new("random") => Ok(()),
        Some(_) => {
            Err(Error::usage(format!("`features.{modality}.encoder`: no image checkpoints can be read yet"))
                .hint("only `random` is available; features made elsewhere come in with from = \"file\""))
        }
        None => Err(Error::usage(format!("the recipe names no encoder for `{modality}`"))
            .hint(format!("give --set features.{modality}.encoder=random"))),
    }
}
