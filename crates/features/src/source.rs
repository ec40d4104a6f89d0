//! Sources of encoders: a folder, a repository on the Hugging Face hub, or random weights.
//!
//! A recipe or a flag names the source. `random` means random weights. An existing folder, and a name that begins with
//! `.`, `/` or `~` or has no or several slashes, is a path. `owner/name` is on the hub, at `@revision` or else `main`.

use hub::{Hub, Repository, Snapshot, Want};
use serde::Serialize;
use serde_json::{Value, json};
use stage::{Error, Kind, Modality, Result};
use std::path::{Path, PathBuf};

use crate::checkpoint::{CONFIG, Checkpoint, MAKE_TOKENIZER, WEIGHTS};
use crate::{preparation, text, weights};

/// A kind of encoder by its input: the properties that all text encoders, or all image encoders, share.
pub struct EncoderKind {
    /// The default: the paper's encoder, at the commit of its branch since 2024.
    pub default: &'static str,
    /// Files that a checkpoint has in addition to its configuration and weights.
    required: &'static [&'static str],
    optional: &'static [&'static str],
    /// The configuration of an encoder with random weights.
    pub(crate) random: fn() -> Value,
}

/// The kind of text encoders.
pub const TEXT: EncoderKind = EncoderKind {
    default: "google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594",
    required: &[text::TOKENIZER],
    optional: &[],
    random: weights::random_text,
};

/// The kind of image encoders.
pub const IMAGES: EncoderKind = EncoderKind {
    default: "google/vit-base-patch16-224@3f49326eb077187dfe1c2a2bb15fbd74e6ab91e3",
    required: &[],
    optional: &[preparation::FILE, preparation::PROCESSOR],
    random: weights::random_images,
};

#[derive(Debug, PartialEq, Eq)]
enum Named {
    Random,
    Folder(PathBuf),
    Hub(Repository),
}

impl Named {
    fn parse(text: &str) -> Result<Named> {
        let is_path = text.starts_with(['.', '/', '~']) || text.matches('/').count() != 1;
        match text {
            "random" => Ok(Named::Random),
            _ if is_path || Path::new(text).is_dir() => Ok(Named::Folder(text.into())),
            _ => Ok(Named::Hub(text.parse()?)),
        }
    }
}

/// A reason why there is nothing to do.
pub(crate) enum Lack {
    Failed(Error),
    /// No entity has the data that the modality is made from.
    Nothing(&'static str),
    /// The work depends on an encoder of this name, which has not been fetched from the hub.
    Unfetched(String),
}

impl From<Error> for Lack {
    fn from(error: Error) -> Lack {
        Lack::Failed(error)
    }
}

impl EncoderKind {
    /// The encoder that the modality's section names by `encoder` and `revision`, else the encoder of the command
    /// line's flag. Where the section names an output, the weights cannot be random.
    fn named(
        &self,
        modality: &Modality,
        [encoder, revision, flag]: [Option<&str>; 3],
        has_output: bool,
    ) -> Result<Named> {
        let named = Named::parse(encoder.or(flag).unwrap_or(self.default))?;
        let Some(revision) = revision else {
            if has_output && named == Named::Random {
                let message =
                    format!("`features.{modality}.output`: random weights have an output of their own");
                return Err(Error::usage(message).hint("leave it out, or name a checkpoint"));
            }
            return Ok(named);
        };
        let wrong = match (encoder, named) {
            (None, _) => "is one of an `encoder`, but none is named beside it",
            (Some(encoder), Named::Hub(_)) if encoder.contains('@') => "stands beside another in `encoder`",
            (_, Named::Hub(Repository { name, .. })) => {
                return Ok(Named::Hub(Repository::new(name, revision)?));
            }
            _ => "is one of a name on the hub, but the encoder is none",
        };
        Err(Error::usage(format!("`features.{modality}.revision` {wrong}")))
    }

    /// Opens the checkpoint of the named encoder; none where its weights are random. Files that the hub's cache lacks
    /// are fetched if `fetch` is true; else they are an error.
    pub(crate) fn open(
        &self,
        modality: &Modality,
        names: [Option<&str>; 3],
        has_output: bool,
        fetch: bool,
    ) -> Result<Option<Checkpoint>, Lack> {
        match self.named(modality, names, has_output)? {
            Named::Random => Ok(None),
            Named::Folder(folder) => Ok(Some(Checkpoint::open(&folder, self.required)?)),
            Named::Hub(repository) => {
                let (hub, wants) = (Hub::from_environment(), self.wants());
                let snapshot = if fetch {
                    fetched(&hub, &repository, &wants)?
                } else {
                    let cached = hub.cached(&repository, &wants);
                    cached.ok_or_else(|| Lack::Unfetched(repository.to_string()))?
                };
                let mut checkpoint = Checkpoint::open(&snapshot.folder, self.required)?;
                checkpoint.origin = Some(format!("{} at {}", repository.name, snapshot.commit));
                Ok(Some(checkpoint))
            }
        }
    }

    fn wants(&self) -> Vec<Want> {
        let required = [CONFIG].iter().chain(self.required).map(|&name| Want::required([name]));
        let optional = self.optional.iter().map(|&name| Want::optional(name));
        required.chain([Want::required(WEIGHTS)]).chain(optional).collect()
    }

    /// The files that the features depend on, with their names in the stage's inputs. Adds everything else that the
    /// features depend on to the task's `parameters`.
    pub(crate) fn describe(
        &self,
        checkpoint: Option<&Checkpoint>,
        output: impl Serialize,
        parameters: &mut Value,
    ) -> Vec<(PathBuf, String)> {
        parameters["revision"] = Value::Null;
        (parameters["encoder"], parameters["output"]) = match checkpoint {
            Some(_) => ("checkpoint".into(), json!(output)),
            None => (json!({ "random": (self.random)() }), Value::Null),
        };
        checkpoint.map_or_else(Vec::new, |checkpoint| self.files(checkpoint))
    }

    /// The files of a checkpoint, with their names in a stage's inputs.
    pub(crate) fn files(&self, checkpoint: &Checkpoint) -> Vec<(PathBuf, String)> {
        let others = self.required.iter().chain(self.optional).filter_map(|name| checkpoint.optional(name));
        let files = [checkpoint.path(CONFIG), checkpoint.weights.clone()].into_iter().chain(others);
        files.map(|path| labelled("encoder", path)).collect()
    }
}

/// A file with its name `within` a stage's inputs.
pub(crate) fn labelled(within: &str, path: PathBuf) -> (PathBuf, String) {
    let label = format!("{within}/{}", path.file_name().unwrap_or_default().display());
    (path, label)
}

/// Fetches files of a repository; without a connection, the cached files of a branch are enough.
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
            let folder = format!("a folder is written ./{}", repository.name);
            let hints = [error.hint_text(), only_tokenizer.then_some(MAKE_TOKENIZER), Some(&folder)];
            let hint = hints.into_iter().flatten().collect::<Vec<_>>().join("; ");
            Err(error.hint(hint))
        }
        other => other,
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
            assert_eq!(Named::parse(path).unwrap(), Named::Folder(path.into()), "{path}");
        }
        assert_eq!(Named::parse("google/vit base").unwrap_err().kind(), Kind::Usage);
        for kind in [TEXT, IMAGES] {
            assert!(kind.default.parse::<Repository>().unwrap().is_pinned());
        }
    }

    #[test]
    fn a_revision_is_one_of_a_repository_in_the_recipe() {
        for (names, named) in [
            ([None, None, None], Named::parse(TEXT.default).unwrap()),
            ([None, None, Some("a/b")], hub("a/b", "main")),
            ([Some("c/d"), None, Some("a/b")], hub("c/d", "main")),
            ([Some("c/d"), Some("v2"), Some("a/b")], hub("c/d", "v2")),
        ] {
            assert_eq!(TEXT.named(&"x".parse().unwrap(), names, true).unwrap(), named, "{names:?}");
        }
        for (encoder, flag) in
            [(None, Some("a/b")), (Some("./c"), None), (Some("random"), None), (Some("c/d@v1"), None)]
        {
            let error = TEXT.named(&"x".parse().unwrap(), [encoder, Some("v2"), flag], false).unwrap_err();
            assert!(error.to_string().starts_with("`features.x.revision` "), "{error}");
        }
    }
}
