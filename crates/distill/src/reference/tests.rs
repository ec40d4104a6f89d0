//! Compares the fast code with the equations.

use kge::{Matrix, Objective as _};
use mkg::{EntityId, QuerySet};
use proptest::prelude::*;
use rand::SeedableRng;
use recipe::{PolicyKeys, Softening};

use super::*;
use crate::combine::{Scratch, Sources};
use crate::fixture::{query, soft_labels};
use crate::objective::{self, Pass, RowBuffers};
use crate::policy::{Dense, Policy};
use crate::strategy::Strategy;
use crate::supervision::{RewardedAction, StudentObjective, Supervision};

/// All terms, with weights and temperatures that are not defaults.
fn terms(tau: f64) -> [Term; 7] {
    let softening = Softening { gamma: 1.5, tau, tau_squared: true };
    let (alpha, beta) = (0.7, 1.3);
    [
        Term::None,
        Term::Kd(softening),
        Term::Dkd { softening, alpha, beta },
        Term::Ndkd { softening, alpha, beta, neighbours: Neighbours::Mean },
        Term::Ndkd { softening, alpha, beta, neighbours: Neighbours::Sum },
        Term::Nekd { softening, alpha, neighbours: Neighbours::Mean },
        Term::Nnkd { softening, beta },
    ]
}

/// The fast value and gradient of a query's loss, halved; even tails have the first teacher, odd ones the second.
fn fast(term: &Term, teachers: &[Vec<f64>; 2], student: &[f64], tails: &[usize]) -> (f64, Vec<f64>) {
    let (mut scores, mut buffers) = (student.to_vec(), RowBuffers::new(student.len()));
    let ids: Vec<EntityId> = tails.iter().map(|tail| EntityId(*tail as u32)).collect();
    let terms = objective::terms(term);
    let mut pass = Pass::new(&mut scores, &ids, terms, &mut buffers);
    let (even, odd): (Vec<usize>, Vec<usize>) = (0..tails.len()).partition(|i| i % 2 == 0);
    let mut distillation = pass.distil(&mut teachers[0].clone(), &even, 0.5);
    if !odd.is_empty() {
        distillation += pass.distil(&mut teachers[1].clone(), &odd, 0.5);
    }
    (0.5 * (pass.finish(0.5) + terms.weight * distillation), scores)
}

proptest! {
    #[test]
    fn losses_and_gradients_equal_the_equations(
        student in prop::collection::vec(-6f64..6.0, 9),
        first in prop::collection::vec(-6f64..6.0, 9),
        second in prop::collection::vec(-6f64..6.0, 9),
        tails in prop::collection::btree_set(0usize..9, 1..9),
        which in 0usize..7,
        tau in 0.5f64..5.0,
    ) {
        let (term, teachers) = (terms(tau)[which], [first, second]);
        let tails: Vec<usize> = tails.into_iter().collect();
        let of_tails: Vec<Vec<f64>> = (0..tails.len()).map(|i| teachers[i % 2].clone()).collect();
        let (value, gradient) = fast(&term, &teachers, &student, &tails);
        let expected = |at: usize, by: f64| {
            let mut moved = student.clone();
            moved[at] += by;
            0.5 * student_loss(&term, &of_tails, &moved, &tails)
        };
        let of_here = expected(0, 0.0);
        prop_assert!((value - of_here).abs() < 1e-9 * (1.0 + of_here.abs()), "{value}, expected {of_here}");
        for (i, found) in gradient.iter().enumerate() {
            let difference = (expected(i, 1e-5) - expected(i, -1e-5)) / 2e-5;
            prop_assert!((difference - found).abs() < 1e-5 * (1.0 + found.abs()), "{i}: {found}, {difference}");
        }
    }
}

/// Scores of 12 entities that are exact in half precision.
fn scores(of: usize) -> Vec<f64> {
    (0..12).map(|entity| ((entity * 7 + of * 5) % 23) as f64 / 4.0 - 2.0).collect()
}

#[test]
fn the_policy_and_its_loss_equal_the_equations() {
    let teachers = [scores(1), scores(2)];
    let input = |teacher: usize| {
        let of_teacher = &teachers[teacher];
        let fill = move |query: usize, into: &mut [f64]| {
            into.copy_from_slice(of_teacher);
            into[0] += query as f64;
        };
        Box::new(Dense::new(12, fill)) as _
    };
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(2);
    let mut even = |rows: usize, columns: usize| kge::model::even::<f64>(rows, columns, 0.5, &mut generator);
    let layers = vec![even(12, 5), even(12, 5), even(1, 5), even(5, 3), even(1, 3)];
    let rows = |matrix: &Matrix<f64>| (0..matrix.rows()).map(|i| matrix.row(i).to_vec()).collect::<Vec<_>>();
    let (w1, w2) = (layers[..2].iter().flat_map(rows).collect::<Vec<_>>(), rows(&layers[3]));
    let (b1, b2) = (layers[2].row(0).to_vec(), layers[4].row(0).to_vec());
    let mut fast = Policy::of(vec![input(0), input(1)], layers, 0.1);
    fast.forward(&[0, 1, 2]);
    let outcome = |row: usize| RewardedAction {
        row,
        strategy: Strategy(row),
        reward: 1.0,
        baseline: -1.5 * row as f64,
    };
    let outcomes: Vec<RewardedAction> = (0..3).map(outcome).collect();
    let mut chosen = Vec::new();
    for query in 0..3 {
        let mut seen = teachers.to_vec();
        seen.iter_mut().for_each(|scores| scores[0] += query as f64);
        let expected = policy(&state(&seen), [(&w1, &b1), (&w2, &b2)]);
        for (found, expected) in fast.said.row(query).iter().zip(&expected) {
            assert!((found.exp() - expected).abs() < 1e-12, "{found}, expected {expected}");
        }
        chosen.push(expected[query]);
    }
    let advantages: Vec<f64> = outcomes.iter().map(RewardedAction::advantage).collect();
    let (found, expected) = (fast.reinforce(&outcomes), policy_loss(&advantages, &chosen));
    assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
}

#[test]
fn a_row_with_its_rewards_equals_the_equations() {
    let teachers = [scores(1), scores(2), scores(3)];
    let labels = soft_labels([1, 3, 12], |_, teacher, entity| teachers[teacher][entity] as f32);
    let sources = Sources::new(&labels, 1);
    let tails = [1, 4, 9];
    let queries = QuerySet::from_pairs(tails.map(|tail| (query(0), EntityId(tail as u32))).to_vec());
    let student = scores(6);
    for strategies in Strategy::every(3).windows(3) {
        let combined: Vec<Vec<f64>> = strategies
            .iter()
            .map(|strategy| combination(&teachers, &strategy.members().collect::<Vec<_>>()))
            .collect();
        let mut scratch = Scratch::new(12);
        let query = sources.of(0);
        let log_sum = query.log_sum(strategies[0], &mut scratch);
        let exact = combined[0].iter().map(|x| x.exp()).sum::<f64>().ln();
        assert!((log_sum - exact).abs() < 1e-5, "{log_sum}, exactly {exact}");
        // The second call returns the remembered number, with the same bits.
        assert_eq!(query.log_sum(strategies[0], &mut scratch), log_sum);
        assert!((query.score(strategies[0], EntityId(4)) - combined[0][4]).abs() < 1e-6);
        query.combine(strategies[0], 1.0, &mut scratch);
        let near = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() < 1e-6;
        assert!(scratch.combined.iter().zip(&combined[0]).all(near), "{:?}", scratch.combined);
        for term in &terms(2.0)[1..] {
            let (actions, keys) = ([strategies.to_vec()], PolicyKeys::default());
            let supervision =
                Supervision::Strategies { teachers: &sources, actions: &actions, reward: Some(&keys) };
            let objective =
                StudentObjective { queries: &queries, terms: objective::terms(term), supervision };
            let mut row: Vec<f32> = student.iter().map(|x| *x as f32).collect();
            let (loss, found) = objective.gradient(0, 0, &mut row, 1.0, &mut objective.scratch(12));
            let expected = student_loss(term, &combined, &student, &tails);
            assert!((loss - expected).abs() < 1e-4 * expected, "{term:?}: {loss}, expected {expected}");
            let all = combination(&teachers, &[0, 1, 2]);
            for (i, outcome) in found.outcomes.iter().enumerate() {
                assert_eq!(outcome.reward, super::reward(&combined[i], &student, tails[i]));
                assert_eq!(outcome.baseline, super::reward(&all, &student, tails[i]));
            }
            assert_eq!(found.outcomes.len(), 3);
        }
    }
}
