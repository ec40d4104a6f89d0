//! Doing what a [`Plan`](crate::plan::Plan) says.

use mkg::graph::Entity;
use recipe::TextOutput;
use serde_json::json;
use stage::work::Work;
use stage::{Modality, Result};
use std::path::PathBuf;

use crate::images::{ImageEncoder, ImageWork};
use crate::outcome::{Covered, Outcome};
use crate::plan::{ImageSource, Source};
use crate::shard::Shard;
use crate::source::EncoderSource;
use crate::text::{TextEncoder, TextWork, tokenizer};
use crate::tokens::{Tokens, word_level};
use crate::{FeatureTable, given, journal};

/// What the work on one modality needs beside its source.
pub struct Setting<'a> {
    /// The modality.
    pub modality: &'a Modality,
    /// The graph's entities.
    pub entities: &'a [Entity],
    /// The run's seed.
    pub seed: u64,
    /// Where the encoders shall compute.
    pub device: program::Device,
    /// Batches at the same time.
    pub threads: usize,
    /// Whether an unreadable image is an error.
    pub strict: bool,
    /// The share of the work that is done.
    pub shard: Option<Shard>,
}

/// Everything that can be wrong with the inputs is behind us: what is left is work.
pub enum Ready<'a> {
    /// An encoder and what it will see.
    Text {
        /// The encoder.
        encoder: TextEncoder,
        /// The texts.
        tokens: Tokens,
        /// Texts per batch.
        batch: usize,
        /// Where the encoder comes from, for the summary.
        origin: String,
    },
    /// An encoder and what it will see.
    Images {
        /// The encoder.
        encoder: ImageEncoder,
        /// The images.
        source: &'a ImageSource,
        /// Where the encoder comes from, for the summary.
        origin: String,
    },
    /// Given features, joined.
    Given(FeatureTable),
}

impl Setting<'_> {
    /// Reads and checks what the work needs, before the stage's folder is touched.
    pub fn ready<'a>(&self, source: &'a Source) -> Result<Ready<'a>> {
        match source {
            Source::Text { texts, encoder, max_tokens, batch } => {
                self.ready_texts(texts, encoder, *max_tokens, *batch)
            }
            Source::Images(source) => self.ready_images(source),
            Source::Given { file, tensor, keys, unknown_keys, zero_is_absent, listed } => {
                let wanted = given::Wanted { tensor: tensor.as_deref(), keyed: keys.is_some() };
                let rows = given::read(file, wanted)?;
                let keys = keys.as_deref();
                if rows.keys.is_empty() && keys.is_none() {
                    self.say_order(*listed);
                }
                let mapping =
                    given::Mapping { keys, unknown: *unknown_keys, zero_is_absent: *zero_is_absent };
                Ok(Ready::Given(given::join(&rows, file, mapping, self.entities)?))
            }
        }
    }

    /// Says whose the rows are that nothing names.
    fn say_order(&self, listed: bool) {
        let modality = self.modality;
        let first: Vec<String> =
            self.entities.iter().take(3).map(|entity| format!("`{}`", entity.key)).collect();
        let first = first.join(", ");
        match listed {
            true => tracing::info!("{modality}: row i is entity i of graph/entities.parquet ({first}, ...)"),
            false => tracing::warn!(
                "{modality}: row i is taken for entity i in the order of first appearance in train, valid and test \
                 ({first}, ...), as no file lists the entities: `keys` in the recipe names the rows"
            ),
        }
    }

    fn ready_texts(
        &self,
        texts: &[String],
        source: &EncoderSource<TextOutput>,
        max_tokens: usize,
        batch: usize,
    ) -> Result<Ready<'static>> {
        let device = encoder_device(self.device)?;
        let (encoder, tokens) = match source {
            EncoderSource::Checkpoint(checkpoint, output) => {
                let encoder = TextEncoder::load(checkpoint, *output, &device)?;
                let most = encoder.max_tokens();
                if max_tokens > most {
                    tracing::warn!("{}: the encoder takes {most} tokens, not {max_tokens}", self.modality);
                }
                let tokens = Tokens::new(texts, &tokenizer(checkpoint)?, max_tokens.min(most))?;
                (encoder, tokens)
            }
            EncoderSource::Random => {
                self.warn_of_random_weights("text");
                let tokenizer = word_level(texts)?;
                let tokens = Tokens::new(texts, &tokenizer, max_tokens)?;
                let words = tokenizer.get_vocab_size(true);
                (TextEncoder::random(self.seed, words, tokens.longest(), &device)?, tokens)
            }
        };
        Ok(Ready::Text { encoder, tokens, batch, origin: self.origin(source) })
    }

    fn ready_images<'a>(&self, source: &'a ImageSource) -> Result<Ready<'a>> {
        let device = encoder_device(self.device)?;
        let encoder = match &source.encoder {
            EncoderSource::Checkpoint(checkpoint, output) => {
                ImageEncoder::load(checkpoint, *output, &device)?
            }
            EncoderSource::Random => {
                self.warn_of_random_weights("image");
                ImageEncoder::random(self.seed, &device)?
            }
        };
        Ok(Ready::Images { encoder, source, origin: self.origin(&source.encoder) })
    }

    /// Makes the features and finishes the stage's folder.
    pub fn run(&self, source: &Source, ready: Ready, work: Work) -> Result<()> {
        // `Work` leaves it there only where it continues the same work.
        let journal = work.path(journal::FILE);
        let outcome = match ready {
            Ready::Text { encoder, tokens, batch, origin } => {
                self.texts(&encoder, &tokens, batch, origin, journal)?
            }
            Ready::Images { encoder, source, origin } => self.images(&encoder, source, origin, journal)?,
            Ready::Given(table) => {
                Outcome { table, covered: Covered::default(), about: json!({}), report: None }
            }
        };
        match self.shard {
            Some(_) => outcome.finish_shard(self.modality, work),
            None => self.finish(source, outcome, work),
        }
    }

    /// Finishes the stage's folder with features that are made.
    pub fn finish(&self, source: &Source, outcome: Outcome, work: Work) -> Result<()> {
        if let (Source::Images(source), Some(report)) = (source, &outcome.report) {
            report.require_any(&source.images.root)?;
            if self.strict {
                report.require_all(&source.images.root)?;
            }
        }
        outcome.finish(self.modality, work)
    }

    fn texts(
        &self,
        encoder: &TextEncoder,
        tokens: &Tokens,
        batch: usize,
        origin: String,
        journal: PathBuf,
    ) -> Result<Outcome> {
        let (modality, threads, shard) = (self.modality, self.threads, self.shard.unwrap_or(Shard::WHOLE));
        let work = TextWork { encoder, tokens, batch, threads, modality, shard, journal };
        let (table, covered) = (work.run()?, work.covered());
        let about = json!({ "texts_truncated": tokens.truncated, "encoder": origin });
        Ok(Outcome { table, covered, about, report: None })
    }

    fn images(
        &self,
        encoder: &ImageEncoder,
        source: &ImageSource,
        origin: String,
        journal: PathBuf,
    ) -> Result<Outcome> {
        let work = ImageWork {
            images: &source.images,
            encoder,
            batch: source.batch,
            threads: self.threads,
            strict: self.strict,
            modality: self.modality,
            shard: self.shard.unwrap_or(Shard::WHOLE),
            journal,
        };
        let (table, report) = work.run(self.entities.len())?;
        let about = json!({ "encoder": origin });
        Ok(Outcome { table, covered: work.covered(), about, report: Some(report) })
    }

    fn origin<O>(&self, source: &EncoderSource<O>) -> String {
        match source {
            EncoderSource::Checkpoint(checkpoint, _) => {
                checkpoint.origin().unwrap_or("checkpoint").to_owned()
            }
            EncoderSource::Random => self.random_weights(),
        }
    }

    fn random_weights(&self) -> String {
        format!("random weights, seed {}", self.seed)
    }

    fn warn_of_random_weights(&self, kind: &str) {
        let (modality, weights) = (self.modality, self.random_weights());
        tracing::warn!("{modality}: the {kind} encoder has {weights}: it was never trained");
    }
}

/// The device that encoders compute on: candle's, on the CPU as well.
///
/// # Errors
/// As [`device::choose`] has them.
pub fn encoder_device(asked: program::Device) -> Result<device::Device> {
    Ok(device::choose(asked)?.unwrap_or(device::Device::Cpu))
}
