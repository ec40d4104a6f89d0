//! One query by name, answered by one model from what was known while it was trained: no test triple is read.

use kge::{Matrix, Scorer, row};
use mkg::{EntityId, Query, RelationId, Vocabulary};
use serde::Serialize;
use stage::task::Task;
use stage::{Error, Kind, Result, Run};
use training::Data;

use crate::lookup::{Label, find};
use crate::models::{Catalogue, Models};
use crate::report;

/// What somebody asks.
#[derive(Clone, Debug)]
pub struct Question {
    /// The known entity's name or key.
    pub head: String,
    /// The relation's name or key.
    pub relation: String,
    /// Ask for the heads of `(?, relation, head)` instead.
    pub inverse: bool,
    /// How many answers.
    pub top: usize,
    /// Whether answers that train or valid already have are listed too.
    pub include_known: bool,
}

/// The question as it was understood, and the answers.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The known entity's label.
    pub head: String,
    /// The relation's label; an inverse's ends in `⁻¹`.
    pub relation: String,
    /// The best first.
    pub predictions: Vec<Prediction>,
    /// How many answers train and valid have that are not listed.
    pub left_out: usize,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Position in the list, from 1.
    pub rank: usize,
    /// The dataset's own identifier.
    pub key: String,
    /// The name, if there is one.
    pub name: Option<String>,
    /// The model's score.
    pub score: f32,
    /// Softmax of the scores of all entities, listed or not.
    pub probability: f64,
    /// Whether train or valid has this answer.
    pub known: bool,
}

/// Lets the model called `model` answer.
pub fn ask(run: &Run, model: &str, question: &Question) -> Result<Reply> {
    // Nothing is written: the task is there to check the inputs against their stages' manifests.
    let mut task = Task::new(run, "dsom-predict", run.root().to_owned(), &(), 0);
    let data = Data::open(run, &mut task)?;
    let query = understand(&data.vocabulary, question)?;
    let catalogue = Catalogue::of(run)?;
    let names = catalogue.choose(&[model.to_owned()])?;
    let models = Models::open(&catalogue, &names, &mut task, &data.vocabulary)?;
    let mut scores = Matrix::zeros(0, 0);
    models.scorer(0).scores(&[query], &mut scores);
    if !row::all_finite(scores.row(0)) {
        return Err(
            Error::new(Kind::Diverged, format!("scores of `{model}` are not finite")).hint("retrain it")
        );
    }
    Ok(reply(&data.vocabulary, question, query, data.known.of(query), scores.row(0)))
}

/// The ids behind the words.
fn understand(vocabulary: &Vocabulary, question: &Question) -> Result<Query> {
    let Vocabulary { entities, relations } = vocabulary;
    let entities: Vec<Label> =
        entities.iter().map(|e| Label { key: &e.key, name: e.name.as_deref() }).collect();
    let labels: Vec<Label> =
        relations.iter().map(|r| Label { key: &r.key, name: r.name.as_deref() }).collect();
    let head = EntityId(find("entity", &entities, &question.head)? as u32);
    let relation = RelationId(find("relation", &labels, &question.relation)? as u32);
    let relation = if question.inverse { relation.inverse(relations.len()) } else { relation };
    Ok(Query { head, relation })
}

fn reply(
    vocabulary: &Vocabulary,
    question: &Question,
    query: Query,
    known: &[EntityId],
    scores: &[f32],
) -> Reply {
    let largest = f64::from(row::max(scores));
    let weight = |score: f32| (f64::from(score) - largest).exp();
    let total: f64 = scores.iter().map(|score| weight(*score)).sum();
    let is_known = |id: &EntityId| known.binary_search(id).is_ok();
    let listed = by_score(scores).into_iter().filter(|id| question.include_known || !is_known(id));
    let prediction = |(i, id): (usize, EntityId)| {
        let (entity, score) = (&vocabulary.entities[id.index()], scores[id.index()]);
        Prediction {
            rank: i + 1,
            key: entity.key.clone(),
            name: entity.name.clone(),
            score,
            probability: weight(score) / total,
            known: is_known(&id),
        }
    };
    Reply {
        head: vocabulary.entities[query.head.index()].label().to_owned(),
        relation: vocabulary.relation_label(query.relation),
        predictions: listed.take(question.top).enumerate().map(prediction).collect(),
        left_out: if question.include_known { 0 } else { known.len() },
    }
}

/// All entities, the highest score first; equal scores by id.
pub(crate) fn by_score(scores: &[f32]) -> Vec<EntityId> {
    let mut ids: Vec<EntityId> = (0..scores.len() as u32).map(EntityId).collect();
    ids.sort_by(|a, b| scores[b.index()].total_cmp(&scores[a.index()]).then(a.cmp(b)));
    ids
}

impl Reply {
    /// The answers as a table for people.
    pub fn render(&self) -> String {
        let mut table = report::table(&["rank", "name", "key", "", "score", "probability"], 4);
        for answer in &self.predictions {
            table.add_row([
                answer.rank.to_string(),
                answer.name.clone().unwrap_or_default(),
                answer.key.clone(),
                if answer.known { "known" } else { "" }.to_owned(),
                format!("{:.4}", answer.score),
                format!("{:.2} %", 100.0 * answer.probability),
            ]);
        }
        let note = match self.left_out {
            0 => String::new(),
            count => format!("\nleft out: {count} known from train or valid (--include-known lists them)"),
        };
        format!("{} · {} · ?\n{table}{note}", self.head, self.relation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mkg::{Entity, Relation};

    fn answer(include_known: bool) -> Reply {
        let entity = |key: &str| Entity { key: key.into(), ..Entity::default() };
        let relations = vec![Relation { key: "r".into(), name: None }];
        let vocabulary = Vocabulary { entities: ["a", "b", "c"].map(entity).to_vec(), relations };
        let question =
            Question { head: "A".into(), relation: "r".into(), inverse: true, top: 2, include_known };
        let query = understand(&vocabulary, &question).unwrap();
        assert_eq!(query, Query { head: EntityId(0), relation: RelationId(1) });
        let scores = [0.0, 3.0f32.ln(), 0.0];
        reply(&vocabulary, &question, query, &[EntityId(1)], &scores)
    }

    #[test]
    fn known_answers_are_left_out_or_marked() {
        let keys = |reply: &Reply| -> Vec<(String, bool)> {
            reply.predictions.iter().map(|p| (p.key.clone(), p.known)).collect()
        };
        let reply = answer(false);
        assert_eq!(keys(&reply), [("a".into(), false), ("c".into(), false)]);
        assert_eq!((reply.left_out, reply.relation.as_str()), (1, "r⁻¹"));
        assert_eq!(keys(&answer(true)), [("b".into(), true), ("a".into(), false)]);
    }

    #[test]
    fn probabilities_are_of_all_entities() {
        let best = &answer(true).predictions[0];
        assert!((best.probability - 0.6).abs() < 1e-6, "{}", best.probability);
    }
}
