//! The best candidates of many questions, and the ranks of triples.

use kge::rank::{BLOCK, rank_in_row, require_finite};
use kge::{Matrix, Scorer, TieRule, row};
use mkg::{EntityId, Query, RelationId, Triple};
use rayon::prelude::*;
use stage::{Error, Result};

use crate::Session;
use crate::question::Question;

/// The most scores that are held at once.
const SCORES: usize = 1 << 25;

/// Answers that are listed.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Number of answers to a question.
    pub top: usize,
    /// True if answers that train or valid already have are listed too.
    pub include_known: bool,
    /// True if an entity may answer a question about itself even where the relation has no such fact in train.
    pub loops: bool,
    /// The only entities that may answer, ascending.
    pub candidates: Option<Vec<EntityId>>,
    /// True if only entities may answer that the relation has had there in train.
    pub range: bool,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// The question with its place filled.
    pub triple: Triple,
    /// Position in the list, from 1. Of a given triple: the filtered rank of its tail, ties realistic.
    pub rank: f64,
    /// The model's score.
    pub score: f32,
    /// Softmax of the scores of everything that could stand in this place, listed or not.
    pub probability: f64,
    /// True if train or valid has the triple.
    pub known: bool,
}

/// A question with its answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The question.
    pub question: Question,
    /// The best first.
    pub answers: Vec<Answer>,
    /// Number of answers of train and valid that are not listed.
    pub known: usize,
    /// True if the entity asked about would be in the list.
    pub itself: bool,
}

/// Scores of what could stand in a place, and their softmax.
struct Scores<'a> {
    scores: &'a [f32],
    largest: f32,
    total: f64,
}

impl<'a> Scores<'a> {
    fn new(scores: &'a [f32]) -> Self {
        let largest = row::max(scores);
        Scores { scores, largest, total: f64::from(row::sum_exp(scores, largest, 1.0)) }
    }

    fn probability(&self, id: usize) -> f64 {
        f64::from(self.scores[id] - self.largest).exp() / self.total
    }

    /// The `top` best of the candidates, the best first; equal scores by id.
    fn best(&self, mut ids: Vec<u32>, top: usize) -> Vec<u32> {
        let score = |id: &u32| self.scores[*id as usize];
        let order = |a: &u32, b: &u32| score(b).total_cmp(&score(a)).then(a.cmp(b));
        if ids.len() > top {
            ids.select_nth_unstable_by(top, order);
            ids.truncate(top);
        }
        ids.sort_unstable_by(order);
        ids
    }
}

impl Question {
    /// The triple with `id` in the place that is asked for.
    fn filled(self, id: u32) -> Triple {
        let entity = EntityId(id);
        Triple {
            head: self.head.unwrap_or(entity),
            relation: self.relation.unwrap_or(RelationId(id)),
            tail: self.tail.unwrap_or(entity),
        }
    }
}

impl Session<'_> {
    /// Answers questions, and ranks the tails of whole triples, so many at a time as one product serves.
    ///
    /// # Errors
    /// If scores are not finite, or `listing` restricts entities where a relation is asked for.
    pub fn answer(&self, questions: &[Question], listing: &Listing) -> Result<Vec<Reply>> {
        self.answer_by(&self.models.scorer(0), questions, listing)
    }

    /// The same by another scorer of the entities.
    pub(crate) fn answer_by(
        &self,
        scorer: &dyn Scorer,
        questions: &[Question],
        listing: &Listing,
    ) -> Result<Vec<Reply>> {
        let relations = self.data.relations();
        if (listing.range || listing.candidates.is_some()) && questions.iter().any(|q| q.relation.is_none()) {
            return Err(Error::usage("candidates are entities, but a question asks for a relation"));
        }
        let ranges = listing.range.then(|| self.ranges());
        let (mut replies, mut scores) = (Vec::with_capacity(questions.len()), Matrix::zeros(0, 0));
        for block in questions.chunks(self.at_once()) {
            let mut queries: Vec<Query> = block.iter().filter_map(|q| q.query(relations)).collect();
            // A product of one row sums in another order: with two, one question has the digits of many.
            if let [only] = *queries {
                queries.push(only);
            }
            scorer.scores(&queries, &mut scores);
            let mut rows = queries.iter().enumerate();
            let asked = block.iter().map(|q| (*q, q.query(relations).and_then(|_| rows.next())));
            let asked: Vec<(Question, Option<(usize, &Query)>)> = asked.collect();
            let answered = asked.par_iter().map(|(question, row)| match row {
                None => self.relations_of(*question, listing),
                Some((row, query)) => {
                    let pool = ranges.as_ref().map(|ranges| &ranges[query.relation.index()]);
                    let pool = pool.or(listing.candidates.as_ref()).map(Vec::as_slice);
                    self.entities_of(*question, **query, scores.row(*row), listing, pool)
                }
            });
            replies.extend(answered.collect::<Result<Vec<Reply>>>()?);
        }
        Ok(replies)
    }

    /// Queries that are scored at a time.
    fn at_once(&self) -> usize {
        (SCORES / self.data.entities().max(1)).clamp(1, BLOCK)
    }

    /// The tails that train has of each relation and inverse, ascending.
    fn ranges(&self) -> Vec<Vec<EntityId>> {
        let relations = self.data.relations();
        let mut ranges = vec![Vec::new(); 2 * relations];
        for query in self.data.queries.queries() {
            ranges[query.relation.inverse(relations).index()].push(query.head);
        }
        ranges
    }

    fn entities_of(
        &self,
        question: Question,
        query: Query,
        scores: &[f32],
        listing: &Listing,
        pool: Option<&[EntityId]>,
    ) -> Result<Reply> {
        require_finite(row::all_finite(scores), query)?;
        if let Question { head: Some(_), tail: Some(tail), .. } = question {
            return Ok(self.judged(question, query, scores, tail));
        }
        let known = self.data.known.of(query);
        let relation = query.relation.base(self.data.relations()).0;
        let no_loop = !listing.loops && !self.trained.loops[relation.index()];
        let is_known = |id: u32| known.binary_search(&EntityId(id)).is_ok();
        let is_itself = |id: u32| no_loop && id == query.head.0 && !is_known(id);
        let mut ids = match pool {
            Some(pool) => pool.iter().map(|id| id.0).collect(),
            None => (0..scores.len() as u32).collect::<Vec<_>>(),
        };
        let before = ids.len();
        ids.retain(|id| listing.include_known || !is_known(*id));
        let known = before - ids.len();
        let scores = Scores::new(scores);
        // One more than is listed, for the case that one of them is the entity itself.
        let mut best = scores.best(ids, listing.top.saturating_add(1));
        let itself = best.iter().position(|id| is_itself(*id));
        itself.map(|position| best.remove(position));
        best.truncate(listing.top);
        let answers = answers(question, &scores, best, is_known);
        Ok(Reply { question, answers, known, itself: itself.is_some_and(|position| position < listing.top) })
    }

    fn judged(&self, question: Question, query: Query, scores: &[f32], tail: EntityId) -> Reply {
        let known = self.data.known.of(query);
        let rank = rank_in_row(scores, tail.index(), known.iter().map(|id| id.index()));
        let is_known = |id: u32| known.binary_search(&EntityId(id)).is_ok();
        let mut answers = answers(question, &Scores::new(scores), vec![tail.0], is_known);
        answers[0].rank = rank.by(TieRule::Realistic);
        Reply { question, answers, known: 0, itself: false }
    }

    /// The relations that may lead from one entity to the other.
    fn relations_of(&self, question: Question, listing: &Listing) -> Result<Reply> {
        let Question { head: Some(head), tail: Some(tail), .. } = question else {
            return Err(Error::usage("two entities are needed to ask for their relation"));
        };
        let queries = (0..self.data.relations() as u32).map(|id| Query { head, relation: RelationId(id) });
        let queries: Vec<Query> = queries.collect();
        let of_tail = self.models.scorer(0).scores_of(&queries, tail);
        require_finite(row::all_finite(&of_tail), queries[0])?;
        let is_known = |id: u32| self.data.known.of(queries[id as usize]).binary_search(&tail).is_ok();
        let all = 0..queries.len() as u32;
        let ids: Vec<u32> = all.filter(|id| listing.include_known || !is_known(*id)).collect();
        let known = queries.len() - ids.len();
        let scores = Scores::new(&of_tail);
        let best = scores.best(ids, listing.top);
        Ok(Reply { question, answers: answers(question, &scores, best, is_known), known, itself: false })
    }
}

fn answers(
    question: Question,
    scores: &Scores,
    best: Vec<u32>,
    is_known: impl Fn(u32) -> bool,
) -> Vec<Answer> {
    let answer = |(i, id): (usize, u32)| Answer {
        triple: question.filled(id),
        rank: (i + 1) as f64,
        score: scores.scores[id as usize],
        probability: scores.probability(id as usize),
        known: is_known(id),
    };
    best.into_iter().enumerate().map(answer).collect()
}
