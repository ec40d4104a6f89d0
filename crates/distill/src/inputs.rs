//! The policy's inputs: what it sees of a query, by the recipe's `distill.selection.state`.
//!
//! With query vectors `q_m` and entity tables `E_m`, the paper's state is the teachers' scores `E_m q_m` (Eq. 5). A first
//! layer on them computes `W_m E_m q_m`; since `W_m E_m` can be any matrix where `E_m` has full column rank, a layer on
//! `q_m` itself is the same class of functions, at a cost that does not grow with the entities.

use dsom_soft_labels::SoftLabels;
use half::f16;
use half::slice::HalfFloatSliceExt;
use kge::Model;
use recipe::PolicyState;
use stage::Modality;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy::{Block, Dense, Factored, Input, Scored, Statistics, scale_to_one};

/// The widths of the inputs, for an estimate of memory.
pub(crate) fn widths(state: PolicyState, labels: &SoftLabels) -> Vec<usize> {
    let width = |teacher| match state {
        PolicyState::Scores => labels.entities(),
        PolicyState::Query => labels.vector(0, teacher).len(),
    };
    (0..labels.teachers().len()).map(width).collect()
}

/// The inputs for the training queries, numbered up to `queries`. `models` are the teachers whose scores may be cheaper to
/// factor than to read.
pub(crate) fn inputs<'a>(
    state: PolicyState,
    queries: usize,
    labels: &'a SoftLabels,
    models: Vec<Option<Model<f32>>>,
) -> Vec<Input<'a, f32>> {
    let block = |teacher, model| match state {
        PolicyState::Scores => scores(labels, queries, teacher, model),
        PolicyState::Query => vectors(labels, teacher),
    };
    let teachers = labels.teachers().iter().zip(models).enumerate();
    let input = |(teacher, (modality, model)): (usize, (&Modality, _))| Input {
        name: modality.to_string(),
        block: block(teacher, model),
    };
    teachers.map(input).collect()
}

/// A teacher's scores of all entities (Eq. 5), with mean 0 and variance 1.
fn scores(
    labels: &SoftLabels,
    queries: usize,
    teacher: usize,
    model: Option<Model<f32>>,
) -> Box<dyn Block<f32> + '_> {
    let scores = TeacherScores { labels, teacher, standards: Standards::new(queries) };
    match model {
        // The factors say the same as the scores only if these are all there.
        Some(model) if labels.is_whole() => Box::new(Factored::new(model.entity, scores)),
        _ => {
            let fill = move |query: usize, into: &mut [f32]| scores.scores(query, into);
            Box::new(Dense::new(labels.entities(), fill))
        }
    }
}

/// A teacher's soft labels.
struct TeacherScores<'a> {
    labels: &'a SoftLabels,
    teacher: usize,
    standards: Standards,
}

impl TeacherScores<'_> {
    fn read(&self, query: usize, into: &mut [f32]) {
        // To a linear layer the mean says most of what a lossy cache leaves out.
        self.labels.fill(query, self.teacher, f64::INFINITY, into);
    }
}

impl Scored<f32> for TeacherScores<'_> {
    fn scores(&self, query: usize, into: &mut [f32]) {
        self.read(query, into);
        self.standards.get(query, || Statistics::of(into)).apply(into);
    }

    fn vector(&self, query: usize, into: &mut [f32]) {
        self.labels.vector(query, self.teacher).convert_to_f32_slice(into);
    }

    fn statistics(&self, query: usize) -> Statistics<f32> {
        self.standards.get(query, || {
            let mut scores = vec![0.0; self.labels.entities()];
            self.read(query, &mut scores);
            Statistics::of(&scores)
        })
    }
}

/// A teacher's query vector, with mean square 1.
fn vectors(labels: &SoftLabels, teacher: usize) -> Box<dyn Block<f32> + '_> {
    let width = labels.vector(0, teacher).len();
    let fill = move |query: usize, into: &mut [f32]| {
        let vector: &[f16] = labels.vector(query, teacher);
        vector.convert_to_f32_slice(into);
        scale_to_one(into);
    };
    Box::new(Dense::new(width, fill))
}

/// Mean and rate that standardise each query's scores, computed when first asked for: teachers do not change.
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
    use kge::{Matrix, row};

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
        let queries = [2, 0, 1];
        let of = |models| inputs(PolicyState::Scores, 3, &labels, models);
        let (read, factored) = (of(vec![None, None]), of(models.into_iter().map(Some).collect()));
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
        let inputs = inputs(PolicyState::Query, 3, &labels, vec![None, None]);
        for (teacher, mut input) in inputs.into_iter().enumerate() {
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
    fn widths_are_those_of_the_inputs() {
        let (_, _, labels) = labels();
        for state in [PolicyState::Scores, PolicyState::Query] {
            let inputs = inputs(state, 3, &labels, vec![None, None]);
            let found: Vec<usize> = inputs.iter().map(|input| input.block.width()).collect();
            assert_eq!(found, widths(state, &labels));
        }
    }
}
