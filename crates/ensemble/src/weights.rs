//! The weights of an ensemble's teachers, their file, and the weighted sum of scores.
//!
//! | tensor of [`FILE`] | shape | |
//! |---|---|---|
//! | `weight` | `(relation and inverse, teacher)` | the only tensor, unless a policy chooses |
//! | `first.<modality>`, `first_bias`, `second`, `second_bias` | as in a student's `policy.safetensors` | the policy |

use dsom_distill::policy::{Dense, Input, Policy, layer_names, scale_to_one};
use dsom_distill::{Strategy, strategies};
use kge::checkpoint::{NamedTensors, TensorReader};
use kge::{Matrix, Model, Scorer, row};
use mkg::{EntityId, Query};
use stage::task::Task;
use stage::{Error, Modality, Result};
use std::path::Path;

/// The file in an ensemble's folder.
pub const FILE: &str = "ensemble.safetensors";

const WEIGHT: &str = "weight";

/// The weights of the teachers for each query.
#[derive(Clone, Debug, PartialEq)]
pub enum TeacherWeights {
    /// The weights of the query's relation, `(relation and inverse, teacher)`.
    ByRelation(Matrix<f32>),
    /// Equal weights for the teachers of the strategy that a policy with these layers prefers for their query vectors.
    Policy(Vec<Matrix<f32>>),
}

/// Weights `(relation, teacher)` that always give the mean of one strategy's teachers.
pub(crate) fn always(strategy: Strategy, relations: usize, teachers: usize) -> Matrix<f32> {
    Matrix::from_values(relations, teachers, strategy.weights(teachers).repeat(relations))
}

fn shape(matrix: &Matrix<f32>) -> (usize, usize) {
    (matrix.rows(), matrix.columns())
}

impl TeacherWeights {
    /// Equal weights for all teachers: the mean of their scores.
    pub fn even(relations: usize, teachers: usize) -> TeacherWeights {
        TeacherWeights::ByRelation(always(Strategy::all(teachers), relations, teachers))
    }

    pub(crate) fn tensors(&self, teachers: &[Modality]) -> NamedTensors<'_> {
        match self {
            TeacherWeights::ByRelation(weights) => NamedTensors::default().matrix(WEIGHT, weights),
            TeacherWeights::Policy(layers) => {
                let named = layer_names(teachers).into_iter().zip(layers);
                named.fold(NamedTensors::default(), |tensors, (name, layer)| tensors.matrix(name, layer))
            }
        }
    }

    /// Reads the weights of the ensemble in `folder` and records them as an input of `task`. `models` are the models of
    /// its teachers: weights of other teachers or of another graph are an error.
    pub fn open(
        task: &mut Task,
        folder: &Path,
        teachers: &[Modality],
        models: &[&Model<f32>],
    ) -> Result<TeacherWeights> {
        let path = task.stage_input(folder, FILE)?;
        let reader = TensorReader::open(&path)?;
        let weights = if reader.has(WEIGHT) {
            TeacherWeights::ByRelation(reader.matrix(WEIGHT)?)
        } else {
            let names = layer_names(teachers);
            TeacherWeights::Policy(names.iter().map(|name| reader.matrix(name)).collect::<Result<_>>()?)
        };
        if weights.fits(models) {
            return Ok(weights);
        }
        let error = Error::data("the ensemble is of other teachers, or of another graph").at(path);
        Err(error.hint("rerun `dsom-ensemble`"))
    }

    fn fits(&self, models: &[&Model<f32>]) -> bool {
        match self {
            TeacherWeights::ByRelation(weights) => {
                let relations = models.first().map_or(0, |model| model.relation.rows());
                shape(weights) == (relations, models.len()) && weights.is_finite()
            }
            TeacherWeights::Policy(layers) => {
                let (first, others) = layers.split_at(models.len());
                let hidden = others[0].columns();
                let strategies = strategies(models.len());
                first.iter().zip(models).all(|(layer, model)| shape(layer) == (model.width(), hidden))
                    && others.iter().map(shape).eq([(1, hidden), (hidden, strategies), (1, strategies)])
                    && layers.iter().all(Matrix::is_finite)
            }
        }
    }

    /// The weights `(query, teacher)` of the teachers for these queries, whose query vectors are `vectors`.
    fn of(&self, queries: &[Query], vectors: &[Matrix<f32>]) -> Matrix<f32> {
        let mut weights = Matrix::zeros(queries.len(), vectors.len());
        match self {
            TeacherWeights::ByRelation(of_relations) => {
                for (i, query) in queries.iter().enumerate() {
                    weights.row_mut(i).copy_from_slice(of_relations.row(query.relation.index()));
                }
            }
            TeacherWeights::Policy(layers) => {
                let mut policy = Policy::of(inputs(vectors), layers.clone(), 0.0);
                policy.forward(&(0..queries.len()).collect::<Vec<_>>());
                for query in 0..queries.len() {
                    let (strategy, row) = (policy.favourite(query), weights.row_mut(query));
                    strategy.members().for_each(|teacher| row[teacher] = strategy.share());
                }
            }
        }
        weights
    }
}

/// The inputs of a policy: each teacher's query vectors `(query, width)`, scaled to mean square 1.
pub(crate) fn inputs(vectors: &[Matrix<f32>]) -> Vec<Box<dyn Input<f32> + '_>> {
    let inputs = vectors.iter().map(|vectors| {
        let input = Dense::new(vectors.columns(), |query: usize, into: &mut [f32]| {
            into.copy_from_slice(vectors.row(query));
            scale_to_one(into);
        });
        Box::new(input) as _
    });
    inputs.collect()
}

/// Teachers whose scores are weighed and summed.
pub struct WeightedTeachers<'a> {
    /// The weights.
    pub weights: &'a TeacherWeights,
    /// The teachers' models, in the order of the weights.
    pub models: Vec<&'a Model<f32>>,
}

impl WeightedTeachers<'_> {
    /// The score of one candidate for each query.
    pub fn scores_of(&self, queries: &[Query], candidate: EntityId) -> Vec<f32> {
        let mut scores = vec![0.0; queries.len()];
        for (model, vectors) in self.models.iter().zip(self.vectors(queries)) {
            for (query, score) in scores.iter_mut().enumerate() {
                *score += row::dot(vectors.row(query), model.entity.row(candidate.index()));
            }
        }
        scores
    }

    /// The weighted query vectors of each teacher: a score is their product with an entity, so this weighs the scores.
    fn vectors(&self, queries: &[Query]) -> Vec<Matrix<f32>> {
        let mut vectors = vec![Matrix::default(); self.models.len()];
        self.models.iter().zip(&mut vectors).for_each(|(model, vectors)| model.queries(queries, vectors));
        let weights = self.weights.of(queries, &vectors);
        for (teacher, vectors) in vectors.iter_mut().enumerate() {
            for query in 0..queries.len() {
                row::scale(vectors.row_mut(query), weights.row(query)[teacher]);
            }
        }
        vectors
    }
}

impl Scorer for WeightedTeachers<'_> {
    fn entities(&self) -> usize {
        self.models.first().map_or(0, |model| model.entity.rows())
    }

    fn scores(&self, queries: &[Query], into: &mut Matrix<f32>) {
        let vectors = self.vectors(queries);
        into.resize(queries.len(), self.entities());
        for (teacher, (model, vectors)) in self.models.iter().zip(vectors).enumerate() {
            into.product(teacher > 0, vectors.view(), model.entity.transposed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mkg::RelationId;
    use stage::seed;

    fn wave(rows: usize, columns: usize, of: usize) -> Matrix<f32> {
        let values = (0..rows * columns).map(|i| ((i * 31 + of * 17) % 64) as f32 / 32.0 - 1.0);
        Matrix::from_values(rows, columns, values.collect())
    }

    /// Two teachers of rank 1 and 2, with 5 entities and 2 relations and their inverses.
    fn models() -> [Model<f32>; 2] {
        [Model::complex(wave(5, 2, 1), wave(4, 2, 2)), Model::complex(wave(5, 4, 3), wave(4, 4, 4))]
    }

    fn queries() -> Vec<Query> {
        let query = |i: u32| Query { head: EntityId(i % 5), relation: RelationId(i % 4) };
        (0..7).map(query).collect()
    }

    /// Asserts that the scores are sums with the weights `expected(query, teacher)`, computed one by one.
    fn assert_sums(weights: &TeacherWeights, expected: impl Fn(usize, usize) -> f32) {
        let models = models();
        let (mut found, mut scores) = (Matrix::default(), [Matrix::default(), Matrix::default()]);
        let scorer = WeightedTeachers { weights, models: models.iter().collect() };
        scorer.scores(&queries(), &mut found);
        models.iter().zip(&mut scores).for_each(|(model, scores)| model.scores(&queries(), scores));
        for query in 0..queries().len() {
            for entity in 0..5 {
                let sum: f32 = (0..2).map(|m| expected(query, m) * scores[m].row(query)[entity]).sum();
                let found = found.row(query)[entity];
                assert!((found - sum).abs() < 1e-5, "{query} {entity}: {found}, expected {sum}");
                let alone = scorer.scores_of(&queries(), EntityId(entity as u32))[query];
                assert!((alone - sum).abs() < 1e-5, "{query} {entity}: {alone}, expected {sum}");
            }
        }
    }

    #[test]
    fn scores_are_weighed_by_relation_and_added_up() {
        assert_sums(&TeacherWeights::even(4, 2), |_, _| 0.5);
        let table = wave(4, 2, 5);
        let weights = TeacherWeights::ByRelation(table.clone());
        assert_sums(&weights, |query, teacher| table.row(query % 4)[teacher]);
        let second = TeacherWeights::ByRelation(always(Strategy::of([1]), 4, 2));
        assert_sums(&second, |_, teacher| teacher as f32);
    }

    /// A policy with random layers for these teachers.
    fn policy(models: &[Model<f32>]) -> TeacherWeights {
        let vectors: Vec<Matrix<f32>> = models.iter().map(|model| Matrix::zeros(1, model.width())).collect();
        let mut generator = seed::generator(5, "test", 0);
        TeacherWeights::Policy(Policy::new(inputs(&vectors), 8, 3, 0.1, &mut generator).parameters())
    }

    #[test]
    fn a_policy_gives_each_query_the_mean_of_its_favourite() {
        let (models, weights) = (models(), policy(&models()));
        let mut vectors = [Matrix::default(), Matrix::default()];
        models.iter().zip(&mut vectors).for_each(|(model, vectors)| model.queries(&queries(), vectors));
        let found = weights.of(&queries(), &vectors);
        let allowed = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]];
        assert!((0..7).all(|query| allowed.iter().any(|of| found.row(query) == of)), "{found:?}");
        assert!((1..7).any(|query| found.row(query) != found.row(0)), "all alike: {found:?}");
        assert_sums(&weights, |query, teacher| found.row(query)[teacher]);
    }

    #[test]
    fn what_is_saved_is_read_again_and_of_no_other_teachers() {
        let (models, names) = (models(), ["structural", "textual"].map(|name| name.parse().unwrap()));
        let dir = tempfile::tempdir().unwrap();
        let run = stage::Run::new(dir.path());
        for (name, weights) in [("table", TeacherWeights::even(4, 2)), ("policy", policy(&models))] {
            let new = || Task::new(&run, "dsom-ensemble", dir.path().join(name), &(), 0);
            let (work, ()) = new().begin(false, || Ok(())).unwrap().unwrap();
            weights.tensors(&names).write(&work.path(FILE)).unwrap();
            work.finish(serde_json::json!({})).unwrap();
            let open = |models: &[&Model<f32>]| {
                TeacherWeights::open(&mut new(), &dir.path().join(name), &names, models)
            };
            assert_eq!(open(&[&models[0], &models[1]]).unwrap(), weights);
            let wider = Model::complex(wave(5, 6, 1), wave(6, 6, 2));
            let error = open(&[&wider, &models[1]]).unwrap_err();
            assert_eq!(error.kind(), stage::Kind::Data, "{error}");
        }
    }
}
