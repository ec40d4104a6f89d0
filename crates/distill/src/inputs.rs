//! The policy's inputs: its view of a query, according to `distill.selection.state` in the recipe.
//!
//! With query vectors `q_m` and entity tables `E_m`, the paper's state is the teachers' scores `E_m q_m` (Eq. 5). A
//! first layer on the scores computes `W_m E_m q_m`. `W_m E_m` can be any matrix if `E_m` has full column rank. So a
//! layer on `q_m` itself is the same class of functions, and its cost does not grow with the entities.

use dsom_soft_labels::SoftLabels;
use half::slice::HalfFloatSliceExt;
use kge::{Matrix, Model, ProductPrecision, row};
use recipe::PolicyState;
use std::ops::Range;
use std::sync::OnceLock;

use crate::policy::{Dense, Input, fill_rows, scale_to_one, sum_rows};

/// The widths of the inputs, for an estimate of memory.
pub(crate) fn widths(state: PolicyState, labels: &SoftLabels) -> Vec<usize> {
    let teachers = 0..labels.teachers().len();
    match state {
        PolicyState::Scores => teachers.map(|_| labels.entities()).collect(),
        PolicyState::Query => teachers.map(|teacher| labels.vector(0, teacher).len()).collect(),
    }
}

/// The inputs for `queries` training queries, at most `batch` of them in a batch. `models` are the models of all
/// teachers, whose factors may be cheaper than reading scores, or empty.
pub(crate) fn inputs<'a>(
    state: PolicyState,
    queries: usize,
    batch: usize,
    labels: &'a SoftLabels,
    models: Vec<Model<f32>>,
) -> Vec<Box<dyn Input<f32> + 'a>> {
    let mut models = models.into_iter();
    let input = |teacher: usize| -> Box<dyn Input<f32> + 'a> {
        // Factors equal the scores only if the cache has all scores, and are cheaper only if they are narrow.
        let factors = models.next().filter(|model| labels.is_whole() && model.width() < batch);
        match (state, factors) {
            (PolicyState::Query, _) => {
                let width = labels.vector(0, teacher).len();
                Box::new(Dense::new(width, move |query: usize, into: &mut [f32]| {
                    labels.vector(query, teacher).convert_to_f32_slice(into);
                    scale_to_one(into);
                }))
            }
            (PolicyState::Scores, Some(model)) => {
                Box::new(Factored::new(model.entity, TeacherScores::new(labels, teacher, queries)))
            }
            (PolicyState::Scores, None) => {
                let scores = TeacherScores::new(labels, teacher, queries);
                Box::new(Dense::new(labels.entities(), move |query: usize, into: &mut [f32]| {
                    scores.fill(query, into)
                }))
            }
        }
    };
    (0..labels.teachers().len()).map(input).collect()
}

/// A teacher's scores of all entities (Eq. 5), standardised to mean 0 and variance 1.
struct TeacherScores<'a> {
    labels: &'a SoftLabels,
    teacher: usize,
    /// The mean of each query's scores, and one over their standard deviation, or 0 if all are equal. Computed on first
    /// use and kept: teachers do not change.
    standards: Vec<OnceLock<[f32; 2]>>,
}

impl TeacherScores<'_> {
    fn new(labels: &SoftLabels, teacher: usize, queries: usize) -> TeacherScores<'_> {
        TeacherScores { labels, teacher, standards: vec![OnceLock::new(); queries] }
    }

    /// Writes the scores `(entity)` of a query, and returns the mean and rate that standardise them.
    fn read(&self, query: usize, into: &mut [f32]) -> [f32; 2] {
        // For a linear layer, the mean replaces left-out scores of a lossy cache best.
        self.labels.fill(query, self.teacher, f64::INFINITY, into);
        *self.standards[query].get_or_init(|| {
            let count = into.len() as f32;
            let mean = row::sum(into) / count;
            let deviation = (row::sum_squares(into, mean) / count).sqrt();
            [mean, if deviation > 0.0 { 1.0 / deviation } else { 0.0 }]
        })
    }

    /// Writes the standardised scores of a query `(entity)`.
    fn fill(&self, query: usize, into: &mut [f32]) {
        let [mean, rate] = self.read(query, into);
        row::shift_and_scale(into, mean, rate);
    }

    /// The mean and the rate that standardise a query's scores.
    fn standard(&self, query: usize) -> [f32; 2] {
        let known = self.standards[query].get().copied();
        known.unwrap_or_else(|| self.read(query, &mut vec![0.0; self.labels.entities()]))
    }
}

/// A teacher's standardised scores `E q`, without forming them:
///
/// ```text
/// state = (E q - μ) / σ      state · W = (q · (Eᵀ W) - μ (1ᵀ W)) / σ
/// ∂W = stateᵀ U = E (Vᵀ U) - 1 (mᵀ U)      V = q / σ,  m = μ / σ, row by row
/// ```
///
/// The cost does not depend on the number of queries but on the width of `q`. So a product uses the factors only if the
/// width is less than the number of queries, and else reads the scores: the cheaper of two equal results.
struct Factored<'a> {
    /// Entity table `E (entity, 2k)`.
    entity: Matrix<f32>,
    scores: TeacherScores<'a>,
    /// The scores `(query, entity)`, if they are read.
    state: Matrix<f32>,
    /// `V (query, 2k)`.
    vectors: Matrix<f32>,
    /// The number `m` of each query.
    means: Vec<f32>,
    /// `Eᵀ W`, then `Vᵀ U` `(2k, hidden)`.
    folded: Matrix<f32>,
    /// `1ᵀ W`, then `mᵀ U` `(1, hidden)`.
    sums: Matrix<f32>,
    by_factors: bool,
}

impl<'a> Factored<'a> {
    fn new(entity: Matrix<f32>, scores: TeacherScores<'a>) -> Self {
        let [state, vectors, folded, sums] = Default::default();
        Factored { entity, scores, state, vectors, means: Vec::new(), folded, sums, by_factors: false }
    }

    /// Reads the factors or the scores of these queries for the products.
    fn read(&mut self, queries: &[usize]) {
        let Factored { entity, scores, .. } = self;
        self.by_factors = entity.columns() < queries.len();
        if !self.by_factors {
            return fill_rows(&mut self.state, entity.rows(), queries, |query, into| {
                scores.fill(query, into)
            });
        }
        fill_rows(&mut self.vectors, entity.columns(), queries, |query, into| {
            scores.labels.vector(query, scores.teacher).convert_to_f32_slice(into);
            row::scale(into, scores.standard(query)[1]);
        });
        self.means = queries.iter().map(|query| scores.standard(*query).into_iter().product()).collect();
    }
}

impl Input<f32> for Factored<'_> {
    fn width(&self) -> usize {
        self.entity.rows()
    }

    fn forward(&mut self, queries: &[usize], weights: &Matrix<f32>, hidden: &mut Matrix<f32>) {
        self.read(queries);
        if !self.by_factors {
            return hidden.product(true, self.state.view(), weights.view());
        }
        self.folded.resize(self.entity.columns(), weights.columns());
        self.folded.product(false, self.entity.transposed(), weights.view());
        sum_rows(weights, &mut self.sums);
        hidden.product(true, self.vectors.view(), self.folded.view());
        for (query, mean) in self.means.iter().enumerate() {
            row::add_scaled(hidden.row_mut(query), -mean, self.sums.row(0));
        }
    }

    fn backward(&mut self, queries: &[usize], upstream: &Matrix<f32>) {
        self.read(queries);
        if !self.by_factors {
            return;
        }
        self.folded.resize(self.entity.columns(), upstream.columns());
        self.folded.product(false, self.vectors.transposed(), upstream.view());
        self.sums.resize(1, upstream.columns());
        self.sums.clear();
        for (query, mean) in self.means.iter().enumerate() {
            row::add_scaled(self.sums.row_mut(0), *mean, upstream.row(query));
        }
    }

    fn gradient(&self, rows: Range<usize>, upstream: &Matrix<f32>, into: &mut Matrix<f32>) {
        if !self.by_factors {
            let state = self.state.view().columns(rows).transposed();
            return into.product_here(ProductPrecision::Full, state, upstream.view());
        }
        into.product_here(ProductPrecision::Full, self.entity.view().rows(rows), self.folded.view());
        for row in 0..into.rows() {
            row::add_scaled(into.row_mut(row), -1.0, self.sums.row(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::soft_labels;

    const ENTITIES: usize = 7;

    /// Numbers whose products are exact in half precision.
    fn wave(rows: usize, columns: usize, of: usize) -> Matrix<f32> {
        let values = (0..rows * columns).map(|i| ((i * 31 + of * 17) % 16) as f32 / 8.0 - 1.0);
        Matrix::from_values(rows, columns, values.collect())
    }

    /// Two teachers of rank 1 and 2; the second has only zeros for query 1.
    fn labels() -> (Vec<Model<f32>>, Vec<Matrix<f32>>, SoftLabels) {
        let models =
            [2, 4].map(|width| Model::complex(wave(ENTITIES, width, width), Matrix::zeros(2, width)));
        let mut vectors = vec![wave(3, 2, 3), wave(3, 4, 5)];
        vectors[1].row_mut(1).fill(0.0);
        let labels = soft_labels([3, 2, ENTITIES], |query, teacher, entity| {
            row::dot(vectors[teacher].row(query), models[teacher].entity.row(entity))
        });
        let labels = labels.with_vectors(&vectors);
        (models.into(), vectors, labels)
    }

    /// The first layer's output for all queries with the identity as weights, which is the state itself.
    fn state(input: &mut dyn Input<f32>, queries: &[usize]) -> Matrix<f32> {
        let width = input.width();
        let identity = (0..width * width).map(|i| f32::from(u8::from(i % (width + 1) == 0)));
        let mut hidden = Matrix::zeros(queries.len(), width);
        input.forward(queries, &Matrix::from_values(width, width, identity.collect()), &mut hidden);
        hidden
    }

    #[test]
    fn scores_are_standardised_whichever_way_they_are_had() {
        let (models, _, labels) = labels();
        let queries = [2, 0, 1];
        let [mut read, mut factored] =
            [Vec::new(), models].map(|models| inputs(PolicyState::Scores, 3, 9, &labels, models));
        // The first teacher has two columns, fewer than the three queries; the second has four.
        for (teacher, (read, factored)) in read.iter_mut().zip(&mut factored).enumerate() {
            assert_eq!(read.width(), widths(PolicyState::Scores, &labels)[teacher]);
            let found = [state(&mut **read, &queries), state(&mut **factored, &queries)];
            for (row, query) in queries.iter().enumerate() {
                let knows = f32::from(u8::from((teacher, *query) != (1, 1)));
                let scores = found[0].row(row);
                let squares = row::dot(scores, scores) / ENTITIES as f32;
                assert!((squares - knows).abs() < 1e-5, "{teacher} {query}: {squares}");
                assert!(row::sum(scores).abs() < 1e-4);
            }
            let upstream = wave(3, 5, 9);
            let gradients = [read, factored].map(|input| {
                let mut gradient = Matrix::zeros(4, 5);
                input.backward(&queries, &upstream);
                input.gradient(2..6, &upstream, &mut gradient);
                gradient
            });
            for [read, factored] in [found, gradients] {
                for (x, y) in read.values().iter().zip(factored.values()) {
                    assert!((x - y).abs() < 1e-5, "{teacher}: {x}, by factors {y}");
                }
            }
        }
    }

    #[test]
    fn query_vectors_have_mean_square_one_or_are_zero() {
        let (_, vectors, labels) = labels();
        let inputs = inputs(PolicyState::Query, 3, 9, &labels, Vec::new());
        let found = inputs.iter().map(|input| input.width());
        assert!(found.eq(widths(PolicyState::Query, &labels)));
        for (mut input, vectors) in inputs.into_iter().zip(vectors) {
            let found = state(&mut *input, &[0, 1, 2]);
            for query in 0..3 {
                let square = row::sum_squares(vectors.row(query), 0.0) / found.columns() as f32;
                for (x, vector) in found.row(query).iter().zip(vectors.row(query)) {
                    let expected = if square > 0.0 { vector / square.sqrt() } else { 0.0 };
                    assert!((x - expected).abs() < 1e-5, "{x} {expected}");
                }
            }
        }
    }
}
