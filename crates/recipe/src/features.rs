//! `[features.NAME]`: one modality each.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Stage 2: where one modality's feature vectors come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum Features {
    /// An encoder over texts.
    Text {
        /// Texts, joined by `. `: `name`, `description`, `caption`.
        #[serde(default = "default_fields")]
        fields: Vec<TextField>,
        /// Checkpoint directory, `owner/name` on the Hugging Face hub, or `random` for a small encoder with seeded
        /// random weights; `--text-model` where it is left out.
        encoder: Option<String>,
        /// Branch, tag or commit of an encoder on the hub; `main` where it is left out.
        revision: Option<String>,
        /// The feature among the encoder's outputs; of random weights it is the mean.
        output: Option<TextOutput>,
        /// Longer texts are cut after this many tokens.
        #[serde(default = "default_tokens")]
        max_tokens: usize,
        /// Texts per batch.
        #[serde(default = "default_batch")]
        batch: usize,
    },
    /// An encoder over images, whose mean over an entity's images is its row.
    Images {
        /// Checkpoint directory, `owner/name` on the Hugging Face hub, or `random` for a small encoder with seeded
        /// random weights; `--image-model` where it is left out.
        encoder: Option<String>,
        /// Branch, tag or commit of an encoder on the hub; `main` where it is left out.
        revision: Option<String>,
        /// The feature among the encoder's outputs; one with random weights has an output of its own.
        output: Option<ImageOutput>,
        /// Images per batch.
        #[serde(default = "default_batch")]
        batch: usize,
    },
    /// Given features: `.npy`, `.npz`, `.safetensors`, or a PyTorch file of plain tensors.
    File {
        /// The rows: a matrix `(entity, width)`, or one vector per entity key.
        file: PathBuf,
        /// The tensor among several; the only one with two axes by default.
        tensor: Option<String>,
        /// One entity key per line, naming the rows; without it row i is entity i.
        keys: Option<PathBuf>,
        /// The meaning of a key that no entity has.
        #[serde(default)]
        unknown_keys: UnknownKeys,
        /// An all-zero row means that the entity has no features.
        #[serde(default = "default_true")]
        zero_is_absent: bool,
    },
    /// Visual words, as MyGO publishes them: the mean of an entity's words' vectors is its feature.
    Words {
        /// A JSON object of entity key to list of word ids, perhaps in a zip archive.
        file: PathBuf,
        /// The words' vectors, `(word, width)`, in any format of given features; the id behind the last is padding.
        vectors: PathBuf,
        /// True if the keys are the entities' ids.
        #[serde(default)]
        by_id: bool,
        /// The meaning of a key that no entity has.
        #[serde(default)]
        unknown_keys: UnknownKeys,
    },
}

/// The feature among a text encoder's outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextOutput {
    /// The mean of the last layer's hidden states over all tokens.
    #[default]
    Mean,
    /// The last layer's hidden state of the first token.
    Cls,
    /// The pooler: a layer with tanh over that.
    Pooler,
}

/// The feature among an image encoder's outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageOutput {
    /// The class token's hidden state.
    #[default]
    Cls,
    /// The mean of the patches' hidden states.
    Patches,
    /// The architecture's pooler over them.
    Pooler,
}

/// The meaning of a key of given features that no entity has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownKeys {
    /// An error: the features belong to another graph.
    #[default]
    Refuse,
    /// Passed over: the features are of more entities than the graph has.
    Skip,
}

/// A text of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextField {
    /// Its name.
    Name,
    /// Its description.
    Description,
    /// The caption of its images.
    Caption,
}

fn default_fields() -> Vec<TextField> {
    vec![TextField::Name, TextField::Description]
}

fn default_tokens() -> usize {
    128
}

fn default_batch() -> usize {
    32
}

fn default_true() -> bool {
    true
}
