//! Command line of `dsom features`.

use clap::Args;
use stage::Modality;
use std::path::PathBuf;
use std::process::ExitCode;

/// Turn the texts and images of entities into feature vectors
#[derive(Args)]
pub struct Arguments {
    /// The arguments of every stage.
    #[command(flatten)]
    pub(crate) common: program::Common,
    /// Only this modality of the recipe's [features] (repeatable) [default: all]
    #[arg(long, value_name = "M")]
    pub(crate) modality: Vec<Modality>,
    /// Text encoder where the recipe names none: a folder with config.json, tokenizer.json and model.safetensors of a
    /// BERT, RoBERTa, DistilBERT, ModernBERT or NomicBERT, OWNER/NAME[@REVISION] on the Hugging Face hub, or `random`
    /// [default: google-bert/bert-base-uncased at a pinned commit]
    #[arg(long, value_name = "MODEL", env = "DSOM_TEXT_MODEL")]
    pub(crate) text_model: Option<String>,
    /// Image encoder where the recipe names none: as for --text-model, but a ViT, BEiT, DINOv2, CLIP or SigLIP and
    /// without a tokenizer [default: google/vit-base-patch16-224 at a pinned commit]
    #[arg(long, value_name = "MODEL", env = "DSOM_IMAGE_MODEL")]
    pub(crate) image_model: Option<String>,
    /// Image folder, if it is not the one that the graph's stage.json names
    #[arg(long, value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    /// Shares of the work.
    #[command(flatten)]
    pub(crate) sharing: program::Sharing,
    /// Write the features to DIR/MODALITY.parquet as well, for other programs
    #[arg(long, value_name = "DIR", conflicts_with = "shard")]
    pub(crate) export: Option<PathBuf>,
    /// Refuse an image that cannot be decoded; without --strict, the image is named and counted as absent
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Runs the program and returns its exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    crate::batch::one_thread_per_operation();
    program::main(&arguments.common, || crate::work::run(&arguments))
}
