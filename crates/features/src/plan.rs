//! From a recipe's modality to what will be done: everything that can be wrong with the request is found here, before
//! any stage folder is touched.

use mkg::graph::{ENTITIES, Entity};
use recipe::{Features, ImageOutput, TextOutput, UnknownKeys};
use serde_json::Value;
use stage::manifest::Manifest;
use stage::task::{Status, Task};
use stage::{Error, Modality, Result, Run};
use std::path::{Path, PathBuf};

use crate::images::ImageSet;
use crate::random;
use crate::source::{self, Asked, EncoderSource, Lookup};
use crate::text::texts_of;

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
    pub text_model: Option<&'a str>,
    /// The encoder of images whose recipe names none.
    pub image_model: Option<&'a str>,
    /// Whether nothing will be done: then nothing is fetched either.
    pub only_asks: bool,
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
        /// Whether a file listed the entities; else they are in the order of first appearance.
        listed: bool,
    },
}

impl Source {
    fn is_of_hub(&self) -> bool {
        match self {
            Source::Text { encoder, .. } => encoder.is_of_hub(),
            Source::Images(ImageSource { encoder, .. }) => encoder.is_of_hub(),
            Source::Given { .. } => false,
        }
    }
}

/// Images and what is made of them.
pub struct ImageSource {
    /// The images.
    pub images: ImageSet,
    /// Where the encoder comes from.
    pub encoder: EncoderSource<ImageOutput>,
    /// Images per batch.
    pub batch: usize,
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
    /// It depends on an encoder of this name, which has not been fetched from the hub.
    Unknown(String),
}

/// Why there is no source.
enum Lack {
    Nothing(&'static str),
    Unfetched(String),
}

impl Context<'_> {
    /// The plan for one modality.
    ///
    /// What is fresh with the encoder that the hub's cache holds needs no network: the hub is asked where there is work.
    pub fn plan(&self, modality: &Modality, section: &Features) -> Result<Planned> {
        let planned = self.plan_with(modality, section, Lookup::Cached)?;
        let may_change = match &planned {
            Planned::Nothing(_) => false,
            Planned::Unknown(_) => true,
            Planned::Work(plan) => plan.source.is_of_hub() && plan.task.status()? != Status::Fresh,
        };
        match may_change && !self.only_asks {
            true => self.plan_with(modality, section, Lookup::Fetch),
            false => Ok(planned),
        }
    }

    fn plan_with(&self, modality: &Modality, section: &Features, lookup: Lookup) -> Result<Planned> {
        match self.source(modality, section, lookup)? {
            Ok(source) => {
                let task = self.task(modality, section, &source)?;
                Ok(Planned::Work(Box::new(Plan { modality: modality.clone(), task, source })))
            }
            Err(Lack::Nothing(reason)) => Ok(Planned::Nothing(reason.to_owned())),
            Err(Lack::Unfetched(name)) => Ok(Planned::Unknown(name)),
        }
    }

    fn source(
        &self,
        modality: &Modality,
        section: &Features,
        lookup: Lookup,
    ) -> Result<Result<Source, Lack>> {
        let section_name = format!("features.{modality}");
        match section {
            Features::Text { fields, encoder, revision, output, max_tokens, batch } => {
                let texts = texts_of(self.entities, fields);
                if texts.iter().all(String::is_empty) {
                    return Ok(Err(Lack::Nothing("no entity has such a text")));
                }
                let (encoder, revision) = (encoder.as_deref(), revision.as_deref());
                let asked = Asked {
                    section: section_name,
                    encoder,
                    revision,
                    flag: self.text_model,
                    output: *output,
                };
                let encoder = source::TEXT.source(asked, lookup)?.map_err(Lack::Unfetched);
                let (max_tokens, batch) = (*max_tokens, *batch);
                Ok(encoder.map(|encoder| Source::Text { texts, encoder, max_tokens, batch }))
            }
            Features::Images { encoder, revision, output, batch } => {
                let Some(images) = self.images()? else {
                    return Ok(Err(Lack::Nothing("no entity has an image")));
                };
                let (encoder, revision) = (encoder.as_deref(), revision.as_deref());
                let asked = Asked {
                    section: section_name,
                    encoder,
                    revision,
                    flag: self.image_model,
                    output: *output,
                };
                let encoder = source::IMAGES.source(asked, lookup)?.map_err(Lack::Unfetched);
                let source = |encoder| ImageSource { images, encoder, batch: *batch };
                Ok(encoder.map(source).map(Source::Images))
            }
            Features::File { file, tensor, keys, unknown_keys, zero_is_absent } => Ok(Ok(Source::Given {
                file: file.clone(),
                tensor: tensor.clone(),
                keys: keys.clone(),
                unknown_keys: *unknown_keys,
                zero_is_absent: *zero_is_absent,
                listed: self.graph.summary["entities_listed"] != false,
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
                encoder.describe(&mut parameters, random::text());
                files.extend(encoder.files(&source::TEXT));
            }
            Source::Images(ImageSource { encoder, .. }) => {
                encoder.describe(&mut parameters, random::images());
                files.extend(encoder.files(&source::IMAGES));
            }
            Source::Given { file, keys, .. } => {
                for (name, path) in [("file", Some(file)), ("keys", keys.as_ref())] {
                    let Some(path) = path else { continue };
                    require(path, &format!("features.{modality}.{name}"))?;
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
            listing.push_str(&format!("{path:?}\t{state}\n"));
        }
        listing
    }
}

/// Refuses a file that the recipe's `key` names and that is not there.
fn require(path: &Path, key: &str) -> Result<()> {
    if path.is_file() {
        return Ok(());
    }
    let here = std::env::current_dir().unwrap_or_default();
    let hint = format!("`{key}` is relative to the folder that the program is called in, {}", here.display());
    Err(Error::missing("no such file").at(path).hint(hint))
}
