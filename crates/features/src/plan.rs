//! The plan of a modality's features: all that can be wrong with the request is found here, before any
//! stage folder is touched.

use mkg::graph::{ENTITIES, Entity};
use recipe::{Features, ImageOutput, TextOutput, UnknownKeys};
use serde_json::Value;
use stage::manifest::Manifest;
use stage::task::{Status, Task};
use stage::{Error, Modality, Result, Run};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::command::Arguments;
use crate::images::ImageSet;
use crate::random;
use crate::source::{self, AskedEncoder, EncoderSource, Lookup};
use crate::text::texts_of;

/// The graph, and what the command line says beside the recipe.
pub(crate) struct Context<'a> {
    pub args: &'a Arguments,
    pub run: &'a Run,
    pub seed: u64,
    /// The graph's `stage.json`.
    pub graph: &'a Manifest,
    pub entities: &'a [Entity],
}

/// Things that one modality's features are made from.
pub(crate) enum FeatureSource {
    Text {
        /// One per entity, empty where there is none.
        texts: Vec<String>,
        encoder: EncoderSource<TextOutput>,
        max_tokens: usize,
        batch: usize,
    },
    Images {
        images: ImageSet,
        encoder: EncoderSource<ImageOutput>,
        batch: usize,
    },
    Given {
        file: PathBuf,
        tensor: Option<String>,
        keys: Option<PathBuf>,
        unknown_keys: UnknownKeys,
        zero_is_absent: bool,
    },
    Words {
        file: PathBuf,
        vectors: PathBuf,
        by_id: bool,
        unknown_keys: UnknownKeys,
    },
}

impl FeatureSource {
    fn is_of_hub(&self) -> bool {
        match self {
            FeatureSource::Text { encoder, .. } => encoder.is_of_hub(),
            FeatureSource::Images { encoder, .. } => encoder.is_of_hub(),
            FeatureSource::Given { .. } | FeatureSource::Words { .. } => false,
        }
    }
}

/// One modality's work.
pub(crate) struct ModalityPlan {
    pub modality: Modality,
    pub task: Task,
    pub source: FeatureSource,
}

/// A reason why there is no plan.
pub(crate) enum Lack {
    /// No entity has what the modality is made from.
    Nothing(&'static str),
    /// It depends on an encoder of this name, which has not been fetched from the hub.
    Unfetched(String),
}

impl Context<'_> {
    /// The plan for one modality.
    ///
    /// With the encoder that the hub's cache holds no network is needed: the hub is asked where there is work.
    pub(crate) fn plan(&self, modality: &Modality, section: &Features) -> Result<Result<ModalityPlan, Lack>> {
        let plan = self.plan_with(modality, section, Lookup::Cached)?;
        let may_change = match &plan {
            Err(lack) => matches!(lack, Lack::Unfetched(_)),
            Ok(plan) => plan.source.is_of_hub() && plan.task.status()? != Status::Fresh,
        };
        if may_change && !self.args.common.is_status() {
            self.plan_with(modality, section, Lookup::Fetch)
        } else {
            Ok(plan)
        }
    }

    fn plan_with(
        &self,
        modality: &Modality,
        section: &Features,
        lookup: Lookup,
    ) -> Result<Result<ModalityPlan, Lack>> {
        let source = match self.source(modality, section, lookup)? {
            Ok(source) => source,
            Err(lack) => return Ok(Err(lack)),
        };
        let task = self.task(modality, section, &source)?;
        Ok(Ok(ModalityPlan { modality: modality.clone(), task, source }))
    }

    fn source(
        &self,
        modality: &Modality,
        section: &Features,
        lookup: Lookup,
    ) -> Result<Result<FeatureSource, Lack>> {
        Ok(match section.clone() {
            Features::Text { fields, encoder, revision, output, max_tokens, batch } => {
                let texts = texts_of(self.entities, &fields);
                if texts.iter().all(String::is_empty) {
                    return Ok(Err(Lack::Nothing("no entity has such a text")));
                }
                let asked = AskedEncoder { modality, encoder, revision, flag: &self.args.text_model, output };
                let encoder = source::TEXT.source(asked, lookup)?;
                encoder.map(|encoder| FeatureSource::Text { texts, encoder, max_tokens, batch })
            }
            Features::Images { encoder, revision, output, batch } => {
                let Some(images) = self.images()? else {
                    return Ok(Err(Lack::Nothing("no entity has an image")));
                };
                let asked =
                    AskedEncoder { modality, encoder, revision, flag: &self.args.image_model, output };
                let encoder = source::IMAGES.source(asked, lookup)?;
                encoder.map(|encoder| FeatureSource::Images { images, encoder, batch })
            }
            Features::File { file, tensor, keys, unknown_keys, zero_is_absent } => {
                Ok(FeatureSource::Given { file, tensor, keys, unknown_keys, zero_is_absent })
            }
            Features::Words { file, vectors, by_id, unknown_keys } => {
                Ok(FeatureSource::Words { file, vectors, by_id, unknown_keys })
            }
        })
    }

    /// The graph's images; none where no entity has one.
    fn images(&self) -> Result<Option<ImageSet>> {
        let graph = self.run.graph();
        let named = self.graph.summary["images_root"].as_str().map(|root| graph.join(root));
        let Some(root) = self.args.images.clone().or(named) else { return Ok(None) };
        let images = ImageSet::new(root, self.entities).map_err(|e| e.at(graph.join(ENTITIES)))?;
        if images.paths.iter().all(Vec::is_empty) {
            return Ok(None);
        }
        if !images.root.is_dir() {
            let error = Error::missing("no such image folder").at(images.root);
            return Err(error.hint("give --images DIR if the images have moved"));
        }
        Ok(Some(images))
    }

    /// The task: paths do not count, the files' digests do.
    fn task(&self, modality: &Modality, section: &Features, source: &FeatureSource) -> Result<Task> {
        let mut parameters = serde_json::to_value(section).unwrap_or_default();
        let files = match source {
            FeatureSource::Text { encoder, .. } => {
                encoder.describe(&mut parameters, random::text());
                encoder.files(&source::TEXT)
            }
            FeatureSource::Images { encoder, .. } => {
                encoder.describe(&mut parameters, random::images());
                encoder.files(&source::IMAGES)
            }
            FeatureSource::Given { file, keys, .. } => {
                given_files(modality, [("file", Some(file)), ("keys", keys.as_deref())], &mut parameters)?
            }
            FeatureSource::Words { file, vectors, .. } => {
                given_files(modality, [("file", Some(file)), ("vectors", Some(vectors))], &mut parameters)?
            }
        };
        let folder = self.run.features(modality);
        let mut task = Task::new(self.run, "dsom-features", folder, &parameters, self.seed);
        task.stage_input(&self.run.graph(), ENTITIES)?;
        for (path, label) in files {
            task.external_input(&path, label)?;
        }
        if let FeatureSource::Images { images, .. } = source {
            task.external_listing(&self.listing(images), "images");
        }
        Ok(task)
    }

    /// All images, with their digests where the graph's stage wrote them, else with their sizes: reading a folder of
    /// photographs twice would double the work.
    fn listing(&self, images: &ImageSet) -> String {
        let outputs = self.graph.outputs.iter();
        let recorded: HashMap<PathBuf, &str> =
            outputs.map(|record| (self.run.graph().join(&record.path), record.sha256.as_str())).collect();
        let mut listing = String::new();
        for path in images.paths.iter().flatten() {
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

/// The files that the recipe has under these keys, with what they are called in the stage's inputs and `parameters`.
fn given_files(
    modality: &Modality,
    named: [(&str, Option<&Path>); 2],
    parameters: &mut Value,
) -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for (name, path) in named {
        let Some(path) = path else { continue };
        require(path, &format!("features.{modality}.{name}"))?;
        let label = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((path.to_owned(), format!("given/{label}")));
        parameters[name] = label.into();
    }
    Ok(files)
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
