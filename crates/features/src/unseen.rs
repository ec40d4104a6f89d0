//! The feature of an entity that the graph does not have, made like the features of the graph's entities.
//!
//! A modality's `stage.json` records how its features were made: the encoder's digests, its output, the longest text's
//! tokens, or the seed of random weights. It names an encoder from the hub, but not the folder of any other.

use candle_core::Device;
use mkg::Vocabulary;
use recipe::Features;
use serde_json::{Value, json};
use stage::files::{digest, read_bytes};
use stage::manifest::{FILE, Manifest};
use stage::{Error, Modality, Result, Run};
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::checkpoint::Checkpoint;
use crate::decode::decode;
use crate::given::{Wanted, read};
use crate::images::{ImageEncoder, mean};
use crate::source::{self, EncoderKind, Lack};
use crate::text::{TextReader, texts_of};

/// The description of an entity that the graph does not have.
#[derive(Clone, Debug)]
pub enum Unseen {
    /// The entity's text.
    Text(String),
    /// The files of the entity's images; the mean of their vectors is the feature.
    Images(Vec<PathBuf>),
    /// The file with the entity's vector, in any format of given features.
    Vector(PathBuf),
}

impl Unseen {
    /// The teacher that can place the entity: the only finished one with features of this kind. None or several are an
    /// error, of the kind [`Missing`](stage::Kind::Missing) if no teacher has finished.
    pub fn teacher(&self, run: &Run) -> Result<Modality> {
        let (mut fit, mut others) = (Vec::new(), Vec::new());
        for modality in run.finished("teachers")?.into_iter().filter(|modality| !modality.is_structural()) {
            let made = Made::open(run, &modality)?;
            match (self, &made.section) {
                (Unseen::Text(_), Features::Text { .. })
                | (Unseen::Images(_), Features::Images { .. })
                | (Unseen::Vector(_), _) => fit.push(modality),
                _ => others.push(made.about()),
            }
        }
        if fit.len() > 1 {
            let names = fit.iter().map(Modality::as_str).collect::<Vec<_>>().join(", ");
            let hint = format!("name one with --model: {names}");
            return Err(Error::usage("several teachers can place it").hint(hint));
        }
        fit.pop().ok_or_else(|| self.unfit(&others.join(", ")))
    }

    /// The entity's name in answers.
    pub fn label(&self) -> String {
        match self {
            Unseen::Text(text) => text.clone(),
            Unseen::Images(paths) => {
                paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
            }
            Unseen::Vector(path) => path.display().to_string(),
        }
    }

    /// The error if the `teachers` cannot place the entity, or there are none.
    fn unfit(&self, teachers: &str) -> Error {
        let kind = match self {
            Unseen::Text(_) => "a text",
            Unseen::Images(_) => "an image",
            Unseen::Vector(_) => "a vector",
        };
        if teachers.is_empty() {
            return Error::missing(format!("no teacher to place {kind}")).hint("run `dsom-teachers` first");
        }
        Error::usage(format!("no teacher to place {kind}: {teachers}")).hint(
            "where features were given as a file, encode it as its rows were: --vector FILE.npy and --model NAME",
        )
    }

    /// Makes the entity's feature for `modality`. `encoder` is the checkpoint that made the modality's features, if it
    /// lay in a folder. Another encoder is an error, and so is a modality made from another kind of data.
    pub fn feature(&self, run: &Run, modality: &Modality, encoder: Option<&str>) -> Result<Vec<f32>> {
        let made = Made::open(run, modality)?;
        let seed = made.manifest.seed;
        match (self, &made.section) {
            (Unseen::Text(text), Features::Text { fields, output, max_tokens, .. }) => {
                let checkpoint = made.checkpoint(&source::TEXT, encoder)?;
                let texts = texts_of(&Vocabulary::read(&run.graph())?.entities, fields);
                let (checkpoint, output) = (checkpoint.as_ref(), output.unwrap_or_default());
                let reader = TextReader::open(checkpoint, output, &texts, *max_tokens, seed, &Device::Cpu)?;
                let tokens = reader.tokens(&[text.trim().to_owned()])?;
                let ids = tokens.ids.concat();
                if ids.is_empty() {
                    return Err(Error::usage("a text without a word"));
                }
                if tokens.truncated > 0 {
                    let count = ids.len();
                    tracing::warn!("the text is cut after {count} tokens, as those of `{modality}` are");
                }
                reader.encoder.encode(&[&ids])
            }
            (Unseen::Images(paths), Features::Images { output, .. }) => {
                let checkpoint = made.checkpoint(&source::IMAGES, encoder)?;
                let output = output.unwrap_or_default();
                let encoder = ImageEncoder::open(checkpoint.as_ref(), output, seed, &Device::Cpu)?;
                let mut pixels = Vec::new();
                for path in paths {
                    let image = decode(&read_bytes(path)?)
                        .map_err(|reason| Error::data(format!("unreadable image: {reason}")).at(path))?;
                    pixels.extend(encoder.preparation.pixels(&image));
                }
                Ok(mean(&encoder.encode(&pixels)?, paths.len()))
            }
            (Unseen::Vector(path), _) => {
                let rows = read(path, Wanted { tensor: None, keyed: true })?;
                match rows.count {
                    1 if rows.values.iter().all(|number| *number == 0.0) => {
                        Err(Error::data("a vector of zeros stands for no features at all").at(path))
                    }
                    1 => Ok(rows.values),
                    count => Err(Error::data(format!("{count} rows, but one entity has one")).at(path)),
                }
            }
            _ => Err(self.unfit(&made.about())),
        }
    }
}

/// The record of how a modality's features were made.
struct Made<'a> {
    run: &'a Run,
    modality: &'a Modality,
    manifest: Manifest,
    /// The modality's table in the recipe, without the encoder's name.
    section: Features,
}

impl Made<'_> {
    fn open<'a>(run: &'a Run, modality: &'a Modality) -> Result<Made<'a>> {
        let manifest = Manifest::read(&run.features(modality))?;
        let mut parameters = manifest.parameters.clone();
        parameters["encoder"] = Value::Null;
        let section = serde_json::from_value(parameters)
            .map_err(|e| unlike(run, modality, "does not say how they were made").because(e))?;
        Ok(Made { run, modality, manifest, section })
    }

    /// The kind of data that the features were made from, for messages.
    fn about(&self) -> String {
        let modality = self.modality;
        match &self.section {
            Features::Text { .. } => format!("`{modality}` learned from texts"),
            Features::Images { .. } => format!("`{modality}` learned from images"),
            Features::File { file, .. } | Features::Words { file, .. } => {
                format!("`{modality}` learned from features given as {}", file.display())
            }
        }
    }

    /// The checkpoint with the same files as the one that made the features; none if random weights made them.
    fn checkpoint(&self, kind: &EncoderKind, encoder: Option<&str>) -> Result<Option<Checkpoint>> {
        let (modality, recorded) = (self.modality, &self.manifest.parameters["encoder"]);
        if recorded.is_object() {
            return match encoder {
                Some(_) => Err(Error::usage(format!(
                    "`{modality}` has random weights, so --encoder has nothing to say"
                ))),
                None if *recorded == json!({ "random": (kind.random)() }) => Ok(None),
                None => Err(unlike(self.run, modality, "made by random weights of another version")),
            };
        }
        if encoder == Some("random") {
            let error = Error::usage(format!("`{modality}` was not made with random weights"));
            return Err(error.hint("--encoder names the encoder it was made with"));
        }
        // The encoder's repository on the hub and its commit, if it came from there.
        let summary = self.manifest.summary["encoder"].as_str().unwrap_or_default();
        let of_hub = summary.split_once(" at ").map(|(name, commit)| format!("{name}@{commit}"));
        let named = encoder.map(str::to_owned).or(of_hub).ok_or_else(|| {
            Error::usage(format!("the encoder of `{modality}` lay in a folder, and no record says where"))
                .hint("name it with --encoder")
        })?;
        let checkpoint =
            kind.open(modality, [Some(&named), None, None], true, true).map_err(|lack| match lack {
                Lack::Failed(error) => error,
                Lack::Nothing(_) | Lack::Unfetched(_) => Error::missing("the encoder is not there"),
            })?;
        checkpoint.iter().try_for_each(|checkpoint| self.require_same(kind.files(checkpoint)))?;
        Ok(checkpoint)
    }

    fn require_same(&self, files: Vec<(PathBuf, String)>) -> Result<()> {
        let recorded = self.manifest.inputs.iter().filter(|record| record.path.starts_with("encoder/"));
        let mut left: BTreeMap<&str, &str> =
            recorded.map(|record| (record.path.as_str(), record.sha256.as_str())).collect();
        let mut other = None;
        for (path, label) in &files {
            let (sha256, _) = digest(path)?;
            if left.remove(label.as_str()) != Some(&sha256) {
                other.get_or_insert(label.as_str());
            }
        }
        let Some(label) = other.or(left.into_keys().next()) else { return Ok(()) };
        let message = format!("not the encoder of `{}`: {label} is another file", self.modality);
        Err(Error::data(message).hint("--encoder names the checkpoint that dsom-features was given"))
    }
}

/// The error for a record that this version cannot use.
fn unlike(run: &Run, modality: &Modality, message: &str) -> Error {
    let hint = format!("rerun `dsom-features` with --modality {modality} and --force");
    Error::data(message).at(run.features(modality).join(FILE)).hint(hint)
}
