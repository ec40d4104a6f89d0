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
use crate::images::{ImageSet, encode};
use crate::matrix::Matrix;
use crate::plan::{Source, TextSource};
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
            Source::Images { images, batch } => self.images(images, *batch),
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

    fn images(&self, images: &ImageSet, batch: usize) -> Result<(FeatureTable, Value)> {
        self.warn_of_random_weights("image");
        let encoder = ImageEncoder::random(self.seed, self.device)?;
        let entities = self.entities.len();
        let (table, counts) = encode(images, &encoder, entities, batch, self.threads, self.modality)?;
        if counts.read == 0 {
            let message = format!("none of {} images could be read", counts.unreadable);
            let first = counts.examples.first().cloned().unwrap_or_default();
            return Err(Error::data(message).at(&images.root).hint(format!("the first is {first}")));
        }
        for example in &counts.examples {
            tracing::warn!("{}: unreadable image {example}", self.modality);
        }
        let about = json!({
            "images_read": counts.read,
            "images_unreadable": counts.unreadable,
            "unreadable": counts.examples,
            "encoder": self.random_weights(),
        });
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
