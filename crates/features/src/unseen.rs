//! The feature of an entity that the graph does not have, made as the features of its entities were.
//!
//! A modality's `stage.json` says how: the encoder's digests, its output, the tokens of the longest text, or the seed of
//! random weights. Where the encoder lay is not in there, unless it was on the hub.

use candle_core::Device;
use mkg::Vocabulary;
use recipe::{Features, ImageOutput, TextField, TextOutput};
use serde::Serialize;
use serde_json::{Value, json};
use stage::files::{digest, read_bytes};
use stage::manifest::{FILE, Manifest};
use stage::{Error, Modality, Result, Run};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::decode::decode;
use crate::given::{Wanted, check_finite, read};
use crate::images::mean;
use crate::random;
use crate::source::{self, AskedEncoder, EncoderKind, EncoderSource, Lookup};
use crate::text::texts_of;

/// The description of an entity that the graph does not have.
#[derive(Clone, Debug)]
pub enum Unseen {
    /// Its text.
    Text(String),
    /// The files of its images, whose vectors' mean is its feature.
    Images(Vec<PathBuf>),
    /// The file with its vector, in any format of given features.
    Vector(PathBuf),
}

impl Unseen {
    /// The teacher that can place it: the only finished one whose features are made of such things.
    ///
    /// # Errors
    /// [`stage::Kind::Usage`] if there is none among the finished ones, or several; [`stage::Kind::Missing`] if none has finished.
    pub fn teacher(&self, run: &Run) -> Result<Modality> {
        let (mut fit, mut others) = (Vec::new(), Vec::new());
        for modality in run.finished("teachers").into_iter().filter(|modality| !modality.is_structural()) {
            let made = Made::open(run, &modality)?;
            if self.fits(&made.section()?) { fit.push(modality) } else { others.push(made.about()?) }
        }
        match fit.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(self.unfit(&others.join(", "))),
            several => {
                let names = several.iter().map(Modality::as_str).collect::<Vec<_>>().join(", ");
                Err(Error::usage("several teachers can place it")
                    .hint(format!("name one with --model: {names}")))
            }
        }
    }

    /// Its name in answers.
    pub fn label(&self) -> String {
        let name = |path: &PathBuf| path.display().to_string();
        match self {
            Unseen::Text(text) => text.clone(),
            Unseen::Images(paths) => paths.iter().map(name).collect::<Vec<_>>().join(", "),
            Unseen::Vector(path) => name(path),
        }
    }

    fn fits(&self, section: &Features) -> bool {
        matches!(
            (self, section),
            (Unseen::Text(_), Features::Text { .. })
                | (Unseen::Images(_), Features::Images { .. })
                | (Unseen::Vector(_), _)
        )
    }

    /// The error of teachers that cannot place it, or of none.
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

    /// Its feature among those of `modality`. `encoder` is the checkpoint that they were made with, if that lay in a folder.
    ///
    /// # Errors
    /// If the modality is made of other things, the encoder is another one, or the text or image cannot be read.
    pub fn feature(&self, run: &Run, modality: &Modality, encoder: Option<&str>) -> Result<Vec<f32>> {
        let made = Made::open(run, modality)?;
        match (self, made.section()?) {
            (Unseen::Text(text), Features::Text { fields, output, max_tokens, .. }) => {
                let source = made.source(&source::TEXT, encoder, output, random::text())?;
                made.of_text(text, &source, &fields, max_tokens)
            }
            (Unseen::Images(paths), Features::Images { output, .. }) => of_images(
                paths,
                &made.source(&source::IMAGES, encoder, output, random::images())?,
                made.manifest.seed,
            ),
            (Unseen::Vector(path), _) => of_file(path),
            _ => Err(self.unfit(&made.about()?)),
        }
    }
}

/// A modality's features as they were made.
struct Made<'a> {
    run: &'a Run,
    modality: &'a Modality,
    manifest: Manifest,
}

impl Made<'_> {
    fn open<'a>(run: &'a Run, modality: &'a Modality) -> Result<Made<'a>> {
        Ok(Made { run, modality, manifest: Manifest::read(&run.features(modality))? })
    }

    /// Their table of the recipe, without the encoder's name.
    fn section(&self) -> Result<Features> {
        let mut parameters = self.manifest.parameters.clone();
        parameters["encoder"] = Value::Null;
        let parsed = serde_json::from_value(parameters);
        parsed.map_err(|e| self.error("does not say how they were made").because(e))
    }

    /// Their origin, for messages.
    fn about(&self) -> Result<String> {
        let made_of = match self.section()? {
            Features::Text { .. } => "learned from texts".to_owned(),
            Features::Images { .. } => "learned from images".to_owned(),
            Features::File { file, .. } | Features::Words { file, .. } => {
                format!("learned from features given as {}", file.display())
            }
        };
        Ok(format!("`{}` {made_of}", self.modality))
    }

    fn error(&self, message: &str) -> Error {
        let hint = format!("rerun `dsom-features` with --modality {} and --force", self.modality);
        Error::data(message).at(self.run.features(self.modality).join(FILE)).hint(hint)
    }

    /// The encoder that they were made with: the same files, or the same random weights.
    fn source<O: Default + Serialize>(
        &self,
        kind: &EncoderKind,
        encoder: Option<&str>,
        output: Option<O>,
        sizes: Value,
    ) -> Result<EncoderSource<O>> {
        match &self.manifest.parameters["encoder"] {
            Value::Object(_) if encoder.is_some() => Err(Error::usage(format!(
                "`{}` has random weights, so --encoder has nothing to say",
                self.modality
            ))),
            recorded @ Value::Object(_) if *recorded != json!({ "random": sizes }) => {
                Err(self.error("made by random weights of another version"))
            }
            Value::Object(_) => Ok(EncoderSource::Random),
            _ => {
                let named = encoder.map(str::to_owned).or_else(|| self.of_hub());
                let named = named.ok_or_else(|| {
                    let message = format!(
                        "the encoder of `{}` lay in a folder, and no record says where",
                        self.modality
                    );
                    Error::usage(message).hint("name it with --encoder")
                })?;
                let asked = AskedEncoder {
                    modality: self.modality,
                    encoder: Some(named),
                    revision: None,
                    flag: &None,
                    output,
                };
                let found = kind.source(asked, Lookup::Fetch)?;
                let found = found.map_err(|_| Error::missing("the encoder is not there"))?;
                self.require_same(found.files(kind))?;
                Ok(found)
            }
        }
    }

    /// The repository on the hub and its commit, if the encoder was there.
    fn of_hub(&self) -> Option<String> {
        let (name, commit) = self.manifest.summary["encoder"].as_str()?.split_once(" at ")?;
        Some(format!("{name}@{commit}"))
    }

    /// Refuses an encoder of other files.
    fn require_same(&self, files: Vec<(PathBuf, String)>) -> Result<()> {
        let mut left: BTreeMap<&str, &str> = BTreeMap::new();
        let recorded = self.manifest.inputs.iter().filter(|record| record.path.starts_with("encoder/"));
        left.extend(recorded.map(|record| (record.path.as_str(), record.sha256.as_str())));
        let other = |label: &str| {
            let message = format!("not the encoder of `{}`: {label} is another file", self.modality);
            Err(Error::data(message).hint("--encoder names the checkpoint that dsom-features was given"))
        };
        for (path, label) in &files {
            let (sha256, _) = digest(path)?;
            if left.remove(label.as_str()) != Some(&sha256) {
                return other(label);
            }
        }
        left.keys().next().map_or(Ok(()), |label| other(label))
    }

    fn of_text(
        &self,
        text: &str,
        source: &EncoderSource<TextOutput>,
        fields: &[TextField],
        max_tokens: usize,
    ) -> Result<Vec<f32>> {
        let texts = texts_of(&Vocabulary::read(&self.run.graph())?.entities, fields);
        let reader = source.open(&texts, max_tokens, self.manifest.seed, &Device::Cpu)?;
        let tokens = reader.tokens(&[text.trim().to_owned()])?;
        match tokens.ids.as_slice() {
            [ids] if !ids.is_empty() => {
                if tokens.truncated > 0 {
                    tracing::warn!(
                        "the text is cut after {} tokens, as those of `{}` are",
                        ids.len(),
                        self.modality
                    );
                }
                reader.encoder.encode(&[ids])
            }
            _ => Err(Error::usage("a text without a word")),
        }
    }
}

fn of_images(paths: &[PathBuf], source: &EncoderSource<ImageOutput>, seed: u64) -> Result<Vec<f32>> {
    let encoder = source.open(seed, &Device::Cpu)?;
    let pixels = paths.iter().map(|path| {
        let image = decode(&read_bytes(path)?);
        let image = image.map_err(|reason| Error::data(format!("unreadable image: {reason}")).at(path))?;
        Ok(encoder.preparation().pixels(&image))
    });
    let pixels = pixels.collect::<Result<Vec<_>>>()?;
    Ok(mean(&encoder.encode(&pixels.concat())?, paths.len()))
}

fn of_file(path: &Path) -> Result<Vec<f32>> {
    let rows = read(path, Wanted { tensor: None, keyed: true })?;
    check_finite(&rows).map_err(|e| e.at(path))?;
    match rows.count {
        1 => Ok(rows.values),
        count => Err(Error::data(format!("{count} rows, but one entity has one")).at(path)),
    }
}
