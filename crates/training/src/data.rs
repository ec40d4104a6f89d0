//! The inputs of training: the graph without its test split, and models of earlier stages.

use kge::checkpoint::TensorReader;
use kge::model::{even, normal};
use kge::{Backbone, Embedding, Initial, Matrix, Model, Shape};
use mkg::graph::{ENTITIES, RELATIONS, read_triples};
use mkg::{EntityId, KnownAnswers, Query, QuerySet, Split, Triple, Vocabulary};
use recipe::Training;
use stage::manifest::{self, Manifest};
use stage::task::Task;
use stage::{Error, Result, Run, seed};
use std::f64::consts::PI;
use std::path::Path;

/// The part of the graph that training sees.
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
    /// Reads the graph's folder and records the files as inputs of `task`.
    pub fn open(run: &Run, task: &mut Task) -> Result<Data> {
        let vocabulary = open_vocabulary(run, task)?;
        let train = open_triples(run, task, &vocabulary, Split::Train)?;
        let valid = open_triples(run, task, &vocabulary, Split::Valid)?;
        for (split, triples) in [(Split::Train, &train), (Split::Valid, &valid)] {
            if triples.is_empty() {
                let message = format!("the {split} split is empty");
                return Err(Error::data(message).at(run.graph().join(split.file())));
            }
        }
        Ok(Data::new(vocabulary, &train, valid))
    }

    /// The data with these triples.
    pub fn new(vocabulary: Vocabulary, train: &[Triple], valid: Vec<Triple>) -> Data {
        let relations = vocabulary.relations.len();
        let known = KnownAnswers::new([train, valid.as_slice()], relations);
        Data { queries: QuerySet::new(train, relations), valid, known, vocabulary }
    }

    /// Number of entities.
    pub fn entities(&self) -> usize {
        self.vocabulary.entities.len()
    }

    /// Number of relations, without inverses.
    pub fn relations(&self) -> usize {
        self.vocabulary.relations.len()
    }

    /// The largest number of queries in a batch of about `pairs` pairs.
    pub fn largest_batch(&self, pairs: usize) -> usize {
        pairs.min(self.queries.len())
    }

    /// The numbers of all training queries.
    pub fn numbers(&self) -> Vec<u32> {
        (0..self.queries.len() as u32).collect()
    }

    /// The training query with this number.
    pub fn query(&self, number: u32) -> Query {
        self.queries.query(number as usize)
    }

    /// The tails of the training query with this number.
    pub fn tails(&self, number: u32) -> &[EntityId] {
        self.queries.tails(number as usize)
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

/// Reads the model in a finished stage's `folder` and records it as an input of `task`. An error if the model is
/// broken, of another graph, or not of the backbone in the stage's manifest.
pub fn open_model(task: &mut Task, folder: &Path, vocabulary: &Vocabulary) -> Result<Model<f32>> {
    let path = task.stage_input(folder, crate::MODEL)?;
    let (entities, relations) = (vocabulary.entities.len(), vocabulary.relations.len());
    let model = Model::from_reader(&TensorReader::open(&path)?, entities, relations)?;
    let manifest = Manifest::read(folder)?;
    match manifest.parameters["training"]["backbone"].as_str() {
        Some(word) if word != model.backbone.word() => {
            let message = format!("a {} model, but {} says {word}", model.backbone, manifest::FILE);
            let hint = format!("rerun `{}` with --force", manifest.program);
            Err(Error::data(message).at(path).hint(hint))
        }
        _ => Ok(model),
    }
}

/// The number of reals of a relation's embedding in TuckER; the core has `RELATION_WIDTH` · 2k · 2k reals.
const RELATION_WIDTH: usize = 32;
/// Standard deviation of the initial embeddings.
const DEVIATION: f64 = 1e-3;

/// The shape of the model that these recipe keys define.
pub fn shape(training: &Training) -> Shape {
    Shape { backbone: training.backbone, rank: training.rank, relation_width: RELATION_WIDTH }
}

/// The initial parameters of the model `name`: entities (a free table, or a Xavier-initialised projection of
/// `features`), relations, and the core, if there is one.
pub fn initial(
    name: &str,
    seed: u64,
    training: &Training,
    data: &Data,
    features: Option<Matrix<f32>>,
) -> Initial<f32> {
    let shape = shape(training);
    let width = shape.embedding();
    let mut generator = seed::generator(seed, &format!("{name}/initial"), 0);
    let (relations, columns) = (2 * data.relations(), shape.relation_columns());
    let relation = match training.backbone {
        // Every phase is equally likely, because none is nearer to its final value than another.
        Backbone::RotatE => even(relations, columns, PI, &mut generator),
        _ => normal(relations, columns, DEVIATION, &mut generator),
    };
    let embedding = match features {
        None => Embedding::Table(normal(data.entities(), width, DEVIATION, &mut generator)),
        Some(features) => {
            // Glorot and Bengio (2010), the normal variant.
            let deviation = (2.0 / (features.columns() + width) as f64).sqrt();
            let projection = normal(features.columns(), width, deviation, &mut generator);
            Embedding::Projected { features, projection }
        }
    };
    // A query has unit variance if relation and head have it: the core alone must not make queries large.
    let core = match shape.core_rows() {
        0 => Matrix::zeros(0, 0),
        rows => normal(rows, width, (rows as f64).sqrt().recip(), &mut generator),
    };
    Initial { backbone: training.backbone, embedding, relation, core }
}
