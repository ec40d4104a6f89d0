//! Passes over one row of scores: vectorised for the instruction set found at run time.
//!
//! A row of `E` scores fits the second-level cache, so several short passes cost little beside the matrix
//! products and read better than one long one. Sums run over a fixed number of lanes: the order of additions,
//! and so the result, depends on the length alone.

use pulp::Arch;

use crate::Real;

/// Partial sums per pass; a multiple of the widest vector.
const LANES: usize = 32;

/// Folds `step` over the elements of `$xs` (and of the other slices) in lanes, then over the lanes.
macro_rules! fold {
    ($start:expr, $join:expr, |$acc:ident, $($x:ident in $xs:ident),+| $step:expr) => {{
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let mut lanes = [$start; LANES];
                let whole = fold!(@len $($xs),+) / LANES * LANES;
                $(let $x = &$xs[..];)+
                let mut from = 0;
                while from < whole {
                    let to = from + LANES;
                    fold!(@chunk lanes, from, to, |$acc, $($x),+| $step);
                    from = to;
                }
                let rest = fold!(@len $($xs),+) - whole;
                for lane in 0..rest {
                    let $acc = lanes[lane];
                    $(let $x = $x[whole + lane];)+
                    lanes[lane] = $step;
                }
                lanes.into_iter().fold($start, $join)
            },
        )
    }};
    (@len $first:expr $(, $rest:expr)*) => { $first.len() };
    (@chunk $lanes:ident, $from:ident, $to:ident, |$acc:ident, $($x:ident),+| $step:expr) => {{
        $(let $x: &[_; LANES] = $x[$from..$to].try_into().expect("a chunk has LANES elements");)+
        for lane in 0..LANES {
            let $acc = $lanes[lane];
            $(let $x = $x[lane];)+
            $lanes[lane] = $step;
        }
    }};
}

/// The largest element; [`Real::MASKED`] of none.
pub fn max<T: Real>(xs: &[T]) -> T {
    fold!(T::MASKED, |a: T, b: T| a.larger(b), |acc, x in xs| x.larger(acc))
}

/// `Σ x`.
pub fn sum<T: Real>(xs: &[T]) -> T {
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, x in xs| acc + x)
}

/// `Σ exp((x - shift) · rate)`.
pub fn sum_exp<T: Real>(xs: &[T], shift: T, rate: T) -> T {
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, x in xs| acc + ((x - shift) * rate).exp())
}

/// `Σ (x - mean)²`.
pub fn sum_squares<T: Real>(xs: &[T], mean: T) -> T {
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, x in xs| acc + (x - mean) * (x - mean))
}

/// `Σ |re + i im|³`; both of one length.
pub fn sum_cubed_moduli<T: Real>(re: &[T], im: &[T]) -> T {
    assert_eq!(re.len(), im.len(), "rows of one length");
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, x in re, y in im| {
        let square = x * x + y * y;
        acc + square * square.sqrt()
    })
}

/// `Σ w (a - b)`; all of one length.
pub fn dot_difference<T: Real>(ws: &[T], a: &[T], b: &[T]) -> T {
    assert!(ws.len() == a.len() && ws.len() == b.len(), "rows of one length");
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, w in ws, a in a, b in b| acc + w * (a - b))
}

/// How many elements exceed `x`, and how many equal it.
pub fn count_above_and_equal<T: Real>(xs: &[T], x: T) -> (usize, usize) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            // 32-bit counters keep as many lanes as 32-bit scores.
            let (mut above, mut equal) = (0u32, 0u32);
            for &other in xs {
                above += u32::from(other > x);
                equal += u32::from(other == x);
            }
            (above as usize, equal as usize)
        },
    )
}

/// Whether every element is finite.
pub fn all_finite<T: Real>(xs: &[T]) -> bool {
    // x · 0 is 0 for finite x and NaN otherwise.
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, x in xs| acc + x * T::ZERO) == T::ZERO
}

/// `out = exp((x - shift) · rate)`.
pub fn exp_into<T: Real>(xs: &[T], shift: T, rate: T, out: &mut [T]) {
    assert_eq!(xs.len(), out.len(), "rows of one length");
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (out, &x) in out.iter_mut().zip(xs) {
                *out = ((x - shift) * rate).exp();
            }
        },
    );
}

/// `x = exp((x - shift) · rate)`.
pub fn exp_in_place<T: Real>(xs: &mut [T], shift: T, rate: T) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for x in xs.iter_mut() {
                *x = ((*x - shift) * rate).exp();
            }
        },
    );
}

/// `x = a · x`.
pub fn scale<T: Real>(xs: &mut [T], a: T) {
    Arch::new().dispatch(
        #[inline(always)]
        || xs.iter_mut().for_each(|x| *x *= a),
    );
}

/// `x = x + a · y`.
pub fn add_scaled<T: Real>(xs: &mut [T], a: T, ys: &[T]) {
    assert_eq!(xs.len(), ys.len(), "rows of one length");
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (x, &y) in xs.iter_mut().zip(ys) {
                *x += a * y;
            }
        },
    );
}

/// `ln Σ exp(x · rate)` without overflow, and the shift it was computed with.
pub fn log_sum_exp<T: Real>(xs: &[T], rate: T) -> f64 {
    let shift = max(xs);
    shift.to_f64() * rate.to_f64() + sum_exp(xs, shift, rate).to_f64().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn passes_equal_their_definitions(xs in prop::collection::vec(-30f32..30.0, 1..200)) {
            let wide: Vec<f64> = xs.iter().map(|x| f64::from(*x)).collect();
            prop_assert_eq!(max(&xs), xs.iter().copied().fold(f32::MIN, f32::max));
            let expected: f64 = wide.iter().map(|x| (x / 4.0).exp()).sum::<f64>().ln();
            prop_assert!((log_sum_exp(&xs, 0.25f32) - expected).abs() < 1e-5);
            prop_assert!((log_sum_exp(&wide, 0.25) - expected).abs() < 1e-12);
            let zeros = vec![0.0; wide.len()];
            let (dot, direct) = (dot_difference(&wide, &wide, &zeros), wide.iter().map(|x| x * x).sum::<f64>());
            prop_assert!((dot - direct).abs() <= 1e-12 * direct.abs());
            let above = xs.iter().filter(|x| **x > xs[0]).count();
            let equal = xs.iter().filter(|x| **x == xs[0]).count();
            prop_assert_eq!(count_above_and_equal(&xs, xs[0]), (above, equal));
        }
    }

    #[test]
    fn what_is_not_finite_is_found() {
        let mut xs = vec![1f32; 100];
        assert!(all_finite(&xs));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            xs[99] = bad;
            assert!(!all_finite(&xs));
        }
    }

    #[test]
    fn masked_entries_count_for_nothing() {
        let log_sum = log_sum_exp(&[1.0f32, f32::MASKED, 1.0], 0.25);
        assert!((log_sum - (0.25 + 2f64.ln())).abs() < 1e-6);
    }
}
