//! The graph with all its splits: what only the evaluation reads.

use mkg::{KnownAnswers, Split, Triple, Vocabulary};
use stage::task::Task;
use stage::{Error, Result, Run};
use training::{open_triples, open_vocabulary};

/// The graph with all its splits.
pub struct Graph {
    /// Entities and relations.
    pub vocabulary: Vocabulary,
    /// Known answers over all splits: the filter.
    pub known: KnownAnswers,
    /// In the order of [`Split::ALL`].
    splits: [Vec<Triple>; 3],
}

impl Graph {
    /// Reads the graph's folder and records what was read as inputs of `task`.
    pub fn open(run: &Run, task: &mut Task) -> Result<Graph> {
        let vocabulary = open_vocabulary(run, task)?;
        let mut read = |split| open_triples(run, task, &vocabulary, split);
        let splits = [read(Split::Train)?, read(Split::Valid)?, read(Split::Test)?];
        Ok(Graph::new(vocabulary, splits))
    }

    /// A graph of train, valid and test triples.
    pub fn new(vocabulary: Vocabulary, splits: [Vec<Triple>; 3]) -> Graph {
        let known = KnownAnswers::new(splits.iter().map(Vec::as_slice), vocabulary.relations.len());
        Graph { vocabulary, known, splits }
    }

    /// The triples of one split.
    pub fn triples(&self, split: Split) -> &[Triple] {
        match split {
            Split::Train => &self.splits[0],
            Split::Valid => &self.splits[1],
            Split::Test => &self.splits[2],
        }
    }

    /// Number of entities.
    pub fn entities(&self) -> usize {
        self.vocabulary.entities.len()
    }

    /// Number of relations, without inverses.
    pub fn relations(&self) -> usize {
        self.vocabulary.relations.len()
    }

    /// Refuses splits without a triple: no figure is defined on them.
    pub fn require(&self, splits: &[Split]) -> Result<()> {
        match splits.iter().find(|split| self.triples(**split).is_empty()) {
            Some(split) => Err(Error::data(format!("the {split} split is empty"))
                .hint("name the others with --split, or hold out triples with `import.validation`")),
            None => Ok(()),
        }
    }
}
