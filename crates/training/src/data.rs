//! What training reads: the graph without its test split, and models that earlier stages trained.

use kge::checkpoint::Reader;
use kge::model::normal;
use kge::{ComplEx, Embedding, Matrix};
use mkg::graph::{ENTITIES, RELATIONS, read_triples};
use mkg::{KnownAnswers, QuerySet, Split, Triple, Vocabulary};
use stage::recipe::Training;
use stage::task::Task;
use stage::{Error, Result, Run, seed};
use std::path::Path;

/// The graph as training sees it.
pub struct Data {
    /// Entities and relations.
    pub vocabulary: Vocabulary,
    /// The training triples' distinct queries, both directions, with their tails: the neighbours.
    pub queries: QuerySet,
    /// The validation triples.
    pub valid: Vec<Triple>,
    /// The validation filter: known answers of train and valid.
    pub known: KnownAnswers,
}

impl Data {
    /// Reads the graph's folder and records what was read as inputs of `task`.
    pub fn open(run: &Run, task: &mut Task) -> Result<Data> {
        let vocabulary = open_vocabulary(run, task)?;
        let mut read = |split: Split| {
            let triples = open_triples(run, task, &vocabulary, split)?;
            if triples.is_empty() {
                let message = format!("the {split} split is empty");
                return Err(Error::data(message).at(run.graph().join(split.file())));
            }
            Ok(triples)
        };
        let (train, valid) = (read(Split::Train)?, read(Split::Valid)?);
        let relations = vocabulary.relations.len();
        let known = KnownAnswers::new([train.as_slice(), valid.as_slice()], relations);
        Ok(Data { queries: QuerySet::new(&train, relations), valid, known, vocabulary })
    }

    /// Number of entities.
    pub fn entities(&self) -> usize {
        self.vocabulary.entities.len()
    }

    /// Number of relations, without inverses.
    pub fn relations(&self) -> usize {
        self.vocabulary.relations.len()
    }

    /// The most queries a batch of about `pairs` pairs can hold.
    pub fn largest_batch(&self, pairs: usize) -> usize {
        pairs.min(self.queries.len())
    }
}

/// Reads the graph's entities and relations and records them as inputs of `task`.
pub fn open_vocabulary(run: &Run, task: &mut Task) -> Result<Vocabulary> {
    for table in [ENTITIES, RELATIONS] {
        task.stage_input(&run.graph(), table)?;
    }
    Vocabulary::read(&run.graph())
}

/// Reads one split's triples and records them as an input of `task`.
pub fn open_triples(
    run: &Run,
    task: &mut Task,
    vocabulary: &Vocabulary,
    split: Split,
) -> Result<Vec<Triple>> {
    let path = task.stage_input(&run.graph(), &split.file())?;
    read_triples(&path, vocabulary.entities.len(), vocabulary.relations.len())
}

/// Reads the model in a finished stage's `folder` and records it as an input of `task`.
pub fn open_model(task: &mut Task, folder: &Path, vocabulary: &Vocabulary) -> Result<ComplEx<f32>> {
    let path = task.stage_input(folder, crate::MODEL)?;
    ComplEx::from_reader(&Reader::open(&path)?, vocabulary.entities.len(), vocabulary.relations.len())
}

/// Initial parameters of the model called `name`: entities (a free table, or a Xavier-initialised projection of
/// `features` divided by `scale`) and relations.
pub fn embeddings(
    name: &str,
    seed: u64,
    training: &Training,
    data: &Data,
    features: Option<(Matrix<f32>, f64)>,
) -> (Embedding<f32>, Matrix<f32>) {
    let width = 2 * training.rank;
    let mut generator = seed::generator(seed, &format!("{name}/initial"), 0);
    let relation = normal(2 * data.relations(), width, training.init_scale, &mut generator);
    let embedding = match features {
        None => Embedding::Table(normal(data.entities(), width, training.init_scale, &mut generator)),
        Some((features, scale)) => {
            // Glorot and Bengio (2010), the normal form.
            let deviation = (2.0 / (features.columns() + width) as f64).sqrt();
            let projection = normal(features.columns(), width, deviation, &mut generator);
            Embedding::Projected { features, projection, scale }
        }
    };
    (embedding, relation)
}
