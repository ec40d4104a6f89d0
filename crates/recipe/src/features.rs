//! `[features.NAME]`: a table for each modality.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Stage 2: the source of one modality's feature vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum Features {
    /// A text encoder.
    Text {
        /// The texts to join with `. `: `name`, `description`, `caption`.
        #[serde(default = "default_fields")]
        fields: Vec<TextField>,
        /// Checkpoint directory, `owner/name` on the Hugging Face hub, or `random` for a small encoder with seeded
        /// random weights; `--text-model` if this key is left out.
        encoder: Option<String>,
        /// Branch, tag or commit of an encoder on the hub; `main` if this key is left out.
        revision: Option<String>,
        /// The encoder output to use as the feature; for random weights it is the mean.
        output: Option<TextOutput>,
        /// The number of tokens after which a text is cut.
        #[serde(default = "default_tokens")]
        max_tokens: usize,
        /// Texts per batch.
        #[serde(default = "default_batch")]
        batch: usize,
    },
    /// An image encoder. An entity's feature is the mean over its images.
    Images {
        /// Checkpoint directory, `owner/name` on the Hugging Face hub, or `random` for a small encoder with seeded
        /// random weights; `--image-model` if this key is left out.
        encoder: Option<String>,
        /// Branch, tag or commit of an encoder on the hub; `main` if this key is left out.
        revision: Option<String>,
        /// The encoder output to use as the feature; an encoder with random weights has its own.
        output: Option<ImageOutput>,
        /// Images per batch.
        #[serde(default = "default_batch")]
        batch: usize,
    },
    /// Given features: `.npy`, `.npz`, `.safetensors`, or a PyTorch file of plain tensors.
    File {
        /// The rows: a matrix `(entity, width)`, or one vector per entity key.
        file: PathBuf,
        /// The name of the tensor, if the file holds several; by default the only tensor with two axes.
        tensor: Option<String>,
        /// A file with the entity key of each row on a line; without it, row i belongs to entity i.
        keys: Option<PathBuf>,
        /// The handling of a key that no entity has.
        #[serde(default)]
        unknown_keys: UnknownKeys,
        /// True if an all-zero row means that the entity has no features.
        #[serde(default = "default_true")]
        zero_is_absent: bool,
    },
    /// Visual words, as MyGO publishes them: an entity's feature is the mean of its words' vectors.
    Words {
        /// A JSON object from entity key to list of word ids; it may be inside a zip archive.
        file: PathBuf,
        /// The words' vectors, `(word, width)`, in any format of given features; the id after the last word is padding.
        vectors: PathBuf,
        /// True if the keys are entity ids.
        #[serde(default)]
        by_id: bool,
        /// The handling of a key that no entity has.
        #[serde(default)]
        unknown_keys: UnknownKeys,
    },
}

/// The output of a text encoder to use as the feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextOutput {
    /// The mean of the last layer's hidden states over all tokens.
    #[default]
    Mean,
    /// The last layer's hidden state of the first token.
    Cls,
    /// The pooler: a layer with tanh over the first token's hidden state.
    Pooler,
}

/// The output of an image encoder to use as the feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageOutput {
    /// The class token's hidden state.
    #[default]
    Cls,
    /// The mean of the patches' hidden states.
    Patches,
    /// The output of the architecture's own pooler.
    Pooler,
}

/// The handling of a key of given features that no entity has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownKeys {
    /// Reports an error: the features belong to another graph.
    #[default]
    Refuse,
    /// Skips the key: the features cover more entities than the graph has.
    Skip,
}

/// A text of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextField {
    /// The entity's name.
    Name,
    /// The entity's description.
    Description,
    /// The caption of the entity's images.
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
