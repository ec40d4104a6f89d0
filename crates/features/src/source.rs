//! Sources of encoders: a folder, a repository on the Hugging Face hub, or random weights.
//!
//! A recipe or a flag names it. `random` is random; what is a folder, begins with `.`, `/` or `~`, or has no or several
//! slashes is a path; and `owner/name` is on the hub, at the `@revision` that follows it, at `main` without one.

use hub::{Hub, Repository, Snapshot, Want};
use serde::Serialize;
use serde_json::{Value, json};
use stage::{Error, Kind, Modality, Result};
use std::path::{Path, PathBuf};

use crate::checkpoint::{CONFIG, Checkpoint, MAKE_TOKENIZER, WEIGHTS};
use crate::plan::Lack;
use crate::{preparation, text};

/// Source of an encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EncoderSource<O> {
    /// A checkpoint, and what of it is the feature.
    Checkpoint(Checkpoint, O),
    /// Weights drawn from the run's seed.
    Random,
}

/// The use of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Only the hub's cache.
    Cached,
    /// The hub is asked, and what is not cached is fetched.
    Fetch,
}

/// Things that encoders of one kind of input have in common.
pub struct EncoderKind {
    /// The flag that names one.
    pub flag: &'static str,
    /// The one where nothing names one: the paper's, at the commit that its branch has been at since 2024.
    pub default: &'static str,
    /// Files that a checkpoint has beside its configuration and weights.
    required: &'static [&'static str],
    /// A file that it may have.
    optional: &'static [&'static str],
}

/// Encoders of texts.
pub const TEXT: EncoderKind = EncoderKind {
    flag: "--text-model",
    default: "google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594",
    required: &[text::TOKENIZER],
    optional: &[],
};

/// Encoders of images.
pub const IMAGES: EncoderKind = EncoderKind {
    flag: "--image-model",
    default: "google/vit-base-patch16-224@3f49326eb077187dfe1c2a2bb15fbd74e6ab91e3",
    required: &[],
    optional: &[preparation::FILE],
};

/// The encoder that a modality's section asks for, and the flag of the command line.
pub(crate) struct AskedEncoder<'a, O> {
    pub modality: &'a Modality,
    pub encoder: Option<String>,
    pub revision: Option<String>,
    pub flag: &'a Option<String>,
    pub output: Option<O>,
}

/// The name of an encoder.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Random,
    ImageFolder(PathBuf),
    Hub(Repository),
}

impl Named {
    fn parse(text: &str) -> Result<Named> {
        let is_path = text.starts_with(['.', '/', '~']) || text.matches('/').count() != 1;
        match text {
            "random" => Ok(Named::Random),
            _ if is_path || Path::new(text).is_dir() => Ok(Named::ImageFolder(text.into())),
            _ => Ok(Named::Hub(text.parse()?)),
        }
    }
}

impl<O> AskedEncoder<'_, O> {
    fn wrong_revision(&self, message: &str) -> Error {
        Error::usage(format!("`features.{}.revision` {message}", self.modality))
    }

    fn named(&self, kind: &EncoderKind) -> Result<Named> {
        match (self.encoder.as_deref(), self.revision.as_deref()) {
            (None, None) => Named::parse(self.flag.as_deref().unwrap_or(kind.default)),
            (Some(encoder), None) => Named::parse(encoder),
            (None, Some(_)) => {
                Err(self.wrong_revision("is one of an `encoder`, but none is named beside it"))
            }
            (Some(encoder), Some(revision)) => match Named::parse(encoder)? {
                Named::Hub(_) if encoder.contains('@') => {
                    Err(self.wrong_revision("stands beside another in `encoder`"))
                }
                Named::Hub(repository) => Ok(Named::Hub(Repository::new(repository.name, revision)?)),
                _ => Err(self.wrong_revision("is one of a name on the hub, but the encoder is none")),
            },
        }
    }
}

impl EncoderKind {
    /// The source of the encoder that is asked for, unless it is on the hub and, for all that the `lookup` may do, not
    /// here.
    pub(crate) fn source<O: Default>(
        &self,
        asked: AskedEncoder<O>,
        lookup: Lookup,
    ) -> Result<Result<EncoderSource<O>, Lack>> {
        let checkpoint = match asked.named(self)? {
            Named::Random if asked.output.is_some() => {
                let modality = asked.modality;
                let message =
                    format!("`features.{modality}.output`: random weights have an output of their own");
                return Err(Error::usage(message).hint("leave it out, or name a checkpoint"));
            }
            Named::Random => return Ok(Ok(EncoderSource::Random)),
            Named::ImageFolder(folder) => Checkpoint::open(&folder, self.required)?,
            Named::Hub(repository) => match self.snapshot(&repository, lookup)? {
                Some(snapshot) => {
                    let origin = format!("{} at {}", repository.name, snapshot.commit);
                    Checkpoint::open(&snapshot.folder, self.required)?.of_hub(origin)
                }
                None => return Ok(Err(Lack::Unfetched(repository.to_string()))),
            },
        };
        Ok(Ok(EncoderSource::Checkpoint(checkpoint, asked.output.unwrap_or_default())))
    }

    fn snapshot(&self, repository: &Repository, lookup: Lookup) -> Result<Option<Snapshot>> {
        let required = [CONFIG].iter().chain(self.required).map(|&name| Want::required([name]));
        let optional = self.optional.iter().map(|&name| Want::optional(name));
        let wants: Vec<Want> = required.chain([Want::required(WEIGHTS)]).chain(optional).collect();
        let hub = Hub::from_environment();
        match lookup {
            Lookup::Fetch => fetched(&hub, repository, &wants).map(Some),
            Lookup::Cached => Ok(hub.cached(repository, &wants)),
        }
    }
}

/// Without a connection, what is cached of a branch is better than nothing.
fn fetched(hub: &Hub, repository: &Repository, wants: &[Want]) -> Result<Snapshot> {
    match hub.fetch(repository, wants) {
        Err(error) if error.kind() == Kind::Io => {
            let Some(snapshot) = hub.cached(repository, wants) else { return Err(error) };
            tracing::warn!("{error}: {} is taken as it is cached, at {}", repository.name, snapshot.commit);
            Ok(snapshot)
        }
        Err(error) if error.kind() == Kind::Missing => {
            let message = error.to_string();
            let only_tokenizer = message.contains(text::TOKENIZER) && !message.contains(CONFIG);
            let more = only_tokenizer.then_some(MAKE_TOKENIZER);
            let folder = format!("a folder is written ./{}", repository.name);
            let hint =
                [error.hint_text(), more, Some(&folder)].into_iter().flatten().collect::<Vec<_>>().join("; ");
            Err(error.hint(hint))
        }
        other => other,
    }
}

impl<O: Serialize> EncoderSource<O> {
    /// Returns whether it is on the hub: then there may be something newer.
    pub(crate) fn is_of_hub(&self) -> bool {
        matches!(self, EncoderSource::Checkpoint(checkpoint, _) if checkpoint.origin().is_some())
    }

    /// Writes to a task's parameters what the features depend on beside the files.
    pub(crate) fn describe(&self, parameters: &mut Value, sizes: Value) {
        parameters["revision"] = Value::Null;
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
    pub(crate) fn files(&self, kind: &EncoderKind) -> Vec<(PathBuf, String)> {
        let EncoderSource::Checkpoint(checkpoint, _) = self else { return Vec::new() };
        let others = kind.required.iter().chain(kind.optional).filter_map(|name| checkpoint.optional(name));
        let weights = checkpoint.weights_file().to_owned();
        let files = [checkpoint.path(CONFIG), weights].into_iter().chain(others);
        let named = files.map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (path, format!("encoder/{name}"))
        });
        named.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(name: &str, revision: &str) -> Named {
        Named::Hub(Repository::new(name, revision).unwrap())
    }

    #[test]
    fn a_name_is_a_folder_or_a_repository() {
        assert_eq!(Named::parse("random").unwrap(), Named::Random);
        assert_eq!(Named::parse("google/vit").unwrap(), hub("google/vit", "main"));
        assert_eq!(Named::parse("google/vit@v2").unwrap(), hub("google/vit", "v2"));
        for path in ["vit", "./google/vit", "/google", "../vit", "~/vit", "a/b/c", "src/text"] {
            assert_eq!(Named::parse(path).unwrap(), Named::ImageFolder(path.into()), "{path}");
        }
        assert_eq!(Named::parse("google/vit base").unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn the_defaults_are_pinned() {
        for kind in [TEXT, IMAGES] {
            assert!(kind.default.parse::<Repository>().unwrap().is_pinned());
        }
    }

    #[test]
    fn a_revision_is_one_of_a_repository_in_the_recipe() {
        let asked = |encoder: Option<&str>, revision: Option<&str>, flag: Option<&str>| {
            let [encoder, revision, flag] = [encoder, revision, flag].map(|name| name.map(str::to_owned));
            let modality = &"x".parse().unwrap();
            AskedEncoder::<()> { modality, encoder, revision, flag: &flag, output: None }.named(&TEXT)
        };
        assert_eq!(asked(None, None, None).unwrap(), Named::parse(TEXT.default).unwrap());
        assert_eq!(asked(None, None, Some("a/b")).unwrap(), hub("a/b", "main"));
        assert_eq!(asked(Some("c/d"), None, Some("a/b")).unwrap(), hub("c/d", "main"));
        assert_eq!(asked(Some("c/d"), Some("v2"), Some("a/b")).unwrap(), hub("c/d", "v2"));
        for (encoder, flag) in
            [(None, Some("a/b")), (Some("./c"), None), (Some("random"), None), (Some("c/d@v1"), None)]
        {
            let error = asked(encoder, Some("v2"), flag).unwrap_err();
            assert!(error.to_string().starts_with("`features.x.revision` "), "{error}");
        }
    }
}
