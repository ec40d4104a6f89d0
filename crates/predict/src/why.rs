//! Evidence for an answer: its ranks by the teachers, the policy's strategies, and known facts that resemble it.
//!
//! The facts are training triples `(h', r, t')` of the same relation, the nearest first by `cos(h, h') · cos(t, t')` in
//! the model's entity table. They show facts that the model could have learned the answer from. They are no proof, and
//! they do not trace the model's computation.

use arrow::datatypes::{Float32Type, UInt32Type};
use dsom_evaluate::models::ModelName;
use kge::rank::rank_in_row;
use kge::{Matrix, Model, Scorer, TieRule, row};
use mkg::graph::{for_each_batch, numbers};
use mkg::{EntityId, Query, Triple, Vocabulary};
use stage::{Error, Kind, Result};

use crate::Session;
use crate::answer::Reply;
use crate::output::cell;

/// The number of facts that are shown for an answer.
pub const FACTS: usize = 3;
/// The smallest cosine of two entities that are near each other.
pub const NEAR: f32 = 0.3;
/// The number of strategies of the policy that are shown.
const STRATEGIES: usize = 3;
/// The number of columns beside the strategies in the table of the policy's probabilities.
const OTHERS: usize = 5;

/// Evidence for the answers to one question.
pub(crate) struct Explanation {
    /// The policy's probabilities of all strategies, the likeliest first, if training asked the policy this query.
    pub(crate) policy: Option<Vec<(String, f32)>>,
    pub(crate) answers: Vec<Evidence>,
}

/// The name of each teacher, its rank of the answer, and the number of candidates with the same score.
type Ranks = Vec<(String, f64, u32)>;

pub(crate) struct Evidence {
    /// Each teacher's filtered rank of the answer, ties realistic. Many ties show that a teacher has no view.
    pub(crate) ranks: Ranks,
    /// The known facts that resemble the answer most.
    pub(crate) facts: Vec<Fact>,
}

/// A known fact that resembles an answer.
pub(crate) struct Fact {
    pub(crate) triple: Triple,
    /// The cosine between the entity asked about and the fact's entity in that place.
    asked: f32,
    /// The cosine between the answer and the fact's entity in that place.
    answer: f32,
}

impl Session<'_> {
    /// Explains the answers to a question that asks for an entity.
    pub(crate) fn explain(&mut self, reply: &mut Reply) -> Result<()> {
        let query = reply.question.query(self.data.relations());
        let query = query.ok_or_else(|| Error::usage("--why explains answers that are entities"))?;
        let policy = self.policy(query)?;
        let model = self.model()?;
        let near_head = cosines(model, query.head);
        let ids = reply.answers.iter().map(|answer| reply.question.sides(answer.triple)[1]);
        let ids: Vec<EntityId> = ids.collect();
        let answers = ids.iter().zip(self.teacher_ranks(query, &ids)).map(|(id, ranks)| {
            let facts = self.facts(query, *id, &near_head, &cosines(model, *id));
            Evidence { ranks, facts }
        });
        reply.explanation = Some(Explanation { policy, answers: answers.collect() });
        Ok(())
    }

    fn teacher_ranks(&self, query: Query, answers: &[EntityId]) -> Vec<Ranks> {
        let (mut ranks, mut scores) = (vec![Vec::new(); answers.len()], Matrix::zeros(0, 0));
        for (i, name) in self.models.names().iter().enumerate().skip(1) {
            self.models.scorer(i).scores(&[query], &mut scores);
            for (ranks, answer) in ranks.iter_mut().zip(answers) {
                let known = self.data.known.of(query).iter().map(|id| id.index());
                let rank = rank_in_row(scores.row(0), answer.index(), known);
                ranks.push((name.to_string(), rank.by(TieRule::Realistic), rank.tied));
            }
        }
        ranks
    }

    /// The policy's probabilities, if the model is a student with a policy and training asked this query.
    fn policy(&mut self, query: Query) -> Result<Option<Vec<(String, f32)>>> {
        let ModelName::Student(folder) = &self.models.names()[0] else { return Ok(None) };
        let path = match self.task.stage_input(&self.run.student(folder), "strategies.parquet") {
            Err(error) if error.kind() == Kind::Missing => return Ok(None),
            path => path?,
        };
        let mut found = None;
        for_each_batch(&path, |batch| {
            let heads = numbers::<UInt32Type>(batch, "head")?.values();
            let relations = numbers::<UInt32Type>(batch, "relation")?.values();
            let mut asked = heads.iter().zip(relations);
            let Some(row) = asked.position(|asked| asked == (&query.head.0, &query.relation.0)) else {
                return Ok(());
            };
            let mut strategies = Vec::new();
            for field in batch.schema().fields().iter().skip(OTHERS) {
                let probability = numbers::<Float32Type>(batch, field.name())?.value(row);
                strategies.push((field.name().clone(), probability));
            }
            strategies.sort_by(|a, b| b.1.total_cmp(&a.1));
            found = Some(strategies);
            Ok(())
        })?;
        Ok(found)
    }

    /// The training triples of the query's relation that resemble `(query, answer)` most, by the cosines of all
    /// entities with the head and with the answer.
    fn facts(&self, query: Query, answer: EntityId, near_head: &[f32], near_answer: &[f32]) -> Vec<Fact> {
        let (relation, inverted) = query.relation.base(self.data.relations());
        let queries = self.data.queries.queries().iter().enumerate();
        let mut facts = Vec::new();
        for (i, other) in queries.filter(|(_, other)| other.relation == query.relation) {
            for &tail in self.data.queries.tails(i) {
                let (asked, answered) = (near_head[other.head.index()], near_answer[tail.index()]);
                let is_same = other.head == query.head && tail == answer;
                if !is_same && asked > NEAR && answered > NEAR {
                    let [head, tail] = if inverted { [tail, other.head] } else { [other.head, tail] };
                    facts.push(Fact { triple: Triple { head, relation, tail }, asked, answer: answered });
                }
            }
        }
        facts.sort_by(|a, b| (b.asked * b.answer).total_cmp(&(a.asked * a.answer)));
        facts.truncate(FACTS);
        facts
    }
}

/// The cosine of each entity with `entity`.
fn cosines(model: &Model<f32>, entity: EntityId) -> Vec<f32> {
    let own = model.embedding(entity);
    let others = (0..).map(|id| model.embedding(EntityId(id))).take(model.entity.rows());
    let cosines = others.map(|other| {
        let square = row::dot(own, own) * row::dot(other, other);
        if square > 0.0 { row::dot(own, other) / square.sqrt() } else { 0.0 }
    });
    cosines.collect()
}

impl Explanation {
    /// The explanation of a reply's answers, for the lines below the table.
    pub(crate) fn render(&self, vocabulary: &Vocabulary, reply: &Reply) -> String {
        let mut text = match &self.policy {
            Some(strategies) => {
                let shown = strategies.iter().take(STRATEGIES);
                let shown = joined(shown.map(|(name, p)| format!("{name} {:.0} %", 100.0 * p)));
                format!("\n\npolicy: {shown} (of {} strategies)", strategies.len())
            }
            None => "\n\npolicy: none, or not asked this in training".to_owned(),
        };
        for (answer, Evidence { ranks, facts }) in reply.answers.iter().zip(&self.answers) {
            let own = reply.question.sides(answer.triple);
            let ranks = joined(ranks.iter().map(|(name, rank, tied)| match tied {
                0 => format!("{name} {rank}"),
                tied => format!("{name} {rank} (tied with {tied})"),
            }));
            text += &format!("\n{}: ranks {ranks}", label(vocabulary, own[1]));
            for fact in facts {
                let other = reply.question.sides(fact.triple);
                text += &format!("\n    {}", fact.render(vocabulary, own, other));
            }
        }
        text
    }
}

impl Fact {
    /// `Germany · borders · Poland (Germany like France 0.61)`; `own` and `other` are the asked entity and the answer.
    fn render(&self, vocabulary: &Vocabulary, own: [EntityId; 2], other: [EntityId; 2]) -> String {
        let Triple { head, relation, tail } = self.triple;
        let like = other.into_iter().zip(own).zip([self.asked, self.answer]);
        let like = like.filter(|((other, own), _)| other != own);
        let like = like.map(|((other, own), cosine)| {
            format!("{} like {} {cosine:.2}", label(vocabulary, other), label(vocabulary, own))
        });
        let relation = cell(vocabulary.relations[relation.index()].label());
        let [head, tail] = [head, tail].map(|id| label(vocabulary, id));
        format!("{head} · {relation} · {tail} ({})", joined(like))
    }
}

fn label(vocabulary: &Vocabulary, id: EntityId) -> String {
    cell(vocabulary.entities[id.index()].label())
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}
