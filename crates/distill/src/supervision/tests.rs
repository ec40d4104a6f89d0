use dsom_soft_labels::SoftLabels;
use half::f16;
use mkg::{Query, QuerySet, RelationId};
use serde_json::Value;
use stage::Modality;

use recipe::{PolicyKeys, Term};

use super::*;
use crate::combine::LogSums;
use crate::strategy::strategies;

const GOLDEN: &str = include_str!("../../../../tests/golden/policy.json");

/// The golden file's rows as queries of a graph, and its triples as their tails.
struct Fixture {
    golden: Value,
    queries: QuerySet,
    labels: SoftLabels,
}

fn fixture() -> Fixture {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let teachers: Vec<Vec<Vec<f32>>> = serde_json::from_value(golden["teacher_logits"].clone()).unwrap();
    let rows: Vec<u32> = serde_json::from_value(golden["row"].clone()).unwrap();
    let targets: Vec<u32> = serde_json::from_value(golden["target"].clone()).unwrap();
    let pair = |(row, target): (&u32, &u32)| {
        (Query { head: EntityId(*row), relation: RelationId(0) }, EntityId(*target))
    };
    let queries = QuerySet::from_pairs(rows.iter().zip(&targets).map(pair).collect());
    assert_eq!(queries.len(), teachers[0].len(), "every row of the golden file has a triple");
    let of_query = |query: usize| teachers.iter().flat_map(move |scores| scores[query].clone());
    let scores: Vec<f16> = (0..queries.len()).flat_map(of_query).map(f16::from_f32).collect();
    let names = ["structural", "visual", "textual"].map(|name| name.parse::<Modality>().unwrap());
    let labels = SoftLabels::from_rows(names.to_vec(), teachers[0][0].len(), scores);
    Fixture { golden, queries, labels }
}

/// Visits every row of the golden student with one action per triple.
fn outcomes(fixture: &Fixture, rewarded: bool) -> Vec<RewardedAction> {
    let student: Vec<Vec<f32>> = serde_json::from_value(fixture.golden["student_logits"].clone()).unwrap();
    let rows: Vec<usize> = serde_json::from_value(fixture.golden["row"].clone()).unwrap();
    let targets: Vec<u32> = serde_json::from_value(fixture.golden["target"].clone()).unwrap();
    let actions: Vec<u16> = serde_json::from_value(fixture.golden["action"].clone()).unwrap();
    let action_of = |query: usize, tail: &EntityId| {
        let triple = (0..rows.len()).find(|i| rows[*i] == query && targets[*i] == tail.0).unwrap();
        Strategy(actions[triple])
    };
    let queries = &fixture.queries;
    let by_query: Vec<Vec<Strategy>> = (0..queries.len())
        .map(|q| queries.tails(q).iter().map(|tail| action_of(q, tail)).collect())
        .collect();
    let log_sums = LogSums::new(queries.len(), strategies(3));
    let objective = StudentObjective {
        queries,
        terms: Distillation::from(&Term::default()),
        supervision: Supervision::Strategies {
            teachers: Sources { labels: &fixture.labels, log_sums: &log_sums },
            actions: &by_query,
            reward: rewarded.then(|| Reward::from(&PolicyKeys::default())),
        },
    };
    let mut scratch = objective.scratch(student[0].len());
    let mut visit = |query: usize| {
        let mut scores = student[query].clone();
        objective.gradient(query, query, &mut scores, 1.0, &mut scratch).1.outcomes
    };
    (0..queries.len()).flat_map(&mut visit).collect()
}

#[test]
fn rewards_and_baselines_equal_the_reference() {
    let fixture = fixture();
    let found = outcomes(&fixture, true);
    let numbers = |name: &str| -> Vec<f64> { serde_json::from_value(fixture.golden[name].clone()).unwrap() };
    let (rewards, baselines) = (numbers("reward"), numbers("baseline"));
    let rows: Vec<usize> = serde_json::from_value(fixture.golden["row"].clone()).unwrap();
    let targets: Vec<u32> = serde_json::from_value(fixture.golden["target"].clone()).unwrap();
    assert_eq!(found.len(), rewards.len());
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|i| (rows[*i], targets[*i]));
    for (outcome, i) in found.iter().zip(order) {
        assert_eq!(
            (outcome.row, outcome.reward, outcome.baseline),
            (rows[i], rewards[i], baselines[i]),
            "triple {i}"
        );
    }
}

#[test]
fn combinations_equal_the_reference_to_half_precision() {
    let fixture = fixture();
    let mixed: Vec<Vec<Vec<f32>>> = serde_json::from_value(fixture.golden["mixed_logits"].clone()).unwrap();
    let log_sums = LogSums::new(mixed.len(), strategies(3));
    let mut scratch = Scratch::new(6);
    let sources = Sources { labels: &fixture.labels, log_sums: &log_sums };
    for (query, by_strategy) in mixed.iter().enumerate() {
        let teachers = sources.of(query);
        for (k, expected) in by_strategy.iter().enumerate() {
            let strategy = Strategy(k as u16);
            let log_sum = teachers.log_sum(strategy, &mut scratch);
            let exact = expected.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            assert!((log_sum - exact).abs() < 2e-3, "{log_sum}, exactly {exact}");
            // The second time it is remembered, to the same bits.
            assert_eq!(teachers.log_sum(strategy, &mut scratch), log_sum);
            teachers.combine(strategy, 1.0, &mut scratch);
            for (entity, (found, expected)) in scratch.combined.iter().zip(expected).enumerate() {
                assert!((found - expected).abs() < 2e-3, "{found}, expected {expected}");
                let score = teachers.score(strategy, EntityId(entity as u32));
                assert!((score - f64::from(*expected)).abs() < 2e-3);
            }
        }
    }
}

#[test]
fn without_a_policy_nothing_is_rewarded() {
    assert!(outcomes(&fixture(), false).is_empty());
}
