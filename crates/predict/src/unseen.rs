//! Answers for an entity that the graph does not have: a teacher of texts or images places it by its feature alone.

use dsom_evaluate::models::ModelName;
use dsom_features::unseen::Unseen;
use dsom_teachers::unseen::place;
use kge::{Matrix, Model, Scorer};
use mkg::{EntityId, Query};
use stage::{Error, Result};

use crate::Session;
use crate::answer::{Listing, Reply};
use crate::question::Question;

impl Session<'_> {
    /// Answers questions about an entity that the graph does not have: in them its id is the one behind the last. `encoder` is the
    /// checkpoint of its modality's features, where their record does not tell.
    ///
    /// # Errors
    /// If the model is not a teacher of features, or the entity cannot be encoded as the features were.
    pub fn answer_unseen(
        &self,
        unseen: &Unseen,
        encoder: Option<&str>,
        questions: &[Question],
        listing: &Listing,
    ) -> Result<Vec<Reply>> {
        let model = self.model()?;
        let modality = match &self.models.names()[0] {
            ModelName::Teacher(modality) if !modality.is_structural() => modality,
            other => {
                let message = format!("`{other}` has no place for an entity that the graph does not have");
                return Err(Error::usage(message).hint("name a teacher of texts or images with --model"));
            }
        };
        let feature = unseen.feature(&self.run, modality, encoder)?;
        let asked = Model {
            backbone: model.backbone,
            entity: place(&self.run, modality, model, &feature)?,
            relation: model.relation.clone(),
            core: model.core.clone(),
        };
        tracing::warn!(
            "the graph does not have this entity: teacher `{modality}` places it by its features alone"
        );
        self.answer_by(&Placed { asked, model }, questions, listing)
    }
}

/// Scores of a model's entities for an entity that is not one of them.
struct Placed<'a> {
    /// The model with that entity alone.
    asked: Model<f32>,
    model: &'a Model<f32>,
}

impl Scorer for Placed<'_> {
    fn entities(&self) -> usize {
        self.model.entity.rows()
    }

    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) {
        let own: Vec<Query> = queries.iter().map(|query| Query { head: EntityId(0), ..*query }).collect();
        let mut vectors = Matrix::zeros(0, 0);
        self.asked.queries(&own, &mut vectors);
        into.resize(queries.len(), self.entities());
        into.product(false, 1.0, vectors.view(), self.model.entity.transposed());
    }
}
