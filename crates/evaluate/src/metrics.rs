//! Mean ranks and hits.

use kge::{Rank, TieRule};
use serde::{Deserialize, Serialize};

/// Place of a triple that is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The tail of `(h, r, ?)`.
    Tail,
    /// The head of `(?, r, t)`.
    Head,
}

impl Direction {
    /// Both, in the order of [`kge::rank_triples`].
    pub const BOTH: [Direction; 2] = [Direction::Tail, Direction::Head];

    /// The direction of that name.
    pub fn of_name(name: &str) -> Option<Direction> {
        Direction::BOTH.into_iter().find(|direction| direction.as_str() == name)
    }

    /// `tail` or `head`.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Tail => "tail",
            Direction::Head => "head",
        }
    }

    /// The rank of this direction among a triple's two.
    pub fn of(self, ranks: &[Rank; 2]) -> Rank {
        match self {
            Direction::Tail => ranks[0],
            Direction::Head => ranks[1],
        }
    }
}

/// The figures of a set of ranks; all but the mean rank are fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Mean reciprocal rank.
    pub mrr: f64,
    /// Mean rank.
    pub mr: f64,
    /// Share of ranks of at most 1.
    pub hits_at_1: f64,
    /// Share of ranks of at most 3.
    pub hits_at_3: f64,
    /// Share of ranks of at most 10.
    pub hits_at_10: f64,
}

impl Figures {
    /// The figures of ranks under a tie rule; zeros if there is none.
    ///
    /// ```
    /// use dsom_evaluate::metrics::Figures;
    /// use kge::{Rank, TieRule};
    /// let ranks = [Rank { above: 0, tied: 0 }, Rank { above: 3, tied: 0 }];
    /// let figures = Figures::of(ranks.into_iter(), TieRule::Realistic);
    /// assert_eq!((figures.mrr, figures.mr, figures.hits_at_3), (0.625, 2.5, 0.5));
    /// ```
    pub fn of(ranks: impl Iterator<Item = Rank> + Clone, rule: TieRule) -> Figures {
        let count = ranks.clone().count().max(1) as f64;
        let mean =
            |value: fn(f64) -> f64| ranks.clone().map(|rank| value(rank.by(rule))).sum::<f64>() / count;
        let hit = |holds: bool| f64::from(u8::from(holds));
        let hits = |k: f64| ranks.clone().map(|rank| hit(rank.by(rule) <= k)).sum::<f64>() / count;
        Figures {
            mrr: mean(|rank| 1.0 / rank),
            mr: mean(|rank| rank),
            hits_at_1: hits(1.0),
            hits_at_3: hits(3.0),
            hits_at_10: hits(10.0),
        }
    }
}

/// Figures under all tie rules; the realistic ones stand at the top.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllRules {
    /// Under the realistic rule.
    #[serde(flatten)]
    pub realistic: Figures,
    /// Number of triples that were ranked.
    pub triples: usize,
    /// Under the optimistic rule.
    pub optimistic: Figures,
    /// Under the pessimistic rule.
    pub pessimistic: Figures,
}

impl AllRules {
    /// The figures of some `directions` of triples, pooled.
    pub fn of(ranks: &[[Rank; 2]], directions: &[Direction]) -> AllRules {
        let pooled = ranks.iter().flat_map(|ranks| directions.iter().map(|direction| direction.of(ranks)));
        AllRules {
            realistic: Figures::of(pooled.clone(), TieRule::Realistic),
            triples: ranks.len(),
            optimistic: Figures::of(pooled.clone(), TieRule::Optimistic),
            pessimistic: Figures::of(pooled, TieRule::Pessimistic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kge::rank::rank_in_row;
    use serde_json::Value;

    const GOLDEN: &str = include_str!("../../../tests/golden/ranks.json");

    fn field<T: serde::de::DeserializeOwned>(golden: &Value, name: &str) -> T {
        serde_json::from_value(golden[name].clone()).unwrap()
    }

    #[test]
    fn figures_equal_the_reference_under_every_rule() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let rows: Vec<Vec<f32>> = field(&golden, "scores");
        let targets: Vec<usize> = field(&golden, "target");
        let known: Vec<Vec<usize>> = field(&golden, "known");
        let rank = |i: usize| rank_in_row(&rows[i], targets[i], known[i].iter().copied());
        let rules = [
            ("optimistic", TieRule::Optimistic),
            ("realistic", TieRule::Realistic),
            ("pessimistic", TieRule::Pessimistic),
        ];
        for (name, rule) in rules {
            let figures = Figures::of((0..rows.len()).map(rank), rule);
            let found = [figures.mrr, figures.mr, figures.hits_at_1, figures.hits_at_3, figures.hits_at_10];
            for (found, key) in found.into_iter().zip(["MRR", "MR", "H@1", "H@3", "H@10"]) {
                let expected = golden[name][key].as_f64().unwrap();
                assert!((found - expected).abs() < 1e-12, "{name} {key}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn directions_are_pooled_by_rank_and_counted_by_triple() {
        let ranks = [[Rank { above: 0, tied: 0 }, Rank { above: 3, tied: 2 }]];
        let of = |directions: &[Direction]| AllRules::of(&ranks, directions);
        assert_eq!(of(&[Direction::Tail]).realistic.mr, 1.0);
        assert_eq!(of(&[Direction::Head]).realistic.mr, 5.0);
        let both = of(&Direction::BOTH);
        assert_eq!(
            (both.triples, both.realistic.mr, both.optimistic.mr, both.pessimistic.mr),
            (1, 3.0, 2.5, 3.5)
        );
    }
}
