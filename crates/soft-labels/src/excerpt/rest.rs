//! Stand-in for the entities whose scores are left out.

use kge::{Real, row};

/// Summary of the scores of some entities, in two numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rest {
    /// `ln Σ exp(score)`; minus infinity of none.
    pub(crate) log_sum: f64,
    /// Their mean; 0 of none.
    pub(crate) mean: f64,
}

impl Rest {
    /// Summary of all `scores` but those of the entities `kept`; `buffer` is of the same length.
    pub(crate) fn of(scores: &[f32], kept: &[u32], count: usize, buffer: &mut [f32]) -> Rest {
        if count == 0 {
            return Rest { log_sum: f64::NEG_INFINITY, mean: 0.0 };
        }
        buffer.copy_from_slice(scores);
        kept.iter().for_each(|entity| buffer[*entity as usize] = f32::MASKED);
        let log_sum = row::log_sum_exp(buffer, 1.0);
        kept.iter().for_each(|entity| buffer[*entity as usize] = 0.0);
        Rest { log_sum, mean: f64::from(row::sum(buffer)) / count as f64 }
    }

    /// The score that stands for each of `count` entities at temperature `tau`.
    ///
    /// Softened, it sums to what their own scores sum to: exactly at τ = 1, as far as the second cumulant at any other,
    /// `τ ln (Σ exp(s / τ) / n) = μ + σ² / 2τ + …`, and it is their mean for an infinite τ.
    pub(crate) fn score(self, count: usize, tau: f64) -> f32 {
        let at_one = self.log_sum - (count as f64).ln();
        (self.mean + (at_one - self.mean) / tau) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_worked_out_by_hand() {
        // Without the second and the last: probabilities 1/2, 1/4, 1/4 of a sum of 8.
        let scores = [4.0f32, 1000.0, 2.0, 2.0, -3.0].map(|x| if x > 0.0 { x.ln() } else { x });
        let rest = Rest::of(&scores, &[1, 4], 3, &mut [0.0; 5]);
        let ln2 = std::f64::consts::LN_2;
        assert!((rest.log_sum - 3.0 * ln2).abs() < 1e-6, "{rest:?}");
        assert!((rest.mean - 4.0 / 3.0 * ln2).abs() < 1e-6, "{rest:?}");
        let (at_one, mean) = (3.0 * ln2 - 3f64.ln(), 4.0 / 3.0 * ln2);
        for (tau, expected) in [(1.0, at_one), (4.0, mean + (at_one - mean) / 4.0), (f64::INFINITY, mean)] {
            assert!((f64::from(rest.score(3, tau)) - expected).abs() < 1e-6, "{tau}");
        }
    }

    #[test]
    fn softened_sums_are_close_at_any_temperature() {
        let scores: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let rest = Rest::of(&scores, &[], 1000, &mut [0.0; 1000]);
        for tau in [1.0, 2.0, 4.0, 8.0] {
            let exact = row::log_sum_exp(&scores, 1.0 / tau as f32);
            let found = f64::from(rest.score(1000, tau)) / tau + 1000f64.ln();
            assert!((exact - found).abs() < 1e-3, "{tau}: {found}, exactly {exact}");
        }
    }

    #[test]
    fn entities_of_one_score_have_that_score_and_none_have_no_sum() {
        assert_eq!(Rest::of(&[0.0; 50], &[3], 49, &mut [0.0; 50]).score(49, 4.0), 0.0);
        let none = Rest::of(&[1.0, 2.0], &[0, 1], 0, &mut [0.0; 2]);
        assert_eq!((none.log_sum, none.mean), (f64::NEG_INFINITY, 0.0));
    }
}
