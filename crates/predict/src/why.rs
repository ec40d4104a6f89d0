//! Evidence for an answer: the teachers' ranks of it, whom the policy trusts, and known facts that resemble it.
//!
//! The facts are training triples `(h', r, t')` of the same relation, the nearest first by
//! `cos(h, h') · cos(t, t')` in the model's entity table. They show what the model could have learned the answer from; they
//! are no proof, and no trace of what it computed.

use arrow::datatypes::{Float32Type, UInt32Type};
use dsom_evaluate::models::ModelName;
use kge::rank::rank_in_row;
use kge::{Matrix, Scorer, TieRule, row};
use mkg::graph::{for_each_batch, numbers};
use mkg::{EntityId, Query, Triple, Vocabulary};
use stage::{Error, Kind, Result};
use std::fmt::Write;

use crate::Session;
use crate::answer::Reply;
use crate::output::cell;

/// Number of facts that are shown for an answer.
pub const FACTS: usize = 3;
/// The least cosine of two entities that are near each other.
pub const NEAR: f32 = 0.3;
/// Number of strategies of the policy that are shown.
const STRATEGIES: usize = 3;
/// The policy's probabilities in a student's folder.
const POLICY: &str = "strategies.parquet";
/// Number of its columns that are no strategies.
const OTHERS: usize = 5;

/// Evidence for the answers to one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The policy's probabilities of all strategies, the likeliest first, if it was asked this in training.
    pub policy: Option<Vec<(String, f32)>>,
    /// Evidence for each answer, in their order.
    pub answers: Vec<Why>,
}

/// Teachers by name, each with its rank and how many candidates it scores the same.
pub type Ranks = Vec<(String, f64, u32)>;

/// Evidence for one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Why {
    /// Each teacher's filtered rank of it, ties realistic. Many ties tell that the teacher has no view of its own.
    pub ranks: Ranks,
    /// The known facts that resemble it most.
    pub facts: Vec<Fact>,
}

/// A known fact that resembles an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fact {
    /// The fact.
    pub triple: Triple,
    /// The cosine of the entity asked about and the fact's.
    pub asked: f32,
    /// The cosine of the answer and the fact's.
    pub answer: f32,
}

impl Session<'_> {
    /// Explains the answers to a question for an entity.
    ///
    /// # Errors
    /// If a relation was asked for, or the model is made of several.
    pub fn explain(&mut self, reply: &Reply) -> Result<Explanation> {
        let relations = self.data.relations();
        let query = reply.question.query(relations);
        let query = query.ok_or_else(|| Error::usage("--why explains answers that are entities"))?;
        let policy = self.policy(query)?;
        let near = self.cosines(query.head)?;
        let ids = reply.answers.iter().map(|answer| match reply.question.head {
            Some(_) => answer.triple.tail,
            None => answer.triple.head,
        });
        let ids: Vec<EntityId> = ids.collect();
        let ranks = self.teacher_ranks(query, &ids);
        let why = |(id, ranks): (&EntityId, Ranks)| Ok(Why { ranks, facts: self.facts(query, *id, &near)? });
        Ok(Explanation { policy, answers: ids.iter().zip(ranks).map(why).collect::<Result<_>>()? })
    }

    /// Each teacher's rank of every answer.
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

    /// The policy's probabilities, where the model is a student with a policy and the query one of training.
    fn policy(&mut self, query: Query) -> Result<Option<Vec<(String, f32)>>> {
        let ModelName::Student(folder) = &self.models.names()[0] else { return Ok(None) };
        let path = match self.task.stage_input(&self.run.student(folder), POLICY) {
            Err(error) if error.kind() == Kind::Missing => return Ok(None),
            path => path?,
        };
        let mut found = None;
        for_each_batch(&path, |batch| {
            let heads = numbers::<UInt32Type>(batch, "head")?.values();
            let relations = numbers::<UInt32Type>(batch, "relation")?.values();
            let is_asked =
                |(head, relation): (&u32, &u32)| (*head, *relation) == (query.head.0, query.relation.0);
            let Some(row) = heads.iter().zip(relations).position(is_asked) else { return Ok(()) };
            let schema = batch.schema();
            let strategies = schema.fields().iter().skip(OTHERS).map(|field| {
                let probability = numbers::<Float32Type>(batch, field.name())?.value(row);
                Ok((field.name().clone(), probability))
            });
            found = Some(strategies.collect::<Result<Vec<_>>>()?);
            Ok(())
        })?;
        if let Some(strategies) = &mut found {
            strategies.sort_by(|a: &(String, f32), b| b.1.total_cmp(&a.1));
        }
        Ok(found)
    }

    /// The cosine of an entity with every one.
    fn cosines(&self, entity: EntityId) -> Result<Vec<f32>> {
        let model = self.model()?;
        let of = |id: u32| model.embedding(EntityId(id));
        let (own, entities) = (of(entity.0), 0..self.data.entities() as u32);
        let cosine = |other: &[f32]| {
            let square = row::dot(own, own) * row::dot(other, other);
            if square > 0.0 { row::dot(own, other) / square.sqrt() } else { 0.0 }
        };
        Ok(entities.map(|id| cosine(of(id))).collect())
    }

    /// The training triples of the query's relation that resemble `(query, answer)` most.
    fn facts(&self, query: Query, answer: EntityId, near_head: &[f32]) -> Result<Vec<Fact>> {
        let (near_answer, relations) = (self.cosines(answer)?, self.data.relations());
        let (relation, inverted) = query.relation.base(relations);
        let queries = self.data.queries.queries().iter().enumerate();
        let mut facts = Vec::new();
        for (i, other) in queries.filter(|(_, other)| other.relation == query.relation) {
            for &tail in self.data.queries.tails(i) {
                let (asked, answered) = (near_head[other.head.index()], near_answer[tail.index()]);
                let is_same = other.head == query.head && tail == answer;
                if !is_same && asked > NEAR && answered > NEAR {
                    let [head, tail] = if inverted { [tail, other.head] } else { [other.head, tail] };
                    let triple = Triple { head, relation, tail };
                    facts.push(Fact { triple, asked, answer: answered });
                }
            }
        }
        facts.sort_by(|a, b| (b.asked * b.answer).total_cmp(&(a.asked * a.answer)));
        facts.truncate(FACTS);
        Ok(facts)
    }
}

impl Explanation {
    /// The explanation on lines below the table.
    pub(crate) fn render(&self, vocabulary: &Vocabulary, replies: &[Reply]) -> String {
        let mut text = match &self.policy {
            Some(strategies) => {
                let one = |(name, p): &(String, f32)| format!("{name} {:.0} %", 100.0 * p);
                let shown = strategies.iter().take(STRATEGIES).map(one).collect::<Vec<_>>().join(", ");
                format!("\n\npolicy: {shown} (of {} strategies)", strategies.len())
            }
            None => "\n\npolicy: none, or not asked this in training".to_owned(),
        };
        let answers =
            replies.iter().flat_map(|reply| reply.answers.iter().map(move |answer| (reply, answer)));
        for ((reply, answer), why) in answers.zip(&self.answers) {
            let Triple { head, tail, .. } = answer.triple;
            let [asked, id] = if reply.question.head.is_some() { [head, tail] } else { [tail, head] };
            let ranks = why.ranks.iter().map(|(name, rank, tied)| match tied {
                0 => format!("{name} {rank}"),
                tied => format!("{name} {rank} (tied with {tied})"),
            });
            let label = cell(vocabulary.entities[id.index()].label());
            let _ = write!(text, "\n{label}: ranks {}", ranks.collect::<Vec<_>>().join(", "));
            for fact in &why.facts {
                let _ = write!(
                    text,
                    "\n    {}",
                    fact.render(vocabulary, [asked, id], reply.question.head.is_some())
                );
            }
        }
        text
    }
}

impl Fact {
    /// `Germany · borders · Poland (Germany like France 0.61)`.
    fn render(&self, vocabulary: &Vocabulary, [asked, answer]: [EntityId; 2], forward: bool) -> String {
        let Triple { head, relation, tail } = self.triple;
        let label = |id: EntityId| cell(vocabulary.entities[id.index()].label());
        let [of_asked, of_answer] = if forward { [head, tail] } else { [tail, head] };
        let like = [(of_asked, asked, self.asked), (of_answer, answer, self.answer)];
        let like = like.into_iter().filter(|(other, own, _)| other != own);
        let like =
            like.map(|(other, own, cosine)| format!("{} like {} {cosine:.2}", label(other), label(own)));
        let relation = cell(vocabulary.relations[relation.index()].label());
        let like = like.collect::<Vec<_>>().join(", ");
        format!("{} · {relation} · {} ({like})", label(head), label(tail))
    }
}
