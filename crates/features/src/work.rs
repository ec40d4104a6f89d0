//! Doing what a [`Plan`](crate::plan::Plan) says.

use candle_core::Device;
use mkg::graph::Entity;
use serde_json::json;
use stage::work::Work;
use stage::{Modality, Result};
use std::path::PathBuf;

use crate::bert::{TextEncoder, random_for, tokenizer};
use crate::images::ImageWork;
use crate::outcome::{Covered, Outcome};
use crate::plan::{ImageSource, Source, TextSource};
use crate::preparation::Preparation;
use crate::shard::Shard;
use crate::text::TextWork;
use crate::tokens::Tokens;
use crate::vit::ImageEncoder;
use crate::{given, journal};

/// What the work on one modality needs beside its source.
pub struct Setting<'a> {
    /// The modality.
    pub modality: &'a Modality,
    /// The graph's entities.
    pub entities: &'a [Entity],
    /// The run's seed.
    pub seed: u64,
    /// Where the encoders compute.
    pub device: &'a Device,
    /// Batches at the same time.
    pub threads: usize,
    /// Whether an unreadable image is an error.
    pub strict: bool,
    /// The share of the work that is done.
    pub shard: Option<Shard>,
}

impl Setting<'_> {
    /// Makes the features and finishes the stage's folder.
    pub fn run(&self, source: &Source, work: Work) -> Result<()> {
        let outcome = self.outcome(source, &work)?;
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

    fn outcome(&self, source: &Source, work: &Work) -> Result<Outcome> {
        // `Work` leaves it there only where it continues the same work.
        let journal = work.path(journal::FILE);
        match source {
            Source::Text { texts, encoder, max_tokens, batch } => {
                self.texts(texts, encoder, (*max_tokens, *batch), journal)
            }
            Source::Images(source) => self.images(source, journal),
            Source::Given { file, tensor, keys, unknown_keys, zero_is_absent } => {
                let rows = given::read(file, tensor.as_deref())?;
                let keys = keys.as_deref();
                let mapping =
                    given::Mapping { keys, unknown: *unknown_keys, zero_is_absent: *zero_is_absent };
                let table = given::join(&rows, file, mapping, self.entities)?;
                Ok(Outcome { table, covered: Covered::default(), about: json!({}), report: None })
            }
        }
    }

    fn texts(
        &self,
        texts: &[String],
        source: &TextSource,
        (max_tokens, batch): (usize, usize),
        journal: PathBuf,
    ) -> Result<Outcome> {
        let (encoder, tokenizer) = match source {
            TextSource::Checkpoint(folder) => (TextEncoder::load(folder, self.device)?, tokenizer(folder)?),
            TextSource::Random => {
                self.warn_of_random_weights("text");
                random_for(texts, self.seed, max_tokens, self.device)?
            }
        };
        if max_tokens > encoder.max_tokens() {
            let (modality, most) = (self.modality, encoder.max_tokens());
            tracing::warn!("{modality}: the encoder takes {most} tokens, not {max_tokens}");
        }
        let tokens = Tokens::new(texts, &tokenizer, max_tokens.min(encoder.max_tokens()))?;
        let text_work = TextWork {
            encoder: &encoder,
            tokens: &tokens,
            batch,
            threads: self.threads,
            modality: self.modality,
            shard: self.shard.unwrap_or(Shard::WHOLE),
            journal,
        };
        let origin = match source {
            TextSource::Checkpoint(_) => "checkpoint".to_owned(),
            TextSource::Random => self.random_weights(),
        };
        let (table, covered) = (text_work.run()?, text_work.covered());
        let about = json!({ "texts_truncated": tokens.truncated, "encoder": origin });
        Ok(Outcome { table, covered, about, report: None })
    }

    fn images(&self, source: &ImageSource, journal: PathBuf) -> Result<Outcome> {
        let ImageSource { images, pool, upright, batch } = source;
        self.warn_of_random_weights("image");
        let encoder = ImageEncoder::random(self.seed, self.device)?;
        let image_work = ImageWork {
            images,
            encoder: &encoder,
            preparation: &Preparation::vit(encoder.image_size()),
            pool: *pool,
            upright: *upright,
            batch: *batch,
            threads: self.threads,
            strict: self.strict,
            modality: self.modality,
            shard: self.shard.unwrap_or(Shard::WHOLE),
            journal,
        };
        let (table, report) = image_work.run(self.entities.len())?;
        let about = json!({ "encoder": self.random_weights() });
        Ok(Outcome { table, covered: image_work.covered(), about, report: Some(report) })
    }

    fn random_weights(&self) -> String {
        format!("random weights, seed {}", self.seed)
    }

    fn warn_of_random_weights(&self, kind: &str) {
        let (modality, weights) = (self.modality, self.random_weights());
        tracing::warn!("{modality}: the {kind} encoder has {weights}: it was never trained");
    }
}
