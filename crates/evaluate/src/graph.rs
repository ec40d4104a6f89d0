//! The graph with all its splits: what only the evaluation reads.

use mkg::{KnownAnswers, Split, Triple, Vocabulary};
use stage::task::Task;
use stage::{Error, Result, Run};
use training::{open_triples, open_vocabulary};

/// The graph with all its splits.
pub struct Graph {
    /// Entities and relations.
    pub vocabulary: Vocabulary,
    /// Known answers in train and valid, and over all splits.
    known: [KnownAnswers; 2],
    /// Splits, in the order of [`Split::ALL`].
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
        let relations = vocabulary.relations.len();
        let known_of =
            |splits: &[Vec<Triple>]| KnownAnswers::new(splits.iter().map(Vec::as_slice), relations);
        let known = [known_of(&splits[..2]), known_of(&splits)];
        Graph { vocabulary, known, splits }
    }

    /// Returns the filter of a split's ranks: the known answers of all splits for test, else of train and valid,
    /// so that no figure by which a setting is chosen depends on test.
    pub fn known(&self, split: Split) -> &KnownAnswers {
        &self.known[usize::from(split == Split::Test)]
    }

    /// The triples of one split.
    pub fn triples(&self, split: Split) -> &[Triple] {
        match split {
            Split::Train => &self.splits[0],
            Split::Valid => &self.splits[1],
            Split::Test => &self.splits[2],
        }
    }

    /// Iterates over the triples of the splits before `split`: train comes before valid, valid before test.
    pub fn before(&self, split: Split) -> impl Iterator<Item = &Triple> {
        Split::ALL
            .into_iter()
            .take_while(move |before| *before != split)
            .flat_map(|before| self.triples(before))
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
