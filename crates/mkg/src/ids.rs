//! Ids, triples, queries, splits.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An entity, by its position in the graph's entity table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntityId(pub u32);

/// A relation, by its position in the graph's relation table; from `R` on, the inverses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RelationId(pub u32);

impl EntityId {
    /// Index into a table with one row per entity.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl RelationId {
    /// Index into a table with one row per relation and inverse.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The inverse, in a graph of `relations` relations; `inverse(inverse(r)) == r`.
    ///
    /// ```
    /// use mkg::RelationId;
    /// assert_eq!(RelationId(1).inverse(3), RelationId(4));
    /// assert_eq!(RelationId(4).inverse(3), RelationId(1));
    /// ```
    pub fn inverse(self, relations: usize) -> RelationId {
        let relations = relations as u32;
        RelationId(if self.0 < relations { self.0 + relations } else { self.0 - relations })
    }

    /// The relation itself and whether this is its inverse.
    pub fn base(self, relations: usize) -> (RelationId, bool) {
        if self.index() < relations { (self, false) } else { (self.inverse(relations), true) }
    }
}

/// A fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Triple {
    /// Whom it is about.
    pub head: EntityId,
    /// The statement; never an inverse.
    pub relation: RelationId,
    /// Whom it is said of.
    pub tail: EntityId,
}

impl Triple {
    /// A triple from bare ids.
    pub fn new(head: u32, relation: u32, tail: u32) -> Self {
        Triple { head: EntityId(head), relation: RelationId(relation), tail: EntityId(tail) }
    }

    /// `(h, r, ?)`, whose answer is the tail.
    pub fn tail_query(self) -> Query {
        Query { head: self.head, relation: self.relation }
    }

    /// `(t, r⁻¹, ?)`, whose answer is the head.
    pub fn head_query(self, relations: usize) -> Query {
        Query { head: self.tail, relation: self.relation.inverse(relations) }
    }
}

/// `(head, relation, ?)`, where the relation may be an inverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Query {
    /// The known entity.
    pub head: EntityId,
    /// The relation or inverse.
    pub relation: RelationId,
}

/// A part of the triples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Triples that models learn from.
    Train,
    /// Triples that choices (early stopping, parameters) are made on.
    Valid,
    /// Triples that only the evaluation opens.
    Test,
}

impl Split {
    /// All splits.
    pub const ALL: [Split; 3] = [Split::Train, Split::Valid, Split::Test];

    /// `train`, `valid` or `test`.
    pub fn as_str(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Valid => "valid",
            Split::Test => "test",
        }
    }

    /// The split's file in the graph's folder.
    pub fn file(self) -> String {
        format!("{self}.parquet")
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Split {
    type Err = stage::Error;

    fn from_str(text: &str) -> Result<Self, stage::Error> {
        Split::ALL.into_iter().find(|split| split.as_str() == text).ok_or_else(|| {
            stage::Error::usage(format!("`{text}` is not a split")).hint("use train, valid or test")
        })
    }
}
