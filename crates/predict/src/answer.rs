//! The best candidates of many questions, and the ranks of triples.

use dsom_evaluate::models::ModelName;
use dsom_features::unseen::Unseen;
use dsom_teachers::unseen::place;
use kge::rank::{BLOCK, rank_in_row, require_finite};
use kge::{Matrix, Model, Scorer, TieRule, row};
use mkg::{EntityId, Query, RelationId, Triple};
use rayon::prelude::*;
use stage::{Error, Result};

use crate::Session;
use crate::question::Question;
use crate::why::Explanation;

/// The largest number of scores in memory at once.
const SCORES: usize = 1 << 25;

pub(crate) struct Listing {
    pub(crate) top: usize,
    /// True if answers that train or valid already have are listed too.
    pub(crate) include_known: bool,
    /// True if an entity may answer a question about itself even where the relation has no such fact in train.
    pub(crate) loops: bool,
    /// The only entities that may answer, in ascending order; all if none.
    pub(crate) candidates: Option<Vec<EntityId>>,
    /// True if only those entities may answer that stand in this place of the relation in train.
    pub(crate) range: bool,
}

pub(crate) struct Answer {
    /// The question's triple with the answer filled in.
    pub(crate) triple: Triple,
    /// The position in the list, from 1. For a given triple: the filtered rank of its tail, ties realistic.
    pub(crate) rank: f64,
    pub(crate) score: f32,
    /// The softmax over the scores of all candidates for this place, listed or not.
    pub(crate) probability: f64,
    /// True if train or valid has the triple.
    pub(crate) known: bool,
}

pub(crate) struct Reply {
    pub(crate) question: Question,
    /// The answers, best first.
    pub(crate) answers: Vec<Answer>,
    /// The number of answers in train and valid that are not listed.
    pub(crate) known: usize,
    /// True if the list leaves out the entity asked about.
    pub(crate) itself: bool,
    /// The evidence for the answers, if requested.
    pub(crate) explanation: Option<Explanation>,
}

/// The scores of all candidates for a place, and their softmax.
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

    fn of(&self, id: u32) -> f32 {
        self.scores[id as usize]
    }

    /// The `top` best candidates, best first; equal scores in the order of ids.
    fn best(&self, mut ids: Vec<u32>, top: usize) -> Vec<u32> {
        let order = |a: &u32, b: &u32| self.of(*b).total_cmp(&self.of(*a)).then(a.cmp(b));
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
    /// Answers questions and ranks the tails of whole triples.
    pub(crate) fn answer(&self, questions: &[Question], listing: &Listing) -> Result<Vec<Reply>> {
        self.answer_by(&self.models.scorer(0), questions, listing)
    }

    /// Answers questions about an entity that the graph does not have. In the questions, its id is the number of
    /// entities. A teacher of texts or images places it by its feature alone. `encoder` is the checkpoint that made the
    /// teacher's features, if their record does not name it.
    pub(crate) fn answer_unseen(
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

    fn answer_by(&self, by: &dyn Scorer, questions: &[Question], listing: &Listing) -> Result<Vec<Reply>> {
        let relations = self.data.relations();
        if (listing.range || listing.candidates.is_some()) && questions.iter().any(|q| q.relation.is_none()) {
            return Err(Error::usage("candidates are entities, but a question asks for a relation"));
        }
        let ranges = listing.range.then(|| self.ranges());
        let at_once = (SCORES / self.data.entities().max(1)).clamp(1, BLOCK);
        let (mut replies, mut scores) = (Vec::with_capacity(questions.len()), Matrix::zeros(0, 0));
        for block in questions.chunks(at_once) {
            let mut queries: Vec<Query> = block.iter().filter_map(|q| q.query(relations)).collect();
            // A product of one row sums in another order: two rows give one question the digits of many.
            if let [only] = *queries {
                queries.push(only);
            }
            by.scores(&queries, &mut scores);
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

    /// The tails in train of each relation and inverse, ascending.
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
        let known = self.data.known.of(query);
        if let Question { head: Some(_), tail: Some(tail), .. } = question {
            let rank = rank_in_row(scores, tail.index(), known.iter().map(|id| id.index()));
            let mut reply = self.reply(question, &Scores::new(scores), vec![tail.0], 0);
            reply.answers[0].rank = rank.by(TieRule::Realistic);
            return Ok(reply);
        }
        let is_known = |id: u32| known.binary_search(&EntityId(id)).is_ok();
        let relation = query.relation.base(self.data.relations()).0;
        let no_loop = !listing.loops && !self.loops[relation.index()];
        let mut ids: Vec<u32> = match pool {
            Some(pool) => pool.iter().map(|id| id.0).collect(),
            None => (0..).take(scores.len()).collect(),
        };
        let before = ids.len();
        ids.retain(|id| listing.include_known || !is_known(*id));
        let known = before - ids.len();
        let scores = Scores::new(scores);
        // One more than the list needs, in case the entity itself is among them.
        let mut best = scores.best(ids, listing.top.saturating_add(1));
        let itself = best.iter().position(|id| no_loop && *id == query.head.0 && !is_known(*id));
        itself.map(|position| best.remove(position));
        best.truncate(listing.top);
        let itself = itself.is_some_and(|position| position < listing.top);
        Ok(Reply { itself, ..self.reply(question, &scores, best, known) })
    }

    fn relations_of(&self, question: Question, listing: &Listing) -> Result<Reply> {
        let Question { head: Some(head), tail: Some(tail), .. } = question else {
            return Err(Error::usage("two entities are needed to ask for their relation"));
        };
        let queries = (0..).map(|id| Query { head, relation: RelationId(id) });
        let queries: Vec<Query> = queries.take(self.data.relations()).collect();
        let of_tail = self.models.scorer(0).scores_of(&queries, tail);
        require_finite(row::all_finite(&of_tail), queries[0])?;
        let all = queries.iter().map(|query| query.relation.0);
        let ids = all.filter(|id| listing.include_known || !self.is_known(question.filled(*id)));
        let ids: Vec<u32> = ids.collect();
        let known = queries.len() - ids.len();
        let scores = Scores::new(&of_tail);
        Ok(self.reply(question, &scores, scores.best(ids, listing.top), known))
    }

    fn reply(&self, question: Question, scores: &Scores, best: Vec<u32>, known: usize) -> Reply {
        let answers = (1u32..).zip(best).map(|(rank, id)| Answer {
            triple: question.filled(id),
            rank: rank.into(),
            score: scores.of(id),
            probability: f64::from(scores.of(id) - scores.largest).exp() / scores.total,
            known: self.is_known(question.filled(id)),
        });
        Reply { question, answers: answers.collect(), known, itself: false, explanation: None }
    }

    /// Returns whether train or valid has a triple.
    fn is_known(&self, triple: Triple) -> bool {
        self.data.known.of(triple.tail_query()).binary_search(&triple.tail).is_ok()
    }
}

/// A scorer of a model's entities for an entity that the model does not have.
struct Placed<'a> {
    /// The model with only that entity.
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
        into.product(false, vectors.view(), self.model.entity.transposed());
    }
}
