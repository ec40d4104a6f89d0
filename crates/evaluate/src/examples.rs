//! A few predictions of a model by name, for people to judge.

use kge::rank::rank_in_row;
use kge::{Matrix, Scorer, TieRule};
use mkg::{EntityId, Query, QuerySet, Split};
use serde::{Deserialize, Serialize};
use stage::seed;

use crate::graph::Graph;

/// The number of candidates to name, and the largest number of known answers listed among them.
const TOP: usize = 5;

/// A query with its best predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The name of the known entity.
    pub head: String,
    /// The relation's name; the name of an inverse ends in `⁻¹`.
    pub relation: String,
    /// The first candidates that the filter leaves, and the known answers that score as high.
    pub predictions: Vec<Prediction>,
    /// The query's answers in the split.
    pub answers: Vec<Answer>,
}

/// An entity with a high score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The dataset's own identifier.
    pub key: String,
    /// The name, or the key if there is no name.
    pub name: String,
    /// The model's score.
    pub score: f32,
    /// True if the entity is an answer in this split.
    pub answer: bool,
    /// True if the entity is an answer only in another split; it does not count as a candidate.
    pub known: bool,
}

/// An entity that is an answer in the split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The dataset's own identifier.
    pub key: String,
    /// The name, or the key if there is no name.
    pub name: String,
    /// The entity's filtered rank, ties realistic.
    pub rank: f64,
}

/// Draws `count` of the split's distinct queries and answers them with a scorer.
pub(crate) fn draw(graph: &Graph, by: &impl Scorer, split: Split, count: usize, seed: u64) -> Vec<Example> {
    let queries = QuerySet::new(graph.triples(split), graph.relations());
    let mut generator = seed::generator(seed, "evaluate/examples", 0);
    let drawn = rand::seq::index::sample(&mut generator, queries.len(), count.min(queries.len()));
    let mut scores = Matrix::zeros(0, 0);
    let examples = drawn.into_iter().map(|index| {
        by.scores(&[queries.query(index)], &mut scores);
        answer(graph, split, queries.query(index), queries.tails(index), scores.row(0))
    });
    examples.collect()
}

/// Answers one query; `answers` are its true tails in the split, in ascending order.
fn answer(graph: &Graph, split: Split, query: Query, answers: &[EntityId], scores: &[f32]) -> Example {
    let named = |id: EntityId| {
        let entity = &graph.vocabulary.entities[id.index()];
        (entity.key.clone(), entity.label().to_owned())
    };
    let known = graph.known(split).of(query);
    let (mut predictions, mut candidates, mut passed) = (Vec::new(), 0, 0);
    for id in by_score(scores) {
        let answer = answers.binary_search(&id).is_ok();
        let known = !answer && known.binary_search(&id).is_ok();
        if known {
            passed += 1;
        } else {
            candidates += 1;
        }
        if candidates > TOP {
            break;
        }
        if !known || passed <= TOP {
            let (key, name) = named(id);
            predictions.push(Prediction { key, name, score: scores[id.index()], answer, known });
        }
    }
    let answers = answers.iter().map(|&id| {
        let rank = rank_in_row(scores, id.index(), known.iter().map(|id| id.index()));
        let (key, name) = named(id);
        Answer { key, name, rank: rank.by(TieRule::Realistic) }
    });
    Example {
        head: named(query.head).1,
        relation: graph.vocabulary.relation_label(query.relation),
        predictions,
        answers: answers.collect(),
    }
}

/// All entities, highest score first; equal scores in the order of ids.
fn by_score(scores: &[f32]) -> Vec<EntityId> {
    let mut ids: Vec<EntityId> = (0..).map(EntityId).take(scores.len()).collect();
    ids.sort_by(|a, b| scores[b.index()].total_cmp(&scores[a.index()]).then(a.cmp(b)));
    ids
}

impl Example {
    /// The example as two lines of text.
    pub(crate) fn render(&self) -> String {
        let names = self.predictions.iter().map(|Prediction { name, answer, known, .. }| {
            let mark = match (answer, known) {
                (true, _) => " ✓",
                (_, true) => " (known)",
                _ => "",
            };
            format!("{name}{mark}")
        });
        let names = names.collect::<Vec<_>>().join(", ");
        let answers = self.answers.iter().take(TOP);
        let answers = answers.map(|Answer { name, rank, .. }| format!("{name} at rank {rank}"));
        let answers = answers.collect::<Vec<_>>().join(", ");
        let mut text = format!("{} · {} · ?  →  {names}\n    answer: {answers}", self.head, self.relation);
        if self.answers.len() > TOP {
            text += &format!(" and {} more", self.answers.len() - TOP);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mkg::{Entity, Relation, Triple, Vocabulary};

    #[test]
    fn answers_and_known_entities_are_marked() {
        let entity =
            |name: &str| Entity { key: name.to_lowercase(), name: Some(name.into()), ..Entity::default() };
        let names = ["France", "Spain", "Belgium", "Italy", "Chad", "Peru", "Laos", "Mali"];
        let relations = vec![Relation { key: "borders".into(), name: None }];
        let vocabulary = Vocabulary { entities: names.map(entity).to_vec(), relations };
        let test = vec![Triple::new(0, 0, 1), Triple::new(0, 0, 7)];
        let graph = Graph::new(vocabulary, [vec![Triple::new(0, 0, 2)], Vec::new(), test]);
        let scores = [0.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0];
        let query = Triple::new(0, 0, 1).tail_query();
        let example = answer(&graph, Split::Test, query, &[EntityId(1), EntityId(7)], &scores);
        assert_eq!(
            example.render(),
            "France · borders · ?  →  Spain ✓, Belgium (known), Italy, Chad, Peru, Laos\n    \
             answer: Spain at rank 1, Mali at rank 5"
        );
    }
}
