//! The policy's inputs: what it sees of a query, by the recipe's `policy_state`.
//!
//! With query vectors `q_m` and entity tables `E_m`, the paper's state is the teachers' scores `E_m q_m` (Eq. 5). A first
//! layer on them computes `W_m E_m q_m`; since `W_m E_m` can be any matrix where `E_m` has full column rank, a layer on
//! `q_m` itself is the same class of functions, at a cost that does not grow with the entities.

use dsom_soft_labels::SoftLabels;
use half::f16;
use half::slice::HalfFloatSliceExt;
use kge::{Model, row};
use mkg::{Query, QuerySet};
use recipe::{Distill, PolicyState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy::{Block, Dense, Factored, Input, Statistics};
use crate::summary::Summary;

/// Queries that the policy is asked about, and what the teachers say of each.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) queries: &'a [Query],
    pub(crate) labels: &'a SoftLabels,
}

/// What a policy may know of the graph.
#[derive(Clone)]
pub(crate) struct Facts {
    /// Number of relations, with inverses.
    relations: usize,
    /// In how many training triples each entity stands.
    degrees: Arc<[u32]>,
}

impl Facts {
    /// Of a graph of so many entities and `relations`, with inverses, whose training queries are `train`.
    pub(crate) fn new(train: &QuerySet, entities: usize, relations: usize) -> Facts {
        let mut degrees = vec![0; entities];
        for query in 0..train.len() {
            degrees[train.query(query).head.index()] += train.tails(query).len() as u32;
        }
        Facts { relations, degrees: degrees.into() }
    }
}

/// The widths of the inputs in a graph of so many `relations`, with inverses, for an estimate of memory.
pub(crate) fn widths(recipe: &Distill, relations: usize, labels: &SoftLabels) -> Vec<usize> {
    let teachers = labels.teachers().len();
    match recipe.policy_state {
        PolicyState::Scores => vec![labels.entities(); teachers],
        PolicyState::Query => (0..teachers).map(|teacher| labels.vector(0, teacher).len()).collect(),
        PolicyState::Summary => vec![Summary::width(teachers), relations],
        PolicyState::Relation => vec![relations, DEGREES, teachers],
    }
}

/// The inputs for the queries `asked` about. `models` are the teachers whose scores may be cheaper to factor than to
/// read.
pub(crate) fn inputs<'a>(
    recipe: &Distill,
    facts: &Facts,
    asked: Asked<'a>,
    models: Vec<Option<Model<f32>>>,
) -> Vec<Input<'a, f32>> {
    let standardise = recipe.standardise;
    let Asked { queries, labels } = asked;
    let teachers = labels.teachers().iter().enumerate();
    match recipe.policy_state {
        PolicyState::Scores => teachers
            .zip(models)
            .map(|((teacher, modality), model)| Input {
                name: modality.to_string(),
                block: scores(asked, teacher, standardise, model),
            })
            .collect(),
        PolicyState::Query => teachers
            .map(|(teacher, modality)| Input {
                name: modality.to_string(),
                block: vectors(labels, teacher, standardise),
            })
            .collect(),
        PolicyState::Summary => {
            let summary = Summary::of(labels, queries.len());
            let width = Summary::width(labels.teachers().len());
            let numbers = move |query: usize, into: &mut [f32]| into.copy_from_slice(summary.row(query));
            vec![
                Input { name: "summary".to_owned(), block: Box::new(Dense::new(width, numbers)) },
                relation(facts, queries),
            ]
        }
        PolicyState::Relation => vec![relation(facts, queries), degree(facts, queries), presence(labels)],
    }
}

/// Which relation a query asks for.
fn relation<'a>(facts: &Facts, queries: &'a [Query]) -> Input<'a, f32> {
    let which = |query: usize| queries[query].relation.index();
    Input { name: "relation".to_owned(), block: one_of(facts.relations, which) }
}

/// Classes of degrees: 0, 1, 2 to 3, 4 to 7, and so on.
const DEGREES: usize = 10;

/// In how many training triples a query's head stands, as a class: how much structure there is to learn from.
fn degree<'a>(facts: &Facts, queries: &'a [Query]) -> Input<'a, f32> {
    let degrees = facts.degrees.clone();
    let class = move |query: usize| {
        let degree = degrees[queries[query].head.index()];
        ((u32::BITS - degree.leading_zeros()) as usize).min(DEGREES - 1)
    };
    Input { name: "degree".to_owned(), block: one_of(DEGREES, class) }
}

/// For which teachers the head has something: a modality that it lacks leaves no query vector.
fn presence(labels: &SoftLabels) -> Input<'_, f32> {
    let fill = |query: usize, into: &mut [f32]| {
        for (teacher, into) in into.iter_mut().enumerate() {
            *into = f32::from(labels.vector(query, teacher).iter().any(|x| *x != f16::ZERO));
        }
    };
    Input { name: "presence".to_owned(), block: Box::new(Dense::new(labels.teachers().len(), fill)) }
}

/// Zeros, and a one at the place that `which` says.
fn one_of<'a>(width: usize, which: impl Fn(usize) -> usize + Send + Sync + 'a) -> Box<dyn Block<f32> + 'a> {
    let fill = move |query: usize, into: &mut [f32]| {
        into.fill(0.0);
        into[which(query)] = 1.0;
    };
    Box::new(Dense::new(width, fill))
}

/// A teacher's scores of all entities.
fn scores(
    Asked { queries, labels }: Asked<'_>,
    teacher: usize,
    standardise: bool,
    model: Option<Model<f32>>,
) -> Box<dyn Block<f32> + '_> {
    let entities = labels.entities();
    let known = Arc::new(Standards::new(queries.len()));
    // To a linear layer the mean says most of what a lossy cache leaves out.
    let read = move |query: usize, into: &mut [f32]| labels.fill(query, teacher, f64::INFINITY, into);
    let statistics = move |query: usize, scores: &[f32]| match standardise {
        true => known.get(query, || Statistics::of(scores)),
        false => Statistics::NONE,
    };
    let of_scores = statistics.clone();
    let fill = move |query: usize, into: &mut [f32]| {
        read(query, into);
        of_scores(query, into).apply(into);
    };
    match model {
        // The factors say the same as the scores only if these are all there.
        Some(model) if labels.is_whole() => {
            let vector = move |query: usize, into: &mut [f32]| {
                labels.vector(query, teacher).convert_to_f32_slice(into);
            };
            let of_query = move |query: usize| {
                let mut scores = vec![0.0; entities];
                read(query, &mut scores);
                statistics(query, &scores)
            };
            Box::new(Factored::new(model.entity, fill, vector, of_query))
        }
        _ => Box::new(Dense::new(entities, fill)),
    }
}

/// A teacher's query vector.
fn vectors(labels: &SoftLabels, teacher: usize, standardise: bool) -> Box<dyn Block<f32> + '_> {
    let width = labels.vector(0, teacher).len();
    let fill = move |query: usize, into: &mut [f32]| {
        let vector: &[f16] = labels.vector(query, teacher);
        vector.convert_to_f32_slice(into);
        if standardise {
            let square = row::sum_squares(into, 0.0) / into.len() as f32;
            // A head without this modality has no vector, and keeps none.
            row::scale(into, if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 });
        }
    };
    Box::new(Dense::new(width, fill))
}

/// How each query's scores are standardised, computed when first asked for: teachers do not change.
struct Standards {
    /// Mean and rate as bits of f32; all ones where not computed yet. Every thread would compute the same value.
    values: Vec<AtomicU64>,
}

impl Standards {
    fn new(queries: usize) -> Self {
        Standards { values: std::iter::repeat_with(|| AtomicU64::new(u64::MAX)).take(queries).collect() }
    }

    fn get(&self, query: usize, compute: impl FnOnce() -> Statistics<f32>) -> Statistics<f32> {
        let bits = self.values[query].load(Ordering::Relaxed);
        if bits != u64::MAX {
            return Statistics {
                mean: f32::from_bits(bits as u32),
                rate: f32::from_bits((bits >> 32) as u32),
            };
        }
        let found = compute();
        let bits = u64::from(found.mean.to_bits()) | u64::from(found.rate.to_bits()) << 32;
        self.values[query].store(bits, Ordering::Relaxed);
        found
    }
}

#[cfg(test)]
mod tests {
    use kge::Matrix;
    use mkg::{EntityId, RelationId};

    use super::*;

    const ENTITIES: usize = 7;

    /// Two teachers of rank 1 and 2; the second knows nothing of query 1.
    fn labels() -> (Vec<Model<f32>>, Vec<Matrix<f32>>, SoftLabels) {
        let wave = |rows: usize, columns: usize, of: usize| {
            let values = (0..rows * columns).map(|i| ((i * 31 + of * 17) % 64) as f32 / 32.0 - 1.0);
            Matrix::from_values(rows, columns, values.collect())
        };
        let model = |width: usize, of| Model::complex(wave(ENTITIES, width, of), Matrix::zeros(2, width));
        let models = vec![model(2, 1), model(4, 2)];
        let mut vectors = vec![wave(3, 2, 3), wave(3, 4, 4)];
        vectors[1].row_mut(1).fill(0.0);
        let mut rows = Vec::new();
        for query in 0..3 {
            for (model, vectors) in models.iter().zip(&vectors) {
                for entity in 0..ENTITIES {
                    rows.push(f16::from_f32(row::dot(vectors.row(query), model.entity.row(entity))));
                }
            }
        }
        let names = ["structural", "textual"].map(|name| name.parse().expect("a modality"));
        let labels = SoftLabels::from_rows(names.to_vec(), ENTITIES, rows).with_vectors(&vectors);
        (models, vectors, labels)
    }

    fn queries() -> QuerySet {
        let pair = |head: u32| (Query { head: EntityId(head), relation: RelationId(0) }, EntityId(0));
        QuerySet::from_pairs((0..3).map(pair).collect())
    }

    fn facts(train: &QuerySet) -> Facts {
        Facts::new(train, ENTITIES, 2)
    }

    /// The first layer's output for all queries, with the identity as weights: the state itself.
    fn state(input: &mut Input<'_, f32>, queries: &[u32]) -> Matrix<f32> {
        let width = input.block.width();
        let identity = (0..width * width).map(|i| f32::from(u8::from(i % (width + 1) == 0)));
        let mut hidden = Matrix::zeros(queries.len(), width);
        input.block.forward(queries, &Matrix::from_values(width, width, identity.collect()), &mut hidden);
        hidden
    }

    #[test]
    fn scores_are_standardised_whichever_way_they_are_had() {
        let (models, _, labels) = labels();
        let (train, recipe) =
            (queries(), Distill { policy_state: PolicyState::Scores, ..Distill::default() });
        let queries = [2, 0, 1];
        let asked = Asked { queries: train.queries(), labels: &labels };
        let read = inputs(&recipe, &facts(&train), asked, vec![None, None]);
        let factored = inputs(&recipe, &facts(&train), asked, models.into_iter().map(Some).collect());
        for (teacher, (mut read, mut factored)) in read.into_iter().zip(factored).enumerate() {
            // The first teacher's two columns are fewer than three queries, the second's four are not.
            let (read, factored) = (state(&mut read, &queries), state(&mut factored, &queries));
            for (row, &query) in queries.iter().enumerate() {
                let knows = (teacher, query) != (1, 1);
                let squares = row::dot(read.row(row), read.row(row)) / ENTITIES as f32;
                assert!((squares - f32::from(u8::from(knows))).abs() < 1e-5, "{teacher} {query}: {squares}");
                assert!(row::sum(read.row(row)).abs() < 1e-4);
                let differences = read.row(row).iter().zip(factored.row(row)).map(|(a, b)| (a - b).abs());
                // The cache has 11 bits of each score.
                assert!(differences.fold(0.0, f32::max) < 5e-3);
            }
        }
    }

    #[test]
    fn query_vectors_have_mean_square_one_or_are_zero() {
        let (_, vectors, labels) = labels();
        let (train, recipe) = (queries(), Distill::default());
        let asked = Asked { queries: train.queries(), labels: &labels };
        for (teacher, mut input) in
            inputs(&recipe, &facts(&train), asked, vec![None, None]).into_iter().enumerate()
        {
            let found = state(&mut input, &[0, 1, 2]);
            for query in 0..3 {
                let square = row::sum_squares(vectors[teacher].row(query), 0.0) / found.columns() as f32;
                for (x, vector) in found.row(query).iter().zip(vectors[teacher].row(query)) {
                    let expected = if square > 0.0 { vector / square.sqrt() } else { 0.0 };
                    assert!((x - expected).abs() < 2e-3, "{x} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_relation_state_knows_the_head_but_no_score() {
        let (_, _, labels) = labels();
        let (train, recipe) =
            (queries(), Distill { policy_state: PolicyState::Relation, ..Distill::default() });
        let asked = Asked { queries: train.queries(), labels: &labels };
        let [relation, degree, presence] = inputs(&recipe, &facts(&train), asked, vec![None, None])
            .into_iter()
            .map(|mut input| state(&mut input, &[0, 1]))
            .collect::<Vec<_>>()
            .try_into()
            .expect("three inputs");
        assert_eq!(relation.values(), [1.0, 0.0, 1.0, 0.0]);
        // Every head stands in one triple.
        assert_eq!((degree.row(0)[1], row::sum(degree.row(0))), (1.0, 1.0));
        // The second teacher knows nothing of query 1.
        assert_eq!(presence.values(), [1.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn widths_are_those_of_the_inputs() {
        let (_, _, labels) = labels();
        let train = queries();
        let asked = Asked { queries: train.queries(), labels: &labels };
        for state in [PolicyState::Scores, PolicyState::Query, PolicyState::Relation] {
            let recipe = Distill { policy_state: state, ..Distill::default() };
            let inputs = inputs(&recipe, &facts(&train), asked, vec![None, None]);
            let found: Vec<usize> = inputs.iter().map(|input| input.block.width()).collect();
            assert_eq!(found, widths(&recipe, 2, &labels));
        }
    }
}
