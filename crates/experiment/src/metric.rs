//! The figures of a table; each is a mean over queries.

use serde::{Deserialize, Serialize};

/// A figure that is computed from ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean reciprocal rank, in percent.
    Mrr,
    /// Mean rank.
    Mr,
    /// The share of ranks of at most 1, in percent.
    #[serde(rename = "hits_at_1")]
    HitsAt1,
    /// The share of ranks of at most 3, in percent.
    #[serde(rename = "hits_at_3")]
    HitsAt3,
    /// The share of ranks of at most 10, in percent.
    #[serde(rename = "hits_at_10")]
    HitsAt10,
}

impl Metric {
    /// All metrics, in the order of tables.
    pub const ALL: [Metric; 5] =
        [Metric::Mrr, Metric::Mr, Metric::HitsAt1, Metric::HitsAt3, Metric::HitsAt10];

    /// Name in recipes and results.
    pub fn as_str(self) -> &'static str {
        match self {
            Metric::Mrr => "mrr",
            Metric::Mr => "mr",
            Metric::HitsAt1 => "hits_at_1",
            Metric::HitsAt3 => "hits_at_3",
            Metric::HitsAt10 => "hits_at_10",
        }
    }

    /// Name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Metric::Mrr => "MRR",
            Metric::Mr => "MR",
            Metric::HitsAt1 => "Hits@1",
            Metric::HitsAt3 => "Hits@3",
            Metric::HitsAt10 => "Hits@10",
        }
    }

    /// The contribution of a rank to the metric; a rank may end in one half under the realistic rule.
    ///
    /// ```
    /// use dsom_experiment::Metric;
    /// assert_eq!([Metric::Mrr, Metric::Mr, Metric::HitsAt3].map(|metric| metric.of(4.0)), [25.0, 4.0, 0.0]);
    /// ```
    pub fn of(self, rank: f64) -> f64 {
        let hit = |k: f64| if rank <= k { 100.0 } else { 0.0 };
        match self {
            Metric::Mrr => 100.0 / rank,
            Metric::Mr => rank,
            Metric::HitsAt1 => hit(1.0),
            Metric::HitsAt3 => hit(3.0),
            Metric::HitsAt10 => hit(10.0),
        }
    }

    /// Returns whether figure `this` is better than figure `that`.
    pub fn better(self, this: f64, that: f64) -> bool {
        if self == Metric::Mr { this < that } else { this > that }
    }
}
