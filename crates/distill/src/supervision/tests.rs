use dsom_soft_labels::SoftLabels;

use recipe::{PolicyKeys, Term};

use super::*;
use crate::combine::LogSums;
use crate::fixture::{golden, query, soft_labels};
use crate::objective::terms;
use crate::strategy::strategies;

/// The golden teachers' scores of the golden rows, taken as queries.
fn labels() -> SoftLabels {
    let teachers: Vec<Vec<Vec<f32>>> = golden("teacher_logits");
    let shape = [teachers[0].len(), 3, teachers[0][0].len()];
    soft_labels(shape, |query, teacher, entity| teachers[teacher][query][entity])
}

#[test]
fn rewards_and_baselines_equal_the_reference() {
    let (rows, targets): (Vec<u32>, Vec<u32>) = (golden("row"), golden("target"));
    let (actions, student): (Vec<usize>, Vec<Vec<f32>>) = (golden("action"), golden("student_logits"));
    let (rewards, baselines): (Vec<f64>, Vec<f64>) = (golden("reward"), golden("baseline"));
    // The triples by row, in the order of their tails.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|i| (rows[*i], targets[*i]));
    let pairs = order.iter().map(|i| (query(rows[*i]), EntityId(targets[*i])));
    let queries = QuerySet::from_pairs(pairs.collect());
    let by_query: Vec<Vec<Strategy>> = (order.chunk_by(|a, b| rows[*a] == rows[*b]))
        .map(|group| group.iter().map(|i| Strategy(actions[*i])).collect())
        .collect();
    assert_eq!((by_query.len(), queries.pairs()), (student.len(), rows.len()), "every row has a triple");
    let (labels, log_sums) = (labels(), LogSums::new(queries.len(), strategies(3)));
    let teachers = Sources { labels: &labels, log_sums: &log_sums };
    let rewarded = |reward: Option<Reward>| -> Vec<RewardedAction> {
        let supervision = Supervision::Strategies { teachers, actions: &by_query, reward };
        let objective = StudentObjective { queries: &queries, terms: terms(&Term::default()), supervision };
        let mut scratch = objective.scratch(6);
        let visit =
            |row| objective.gradient(row, row, &mut student[row].clone(), 1.0, &mut scratch).1.outcomes;
        (0..queries.len()).flat_map(visit).collect()
    };
    let found = rewarded(Some(Reward::from(&PolicyKeys::default())));
    assert_eq!(found.len(), rows.len());
    for (outcome, i) in found.iter().zip(order) {
        let found = (outcome.row as u32, outcome.reward, outcome.baseline);
        assert_eq!(found, (rows[i], rewards[i], baselines[i]), "triple {i}");
    }
    assert!(rewarded(None).is_empty(), "without a policy");
}

#[test]
fn combinations_equal_the_reference_to_half_precision() {
    let mixed: Vec<Vec<Vec<f32>>> = golden("mixed_logits");
    let (labels, log_sums) = (labels(), LogSums::new(mixed.len(), strategies(3)));
    let (sources, mut scratch) = (Sources { labels: &labels, log_sums: &log_sums }, Scratch::new(6));
    for (query, by_strategy) in mixed.iter().enumerate() {
        let teachers = sources.of(query);
        for (strategy, expected) in Strategy::every(3).into_iter().zip(by_strategy) {
            let log_sum = teachers.log_sum(strategy, &mut scratch);
            let exact = expected.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            assert!((log_sum - exact).abs() < 2e-3, "{log_sum}, exactly {exact}");
            // The second time it is remembered, to the same bits.
            assert_eq!(teachers.log_sum(strategy, &mut scratch), log_sum);
            teachers.combine(strategy, 1.0, &mut scratch);
            for (entity, (found, expected)) in (0..).zip(scratch.combined.iter().zip(expected)) {
                assert!((found - expected).abs() < 2e-3, "{found}, expected {expected}");
                let score = teachers.score(strategy, EntityId(entity));
                assert!((score - f64::from(*expected)).abs() < 2e-3);
            }
        }
    }
}
