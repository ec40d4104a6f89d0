//! Fixtures that several tests share.

use dsom_soft_labels::SoftLabels;
use half::f16;
use mkg::{EntityId, Query, RelationId};
use serde::de::DeserializeOwned;
use serde_json::Value;
use stage::Modality;

/// A part of the golden values of the policy.
pub(crate) fn golden<T: DeserializeOwned>(name: &str) -> T {
    let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/policy.json")).unwrap();
    serde_json::from_value(golden[name].clone()).unwrap()
}

/// The names of the first `teachers` teachers, at most three.
pub(crate) fn names(teachers: usize) -> Vec<Modality> {
    ["structural", "textual", "visual"][..teachers].iter().map(|name| name.parse().unwrap()).collect()
}

/// Soft labels of these numbers of queries, teachers and entities, with scores `score(query, teacher, entity)`.
pub(crate) fn soft_labels(
    [queries, teachers, entities]: [usize; 3],
    score: impl Fn(usize, usize, usize) -> f32,
) -> SoftLabels {
    let mut rows = Vec::new();
    for query in 0..queries {
        for teacher in 0..teachers {
            rows.extend((0..entities).map(|entity| f16::from_f32(score(query, teacher, entity))));
        }
    }
    SoftLabels::from_rows(names(teachers), entities, rows)
}

/// The query with this head and relation 0.
pub(crate) fn query(head: u32) -> Query {
    Query { head: EntityId(head), relation: RelationId(0) }
}
