//! Doing what a [`Plan`](crate::plan::Plan) says.

use candle_core::Device;
use mkg::graph::Entity;
use serde_json::{Value, json};
use stage::manifest::CHECKPOINT;
use stage::work::Work;
use stage::{Error, Modality, Result};
use std::path::Path;
use std::time::Instant;

use crate::bert::{TextEncoder, random_for, tokenizer};
use crate::images::ImageWork;
use crate::matrix::Matrix;
use crate::plan::{ImageSource, Source, TextSource};
use crate::preparation::Preparation;
use crate::text::TextWork;
use crate::tokens::Tokens;
use crate::vit::ImageEncoder;
use crate::{FeatureTable, given, table};

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
}

impl Setting<'_> {
    /// Makes the features and finishes the stage's folder.
    pub fn run(&self, source: &Source, work: Work) -> Result<()> {
        let started = Instant::now();
        let (table, about) = self.features(source, &work)?;
        table.write(&work.path(table::FILE), self.modality)?;
        let mut summary = json!({
            "entities": table.entities(),
            "present": table.count_present(),
            "coverage": table.coverage(),
            "width": table.width,
        });
        if let (Value::Object(summary), Value::Object(about)) = (&mut summary, about) {
            summary.extend(about);
        }
        tracing::info!(
            "{}: {} of {} entities, width {}, {:.1} s",
            self.modality,
            table.count_present(),
            table.entities(),
            table.width,
            started.elapsed().as_secs_f64()
        );
        work.finish(summary).map(|_| ())
    }

    /// The table, and what the summary says of how it was made.
    fn features(&self, source: &Source, work: &Work) -> Result<(FeatureTable, Value)> {
        match source {
            Source::Text { texts, encoder, max_tokens, batch } => {
                // `Work::checkpoint` names it only where it continues the same work.
                self.texts(texts, encoder, (*max_tokens, *batch), &work.path(CHECKPOINT))
            }
            Source::Images(source) => self.images(source, work),
            Source::Given { file, tensor, keys, zero_is_absent } => {
                let matrix = Matrix::read(file, tensor.as_deref())?;
                let table = given::join(&matrix, file, keys.as_deref(), *zero_is_absent, self.entities)?;
                Ok((table, json!({})))
            }
        }
    }

    fn texts(
        &self,
        texts: &[String],
        source: &TextSource,
        (max_tokens, batch): (usize, usize),
        checkpoint: &Path,
    ) -> Result<(FeatureTable, Value)> {
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
        let table = TextWork {
            encoder: &encoder,
            tokens: &tokens,
            batch,
            threads: self.threads,
            modality: self.modality,
            checkpoint: Some(checkpoint.to_owned()),
        }
        .run()?;
        let origin = match source {
            TextSource::Checkpoint(_) => "checkpoint".to_owned(),
            TextSource::Random => self.random_weights(),
        };
        Ok((table, json!({ "texts_truncated": tokens.truncated, "encoder": origin })))
    }

    fn images(&self, source: &ImageSource, work: &Work) -> Result<(FeatureTable, Value)> {
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
        };
        let (table, report) = image_work.run(self.entities.len())?;
        if report.digests.is_empty() {
            let message = format!("none of {} images could be read", report.unreadable.len());
            let first = report.first_unreadable().unwrap_or_default();
            return Err(Error::data(message).at(&images.root).hint(format!("the first is {first}")));
        }
        report.write(work, self.modality)?;
        let mut about = report.summary();
        about["encoder"] = self.random_weights().into();
        Ok((table, about))
    }

    fn random_weights(&self) -> String {
        format!("random weights, seed {}", self.seed)
    }

    fn warn_of_random_weights(&self, kind: &str) {
        let (modality, weights) = (self.modality, self.random_weights());
        tracing::warn!("{modality}: the {kind} encoder has {weights}: it was never trained");
    }
}
