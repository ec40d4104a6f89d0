use dsom_soft_labels::SoftLabels;
use recipe::{PolicyKeys, Term};

use super::*;
use crate::fixture::{golden, query, soft_labels};
use crate::objective::terms;

/// The soft labels of the golden queries.
fn labels() -> SoftLabels {
    let logits: Vec<Vec<Vec<f32>>> = golden("teacher_logits");
    soft_labels([4, 3, 6], |query, teacher, entity| logits[teacher][query][entity])
}

#[test]
fn rewards_and_baselines_equal_the_reference() {
    let (rows, targets): (Vec<u32>, Vec<u32>) = (golden("row"), golden("target"));
    let (actions, student): (Vec<usize>, Vec<Vec<f32>>) = (golden("action"), golden("student_logits"));
    let (rewards, baselines): (Vec<f64>, Vec<f64>) = (golden("reward"), golden("baseline"));
    // The triples by row, in the order of the rows' tails.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|i| (rows[*i], targets[*i]));
    let pairs = order.iter().map(|i| (query(rows[*i]), EntityId(targets[*i])));
    let queries = QuerySet::from_pairs(pairs.collect());
    let by_query: Vec<Vec<Strategy>> = (order.chunk_by(|a, b| rows[*a] == rows[*b]))
        .map(|group| group.iter().map(|i| Strategy(actions[*i])).collect())
        .collect();
    assert_eq!((by_query.len(), queries.pairs()), (student.len(), rows.len()), "every row has a triple");
    let labels = labels();
    let teachers = &Sources::new(&labels, queries.len());
    let rewarded = |reward: Option<&PolicyKeys>| -> Vec<RewardedAction> {
        let supervision = Supervision::Strategies { teachers, actions: &by_query, reward };
        let objective = StudentObjective { queries: &queries, terms: terms(&Term::default()), supervision };
        let mut scratch = objective.scratch(6);
        let visit =
            |row| objective.gradient(row, row, &mut student[row].clone(), 1.0, &mut scratch).1.outcomes;
        (0..queries.len()).flat_map(visit).collect()
    };
    let found = rewarded(Some(&PolicyKeys::default()));
    assert_eq!(found.len(), rows.len());
    for (outcome, i) in found.iter().zip(order) {
        let found = (outcome.row as u32, outcome.reward, outcome.baseline);
        assert_eq!(found, (rows[i], rewards[i], baselines[i]), "triple {i}");
    }
    assert!(rewarded(None).is_empty(), "without a policy");
}

#[test]
fn combinations_equal_the_golden_ones_to_half_precision() {
    let labels = labels();
    let (sources, mut scratch) = (Sources::new(&labels, 4), Scratch::new(6));
    for (query, mixed) in golden::<Vec<Vec<Vec<f32>>>>("mixed_logits").into_iter().enumerate() {
        for (strategy, expected) in mixed.into_iter().enumerate() {
            sources.of(query).combine(Strategy(strategy), 1.0, &mut scratch);
            let mut pairs = scratch.combined.iter().zip(&expected);
            assert!(pairs.all(|(found, expected)| (found - expected).abs() < 2e-3), "{query}, {strategy}");
        }
    }
}
