//! Doing what a [`Plan`](crate::plan::Plan) says.

use mkg::graph::Entity;
use recipe::{Precision, TextOutput};
use serde_json::json;
use stage::work::Work;
use stage::{Modality, Result};
use std::path::PathBuf;

use crate::images::{ImageEncoder, ImageWork};
use crate::outcome::{Covered, Outcome};
use crate::place::Place;
use crate::plan::{ImageSource, Source};
use crate::preparation::Preparation;
use crate::random::bert::encoder_for;
use crate::shard::Shard;
use crate::source::EncoderSource;
use crate::text::{TextEncoder, TextWork};
use crate::tokens::Tokens;
use crate::{FeatureTable, bert, given, journal, preparation};

/// What the work on one modality needs beside its source.
pub struct Setting<'a> {
    /// The modality.
    pub modality: &'a Modality,
    /// The graph's entities.
    pub entities: &'a [Entity],
    /// The run's seed.
    pub seed: u64,
    /// Where the encoders compute.
    pub place: &'a Place,
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
    /// An encoder and how images become what it takes.
    Images {
        /// The encoder.
        encoder: ImageEncoder,
        /// The preparation.
        preparation: Preparation,
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
            Source::Text { texts, encoder, max_tokens, batch, precision } => {
                self.ready_texts(texts, encoder, *max_tokens, *batch, *precision)
            }
            Source::Images(source) => self.ready_images(source),
            Source::Given { file, tensor, keys, unknown_keys, zero_is_absent } => {
                let rows = given::read(file, tensor.as_deref())?;
                let keys = keys.as_deref();
                let mapping =
                    given::Mapping { keys, unknown: *unknown_keys, zero_is_absent: *zero_is_absent };
                Ok(Ready::Given(given::join(&rows, file, mapping, self.entities)?))
            }
        }
    }

    fn ready_texts(
        &self,
        texts: &[String],
        source: &EncoderSource<TextOutput>,
        max_tokens: usize,
        batch: usize,
        precision: Precision,
    ) -> Result<Ready<'static>> {
        let (encoder, tokenizer) = match source {
            EncoderSource::Checkpoint(checkpoint, output) => {
                (TextEncoder::load(checkpoint, *output, self.place, precision)?, bert::tokenizer(checkpoint)?)
            }
            EncoderSource::Random => {
                self.warn_of_random_weights("text");
                encoder_for(texts, self.seed, max_tokens)?
            }
        };
        if max_tokens > encoder.max_tokens() {
            let (modality, most) = (self.modality, encoder.max_tokens());
            tracing::warn!("{modality}: the encoder takes {most} tokens, not {max_tokens}");
        }
        let tokens = Tokens::new(texts, &tokenizer, max_tokens.min(encoder.max_tokens()))?;
        encoder.require_device_memory(batch, tokens.longest(), self.modality)?;
        Ok(Ready::Text { encoder, tokens, batch, origin: self.origin(source) })
    }

    fn ready_images<'a>(&self, source: &'a ImageSource) -> Result<Ready<'a>> {
        let (encoder, prepared) = match &source.encoder {
            EncoderSource::Checkpoint(checkpoint, output) => {
                let encoder = ImageEncoder::load(checkpoint, *output, self.place, source.precision)?;
                (encoder, checkpoint.optional(preparation::FILE))
            }
            EncoderSource::Random => {
                self.warn_of_random_weights("image");
                (ImageEncoder::random(self.seed)?, None)
            }
        };
        encoder.require_device_memory(source.batch, self.modality)?;
        let size = encoder.image_size();
        let preparation =
            prepared.map_or(Ok(Preparation::vit(size)), |path| Preparation::read(&path, size))?;
        Ok(Ready::Images { encoder, preparation, source, origin: self.origin(&source.encoder) })
    }

    /// Makes the features and finishes the stage's folder.
    pub fn run(&self, source: &Source, ready: Ready, work: Work) -> Result<()> {
        // `Work` leaves it there only where it continues the same work.
        let journal = work.path(journal::FILE);
        let outcome = match ready {
            Ready::Text { encoder, tokens, batch, origin } => {
                self.texts(&encoder, &tokens, batch, origin, journal)?
            }
            Ready::Images { encoder, preparation, source, origin } => {
                self.images(&encoder, &preparation, source, origin, journal)?
            }
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
        let about = json!({
            "texts_truncated": tokens.truncated, "encoder": origin, "products": encoder.products(),
        });
        Ok(Outcome { table, covered, about, report: None })
    }

    fn images(
        &self,
        encoder: &ImageEncoder,
        preparation: &Preparation,
        source: &ImageSource,
        origin: String,
        journal: PathBuf,
    ) -> Result<Outcome> {
        let work = ImageWork {
            images: &source.images,
            encoder,
            preparation,
            pool: source.pool,
            upright: source.upright,
            batch: source.batch,
            threads: self.threads,
            strict: self.strict,
            modality: self.modality,
            shard: self.shard.unwrap_or(Shard::WHOLE),
            journal,
        };
        let (table, report) = work.run(self.entities.len())?;
        let about = json!({ "encoder": origin, "products": encoder.products() });
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
        self.place.left("an encoder with random weights");
    }
}
