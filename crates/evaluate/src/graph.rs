//! The graph with all its splits, which only the evaluation reads.

use mkg::{KnownAnswers, Split, Triple, Vocabulary};
use stage::task::Task;
use stage::{Error, Result, Run};
use training::{open_triples, open_vocabulary};

pub(crate) struct Graph {
    pub(crate) vocabulary: Vocabulary,
    /// The known answers in train and valid, and over all splits.
    known: [KnownAnswers; 2],
    /// The splits, in the order of [`Split::ALL`].
    splits: [Vec<Triple>; 3],
}

impl Graph {
    /// Reads the graph's folder and records its files as inputs of `task`.
    pub(crate) fn open(run: &Run, task: &mut Task) -> Result<Graph> {
        let vocabulary = open_vocabulary(run, task)?;
        let mut read = |split| open_triples(run, task, &vocabulary, split);
        let splits = [read(Split::Train)?, read(Split::Valid)?, read(Split::Test)?];
        Ok(Graph::new(vocabulary, splits))
    }

    pub(crate) fn new(vocabulary: Vocabulary, splits: [Vec<Triple>; 3]) -> Graph {
        let known = [&splits[..2], &splits]
            .map(|splits| KnownAnswers::new(splits.iter().map(Vec::as_slice), vocabulary.relations.len()));
        Graph { vocabulary, known, splits }
    }

    /// A graph with relations called `r0`, `r1`, ...
    #[cfg(test)]
    pub(crate) fn unnamed(entities: usize, relations: usize, splits: [Vec<Triple>; 3]) -> Graph {
        let relation = |i| mkg::Relation { key: format!("r{i}"), name: None };
        let entities = vec![mkg::Entity::default(); entities];
        Graph::new(Vocabulary { entities, relations: (0..relations).map(relation).collect() }, splits)
    }

    /// The filter of a split's ranks: for test, the known answers of all splits, else those of train and valid. So no
    /// figure that decides about a setting depends on test.
    pub(crate) fn known(&self, split: Split) -> &KnownAnswers {
        &self.known[usize::from(split == Split::Test)]
    }

    pub(crate) fn triples(&self, split: Split) -> &[Triple] {
        let [train, valid, test] = &self.splits;
        match split {
            Split::Train => train,
            Split::Valid => valid,
            Split::Test => test,
        }
    }

    pub(crate) fn relations(&self) -> usize {
        self.vocabulary.relations.len()
    }

    /// Refuses splits without a triple, because no figure is defined on them.
    pub(crate) fn require(&self, splits: &[Split]) -> Result<()> {
        match splits.iter().find(|split| self.triples(**split).is_empty()) {
            Some(split) => Err(Error::data(format!("the {split} split is empty"))
                .hint("name the others with --split, or hold out triples with `import.validation`")),
            None => Ok(()),
        }
    }
}
